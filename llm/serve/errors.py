"""Errors in the shape of the API that was asked: whatever is wrong with a request ends in one of these."""

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from llm.errors import UserError
from llm.serve.faults import first_fault

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

    def response(self, path: str) -> JSONResponse:
        """The whole answer to a request for `path`."""
        if "/documents:" in path:
            body = self.google_body()
        elif path.startswith("/models/"):
            body = {"error": self.message}  # Hugging Face's
        else:
            body = self.body()
        return JSONResponse(body, self.status, self.headers)


def handle_errors(app: FastAPI) -> None:
    """Give every error of `app` this shape."""

    @app.exception_handler(ApiError)
    async def ours(request: Request, error: ApiError) -> JSONResponse:
        return error.response(request.url.path)

    @app.exception_handler(UserError)
    async def of_the_model(request: Request, error: UserError) -> JSONResponse:
        return from_user_error(error).response(request.url.path)

    @app.exception_handler(RequestValidationError)
    async def of_the_schema(request: Request, error: RequestValidationError) -> JSONResponse:
        fault = first_fault(error)
        where = None if fault.where is None else _ascii(fault.where)
        return ApiError(400, _ascii(fault.message), param=where, code=fault.kind).response(request.url.path)

    @app.exception_handler(HTTPException)
    async def of_the_framework(request: Request, error: HTTPException) -> JSONResponse:
        message = f"{error.detail}: {HTTPStatus(error.status_code).phrase}"
        shaped = ApiError(error.status_code, message)
        shaped.headers = dict(error.headers or {})
        return shaped.response(request.url.path)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> JSONResponse:
        return ApiError(500, "The server failed; its log says how.").response(request.url.path)


def from_user_error(error: UserError) -> ApiError:
    """An error of ours as a client is told: what it can mend is a 400, what training broke is the server's."""
    return ApiError(400 if error.exit_code == 2 else 500, str(error))


def _ascii(text: str) -> str:
    """`text` that any encoder takes."""
    return text.encode("ascii", "backslashreplace").decode()
