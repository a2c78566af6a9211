"""For whoever runs the server: does it live, can it work, how much does it do. Not in the API, which is for people."""

import secrets
import time
from typing import Annotated

from fastapi import APIRouter, Header, Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from sqlalchemy import func, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from annotate.services.refusals import Refused
from annotate.store.access import Delivery
from annotate.store.database import Database, DatabaseFailed
from annotate.store.tables import Answer, Slot

router = APIRouter(include_in_schema=False)


class Metrics:
    """What this process counts. Each application has a registry of its own, so that two in one process don't mix."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ["method", "route"]
        self.requests = Counter("concord_requests", "Requests answered", [*labels, "status"], registry=self.registry)
        self.seconds = Histogram(
            "concord_request_seconds", "From a request's head to the end of its answer", labels, registry=self.registry
        )


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The process lives. Says nothing of the database: starting anew would not mend that."""
    return {"status": "ok"}


@router.get("/readyz")
def readyz(request: Request) -> dict[str, str]:
    """The database answers, and has the schema that this process was started on."""
    try:
        with request.app.state.database.read() as session:
            found = schema(session)
    except (DatabaseFailed, SQLAlchemyError):
        raise Refused("not-ready", "The database does not answer.") from None
    if found != request.app.state.schema:
        raise Refused("not-ready", "The database has another schema than this server; start the server anew.")
    return {"status": "ok"}


@router.get("/metrics")
def metrics(request: Request, authorization: Annotated[str, Header()] = "") -> Response:
    """For Prometheus, with the token from ANNOTATE_METRICS_TOKEN; there is nothing here for anybody else."""
    wanted: str | None = request.app.state.metrics_token
    if wanted is None or not secrets.compare_digest(authorization.encode(), f"Bearer {wanted}".encode()):
        raise Refused("not-found", "There is nothing at this address.")
    text = generate_latest(request.app.state.metrics.registry) + generate_latest(_counted(request.app.state.database))
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)


def schema(session: Session) -> str | None:
    """The revision of the database's schema, which opening it has brought to the newest."""
    return session.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _counted(database: Database) -> CollectorRegistry:
    """What the database holds now, which is the same for all processes on it."""
    registry = CollectorRegistry()
    waiting = select(func.count(), func.min(Delivery.created_at)).where(Delivery.next_at.is_not(None))
    now = time.time()
    with database.read() as session:
        answers = session.scalar(select(func.count()).select_from(Answer))
        leases = session.scalar(select(func.count()).where(Slot.leased_until > now))
        backlog, oldest = session.execute(waiting).one()
    for name, meaning, value in (
        ("concord_answers", "Answers stored, imported ones and revisions included", answers),
        ("concord_open_leases", "Items that raters are at work on", leases),
        ("concord_webhook_backlog", "Webhook deliveries that are still to be made", backlog),
        ("concord_webhook_oldest_seconds", "How long the oldest of them waits", now - oldest if oldest else 0),
    ):
        Gauge(name, meaning, registry=registry).set(value or 0)
    return registry
