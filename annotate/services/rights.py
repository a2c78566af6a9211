"""What each role may do in a project: the one place that says so. docs/security.md has the same table.

A token carries some of these rights, at most those that its person has by their role at that moment.
"""

from collections.abc import Collection
from enum import StrEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from annotate.services.refusals import Refused
from annotate.store.tables import Member


class Right(StrEnum):
    RATE = "rate"  # be given items, answer, skip, keep drafts, revise one's own answers
    REVIEW = "review"  # read items, answers and agreement; raters appear under pseudonyms
    EXPORT = "export"  # write a preferences folder
    MANAGE = "manage"  # change the project, its guidelines, items and webhooks
    PEOPLE = "people"  # see who the raters are; invite, change, remove and erase them


MAY: dict[str, frozenset[Right]] = {
    "rater": frozenset({Right.RATE}),
    "reviewer": frozenset({Right.REVIEW}),
    "owner": frozenset({Right.REVIEW, Right.EXPORT, Right.MANAGE, Right.PEOPLE}),
}


def require(session: Session, person_id: int, project_id: int, right: Right) -> Member:
    """The person's part in the project, which must include `right`, by the database as it is in this transaction.

    Raises Refused "forbidden", in the same words whether the project is there or not.
    """
    member = session.query(Member).filter_by(person_id=person_id, project_id=project_id).one_or_none()
    if member is None or member.removed_at is not None or right not in MAY[member.role]:
        raise Refused("forbidden", f"You may not do this here: it takes the right to {WORDS[right]} in this project.")
    return member


def plays(session: Session, person_id: int, roles: Collection[str]) -> bool:
    """Whether the person has one of these roles in any project, by the database as it is in this transaction."""
    mine = select(Member.id).where(Member.person_id == person_id, Member.removed_at.is_(None), Member.role.in_(roles))
    return session.scalar(mine.limit(1)) is not None


WORDS = {
    Right.RATE: "rate",
    Right.REVIEW: "review",
    Right.EXPORT: "export",
    Right.MANAGE: "manage items and settings",
    Right.PEOPLE: "manage people",
}
