"""Who is told of a project's events: webhooks, their secrets, and how their deliveries went."""

import base64
import hmac
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from annotate.services.projects import note
from annotate.services.refusals import Refused
from annotate.services.secrets import signing_key
from annotate.store.access import Delivery, Webhook
from annotate.store.tables import Member

MOST = 20  # webhooks of one project: every event goes to each of them


def add_webhook(session: Session, project_id: int, url: str, events: Sequence[str], *, by: Member) -> Webhook:
    """Tell this address of these events from now on. Raises Refused for what is no http(s) address, or one too many."""
    check_url(url)
    there = session.scalar(select(func.count()).where(Webhook.project_id == project_id))
    if there is not None and there >= MOST:
        raise Refused("bad-input", f"A project has at most {MOST} webhooks; delete one first.")
    hook = Webhook(project_id=project_id, url=url, events=sorted(set(events)), created_at=time.time())
    session.add(hook)
    session.flush()
    # Not the address: people put tokens into it.
    note(session, "webhook added", project=project_id, member=by.id, webhook=hook.id, events=hook.events)
    return hook


def remove_webhook(session: Session, project_id: int, webhook_id: int, *, by: Member) -> None:
    """Tell this address nothing any more, not even what waits. Raises Refused "not-found"."""
    hook = find_webhook(session, project_id, webhook_id)
    session.refresh(hook, with_for_update=True)  # what is being told just now is told first
    session.execute(delete(Delivery).where(Delivery.webhook_id == hook.id))
    session.delete(hook)
    note(session, "webhook removed", project=project_id, member=by.id, webhook=hook.id)


def find_webhook(session: Session, project_id: int, webhook_id: int) -> Webhook:
    """Raises Refused "not-found", also for another project's."""
    hook = session.scalar(select(Webhook).where(Webhook.id == webhook_id, Webhook.project_id == project_id))
    if hook is None:
        raise Refused("not-found", "This project has no such webhook.")
    return hook


def webhooks_of(session: Session, project_id: int) -> Sequence[Webhook]:
    return session.scalars(select(Webhook).where(Webhook.project_id == project_id).order_by(Webhook.id)).all()


def deliveries_of(session: Session, webhook_id: int, *, before: int | None, limit: int) -> Sequence[Delivery]:
    """The newest deliveries first, from below the id `before`."""
    query = select(Delivery).where(Delivery.webhook_id == webhook_id)
    if before is not None:
        query = query.where(Delivery.id < before)
    return session.scalars(query.order_by(Delivery.id.desc()).limit(limit)).all()


def webhook_secret(session: Session, hook: Webhook) -> str:
    """What signs a webhook's deliveries. It follows from the server's key, so that the database holds no secret."""
    # The time as well: SQLite gives the number of a deleted webhook to the next one.
    words = f"webhook {hook.id} {hook.created_at:.3f}"
    digest = hmac.digest(signing_key(session), words.encode(), "sha256")
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def check_url(url: str) -> None:
    """Raises Refused unless this is an http(s) address without a user name, a password or a fragment."""
    try:
        parts = urlsplit(url)
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        fits = fits and parts.username is None and parts.password is None and "#" not in url
        fits = fits and url.isascii() and url.isprintable() and " " not in url
    except ValueError:
        fits = False
    if not fits:
        raise Refused("bad-input", "url: give an http:// or https:// address, without user name and fragment.")
