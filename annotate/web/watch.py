"""Around every request: its id, the headers of its response, a line in the log, its time, the mistake that ended it.

Logs say who and which route, by number and by template. They never say what was asked for or answered: no query string,
body, name, token or cookie, and of an exception its type and place, since its message may quote any of them.
"""

import json
import logging
import secrets
import sys
import time
import traceback
from typing import Any

from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from annotate.api.operation import Metrics
from annotate.api.problems import problem
from annotate.api.words import language_of
from annotate.web.gate import PAGES, mount_of

log = logging.getLogger("annotate.request")
COMMON = "object-src 'none'; form-action 'self'; frame-ancestors 'none'"
# Gradio's front end builds functions from strings and inlines scripts; nothing may come from, or go to, elsewhere.
DRAWN_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; base-uri 'self'; "
    + COMMON
)
PLAIN_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; " + COMMON
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # not no-referrer, with which browsers send Origin: null with our own forms
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Watch:
    """A middleware around everything else. An exception that nobody handled becomes a problem document."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = secrets.token_hex(8)
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        began, path, status = time.perf_counter(), scope["path"], 0  # routing changes the path

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                _secure(headers, path)
            await send(message)

        mistake: Exception | None = None
        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            mistake = error
        if mistake is not None and status == 0:
            told = f"The server made a mistake, and has written it down as {request_id}."
            refusal = problem("server-error", told, language=language_of(HTTPConnection(scope)), request=request_id)
            await refusal(scope, receive, send_with_id)
        # With a response under way, all that is left is to break it off, which the server does when we return early.
        self._write_down(scope, path, status, time.perf_counter() - began, mistake)

    def _write_down(self, scope: Scope, path: str, status: int, seconds: float, mistake: Exception | None) -> None:
        method = scope["method"] if scope["method"] in METHODS else "other"
        route = template(scope, path)
        self.metrics.requests.labels(method, route, str(status)).inc()
        self.metrics.seconds.labels(method, route).observe(seconds)
        facts: dict[str, Any] = {
            "method": method,
            "route": route,
            "status": status,
            "milliseconds": round(1000 * seconds, 1),
            "request": scope["state"]["request_id"],
            "person": scope["state"].get("person"),
        }
        if mistake is not None:
            log.error("%s %s failed", method, route, extra={"facts": facts | facts_of(mistake)})
        else:
            log.info("%s %s", method, route, extra={"facts": facts})


def facts_of(mistake: BaseException) -> dict[str, Any]:
    """The type and the place of an exception, for the log, without its message."""
    frames = traceback.extract_tb(mistake.__traceback__)
    return {"error": type(mistake).__name__, "at": [f"{one.filename}:{one.lineno} {one.name}" for one in frames]}


def _secure(headers: MutableHeaders, path: str) -> None:
    headers.update(HEADERS)
    headers["Content-Security-Policy"] = DRAWN_POLICY if mount_of(path) else PLAIN_POLICY
    for name in [name for name in headers if name.startswith("access-control-")]:
        del headers[name]  # Gradio lets other sites read its pages
    if path.startswith("/static/"):
        headers["Cache-Control"] = "no-cache"  # ours change with the server, and import each other without a version
    elif not path.startswith(tuple(f"{mount}/assets/" for mount in PAGES)):
        headers["Cache-Control"] = "no-store"


def template(scope: Scope, path: str) -> str:
    """Which route answered, as in /api/v1/projects/{project_id}; for a mounted application /owner/*, else "none"."""
    app = scope.get("app")
    mounts = [route.path for route in app.routes if isinstance(route, Mount)] if isinstance(app, FastAPI) else []
    for mount in mounts:
        if path == mount or path.startswith(mount + "/"):
            return f"{mount}/*"
    return getattr(scope.get("route"), "path", "none")


class _Lines(logging.Formatter):
    """A record as one line: JSON, or text in which only the facts of a mistake are told."""

    def __init__(self, as_json: bool) -> None:
        super().__init__()
        self.as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        facts: dict[str, Any] = getattr(record, "facts", {})
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03}Z"
        message = record.getMessage()
        if record.exc_info and record.exc_info[0] is not None:  # of a library
            message += f" ({record.exc_info[0].__name__})"
        if self.as_json:
            head = {"time": when, "level": record.levelname.lower(), "message": message}
            return json.dumps({**head, **facts}, ensure_ascii=False, default=str)
        told = "".join(f" {name}={value}" for name, value in facts.items() if value is not None)
        return f"{when} {record.levelname.lower()}: {message}{told}"


def log_to_stderr(as_json: bool) -> None:
    """One line for each request as JSON, or as text only what went wrong."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(as_json))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("annotate").setLevel(logging.INFO if as_json else logging.WARNING)
