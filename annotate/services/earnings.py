"""What a rater has done and earned: paid answers, active time, money. Imported answers are paid elsewhere."""

from typing import NamedTuple

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, aliased

from annotate.store.tables import Answer, Item, Member, Project, Question


class Done(NamedTuple):
    """Items that a member has answered here, and the seconds of active time that all their answers took."""

    answers: int
    seconds: float


def done_in(session: Session, project_id: int) -> dict[int, Done]:
    """{member id: what they have done}, checks, practice, surplus answers and the time of corrections included."""
    return _done(session, Item.project_id == project_id)


def done_of(session: Session, member: Member) -> Done:
    return _done(session, Answer.member_id == member.id).get(member.id, Done(0, 0.0))


def earned(project: Project, answers: int, seconds: float) -> float | None:
    """Money for so many answers and seconds of active time, in `project.pay`'s currency; None where none is set."""
    if project.pay is None:
        return None
    amount: float = project.pay["amount"]
    return amount * (answers if project.pay["per"] == "answer" else seconds / 3600.0)


def unread_replies(session: Session, member: Member) -> int:
    """How many of a rater's questions have a reply that they have not seen."""
    waiting = (Question.member_id == member.id, Question.replied_at.is_not(None), Question.read_at.is_(None))
    return session.scalar(select(func.count()).where(*waiting)) or 0


def _done(session: Session, which: object) -> dict[int, Done]:
    """The newest answer to each item: a revision's seconds hold those of the answer that it supersedes."""
    newer = aliased(Answer)
    newest = ~exists().where(newer.supersedes_id == Answer.id)
    query = (
        select(Answer.member_id, func.count(), func.coalesce(func.sum(Answer.seconds), 0.0))
        .join(Item, Item.id == Answer.item_id)
        .where(which, Answer.kind != "imported", newest)  # type: ignore[arg-type]
        .group_by(Answer.member_id)
    )
    return {member: Done(count, float(seconds or 0.0)) for member, count, seconds in session.execute(query)}
