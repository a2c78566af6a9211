"""Deliver events to webhooks: from a thread of every server process, each event at least once and normally once.

A process claims deliveries by moving their `next_at` past the time that it needs: should it die, another one finds them
due again. What fails is tried again, ever later. Addresses that are not on the public internet are refused unless
whoever runs the server allows them, and the connection goes to the very address that was checked.
"""

import asyncio
import hmac
import ipaddress
import json
import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
from sqlalchemy import delete, func, select, update

from annotate.services.receivers import webhook_secret
from annotate.store.access import Delivery, Webhook
from annotate.store.database import Database

log = logging.getLogger("annotate.webhooks")
TRIES = 10
TIMEOUT = 10.0  # seconds for all of one try: to look up, to connect, and to be answered
LEASE = 60.0  # seconds after which others take over what a process has claimed
AT_ONCE, AT_ONCE_EACH = 32, 8  # claimed together, and of one webhook, so that a slow one leaves room for others
KEPT = 30 * 24 * 3600.0  # seconds for which a delivery that is over can be looked up
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def backoff(attempt: int) -> float:
    """Seconds to wait after the try of that number (from 1): 10 s, 40 s, … 6 h, give or take a fifth."""
    return min(10.0 * 4 ** (attempt - 1), 6 * 3600.0) * random.uniform(0.8, 1.2)


@dataclass(frozen=True)
class Job:
    """One try of a delivery. `attempt` counts from 1."""

    delivery: int
    attempt: int
    webhook: int
    url: str
    secret: str
    event: str
    body: bytes


class Courier:
    """The thread that delivers. `wait` says how long to wait after which failed try; tests shorten it."""

    def __init__(
        self,
        database: Database,
        *,
        private: bool = False,
        wait: Callable[[int], float] = backoff,
        timeout: float = TIMEOUT,
        poll: float = 1.0,
    ) -> None:
        self.database, self.private, self.wait, self.timeout, self.poll = database, private, wait, timeout, poll
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="webhooks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Take on nothing more, and wait for what is under way."""
        self._stopping.set()
        self._thread.join(self.timeout + 2)

    def _run(self) -> None:
        trust = ssl.create_default_context()
        tidied = 0.0
        while not self._stopping.is_set():
            pause = self.poll
            try:
                jobs = claim(self.database)
                if jobs:
                    errors = asyncio.run(send_all(jobs, trust, private=self.private, timeout=self.timeout))
                    record(self.database, jobs, errors, self.wait)
                    pause = 0.0
                elif tidied < time.monotonic() - 3600:
                    tidy(self.database)
                    tidied = time.monotonic()
            except Exception as error:  # the database is away, or a mistake of ours: neither may end the thread
                log.warning("webhooks rest for a while: %s", type(error).__name__)
                pause = 10.0
            self._stopping.wait(pause)


