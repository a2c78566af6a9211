"""What every request passes first: who may see which page, how long a request may be, headers of every response."""

from urllib.parse import quote

from anyio.to_thread import run_sync
from fastapi import Request
from fastapi.responses import RedirectResponse
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from annotate.api.problems import problem
from annotate.api.security import find_visitor
from annotate.services.people import memberships
from annotate.store.database import Database
from annotate.web.login import message_page

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
            refusal = problem("too-long", f"This is too long; send at most {LONGEST_BODY} bytes.")
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
            return problem("signed-out", "You are signed out; sign in again.")
        with self.database.read() as session:
            parts = memberships(session, found.person_id, part)
        if not parts:
            return message_page("This page is not yours", f"It is for {part}s, and you are none in any project.", 403)
        if part == "rater" and request.method not in ("GET", "HEAD"):
            # The rater's Gradio page has no events, and its files API is not for raters.
            return problem("method-not-allowed", "There is nothing to post here.")
        if path in ("/rate", "/owner"):  # Starlette would name the host, and the scheme as it sees it
            return RedirectResponse(
                f"{path}/" + (f"?{request.url.query}" if request.url.query else ""), status_code=307
            )
        if "/gradio_api/upload" in path or "/gradio_api/proxy" in path:
            return problem("not-found", "There is nothing to upload here.")
        return None
