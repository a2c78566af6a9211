"""Where links lead: joining a project, as somebody new or as who is signed in; setting a new password.

Looking at a link does not use it up, since programs that check mail look, too; sending its form does.
"""

from html import escape
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from annotate.api.security import find_visitor
from annotate.services.links import find_link, join_as, join_as_new, reset_password
from annotate.services.people import SHORTEST_PASSWORD, Visitor, check_login, hash_password
from annotate.services.refusals import Refused
from annotate.store.database import DatabaseFailed
from annotate.store.tables import Person, Project
from annotate.web.openid import openid_link
from annotate.web.plain import (
    FAILURES,
    PlainRoute,
    address,
    alert,
    hidden,
    is_own_form,
    page,
    sentence,
    sign_in,
    sign_out,
)
from annotate.web.words import later, told
from preferences.errors import BadInput

router = APIRouter(include_in_schema=False, route_class=PlainRoute)
OF_THE_LINK = ("link-used", "link-expired", "not-found")
INVITED = {
    "owner": later("You are invited as an owner."),
    "reviewer": later("You are invited as a reviewer."),
    "rater": later("You are invited as a rater."),
}
PASSWORD = f"""<input name="password" type="password" autocomplete="new-password" required
 minlength="{SHORTEST_PASSWORD}">"""


@router.get("/join/{token}")
def join_page(request: Request, token: str) -> Response:
    return _join_page(request, token)


@router.post("/join/{token}")
def join(
    request: Request,
    token: str,
    login: Annotated[str, Form()] = "",
    name: Annotated[str, Form()] = "",
    password: Annotated[str, Form()] = "",
    csrf: Annotated[str, Form()] = "",
) -> Response:
    """Join: with `csrf`, as who is signed in; else as somebody new, who is signed in from then on."""
    database = request.app.state.database
    if csrf:
        visitor = find_visitor(database, request)
        if visitor is None or not is_own_form(visitor, csrf):
            raise Refused("csrf", "This page is out of date; open the link again.")
        with database.write() as session:
            join_as(session, token, visitor.person_id)
        return RedirectResponse("/", status_code=303)
    FAILURES.count(address(request))
    with database.read() as session:
        find_link(session, token, "join")  # before the hashing, which is slow on purpose
    try:
        check_login(login.strip())
        password_hash = hash_password(password)
        with database.write() as session:
            person = join_as_new(session, token, login=login.strip(), name=name, password_hash=password_hash)
    except DatabaseFailed:
        raise
    except (BadInput, Refused) as error:
        if isinstance(error, Refused) and error.rule in OF_THE_LINK:
            raise
        return _join_page(request, token, sentence(error), login, name)
    FAILURES.give_back(address(request))
    return sign_in(request, person, "/")


@router.get("/password/{token}")
def password_page(request: Request, token: str) -> Response:
    return _password_page(request, token)


@router.post("/password/{token}")
def set_new_password(request: Request, token: str, password: Annotated[str, Form()] = "") -> Response:
    """Set the password, end all login sessions, and sign in here."""
    FAILURES.count(address(request))
    database = request.app.state.database
    with database.read() as session:
        find_link(session, token, "password")
    try:
        password_hash = hash_password(password)
    except BadInput as error:
        return _password_page(request, token, sentence(error))
    with database.write() as session:
        person = reset_password(session, token, password_hash)
    FAILURES.give_back(address(request))
    return sign_in(request, person, "/")


def _join_page(request: Request, token: str, error: str = "", login: str = "", name: str = "") -> HTMLResponse:
    database = request.app.state.database
    visitor = find_visitor(database, request)
    with database.read() as session:
        link = find_link(session, token, "join")
        project = session.get_one(Project, link.project_id).name
    body = f"<h1>{told(request, 'Join “{project}”', project=f'<bdi>{escape(project)}</bdi>')}</h1>"
    body += f"<p>{told(request, INVITED[link.role or 'rater'])}</p>"
    body += _as_visitor(request, token, visitor) if visitor else _as_new(request, token, error, login, name)
    return page(request, body, 422 if error else 200)


def _as_visitor(request: Request, token: str, visitor: Visitor) -> str:
    join = told(request, "Join as {login}", login=f"<bdi>{escape(visitor.login)}</bdi>")
    return f"""<form method="post" action="/join/{quote(token)}">{hidden(csrf=visitor.csrf_token)}
<button class="primary">{join}</button></form>
<p>{told(request, "That's not you? Sign out, then open the link again.")}</p>
{sign_out(request)}"""


def _as_new(request: Request, token: str, error: str, login: str, name: str) -> str:
    here = quote(f"/join/{token}", safe="")
    return f"""{alert(request, error)}<form method="post" action="/join/{quote(token)}">
<label>{told(request, "Choose a login")}
<input name="login" autocomplete="username" autocapitalize="none" spellcheck="false" required
 maxlength="64" value="{escape(login[:64])}"></label>
<label>{told(request, "Your name, if you like; only owners see it")}
<input name="name" autocomplete="name" maxlength="200" value="{escape(name[:200])}"></label>
<label>{told(request, "Choose a password")}{PASSWORD}</label>
<button class="primary">{told(request, "Join")}</button></form>
<p class="or"><a href="/login?next={here}">{told(request, "I have a login here already")}</a></p>
{openid_link(request, join=token)}"""


def _password_page(request: Request, token: str, error: str = "") -> HTMLResponse:
    with request.app.state.database.read() as session:
        link = find_link(session, token, "password")
        login = session.get_one(Person, link.person_id).login
    body = f"""<h1>{told(request, "New password")}</h1>
{alert(request, error)}<form method="post" action="/password/{quote(token)}">
<label>{told(request, "Login")}<input name="login" autocomplete="username" readonly value="{escape(login)}"></label>
<label>{told(request, "New password")}{PASSWORD}</label>
<button class="primary">{told(request, "Set it and sign in")}</button></form>"""
    return page(request, body, 422 if error else 200)
