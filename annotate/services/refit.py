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
TIMES = 50  # … and so many times as long as the last one took to compute
STEP = 20  # items that are settled in one transaction
_next: dict[tuple[str, int], float] = {}  # (database, project) -> when it is due again
_waiting: set[tuple[str, int]] = set()  # where something was answered since the last one began
_state = threading.Lock()


def is_due(database: Database, project_id: int, *, answered: bool) -> bool:
    """Whether this process should call `refit` now: only one of its threads is told so.

    An answer that comes too soon after a fit leaves word of it, so that the next one who asks is told; also who has
    `answered` nothing: after a pause raters find what the last answers before it have changed.
    """
    now, key = time.monotonic(), (database.name, project_id)
    with _state:
        if answered:
            _waiting.add(key)
        if key not in _waiting or _next.get(key, 0.0) > now:
            return False
        _waiting.discard(key)
        _next[key] = now + LEAST_SECONDS
        return True


def refit(database: Database, project_id: int, *, now: float | None = None) -> None:
    """Learn from all answers how far each rater can be trusted, and settle every item by it.

    What is answered or decided meanwhile is left as it was settled. It holds no lock while it thinks, and then settles
    a few items at a time, so that no answer waits for all of them.
    """
    with database.read() as session:
        project = session.get_one(Project, project_id)
        sure = project.sure
        if sure is None:
            return
        answers = counted(session, project_id)
        began = time.monotonic()
        found = consensus_of(session, project_id, answers)
        ended = time.monotonic()
        decided = decisions(session, project_id).keys()
        newest = _newest(session, project_id)
    with _state:
        _next[database.name, project_id] = ended + max(LEAST_SECONDS, TIMES * (ended - began))
    with database.write() as session:
        values = {**found.fit.parameters._asdict(), "strong": list(found.fit.parameters.strong)}
        session.execute(update(Project).where(Project.id == project_id).values(fit=values))
        # In one order, as whoever else locks several of them.
        names = select(Member.pseudonym, Member.id).where(Member.project_id == project_id).order_by(Member.id)
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
            for item, free, missing, turns in _unsettled(session, project_id)
            if item in levels and (free if item in enough else missing or turns != {turn_of(item, levels[item])})
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


def _unsettled(session: Session, project_id: int) -> list[tuple[int, int, bool, set[float]]]:
    """The items that have slots without an answer, or fewer slots than their overlap.

    Each is its id, how many slots have no answer, whether it has fewer than its overlap, and the turns of the former.
    """
    unfilled = Slot.filled.is_(False)
    free, missing = func.count(Slot.id).filter(unfilled), func.count(Slot.id) < Item.overlap
    query = (
        select(Item.id, free, missing, func.min(Slot.turn).filter(unfilled), func.max(Slot.turn).filter(unfilled))
        .outerjoin(Slot, Slot.item_id == Item.id)
        .where(Item.project_id == project_id, Item.gold.is_(None))
        .group_by(Item.id)
        .having(or_(free > 0, missing))
        .order_by(Item.id)
    )
    return [(item, count, short, set(turns)) for item, count, short, *turns in session.execute(query)]
