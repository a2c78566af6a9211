"""Answers: check one, store one, and read what counts."""

import time
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from annotate.services.assignment import is_free, lock_member
from annotate.services.projects import note
from annotate.store.tables import Answer as AnswerRow
from annotate.store.tables import Assignment, Item, Member, Project, Slot
from preferences.contract import Answer, check_answer

NOT_YOURS = "This item was not given to you; reload the page to get the next one."


class Refused(Exception):
    """An answer that can't be stored; the message is one sentence for the rater."""


class Receipt(NamedTuple):
    """`surplus`: the lease had run out and other raters filled the item; the answer is kept but not counted."""

    answer: int
    surplus: bool
    submitted_at: float


def submit(
    session: Session,
    member: Member,
    assignment_id: int,
    answer: Answer,
    *,
    key: str,
    guideline: int | None,
    now: float | None = None,
) -> Receipt:
    """Store one rater's answer to an assignment, with its slot and audit entry, in the caller's transaction.

    The same answer with the same idempotency `key` again returns the first receipt. A late answer takes a free slot,
    or else is surplus.
    Raises Refused for an assignment of somebody else, for an item answered already, and for ranks that don't fit.
    """
    now = time.time() if now is None else now
    lock_member(session, member)
    assignment = session.get(Assignment, assignment_id)
    if assignment is None or assignment.member_id != member.id:
        raise Refused(NOT_YOURS)
    stored = session.scalar(
        select(AnswerRow).where(AnswerRow.item_id == assignment.item_id, AnswerRow.member_id == member.id)
    )
    if stored is not None:
        if (stored.idempotency_key, stored.ranks, stored.strength) != (key, answer.ranks, answer.strength):
            raise Refused("You have answered this item already, and your first answer stands; reload the page.")
        return Receipt(stored.id, stored.kind == "surplus", stored.submitted_at or now)
    item = session.get_one(Item, assignment.item_id)
    if answer.strength is not None and not session.get_one(Project, member.project_id).strength:
        raise Refused("This project does not ask how strongly; leave the strength out.")
    try:
        check_answer(answer, len(item.responses))
    except ValueError as error:
        raise Refused(f"This answer can't be stored: {error}.") from None

    own = session.scalar(select(Slot).where(Slot.assignment_id == assignment.id).with_for_update())
    free = select(Slot).where(Slot.item_id == item.id, is_free(now)).order_by(Slot.number).limit(1)
    slot = own or session.scalar(free.with_for_update(skip_locked=True))
    if slot is not None:
        # No lease any more. The change to the row is what tells another transaction, which found the slot free just
        # before this one is committed, to look again (PostgreSQL).
        slot.assignment_id, slot.leased_until = assignment.id, None
    row = AnswerRow(
        item_id=item.id,
        member_id=member.id,
        slot_id=slot.id if slot is not None else None,
        kind="rated" if slot is not None else "surplus",
        idempotency_key=key,
        shown=assignment.shown,
        guideline=guideline,
        submitted_at=now,
        **answer_columns(answer),
    )
    session.add(row)
    session.flush()
    note(session, "answered", project=item.project_id, member=member.id, answer=row.id, kind=row.kind)
    return Receipt(row.id, row.kind == "surplus", now)


def in_import_order(
    session: Session, assignment_id: int, ranks: list[int], strength: int | None, seconds: float | None
) -> Answer:
    """Undo the order that an assignment showed: `ranks` and a pair's signed `strength` come in the order shown.

    Raises Refused if there is no such assignment, or not one rank a response.
    """
    assignment = session.get(Assignment, assignment_id)
    if assignment is None:
        raise Refused(NOT_YOURS)
    shown = assignment.shown
    if len(ranks) != len(shown):
        raise Refused(f"This answer can't be stored: {len(ranks)} ranks for {len(shown)} responses.")
    if strength is not None and shown == [1, 0]:
        strength = -strength
    return Answer(
        rater=str(assignment.member_id),
        ranks=[ranks[shown.index(index)] for index in range(len(shown))],
        strength=strength,
        seconds=seconds,
    )


def answer_columns(answer: Answer) -> dict[str, object]:
    """The columns that a rated and an imported answer share."""
    return {
        "ranks": answer.ranks,
        "strength": answer.strength,
        "ratings": answer.ratings,
        "flags": answer.flags or [],
        "rationale": answer.rationale,
        "edited": answer.edited.model_dump() if answer.edited else None,
        "seconds": answer.seconds,
    }


def counted_answers(session: Session, project_id: int) -> dict[int, list[tuple[AnswerRow, Member]]]:
    """{item id: its answers with who gave them}, surplus left out, in the order of pseudonyms."""
    query = (
        select(AnswerRow, Member)
        .join(Member, Member.id == AnswerRow.member_id)
        .where(Member.project_id == project_id, AnswerRow.kind != "surplus")
        .order_by(AnswerRow.item_id, Member.pseudonym)
    )
    answers: dict[int, list[tuple[AnswerRow, Member]]] = {}
    for answer, member in session.execute(query):
        answers.setdefault(answer.item_id, []).append((answer, member))
    return answers
