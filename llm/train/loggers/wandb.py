"""Weights & Biases, never in the way: offline within seconds where its server can't be had."""

import contextlib
import http.client
import logging
import netrc
import re
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from lightning.pytorch.utilities import rank_zero_only

from llm.bounds import Positive
from llm.redaction import REDACTED, SECRET, SECRET_NAMES, redacted, redacted_text
from llm.train.loggers.base import LoggedRun, RunLogger, need

Mode = Literal["auto", "online", "offline", "disabled"]

FINISH_SECONDS = 60
# A key and its value inside an argument's own: {api_key: ...}, "api_key": "...", [a.token=...]. All that follows a
# bracket goes, however deep.
INNER = re.compile(
    rf"""((?:^|[\W_]){SECRET_NAMES}["']?\s*[:=]\s*)("[^"]*"|'[^']*'|[{{\[].*|[^\s,}}\]&#]+)""",
    re.IGNORECASE | re.DOTALL,
)
logger = logging.getLogger(__name__)


class WandB(RunLogger):
    """Logs to Weights & Biases under the run's own id, so that a resumed run stays one run.

    Every row carries `step`, which the plots use. W&B's own row number never falls, so that no row is dropped when
    a run goes on from an earlier step than was logged before. Secrets in the config and on the command line are
    redacted; neither code, nor a diff, nor the terminal is recorded.

    Args:
        run: what is logged.
        project: where it appears.
        entity: whose project; the account's default if None.
        group: what runs it belongs with.
        tags: words to find it by.
        notes: a longer description.
        mode: `auto` is online where there are a key and a network, and offline otherwise.
        timeout_seconds: how long the server may take to answer before the run goes offline.

    Raises:
        ConfigError: the package isn't installed.
    """

    def __init__(
        self,
        run: LoggedRun,
        *,
        project: str = "llm",
        entity: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        notes: str | None = None,
        mode: Mode = "auto",
        timeout_seconds: Positive = 5.0,
    ) -> None:
        super().__init__(run)
        need("wandb")
        self.mode = mode
        self.timeout_seconds = timeout_seconds
        about = {"project": project, "entity": entity, "group": group, "tags": list(tags), "notes": notes}
        self._about: dict[str, Any] = redacted(about)
        self._run: Any = None
        self._samples: list[list[Any]] = []

    @property
    def experiment(self) -> Any:
        """W&B's run, begun when first asked for; None on other ranks than 0."""
        if self._run is None and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            self._run = self._begin()
        return self._run

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Add figures to the row of `step`."""
        run = self.experiment
        if step is not None:
            run.log({**metrics, "step": step}, step=max(step, run.step))

    @rank_zero_only
    def log_samples(self, step: int, prompts: Sequence[str], texts: Sequence[str]) -> None:
        """Show what the model has written so far, as a table."""
        import wandb

        self._samples += [[step, prompt, text] for prompt, text in zip(prompts, texts, strict=True)]
        table = wandb.Table(columns=["step", "prompt", "text"], data=self._samples)
        self.log_metrics({"samples": table}, step)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Send what is left, for a minute at most."""
        if self._run is not None:
            self._run.finish(exit_code=0 if status == "success" else 1)
            self._run = None

    def _begin(self) -> Any:
        with redacted_arguments():
            if self.mode != "auto":
                return self._init(self.mode)
            mode, reason = available(self.timeout_seconds)
            if mode != "online":
                return self._offline(mode, reason)
            try:
                return self._init("online")
            except Exception as error:  # whatever the server made of it, training goes on
                return self._offline("offline", str(error))

    def _offline(self, mode: str, reason: str) -> Any:
        import wandb

        logger.warning(
            "W&B is %s: %s. Training goes on; upload later by `wandb sync`.", mode, redacted_text(reason)
        )
        # A refused run keeps its id taken in W&B's service process until that ends.
        wandb.teardown()
        return self._init(mode)

    def _init(self, mode: str) -> Any:
        import wandb

        run = wandb.init(
            dir=self.run.folder,
            id=self.run.run_id,
            name=self.run.name,
            config=redacted(dict(self.run.config)),
            allow_val_change=True,
            resume="allow" if mode == "online" else None,
            mode=mode,  # type: ignore[arg-type]
            settings=settings(self.timeout_seconds),
            **self._about,
        )
        run.define_metric("*", step_metric="step")
        return run


def settings(timeout_seconds: float) -> Any:
    """What W&B may record and how long it may take; a setting that an older W&B lacks is left out."""
    import wandb

    wanted: dict[str, Any] = {
        "console": "off",
        "disable_git": True,
        "save_code": False,
        "quiet": True,
        "init_timeout": timeout_seconds,
        "finish_timeout": FINISH_SECONDS,
    }
    return wandb.Settings(
        **{key: value for key, value in wanted.items() if key in wandb.Settings.model_fields}
    )


@contextlib.contextmanager
def redacted_arguments() -> Iterator[None]:
    """Hide secrets among the command's arguments, which W&B records."""
    arguments = sys.argv
    sys.argv = [redacted_argument(argument) for argument in arguments]
    try:
        yield
    finally:
        sys.argv = arguments


def redacted_argument(argument: str) -> str:
    """`key=value` without the value where a part of the key names a secret, and without the secrets in the value."""
    key, equals, _ = argument.partition("=")
    if equals and any(SECRET.search(part) for part in key.split(".")):
        return f"{key}={REDACTED}"
    return INNER.sub(rf"\1{REDACTED}", redacted_text(argument))


def available(timeout_seconds: float) -> tuple[str, str]:
    """Which mode W&B can run in, and why not online, found out within `timeout_seconds`."""
    import wandb

    known = wandb.setup().settings
    if known.mode != "online":
        return known.mode, f"WANDB_MODE={known.mode}"
    if not (known.api_key or getattr(known, "identity_token_file", None) or has_netrc(known.base_url)):
        return "offline", "there is no API key; `wandb login` sets one"
    reason = unreachable(known.base_url, timeout_seconds)
    return ("offline", reason) if reason else ("online", "")


def unreachable(url: str, timeout_seconds: float) -> str:
    """Why a server can't be reached within `timeout_seconds`; empty where it can."""
    answers: list[str] = []
    # In a thread, since looking up a name can hang for longer than any timeout says.
    probe = threading.Thread(target=lambda: answers.append(no_answer(url, timeout_seconds)), daemon=True)
    probe.start()
    probe.join(timeout_seconds)
    return answers[0] if answers else f"{url} didn't answer within {timeout_seconds:g} s"


def has_netrc(url: str) -> bool:
    """Whether ~/.netrc holds a key for the server; W&B's first address stands for its later ones."""
    hosts = {urllib.parse.urlsplit(url).netloc, "api.wandb.ai"}
    with contextlib.suppress(OSError, netrc.NetrcParseError):
        return bool(hosts & netrc.netrc().hosts.keys())
    return False


def no_answer(url: str, timeout_seconds: float) -> str:
    """Why a server can't be reached; empty where it answers, whatever it says."""
    try:
        urllib.request.urlopen(url, timeout=timeout_seconds).close()
    except urllib.error.HTTPError:
        return ""
    except OSError as error:
        return f"{url} can't be reached: {getattr(error, 'reason', error)}"
    except (ValueError, http.client.HTTPException) as error:
        # Whose words repeat parts of the address, which may hold a password.
        return f"{url} can't be asked: {type(error).__name__}"
    return ""
