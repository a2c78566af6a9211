"""Which item a rater gets next: leases of slots, gold items mixed in, training before real items.

A real item hands out its slots, each leased to one rater at a time; a gold item checks the rater, takes no slot, and
may go to everybody. Nobody is given an item twice.
"""

import secrets
import time
from collections.abc import Collection
from typing import NamedTuple

from sqlalchemy import (
    ColumnElement,
    Select,
    SQLColumnExpression,
    and_,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from annotate.services.gold import end_of_training, is_trained
from annotate.services.projects import note
from annotate.services.refusals import Refused
from annotate.services.webhooks import announce
from annotate.store.tables import Answer, Assignment, Draft, Item, ItemTag, Member, Project, Skip, Slot

LEASE_SECONDS = 30 * 60.0
_random = secrets.SystemRandom()


class Given(NamedTuple):
    """An item as it was given to a rater: `shown` is the order of its responses on their screen."""

    assignment: int
    item: int
    purpose: str
    shown: list[int]


def next_assignment(
    session: Session, member: Member, project: Project, *, holding: Collection[int] = (), now: float | None = None
) -> Given | None:
    """Lease an item to a rater for LEASE_SECONDS; None if there is nothing for them now.

    What the rater was given before and has not ended comes first, in the same order of responses, unless they have
    opted out of it since, an owner has sent them back to training, or it is among the assignments that they are
    `holding`: so a page can fetch the next item while the rater reads this one. After that, training until they are
    qualified, or there is nothing to train on and nothing to pass; then the free slot of highest
    priority, oldest item first, or in its place, at the project's gold rate and by chance, a gold item.
    """
    now = time.time() if now is None else now
    lock_member(session, member)
    if project.closed_at is not None:
        return None
    trains = member.qualified_at is None and bool(project.qualify or project.practice)
    for given in _open_assignments(session, member, blocked_tags(member, project)):
        if given.assignment in holding or (trains and given.purpose != "training"):
            continue
        if _lease(session, given, now):
            return given
    if trains:
        trained = is_trained(session, member, project)
        practice = None if trained else _give_gold(session, member, project, "training", now)
        if practice is not None or not end_of_training(session, member, project):
            return practice
    free = _free_slots(member, project, now).limit(1).with_for_update(skip_locked=True, of=Slot)
    found = session.execute(free).first()
    if found is None:
        return None
    if project.gold_rate and _random.random() < project.gold_rate:
        gold = _give_gold(session, member, project, "gold", now)
        if gold is not None:
            return gold
    given = _give(session, member, found.item_id, found.responses, "item", now)
    _take(session, found.id, given.assignment, now)
    return given


def renew(session: Session, member: Member, assignment_id: int, *, now: float | None = None) -> float:
    """Lengthen the lease of an item that the rater is at work on. Returns when it ends.

    Raises Refused "assignment-expired" if it was over and others have taken all slots: an answer would still be kept
    and paid, but not counted.
    """
    now = time.time() if now is None else now
    lock_member(session, member)
    given = own_assignment(session, member, assignment_id)
    if not _lease(session, given, now):
        raise Refused(
            "assignment-expired",
            "You had this item for too long, and others have answered it by now; an answer is still kept and paid.",
        )
    return now + LEASE_SECONDS


def skip(
    session: Session, member: Member, assignment_id: int, reason: str, text: str | None, *, now: float | None = None
) -> None:
    """Pass an item on: its slot is free for others, and this rater is not given it again. Twice is once.

    Raises Refused for an item of somebody else, or one that is answered.
    """
    now = time.time() if now is None else now
    lock_member(session, member)
    row = given_to(session, member, assignment_id)
    if row.state == "skipped":
        return
    if row.state == "answered":
        raise Refused("already-answered", "You have answered this item, so it can't be skipped.")
    session.execute(
        update(Slot).where(Slot.assignment_id == assignment_id).values(assignment_id=None, leased_until=None)
    )
    end(session, assignment_id, "skipped")
    session.add(Skip(item_id=row.item_id, member_id=member.id, reason=reason, text=text, at=now))
    session.flush()
    note(session, "skipped", project=member.project_id, member=member.id, item=row.item_id, reason=reason)
    announce(session, member.project_id, "item.skipped", item=row.item_id, reason=reason)


def own_assignment(session: Session, member: Member, assignment_id: int) -> Given:
    """An open assignment of this rater. Raises Refused if it is somebody else's, answered or skipped."""
    row = given_to(session, member, assignment_id)
    if row.state != "open":
        said = {"answered": "You have answered this item already.", "skipped": "You have skipped this item."}
        raise Refused(f"already-{row.state}", said[row.state])
    return Given(row.id, row.item_id, row.purpose, row.shown)


def given_to(session: Session, member: Member, assignment_id: int) -> Assignment:
    """An assignment of this rater, in whatever state. Raises Refused "not-yours" for one of somebody else."""
    row = session.get(Assignment, assignment_id)
    if row is None or row.member_id != member.id:
        raise Refused("not-yours", "This item was not given to you; reload the page to get the next one.")
    return row


def end(session: Session, assignment_id: int, state: str) -> None:
    """An assignment is answered or skipped: it needs no draft any more."""
    session.execute(update(Assignment).where(Assignment.id == assignment_id).values(state=state))
    session.execute(delete(Draft).where(Draft.assignment_id == assignment_id))


def take_slot(session: Session, given: Given, now: float) -> int | None:
    """The slot that an answer to this assignment fills: its own, else a free one of the item, else None."""
    slot = _slot_for(session, given, now)
    if slot is not None:
        # The change to the row is also what tells another transaction, which found the slot free just before this
        # one is committed, to look again (PostgreSQL).
        values = {"assignment_id": given.assignment, "leased_until": None, "filled": True}
        session.execute(update(Slot).where(Slot.id == slot).values(values))
    return slot


def is_free(now: float) -> ColumnElement[bool]:
    """SQL condition: a slot without an answer and without a lease that still runs."""
    return and_(Slot.filled.is_(False), or_(Slot.leased_until.is_(None), Slot.leased_until < now))


def lock_member(session: Session, member: Member) -> None:
    """Let one person's requests take turns, so that two tabs can't both open the same item (PostgreSQL only).

    Raises Refused where they were removed, or erased, while this one waited.
    """
    if session.get_bind().dialect.name == "sqlite" or session.info.get("locked") == member.id:
        return
    as_it_is = {"populate_existing": True}  # what others have changed while this one waited
    session.scalars(select(Member).where(Member.id == member.id).with_for_update(), execution_options=as_it_is).one()
    if member.removed_at is not None:
        raise Refused("forbidden", "You may not do this here any more.")
    session.info["locked"] = member.id  # a session is one transaction here


def blocked_tags(member: Member, project: Project) -> set[str]:
    """Tags whose items this rater is not given: those that need a skill, and those opted out of."""
    return (set(project.skills) - set(member.skills)) | (set(member.opted_out) & set(project.warnings))


def not_blocked(item_id: SQLColumnExpression[int], blocked: Collection[str]) -> list[ColumnElement[bool]]:
    """SQL conditions: an item without any of these tags."""
    if not blocked:
        return []
    return [~exists().where(ItemTag.item_id == item_id, ItemTag.tag.in_(sorted(blocked)))]


# --- inside ------------------------------------------------------------------------------------------------------


def _open_assignments(session: Session, member: Member, blocked: Collection[str]) -> list[Given]:
    columns = (Assignment.id, Assignment.item_id, Assignment.purpose, Assignment.shown)
    query = select(*columns).where(Assignment.member_id == member.id, Assignment.state == "open")
    query = query.where(*not_blocked(Assignment.item_id, blocked))  # they may have opted out since
    return [Given(*row) for row in session.execute(query.order_by(Assignment.id))]


def _lease(session: Session, given: Given, now: float) -> bool:
    """Lease the assignment's own slot anew, or a free one of its item; a check needs none. False if all are taken."""
    if given.purpose != "item":
        return True
    slot = _slot_for(session, given, now)
    if slot is None:
        return False
    _take(session, slot, given.assignment, now)
    return True


def _slot_for(session: Session, given: Given, now: float) -> int | None:
    """The assignment's own slot, waiting for it where somebody changes it just now, else a free one of its item."""
    own = select(Slot.id).where(Slot.assignment_id == given.assignment, Slot.filled.is_(False)).with_for_update()
    slot = session.scalar(own)
    if slot is None:
        free = select(Slot.id).where(Slot.item_id == given.item, is_free(now)).order_by(Slot.number).limit(1)
        slot = session.scalar(free.with_for_update(skip_locked=True))
    return slot


def _take(session: Session, slot: int, assignment: int, now: float) -> None:
    values = {"assignment_id": assignment, "leased_until": now + LEASE_SECONDS}
    session.execute(update(Slot).where(Slot.id == slot).values(values))


def _give(session: Session, member: Member, item: int, responses: int, purpose: str, now: float) -> Given:
    shown = list(range(responses))
    _random.shuffle(shown)
    values = {"item_id": item, "member_id": member.id, "purpose": purpose, "state": "open", "shown": shown}
    made = session.scalar(insert(Assignment).values(**values, created_at=now).returning(Assignment.id))
    assert made is not None
    return Given(made, item, purpose, shown)


def _give_gold(session: Session, member: Member, project: Project, purpose: str, now: float) -> Given | None:
    """A gold item that this rater has not seen: for training the first one, else by chance; None if none is left."""
    blocked = blocked_tags(member, project)
    unseen = (
        select(Item.id, func.json_array_length(Item.responses))
        .where(Item.project_id == project.id, Item.gold.is_not(None), *not_blocked(Item.id, blocked))
        .where(*_unseen(Item.id, member))
    )
    items = session.execute(unseen.order_by(Item.priority.desc(), Item.id)).all()
    if not items:
        return None
    item, responses = items[0] if purpose == "training" else _random.choice(items)
    return _give(session, member, item, responses, purpose, now)


def _unseen(item_id: SQLColumnExpression[int], member: Member) -> list[ColumnElement[bool]]:
    """SQL conditions: an item that was never given to this rater, and that an import brought no answer of theirs to."""
    return [
        ~exists().where(Assignment.item_id == item_id, Assignment.member_id == member.id),
        ~exists().where(Answer.item_id == item_id, Answer.member_id == member.id),
    ]


def _free_slots(member: Member, project: Project, now: float) -> Select:
    blocked = blocked_tags(member, project)
    return (
        select(Slot.id, Slot.item_id, func.json_array_length(Item.responses).label("responses"))
        .join(Item, Item.id == Slot.item_id)
        .where(Slot.project_id == project.id, is_free(now))
        .where(*_unseen(Slot.item_id, member), *not_blocked(Slot.item_id, blocked))
        .order_by(Slot.position, Slot.turn, Slot.item_id, Slot.number)
    )


# --- how far a rater is ------------------------------------------------------------------------------------------


class Done(NamedTuple):
    """How many items a rater has answered here, and how many they have ended of those that were wanted at some time."""

    answered: int
    ended_but_wanted: int


def done_by(session: Session, member: Member, blocked: Collection[str], since: float) -> Done:
    """What a rater has done, without items that have a blocked tag among the second; imported answers don't count.

    The second want other raters' answers still, or were filled by this one's after `since`.
    """
    answered = (Answer.member_id == member.id, Answer.revision == 1, Answer.kind != "imported")
    wanted = exists().where(Slot.item_id == Assignment.item_id, Slot.filled.is_(False))
    own = (Answer.item_id == Assignment.item_id, Answer.member_id == member.id, Answer.revision == 1)
    filled = exists().where(*own, Answer.kind == "rated", Answer.submitted_at > since)
    ended = (Assignment.member_id == member.id, Assignment.state.in_(["answered", "skipped"]), or_(wanted, filled))
    query = select(
        select(func.count()).where(*answered).scalar_subquery(),
        select(func.count()).where(*ended, *not_blocked(Assignment.item_id, blocked)).scalar_subquery(),
    )
    return Done(*session.execute(query).one())


class Wanted(NamedTuple):
    """How many items of a project still want an answer, and whether gold items are among what it gives out."""

    items: int
    mixes_gold: bool


def wanted_by(session: Session, project: Project, blocked: Collection[str]) -> Wanted:
    """What a project still wants, but for items with a blocked tag. It reads all open slots."""
    slots = select(Slot.item_id).where(Slot.project_id == project.id, Slot.filled.is_(False))
    items = slots.where(*not_blocked(Slot.item_id, blocked)).distinct().subquery()
    gold = select(Item.id).where(Item.project_id == project.id, Item.gold.is_not(None)).limit(1)
    count = session.scalar(select(func.count()).select_from(items)) or 0
    return Wanted(count, bool(project.gold_rate) and session.scalar(gold) is not None)
