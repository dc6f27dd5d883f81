"""metrics.csv after kills and resumes, W&B without a key, a network or a willing server, and TensorBoard."""

import csv
import http.server
import importlib.util
import io
import itertools
import math
import multiprocessing
import os
import re
import socket
import sys
import threading
import time
from types import SimpleNamespace

import lightning as L
import pytest
from lightning.pytorch.demos.boring_classes import BoringModel

from llm.build.training import loggers
from llm.errors import ConfigError, TrainingError
from llm.train.loggers import COLUMNS, LoggedRun, MetricsCSV, TensorBoard, WandB
from llm.train.loggers import wandb as wandb_logger
from llm.train.loggers.metrics_csv import read_metrics_rows
from tests.fake_wandb import FakeRun

FIGURES = {"tokens": 4096, "train/loss": 1 / 3, "train/bits_per_byte": 0.1, "lr": 1e-4, "mfu": 0.5}


def run_in(folder, resume_step=0, config=None):
    return LoggedRun(folder, "id1234", "a run", config or {}, resume_step)


def steps(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def test_columns_are_those_of_the_design():
    assert ",".join(COLUMNS) == (
        "step,tokens,train/loss,train/bits_per_byte,val/loss,val/bits_per_byte,lr,grad_norm,"
        "tokens_per_second,mfu,data_wait"
    )


def test_a_row_is_on_the_disk_at_once_in_full_precision(tmp_path):
    log = MetricsCSV(run_in(tmp_path))
    log.log_metrics({**FIGURES, "grad_norm": math.inf, "epoch": 3}, 10)
    assert (tmp_path / "metrics.csv").read_text() == (
        ",".join(COLUMNS) + "\n10,4096,0.3333333333333333,0.1,,,0.0001,inf,,0.5,\n"
    )


def test_metrics_csv_is_written_once_under_whatever_name_it_is_asked_for(tmp_path):
    names = ("llm.train.loggers.MetricsCSV", "llm.train.loggers.metrics_csv.MetricsCSV")
    board = {"_target_": "llm.train.loggers.TensorBoard"}
    nodes = {f"csv{number}": {"_target_": name} for number, name in enumerate(names)}
    config = {"name": "a", "packages": [], "logger": {**nodes, "board": board}}
    run = SimpleNamespace(folder=tmp_path, record={"id": "id1234"})
    assert [type(one) for one in loggers(config, run, 0)] == [MetricsCSV, TensorBoard]


@pytest.mark.parametrize("train_first", [True, False])
def test_training_and_validation_of_one_step_share_a_row(tmp_path, train_first):
    log = MetricsCSV(run_in(tmp_path))
    log.log_metrics(FIGURES, 10)
    for figures in [FIGURES, {"val/loss": 2.5}][:: 1 if train_first else -1]:
        log.log_metrics(figures, 20)
        log.save()
    log.log_metrics(FIGURES, 30)
    rows = read_metrics_rows(tmp_path / "metrics.csv")
    assert steps(tmp_path) == [10, 20, 30]
    assert (rows[1]["val/loss"], rows[1]["train/loss"], rows[2]["val/loss"]) == ("2.5", repr(1 / 3), "")


def test_a_shorter_row_leaves_nothing_of_the_longer_one_before(tmp_path):
    log = MetricsCSV(run_in(tmp_path))
    log.log_metrics({"train/loss": 1 / 3}, 10)
    log.log_metrics({"train/loss": 1.0}, 10)
    assert (tmp_path / "metrics.csv").read_text().splitlines()[1:] == ["10,,1.0,,,,,,,,"]


def test_going_on_from_an_earlier_step_leaves_no_row_twice(tmp_path):
    first = MetricsCSV(run_in(tmp_path))
    for step in (10, 20, 30, 40, 50):
        first.log_metrics(FIGURES, step)
    second = MetricsCSV(run_in(tmp_path, resume_step=40))
    second.log_metrics({"train/loss": 9.0}, 50)
    assert steps(tmp_path) == [10, 20, 30, 40, 50]
    assert read_metrics_rows(tmp_path / "metrics.csv")[-1]["train/loss"] == "9.0"


def test_a_fresh_run_starts_an_empty_file(tmp_path):
    MetricsCSV(run_in(tmp_path)).log_metrics(FIGURES, 10)
    MetricsCSV(run_in(tmp_path)).log_metrics(FIGURES, 5)
    assert steps(tmp_path) == [5]


def test_the_step_resumed_from_can_still_grow(tmp_path):
    MetricsCSV(run_in(tmp_path)).log_metrics(FIGURES, 40)
    MetricsCSV(run_in(tmp_path, resume_step=40)).log_metrics({"val/loss": 2.0}, 40)
    (row,) = read_metrics_rows(tmp_path / "metrics.csv")
    assert (row["train/loss"], row["val/loss"]) == (repr(1 / 3), "2.0")


@pytest.mark.parametrize(
    "torn",
    [
        "50,4096,0.33",
        "50",
        "50,4096,0.3,0.1,,,0.0001,,,0.5,",
        "\x00\x00",
        "5O,,,,,,,,,,\n",
        "50,,x,,,,,,,,\n",
    ],
)
def test_a_torn_last_line_is_dropped(tmp_path, torn):
    log = MetricsCSV(run_in(tmp_path))
    log.log_metrics(FIGURES, 10)
    log.finalize("failed")
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write(torn)
    assert len(read_metrics_rows(tmp_path / "metrics.csv")) == 1
    MetricsCSV(run_in(tmp_path, resume_step=10)).log_metrics(FIGURES, 20)
    assert steps(tmp_path) == [10, 20]


def test_rows_after_finalize_are_appended(tmp_path):
    log = MetricsCSV(run_in(tmp_path))
    for step in (10, 20, 30):
        log.log_metrics(FIGURES, step)
        log.finalize("success")
    assert steps(tmp_path) == [10, 20, 30]


def log_for_ever(folder, started):
    log = MetricsCSV(run_in(folder))
    for step in itertools.count(1):
        log.log_metrics({"train/loss": 1 / step}, step)
        log.log_metrics({"val/loss": 1 / step, "tokens": step}, step)
        started.set()


def test_a_kill_at_any_instant_leaves_whole_rows(tmp_path):
    context = multiprocessing.get_context("fork")
    started = context.Event()
    child = context.Process(target=log_for_ever, args=(tmp_path, started))
    child.start()
    assert started.wait(30)
    time.sleep(0.05)
    child.kill()
    child.join()
    rows = read_metrics_rows(tmp_path / "metrics.csv")
    assert [int(row["step"]) for row in rows] == list(range(1, len(rows) + 1))
    assert all(row["val/loss"] == repr(1 / int(row["step"])) for row in rows[:-1])


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_says_what_to_do(tmp_path):
    log = MetricsCSV(run_in(tmp_path))
    log._file = io.FileIO("/dev/full", "r+")
    with pytest.raises(TrainingError, match=r"metrics.csv.*step 10.*No space left.*Make room"):
        log.log_metrics(FIGURES, 10)
    log.finalize("failed")


def test_other_ranks_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.utilities.rank_zero_only.rank", 1)
    MetricsCSV(run_in(tmp_path)).log_metrics(FIGURES, 10)
    assert WandB(run_in(tmp_path)).experiment is None
    assert not list(tmp_path.iterdir())


KEY = "a" * 40


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A person who never heard of W&B."""
    import wandb

    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    wandb.teardown()
    yield tmp_path
    wandb.teardown()


def wandb_session(folder):
    """Log a little, with secrets about; gives the seconds until the run had begun."""
    config = {"logger": {"api_key": "config-secret"}, "lr": 0.5}
    log = WandB(run_in(folder, config=config), timeout_seconds=2)
    began = time.monotonic()
    assert log.experiment is not None
    seconds = time.monotonic() - began
    log.log_metrics({"train/loss": 1.0}, 10)
    log.log_samples(10, ["def"], ["def main(): pass"])
    log.finalize("success")
    return seconds


def recorded(folder):
    """What W&B wrote, once its service has ended: that writes the run's last lines after `finish` has returned."""
    import wandb

    wandb.teardown()
    return b"".join(path.read_bytes() for path in (folder / "wandb").rglob("*") if path.is_file())


def test_wandb_without_a_key_goes_offline_and_keeps_no_secret(home, monkeypatch, caplog):
    monkeypatch.setattr(sys, "argv", ["train.py", "other.hf_token=argument-secret", "optimizer.lr=0.5"])
    assert wandb_session(home) < 15
    assert "no API key" in caplog.text
    assert list((home / "wandb").glob("offline-run-*-id1234"))
    found = recorded(home)
    assert b"secret" not in found
    assert b"train/loss" in found
    assert b"def main(): pass" in found


class Refusing(http.server.BaseHTTPRequestHandler):
    """Answers, but never as W&B would."""

    def do_GET(self):
        self._say(200)

    def do_POST(self):
        self._say(401)

    def _say(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


def test_wandb_goes_offline_where_the_server_refuses(home, monkeypatch, caplog):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.server_port}")
    try:
        assert wandb_session(home) < 20
    finally:
        server.shutdown()
        server.server_close()
    assert "W&B is offline" in caplog.text
    assert list((home / "wandb").glob("offline-run-*-id1234"))
    assert KEY.encode() not in recorded(home)


def test_a_server_that_is_not_there_is_found_out_quickly(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        began = time.monotonic()
        assert re.search("didn't answer|timed out", wandb_logger.unreachable(url, 0.2))
        assert time.monotonic() - began < 2
    assert "refused" in wandb_logger.unreachable(url, 2.0)
    # Looking up a name can hang, and no timeout reaches it.
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(1) or [])
    began = time.monotonic()
    assert "didn't answer within 0.2 s" in wandb_logger.unreachable("http://nowhere.invalid", 0.2)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("server_step", [51, 0], ids=["online", "offline"])
def test_wandb_drops_no_row_of_a_resumed_run(tmp_path, server_step):
    log = WandB(run_in(tmp_path, resume_step=40))
    log._run = FakeRun(server_step)
    for step in (50, 60, 70):
        log.log_metrics({"train/loss": float(step)}, step)
        log.log_metrics({"val/loss": float(step)}, step)
    logged = [row["step"] for row in log._run.rows.values() if "train/loss" in row]
    assert logged[-2:] == [60, 70]
    assert [row["val/loss"] for row in log._run.rows.values()][-2:] == [60, 70]


def test_wandb_keeps_the_runs_id_and_the_place(tmp_path, monkeypatch):
    import wandb

    calls = []
    monkeypatch.setattr(wandb, "init", lambda **arguments: calls.append(arguments) or FakeRun())
    monkeypatch.setattr(wandb_logger, "available", lambda _: ("online", ""))
    config = {"optimizer": {"lr": 0.1}, "hub_token": "hf_123"}
    for _ in range(2):
        WandB(run_in(tmp_path, config=config), project="p", tags=["a"]).log_metrics({"train/loss": 1.0}, 1)
    assert len(calls) == 2
    for call in calls:
        assert (call["id"], call["resume"], call["dir"], call["project"]) == (
            "id1234",
            "allow",
            tmp_path,
            "p",
        )
        assert call["config"] == {"optimizer": {"lr": 0.1}, "hub_token": "<redacted>"}
        assert call["settings"].console == "off"


def test_wandb_says_online_only_where_asked(tmp_path, monkeypatch):
    import wandb

    def refuse(**arguments):
        if arguments["mode"] == "online":
            raise wandb.errors.CommError("no")
        return FakeRun()

    monkeypatch.setattr(wandb, "init", refuse)
    monkeypatch.setattr(wandb, "teardown", lambda: None)
    monkeypatch.setattr(wandb_logger, "available", lambda _: ("online", ""))
    WandB(run_in(tmp_path)).log_metrics({"train/loss": 1.0}, 1)
    with pytest.raises(wandb.errors.CommError):
        WandB(run_in(tmp_path), mode="online").log_metrics({"train/loss": 1.0}, 1)


def test_wandb_sees_the_command_without_its_secrets(tmp_path, monkeypatch):
    import wandb

    typed = ["train.py", "other.hf_token=argument-secret", "optimizer.lr=0.5"]
    seen = []
    monkeypatch.setattr(sys, "argv", typed)
    monkeypatch.setattr(wandb, "init", lambda **_: seen.extend(sys.argv) or FakeRun())
    WandB(run_in(tmp_path), mode="offline").log_metrics({"train/loss": 1.0}, 1)
    assert seen == ["train.py", "other.hf_token=<redacted>", "optimizer.lr=0.5"]
    assert sys.argv is typed


def test_an_address_with_a_password_is_not_shown(tmp_path, monkeypatch, caplog):
    url = "https://someone:hunter2@host.invalid"
    assert wandb_logger.no_answer(url, 0.2)
    monkeypatch.setattr(wandb_logger, "available", lambda _: ("disabled", wandb_logger.no_answer(url, 0.2)))
    WandB(run_in(tmp_path)).log_metrics({"train/loss": 1.0}, 1)
    assert "W&B is disabled: https://<redacted>@host.invalid can't be asked" in caplog.text
    assert "hunter2" not in caplog.text


def test_secrets_among_arguments():
    assert wandb_logger.redacted_argument("logger.wandb.api_key=x=y") == "logger.wandb.api_key=<redacted>"
    assert wandb_logger.redacted_argument("data.credentials.me=x") == "data.credentials.me=<redacted>"
    assert wandb_logger.redacted_argument("optimizer.lr=1") == "optimizer.lr=1"
    assert wandb_logger.redacted_argument("api_key") == "api_key"
    assert wandb_logger.redacted_argument("data.url=https://me:p@h/x") == "data.url=https://<redacted>@h/x"
    assert wandb_logger.redacted_argument("+x={a:{my_token: t},b:1}") == "+x={a:{my_token: <redacted>},b:1}"
    assert (
        wandb_logger.redacted_argument("""+x={'password': "a b", b: 1}""")
        == "+x={'password': <redacted>, b: 1}"
    )
    assert wandb_logger.redacted_argument("+x={b: 1, credentials: {me: {a: s}}}") == (
        "+x={b: 1, credentials: <redacted>"
    )


def test_tensorboard_forgets_what_came_after_the_resumed_step(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    first = TensorBoard(run_in(tmp_path))
    for step in (10, 20, 30, 40, 50):
        first.log_metrics({"train/loss": 1.0}, step)
    first.finalize("failed")
    time.sleep(1.01)  # event files are ordered by the second in their name
    second = TensorBoard(run_in(tmp_path, resume_step=40))
    second.log_metrics({"train/loss": 2.0}, 50)
    second.log_samples(50, ["def"], ["<script>\n# a"])
    second.finalize("success")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [
        (10, 1.0),
        (20, 1.0),
        (30, 1.0),
        (40, 1.0),
        (50, 2.0),
    ]
    (tag,) = [tag for tag in events.Tags()["tensors"] if tag.startswith("samples")]
    assert events.Tensors(tag)[0].tensor_proto.string_val[0] == b"    <script>\n    # a"


@pytest.mark.parametrize(("make", "package"), [(WandB, "wandb"), (TensorBoard, "tensorboard")])
def test_a_missing_package_names_its_extra(tmp_path, monkeypatch, make, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=rf"pip install -e '\.\[{package}\]'"):
        make(run_in(tmp_path))


def test_loggers_work_together_in_lightning(tmp_path):
    class Model(BoringModel):
        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)["loss"]
            self.log("train/loss", loss)
            return loss

    L.Trainer(
        accelerator="cpu",
        logger=[MetricsCSV(run_in(tmp_path)), TensorBoard(run_in(tmp_path))],
        max_steps=3,
        log_every_n_steps=1,
        enable_progress_bar=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        limit_val_batches=0,
    ).fit(Model())
    assert len(steps(tmp_path)) == 3
    assert list((tmp_path / "tensorboard").glob("events*"))
