"""Layouts over processes that can't be: refused with exit code 2 before a process is started or a file written."""

import pytest

from llm.cli.main import main
from llm.train import derive, strategies

GPUS = derive.Machine("cuda", devices=2, is_limited=True, has_bf16=True, peak_flops=lambda _: 1e12)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["strategy=fsdp", "trainer.devices=3"], "trainer.devices=3, but this machine has 2"),
        (["strategy=fsdp_tp", "trainer.devices=2"], "doesn't divide model.n_kv_heads=1"),
        (
            ["strategy=ddp", "trainer.devices=3", "trainer.accelerator=cpu"],
            "cannot be shared evenly by 3 processes: use 6",
        ),
        (["strategy=ddp", "trainer.devices=2", "data.micro_batch_size=3"], "does not divide the 4 sequences"),
        (["strategy=single", "trainer.devices=2"], "use strategy=ddp"),
        (["strategy=deepspeed_zero2", "trainer.devices=2"], "pip install -e '.[deepspeed]'"),
    ],
)
def test_what_cannot_be_is_refused(tiny, tmp_path, monkeypatch, capsys, words, message):
    given = {word.partition("=")[0] for word in words}
    kept = [word for word in tiny if word.partition("=")[0] not in given]
    if "trainer.accelerator=cpu" not in words:
        monkeypatch.setattr(derive, "this_machine", lambda _: GPUS)
    monkeypatch.setattr(strategies, "find_spec", lambda _: None)
    assert main(["train", *kept, *words, "name=a"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs/a").exists()
