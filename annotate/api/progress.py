"""About how much is left for a rater, for the progress bar: counted seldom, and telling nothing that it must not."""

import time
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from annotate.services.assignment import Wanted, done_by, wanted_by
from annotate.store.tables import Member, Project


class _Counted(NamedTuple):
    wanted: Wanted
    at: float
    until: float


_wanted: dict[tuple[Any, ...], _Counted] = {}
ROUNDED_TO = 10
CHEAP = 0.0005  # seconds: a count that is quicker is made every time
KEPT_FOR = 200  # times as long as the count took


def progress_of(session: Session, project: Project, member: Member, blocked: frozenset[str]) -> tuple[int, int]:
    """How many items a rater has answered, and about how many are left; at least the one that they are given.

    What the whole project still wants is counted only now and then: it reads all open slots. Where gold items are
    mixed in the number is rounded up, so that it does not tell which answers were checks.
    """
    key = (id(session.get_bind().engine), project.id, project.version, blocked)
    counted = _wanted.get(key)
    began = time.monotonic()
    if counted is None or counted.until < began:
        at = time.time()
        wanted = wanted_by(session, project, blocked)
        took = time.monotonic() - began
        if len(_wanted) > 1000:
            _wanted.clear()
        counted = _wanted[key] = _Counted(wanted, at, began + (KEPT_FOR * took if took > CHEAP else 0))
    done, ended = done_by(session, member, blocked, since=counted.at)
    left = max(1, counted.wanted.items - ended)
    return done, -(-left // ROUNDED_TO) * ROUNDED_TO if counted.wanted.mixes_gold else left
