"""The `annotate` command through its real entry point, small projects, and one running server."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

COMMAND = str(Path(sys.executable).parent / "annotate")
PASSWORD = "correct horse battery"

PAIR = {"id": "pair", "prompt": "What is 2 + 2?", "responses": ["It is 4.", "It is 5."]}
FOUR = {"id": "four", "prompt": "Say a number.", "responses": ["one", "two", "three", "four"]}


class Annotate:
    """Runs `annotate` in a folder of its own; the database is data/annotate.db there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {key: value for key, value in os.environ.items() if key != "ANNOTATE_DATABASE"}

    def __call__(self, *words: str, stdin: str | bytes = b"") -> subprocess.CompletedProcess[str]:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run([COMMAND, *words], cwd=self.folder, env=self.environment, input=data, capture_output=True)
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

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
    def served(self) -> Iterator["Server"]:
        """`annotate serve` on a free port until the block ends."""
        process = subprocess.Popen(
            [COMMAND, "serve", "--port", "0"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert process.stdout is not None
        lines = [process.stdout.readline()]
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
        self.me = self.http.get("/api/me").json()
        self.http.headers["X-CSRF-Token"] = self.me["csrf_token"]
        self.project = f"/api/projects/{self.me['projects'][0]['id']}"

    def next(self) -> dict[str, Any]:
        answer = self.http.post(f"{self.project}/next", json={})
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
