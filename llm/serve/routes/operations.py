"""The routes for whoever runs the server: the page, health and Prometheus' figures."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from llm.serve.page import page_response
from llm.serve.registry import Figures, Models

router = APIRouter()


@router.get("/", include_in_schema=False)
async def chat_page(request: Request) -> Response:
    """The page to chat at."""
    return page_response(request.app.state.frame_ancestors)


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether the server answers."""
    return {"status": "ok"}


@router.get("/metrics", response_class=PlainTextResponse)
async def figures(models: Models, metrics: Figures) -> Response:
    """Prometheus' figures."""
    # Models that share a worker are counted by the first of them.
    workers = {served.worker: served.name for served in reversed(list(models))}
    return Response(metrics.text(workers), media_type="text/plain; version=0.0.4; charset=utf-8")
