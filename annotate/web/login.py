"""The pages without Gradio: signing in and out, and where a visitor belongs."""

from html import escape
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from annotate.api.security import COOKIE, find_visitor
from annotate.services.people import (
    LOGIN_SECONDS,
    Throttled,
    check_password,
    end_login,
    memberships,
    start_login,
)

router = APIRouter(include_in_schema=False)
STATIC = Path(__file__).parent / "static"
WRONG = "That login and password don't belong together. Check both and try again."


@router.get("/")
def home(request: Request) -> Response:
    """Send a visitor to their page: raters rank, owners watch."""
    database = request.app.state.database
    who = find_visitor(database, request)
    if who is None:
        return RedirectResponse("/login", status_code=303)
    with database.read() as session:
        rates = memberships(session, who.person_id, "rater")
    return RedirectResponse("/rate/" if rates else "/owner/", status_code=303)


@router.get("/favicon.ico")
def icon() -> Response:
    return RedirectResponse("/static/icon.svg")


@router.get("/login")
def login_page(next: str = "/") -> HTMLResponse:
    return _page(next)


@router.post("/login")
def log_in(
    request: Request,
    login: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/",
) -> Response:
    """Check the password; the same words and the same time for a wrong password and for a login of nobody."""
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return _page(next, "Sign in on this page, not from another site.", 403, login)
    database = request.app.state.database
    try:
        person = check_password(database, login.strip(), password)
    except Throttled as error:
        minutes = max(1, round(error.seconds / 60 + 0.5))
        return _page(next, f"Too many failed attempts. Wait {minutes} min, then try again.", 429, login)
    if person is None:
        return _page(next, WRONG, 401, login)
    with database.write() as session:
        token = start_login(session, person)
    response = RedirectResponse(_local(next), status_code=303)
    response.set_cookie(
        COOKIE,
        token,
        max_age=int(LOGIN_SECONDS),
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
    return response


@router.post("/logout")
def log_out(request: Request) -> Response:
    """End the login session. Without a token: SameSite=Lax keeps other sites from posting this with the cookie."""
    with request.app.state.database.write() as session:
        end_login(session, request.cookies.get(COOKIE, ""))
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(COOKIE)
    return response


def message_page(title: str, text: str, status: int) -> HTMLResponse:
    """A page that says one thing, with a way on."""
    body = f"<h1>{escape(title)}</h1><p>{escape(text)}</p>"
    body += '<p><a href="/">Go to your page</a></p>'
    body += '<form method="post" action="/logout"><button class="quiet">Sign out</button></form>'
    return HTMLResponse(_frame(body), status_code=status)


def _page(next: str, error: str = "", status: int = 200, login: str = "") -> HTMLResponse:
    alert = f'<p class="alert" role="alert">{escape(error)}</p>' if error else ""
    focus_login, focus_password = ("", " autofocus") if login else (" autofocus", "")
    body = f"""<h1>Sign in</h1>
{alert}<form method="post" action="/login">
<input type="hidden" name="next" value="{escape(_local(next))}">
<label>Login<input name="login" autocomplete="username" autocapitalize="none" spellcheck="false" required
 value="{escape(login[:64])}"{focus_login}></label>
<label>Password<input name="password" type="password" autocomplete="current-password" required{focus_password}></label>
<button class="primary">Sign in</button>
</form>"""
    return HTMLResponse(_frame(body), status_code=status)


def _frame(body: str) -> str:
    return (STATIC / "frame.html").read_text(encoding="utf-8").replace("<!-- body -->", body)


def _local(path: str) -> str:
    """Only paths of this site: what else `next` names becomes the front page."""
    plain = path.startswith("/") and path[1:2] not in ("/", "\\") and path.isprintable()
    return path if plain else "/"
