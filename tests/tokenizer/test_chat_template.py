"""Chats as tokens: the ids and the loss mask are transformers' own, token by token, and no message spells a turn."""

import json

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers

from llm.errors import ConfigError, DataError
from llm.tokenizer import (
    ByteSpec,
    ChatTemplate,
    PretrainedSpec,
    SentencePieceSpec,
    default_template,
    load_tokenizer,
)
from llm.tokenizer.chat import CHATML, without_generation
from llm.tokenizer.huggingface import to_backend, tokenizer_config

transformers = pytest.importorskip("transformers")

# Headers and a default system text, as Llama 3's and Qwen's templates have them.
HEADERS = (
    "{{- bos_token }}\n{%- for message in messages %}\n"
    "    {%- set content = '<|start|>' + message['role'] + '<|end|>\n\n' + message['content'] | trim %}\n"
    "    {%- if message['role'] == 'assistant' %}{% generation %}\n"
    "        {{- message['content'] | trim if false else '' }}{{- content.split('\n\n', 1)[1] + '<|eot|>' }}\n"
    "    {%- endgeneration %}{% else %}{{- content + '<|eot|>' }}{% endif %}\n{%- endfor %}"
)
DEFAULT_SYSTEM = (
    "{% if messages[0]['role'] != 'system' %}{{ '<|start|>system\nBe kind.<|eot|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<|eot|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|eot|>' }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant\n' }}{% endif %}"
)
TALK = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "What is  two and two?\n"},
    {"role": "assistant", "content": "(Four.)"},
    {"role": "user", "content": "Sure? ü 你好"},
    {"role": "assistant", "content": "    Quite:\n\n  sure."},
]
TEXT = [f"{message['role']}\n{message['content']}" for message in TALK] * 40 + [
    f"number {n} ({n})" for n in range(300)
]


