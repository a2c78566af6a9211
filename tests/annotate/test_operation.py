"""What whoever runs the server relies on: health, metrics, logs without secrets, mistakes, and a stop without loss."""

import json
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from starlette.testclient import TestClient

from annotate.api import limits
from annotate.app import build_app
from annotate.services.people import add_person
from annotate.services.projects import ProjectSettings, create_project
from annotate.services.rights import Right
from annotate.services.secrets import secret_from_environment
from annotate.services.tokens import make_token
from annotate.store.database import Database, DatabaseFailed, open_database
from annotate.web.watch import log_to_stderr
from preferences.errors import BadInput
from tests.annotate.conftest import COMMAND, PASSWORD, Annotate, Visitor

TOKEN = "a-token-for-metrics-of-more-than-32-characters"


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = open_database(str(tmp_path / "a.db"), create=True)
    with opened.write() as session:
        project = create_project(session, "p", guidelines=None, settings=ProjectSettings())
        add_person(session, project, "anna", role="rater", name=None, password=PASSWORD)
    yield opened
    opened.engine.dispose()


@contextmanager
def serving(annotate: Annotate, *options: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`annotate serve --api-only` with these options: its address, and the process, whose stderr is read at the end."""
    process = subprocess.Popen(
        [COMMAND, "serve", "--api-only", "--port", "0", *options],
        cwd=annotate.folder,
        env=annotate.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://\S+", line)
    assert found, line + process.communicate()[1]
    wait_for(lambda: httpx.get(found.group() + "/healthz").status_code == 200)
    try:
        yield found.group(), process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def wait_for(ready: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            if ready():
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < end
        time.sleep(0.05)


# --- health ------------------------------------------------------------------------------------------------------


def test_ready_means_the_database_and_its_schema(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with TestClient(build_app(database, pages=False)) as client:
        assert client.get("/readyz").json() == client.get("/healthz").json() == {"status": "ok"}
        with database.write() as session:
            session.execute(text("UPDATE alembic_version SET version_num = '9999'"))  # a newer server's
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["rule"]) == (503, "not-ready")

        def down(_self: Database) -> None:
            raise DatabaseFailed("the database /secret/place failed")

        monkeypatch.setattr(Database, "read", down)
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["rule"]) == (503, "not-ready") and "place" not in answer.text
        assert client.get("/healthz").status_code == 200  # starting anew would mend nothing


def test_metrics_are_for_who_has_the_token(database: Database) -> None:
    good = {"Authorization": f"Bearer {TOKEN}"}
    with TestClient(build_app(database, pages=False)) as client:
        assert client.get("/metrics", headers={"Authorization": "Bearer None"}).status_code == 404
        assert client.get("/metrics", headers={"Authorization": "Bearer "}).status_code == 404
    with TestClient(build_app(database, pages=False, metrics_token=TOKEN)) as client:
        for headers in ({}, {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": TOKEN}):
            assert client.get("/metrics", headers=headers).status_code == 404
        assert client.get(f"/metrics?token={TOKEN}").status_code == 404
        client.get("/api/v1/projects/17")
        client.get("/api/v1/projects/18?secret=1")
        client.get("/made/up/by/somebody")
        client.request("BREW", "/login")
        found = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(client.get("/metrics", headers=good).text)
            for sample in family.samples
        }
    route = ("route", "/api/v1/projects/{project_id}")
    assert found["concord_requests_total", ("method", "GET"), route, ("status", "401")] == 2
    assert found["concord_request_seconds_count", ("method", "GET"), route] == 2
    assert found["concord_requests_total", ("method", "GET"), ("route", "none"), ("status", "404")] == 1
    assert not [name for name in found if "made" in str(name) or "BREW" in str(name)]  # nobody adds rows at will
    for name in ("concord_answers", "concord_open_leases", "concord_webhook_backlog"):
        assert found[name,] == 0


# --- secrets from the environment -------------------------------------------------------------------------------


def test_secrets_come_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("A_SECRET", raising=False)
    assert secret_from_environment("A_SECRET") is None
    (tmp_path / "file").write_text("from-the-file-" + "x" * 30 + "\n")
    monkeypatch.setenv("A_SECRET_FILE", str(tmp_path / "file"))
    assert secret_from_environment("A_SECRET") == "from-the-file-" + "x" * 30
    monkeypatch.setenv("A_SECRET", "short-and-secret")
    with pytest.raises(BadInput, match="A_SECRET is too short") as caught:
        secret_from_environment("A_SECRET")
    assert "short-and-secret" not in str(caught.value)
    monkeypatch.delenv("A_SECRET")
    monkeypatch.setenv("A_SECRET_FILE", str(tmp_path / "nothing"))
    with pytest.raises(BadInput, match="A_SECRET_FILE: cannot read"):
        secret_from_environment("A_SECRET")


def test_serve_refuses_a_guessable_secret(annotate: Annotate) -> None:
    annotate.ok("project", "create", "p")
    annotate.environment["ANNOTATE_METRICS_TOKEN"] = "guess"
    assert "ANNOTATE_METRICS_TOKEN is too short" in annotate.refuses("serve", "--api-only", "--port", "0")


# --- mistakes ----------------------------------------------------------------------------------------------------


def test_a_mistake_is_one_problem_and_one_entry(database: Database, capfd: pytest.CaptureFixture[str]) -> None:
    """The client hears an id, the log has the id and the place; neither has the values that it went wrong with."""
    app = build_app(database, pages=False)

    @app.get("/mistake/{number}")
    def mistake(number: int, request: Request) -> None:
        raise RuntimeError(f"secret value {number} {request.headers['x-secret']}")

    log_to_stderr(as_json=True)
    with TestClient(app) as client:
        answer = client.get("/mistake/17?secret=query", headers={"X-Secret": "secret header"})
    problem = answer.json()
    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/problem+json")
    assert problem["rule"] == "server-error" and problem["request"] == answer.headers["x-request-id"]
    assert "secret" not in answer.text and "RuntimeError" not in answer.text
    assert "content-security-policy" in answer.headers and answer.headers["cache-control"] == "no-store"
    said = capfd.readouterr().err
    [entry] = [json.loads(line) for line in said.splitlines()]
    assert entry["level"] == "error" and entry["error"] == "RuntimeError" and entry["route"] == "/mistake/{number}"
    assert entry["request"] == problem["request"] and entry["status"] == 500
    assert "test_operation.py" in entry["at"][-1] and "secret" not in said and "17" not in entry["route"]


# --- logs --------------------------------------------------------------------------------------------------------


def test_logs_name_routes_and_numbers_only(annotate: Annotate) -> None:
    annotate.ok("project", "create", "p")
    annotate.person("p", "anna")
    with serving(annotate, "--logs", "json") as (url, process):
        anna = Visitor(url, "anna", PASSWORD)
        anna.http.get(f"{anna.project}/guidelines?secret=in-the-query")
        wrong = httpx.post(url + "/login", data={"login": "anna", "password": "a wrong password"})
        httpx.get(url + "/join/a-secret-link.signature")
        httpx.get(url + "/api/v1/me", headers={"Authorization": "Bearer concord_secret"})
        secrets = [*anna.http.cookies.values(), anna.me["csrf_token"], PASSWORD, "a wrong password", "anna", "a-secret"]
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    entries = [json.loads(line) for line in said.splitlines()]
    one = next(entry for entry in entries if entry["route"] == "/api/v1/projects/{project_id}/guidelines")
    assert one.keys() == {
        *("time", "level", "message", "method", "route", "status", "milliseconds", "request", "person"),
    }
    assert (one["method"], one["status"], one["person"], one["level"]) == ("GET", 200, 1, "info")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", one["time"]) and 0 < one["milliseconds"] < 60_000
    assert wrong.headers["x-request-id"] in {entry["request"] for entry in entries}
    assert "/join/{token}" in {entry["route"] for entry in entries}
    for secret in (*secrets, "in-the-query", "concord_secret"):
        assert secret not in said


def test_without_json_the_log_is_silent_while_all_is_well(annotate: Annotate) -> None:
    annotate.ok("project", "create", "p")
    with serving(annotate) as (url, process):
        assert httpx.get(url + "/nothing").status_code == 404
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20)[1] == ""


# --- limits ------------------------------------------------------------------------------------------------------


def test_one_person_may_ask_only_so_much(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.REQUESTS, "burst", 5)
    monkeypatch.setattr(limits.REQUESTS, "rate", 0.1)
    limits.REQUESTS._levels.clear()
    with database.write() as session:
        project = create_project(session, "q", guidelines=None, settings=ProjectSettings())
        add_person(session, project, "ben", role="rater", name=None, password=PASSWORD)
    with TestClient(build_app(database, pages=False), follow_redirects=False) as anna:
        anna.post("/login", data={"login": "anna", "password": PASSWORD})
        answers = [anna.get("/api/v1/me") for _ in range(7)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
        refused = answers[-1]
        assert refused.json()["rule"] == "too-many-requests" and refused.json()["retry_after"] <= 10
        assert refused.headers["retry-after"] == "10"
        anna.cookies.clear()
        anna.post("/login", data={"login": "ben", "password": PASSWORD})
        assert anna.get("/api/v1/me").status_code == 200  # others are not held up
    limits.REQUESTS._levels.clear()


# --- stopping ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_what_is_under_way_may_finish(annotate: Annotate, how: signal.Signals) -> None:
    """A request that waits for the database when the signal comes is answered; later ones find nobody."""
    annotate.ok("project", "create", "p")
    annotate.person("p", "anna")
    annotate.write("i.jsonl", {"id": "a", "prompt": "x", "responses": ["1", "2"]})
    annotate.ok("import", "p", "i.jsonl")
    with serving(annotate) as (url, process):
        anna = Visitor(url, "anna", PASSWORD)
        answers: list[dict[str, Any]] = []
        lock = sqlite3.connect(annotate.folder / "data/annotate.db", isolation_level=None)
        lock.execute("BEGIN IMMEDIATE")
        asking = threading.Thread(target=lambda: answers.append(anna.next()))
        asking.start()
        time.sleep(1)
        process.send_signal(how)
        time.sleep(1)
        with pytest.raises(httpx.TransportError):
            httpx.get(url + "/healthz")
        assert process.poll() is None and answers == []
        lock.execute("COMMIT")
        lock.close()
        asking.join(10)
        assert answers and answers[0]["task"]
        assert process.wait(15) == 0
        assert process.communicate()[1] == ""


def test_a_stop_while_it_starts_is_no_failure(annotate: Annotate) -> None:
    annotate.ok("project", "create", "p")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = free.getsockname()
    process = subprocess.Popen(
        [COMMAND, "serve", "--port", str(address[1])], cwd=annotate.folder, env=annotate.environment
    )
    end = time.monotonic() + 30
    while time.monotonic() < end:  # it listens first, and then imports for seconds
        with socket.socket() as knock:
            if knock.connect_ex(address) == 0:
                break
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0


def test_what_postgresql_can_not_store_is_the_senders_to_mend(new_database: Callable[[], str]) -> None:
    """A NUL in a text: trying again would never help. And where the database is, is nobody's business."""
    database = open_database(new_database(), create=True)
    with database.write() as session:
        project = create_project(session, "p", guidelines=None, settings=ProjectSettings())
        olga = add_person(session, project, "olga", role="owner", name=None, password=PASSWORD)
        _, token = make_token(session, olga.person_id or 0, "all", list(Right), None)
    headers = {"Authorization": f"Bearer {token}", "If-Match": '"1"'}
    item = {"id": "q\0", "prompt": "a\0", "responses": ["a", "b"]}
    with TestClient(build_app(database, pages=False)) as client:
        answers = [
            client.post("/api/v1/projects/1/guidelines", json={"text": "a\0b"}, headers=headers),
            client.patch("/api/v1/projects/1", json={"consent": "a\0b"}, headers=headers),
            client.post("/api/v1/projects/1/items", json=item, headers=headers),
            client.post("/login", data={"login": "a\0b", "password": "x\0"}),
        ]
    for answer in answers:
        assert answer.status_code == 422 and "postgres:" not in answer.text and "postgresql+" not in answer.text
        assert "NUL" in answer.json()["detail"]
    database.engine.dispose()
