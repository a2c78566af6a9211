"""Decisions: a reviewer or owner settles what raters disagree on, blind, and sees their votes afterwards.

Decisions are append-only, and the newest one of an item stands: an export says it in place of the raters' consensus.
"""

import hashlib
import time
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from annotate.services.answers import GivenAnswer, Shown, in_import_order, standing_answers
from annotate.services.assignment import lock_member
from annotate.services.items import item_of
from annotate.services.projects import note
from annotate.services.refusals import Refused
from annotate.services.sure import lock_item, settle
from annotate.store.tables import Answer, Decision, Item, Member, Project
from preferences.contract import check_answer


class View(NamedTuple):
    """An item for somebody who decides about it: `shown` is their own order of its responses.

    Before `own`, their newest decision, there are no `votes` and no `others`, which are other people's newest
    decisions; `stands` is the id of the one that stands.
    """

    item: Item
    shown: list[int]
    own: Decision | None
    votes: list[GivenAnswer]
    others: list[tuple[Decision, Member]]
    stands: int | None


def look(session: Session, member: Member, item_id: int) -> View:
    """What `member` may see of an item. Raises Refused where there is none, and for a gold item."""
    item = item_of(session, member.project_id, item_id).item
    if item.gold is not None:
        raise Refused("bad-input", "This is a gold item: what is right about it is known.")
    query = select(Decision, Member).join(Member).where(Decision.item_id == item.id).order_by(Decision.id)
    newest = {who.id: (decision, who) for decision, who in session.execute(query)}
    own, _ = newest.pop(member.id, (None, None))
    if own is None:
        return View(item, _order(item, member), None, [], [], None)
    others = sorted(newest.values(), key=lambda both: both[0].id)
    stands = max(decision.id for decision in (own, *(decision for decision, _ in others)))
    return View(item, own.shown, own, _votes(session, item), others, stands)


def decide(
    session: Session,
    member: Member,
    item_id: int,
    ranks: list[int],
    strength: int | None,
    rationale: str | None,
    *,
    now: float | None = None,
) -> View:
    """Store what `member` decides, `ranks` and `strength` in the order that they were shown; the newest one stands.

    The same again, by the same person, stores nothing. Raises Refused for a gold item, for one that nobody has
    answered, and for what does not fit.
    """
    lock_member(session, member)
    project = session.get_one(Project, member.project_id)
    view = look(session, member, item_id)
    if not (view.votes or _votes(session, view.item)):
        raise Refused("bad-input", "Nobody has answered this item yet, so there is nothing to decide.")
    given = in_import_order(view.shown, Shown(ranks, strength))
    if strength is not None and not project.strength:
        raise Refused("does-not-fit", "This project does not ask how strongly; leave the strength out.")
    try:
        check_answer(given, len(view.shown))
    except ValueError as error:
        raise Refused("does-not-fit", f"This decision can't be stored: {error}.") from None
    said = (given.ranks, given.strength, (rationale or "").strip() or None)
    own = view.own
    if own is None or own.id != view.stands or (own.ranks, own.strength, own.rationale) != said:
        row = Decision(
            item_id=item_id,
            member_id=member.id,
            ranks=said[0],
            strength=said[1],
            rationale=said[2],
            shown=view.shown,
            at=time.time() if now is None else now,
        )
        session.add(row)
        session.flush()
        lock_item(session, project, item_id)
        settle(session, project, item_id, row.at)
        note(session, "decided", project=project.id, member=member.id, item=item_id, decision=row.id)
    return look(session, member, item_id)


def decisions(session: Session, project_id: int) -> dict[int, Decision]:
    """{item id: the decision that stands}."""
    query = select(Decision).join(Item).where(Item.project_id == project_id).order_by(Decision.id)
    return {decision.item_id: decision for decision in session.scalars(query)}


def _votes(session: Session, item: Item) -> list[GivenAnswer]:
    query = standing_answers().where(Answer.item_id == item.id, Answer.kind.in_(["rated", "imported"]))
    return [GivenAnswer(*row) for row in session.execute(query.order_by(Member.pseudonym))]


def _order(item: Item, member: Member) -> list[int]:
    """The order in which a person sees an item's responses: theirs alone, and the same whenever they look."""
    key = item.content_hash.encode()

    def place(number: int) -> bytes:
        return hashlib.blake2b(f"{item.id}/{member.id}/{number}".encode(), key=key).digest()

    return sorted(range(len(item.responses)), key=place)
