"""Telling other programs what happened: an event is written with the change itself, and delivered afterwards.

services/receivers.py says who is told, services/delivery.py tells them. Bodies carry ids and pseudonyms, never names or
text, since they go to other machines.
"""

import time
from typing import Any, Literal

from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from annotate.store.access import Delivery, Webhook

Event = Literal["answer.stored", "item.skipped", "project.changed", "export.made", "question.asked"]


def announce(session: Session, project_id: int, event: Event, **body: Any) -> None:
    """Write one delivery for each webhook of the project that wants the event, in the caller's transaction."""
    query = select(Webhook.id, Webhook.events).where(Webhook.project_id == project_id)
    hooks = session.execute(query.with_for_update(read=True, key_share=True)).all()  # none is removed meanwhile
    now = time.time()
    rows = [
        {"webhook_id": hook, "event": event, "body": body, "created_at": now, "attempts": 0, "next_at": now}
        for hook, events in hooks
        if event in events
    ]
    if rows:
        session.execute(insert(Delivery), rows)
