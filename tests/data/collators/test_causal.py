import numpy as np

from llm.data.collators.base import Setting
from llm.data.collators.causal import CausalCollator
from llm.data.sampling.windows import IGNORED
from llm.model import ModelConfig
from llm.tokenizer import ByteSpec

SETTING = Setting(ByteSpec().build(), seed=0, model_config=ModelConfig(context_length=16))


def test_each_target_is_the_next_token() -> None:
    windows = np.arange(12, dtype=np.int64).reshape(2, 6)
    batch = CausalCollator(SETTING)(windows, np.array([7, 8]))
    assert batch.tokens_bt.tolist() == [[0, 1, 2, 3, 4], [6, 7, 8, 9, 10]]
    assert batch.targets_bk.tolist() == [[1, 2, 3, 4, 5], [7, 8, 9, 10, 11]]
    assert batch.indices_b.tolist() == [7, 8]


def test_nothing_past_the_end_is_scored_or_looked_up() -> None:
    windows = np.array([[5, 6, 7], [8, 9, IGNORED], [IGNORED] * 3], np.int64)
    batch = CausalCollator(SETTING)(windows, np.array([0, 1, -1]))
    assert batch.tokens_bt.tolist() == [[5, 6], [8, 9], [0, 0]]
    assert batch.targets_bk.tolist() == [[6, 7], [9, IGNORED], [IGNORED, IGNORED]]


def test_documents_are_told_apart_on_demand() -> None:
    end = SETTING.tokenizer.end_of_text
    windows = np.array([[5, 6, end, 7, end, 8]], np.int64)
    assert CausalCollator(SETTING)(windows, np.array([0])).documents_bt is None
    batch = CausalCollator(SETTING, within_documents=True)(windows, np.array([0]))
    assert batch.documents_bt.tolist() == [[0, 0, 1, 1, 2]]
