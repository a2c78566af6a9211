"""About how much is left for a rater, for the progress bar: counted seldom, and telling nothing that it must not."""

import time
from typing import Any, NamedTuple

from sqlalchemy.orm import Session

from annotate.services.assignment import Wanted, wanted_by
from annotate.store.tables import Project


class _Counted(NamedTuple):
    wanted: Wanted
    until: float


_wanted: dict[tuple[Any, ...], _Counted] = {}
ROUNDED_TO = 10
CHEAP = 0.0005  # seconds: a count that is quicker is made every time


def items_left(session: Session, project: Project, blocked: frozenset[str], ended: int) -> int:
    """About how many items are left for a rater, for the progress bar; at least the one that they are given.

    What the whole project still wants is counted only now and then: it reads all open slots. Where gold items are
    mixed in the number is rounded up, so that it does not tell which answers were checks.
    """
    key = (id(session.get_bind().engine), project.id, project.version, blocked)
    counted = _wanted.get(key)
    began = time.monotonic()
    if counted is None or counted.until < began:
        wanted = wanted_by(session, project, blocked)
        took = time.monotonic() - began
        if len(_wanted) > 1000:
            _wanted.clear()
        counted = _wanted[key] = _Counted(wanted, began + (200 * took if took > CHEAP else 0))
    left = max(1, counted.wanted.items - ended)
    return -(-left // ROUNDED_TO) * ROUNDED_TO if counted.wanted.mixes_gold else left
