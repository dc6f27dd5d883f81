"""A decoder asked pairs as questions: its sources and targets are the pairs', and it writes what it would in a chat."""

import json

import torch

from llm.data import prepare
from llm.data.collators.base import Setting
from llm.data.collators.conversations import ConversationCollator, Conversing
from llm.data.sources import JsonLines
from llm.evaluation import EVALUATIONS, Subject
from llm.evaluation.pairs import answered_beside_targets
from llm.generation import complete
from llm.model import ModelConfig, Transformer, init_weights
from llm.tokenizer import ByteSpec, ChatTemplate
from llm.tokenizer.chat import CHATML

TOKENIZER = ByteSpec().build().with_chat_template(CHATML)
PAIRS = [(f"A question of {n}? It is long.", f"answer {n}") for n in range(6)] + [("no " * 60, "cut")]


class Chatting:
    needs_text = False

    def build(self, texts):
        return TOKENIZER

    def fingerprint(self):
        return TOKENIZER.hash


def test_sources_and_targets_are_the_pairs_and_answers_those_of_a_chat(tmp_path):
    lines = [json.dumps({"source": source, "target": target}) for source, target in PAIRS]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    source = Conversing(JsonLines([f"{tmp_path}/a.jsonl"], "source", "target", validation_share=1.0))
    stream = prepare(source, Chatting(), tmp_path / "shards", processes=1).validation
    config = ModelConfig(
        d_model=32, n_layers=1, n_heads=2, d_ff=48, vocab_size=TOKENIZER.vocab_size, context_length=64
    )
    model = Transformer(config)
    init_weights(model, 0)
    collate = ConversationCollator(Setting(TOKENIZER, 0, config))
    read, written, targets = answered_beside_targets(
        model, collate.samples(stream, 64, 0), TOKENIZER, limit=5
    )
    assert list(zip(read, targets, strict=True)) == PAIRS[:5]
    template = ChatTemplate(TOKENIZER)
    # Together as each alone.
    for source, text in zip(read, written, strict=True):
        asked = template.prompt([{"role": "user", "content": source}])
        how = {"max_new_tokens": 64 - len(asked), "stop_ids": template.stop_ids}
        assert [text] == complete(model, TOKENIZER, asked, **how)
    subject = Subject(model, TOKENIZER, stream, lambda: collate, lambda: None, 4, 0)
    with torch.no_grad():
        found = EVALUATIONS["summarization"](subject)
    # The one whose question fills the context is left out.
    assert found.examples == 6
    assert found.rows[0]["scores"]["copy_rouge1"][0] > 0
    assert EVALUATIONS["pairs"](subject).examples == 6
