"""Errors as problem+json (RFC 9457): one sentence in `detail`, and the `rule` that a program can go by."""

import logging
import math
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from annotate.api.words import ENGLISH, language_of, translated
from annotate.services.refusals import RULES, Refused
from annotate.store.database import DatabaseFailed
from preferences.errors import BadInput

log = logging.getLogger("annotate")
_FRAMEWORK = {  # what the framework itself refuses
    400: ("bad-input", "This is no request that can be read."),
    404: ("not-found", "There is nothing at this address."),
    405: ("method-not-allowed", "Not with this method."),
    413: ("too-long", "This is too long."),
}


class Problem(BaseModel):
    """What every error of the API looks like."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="`urn:concord:` and the rule")
    title: str
    status: int
    detail: str = Field(description="one sentence for a person")
    rule: str = Field(description="which rule refused; docs/api.md lists them")


_AS_PROBLEM = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "a refusal", "content": _AS_PROBLEM},
    "5XX": {"description": "the server could not", "content": _AS_PROBLEM},
}


def problem(rule: str, detail: str, *, language: str = ENGLISH, **facts: object) -> JSONResponse:
    """The response that a refusal becomes; its title and detail in a language, as far as that has words for them."""
    status, title = RULES[rule]
    title, detail = translated(language, title), translated(language, detail)
    body = {"type": f"urn:concord:{rule}", "title": title, "status": status, "detail": detail, "rule": rule, **facts}
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    if "retry_after" in facts:
        headers["Retry-After"] = str(math.ceil(float(str(facts["retry_after"]))))
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def handle_problems(app: FastAPI) -> None:
    """Let the application answer every error with a problem document."""

    @app.exception_handler(Refused)
    def _refused(request: Request, error: Refused) -> JSONResponse:
        return problem(error.rule, error.detail, language=language_of(request), **error.facts)

    @app.exception_handler(DatabaseFailed)
    def _database_failed(request: Request, error: DatabaseFailed) -> JSONResponse:
        log.error("%s", error)  # where the database is, is nothing for raters
        failed = "The server's database failed; nothing was stored, try again."
        return problem("database-failed", failed, language=language_of(request))

    @app.exception_handler(BadInput)
    def _bad_input(request: Request, error: BadInput) -> JSONResponse:
        return problem("bad-input", f"{error}.", language=language_of(request))

    @app.exception_handler(RequestValidationError)
    def _bad_shape(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][1:])
        told = f"{key + ': ' if key else ''}{first['msg'].rstrip('.')}."
        return problem("bad-input", told, language=language_of(request))

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
        response = problem(*_FRAMEWORK.get(error.status_code, _FRAMEWORK[400]), language=language_of(request))
        response.headers.update(error.headers or {})  # Allow, with a 405
        return response

    describe(app)


def describe(app: FastAPI) -> None:
    """Add to the application's OpenAPI document what problems look like, and how to say who is asking."""
    made = app.openapi

    def openapi() -> dict[str, Any]:
        document = made()
        parts = document.setdefault("components", {})
        parts.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
        parts["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer", "description": "a personal token"},
            "session": {"type": "apiKey", "in": "cookie", "name": "concord_session", "description": "signed in"},
            "csrf": {"type": "apiKey", "in": "header", "name": "X-CSRF-Token", "description": "from GET /api/v1/me"},
        }
        document["security"] = [{"token": []}, {"session": [], "csrf": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]
