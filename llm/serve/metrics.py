"""What Prometheus is told: requests, tokens, who runs and waits, and how long the first and the next tokens take."""

import time
from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import Scope

from llm.serve.worker import Worker

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """One server's figures, apart from those of any other in the process."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "llm_requests", "Answers by route and status", ["route", "status"], registry=registry
        )
        self.tokens = Counter("llm_tokens", "Tokens read and written", ["model", "kind"], registry=registry)
        self.running = Gauge("llm_requests_running", "Texts being written", ["model"], registry=registry)
        self.waiting = Gauge("llm_requests_waiting", "Texts that wait", ["model"], registry=registry)
        self.first = Histogram(
            "llm_time_to_first_token_seconds", "From a request to its first token", ["model"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.between = Histogram(
            "llm_time_between_tokens_seconds", "From a token to the next", ["model"],
            buckets=SECONDS, registry=registry,
        )  # fmt: skip

    def observe(self, scope: Scope, status: int) -> None:
        """Count an answer."""
        route = getattr(scope.get("route"), "path", "other")
        self.requests.labels(route, status).inc()

    def clock(self, model: str) -> "TokenClock":
        """A clock that starts now, for one text."""
        return TokenClock(self, model)

    def text(self, workers: Mapping[Worker, str]) -> bytes:
        """All figures in Prometheus' text format; `workers` have the names that they are counted by."""
        for worker, name in workers.items():
            self.running.labels(name).set(worker.running)
            self.waiting.labels(name).set(worker.in_flight - worker.running)
        return generate_latest(self._registry)


class TokenClock:
    """Times one text's tokens."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._metrics, self._model, self._last = metrics, model, time.perf_counter()
        self._next = metrics.first

    def tick(self) -> None:
        """A token has come."""
        now = time.perf_counter()
        self._next.labels(self._model).observe(now - self._last)
        self._metrics.tokens.labels(self._model, "written").inc()
        self._last, self._next = now, self._metrics.between
