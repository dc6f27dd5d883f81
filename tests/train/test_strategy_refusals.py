"""What a strategy refuses before anything is made."""

import pytest

from llm import build
from llm.cli.compose import compose
from llm.errors import ConfigError
from llm.train import strategies


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_without_the_package_the_error_names_the_extra(monkeypatch, stage):
    monkeypatch.setattr(strategies, "find_spec", lambda name: None)
    config = compose("train", [f"strategy=deepspeed_zero{stage}"]).config
    with pytest.raises(ConfigError, match=r"pip install -e '\.\[deepspeed\]'"):
        build.check_installed(config)
