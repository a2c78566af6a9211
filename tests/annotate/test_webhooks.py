"""Webhooks against a real receiver: signatures, retries, time-outs, redirects, private addresses, several processes."""

import hashlib
import hmac
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from annotate.services import delivery
from annotate.services.delivery import LEASE, TRIES, Courier, backoff, claim, public, record
from annotate.services.people import add_person
from annotate.services.projects import ProjectSettings, create_project
from annotate.services.receivers import add_webhook, webhook_secret
from annotate.services.refusals import Refused
from annotate.services.webhooks import announce
from annotate.store.access import Delivery, Webhook
from annotate.store.database import Database, open_database
from annotate.store.tables import Member


class Receiver:
    """Answers by path: /ok, /fails-twice, /slow, /drips, /redirects, /gone. `got` has every request in full."""

    def __init__(self) -> None:
        self.got: list[tuple[str, dict[str, str], bytes]] = []
        self.lock = threading.Lock()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                with receiver.lock:
                    receiver.got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                    tries = sum(path == self.path for path, _, _ in receiver.got)
                if self.path == "/slow":
                    time.sleep(2)
                if self.path == "/drips":  # a byte now and then, each of them in time
                    with_end = b"HTTP/1.1 200 OK\r\nX: " + b"x" * 40
                    for byte in with_end:
                        self.wfile.write(bytes([byte]))
                        time.sleep(0.1)
                statuses = {"/ok": 204, "/fails-twice": 500 if tries < 3 else 200, "/redirects": 302, "/gone": 410}
                self.send_response(statuses.get(self.path, 200))
                if self.path == "/redirects":
                    self.send_header("Location", "/ok")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:  # who hangs up early is meant to
                pass

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    where = str(tmp_path / "a.db") if request.param == "sqlite" else request.getfixturevalue("new_database")()
    opened = open_database(where, create=True)
    with opened.write() as session:
        project = create_project(session, "p", guidelines=None, settings=ProjectSettings())
        add_person(session, project, "olga", role="owner", name="Olga Name", password="long enough")
    yield opened
    opened.engine.dispose()


def tell(database: Database, url: str, events: int = 1) -> int:
    """A webhook for this address, and so many events for it."""
    with database.write() as session:
        owner = session.scalars(select(Member)).one()
        hook = add_webhook(session, owner.project_id, url, ["answer.stored"], by=owner)
        for number in range(events):
            announce(session, owner.project_id, "answer.stored", answer=number)
            announce(session, owner.project_id, "item.skipped", item=number)  # which this one does not want
    return hook.id


@contextmanager
def couriers(database: Database, number: int = 1, **options: Any) -> Iterator[None]:
    options = {"private": True, "wait": lambda attempt: 0.05, "timeout": 1.0, "poll": 0.05, **options}
    running = [Courier(database, **options) for _ in range(number)]
    for courier in running:
        courier.start()
    try:
        yield
    finally:
        for courier in running:
            courier.stop()


def until(ready: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def deliveries(database: Database) -> list[Delivery]:
    with database.read() as session:
        return list(session.scalars(select(Delivery).order_by(Delivery.id)))


def over(database: Database) -> bool:
    with database.read() as session:
        return session.scalar(select(func.count()).where(Delivery.next_at.is_not(None))) == 0


def test_a_delivery_is_signed_and_names_nobody(database: Database, receiver: Receiver) -> None:
    hook_id = tell(database, receiver.url + "/ok?token=t")
    with couriers(database):
        until(lambda: over(database))
    [(path, headers, body)] = receiver.got
    assert path == "/ok?token=t"
    told = json.loads(body)
    assert told.pop("at").endswith("Z")
    assert told == {"format": 1, "event": "answer.stored", "delivery": 1, "project": 1, "answer": 0}
    with database.write() as session:
        secret = webhook_secret(session, session.get_one(Webhook, hook_id))
    signed = headers["x-concord-timestamp"].encode() + b"." + body
    expected = "sha256=" + hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(headers["x-concord-signature"], expected)
    assert abs(int(headers["x-concord-timestamp"]) - time.time()) < 60
    assert (headers["x-concord-event"], headers["x-concord-delivery"]) == ("answer.stored", "1")
    assert headers["host"] == receiver.url.removeprefix("http://")
    [row] = deliveries(database)
    assert row.delivered_at and row.next_at is None and row.attempts == 1 and row.error is None


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_what_fails_is_tried_again_with_the_same_words(database: Database, receiver: Receiver) -> None:
    tell(database, receiver.url + "/fails-twice")
    with couriers(database):
        until(lambda: over(database))
    [row] = deliveries(database)
    assert row.delivered_at and row.attempts == 3 and row.error is None
    assert len({body for _, _, body in receiver.got}) == 1
    assert {headers["x-concord-delivery"] for _, headers, _ in receiver.got} == {"1"}


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("path", "error"),
    [("/slow", "timeout"), ("/drips", "timeout"), ("/redirects", "status 302"), ("/gone", "status 410")],
)
def test_trouble_is_written_down(database: Database, receiver: Receiver, path: str, error: str) -> None:
    tell(database, receiver.url + path)
    with couriers(database, wait=lambda attempt: 1000.0):
        until(lambda: deliveries(database)[0].error is not None)
    [row] = deliveries(database)
    assert (row.error, row.attempts, row.delivered_at) == (error, 1, None)
    assert (row.next_at is None) == (path == "/gone")  # which is the end of it
    assert [path for path, _, _ in receiver.got] == [path]  # no redirect was followed


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_after_the_last_try_it_is_over(database: Database) -> None:
    tell(database, "http://127.0.0.1:9/nobody-listens")
    with couriers(database, wait=lambda attempt: 0.0):
        until(lambda: over(database))
    [row] = deliveries(database)
    assert (row.attempts, row.delivered_at, row.error) == (TRIES, None, "cannot connect")


