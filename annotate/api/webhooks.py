"""Webhooks of a project: programs that are told of its events. docs/operation.md says how to check a signature."""

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, Field

from annotate.api.problems import PROBLEMS
from annotate.api.security import AnyAsker
from annotate.api.shapes import LARGEST_ID, Id, Strict
from annotate.services import receivers as service
from annotate.services.rights import Right
from annotate.services.webhooks import Event
from annotate.store.access import Webhook

router = APIRouter(prefix="/api/v1/projects/{project_id}/webhooks", tags=["webhooks"], responses=PROBLEMS)


class WebhookIn(Strict):
    url: Annotated[str, Field(min_length=1, max_length=2000)]
    events: Annotated[list[Event], Field(min_length=1, max_length=10)]


class WebhookOut(BaseModel):
    id: int
    url: str
    events: list[Event]
    created_at: float


class WebhookNew(WebhookOut):
    secret: str = Field(description="signs every delivery; it is shown this once")


class Webhooks(BaseModel):
    webhooks: list[WebhookOut]


class DeliveryOut(BaseModel):
    id: int
    event: str
    created_at: float
    attempts: int
    next_at: float | None = Field(description="when it is tried (again); null when it is over")
    delivered_at: float | None
    error: str | None = Field(description="what went wrong with the last try")


class Deliveries(BaseModel):
    deliveries: list[DeliveryOut]
    before: int | None = Field(description="give it as `before` for the next page; null on the last one")


@router.get("")
def webhooks(project_id: Id, asker: AnyAsker) -> Webhooks:
    """The project's webhooks, without their secrets."""
    with asker.reads(project_id, Right.MANAGE) as (session, _):
        return Webhooks(webhooks=[WebhookOut(**_facts(hook)) for hook in service.webhooks_of(session, project_id)])


@router.post("", status_code=201)
def add(project_id: Id, body: WebhookIn, asker: AnyAsker) -> WebhookNew:
    """Tell an address of events from now on."""
    with asker.writes(project_id, Right.MANAGE) as (session, member):
        hook = service.add_webhook(session, project_id, body.url, body.events, by=member)
        return WebhookNew(**_facts(hook), secret=service.webhook_secret(session, hook))


@router.delete("/{webhook_id}", status_code=204)
def remove(project_id: Id, webhook_id: Id, asker: AnyAsker) -> None:
    """Tell an address nothing any more; what waits to be delivered is dropped."""
    with asker.writes(project_id, Right.MANAGE) as (session, member):
        service.remove_webhook(session, project_id, webhook_id, by=member)


@router.get("/{webhook_id}/deliveries")
def deliveries(
    project_id: Id,
    webhook_id: Id,
    asker: AnyAsker,
    before: Annotated[int, Field(ge=1, le=LARGEST_ID)] | None = None,
    limit: Annotated[int, Field(ge=1, le=200)] = 50,
) -> Deliveries:
    """How telling this webhook went, the newest first; for a month."""
    with asker.reads(project_id, Right.MANAGE) as (session, _):
        hook = service.find_webhook(session, project_id, webhook_id)
        rows = service.deliveries_of(session, hook.id, before=before, limit=limit + 1)
    out = [DeliveryOut(**{name: getattr(row, name) for name in DeliveryOut.model_fields}) for row in rows[:limit]]
    return Deliveries(deliveries=out, before=out[-1].id if len(rows) > limit else None)


def _facts(hook: Webhook) -> dict:
    return {name: getattr(hook, name) for name in WebhookOut.model_fields}
