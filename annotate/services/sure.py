"""Stop asking about an item when its answers are sure, and ask about the least certain ones first.

Where a project says `sure`, an item whose certainty (preferences/stats/spend.py) has come that far loses its free
slots; who holds one keeps it. When a revision, or what is known of its raters by now, makes the item less certain, they
come back, up to its overlap. So whatever counts slots sees what is still wanted, and no promise about them changes.

Items of one priority take turns by certainty: one that is wholly certain waits as if it had come SPAN items later. So
every item's turn comes, however many are imported after it.

What is known of raters is from the last fit (refit.py), stored with them: the posterior of one item takes milliseconds.
"""

from functools import cache

from sqlalchemy import delete, exists, select, update
from sqlalchemy.orm import Session, aliased

from annotate.services.assignment import is_free
from annotate.services.slots import add_slots
from annotate.store.tables import Answer, Decision, Item, Member, Project, Slot
from preferences.stats.consensus import Parameters, Said, fit, posterior
from preferences.stats.spend import certainty, is_enough

SPAN = 10_000.0
PLACES = 3  # of a certainty, for turns: a fit that changes all of them a little moves few slots
AS_IT_IS = {"synchronize_session": False}  # no slot that is loaded is looked at again


def lock_item(session: Session, project: Project, item_id: int) -> None:
    """Let those who answer an item take turns, so that each sees what the others said (PostgreSQL only).

    It goes before they take a slot: whoever settles the item looks at its slots next. The project's `sure` is read
    anew, since its owner may have changed it while this one waited.
    """
    if project.sure is not None:
        session.execute(select(Item.id).where(Item.id == item_id).with_for_update(key_share=True))
        if session.get_bind().dialect.name != "sqlite":
            session.refresh(project, ["sure"])


def settle(session: Session, project: Project, item_id: int, now: float) -> None:
    """After an item's answers have changed: take its free slots away, or bring them back. Call `lock_item` before."""
    if project.sure is None:
        return
    newer = aliased(Answer)
    query = (
        select(Member.pseudonym, Answer.ranks, Answer.strength, Answer.shown, Member.reliability)
        .join(Member, Member.id == Answer.member_id)
        .where(Answer.item_id == item_id, Answer.kind.in_(["rated", "imported"]))
        .where(~exists().where(newer.supersedes_id == Answer.id))
    )
    rows = session.execute(query).all()
    known = {row.pseudonym: row.reliability for row in rows if row.reliability is not None}
    found = posterior([Said(*row[:4]) for row in rows], known, parameters_of(project))
    decided = session.scalar(select(exists().where(Decision.item_id == item_id))) or False
    level = 1.0 if decided else certainty(found)
    adjust(session, item_id, decided or is_enough(found, len(rows), project.sure), level, now)


def adjust(session: Session, item_id: int, enough: bool, level: float, now: float) -> None:
    """Give an item the slots that it wants, where its answers are `enough` or not, and its turn by its certainty."""
    item = session.get_one(Item, item_id)
    if item.gold is not None:
        return
    turn = turn_of(item_id, level)
    slots = session.execute(select(Slot.id, Slot.number, Slot.filled).where(Slot.item_id == item_id)).all()
    # Slots that somebody is about to take are theirs: they are passed over (PostgreSQL), and looked at the next time.
    free = select(Slot.id).where(Slot.item_id == item_id, is_free(now)).with_for_update(skip_locked=True)
    if enough:
        session.execute(delete(Slot).where(Slot.id.in_(free)), execution_options=AS_IT_IS)
        return
    missing = item.overlap - len(slots)
    if missing > 0:
        add_slots(session, item, {slot.number for slot in slots}, missing, turn)
    if any(not slot.filled for slot in slots):
        session.execute(update(Slot).where(Slot.id.in_(free)).values(turn=turn), execution_options=AS_IT_IS)


def turn_of(item_id: int, level: float) -> float:
    """When it is the turn of an item, among those of its priority: lower is sooner; `level` is a certainty from 0.5."""
    return item_id + SPAN * round(2 * max(level, 0.5) - 1, PLACES)


def parameters_of(project: Project) -> Parameters:
    """The consensus model's, as last fitted for this project, or what holds before there is anything to fit."""
    stored = {name: value for name, value in (project.fit or {}).items() if name in Parameters._fields}
    if "strong" in stored:
        stored["strong"] = tuple(stored["strong"])
    return _before_any()._replace(**stored)


@cache
def _before_any() -> Parameters:
    return fit([]).parameters
