"""A person's own page: password, where they are signed in, tokens, and their data. It does what /api/v1/me does."""

import time
from datetime import UTC, datetime
from html import escape
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from annotate.api.security import find_visitor
from annotate.api.shapes import LARGEST_ID
from annotate.services.people import (
    SHORTEST_PASSWORD,
    Visitor,
    change_password,
    end_login_session,
    login_sessions,
    memberships,
)
from annotate.services.refusals import Refused
from annotate.services.rights import Right
from annotate.services.tokens import make_token, revoke_token, tokens_of
from annotate.store.database import DatabaseFailed
from annotate.web.plain import PlainRoute, alert, hidden, is_own_form, page, sentence
from annotate.web.words import later, told
from preferences.errors import BadInput

router = APIRouter(prefix="/account", include_in_schema=False, route_class=PlainRoute)
PARTS = {
    "owner": later("owner in {project}"),
    "reviewer": later("reviewer in {project}"),
    "rater": later("rater in {project}"),
}
DAY = 24 * 3600.0
Csrf = Annotated[str, Form()]
Number = Annotated[int, Form(ge=1, le=LARGEST_ID)]


@router.get("")
def account_page(request: Request) -> Response:
    visitor = find_visitor(request.app.state.database, request)
    return _page(request, visitor) if visitor else RedirectResponse("/login?next=/account", status_code=303)


@router.post("/password")
def new_password(
    request: Request, csrf: Csrf = "", old: Annotated[str, Form()] = "", new: Annotated[str, Form()] = ""
) -> Response:
    """Change the password; the other login sessions end."""
    visitor = _visitor(request, csrf)
    try:
        change_password(request.app.state.database, visitor.person_id, visitor.session_id, old, new)
    except DatabaseFailed:
        raise
    except (BadInput, Refused) as error:
        return _page(request, visitor, error=sentence(error))
    return _page(request, visitor, done=later("The password is changed, and you are signed out everywhere else."))


@router.post("/sessions/end")
def end_session(request: Request, session: Number, csrf: Csrf = "") -> Response:
    visitor = _visitor(request, csrf)
    with request.app.state.database.write() as transaction:
        end_login_session(transaction, visitor.person_id, session)
    return RedirectResponse("/account", status_code=303)


@router.post("/tokens")
def new_token(
    request: Request,
    csrf: Csrf = "",
    name: Annotated[str, Form()] = "",
    right: Annotated[list[Right] | None, Form()] = None,
    days: Annotated[int, Form(ge=1, le=3650)] = 90,
) -> Response:
    """Make a token and show it, this once."""
    visitor = _visitor(request, csrf)
    try:
        with request.app.state.database.write() as session:
            _, token = make_token(session, visitor.person_id, name, right or [], time.time() + days * DAY)
    except DatabaseFailed:
        raise
    except BadInput as error:
        return _page(request, visitor, error=sentence(error))
    return _page(request, visitor, token=token)


@router.post("/tokens/revoke")
def end_token(request: Request, token: Number, csrf: Csrf = "") -> Response:
    visitor = _visitor(request, csrf)
    with request.app.state.database.write() as session:
        revoke_token(session, visitor.person_id, token)
    return RedirectResponse("/account", status_code=303)


def _visitor(request: Request, csrf: str) -> Visitor:
    """Who sends a form. Raises Refused if it is not one that their own login session was shown."""
    visitor = find_visitor(request.app.state.database, request)
    if visitor is None:
        raise Refused("signed-out", "You are signed out; sign in again.")
    if not is_own_form(visitor, csrf):
        raise Refused("csrf", "This page is out of date; reload it.")
    return visitor


def _page(request: Request, visitor: Visitor, *, error: str = "", done: str = "", token: str = "") -> HTMLResponse:
    with request.app.state.database.read() as session:
        parts = [(project.name, member.role) for member, project in memberships(session, visitor.person_id)]
        logins = login_sessions(session, visitor.person_id)
        tokens = tokens_of(session, visitor.person_id)
    csrf = hidden(csrf=visitor.csrf_token)

    def say(sentence: str, **html: str) -> str:
        return told(request, sentence, **html)

    def button(action: str, name: str, number: int, words: str) -> str:
        field = hidden(**{name: str(number)})
        return (
            f'<form method="post" action="/account/{action}">{csrf}{field}<button class="quiet">{words}</button></form>'
        )

    rows = [
        f"<tr><td>{say('since {time}', time=_time(one.created_at))}</td>"
        f"<td>{say('until {time}', time=_time(one.expires_at))}</td><td>"
        + (say("here") if one.id == visitor.session_id else button("sessions/end", "session", one.id, say("Sign out")))
        + "</td></tr>"
        for one in logins
    ]
    keys = [
        f"<tr><td>{escape(one.name)}</td><td>{escape(', '.join(one.rights))}</td>"
        f"<td>{say('until {time}', time=_time(one.expires_at)) if one.expires_at else say('until you revoke it')}</td>"
        f"<td>{say('used {time}', time=_time(one.used_at)) if one.used_at else say('never used')}</td>"
        f"<td>{button('tokens/revoke', 'token', one.id, say('Revoke'))}</td></tr>"
        for one in tokens
    ]
    boxes = "".join(
        f'<label class="check"><input type="checkbox" name="right" value="{right}">{right}</label>' for right in Right
    )
    said = [f"<li>{say(PARTS[role], project=f'<bdi>{escape(name)}</bdi>')}</li>" for name, role in parts]
    header = '<code dir="ltr">Authorization: Bearer …</code>'
    body = f"""<div class="wide"><h1>{escape(visitor.login)}</h1>
{alert(request, error)}{f'<p class="done" role="status">{say(done)}</p>' if done else ""}{_made(request, token)}
{f"<ul>{''.join(said)}</ul>" if said else f"<p>{say('You are in no project.')}</p>"}
<p><a href="/">{say("Go to your page")}</a> ·
<a href="/api/v1/me/personal-data" download="personal-data.json">{say("Download all that is stored about you")}</a></p>
<h2>{say("Password")}</h2>
<form method="post" action="/account/password">{csrf}
<input type="text" name="login" autocomplete="username" value="{escape(visitor.login)}" hidden>
<label>{say("Old password")}<input name="old" type="password" autocomplete="current-password" required></label>
<label>{say("New password")}<input name="new" type="password" autocomplete="new-password" required
 minlength="{SHORTEST_PASSWORD}"></label>
<button class="primary">{say("Change it")}</button></form>
<h2>{say("Signed in")}</h2><table>{"".join(rows)}</table>
<h2>{say("Tokens")}</h2>
<p>{say("For scripts, which send one as {header}. A token can do at most what you can.", header=header)}</p>
<table>{"".join(keys)}</table>
<form method="post" action="/account/tokens">{csrf}
<label>{say("What is it for?")}<input name="name" maxlength="100" required></label>
<fieldset><legend>{say("It may")}</legend>{boxes}</fieldset>
<label>{say("For how many days?")}<input name="days" type="number" min="1" max="3650" value="90" required></label>
<button class="primary">{say("Make a token")}</button></form></div>"""
    return page(request, body, 422 if error else 200)


def _made(request: Request, token: str) -> str:
    if not token:
        return ""
    words = told(request, "Copy the token now; it is shown this once:")
    return f'<p class="done" role="status">{words}<br><code dir="ltr">{escape(token)}</code></p>'


def _time(at: float) -> str:
    return f'<bdi dir="ltr">{datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")}</bdi>'
