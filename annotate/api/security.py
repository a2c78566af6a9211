"""Who is asking: every route takes the person from the session cookie and the database, never from the page."""

import secrets
from typing import Annotated

from fastapi import Depends, Header, HTTPException, Path, Request

from annotate.services.people import Visitor, membership, visitor
from annotate.store.database import Database
from annotate.store.tables import Member

COOKIE = "concord_session"


def find_visitor(database: Database, request: Request) -> Visitor | None:
    """The person whose login session the request carries, or None."""
    with database.read() as session:
        return visitor(session, request.cookies.get(COOKIE))


def _database(request: Request) -> Database:
    return request.app.state.database


def _visitor(request: Request) -> Visitor:
    found = find_visitor(request.app.state.database, request)
    if found is None:
        raise HTTPException(401, "You are signed out; sign in again.")
    return found


def _writing(who: Annotated[Visitor, Depends(_visitor)], x_csrf_token: Annotated[str, Header()] = "") -> Visitor:
    if not secrets.compare_digest(x_csrf_token.encode(), who.csrf_token.encode()):
        raise HTTPException(403, "This page is out of date; reload it.")
    return who


def _member(project_id: int, role: str | None, who: Visitor, database: Database) -> Member:
    with database.read() as session:
        member = membership(session, who.person.id, project_id, role)
    if member is None:  # the same words whether the project is there or not
        raise HTTPException(403, f"You are not {'an ' + role if role == 'owner' else 'a rater'} of this project.")
    return member


DatabaseOfApp = Annotated[Database, Depends(_database)]
AnyVisitor = Annotated[Visitor, Depends(_visitor)]


LARGEST_ID = 2**31 - 1  # more would be an error of the database
ProjectId = Annotated[int, Path(ge=1, le=LARGEST_ID)]


def _rater(project_id: ProjectId, who: AnyVisitor, database: DatabaseOfApp) -> Member:
    return _member(project_id, "rater", who, database)


def _writing_rater(
    project_id: ProjectId, who: Annotated[Visitor, Depends(_writing)], database: DatabaseOfApp
) -> Member:
    return _member(project_id, "rater", who, database)


def _owner(project_id: ProjectId, who: AnyVisitor, database: DatabaseOfApp) -> Member:
    return _member(project_id, "owner", who, database)


Rater = Annotated[Member, Depends(_rater)]
WritingRater = Annotated[Member, Depends(_writing_rater)]
Owner = Annotated[Member, Depends(_owner)]
