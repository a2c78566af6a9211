"""The answers that count, as plain columns: what statistics and exports need, of a large project in a second."""

import json
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Text, cast
from sqlalchemy.orm import Session

from annotate.services.answers import standing_answers
from annotate.store.tables import Answer, AnswerText, Member
from preferences.stats.consensus import Said


class Counted(NamedTuple):
    """An answer that stands and counts: rated or imported, the newest revision. Ranks are in import order.

    Its lists and dictionaries are shared with other answers: read them only.
    """

    item: int
    member: int
    pseudonym: str
    kind: str
    ranks: list[int]
    strength: int | None
    ratings: dict[str, list[float]] | None
    shown: list[int] | None
    flags: list[str]
    spans: list[dict[str, Any]] | None
    edited: dict[str, Any] | None
    seconds: float | None
    submitted_at: float | None
    guideline: int | None

    def said(self) -> Said:
        """What the consensus model takes of it."""
        return Said(self.pseudonym, self.ranks, self.strength, self.shown)


def counted(session: Session, project_id: int) -> dict[int, list[Counted]]:
    """{item id: its answers}, both in the order of ids and pseudonyms."""
    query = (
        standing_answers()
        .with_only_columns(
            Answer.item_id,
            Member.id,
            Member.pseudonym,
            Answer.kind,
            cast(Answer.ranks, Text),
            Answer.strength,
            cast(Answer.ratings, Text),
            cast(Answer.shown, Text),
            cast(Answer.flags, Text),
            Answer.spans,
            AnswerText.edited,
            Answer.seconds,
            Answer.submitted_at,
            Answer.guideline,
        )
        .where(Member.project_id == project_id, Answer.kind.in_(["rated", "imported"]))
        .order_by(Answer.item_id, Member.pseudonym)
    )
    found: dict[int, list[Counted]] = {}
    for item, member, pseudonym, kind, ranks, strength, ratings, shown, flags, *more in session.execute(query):
        lists = _parsed(ranks), strength, _parsed(ratings), _parsed(shown), _parsed(flags)
        found.setdefault(item, []).append(Counted(item, member, pseudonym, kind, *lists, *more))
    return found


@lru_cache(maxsize=4096)
def _parsed(text: str | None) -> Any:
    """A column of JSON: there are few different ones, and parsing tens of thousands takes most of the time."""
    return None if text is None else json.loads(text)
