"""Label Studio's community edition beside ours: installed once, started afresh, and asked over HTTP.

It runs as `pip install label-studio` and `label-studio start` give it: its own server, its embedded SQLite database.
Every rater is a user with a token of their own, on one keep-alive connection, like Concord's raters.
"""

import asyncio
import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from annotation_clients import Connection, Count, Failed

VERSION = "1.23.2"
TOKEN = "benchmark-token-of-rater-{}"
CONFIG = """<View><Text name="prompt" value="$prompt"/><Pairwise name="pw" toName="a,b"/>
<Text name="a" value="$a"/><Text name="b" value="$b"/></View>"""
# The tag Pairwise has no hotkeys. So for work by keyboard: the seven steps of our scale, each with a hotkey.
STEPS = ("A much better", "A clearly", "A slightly", "Same", "B slightly", "B clearly", "B much better")
BY_KEYBOARD = f"""<View><Text name="prompt" value="$prompt"/>
<View style="display: grid; grid-template-columns: 1fr 1fr; gap: 1em">
<Text name="a" value="$a"/><Text name="b" value="$b"/></View>
<Choices name="better" toName="prompt" choice="single-radio" showInline="true">
{"".join(f'<Choice value="{step}" hotkey="{key}"/>' for key, step in enumerate(STEPS, 1))}</Choices></View>"""
OWNER = ("owner@example.com", "correct horse battery")
# People are made by its own models: through its sign-up form each one costs a password hash on either side.
PEOPLE = """
import sys, label_studio.server as server
server._setup_env()
from organizations.models import Organization
from rest_framework.authtoken.models import Token
from users.models import User
organization = Organization.objects.first()
for number in range(int(sys.argv[1])):
    user = User(email=f"rater{number}@example.com", username=f"rater{number}", active_organization=organization)
    user.set_unusable_password()
    user.save()
    organization.add_user(user)
    Token.objects.filter(user=user).delete()
    Token.objects.create(user=user, key=sys.argv[2].format(number))
"""


def python() -> Path | None:
    """The Python of Label Studio's environment, made in the cache once; None where it can't be installed."""
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "concord" / "label-studio"
    marker = folder / "installed.txt"
    if not marker.is_file() or marker.read_text() != VERSION:
        print(f"installing Label Studio {VERSION} in {folder}, once", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(folder / "bin" / "pip"), "install", "--quiet", f"label-studio=={VERSION}"]
        if subprocess.run(pip).returncode:
            print("Label Studio does not install here, so it is left out", file=sys.stderr)
            return None
        marker.write_text(VERSION)
    return folder / "bin" / "python"


@contextmanager
def served(
    folder: Path, raters: int, items: list[dict[str, Any]], overlap: int, configs: tuple[str, ...] = (CONFIG,)
) -> Iterator[tuple[str, int]]:
    """Label Studio with these many raters and, for each labelling config, a project of these items, numbered from 1.

    Gives (address, process id).
    """
    interpreter = python()
    assert interpreter is not None
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {"SENTRY_DSN": "", "FRONTEND_SENTRY_DSN": "", "COLLECT_ANALYTICS": "False", "LATEST_VERSION_CHECK": "False"}
    environment = {**os.environ, **quiet, "LABEL_STUDIO_BASE_DATA_DIR": str(folder)}
    command = [str(interpreter.parent / "label-studio"), "start", "--no-browser", "--port", str(port)]
    command += ["--username", OWNER[0], "--password", OWNER[1], "--enable-legacy-api-token"]
    command += ["--user-token", TOKEN.format("owner"), "--internal-host", "127.0.0.1"]
    url = f"http://127.0.0.1:{port}"
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            asyncio.run(_prepare(url, items, overlap, configs))
            people = [str(interpreter), "-c", PEOPLE, str(raters), TOKEN]
            subprocess.run(people, env=environment, stdout=log, stderr=log, check=True)
            yield url, process.pid
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def _prepare(url: str, items: list[dict[str, Any]], overlap: int, configs: tuple[str, ...]) -> None:
    http = owner(url)
    patience = time.monotonic() + 300  # its first start runs hundreds of migrations
    while True:
        try:
            await http.json("GET", "/api/version")
            break
        except (ConnectionError, Failed):
            if time.monotonic() > patience:
                sys.exit("Label Studio does not answer")
            await asyncio.sleep(0.5)
    tasks = [
        {"data": {"prompt": item["prompt"], "a": item["responses"][0], "b": item["responses"][1]}} for item in items
    ]
    for number, config in enumerate(configs, 1):
        settings = {"title": "benchmark", "label_config": config, "maximum_annotations": overlap}
        project = (await http.json("POST", "/api/projects/", settings))["id"]
        assert project == number
        for start in range(0, len(tasks), 500):
            await http.json("POST", f"/api/projects/{project}/import", tasks[start : start + 500])
    http.close()


def owner(url: str) -> Connection:
    http = Connection(url, timeout=600)
    http.headers["Authorization"] = f"Token {TOKEN.format('owner')}"
    return http


class Rater:
    """A user of Label Studio with a token; like Concord's rater, `submit` also takes the next task."""

    def __init__(self, url: str, number: int) -> None:
        self.http = Connection(url, resend=True)
        self.http.headers["Authorization"] = f"Token {TOKEN.format(number)}"
        self.task: dict[str, Any] | None = None

    async def sign_in(self) -> None:
        await self.http.json("GET", "/api/current-user/whoami")

    async def next(self) -> dict[str, Any] | None:
        try:
            self.task = await self.http.json("GET", "/api/projects/1/next/")
        except Failed as error:
            if error.status != 404:  # nothing is left
                raise
            self.task = None
        return self.task

    def submission(self) -> dict[str, Any]:
        assert self.task is not None
        choice = {"selected": random.choice(("left", "right"))}
        result = {"id": "one", "from_name": "pw", "to_name": "pw", "type": "pairwise", "value": choice}
        return {"result": [result], "lead_time": round(random.uniform(5, 90), 2), "task": self.task["id"]}

    async def submit(self, submission: dict[str, Any]) -> dict[str, Any]:
        path = f"/api/tasks/{submission['task']}/annotations/?project=1"
        stored = await self.http.json("POST", path, submission)
        self.task = None
        await self.next()
        return {"answer": stored["id"]}


def count_answers(folder: Path, acknowledged: dict[str, int]) -> Count:
    """Compare its database with the clients' journal; the keys there are the journal's own."""
    with sqlite3.connect(folder / "label_studio.sqlite3") as connection:
        rows = connection.execute("SELECT id, task_id, completed_by_id FROM task_completion").fetchall()
        (overlap,) = connection.execute("SELECT maximum_annotations FROM project").fetchone()
    stored = {row[0] for row in rows}
    return Count(
        stored=len(rows),
        lost=sum(answer not in stored for answer in acknowledged.values()),
        duplicates=len(rows) - len({row[1:] for row in rows}) + len(acknowledged) - len(set(acknowledged.values())),
        above=sum(number > overlap for number in Counter(row[1] for row in rows).values()),
        unread=len(stored - set(acknowledged.values())),
        surplus=0,
        submitted_at={},
    )
