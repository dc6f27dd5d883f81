"""torchmetrics without its metrics, until somebody asks for one."""

import subprocess
import sys

import pytest

LIGHT = """
import llm.jobs.train, sys, lightning
assert not {"torchmetrics.functional", "scipy", "transformers"} & set(sys.modules)
"""
COMPLETE = """
import torch, torchmetrics
from torchmetrics.classification import MulticlassAccuracy
assert torchmetrics.Accuracy(task="multiclass", num_classes=3)(torch.tensor([1, 2]), torch.tensor([1, 1])) == 0.5
assert issubclass(MulticlassAccuracy, torchmetrics.Metric) and torchmetrics.__all__
assert torchmetrics.Metric is lightning.pytorch.core.module.Metric
assert torchmetrics.MetricCollection is lightning.pytorch.core.module.MetricCollection
"""
# A release whose package can't be filled so.
ANOTHER_RELEASE = """
import llm.light_imports, sys

def fill(module):
    import torchmetrics.utilities
    raise ImportError("another release")

llm.light_imports._fill = fill
import lightning
assert "torchmetrics.functional" in sys.modules
"""


@pytest.mark.parametrize("begun", [LIGHT, ANOTHER_RELEASE], ids=["light", "another release"])
def test_lightning_finds_what_it_needs_and_others_all(begun):
    done = subprocess.run([sys.executable, "-c", begun + COMPLETE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_who_asks_for_a_metric_hears_each_time_what_is_broken():
    asked = """
class Broken:
    def exec_module(self, module):
        raise ImportError("scipy is broken")

import torchmetrics
torchmetrics.__spec__.loader.complete = Broken()
for _ in range(2):
    try:
        torchmetrics.Accuracy
    except ImportError as error:
        assert str(error) == "scipy is broken"
    else:
        raise AssertionError("it was imported")
"""
    done = subprocess.run([sys.executable, "-c", LIGHT + asked], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_was_imported_before_stays_as_it_was():
    begun = "import torchmetrics, llm, lightning, sys; assert 'torchmetrics.functional' in sys.modules"
    assert subprocess.run([sys.executable, "-c", begun]).returncode == 0
