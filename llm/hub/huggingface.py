"""The format that transformers loads: config, weights in safetensors, tokenizer, generation settings and a card."""

import json
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import save_torch_state_dict

from llm.files import share, write_atomically, write_json
from llm.hub import to_huggingface
from llm.hub.bert import gives_states
from llm.hub.export import About, card
from llm.model import Transformer
from llm.tokenizer import ChatTemplate, Tokenizer, ends_of, sentinels, start_token, writes_targets
from llm.tokenizer.huggingface import to_backend, tokenizer_config


@dataclass(frozen=True)
class Kind:
    """How transformers loads a kind of model, and Python that shows it at work with `model`, `tokenizer` and `text`.

    In `text` and `steps`, {begin} and {end} are the marks around a text that is read as a whole; the steps come before
    what is shown, and `note` says in Markdown what must be known of that.
    """

    auto_class: str
    task: str
    text: str
    shown: str
    steps: tuple[str, ...] = ()
    note: str = ""


WRITES = 'tokenizer.decode(model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=40)[0])'
CAUSAL = Kind("AutoModelForCausalLM", "text-generation", '"def main():"', WRITES)
# Here as in training, a document begins with the end of the one before it, and a source ends with one.
MASKED = Kind(
    "AutoModelForMaskedLM",
    "fill-mask",
    'tokenizer.eos_token + "for " + tokenizer.mask_token + " in range(10):"',
    'tokenizer.decode(model(**tokenizer(text, return_tensors="pt")).logits[0].argmax(-1))',
)
SPANS = Kind(
    "AutoModelForSeq2SeqLM",
    "text2text-generation",
    'tokenizer.eos_token + "for <extra_id_0> in range(10):"',
    WRITES,
)
PAIRS = Kind(
    "AutoModelForSeq2SeqLM", "text2text-generation", '"a source of yours" + tokenizer.eos_token', WRITES
)
LABELS = Kind(
    "AutoModelForSequenceClassification",
    "text-classification",
    '{begin} + "a text" + {end}',
    'model(**tokenizer(text, return_tensors="pt")).logits.softmax(-1), model.config.id2label',
)
WORDS = Kind(
    "AutoModelForTokenClassification",
    "token-classification",
    '{begin} + "a text" + {end}',
    '[model.config.id2label[int(label)] for label in model(**tokenizer(text, return_tensors="pt")).logits[0].argmax(-1)]',
    note="A word's tag is that of its first token; each word was encoded by itself.",
)
# A passage is of segment 1, and all that stands before it of segment 0.
ANSWERS = Kind(
    "AutoModelForQuestionAnswering",
    "question-answering",
    '{begin} + "a question" + {end} + "a passage" + {end}',
    "tokenizer.decode(ids[0, out.start_logits.argmax() : out.end_logits.argmax() + 1])",
    (
        'ids = tokenizer(text, return_tensors="pt")["input_ids"]',
        "marks = (ids == tokenizer.convert_tokens_to_ids({end})).long()",
        "out = model(ids, token_type_ids=(marks.cumsum(1) - marks >= marks.sum() - 1).long())",
    ),
    "An answer's end is the first token of its last word, and both its edges are the first position where there is none.",
)
TELLING = {"text": LABELS, "words": WORDS, "answer": ANSWERS}
STATES = Kind(
    "AutoModel",
    "feature-extraction",
    '"a text"',
    'model(**tokenizer(text, return_tensors="pt")).last_hidden_state.mean(1)',
)