def byte_level(folder, template):
    """A byte-level BPE as Hugging Face's folders have it, with a template beside it."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    names = ["<|bos|>", "<|start|>", "<|end|>", "<|eot|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=400, special_tokens=names, initial_alphabet=alphabet)
    )
    backend.add_special_tokens([AddedToken(name, special=True) for name in names])
    backend.save(str(folder / "tokenizer.json"))
    side = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|bos|>", "eos_token": "<|eot|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps({**side, "chat_template": template}))
    return PretrainedSpec(str(folder)).build()


def ours(kind, folder):
    specs = {
        "byte": ByteSpec(),
        "bpe": SentencePieceSpec("bpe", 340),
        "unigram": SentencePieceSpec("unigram", 320),
        "plain": ByteSpec(["<unk>", "<pad>", "<|endoftext|>"]),
    }
    if kind not in specs:
        return byte_level(folder, {"headers": HEADERS, "default": DEFAULT_SYSTEM}[kind])
    tokenizer = specs[kind].build(TEXT)
    return tokenizer.with_chat_template(default_template(tokenizer))


def theirs(tokenizer, folder):
    """What transformers makes of an exported tokenizer."""
    if not (folder / "tokenizer.json").exists():
        to_backend(tokenizer).save(str(folder / "tokenizer.json"))
        settings = tokenizer_config(tokenizer, 1024, as_text=False)
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["byte", "bpe", "unigram", "plain", "headers", "default"])
def test_ids_and_mask_are_those_of_transformers(kind, tmp_path):
    tokenizer = ours(kind, tmp_path)
    template, hf = ChatTemplate(tokenizer), theirs(tokenizer, tmp_path)
    for talk in (TALK, TALK[1:3], TALK[1:], [TALK[1], TALK[4]]):
        wanted = hf.apply_chat_template(talk, return_dict=True, return_assistant_tokens_mask=True)
        stretches = template.stretches(talk)
        mask = [turn % 2 for turn, stretch in enumerate(stretches) for _ in stretch]
        assert np.concatenate(stretches).tolist() == wanted["input_ids"][: len(mask)]
        assert mask == wanted["assistant_masks"][: len(mask)]
        assert not any(wanted["assistant_masks"][len(mask) :])
        prompt = hf.apply_chat_template(talk[:-1], add_generation_prompt=True, return_dict=True)["input_ids"]
        assert template.prompt(talk[:-1]) == prompt
        assert template.stop_ids[0] == stretches[-1][-1]


@given(
    st.lists(
        st.sampled_from(["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<mask>", "a", "\n", "<|im_"]),
        min_size=1,
    )
)
def test_what_spells_a_special_token_stays_text(parts):
    tokenizer = ByteSpec().build().with_chat_template(CHATML)
    talk = [{"role": "user", "content": "".join(parts)}, {"role": "assistant", "content": "".join(parts)}]
    ids = np.concatenate(ChatTemplate(tokenizer).stretches(talk)).tolist()
    special = [id_ for id_ in ids if id_ in tokenizer.special_tokens.values()]
    start, end = (tokenizer.special_tokens[name] for name in ("<|im_start|>", "<|im_end|>"))
    assert special == [start, end, start, end]
    said = "".join(parts)
    assert tokenizer.decode(ids) == f"user\n{said}\nassistant\n{said}"


def test_a_message_may_hold_every_character_that_unicode_keeps_for_private_use():
    tokenizer = ByteSpec().build().with_chat_template(CHATML)
    private = "".join(
        map(chr, [*range(0xE000, 0xF900), *range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE)])
    )
    ids = ChatTemplate(tokenizer).prompt([{"role": "user", "content": f"<|im_end|>{private}"}])
    assert tokenizer.decode(ids) == f"user\n<|im_end|>{private}\nassistant\n"


@pytest.mark.parametrize("lone", [chr(0xD800), chr(0xDFFF)])
def test_a_message_that_is_no_unicode_is_refused(lone):
    template = ChatTemplate(ByteSpec().build().with_chat_template(CHATML))
    with pytest.raises(DataError, match="lone surrogate"):
        template.prompt([{"role": "user", "content": lone}])


def test_the_template_is_kept_with_the_tokenizer(tmp_path):
    tokenizer = ByteSpec().build()
    chatting = tokenizer.with_chat_template(CHATML)
    chatting.save(tmp_path / "t")
    assert load_tokenizer(tmp_path / "t").chat_template == CHATML
    assert load_tokenizer(tmp_path / "t").hash == chatting.hash != tokenizer.hash
    assert (tmp_path / "t/chat_template.jinja").read_text() == CHATML
    assert tokenizer.chat_template is None
    with pytest.raises(ConfigError, match="no chat template"):
        ChatTemplate(tokenizer)


def test_other_readers_need_no_generation_blocks():
    import jinja2

    plain = without_generation(CHATML)
    assert "generation %}" not in plain
    said = jinja2.Template(plain).render(messages=TALK[1:3])
    assert (
        said
        == "<|im_start|>user\nWhat is  two and two?\n<|im_end|>\n<|im_start|>assistant\n(Four.)<|im_end|>\n"
    )


@pytest.mark.parametrize(
    ("template", "kind", "message"),
    [
        ("{% for", ConfigError, "can't be read"),
        (
            "{{ raise_exception('Roles must alternate.') }}",
            DataError,
            "takes no such chat: Roles must alternate",
        ),
        ("{{ messages[7].content.nothing }}", DataError, "takes no such chat"),
        ("{{ ''.__class__.__mro__ }}", DataError, "unsafe"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", DataError, "recursion"),
        ("{{ messages | length }}", DataError, "turn after turn|otherwise once later"),
        ("{{ messages[0]['content'] }}", DataError, "no answer at all"),
    ],
)
def test_templates_that_are_none(template, kind, message):
    tokenizer = ByteSpec().build().with_chat_template(template)
    with pytest.raises(kind, match=message):
        ChatTemplate(tokenizer).stretches(TALK[1:])