def claim(database: Database) -> list[Job]:
    """Take on deliveries that are due, which nobody else does then until LEASE seconds have passed."""
    now = time.time()
    with database.read() as session:  # asking first spares SQLite's one writer
        if session.scalar(select(Delivery.id).where(Delivery.next_at <= now).limit(1)) is None:
            return []
    place = func.row_number().over(partition_by=Delivery.webhook_id, order_by=(Delivery.next_at, Delivery.id))
    ranked = select(Delivery.id, place.label("place")).where(Delivery.next_at <= now).subquery()
    due = (
        select(Delivery)
        .where(Delivery.id.in_(select(ranked.c.id).where(ranked.c.place <= AT_ONCE_EACH)), Delivery.next_at <= now)
        .order_by(Delivery.next_at, Delivery.id)
        .limit(AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    jobs = []
    with database.write() as session:
        for row in session.scalars(due).all():
            row.attempts += 1
            row.next_at = now + LEASE
            hook = session.get_one(Webhook, row.webhook_id)
            at = datetime.fromtimestamp(row.created_at, UTC).isoformat(timespec="milliseconds")
            facts: dict[str, Any] = {"format": 1, "event": row.event, "delivery": row.id, "project": hook.project_id}
            body = json.dumps({**row.body, **facts, "at": at.replace("+00:00", "Z")}, allow_nan=False).encode()
            secret = webhook_secret(session, hook)
            jobs.append(Job(row.id, row.attempts, hook.id, hook.url, secret, row.event, body))
    return jobs


def record(database: Database, jobs: list[Job], errors: list[str | None], wait: Callable[[int], float]) -> None:
    """Write down how the tries went. What somebody else has taken over in the meantime stays theirs."""
    now = time.time()
    with database.write() as session:
        for job, error in zip(jobs, errors, strict=True):
            last = error == GONE or job.attempt >= TRIES
            outcome: dict[str, Any] = {"error": error, "next_at": None if last else now + wait(job.attempt)}
            if error is None:
                outcome = {"error": None, "next_at": None, "delivered_at": now}
            mine = update(Delivery).where(Delivery.id == job.delivery, Delivery.attempts == job.attempt)
            session.execute(mine.values(**outcome).execution_options(synchronize_session=False))
    for job, error in zip(jobs, errors, strict=True):
        facts = {"delivery": job.delivery, "webhook": job.webhook, "attempt": job.attempt, "error": error}
        log.log(logging.INFO if error is None else logging.WARNING, "webhook", extra={"facts": facts})


def tidy(database: Database) -> None:
    """Forget deliveries that have been over for long."""
    over = (Delivery.next_at.is_(None), Delivery.created_at < time.time() - KEPT)
    with database.read() as session:
        if session.scalar(select(Delivery.id).where(*over).limit(1)) is None:
            return
    with database.write() as session:
        session.execute(delete(Delivery).where(*over).execution_options(synchronize_session=False))


# --- one try ------------------------------------------------------------------------------------------------------

GONE = "status 410"  # the receiver says that it wants no more of this


async def send_all(jobs: list[Job], trust: ssl.SSLContext, *, private: bool, timeout: float) -> list[str | None]:
    """Make all tries at once; for each None, or what went wrong."""
    # No connection is used twice: it would be found by address, and another webhook may name another host there.
    # No proxy from the environment: it would connect to where it resolves the name to.
    one_each = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(verify=trust, limits=one_each, trust_env=False, timeout=timeout) as client:
        return await asyncio.gather(*(_send(client, job, private, timeout) for job in jobs))


async def _send(client: httpx.AsyncClient, job: Job, private: bool, timeout: float) -> str | None:
    try:
        async with asyncio.timeout(timeout):  # httpx's own is for each piece, which may come one by one for ever
            url = httpx.URL(job.url)
            port = url.port or (443 if url.scheme == "https" else 80)
            error = "no address"
            for address in await addresses(url.host, port):
                if not private and not public(address):
                    return "the address is not on the public internet"
                try:
                    return await _post(client, job, url, address)
                except httpx.ConnectError:
                    error = "cannot connect"
            return error
    except TimeoutError:
        return "timeout"
    except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError) as error:
        return type(error).__name__  # without its words, which may quote the address


async def _post(client: httpx.AsyncClient, job: Job, url: httpx.URL, address: str) -> str | None:
    timestamp = str(int(time.time()))
    headers = {
        "Host": url.netloc.decode(),
        "Content-Type": "application/json",
        "User-Agent": "Concord",
        "X-Concord-Event": job.event,
        "X-Concord-Delivery": str(job.delivery),
        "X-Concord-Timestamp": timestamp,
        "X-Concord-Signature": signature(job.secret, timestamp, job.body),
    }
    request = client.build_request(
        "POST",
        url.copy_with(host=address),
        content=job.body,
        headers=headers,
        extensions={"sni_hostname": url.host},  # whose certificate it must show
    )
    response = await client.send(request, stream=True, follow_redirects=False)  # what it says is not read
    await response.aclose()
    return None if response.is_success else f"status {response.status_code}"


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """What X-Concord-Signature must be: HMAC-SHA-256 of timestamp, dot and body under the webhook's secret."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, "sha256").hexdigest()


async def addresses(host: str, port: int) -> list[str]:
    """What a host name resolves to. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def public(address: str) -> bool:
    """Whether this is on the public internet, and not an IPv6 name for something that is not."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address) and (
        found.ipv4_mapped or found.sixtofour or found.teredo or found in _NAT64
    ):
        return False
    return found.is_global and not found.is_multicast and not found.is_reserved
