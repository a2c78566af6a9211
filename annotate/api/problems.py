"""Errors as problem+json (RFC 9457): one sentence in `detail`, and the `rule` that a program can go by."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from annotate.services.refusals import RULES, Refused
from annotate.store.database import DatabaseFailed
from preferences.errors import BadInput

log = logging.getLogger("annotate")
_BY_STATUS = {404: "not-found", 405: "method-not-allowed"}


class Problem(BaseModel):
    """What every error of the API looks like."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="`urn:concord:` and the rule")
    title: str
    status: int
    detail: str = Field(description="one sentence for a person")
    rule: str = Field(description="which rule refused; docs/api.md lists them")


PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Problem, "description": "a refusal", "content": {"application/problem+json": {}}},
    "5XX": {"model": Problem, "description": "the server could not", "content": {"application/problem+json": {}}},
}


def problem(rule: str, detail: str, **facts: object) -> JSONResponse:
    """The response that a refusal becomes."""
    status, title = RULES[rule]
    body = {"type": f"urn:concord:{rule}", "title": title, "status": status, "detail": detail, "rule": rule, **facts}
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def handle_problems(app: FastAPI) -> None:
    """Let the application answer every error with a problem document."""

    @app.exception_handler(Refused)
    def _refused(_request: Request, error: Refused) -> JSONResponse:
        return problem(error.rule, error.detail, **error.facts)

    @app.exception_handler(DatabaseFailed)
    def _database_failed(_request: Request, error: DatabaseFailed) -> JSONResponse:
        log.error("%s", error)  # where the database is, is nothing for raters
        return problem("database-failed", "The server's database failed; nothing was stored, try again.")

    @app.exception_handler(BadInput)
    def _bad_input(_request: Request, error: BadInput) -> JSONResponse:
        return problem("bad-input", f"{error}.")

    @app.exception_handler(RequestValidationError)
    def _bad_shape(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][1:])
        return problem("bad-input", f"{key + ': ' if key else ''}{first['msg']}")

    @app.exception_handler(HTTPException)
    def _http(_request: Request, error: HTTPException) -> JSONResponse:
        rule = _BY_STATUS.get(error.status_code)
        if rule is None:
            return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
        return problem(rule, "There is nothing at this address." if rule == "not-found" else "Not with this method.")
