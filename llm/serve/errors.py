"""Errors in the shape of the API that was asked: whatever is wrong with a request ends in one of these."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Scope

from llm.errors import UserError

# The names of google.rpc.Code by HTTP status.
GOOGLE_STATUS = {
    401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND", 408: "DEADLINE_EXCEEDED",
    429: "RESOURCE_EXHAUSTED",
}  # fmt: skip


class ApiError(Exception):
    """What a client is told, with the HTTP status."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, **headers: str
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def body(self) -> dict[str, Any]:
        """The JSON object, as OpenAI has it."""
        kind = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}.get(self.status)
        kind = kind or ("invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    def google_body(self) -> dict[str, Any]:
        """The JSON object, as Google has it."""
        status = GOOGLE_STATUS.get(self.status, "INVALID_ARGUMENT" if self.status < 500 else "INTERNAL")
        return {"error": {"code": self.status, "message": self.message, "status": status}}

    def hugging_face_body(self) -> dict[str, Any]:
        """The JSON object, as Hugging Face has it."""
        return {"error": self.message}

    def response(self, scope: Scope) -> JSONResponse:
        """The whole answer to a request, in the shape that its route has errors in."""
        route = scope.get("route")
        shaped = route if isinstance(route, ShapedRoute) else route_by_path(scope["path"])
        return JSONResponse(shaped.error_body(self), self.status, self.headers)


class ShapedRoute(APIRoute):
    """A route of an API that has a shape of its own for errors; a router names it by its `route_class`."""

    @staticmethod
    def error_body(error: ApiError, /) -> dict[str, Any]:
        """The JSON object of an error."""
        raise NotImplementedError


class OpenAIRoute(ShapedRoute):
    """A route of OpenAI's API."""

    error_body = staticmethod(ApiError.body)


class GoogleRoute(ShapedRoute):
    """A route of Google Cloud Natural Language's API."""

    error_body = staticmethod(ApiError.google_body)


class HuggingFaceRoute(ShapedRoute):
    """A route of Hugging Face's API."""

    error_body = staticmethod(ApiError.hugging_face_body)


def route_by_path(path: str) -> type[ShapedRoute]:
    """Whose route a path looks like, where none is known: for what the guard refuses, and for what isn't there."""
    if "/documents:" in path:
        return GoogleRoute
    return HuggingFaceRoute if path.startswith("/models/") else OpenAIRoute


def handle_errors(app: FastAPI) -> None:
    """Give every error of `app` the shape of the API that was asked."""

    @app.exception_handler(ApiError)
    async def ours(request: Request, error: ApiError) -> JSONResponse:
        return error.response(request.scope)

    @app.exception_handler(UserError)
    async def of_the_model(request: Request, error: UserError) -> JSONResponse:
        return from_user_error(error).response(request.scope)

    @app.exception_handler(RequestValidationError)
    async def of_the_schema(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body") or None
        message = f"{where}: {first['msg']}" if where else first["msg"]
        return ApiError(400, _ascii(message), param=_ascii(where), code=first["type"]).response(request.scope)

    @app.exception_handler(HTTPException)
    async def of_the_framework(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{error.detail}: {HTTPStatus(error.status_code).phrase}"
        shaped = ApiError(error.status_code, message)
        shaped.headers = dict(error.headers or {})
        return shaped.response(request.scope)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        return ApiError(500, "The server failed; its log says how.").response(request.scope)


def from_user_error(error: UserError) -> ApiError:
    """An error of ours as a client is told: what it can mend is a 400, what training broke is the server's."""
    return ApiError(400 if error.exit_code == 2 else 500, str(error))


def _ascii(text: str | None) -> str:
    """`text` that any encoder takes."""
    return (text or "").encode("ascii", "backslashreplace").decode()