def write(folder: Path, model: Transformer, tokenizer: Tokenizer, about: About) -> list[str]:
    """Write `model` into `folder` as transformers' own classes load it, without code; returns what to type next.

    A ConfigError says what transformers has no model or no tokenizer for, before anything is written.
    """
    pad = start_token(tokenizer)
    state, config = to_huggingface(model, model.config, end_of_text=tokenizer.end_of_text, pad=pad)
    backend = to_backend(tokenizer)
    kind = _kind(model, tokenizer)
    save_torch_state_dict(state, folder, max_shard_size=about.shard_bytes, metadata={"format": "pt"})
    for file in folder.glob("*.safetensors"):
        share(file)
    write_json(folder / "config.json", config)
    if model.config.architecture != "encoder":
        write_json(folder / "generation_config.json", _generation(config, tokenizer) | {"pad_token_id": pad})
    backend.save(str(folder / "tokenizer.json"))
    # A decoder reads text alone; for the others, a prompt must be able to hide something, and a chat's to begin a turn.
    as_text = kind is CAUSAL and tokenizer.chat_template is None
    settings = tokenizer_config(tokenizer, model.config.context_length, as_text=as_text)
    write_json(folder / "tokenizer_config.json", settings)
    header = {"library_name": "transformers", "pipeline_tag": kind.task, "tags": [config["model_type"]]}
    readme = card(
        model,
        about,
        header=header,
        use=_use(kind, about.name),
        notes=f"{_notes(settings)} {kind.note}".rstrip(),
    )
    write_atomically(folder / "README.md", readme)
    return _next(kind, about)


def _kind(model: Transformer, tokenizer: Tokenizer) -> Kind:
    if model.config.architecture == "encoder_decoder":
        return SPANS if sentinels(tokenizer) else PAIRS
    if model.config.architecture == "decoder":
        return replace(CAUSAL, text=PAIRS.text) if writes_targets(tokenizer) else CAUSAL
    if model.config.labels:
        return _marked(TELLING[model.config.labelled], tokenizer)
    return STATES if gives_states(model.config) else MASKED


def _marked(kind: Kind, tokenizer: Tokenizer) -> Kind:
    """`kind` with the marks that `tokenizer` has for a text as a whole."""
    named = zip(ends_of(tokenizer), ("tokenizer.cls_token", "tokenizer.sep_token"), strict=True)
    begin, end = ("tokenizer.eos_token" if id_ == tokenizer.end_of_text else name for id_, name in named)
    text, *steps = (line.format(begin=begin, end=end) for line in (kind.text, *kind.steps))
    return replace(kind, text=text, steps=tuple(steps))


def _generation(config: dict[str, Any], tokenizer: Tokenizer) -> dict[str, Any]:
    names = ("bos_token_id", "eos_token_id", "decoder_start_token_id")
    made = {name: config[name] for name in names if name in config}
    # A chat's answers end by another token than documents.
    return (
        made if tokenizer.chat_template is None else made | {"eos_token_id": ChatTemplate(tokenizer).stop_ids}
    )


def _use(kind: Kind, name: str) -> str:
    return "\n".join(
        [
            f"from transformers import {kind.auto_class}, AutoTokenizer",
            "",
            f"path = {json.dumps(name)}  # this folder, or its id on the hub",
            f"model = {kind.auto_class}.from_pretrained(path)",
            "tokenizer = AutoTokenizer.from_pretrained(path)",
            f"text = {kind.text}",
            *kind.steps,
            f"print({kind.shown})",
        ]
    )


def _notes(settings: dict[str, Any]) -> str:
    """What to know of the exported tokenizer."""
    end = settings["eos_token"]
    alone = f"The tokenizer adds no token to a text. In training, `{end}` stood between documents."
    if settings["split_special_tokens"]:
        return f"{alone} What a special token spells in a text stays text: give its id to mean it."
    return (
        f"{alone} It takes what spells a special token in a text for that token; load it with "
        "`split_special_tokens=True` where texts may hold such spellings by chance."
    )


def _next(kind: Kind, about: About) -> list[str]:
    code = [
        f"from transformers import {kind.auto_class} as M, AutoTokenizer as T",
        f"path = {json.dumps(str(about.out))}",
        "model, tokenizer = M.from_pretrained(path), T.from_pretrained(path)",
        f"text = {kind.text}",
        *kind.steps,
        f"print({kind.shown})",
    ]
    lines = [f"python -c {shlex.quote('; '.join(code))}"]
    if kind is CAUSAL:
        file = about.out.with_name(f"{about.out.name}.gguf")
        lines += [
            f"vllm serve {shlex.quote(str(about.out))}",
            f"llm export run={shlex.quote(str(about.run))} format=gguf out={shlex.quote(str(file))}"
            "    # for Ollama and llama.cpp",
        ]
    return lines
