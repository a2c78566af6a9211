"""What the pages without Gradio share: their frame, messages, forms, and the cookie of a login session."""

import secrets
from collections.abc import Callable
from html import escape
from ipaddress import ip_address
from pathlib import Path

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from fastapi.routing import APIRoute

from annotate.api.limits import Bucket
from annotate.api.security import COOKIE
from annotate.api.words import direction, language_of, remember, translated
from annotate.services.people import LOGIN_SECONDS, Visitor, end_login, start_login
from annotate.services.refusals import RULES, Refused
from annotate.store.database import DatabaseFailed
from annotate.store.tables import Person
from annotate.web.words import chooser, told
from preferences.errors import BadInput

STATIC = Path(__file__).parent / "static"
FAILURES = Bucket(rate=0.1, burst=60)  # of one address, which an office may share; more than requests at once


class PlainRoute(APIRoute):
    """A route whose refusals are pages, not problem documents."""

    def get_route_handler(self) -> Callable:
        handle = super().get_route_handler()

        async def handle_refusals(request: Request) -> Response:
            try:
                return await handle(request)
            except Refused as error:
                status, title = RULES[error.rule]
                return message_page(request, title, error.detail, status)
            except DatabaseFailed:
                raise
            except BadInput as error:
                return message_page(request, "Not possible", sentence(error), 422)

        return handle_refusals


def page(request: Request, body: str, status: int = 200) -> HTMLResponse:
    """A page with this HTML, in which everything that is not ours is escaped already, in the language of who asks."""
    language = language_of(request)
    html = (STATIC / "frame.html").read_text(encoding="utf-8")
    html = html.replace('lang="en" dir="ltr"', f'lang="{language}" dir="{direction(language)}"')
    html = html.replace("<!-- languages -->", chooser(request, _here(request)))
    return HTMLResponse(html.replace("<!-- body -->", body), status_code=status)


def message_page(request: Request, title: str, text: str, status: int) -> HTMLResponse:
    """A page that says one thing, with a way on."""
    language = language_of(request)
    body = f"<h1>{escape(translated(language, title))}</h1><p>{escape(translated(language, text))}</p>"
    return page(request, f'{body}<p><a href="/">{told(request, "Go to your page")}</a></p>{sign_out(request)}', status)


def sign_out(request: Request) -> str:
    return f'<form method="post" action="/logout"><button class="quiet">{told(request, "Sign out")}</button></form>'


def alert(request: Request, text: str) -> str:
    """Text as an alert, in the language of whoever asks."""
    return f'<p class="alert" role="alert">{escape(translated(language_of(request), text))}</p>' if text else ""


def hidden(**values: str) -> str:
    return "".join(f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in values.items())


def sentence(error: Exception) -> str:
    """A BadInput, which is written to follow "error:", as a sentence of its own."""
    text = error.detail if isinstance(error, Refused) else f"{error}."
    return text[:1].upper() + text[1:]


def local(path: str) -> str:
    """Only paths of this site: what else `next` names becomes the front page."""
    plain = path.startswith("/") and path[1:2] not in ("/", "\\") and path.isprintable()
    return path if plain else "/"


def address(request: Request) -> str:
    """Where a request comes from, as the throttle counts it: with IPv6 one subscriber has a whole network."""
    host = request.client.host if request.client else ""
    try:
        ip = ip_address(host)
    except ValueError:
        return host
    return host if ip.version == 4 else ip.exploded[:19]


def sign_in(request: Request, person: Person, goes: str) -> Response:
    """Begin a login session in this browser, in place of the one that it may have, and go to a page of this site."""
    with request.app.state.database.write() as session:
        end_login(session, request.cookies.get(COOKIE, ""))
        token = start_login(session, person)
    response = RedirectResponse(local(goes), status_code=303)
    response.set_cookie(
        COOKIE,
        token,
        max_age=int(LOGIN_SECONDS),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    if person.language:
        remember(response, person.language, request)
    return response


def _here(request: Request) -> str:
    """The path that shows the page which answers this request: what is posted has one above it."""
    path = request.url.path
    for above in ("/account", "/login"):
        if path.startswith(f"{above}/"):
            return above
    return f"{path}?{request.url.query}" if request.url.query and request.method == "GET" else path


def is_own_form(visitor: Visitor | None, csrf: str) -> bool:
    """Whether a form that was posted is one that this very login session was shown."""
    return visitor is not None and secrets.compare_digest(csrf.encode(), visitor.csrf_token.encode())
