"""Items as owners and reviewers see them, and what can change: how urgent an item is, how many answers it wants."""

import json
import time
from collections.abc import Sequence
from typing import Annotated, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Text, cast, delete, func, select, update
from sqlalchemy.orm import Session

from annotate.services.answers import standing_answers
from annotate.services.gold import is_correct
from annotate.services.projects import note
from annotate.services.refusals import Refused
from annotate.services.slots import add_slots
from annotate.services.sure import lock_item, settle
from annotate.store.tables import Answer, AnswerText, Item, Member, Project, Slot


class ItemChange(BaseModel):
    """Only what is given changes. The item that is most urgent has the highest priority."""

    model_config = ConfigDict(extra="forbid")

    priority: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    overlap: Annotated[int, Field(ge=1, le=1000)] = 1


class Counted(NamedTuple):
    """An item, how many slots it has, and how many are filled; of a gold item, how many raters have met it, and got it
    right. It has fewer slots than its overlap where its answers are sure."""

    item: Item
    slots: int
    filled: int
    met: int = 0
    right: int = 0


def items_of(
    session: Session, project_id: int, *, after: int, limit: int, search: str | None = None, gold: bool | None = None
) -> list[Counted]:
    """A project's items by id, from above `after`; only gold ones or only others where `gold` says so.

    `search` finds a part of the key given by the import, or a whole tag, in upper or lower case.
    """
    query = select(Item).where(Item.project_id == project_id, Item.id > after).order_by(Item.id).limit(limit)
    if search is not None:
        tagged = cast(Item.tags, Text).icontains(json.dumps(search), autoescape=True)  # as the column is written
        query = query.where(Item.key.icontains(search, autoescape=True) | tagged)
    if gold is not None:
        query = query.where(Item.gold.is_not(None) if gold else Item.gold.is_(None))
    return _counted(session, session.scalars(query).all())


def item_of(session: Session, project_id: int, item_id: int) -> Counted:
    """One item. Raises Refused if the project has no such item."""
    item = session.scalars(select(Item).where(Item.id == item_id, Item.project_id == project_id)).one_or_none()
    if item is None:
        raise Refused("not-found", "There is no such item in this project.")
    return _counted(session, [item])[0]


def change_item(
    session: Session,
    project_id: int,
    item_id: int,
    change: ItemChange,
    version: int,
    *,
    by: Member,
    now: float | None = None,
) -> Counted:
    """Change an item's priority or overlap. Raises Refused where another version stands, or it does not fit.

    A lower overlap takes free slots away; slots that are filled, or at work, stay.
    """
    item = item_of(session, project_id, item_id).item
    session.refresh(item, with_for_update={"key_share": True})  # raters' answers refer to it meanwhile
    if item.version != version:
        raise Refused("wrong-version", "Somebody has changed this item; read it again.", version=item.version)
    given = change.model_dump(exclude_unset=True)
    if "overlap" in given:
        if item.gold is not None:
            raise Refused("bad-input", "A gold item has no overlap: every rater may be given it.")
        now = time.time() if now is None else now
        _set_overlap(session, item, change.overlap, now)
        project = session.get_one(Project, project_id)
        lock_item(session, project, item.id)
        settle(session, project, item.id, now)
    if "priority" in given:
        item.priority = change.priority
        session.execute(update(Slot).where(Slot.item_id == item.id).values(position=-change.priority))
    item.version += 1
    note(session, "item changed", project=project_id, member=by.id, item=item.id, **given)
    session.flush()
    return _counted(session, [item])[0]


def answers_of(
    session: Session,
    project_id: int,
    *,
    item: int | None = None,
    rater: str | None = None,
    newest: bool = False,
    after: int,
    limit: int,
) -> Sequence[tuple[Answer, AnswerText | None, Member, str]]:
    """A project's standing answers with text, rater and the item's key, by id from above `after`.

    Only those of the item, or of the rater with that pseudonym, where given. `newest` goes the other way, and from
    below `after`; 0 is the newest of all.
    """
    query = standing_answers().add_columns(Item.key).join(Item, Item.id == Answer.item_id)
    query = query.where(Item.project_id == project_id).limit(limit)
    if item is not None:
        query = query.where(Answer.item_id == item)
    if rater is not None:
        query = query.where(Member.pseudonym == rater)
    if not newest:
        query = query.where(Answer.id > after).order_by(Answer.id)
    else:
        query = (query.where(Answer.id < after) if after else query).order_by(Answer.id.desc())
    return [tuple(row) for row in session.execute(query)]


def _set_overlap(session: Session, item: Item, overlap: int, now: float) -> None:
    slots = session.scalars(select(Slot).where(Slot.item_id == item.id).order_by(Slot.number).with_for_update()).all()
    if overlap > len(slots):
        turn = slots[0].turn if slots else float(item.id)
        add_slots(session, item, {slot.number for slot in slots}, overlap - len(slots), turn)
    spare = [slot.id for slot in reversed(slots) if not slot.filled and (slot.leased_until or 0.0) < now]
    session.execute(delete(Slot).where(Slot.id.in_(spare[: max(0, len(slots) - overlap)])))
    item.overlap = overlap


def _counted(session: Session, items: Sequence[Item]) -> list[Counted]:
    query = select(Slot.item_id, func.count(), func.count().filter(Slot.filled.is_(True)))
    query = query.where(Slot.item_id.in_([item.id for item in items])).group_by(Slot.item_id)
    slots: dict[int, tuple[int, int]] = {item: (count, filled) for item, count, filled in session.execute(query)}
    gold = {item.id: item.gold for item in items if item.gold is not None}
    results: dict[int, list[bool]] = {}
    if gold:
        given = standing_answers().with_only_columns(Answer.item_id, Answer.ranks)
        given = given.where(Answer.item_id.in_(gold), Answer.kind != "imported")
        for item_id, ranks in session.execute(given):
            results.setdefault(item_id, []).append(is_correct(ranks, gold[item_id]))
    return [
        Counted(item, *slots.get(item.id, (0, 0)), len(results.get(item.id, ())), sum(results.get(item.id, ())))
        for item in items
    ]
