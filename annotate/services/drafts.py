"""Drafts: what a rater has filled in and not submitted, kept on the server. A version guards against two tabs."""

import json
import time
from typing import Any

from pydantic_core import to_json
from sqlalchemy import select
from sqlalchemy.orm import Session

from annotate.services.assignment import lock_member, own_assignment, renew
from annotate.services.refusals import Refused
from annotate.store.tables import Draft, Member

LONGEST = 100_000  # characters of a draft's JSON


def save(
    session: Session,
    member: Member,
    assignment_id: int,
    body: dict[str, Any],
    version: int | None,
    *,
    now: float | None = None,
) -> int:
    """Keep a draft of an open assignment in place of `version` (None: of none) and return the new version.

    It lengthens the lease where that still can be; where not, the draft is kept all the same. Raises Refused
    "wrong-version" if another version stands, which it names.
    """
    now = time.time() if now is None else now
    try:
        text = json.dumps(body, allow_nan=False)
        to_json(body)  # what could not be sent back would keep its rater from every next item
    except (ValueError, RecursionError):
        raise Refused("bad-input", "This draft holds what can't be kept: NaN, half a character, or too deep.") from None
    if len(text) > LONGEST:
        raise Refused("too-long", f"This draft is too long to keep; {LONGEST} characters fit.")
    lock_member(session, member)
    own_assignment(session, member, assignment_id)
    row = session.get(Draft, assignment_id)
    if (row.version if row else None) != version:
        raise Refused(
            "wrong-version", "This item is open in another window, too; reload the page.", version=row and row.version
        )
    if row is None:
        row = Draft(assignment_id=assignment_id, body=body, version=1, saved_at=now)
        session.add(row)
    else:
        row.body, row.version, row.saved_at = body, row.version + 1, now
    session.flush()
    try:
        renew(session, member, assignment_id, now=now)
    except Refused as error:
        if error.rule != "assignment-expired":
            raise
    return row.version


def read(session: Session, member: Member, assignment_id: int) -> tuple[int, dict[str, Any]]:
    """(version, body) of a rater's draft. Raises Refused where there is none."""
    own_assignment(session, member, assignment_id)
    found = find(session, assignment_id)
    if found is None:
        raise Refused("not-found", "There is no draft of this item.")
    return found


def find(session: Session, assignment_id: int) -> tuple[int, dict[str, Any]] | None:
    """(version, body) of an assignment's draft, or None."""
    row = session.execute(select(Draft.version, Draft.body).where(Draft.assignment_id == assignment_id)).first()
    return (row.version, row.body) if row else None
