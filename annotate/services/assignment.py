"""Which item a rater gets next: leases of slots."""

import secrets
import time

from sqlalchemy import ColumnElement, Select, and_, case, exists, func, or_, select
from sqlalchemy.orm import Session

from annotate.store.tables import Answer, Assignment, Item, Member, Slot

LEASE_SECONDS = 30 * 60.0


def next_assignment(session: Session, member: Member, *, now: float | None = None) -> tuple[Assignment, Item] | None:
    """Lease a slot to a rater for LEASE_SECONDS and return the assignment with its item; None if nothing is left.

    What the rater held last comes first, with the same order of responses: a lease that still runs, or one that ran
    out and whose slot (or another of that item) is still free. Then the item of highest priority, oldest first.
    """
    now = time.time() if now is None else now
    lock_member(session, member)
    first = open_slots(member, now).limit(1).with_for_update(skip_locked=True, of=Slot)
    row = session.execute(first).first()
    if row is None:
        return None
    slot, item = session.get_one(Slot, row.slot), session.get_one(Item, row.item)
    if row.assignment is not None:
        assignment = session.get_one(Assignment, row.assignment)
    else:
        order = list(range(len(item.responses)))
        secrets.SystemRandom().shuffle(order)
        assignment = Assignment(item_id=item.id, member_id=member.id, shown=order, created_at=now)
        session.add(assignment)
        session.flush()
    slot.assignment_id, slot.leased_until = assignment.id, now + LEASE_SECONDS
    session.flush()
    return assignment, item


def progress(session: Session, member: Member, *, now: float | None = None) -> tuple[int, int]:
    """(answers this rater has given here, those plus the items that are open to them now)."""
    now = time.time() if now is None else now
    given = select(func.count()).where(Answer.member_id == member.id, Answer.kind != "imported")
    done = session.scalar(given) or 0
    items = open_slots(member, now).with_only_columns(Item.id).order_by(None).distinct().subquery()
    return done, done + (session.scalar(select(func.count()).select_from(items)) or 0)


def is_free(now: float) -> ColumnElement[bool]:
    """SQL condition: a slot without an answer and without a lease that still runs."""
    answered = exists().where(Answer.slot_id == Slot.id)
    return and_(~answered, or_(Slot.assignment_id.is_(None), Slot.leased_until < now))


def lock_member(session: Session, member: Member) -> None:
    """Let one rater's requests take turns, so that two tabs can't both open the same item (PostgreSQL only)."""
    session.execute(select(Member.id).where(Member.id == member.id).with_for_update())


def open_slots(member: Member, now: float) -> Select:
    """Rows (slot, item, assignment or null), ids, of the slots that this rater may take or holds; best first."""
    mine = and_(Assignment.item_id == Item.id, Assignment.member_id == member.id)
    held = Slot.assignment_id == Assignment.id
    unanswered = ~exists().where(Answer.item_id == Item.id, Answer.member_id == member.id)
    return (
        select(Slot.id.label("slot"), Item.id.label("item"), Assignment.id.label("assignment"))
        .join(Item, Item.id == Slot.item_id)
        .outerjoin(Assignment, mine)
        .where(Item.project_id == member.project_id, unanswered, or_(held, is_free(now)))
        .order_by(case((held, 0), (Assignment.id.is_not(None), 1), else_=2), Item.priority.desc(), Item.id, Slot.number)
    )
