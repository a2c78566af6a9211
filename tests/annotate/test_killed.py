"""The server is killed while raters submit: what was acknowledged is stored, and everything once.

benchmarks/annotation_kill.py does it a thousand times to the API; here it is the command itself, pages included.
"""

import contextlib
import random
import re
import signal
import sqlite3
import subprocess
import threading
import time
from pathlib import Path

import httpx
import pytest
from sqlalchemy import create_engine, text

from annotate.api.client import Client
from preferences.errors import BadInput
from tests.annotate.conftest import COMMAND, PASSWORD, Annotate

RATERS, ITEMS = 4, 3000


def start(annotate: Annotate, port: int, *options: str) -> tuple[subprocess.Popen[str], int]:
    process = subprocess.Popen(
        [COMMAND, "serve", "--port", str(port), *options],
        cwd=annotate.folder,
        env=annotate.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://\S+:(\d+)", line)
    assert found, line + process.stdout.read()
    return process, int(found.group(1))


class Rater(threading.Thread):
    """Answers item after item until told to stop, and keeps a journal of what the server acknowledged."""

    def __init__(self, url: str, login: str, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.client = Client(url)
        self.project = self.client.sign_in(login, PASSWORD).projects[0].id
        self.stop = stop
        self.acknowledged: dict[int, int] = {}  # answer -> assignment
        self.failed: BaseException | None = None

    def run(self) -> None:
        try:
            task = self.client.next(self.project).task
            while task is not None and not self.stop.is_set():
                key = f"key-{task.assignment:06}"
                with contextlib.suppress(httpx.HTTPError):
                    done = self.send(task.assignment, key)
                    self.acknowledged[done.receipt.answer] = task.assignment
                    task = done.next.task
        except BaseException as error:
            self.failed = error

    def send(self, assignment: int, key: str):  # type: ignore[no-untyped-def]
        """Submit until the server says something, however long it takes to come back."""
        while True:
            try:
                return self.client.submit(self.project, assignment, [1, 2], key=key)
            except BadInput as error:
                if "can't be reached" not in str(error):
                    raise


def kill_again_and_again(annotate: Annotate, kills: int, *options: str) -> dict[int, int]:
    """Kill the server `kills` times while raters submit; returns what they heard: {answer: assignment}."""
    annotate.ok("project", "create", "p")
    logins = [f"r{number}" for number in range(RATERS)]
    for login in logins:
        annotate.person("p", login)
    annotate.write("items.jsonl", *({"id": n, "prompt": f"{n}?", "responses": ["a", "b"]} for n in range(ITEMS)))
    annotate.ok("import", "p", "items.jsonl")
    process, port = start(annotate, 0, *options)
    stop = threading.Event()
    raters = [Rater(f"http://127.0.0.1:{port}", login, stop) for login in logins]
    for rater in raters:
        rater.start()
    chance = random.Random(7)
    for _ in range(kills):
        known, patience = said(raters), time.monotonic() + 60
        while said(raters) == known and time.monotonic() < patience:  # a busy machine takes its time to start
            time.sleep(0.02)
        time.sleep(chance.uniform(0.1, 0.6))
        process.kill()
        process.wait()
        process, _ = start(annotate, port, *options)
    time.sleep(0.3)
    stop.set()
    for rater in raters:
        rater.join(timeout=60)
        assert not rater.is_alive() and rater.failed is None, rater.failed
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=20) == 0
    heard = {answer: assignment for rater in raters for answer, assignment in rater.acknowledged.items()}
    assert len(heard) == said(raters) > kills
    return heard


def said(raters: list[Rater]) -> int:
    """How many answers were acknowledged so far."""
    return sum(len(rater.acknowledged) for rater in raters)


def check(annotate: Annotate, heard: dict[int, int]) -> None:
    url = annotate.environment.get("ANNOTATE_DATABASE") or f"sqlite:///{annotate.folder}/data/annotate.db"
    engine = create_engine(url)
    with engine.connect() as connection:
        stored = {
            row.answer: row.assignment
            for row in connection.execute(
                text(
                    "SELECT answers.id AS answer, assignments.id AS assignment FROM answers JOIN assignments ON"
                    " assignments.item_id = answers.item_id AND assignments.member_id = answers.member_id"
                )
            )
        }
        twice = "SELECT count(*) FROM (SELECT 1 FROM answers GROUP BY item_id, member_id HAVING count(*) > 1) AS twice"
        assert connection.execute(text(twice)).scalar() == 0
        too_many = "SELECT count(*) FROM (SELECT 1 FROM answers GROUP BY item_id HAVING count(*) > 1) AS many"
        assert connection.execute(text(too_many)).scalar() == 0  # the overlap is 1
        audited = connection.execute(text("SELECT count(*) FROM audit WHERE action = 'answered'")).scalar()
    engine.dispose()
    assert heard.items() <= stored.items()
    assert audited == len(stored) <= len(heard) + RATERS  # at the end one answer a rater may have gone unheard


def integrity(folder: Path) -> str:
    with sqlite3.connect(folder / "data/annotate.db") as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def test_three_kills_of_the_api(annotate: Annotate) -> None:
    check(annotate, kill_again_and_again(annotate, 3, "--api-only"))
    assert integrity(annotate.folder) == "ok"


def test_three_kills_of_the_api_on_postgresql(on_postgresql: Annotate) -> None:
    check(on_postgresql, kill_again_and_again(on_postgresql, 3, "--api-only"))


@pytest.mark.slow
def test_twenty_kills_of_the_full_server(annotate: Annotate) -> None:
    check(annotate, kill_again_and_again(annotate, 20))
    assert integrity(annotate.folder) == "ok"
