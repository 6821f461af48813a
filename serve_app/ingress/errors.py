"""Errors as answers: `{"error": {"message", "type", "param", "code"}}`, everywhere."""

from collections.abc import Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Send

from domain.errors import BrainError, Retryable
from domain.turn import Turn
from serve_app.ingress.answers import Answer
from serve_app.ingress.shapes import error_json

_KINDS = {
    400: ("invalid_request_error", "invalid_request"),
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", "forbidden"),
    404: ("not_found_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    408: ("invalid_request_error", "body_too_slow"),
    409: ("conflict_error", "conflict"),
    413: ("invalid_request_error", "body_too_large"),
    414: ("invalid_request_error", "uri_too_long"),
    422: ("invalid_request_error", "invalid_request"),
    431: ("invalid_request_error", "head_too_large"),
}
NO_RETRY = {"x-should-retry": "false"}


class Problem(BrainError):
    """A request that the edge refuses; `status` is HTTP's."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.headers = status, param, headers or {}
        self.type, usual = _KINDS.get(status, ("internal_error", "internal_error"))
        self.code = code or usual


class AfterAcceptance(BrainError):
    """An error that came when the turn stood already: sending the message again would ask twice."""

    def __init__(self, error: BrainError, turn_id: str) -> None:
        super().__init__(str(error))
        self.status, self.type, self.code, self.param = error.status, error.type, error.code, turn_id
        self.headers = {**NO_RETRY, "retry-after": "1"} if error.status == 503 else NO_RETRY


def unknown_model(model: str) -> Problem:
    return Problem(404, f"the model {model!r} does not exist or is not allowed here", "model", "model_not_found")


def invalid(error: ValidationError, status: int) -> Problem:
    """The first thing that is wrong with a body, named by its path."""
    return _first(error.errors(include_url=False, include_context=False, include_input=False)[0], status)


def error_answer(
    status: int, message: str, kind: str, param: str | None, code: str | None, headers: dict[str, str] | None = None
) -> Answer:
    return Answer({"error": {"message": message, "type": kind, "param": param, "code": code}}, status, headers)


def answer_of(error: BrainError) -> Answer:
    headers = dict(getattr(error, "headers", ()))
    if isinstance(error, Retryable):
        headers["retry-after"] = str(error.retry_after)
    return error_answer(error.status, str(error), error.type, getattr(error, "param", None), error.code, headers)


def failed_turn(turn: Turn, headers: dict[str, str]) -> Answer:
    """The answer of a turn that failed: 504 where a time limit ended it, else 502."""
    error = {**error_json(turn.error or {}), "param": turn.id}
    return Answer({"error": error}, 504 if error["code"] == "provider_timeout" else 502, {**headers, **NO_RETRY})


def internal_error() -> Answer:
    return error_answer(500, "something went wrong in the service", "internal_error", None, "internal_error")


async def refuse_upgrade(send: Send, error: BrainError) -> None:
    """Answer a WebSocket's upgrade as any request is answered (ASGI, "WebSocket Denial Response")."""
    answer = answer_of(error)
    await send({"type": "websocket.http.response.start", "status": answer.status_code, "headers": answer.raw_headers})
    await send({"type": "websocket.http.response.body", "body": bytes(answer.body)})


def add_error_answers(app: FastAPI) -> None:
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, BrainError)
        return answer_of(error)

    async def wrong_parameter(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return answer_of(_first(error.errors()[0], 422))

    async def unrouted(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        words = {404: "there is no such route", 405: "this route does not take this method"}
        problem = Problem(error.status_code, words.get(error.status_code, "the request cannot be read"))
        problem.headers = dict(error.headers or {})
        if error.status_code == 405:
            problem.headers = {"allow": ", ".join(sorted(_methods(app.routes, request.scope.get("route"))))}
        return answer_of(problem)

    app.add_exception_handler(BrainError, refused)
    app.add_exception_handler(RequestValidationError, wrong_parameter)
    app.add_exception_handler(HTTPException, unrouted)


def _methods(routes: Iterable[Any], route: Any) -> set[str]:
    """Those of all routes with the path of `route`: the framework names those of one alone."""
    found: set[str] = set()
    for one in routes:
        included = getattr(one, "original_router", None)
        if included is not None:
            found |= _methods(included.routes, route)
        elif getattr(one, "path", None) == getattr(route, "path", ""):
            found |= one.methods or set()
    return found


def _first(error: Any, status: int) -> Problem:
    path = [str(step) for step in error["loc"] if step not in ("query", "path", "header", "body")]
    param = ".".join(path) or None
    return Problem(status, f"{param}: {error['msg']}" if param else str(error["msg"]), param)
