"""The person behind the request: who they are, their password, login sessions, tokens, and all that is stored of them.

What changes an account takes a login session: a token may neither make tokens nor read what belongs to its person.
"""

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from annotate.api.problems import PROBLEMS
from annotate.api.security import AnyAsker, SignedIn
from annotate.api.shapes import Id, Strict
from annotate.api.words import COOKIE, languages, remember
from annotate.services.people import (
    LONGEST_PASSWORD,
    change_password,
    end_login_session,
    login_sessions,
    memberships,
    set_language,
)
from annotate.services.privacy import data_of_person
from annotate.services.refusals import Refused
from annotate.services.rights import Right
from annotate.services.tokens import make_token, revoke_token, tokens_of
from annotate.store.access import Token
from annotate.store.tables import Person

router = APIRouter(prefix="/api/v1/me", tags=["account"], responses=PROBLEMS)
PAGES = {"rater": "/rate/", "arena": "/arena/", "reviewer": "/review/", "owner": "/owner/"}
DAY = 24 * 3600.0
Password = Annotated[str, Field(max_length=LONGEST_PASSWORD)]


class Part(BaseModel):
    """A project, and what part the person has in it."""

    id: int
    name: str
    role: Literal["rater", "reviewer", "owner"]
    simulated: bool
    arena: bool = Field(description="whether raters chat with models here, at `/arena/`, and are given no items")


class Me(BaseModel):
    login: str
    language: str | None = Field(description="in which this person wants the pages, such as `de`; null: the browser's")
    csrf_token: str | None = Field(description="send it back as X-CSRF-Token with what is not a GET; tokens need none")
    projects: list[Part]
    pages: list[str] = Field(description="what this person may open, such as `/rate/`")


class LanguageIn(Strict):
    language: Annotated[str, Field(max_length=8)] | None = Field(description="null: the browser's own")


class PasswordIn(Strict):
    old: Password
    new: Password


class SessionOut(BaseModel):
    id: int
    created_at: float
    expires_at: float
    current: bool = Field(description="whether it is the one that asks")


class SessionsOut(BaseModel):
    sessions: list[SessionOut]


class TokenIn(Strict):
    name: Annotated[str, Field(min_length=1, max_length=100, description="what will use it")]
    rights: list[Right] = Field(min_length=1, max_length=len(Right), description="at most what your role gives counts")
    expires_in_days: Annotated[int, Field(ge=1, le=3650)] | None = Field(default=None, description="null: never")


class TokenOut(BaseModel):
    id: int
    name: str
    rights: list[Right]
    created_at: float
    expires_at: float | None
    used_at: float | None = Field(description="to the minute")


class TokenMade(TokenOut):
    token: str = Field(description="shown this once; send it as `Authorization: Bearer …`")


class TokensOut(BaseModel):
    tokens: list[TokenOut]


@router.get("")
def me(asker: AnyAsker, request: Request, response: Response) -> Me:
    """Who is signed in, and which projects they have a part in."""
    with asker.database.read() as session:
        language = session.get_one(Person, asker.person_id).language
        parts = memberships(session, asker.person_id)
        projects = [
            Part.model_validate(
                {
                    "id": project.id,
                    "name": project.name,
                    "role": member.role,
                    "simulated": project.simulated,
                    "arena": bool(project.arena),
                }
            )
            for member, project in parts
        ]
        roles = {"arena" if member.role == "rater" and project.arena else member.role for member, project in parts}
    pages = [path for role, path in PAGES.items() if role in roles]
    if language and asker.session_id is not None and request.cookies.get(COOKIE) != language:
        remember(response, language, request)  # chosen in another browser
    return Me(login=asker.login, language=language, csrf_token=asker.csrf_token, projects=projects, pages=pages)


@router.put("/language", status_code=204)
def language(body: LanguageIn, asker: SignedIn, request: Request, response: Response) -> None:
    """Choose the language of the pages, in this browser and wherever the person signs in."""
    if body.language is not None and body.language not in languages():
        raise Refused("bad-input", f"There is no such language here; there are {', '.join(languages())}.")
    with asker.database.write() as session:
        set_language(session, asker.person_id, body.language)
    if body.language:
        remember(response, body.language, request)
    else:
        response.delete_cookie(COOKIE)


@router.put("/password", status_code=204)
def password(body: PasswordIn, asker: SignedIn) -> None:
    """Change the password; all other login sessions end."""
    assert asker.session_id is not None
    change_password(asker.database, asker.person_id, asker.session_id, body.old, body.new)


@router.get("/sessions")
def sessions(asker: SignedIn) -> SessionsOut:
    """Where the person is signed in."""
    with asker.database.read() as session:
        rows = login_sessions(session, asker.person_id)
    return SessionsOut(
        sessions=[
            SessionOut(
                id=row.id,
                created_at=row.created_at,
                expires_at=row.expires_at,
                current=row.id == asker.session_id,
            )
            for row in rows
        ]
    )


@router.delete("/sessions/{session_id}", status_code=204)
def end_session(session_id: Id, asker: SignedIn) -> None:
    """Sign out there."""
    with asker.database.write() as session:
        end_login_session(session, asker.person_id, session_id)


@router.get("/tokens")
def tokens(asker: SignedIn) -> TokensOut:
    """The person's tokens, without the tokens themselves, which nobody can see again."""
    with asker.database.read() as session:
        rows = tokens_of(session, asker.person_id)
    return TokensOut(tokens=[TokenOut.model_validate(_token(row)) for row in rows])


@router.post("/tokens", status_code=201)
def new_token(body: TokenIn, asker: SignedIn) -> TokenMade:
    """Make a token, for a script. It can do at most what its person can do at the moment when it is used."""
    expires_at = None if body.expires_in_days is None else time.time() + body.expires_in_days * DAY
    with asker.database.write() as session:
        row, token = make_token(session, asker.person_id, body.name, body.rights, expires_at)
    return TokenMade.model_validate({**_token(row), "token": token})


@router.delete("/tokens/{token_id}", status_code=204)
def end_token(token_id: Id, asker: SignedIn) -> None:
    """Revoke a token: it is worth nothing from now on."""
    with asker.database.write() as session:
        revoke_token(session, asker.person_id, token_id)


@router.get("/personal-data")
def personal_data(asker: SignedIn) -> dict[str, Any]:
    """Everything that is stored about the person, in all projects."""
    with asker.database.read() as session:
        return data_of_person(session, asker.person_id)


def _token(row: Token) -> dict[str, Any]:
    return {name: getattr(row, name) for name in TokenOut.model_fields}
