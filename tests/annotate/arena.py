"""An arena project in this process, somebody who chats there, and what they hear."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from annotate.api import arena as arena_api
from annotate.api.limits import Bucket
from annotate.app import build_app
from annotate.services.endpoints import read_endpoints
from annotate.services.people import add_person, start_login, visitor
from annotate.services.projects import ProjectSettings, create_project
from annotate.store.database import Database, open_database
from annotate.store.tables import Person, Project
from tests.annotate.conftest import Annotate
from tests.endpoints import Outside, outside

KEY = "sk-a-secret-of-the-operator"


@pytest.fixture(scope="module")
def world() -> Iterator[Outside]:
    with outside() as server:
        yield server


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch, world: Outside) -> None:
    """No limit on turns but where it is tried; the outside forgets."""
    monkeypatch.setattr(arena_api, "TURNS", Bucket(rate=1.0, burst=10_000))  # other tests have used up the old one
    world.asked.clear()
    world.headers.clear()
    world.mended.clear()
    world.go_on.clear()


class Scene:
    """An arena project `p` on a database, with rater anna, and the application in this process."""

    def __init__(
        self, folder: Path, base_url: str, models: dict[str, str], keys: dict[str, Any], settings: Any
    ) -> None:
        self.folder = folder
        self.database: Database = open_database(str(folder / "a.db"), create=True)
        self.settings = {"arena": list(models), **settings}
        with self.database.write() as session:
            project = create_project(session, "p", guidelines=None, settings=ProjectSettings(**self.settings))
            self.project = project.id
        entries = {name: {"base_url": base_url, "model": model, **keys} for name, model in models.items()}
        (folder / "models.yaml").write_text(json.dumps(entries))
        self.app = build_app(self.database, pages=False, models=read_endpoints(str(folder / "models.yaml")))
        self.client = TestClient(self.app)
        self.anna = self.person("anna")

    def person(self, login: str, role: str = "rater") -> "Somebody":
        with self.database.write() as session:
            project = session.get_one(Project, self.project)
            member = add_person(session, project, login, role=role, name=None, password="long enough")
            token = start_login(session, session.get_one(Person, member.person_id))
            session.flush()
            found = visitor(session, token)
            assert found is not None
            headers = {"Cookie": f"concord_session={token}", "X-CSRF-Token": found.csrf_token}
            return Somebody(self.client, f"/api/v1/projects/{project.id}", headers, member.id)

    def rows(self, table: Any) -> list[Any]:
        with self.database.read() as session:
            return session.query(table).order_by(table.id).all()


class Somebody:
    def __init__(self, client: TestClient, base: str, headers: dict[str, str], member: int) -> None:
        self.client, self.base, self.headers, self.member = client, base, headers, member

    def post(self, path: str, **body: Any) -> httpx.Response:
        answer: httpx.Response = self.client.post(self.base + path, json=body, headers=self.headers)
        return answer

    def get(self, path: str) -> Any:
        answer = self.client.get(self.base + path, headers=self.headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def chat(self, fresh: bool = False) -> int:
        answer = self.post("/chats", fresh=fresh)
        assert answer.status_code == 200, answer.text
        number: int = answer.json()["chat"]
        return number

    def say(self, chat: int, turn: int, text: str) -> "Heard":
        answer = self.post(f"/chats/{chat}/turns", turn=turn, text=text)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].startswith("text/event-stream")
        return Heard(answer.text)

    def vote(self, chat: int, strength: int = -2, key: str = "a key of mine", **more: Any) -> httpx.Response:
        return self.post(f"/chats/{chat}/vote", key=key, strength=strength, **more)


class Heard:
    """What came of a turn."""

    def __init__(self, text: str) -> None:
        self.events = [json.loads(line.removeprefix("data: ")) for line in text.split("\n\n") if line[:1] == "d"]
        self.raw = text
        self.shown = ["".join(e.get("delta", "") for e in self.events if e.get("side") == side) for side in (0, 1)]
        self.ends = [next(e["end"] for e in self.events if e.get("side") == side and "end" in e) for side in (0, 1)]
        self.html = [next(e["html"] for e in self.events if e.get("side") == side and "end" in e) for side in (0, 1)]
        assert [e for e in self.events if "done" in e] == [self.events[-1]]
        self.whole: bool = self.events[-1]["whole"]


@pytest.fixture
def scene(tmp_path: Path, world: Outside) -> Iterator[Callable[..., Scene]]:
    """Makes a scene with models of the outside world, {name: what it does}."""
    made: list[Scene] = []

    def make(left: str = "say:One.", right: str = "say:Two.", *, keys: Any = None, **settings: Any) -> Scene:
        models = {"model-a": left, "model-b": right}
        made.append(Scene(tmp_path, world.url, models, keys or {}, settings))
        made[-1].client.__enter__()
        return made[-1]

    yield make
    for one in made:
        one.client.__exit__(None, None, None)
        one.database.engine.dispose()


def rule(answer: httpx.Response) -> tuple[int, str]:
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    return answer.status_code, body["rule"]


def until(what: Callable[[], Any]) -> Any:
    ends = time.monotonic() + 10
    while not (found := what()):
        assert time.monotonic() < ends
        time.sleep(0.02)
    return found


class Background(threading.Thread):
    """A turn that is said in the background."""

    def __init__(self, somebody: Somebody, chat: int, turn: int, text: str) -> None:
        super().__init__()
        self.do = lambda: somebody.say(chat, turn, text)
        self.heard: Heard | None = None
        self.start()

    def run(self) -> None:
        self.heard = self.do()

    def result(self) -> Heard:
        self.join(30)
        assert self.heard is not None
        return self.heard


def chat_server(annotate: Annotate, url: str, models: dict[str, str], **keys: Any) -> None:
    """An arena project p with rater anna, and a file of models, for the real command."""
    database = open_database(str(annotate.folder / "data/annotate.db"), create=True)
    with database.write() as session:
        settings = ProjectSettings(arena=list(models))
        project = create_project(session, "p", guidelines=None, settings=settings)
        add_person(session, project, "anna", role="rater", name=None, password="correct horse battery")
    database.engine.dispose()
    entries = {name: {"base_url": url, "model": model, **keys} for name, model in models.items()}
    (annotate.folder / "models.yaml").write_text(json.dumps(entries))
