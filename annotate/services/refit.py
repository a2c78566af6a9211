"""Fit the consensus of a project anew, now and then and out of the raters' way, for what sure.py goes by."""

import threading
import time
from collections.abc import Sequence

from sqlalchemy import func, or_, select, update
from sqlalchemy.orm import Session

from annotate.services.consensus import consensus_of
from annotate.services.counted import counted
from annotate.services.decisions import decisions
from annotate.services.sure import adjust, lock_item, turn_of
from annotate.store.database import Database
from annotate.store.tables import Answer, Decision, Item, Member, Project, Slot
from preferences.stats.spend import certainty, is_enough

LEAST_SECONDS = 30.0  # between two fits of a process …
TIMES = 50  # … and so many times as long as the last one took
STEP = 20  # items that are settled in one transaction
_next: dict[tuple[int, int], float] = {}  # (engine, project) -> when it is due again
_state = threading.Lock()


def is_due(database: Database, project_id: int) -> bool:
    """Whether this process should call `refit` now: only one of its threads is told so."""
    now, key = time.monotonic(), (id(database.engine), project_id)
    with _state:
        if _next.get(key, 0.0) > now:
            return False
        _next[key] = now + LEAST_SECONDS
        return True


def refit(database: Database, project_id: int, *, now: float | None = None) -> None:
    """Learn from all answers how far each rater can be trusted, and settle every item by it.

    What is answered or decided meanwhile is left as it was settled. It holds no lock while it thinks, and then settles
    a few items at a time, so that no answer waits for all of them.
    """
    began = time.monotonic()
    with database.read() as session:
        project = session.get_one(Project, project_id)
        sure = project.sure
        if sure is None:
            return
        answers = counted(session, project_id)
        found = consensus_of(session, project_id, answers)
        decided = decisions(session, project_id).keys()
        newest = _newest(session, project_id)
    with database.write() as session:
        values = {**found.fit.parameters._asdict(), "strong": list(found.fit.parameters.strong)}
        session.execute(update(Project).where(Project.id == project_id).values(fit=values))
        names = select(Member.pseudonym, Member.id).where(Member.project_id == project_id)
        rows = [
            {"id": member, "reliability": found.fit.raters[name].reliability}
            for name, member in session.execute(names)
            if name in found.fit.raters
        ]
        if rows:
            session.execute(update(Member), rows)
    levels = {item: 1.0 if item in decided else certainty(one) for item, one in found.items.items()}
    enough = {item for item, one in found.items.items() if item in decided or is_enough(one, len(answers[item]), sure)}
    with database.read() as session:
        changed = [
            item
            for item, free, turn in _unsettled(session, project_id)
            if item in levels and (item in enough or not free or turn != turn_of(item, levels[item]))
        ]
    for start in range(0, len(changed), STEP):
        chunk = changed[start : start + STEP]
        with database.write() as session:
            # Who changes the project waits, and whoever answers one of these items.
            project = session.get_one(Project, project_id, with_for_update={"key_share": True})
            if project.sure != sure:
                return  # changed meanwhile: whoever has changed it fits anew
            for item in chunk:
                lock_item(session, project, item)
            known = _newest(session, project_id, chunk)
            for item in chunk:
                if known[item] == newest[item]:
                    adjust(session, item, item in enough, levels[item], time.time() if now is None else now)
    with _state:
        took = time.monotonic() - began
        _next[id(database.engine), project_id] = time.monotonic() + max(LEAST_SECONDS, TIMES * took)


def _newest(session: Session, project_id: int, items: Sequence[int] | None = None) -> dict[int, tuple[int, int]]:
    """{item: the ids of its newest answer and decision, or 0}: whether anybody has said anything since."""
    found: dict[int, list[int]] = {}
    for place, (of, number) in enumerate(((Answer.item_id, Answer.id), (Decision.item_id, Decision.id))):
        query = select(of, func.max(number)).group_by(of)
        if items is None:
            query = query.join(Item, Item.id == of).where(Item.project_id == project_id)
        else:
            query = query.where(of.in_(items))
        for item, newest in session.execute(query):
            found.setdefault(item, [0, 0])[place] = newest
    return {item: (answer, decision) for item, (answer, decision) in found.items()}


def _unsettled(session: Session, project_id: int) -> list[tuple[int, int, float | None]]:
    """The items that have slots without an answer, or fewer slots than their overlap: (id, how many without, turn)."""
    unfilled = Slot.filled.is_(False)
    query = (
        select(Item.id, func.count(Slot.id).filter(unfilled), func.max(Slot.turn).filter(unfilled))
        .outerjoin(Slot, Slot.item_id == Item.id)
        .where(Item.project_id == project_id, Item.gold.is_(None))
        .group_by(Item.id)
        .having(or_(func.count(Slot.id).filter(unfilled) > 0, func.count(Slot.id) < Item.overlap))
        .order_by(Item.id)
    )
    return [(item, free, turn) for item, free, turn in session.execute(query)]
