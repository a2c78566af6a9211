"""Slots of items: more of them, up to what an item wants."""

from collections.abc import Collection

from sqlalchemy import func, insert, select, update
from sqlalchemy.orm import Session

from annotate.store.tables import Item, Slot


def add_slots(session: Session, item: Item, used: Collection[int], count: int, turn: float) -> None:
    """Give an item `count` more slots, under the lowest numbers that are not `used`."""
    free = [number for number in range(1, len(used) + count + 1) if number not in used][:count]
    same = {"project_id": item.project_id, "item_id": item.id, "position": -item.priority, "turn": turn}
    session.execute(insert(Slot), [{**same, "number": number} for number in free])


def open_all(session: Session, project_id: int) -> None:
    """Every item of a project gets as many slots as its overlap, in the order of import: none is sure any more."""
    # Who settles one of them comes before, or sees that there is nothing to settle (sure.lock_item).
    ours = select(Item.id).where(Item.project_id == project_id).order_by(Item.id)
    session.execute(ours.with_for_update(key_share=True))
    counts = select(Slot.item_id, func.count().label("slots")).where(Slot.project_id == project_id)
    counted = counts.group_by(Slot.item_id).subquery()
    query = select(Item).outerjoin(counted, counted.c.item_id == Item.id)
    query = query.where(Item.project_id == project_id, Item.gold.is_(None)).order_by(Item.id)
    for item in session.scalars(query.where(func.coalesce(counted.c.slots, 0) < Item.overlap)).all():
        used = set(session.scalars(select(Slot.number).where(Slot.item_id == item.id)))
        add_slots(session, item, used, item.overlap - len(used), float(item.id))
    later = update(Slot).where(Slot.project_id == project_id, Slot.filled.is_(False), Slot.turn != Slot.item_id)
    session.execute(later.values(turn=Slot.item_id), execution_options={"synchronize_session": False})
