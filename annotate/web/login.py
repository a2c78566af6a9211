"""Signing in and out, and where a visitor belongs."""

from html import escape
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from annotate.api.security import COOKIE, find_visitor
from annotate.api.words import languages, remember
from annotate.services.people import Throttled, check_password, end_login, memberships, set_language
from annotate.services.refusals import Refused
from annotate.web.openid import openid_link
from annotate.web.plain import FAILURES, STATIC, address, alert, hidden, local, message_page, page, sign_in
from annotate.web.words import later, told

__all__ = ["STATIC", "message_page", "router"]

router = APIRouter(include_in_schema=False)
WRONG = later("That login and password don't belong together. Check both and try again.")


@router.get("/")
def home(request: Request) -> Response:
    """Send a visitor to their page: raters rank, owners steer, reviewers review."""
    database = request.app.state.database
    who = find_visitor(database, request)
    if who is None:
        return RedirectResponse("/login", status_code=303)
    with database.read() as session:
        roles = {member.role for member, _ in memberships(session, who.person_id)}
    pages = (("rater", "/rate/"), ("owner", "/owner/"), ("reviewer", "/review/"))
    return RedirectResponse(next((path for role, path in pages if role in roles), "/owner/"), status_code=303)


@router.get("/favicon.ico")
def icon() -> Response:
    return RedirectResponse("/static/icon.svg")


@router.get("/login")
def login_page(request: Request, next: str = "/") -> HTMLResponse:
    return _page(request, next)


@router.post("/login")
def log_in(
    request: Request,
    login: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/",
) -> Response:
    """Check the password; the same words and the same time for a wrong password and for a login of nobody.

    Failures are counted by login, in the database, and by address, in this process. That the form is ours, and not
    another site's, the gate has seen to.
    """
    database = request.app.state.database
    try:
        FAILURES.count(address(request))
        person = check_password(database, login.strip(), password)
    except (Throttled, Refused) as error:
        seconds = error.seconds if isinstance(error, Throttled) else float(str(error.facts["retry_after"]))
        minutes = max(1, round(seconds / 60 + 0.5))
        wait = later(f"Too many failed attempts. Wait {minutes} min, then try again.")
        return _page(request, next, wait, 429, login)
    if person is None:
        return _page(request, next, WRONG, 401, login)
    FAILURES.give_back(address(request))
    return sign_in(request, person, next)


@router.post("/logout")
def log_out(request: Request) -> Response:
    """End the login session. Without a token: SameSite=Lax keeps other sites from posting this with the cookie."""
    with request.app.state.database.write() as session:
        end_login(session, request.cookies.get(COOKIE, ""))
    response = RedirectResponse("/login", status_code=303)
    response.delete_cookie(COOKIE)
    return response


@router.post("/language")
def choose_language(
    request: Request, language: Annotated[str, Form()] = "", next: Annotated[str, Form()] = "/"
) -> Response:
    """Speak another language from now on: in this browser, and wherever the person who is signed in here signs in."""
    response = RedirectResponse(local(next), status_code=303)
    if language in languages():
        database = request.app.state.database
        who = find_visitor(database, request)
        if who is not None:
            with database.write() as session:
                set_language(session, who.person_id, language)
        remember(response, language, request)
    return response


def _page(request: Request, next: str, error: str = "", status: int = 200, login: str = "") -> HTMLResponse:
    focus_login, focus_password = ("", " autofocus") if login else (" autofocus", "")
    # Sent to this very address, so that browsers keep what stands behind its #, the part of a page that was asked for.
    body = f"""<h1>{told(request, "Sign in")}</h1>
{alert(request, error)}<form method="post">
{hidden(next=local(next))}
<label>{told(request, "Login")}
<input name="login" autocomplete="username" autocapitalize="none" spellcheck="false" required
 value="{escape(login[:64])}"{focus_login}></label>
<label>{told(request, "Password")}
<input name="password" type="password" autocomplete="current-password" required{focus_password}></label>
<button class="primary">{told(request, "Sign in")}</button>
</form>{openid_link(request, next=next)}"""
    return page(request, body, status)