def test_waiting_grows_from_seconds_to_hours() -> None:
    for attempt, seconds in ((1, 10), (2, 40), (3, 160), (6, 10240), (7, 21600), (10, 21600)):
        waits = [backoff(attempt) for _ in range(200)]
        assert 0.8 * seconds <= min(waits) < 0.9 * seconds and 1.1 * seconds < max(waits) <= 1.2 * seconds


def test_several_processes_deliver_each_event_once(database: Database, receiver: Receiver) -> None:
    tell(database, receiver.url + "/ok", events=60)
    with couriers(database, 3, timeout=10.0):
        until(lambda: over(database), 60)
    times = Counter(headers["x-concord-delivery"] for _, headers, _ in receiver.got)
    assert len(times) == 60 and set(times.values()) == {1}
    assert all(row.attempts == 1 and row.delivered_at for row in deliveries(database))


def test_what_a_dead_process_had_claimed_is_taken_over(database: Database) -> None:
    tell(database, "http://127.0.0.1:9/")
    [first] = claim(database)
    assert claim(database) == []  # it is taken
    with database.write() as session:
        session.execute(update(Delivery).values(next_at=Delivery.next_at - LEASE - 1))
    [second] = claim(database)
    assert (second.delivery, second.attempt) == (first.delivery, 2)
    record(database, [first], ["timeout"], backoff)  # who was thought dead speaks up: the new owner's word counts
    assert deliveries(database)[0].error is None
    record(database, [second], [None], backoff)
    assert deliveries(database)[0].delivered_at


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_webhook_with_a_backlog_leaves_room_for_others(database: Database) -> None:
    busy = tell(database, "http://127.0.0.1:9/busy", events=50)
    other = tell(database, "http://127.0.0.1:9/other")
    jobs = Counter(job.webhook for job in claim(database))
    assert jobs == {busy: delivery.AT_ONCE_EACH, other: 1}


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_no_private_address_is_asked(database: Database, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    port = receiver.server.server_port
    for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "rebinds.example"):
        tell(database, f"http://{host}:{port}/ok")

    resolve, asked = delivery.addresses, []

    async def rebinding(host: str, port: int) -> list[str]:
        """A name that is public when it is checked, and ours when a connection looks it up again."""
        if host != "rebinds.example":
            return await resolve(host, port)
        asked.append(host)
        return ["93.184.215.14"] if len(asked) == 1 else ["127.0.0.1"]

    monkeypatch.setattr(delivery, "addresses", rebinding)
    with couriers(database, private=False, wait=lambda attempt: 1000.0):
        until(lambda: all(row.error for row in deliveries(database)))
    assert receiver.got == [] and asked == ["rebinds.example"]
    assert {row.error for row in deliveries(database)[:5]} == {"the address is not on the public internet"}


@pytest.mark.parametrize(
    ("address", "wanted"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        *((private, False) for private in ("127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254")),
        *((private, False) for private in ("0.0.0.0", "100.64.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1")),
        *((private, False) for private in ("::1", "::", "fe80::1", "fe80::1%eth0", "fd00::1", "ff02::1")),
        *((private, False) for private in ("::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::")),
    ],
)
def test_public(address: str, wanted: bool) -> None:
    assert public(address) is wanted


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_only_web_addresses(database: Database) -> None:
    for url in ("file:///etc/passwd", "ftp://a.example", "//a.example", "http://", "http://u:p@a.example/", "x"):
        with pytest.raises(Refused, match="http"):
            tell(database, url)
    for url in ("http://a.example/#x", "http://a.example:99999/", "http://a.example/a b", "http://ä.example/"):
        with pytest.raises(Refused, match="http"):
            tell(database, url)


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_secrets_differ_and_none_is_in_the_database(database: Database) -> None:
    first = tell(database, "https://a.example/")
    with database.write() as session:
        secret = webhook_secret(session, session.get_one(Webhook, first))
        session.query(Delivery).delete()
        session.delete(session.get_one(Webhook, first))
    again = tell(database, "https://a.example/")
    with database.write() as session:
        hook = session.get_one(Webhook, again)
        assert hook.id == first  # SQLite gives the number away again
        assert webhook_secret(session, hook) != secret and len(secret) == 43
    with database.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        assert secret not in "\n".join(driver.iterdump())
