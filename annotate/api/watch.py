"""What is seen of every request: its id, one line in the log, its time in the metrics, and the mistake that ended it.

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
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.datastructures import MutableHeaders
from starlette.routing import Mount
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from annotate.api.problems import problem

log = logging.getLogger("annotate.request")
METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}


class Metrics:
    """What this process counts. Each application has a registry of its own, so that two in one process don't mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ["method", "route"]
        self.requests = Counter("concord_requests", "Requests answered", [*labels, "status"], registry=self.registry)
        self.seconds = Histogram(
            "concord_request_seconds", "From a request's head to the end of its answer", labels, registry=self.registry
        )


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
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        mistake: Exception | None = None
        try:
            await self.app(scope, receive, send_with_id)
        except Exception as error:
            mistake = error
        if mistake is not None and status == 0:
            told = f"The server made a mistake, and has written it down as {request_id}."
            await problem("server-error", told, request=request_id)(scope, receive, send_with_id)
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
            frames = traceback.extract_tb(mistake.__traceback__)
            facts["error"] = type(mistake).__name__
            facts["at"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
            log.error("%s %s failed", method, route, extra={"facts": facts})
        else:
            log.info("%s %s", method, route, extra={"facts": facts})


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
