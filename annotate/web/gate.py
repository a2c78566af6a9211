"""What every request passes: where it comes from, how long it is, and who may see which part of which page.

Nothing in here trusts the page: who somebody is, and what they may do, is read from the database on every request. The
REST API does that itself, inside the transaction that does the work, so that the gate reads nothing for it.
"""

import re
from urllib.parse import quote, urlsplit

from anyio.to_thread import run_sync
from fastapi import Request
from fastapi.responses import RedirectResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from annotate.api.problems import problem
from annotate.api.security import COOKIE, SAFE_METHODS
from annotate.api.words import language_of, later
from annotate.services.people import Visitor, visitor
from annotate.services.rights import plays
from annotate.store.database import Database
from annotate.web.plain import message_page

LONGEST_BODY = 1_000_000  # bytes of a request
LONGEST_IMPORT = 64_000_000  # bytes of one that adds items or looks at them first, which is read only from who may
_IMPORT = re.compile(r"/api/v1/projects/(\d+/items|preview)")


# The pages that Gradio draws, and the role that somebody must have in some project to see them.
PAGES = {"/rate": "rater", "/arena": "rater", "/owner": "owner", "/review": "reviewer"}
_FOR = {
    "rater": later("It is for raters, and you are none in any project."),
    "owner": later("It is for owners, and you are none in any project."),
    "reviewer": later("It is for reviewers, and you are none in any project."),
}
# All that a page needs of what Gradio serves. What else is there (events, queue, files, uploads, sessions of others,
# API docs, and whatever a next version brings) is not reachable.
_DRAWN = re.compile(r"/|/theme\.css|/(assets|static)/.+")


class Gate:
    """A middleware around the whole application."""

    def __init__(self, app: ASGIApp, database: Database) -> None:
        self.app = app
        self.database = database

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})  # nothing of ours speaks it
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path, headers = scope["path"], Headers(scope=scope)
        language = language_of(HTTPConnection(scope))
        longest = LONGEST_IMPORT if scope["method"] == "POST" and _IMPORT.fullmatch(path) else LONGEST_BODY
        mount = mount_of(path)
        refusal: ASGIApp | None = None
        receive = _at_most(longest, receive)
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or len(length) > 15 or int(length) > longest:
            refusal = problem("too-long", f"This is too long; send at most {longest} bytes.", language=language)
        elif scope["method"] not in SAFE_METHODS and from_elsewhere(headers):
            refusal = problem(
                "cross-site", "This comes from another site; open this site's own page.", language=language
            )
        elif mount is not None:
            found = await run_sync(self._look, scope, mount)
            if not isinstance(found, Visitor):
                refusal = found
        await (refusal or self.app)(scope, receive, send)

    def _look(self, scope: Scope, mount: str) -> Visitor | ASGIApp:
        """Who is asking for a part of a page, or the response if it is not for them, or is no part of the page."""
        request, role, path = Request(scope), PAGES[mount], scope["path"]
        within = path[len(mount) :] or "/"
        query = f"?{request.url.query}" if request.url.query else ""
        language = language_of(request)
        with self.database.read() as session:
            found = visitor(session, request.cookies.get(COOKIE))
            allowed = found is not None and plays(session, found.person_id, (role,))
        if found is None:
            if request.method == "GET" and within == "/":
                return RedirectResponse(f"/login?next={quote(path + query)}", status_code=303)
            return problem("signed-out", "You are signed out; sign in again.", language=language)
        request.state.person = found.person_id
        if not allowed:
            return message_page(request, later("This page is not yours"), _FOR[role], 403)
        if not _DRAWN.fullmatch(within):
            return problem("not-found", "There is nothing at this address.", language=language)
        if request.method not in ("GET", "HEAD"):
            return problem("method-not-allowed", "Not with this method.", language=language)
        if path == mount:  # Starlette would name the host, and the scheme as it sees it
            return RedirectResponse(f"{mount}/{query}", status_code=307)
        request.state.visitor = found
        return found


def mount_of(path: str) -> str | None:
    """The page that this is a part of, as a key of PAGES."""
    return next((mount for mount in PAGES if path == mount or path.startswith(mount + "/")), None)


def from_elsewhere(headers: Headers) -> bool:
    """Whether a browser says that a request comes from another site's page; other programs say nothing.

    Browsers send Sec-Fetch-Site where they trust the connection (https, localhost), and Origin everywhere.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()


def _at_most(longest: int, receive: Receive) -> Receive:
    """`receive`, which gives no more than so many bytes. Raises HTTPException 413, which FastAPI answers with."""
    received = 0

    async def receive_some() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > longest:
            raise HTTPException(413)
        return message

    return receive_some
