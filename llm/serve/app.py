"""The ASGI application: routes, errors and the guard around them, and workers that run while it does."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

from fastapi import Depends, FastAPI, Request, Response

from llm import __version__
from llm.serve.errors import handle_errors
from llm.serve.guard import Guard, Guarding
from llm.serve.metrics import Metrics
from llm.serve.registry import Registry
from llm.serve.routes import google, huggingface, openai, operations
from llm.serve.served import Served
from llm.serve.writing import Gone

LEFT = 499  # nginx's status for a client that has left, which nobody receives


def create_app(models: Sequence[Served], guarding: Guarding, frame_ancestors: Sequence[str] = ()) -> FastAPI:
    """The application that serves `models`, with a page that the sites `frame_ancestors` may show in a frame."""
    # The usual pages of documentation load scripts from elsewhere.
    app = FastAPI(title="llm", version=__version__, lifespan=_working, docs_url=None, redoc_url=None)
    app.state.registry, app.state.metrics = Registry(models), Metrics()
    app.state.frame_ancestors = tuple(frame_ancestors)
    handle_errors(app)
    app.add_exception_handler(Gone, _to_nobody)
    app.add_middleware(Guard, guarding=guarding, observe=app.state.metrics.observe)
    for routes in (operations, openai, google, huggingface):
        app.include_router(routes.router)
    app.include_router(google.router, prefix="/models/{name}", dependencies=[Depends(google.named_in_path)])
    return app


@asynccontextmanager
async def _working(app: FastAPI) -> AsyncIterator[None]:
    """Let every model's worker run inside."""
    loop = asyncio.get_running_loop()

    def hand_over(tell: Callable[[], None]) -> None:
        # A loop that has closed has nobody to tell.
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(tell)

    workers = dict.fromkeys(served.worker for served in app.state.registry)
    for worker in workers:
        worker.start(hand_over)
    yield
    for worker in workers:
        worker.stop()


async def _to_nobody(request: Request, error: Exception) -> Response:
    return Response(status_code=LEFT)
