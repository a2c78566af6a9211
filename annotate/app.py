"""One web application: the login pages, the REST API, and the Gradio pages of raters and owners."""

import logging
import os
import socket
from urllib.parse import quote

# Before Gradio is imported: it phones home unless told not to.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import gradio as gr
import uvicorn
from anyio.to_thread import run_sync
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from annotate.api.routes import router as api
from annotate.api.security import find_visitor
from annotate.services.people import memberships
from annotate.store.database import Database
from annotate.web.login import STATIC, message_page
from annotate.web.login import router as login
from annotate.web.owner import owner_page
from annotate.web.rater import rater_page
from preferences.errors import BadInput

# Gradio's front end builds functions from strings and inlines scripts; nothing may come from, or go to, elsewhere.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}
LONGEST_BODY = 1_000_000  # bytes of a request
log = logging.getLogger("uvicorn.error")


def build_app(database: Database) -> FastAPI:
    """The whole application on one database."""
    app = FastAPI(title="Concord annotate", docs_url=None, redoc_url=None, openapi_url="/api/openapi.json")
    app.state.database = database
    app.include_router(login)
    app.include_router(api)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.exception_handler(BadInput)
    def _database_failed(_request: Request, error: BadInput) -> JSONResponse:
        log.error("%s", error)  # where the database is, is nothing for raters
        return JSONResponse({"detail": "The server's database failed."}, status_code=503)

    @app.exception_handler(RequestValidationError)
    def _bad_shape(_request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"][1:])
        return JSONResponse({"detail": f"{key + ': ' if key else ''}{first['msg']}"}, status_code=422)

    def who(request: Request) -> str | None:
        found = find_visitor(database, request)
        return found.person.login if found else None

    for path, page in (("/rate", rater_page()), ("/owner", owner_page(database))):
        gr.mount_gradio_app(
            app,
            page,
            path=path,
            auth_dependency=who,
            footer_links=[],
            run_history=False,
            show_error=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            max_file_size=0,
            theme=_theme(),
            head=_head(path),
        )
    app.add_middleware(Gate, database=database)
    return app


class Gate:
    """Who may see which page, decided on every request; how long a request may be; headers of every response."""

    def __init__(self, app: ASGIApp, database: Database) -> None:
        self.app = app
        self.database = database

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                for name in [name for name in headers if name.startswith("access-control-")]:
                    del headers[name]  # Gradio lets other sites read its pages
                if not scope["path"].startswith(("/static", "/rate/assets", "/owner/assets")):
                    headers["Cache-Control"] = "no-store"
            await send(message)

        received = 0

        async def receive_some() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message if received <= LONGEST_BODY else {"type": "http.disconnect"}

        request = Request(scope)
        refusal: ASGIApp | None = None
        if int(request.headers.get("content-length", 0)) > LONGEST_BODY:
            refusal = JSONResponse({"detail": f"This is too long; send at most {LONGEST_BODY} bytes."}, 413)
        elif scope["path"].startswith(("/rate", "/owner")):
            refusal = await run_sync(self._refusal, request)
        await (refusal or self.app)(scope, receive_some, send_with_headers)

    def _refusal(self, request: Request) -> ASGIApp | None:
        """The response to a request that may not go on to a Gradio page, or None if it may."""
        path = request.url.path
        part = "owner" if path.startswith("/owner") else "rater"
        found = find_visitor(self.database, request)
        if found is None:
            if request.method == "GET" and path.rstrip("/") in ("/rate", "/owner"):
                wanted = path + (f"?{request.url.query}" if request.url.query else "")
                return RedirectResponse(f"/login?next={quote(wanted)}", status_code=303)
            return JSONResponse({"detail": "You are signed out; sign in again."}, status_code=401)
        with self.database.read() as session:
            parts = memberships(session, found.person.id, part)
        if not parts:
            return message_page("This page is not yours", f"It is for {part}s, and you are none in any project.", 403)
        if part == "rater" and request.method not in ("GET", "HEAD"):
            # The rater's Gradio page has no events, and its files API is not for raters.
            return JSONResponse({"detail": "There is nothing to post here."}, status_code=405)
        if path in ("/rate", "/owner"):  # Starlette would name the host, and the scheme as it sees it
            return RedirectResponse(
                f"{path}/" + (f"?{request.url.query}" if request.url.query else ""), status_code=307
            )
        if "/gradio_api/upload" in path or "/gradio_api/proxy" in path:
            return JSONResponse({"detail": "There is nothing to upload here."}, status_code=404)
        return None


def serve_forever(database: Database, listener: socket.socket) -> None:
    """Serve on a listening socket until Ctrl-C; prints the address when the pages are ready."""
    server = uvicorn.Server(uvicorn.Config(build_app(database), log_level="warning", timeout_graceful_shutdown=3))
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(f"annotate serves {database.name} at http://{shown}:{port} (Ctrl-C stops it)", flush=True)
    server.run(sockets=[listener])


def _theme() -> gr.themes.Base:
    """Gradio's default with the colours of static/concord.css, and with fonts that every machine has."""
    shades = (
        "#eef7f6",
        "#d5ebe8",
        "#aed8d3",
        "#7fc0b9",
        "#3f978f",
        "#0c6b63",
        "#0a5a53",
        "#094b45",
        "#073b37",
        "#052b28",
    )
    accent = gr.themes.Color(*shades, "#031a18")
    theme = gr.themes.Default(
        primary_hue=accent,
        secondary_hue=accent,
        neutral_hue="stone",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
        radius_size="lg",
    )
    colours = {"body_background_fill": ("#f6f5f2", "#16181b"), "block_background_fill": ("#ffffff", "#1f2226")}
    colours |= {"block_border_color": ("#dedbd4", "#353940"), "input_background_fill": ("#ffffff", "#1f2226")}
    colours |= {
        "table_even_background_fill": ("#ffffff", "#1f2226"),
        "table_odd_background_fill": ("#faf9f7", "#1b1d21"),
    }
    light = {name: pair[0] for name, pair in colours.items()}
    return theme.set(**light, **{f"{name}_dark": pair[1] for name, pair in colours.items()})


def _head(path: str) -> str:
    """Our style sheet, and for the rater page its script; `v` makes browsers fetch a changed file."""

    def stamp(name: str) -> str:
        return f"/static/{name}?v={int((STATIC / name).stat().st_mtime)}"

    head = f'<link rel="icon" href="{stamp("icon.svg")}"><link rel="stylesheet" href="{stamp("concord.css")}">'
    if path == "/rate":
        head += f'<link rel="stylesheet" href="{stamp("rate.css")}">'
        head += f'<script type="module" src="{stamp("rate.js")}"></script>'
    return head + '<meta name="color-scheme" content="light dark">'
