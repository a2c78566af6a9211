"""The answers that count, as plain columns: what statistics need, and no more, of a large project in a second."""

from typing import NamedTuple

from sqlalchemy.orm import Session

from annotate.services.answers import standing_answers
from annotate.store.tables import Answer, Member


class Counted(NamedTuple):
    """An answer that stands and counts: rated or imported, the newest revision. Ranks are in import order."""

    item: int
    member: int
    pseudonym: str
    kind: str
    ranks: list[int]
    shown: list[int] | None
    flags: list[str]
    seconds: float | None
    submitted_at: float | None


def counted(session: Session, project_id: int) -> dict[int, list[Counted]]:
    """{item id: its answers}, both in the order of ids and pseudonyms, as `answers.counted_answers` has them."""
    query = (
        standing_answers()
        .with_only_columns(
            Answer.item_id,
            Member.id,
            Member.pseudonym,
            Answer.kind,
            Answer.ranks,
            Answer.shown,
            Answer.flags,
            Answer.seconds,
            Answer.submitted_at,
        )
        .where(Member.project_id == project_id, Answer.kind.in_(["rated", "imported"]))
        .order_by(Answer.item_id, Member.pseudonym)
    )
    found: dict[int, list[Counted]] = {}
    for row in session.execute(query):
        found.setdefault(row[0], []).append(Counted(*row))
    return found
