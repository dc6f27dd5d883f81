"""What every route may ask its server for: the models by name, and the figures."""

from collections.abc import Iterator, Sequence
from typing import Annotated

from fastapi import Depends, Request

from llm.serve.errors import ApiError
from llm.serve.metrics import Metrics
from llm.serve.served import Served

# What huggingface_hub's client sends where nobody named a model.
UNNAMED = (None, "dummy")


class Registry:
    """The models of one server, in the order that they were named in."""

    def __init__(self, models: Sequence[Served]) -> None:
        self._by_name = {served.name: served for served in models}

    def __iter__(self) -> Iterator[Served]:
        return iter(self._by_name.values())

    def named(self, name: str | None) -> Served:
        """The model of that name; the only one where none is named; an ApiError where there is none."""
        if name in self._by_name:
            return self._by_name[name]
        if name in UNNAMED and len(self._by_name) == 1:
            return next(iter(self._by_name.values()))
        there = f"There is: {', '.join(self._by_name)}."
        if name is None:
            raise ApiError(400, f"model: several are served; name one of them. {there}", param="model")
        raise ApiError(404, f"There is no model {name!a}. {there}", param="model", code="model_not_found")


# Both are async, since FastAPI would send them to a thread otherwise.
async def _registry(request: Request) -> Registry:
    registry: Registry = request.app.state.registry
    return registry


async def _metrics(request: Request) -> Metrics:
    metrics: Metrics = request.app.state.metrics
    return metrics


Models = Annotated[Registry, Depends(_registry)]
Figures = Annotated[Metrics, Depends(_metrics)]
