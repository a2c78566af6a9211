"""Who is asking: every request is answered for the person behind its cookie or token, by the database as it is now.

A handler takes an `Asker` and does its work inside `asker.reads(project_id, right)` or `asker.writes(…)`, so that what
the person may do is looked up in the very transaction that does it.
"""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from annotate.api.limits import REQUESTS
from annotate.services.people import Visitor, visitor
from annotate.services.refusals import Refused
from annotate.services.rights import MAY, Right, require
from annotate.services.tokens import token_holder
from annotate.store.database import Database
from annotate.store.tables import Member

COOKIE = "concord_session"
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


@dataclass(frozen=True)
class Asker:
    """The person behind a request. `rights` limits a token; None is a login session, which has all of its person's.

    `csrf_token` and `session_id` are null for tokens.
    """

    database: Database
    person_id: int
    login: str
    csrf_token: str | None
    session_id: int | None
    rights: frozenset[Right] | None

    @contextmanager
    def reads(self, project_id: int, right: Right) -> Iterator[tuple[Session, Member]]:
        """A read transaction with this person's part in the project. Raises Refused without the right."""
        self._carries(right)
        with self.database.read() as session:
            yield session, require(session, self.person_id, project_id, right)

    @contextmanager
    def writes(self, project_id: int, right: Right) -> Iterator[tuple[Session, Member]]:
        """A write transaction with this person's part in the project. Raises Refused without the right."""
        self._carries(right)
        with self.database.write() as session:
            yield session, require(session, self.person_id, project_id, right)

    def may(self, member: Member, right: Right) -> bool:
        """Whether the part `member` and, for a token, its own rights include this right."""
        return right in MAY[member.role] and (self.rights is None or right in self.rights)

    def _carries(self, right: Right) -> None:
        if self.rights is not None and right not in self.rights:
            raise Refused("forbidden", f"This token does not carry the right {right.value!r}.")


def find_visitor(database: Database, request: Request) -> Visitor | None:
    """The person whose login session the request carries, or None."""
    with database.read() as session:
        return visitor(session, request.cookies.get(COOKIE))


def asker(request: Request) -> Asker:
    """Find the person by token or login session; check the CSRF token of what changes something; count the request."""
    database: Database = request.app.state.database
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme:
        found = token_holder(database, token.strip()) if scheme.lower() == "bearer" else None
        if found is None:
            raise Refused("signed-out", "This token is not valid (any more); make a new one.")
        who = Asker(database, found.person_id, found.login, None, None, found.rights)
    else:
        guest = find_visitor(database, request)
        if guest is None:
            raise Refused("signed-out", "You are signed out; sign in again.")
        given = request.headers.get("x-csrf-token", "")
        if request.method not in SAFE_METHODS and not secrets.compare_digest(given.encode(), guest.csrf_token.encode()):
            raise Refused("csrf", "This page is out of date; reload it.")
        who = Asker(database, guest.person_id, guest.login, guest.csrf_token, guest.session_id, None)
    request.state.person = who.person_id  # for the log
    REQUESTS.count(who.person_id)
    return who


def signed_in(request: Request) -> Asker:
    """As `asker`, for what a token may never do: make tokens, change the password, end sessions."""
    who = asker(request)
    if who.session_id is None:
        raise Refused("forbidden", "This takes a login session; a token may not do it.")
    return who


AnyAsker = Annotated[Asker, Depends(asker)]
SignedIn = Annotated[Asker, Depends(signed_in)]
