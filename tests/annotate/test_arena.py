"""The arena: what a rater is told and when, what is stored, and endpoints that do all they can wrong."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from annotate.api import arena as arena_api
from annotate.app import build_app
from annotate.services import arena, endpoints
from annotate.services.endpoints import read_endpoints
from annotate.services.exchange import import_items
from annotate.services.export import export_preferences, settle_splits
from annotate.services.pace import FASTEST, SLOWEST, Pace
from annotate.services.people import add_person, start_login, visitor
from annotate.services.privacy import data_of_member, erase
from annotate.services.projects import ProjectSettings, create_project, find_project
from annotate.services.report import project_report
from annotate.store.database import Database, open_database
from annotate.store.tables import Answer, AnswerText, Chat, Item, Member, Person, Project
from preferences.contract import Item as ImportItem
from preferences.contract import write_preferences
from tests.annotate.conftest import Annotate
from tests.endpoints import HTML, TINY, Outside, align_serve, outside

KEY = "sk-a-secret-of-the-operator"


@pytest.fixture(scope="module")
def world() -> Iterator[Outside]:
    with outside() as server:
        yield server


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch, world: Outside) -> None:
    """No limit on turns but where it is tried; the outside forgets."""
    monkeypatch.setattr(arena_api.TURNS, "burst", 10_000)
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


# --- chat, vote, reveal -----------------------------------------------------------------------------------------


def test_a_chat_of_two_turns_becomes_an_item_with_an_answer(scene: Callable[..., Scene], world: Outside) -> None:
    here = scene(
        "echo:A", "echo:B", keys={"temperature": 0.5, "max_tokens": 77, "system": "Be brief."}, rationale="optional"
    )
    chat = here.anna.chat()
    models = here.rows(Chat)[0].models
    letters = [name[-1].upper() for name in models]
    first = here.anna.say(chat, 0, "Hello *you*")
    assert first.shown == [f"{letter} hears Hello *you*" for letter in letters] and first.whole
    assert first.html == [f"<p>{letter} hears Hello <em>you</em></p>\n" for letter in letters]
    here.anna.say(chat, 1, "And now?")
    for body in world.asked:
        letter = body["model"][-1]
        turns = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hello *you*"},
            {"role": "assistant", "content": f"{letter} hears Hello *you*"},
            {"role": "user", "content": "And now?"},
        ]
        assert body["messages"] in (turns, turns[:2]) and body["stream"] is True
        assert (body["temperature"], body["max_tokens"]) == (0.5, 77)
    assert len(world.asked) == 4
    voted = here.anna.vote(chat, -2, flags=["unsafe"], rationale="Nicer.", seconds=12.5)
    assert voted.status_code == 200 and voted.json()["models"] == models
    assert voted.json()["receipt"]["surplus"] is False
    (item,), (answer,) = here.rows(Item), here.rows(Answer)
    assert (item.key, item.overlap) == (f"chat-{chat}", 1)
    assert item.prompt == [{"role": "user", "content": "Hello *you*"}]
    assert [one["model"] for one in item.responses] == models
    assert [turn["role"] for turn in item.responses[0]["messages"]] == ["assistant", "user", "assistant"]
    assert (answer.kind, answer.ranks, answer.strength, answer.flags) == ("rated", [1, 2], -2, ["unsafe"])
    assert (answer.shown, answer.seconds, answer.revision) == ([0, 1], 12.5, 1)
    with here.database.read() as session:
        assert session.get_one(AnswerText, answer.id).rationale == "Nicer."
    seen = here.anna.get(f"/chats/{chat}")
    assert seen["revealed"] == {"models": models, "ranks": [1, 2], "strength": -2}
    assert here.anna.chat() != chat, "a chat that is voted on is over"


def test_nothing_tells_the_models_before_the_vote(scene: Callable[..., Scene]) -> None:
    """Names, addresses and what the operator set are in no answer, whatever is asked and whatever goes wrong."""
    here = scene("error", "dies", keys={"system": "You are secret-name-7b."})
    chat = here.anna.chat()
    said = [here.anna.say(chat, 0, "Who are you?").raw, json.dumps(here.anna.get(f"/chats/{chat}"))]
    said += [here.anna.vote(chat).text, json.dumps(here.anna.get("/answers/mine")), here.anna.post("/next").text]
    said.append(json.dumps(here.client.get("/api/v1/me", headers=here.anna.headers).json()))
    said.append(here.client.get("/api/v1/me/personal-data", headers=here.anna.headers).text)
    for secret in ("model-a", "model-b", "secret-name", "127.0.0.1", "overloaded", "dies"):
        assert not [text for text in said if secret in text], secret


def test_a_name_is_masked_while_it_is_being_written(scene: Callable[..., Scene]) -> None:
    here = scene("say:I am Super Bot 3 and I help.", "say:I, Claude-4.5-mini, help.", mask=["Super Bot", "Claude"])
    chat = here.anna.chat()
    heard = here.anna.say(chat, 0, "Who are you?")
    assert sorted(heard.shown) == ["I am █████ 3 and I help.", "I, █████, help."]
    assert "Bot" not in heard.raw and "Claude" not in heard.raw and "4.5" not in heard.raw
    seen = here.anna.get(f"/chats/{chat}")["turns"][0]["replies"]
    assert seen == heard.html and "█████" in seen[0]
    here.anna.vote(chat, 0)
    assert any("Super Bot 3" in one["messages"][0]["content"] for one in here.rows(Item)[0].responses), "stored whole"


def test_pairs_are_balanced_and_sides_are_a_coin(scene: Callable[..., Scene], world: Outside, tmp_path: Path) -> None:
    models = {f"m{number}": f"say:{number}" for number in range(4)}
    folder = tmp_path / "more"
    folder.mkdir()
    here = Scene(folder, world.url, models, {}, {})
    with here.database.write() as session:
        project = session.get_one(Project, here.project)
        drawn = []
        for _ in range(120):
            names = arena._drawn(session, project)
            session.add(
                Chat(
                    project_id=project.id,
                    member_id=here.anna.member,
                    models=names,
                    turns=[],
                    created_at=0,
                    updated_at=0,
                )
            )
            session.flush()
            drawn.append(names)
    assert set(Counter(frozenset(names) for names in drawn).values()) == {20}
    first = sum(names[0] < names[1] for names in drawn)
    assert 30 < first < 90  # 60 ± 5.5 standard deviations
    here.database.engine.dispose()


def test_a_vote_is_stored_once_and_stays(scene: Callable[..., Scene]) -> None:
    here = scene()
    chat = here.anna.chat()
    assert rule(here.anna.vote(chat)) == (422, "does-not-fit")
    here.anna.say(chat, 0, "Hello")
    once, again = here.anna.vote(chat), here.anna.vote(chat)
    assert once.json() == again.json()
    assert rule(here.anna.vote(chat, 3)) == (409, "key-reused")
    assert rule(here.anna.vote(chat, 3, key="another key")) == (409, "already-answered")
    number = once.json()["receipt"]["answer"]
    assert rule(here.anna.post(f"/answers/{number}/reopen")) == (409, "revealed")
    assert [one["can_revise"] for one in here.anna.get("/answers/mine")["answers"]] == [False]
    assignment = {"assignment": 1, "key": "one more key", "ranks": [2, 1], "revises": number}
    assert rule(here.anna.post("/answers", **assignment)) == (409, "revealed")
    assert len(here.rows(Answer)) == len(here.rows(Item)) == 1
    assert rule(here.anna.post(f"/chats/{chat}/turns", turn=1, text="More")) == (409, "already-answered")


def test_votes_at_once_are_one(scene: Callable[..., Scene]) -> None:
    here = scene()
    chat = here.anna.chat()
    here.anna.say(chat, 0, "Hello")
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda key=key: answers.append(here.anna.vote(chat, key=key).status_code))
        for key in ["key number 1", "key number 2"] * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == [200] * 4 + [409] * 4
    assert len(here.rows(Answer)) == len(here.rows(Item)) == 1


def test_a_project_that_asks_no_strength_and_words(scene: Callable[..., Scene]) -> None:
    here = scene(strength=False, rationale="required", all_bad=True)
    chat = here.anna.post("/chats").json()
    assert (chat["strength"], chat["rationale"], chat["all_bad"]) == (False, "required", True)
    here.anna.say(chat["chat"], 0, "Hello")
    assert rule(here.anna.vote(chat["chat"], 1)) == (422, "does-not-fit")
    assert not here.rows(Item), "what is refused leaves no item"
    assert here.anna.vote(chat["chat"], 1, flags=["all-bad"], rationale="Both wrong.").status_code == 200
    (answer,) = here.rows(Answer)
    assert (answer.ranks, answer.strength, answer.flags) == ([2, 1], None, ["all-bad"])


# --- whose, and when ---------------------------------------------------------------------------------------------


def test_another_raters_chat_is_not_there(scene: Callable[..., Scene]) -> None:
    here = scene()
    ben, chat = here.person("ben"), here.anna.chat()
    here.anna.say(chat, 0, "Hello")
    assert ben.chat() != chat
    for answer in (
        ben.client.get(f"{ben.base}/chats/{chat}", headers=ben.headers),
        ben.post(f"/chats/{chat}/turns", turn=0, text="Hello"),
        ben.post(f"/chats/{chat}/stop"),
        ben.vote(chat),
    ):
        assert rule(answer) == (404, "not-found")


def test_a_project_without_models_says_so(scene: Callable[..., Scene], tmp_path: Path) -> None:
    here = scene()
    del here.app.state.arena.models["model-a"]
    answer = here.anna.post("/chats")
    assert rule(answer) == (409, "no-models") and "model-a" not in answer.text
    with here.database.write() as session:
        plain = create_project(session, "plain", guidelines=None, settings=ProjectSettings())
        add_person(session, plain, "anna", role="rater", name=None, password=None)
    other = Somebody(here.client, f"/api/v1/projects/{plain.id}", here.anna.headers, 0)
    assert rule(other.post("/chats")) == (404, "not-found")


def test_consent_guidelines_and_closing_hold_here_too(scene: Callable[..., Scene]) -> None:
    here = scene(consent="Agree?")
    assert rule(here.anna.post("/chats")) == (409, "consent-first")
    text = here.anna.get("/guidelines")["consent_hash"]
    here.anna.post("/consent", agreed=True, consent_hash=text)
    chat = here.anna.chat()
    with here.database.write() as session:
        session.get_one(Project, here.project).closed_at = 1.0
    assert rule(here.anna.post("/chats")) == (409, "project-closed")
    assert rule(here.anna.post(f"/chats/{chat}/turns", turn=0, text="Hello")) == (409, "project-closed")


def test_next_leads_to_the_arena(scene: Callable[..., Scene]) -> None:
    here = scene()
    assert here.anna.post("/next").json()["why"] == "arena"


def test_limits(scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    here = scene()
    chat = here.anna.chat()

    def turn(number: int, text: str) -> httpx.Response:
        return here.anna.post(f"/chats/{chat}/turns", turn=number, text=text)

    assert rule(turn(0, "x" * (arena.MOST_TEXT + 1))) == (422, "bad-input")
    assert rule(turn(0, " \n ")) == (422, "bad-input")
    assert rule(turn(0, "nul \0")) == (422, "bad-input")
    assert rule(turn(1, "Too early")) == (412, "wrong-version")
    monkeypatch.setattr(arena, "MOST_TURNS", 2)
    assert turn(0, "one").status_code == turn(1, "two").status_code == 200
    assert rule(turn(2, "three")) == (422, "does-not-fit")
    assert rule(turn(1, "something else")) == (409, "key-reused")
    monkeypatch.setattr(arena_api.TURNS, "burst", 1)
    monkeypatch.setattr(arena_api.TURNS, "_levels", type(arena_api.TURNS._levels)())
    chat = here.anna.chat(fresh=True)
    assert turn(0, "one").status_code == 200
    slow = turn(1, "two")
    assert rule(slow) == (429, "too-many-requests") and int(slow.headers["Retry-After"]) >= 1


# --- while it is being written -----------------------------------------------------------------------------------


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


def test_no_transaction_is_open_while_models_write(scene: Callable[..., Scene], world: Outside) -> None:
    """Others write to the database meanwhile; two windows hear the same; the vote waits."""
    here = scene("waits:Left", "waits:Right")
    chat = here.anna.chat()
    first = Background(here.anna, chat, 0, "Hello")
    until(lambda: chat in here.app.state.arena.writing and len(world.asked) == 2)
    second = Background(here.anna, chat, 0, "Hello")
    began = time.monotonic()
    ben = here.person("ben")
    assert ben.chat() and time.monotonic() - began < 5
    assert here.anna.get(f"/chats/{chat}")["turns"] == [{"text": "Hello", "replies": [None, None]}]
    assert rule(here.anna.vote(chat)) == (409, "still-writing")
    world.go_on.set()
    assert first.result().events == second.result().events and first.result().whole
    assert len(world.asked) == 2, "the second window listens, and asks nobody"
    assert not here.app.state.arena.writing


def test_another_process_is_told_to_wait_and_then_takes_over(scene: Callable[..., Scene]) -> None:
    """A turn that another server process holds, or held when it died."""
    here = scene()
    chat = here.anna.chat()
    with here.database.write() as session:
        row = session.get_one(Chat, chat)
        row.turns = [{"user": "Hello", "replies": [None, "stored"], "until": time.time() + 60}]
    answer = here.anna.post(f"/chats/{chat}/turns", turn=0, text="Hello")
    assert rule(answer) == (409, "still-writing") and 50 < int(answer.headers["Retry-After"]) <= 60
    assert here.anna.post(f"/chats/{chat}/stop").json() == {"stopped": False}
    with here.database.write() as session:
        row = session.get_one(Chat, chat)
        row.turns = [{"user": "Hello", "replies": [None, "stored"], "until": time.time() - 1}]
    heard = here.anna.say(chat, 0, "Hello")
    assert heard.whole and heard.shown[1] == "" and heard.html[1] == "<p>stored</p>\n"


def test_a_turn_goes_on_when_nobody_listens(tmp_path: Path, world: Outside) -> None:
    """On a real server, since the test client hears everything: hang up in the middle, and find it stored later."""
    annotate = Annotate(tmp_path)
    chat_server(annotate, world.url, {"model-a": "waits:Left", "model-b": "waits:Right"})
    with annotate.served(api_only=True, options=["--models", "models.yaml"]) as server:
        anna = server.visitor("anna")
        chat = anna.http.post(f"{anna.project}/chats", json={}).json()["chat"]
        path = f"{anna.project}/chats/{chat}"
        with anna.http.stream("POST", f"{path}/turns", json={"turn": 0, "text": "Hello"}) as answer:
            first = next(answer.iter_lines())
            assert json.loads(first.removeprefix("data: "))["delta"]
        world.go_on.set()
        until(lambda: None not in anna.http.get(path).json()["turns"][0]["replies"])
        replies = anna.http.get(path).json()["turns"][0]["replies"]
    assert sorted(replies) == ["<p>Left and so on.</p>\n", "<p>Right and so on.</p>\n"]


def test_a_server_that_stops_leaves_a_turn_that_can_be_asked_for_again(tmp_path: Path, world: Outside) -> None:
    annotate = Annotate(tmp_path)
    chat_server(annotate, world.url, {"model-a": "waits:Left", "model-b": "waits:Right"})
    with annotate.served(api_only=True, options=["--models", "models.yaml"]) as server:
        anna = server.visitor("anna")
        chat = anna.http.post(f"{anna.project}/chats", json={}).json()["chat"]
        with anna.http.stream("POST", f"{anna.project}/chats/{chat}/turns", json={"turn": 0, "text": "Hi"}) as answer:
            assert next(answer.iter_lines())
    world.go_on.set()
    with annotate.served(api_only=True, options=["--models", "models.yaml"]) as server:
        anna = server.visitor("anna")
        assert anna.http.post(f"{anna.project}/chats", json={}).json()["chat"] == chat
        again = anna.http.post(f"{anna.project}/chats/{chat}/turns", json={"turn": 0, "text": "Hi"})
        assert Heard(again.text).whole


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


def test_stopping_keeps_what_is_shown_of_both(scene: Callable[..., Scene], world: Outside) -> None:
    here = scene("slowly:little ", "say:" + "word " * 400)
    chat = here.anna.chat()
    turn = Background(here.anna, chat, 0, "Hello")
    until(lambda: chat in here.app.state.arena.writing and here.app.state.arena.writing[chat].events)
    time.sleep(0.5)
    assert here.anna.post(f"/chats/{chat}/stop").json() == {"stopped": True}
    heard = turn.result()
    stored = here.rows(Chat)[0].turns[0]["replies"]
    assert heard.whole and stored == heard.shown
    assert len(set(map(len, stored))) == 1 and 0 < len(stored[0]) < 240, "both are cut at the same place"
    assert here.anna.vote(chat).status_code == 200


# --- pace ---------------------------------------------------------------------------------------------------------


def test_both_grow_as_fast_as_the_slower_one() -> None:
    pace = Pace()
    pace.replies[0].text = "a" * 1000
    assert pace.step(1.0) == ("", ""), "the other has not begun"
    pace.replies[1].text = "b" * 30
    assert [len(piece) for piece in pace.step(1.0)] == [30, 30]
    pace.replies[1].text += "b" * 10
    assert [len(piece) for piece in pace.step(1.0)] == [10, 10]


@pytest.mark.parametrize("slower", [0, 1])
def test_the_longer_one_goes_on_as_both_did(slower: int) -> None:
    """100 characters a second together; then whichever is left comes at that speed, though all of it is there."""
    pace = Pace()
    left = pace.replies[slower]
    rest = pace.replies[1 - slower]
    left.text = rest.text = ""
    for _ in range(20):
        left.text += "x" * 10
        rest.text = "y" * 2000
        pace.step(0.1)
    assert len(left.shown) == len(rest.shown) == 200
    left.ended = rest.ended = True
    pieces = [len(pace.step(0.1)[1 - slower]) for _ in range(10)]
    assert sum(pieces) == pytest.approx(100, abs=3) and max(pieces) <= 12


def test_pace_has_bounds() -> None:
    fast = Pace()
    for reply in fast.replies:
        reply.text, reply.ended = "x" * 10_000, True
    assert sum(len(fast.step(0.1)[0]) for _ in range(10)) == pytest.approx(FASTEST, abs=1)
    slow = Pace()
    slow.replies[0].text, slow.replies[0].ended, slow.replies[1].ended = "x" * 1000, True, True
    assert sum(len(slow.step(0.1)[0]) for _ in range(10)) == pytest.approx(SLOWEST, abs=1)
    assert slow.over(1) and not slow.over(0)


# --- endpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("does", "end"),
    [
        ("html", "garbled"),
        ("garbage", "garbled"),
        ("shapes", "garbled"),
        ("deep", "garbled"),
        ("one-line", "garbled"),
        ("late-error", "garbled"),
        ("dies", "garbled"),
        ("moved", "garbled"),
        ("error", "away"),
        ("hangs", "slow"),
    ],
)
def test_one_side_that_fails_says_so_and_can_be_asked_again(
    scene: Callable[..., Scene], world: Outside, monkeypatch: pytest.MonkeyPatch, does: str, end: str
) -> None:
    monkeypatch.setattr(endpoints, "SILENCE", 1.0)
    here = scene(does, "say:I am fine.")
    chat = here.anna.chat()
    side = here.rows(Chat)[0].models.index("model-a")
    heard = here.anna.say(chat, 0, "Hello")
    assert heard.ends[side] == end and heard.html[side] is None and not heard.whole
    assert heard.ends[1 - side] == "whole" and heard.html[1 - side] == "<p>I am fine.</p>\n"
    assert here.rows(Chat)[0].turns[0]["replies"][1 - side] == "I am fine."
    assert rule(here.anna.post(f"/chats/{chat}/turns", turn=1, text="Go on")) == (412, "wrong-version")
    world.mended.add(does)
    asked = len(world.asked)
    again = here.anna.say(chat, 0, "Hello")
    assert again.whole and len(world.asked) == asked + 1, "only the side that is missing is asked"
    assert here.anna.say(chat, 1, "Go on").whole


def test_an_endpoint_that_is_not_there(scene: Callable[..., Scene], world: Outside, tmp_path: Path) -> None:
    folder = tmp_path / "away"
    folder.mkdir()
    here = Scene(folder, "http://127.0.0.1:1/v1", {"model-a": "say", "model-b": "say"}, {}, {})
    with here.client:
        heard = here.anna.say(here.anna.chat(), 0, "Hello")
    assert heard.ends == ["away", "away"] and not heard.whole
    here.database.engine.dispose()


def test_replies_that_are_odd_are_stored_as_text(scene: Callable[..., Scene]) -> None:
    here = scene("odd", "empty")
    chat = here.anna.chat()
    heard = here.anna.say(chat, 0, "Hello")
    side = here.rows(Chat)[0].models.index("model-a")
    stored = here.rows(Chat)[0].turns[0]["replies"]
    assert heard.whole and stored[side] == "a\ufffdb \ufffd 🙂 \ufffd" and stored[1 - side] == ""
    assert here.anna.vote(chat, 0).status_code == 200


def test_ten_megabytes_are_cut(scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annotate.services.pace.FASTEST", 1e6)
    monkeypatch.setattr("annotate.services.pace.SLOWEST", 1e6)
    here = scene("big", "say:Short.")
    heard = here.anna.say(here.anna.chat(), 0, "Hello")
    assert heard.whole and max(map(len, heard.shown)) == endpoints.MOST_TEXT


def test_hostile_replies_come_as_text_and_as_cleaned_html(scene: Callable[..., Scene]) -> None:
    here = scene("say:" + HTML, "say:" + HTML)
    chat = here.anna.chat()
    heard = here.anna.say(chat, 0, "Hello")
    for html in [*heard.html, *here.anna.get(f"/chats/{chat}")["turns"][0]["replies"]]:
        assert "<strong>bold</strong>" in html and "<script" not in html and "<img" not in html


def test_the_database_fails_in_the_middle(scene: Callable[..., Scene], world: Outside) -> None:
    """What could not be stored is said not to be, and is asked for again."""
    here = scene("waits:Left", "waits:Right")
    chat = here.anna.chat()
    turn = Background(here.anna, chat, 0, "Hello")
    until(lambda: len(world.asked) == 2)
    here.app.state.arena._keep = lambda *_: 1 / 0
    world.go_on.set()
    assert not turn.result().whole
    del here.app.state.arena._keep
    assert here.anna.say(chat, 0, "Hello").whole


# --- the file of models --------------------------------------------------------------------------------------------

GOOD = {"base_url": "http://127.0.0.1:1/v1", "model": "m"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no model"),
        ("- a", "names no model"),
        ("a: {", "line 1: not YAML"),
        ("a: {base_url: x, base_url: y}", "'base_url' stands there twice"),
        ("3: {}", "a model's name is a text"),
        ("a: b", "models.yaml, a: give it keys"),
        ("a: {model: m}", "models.yaml, a: base_url: Field required"),
        ("a: {base_url: 'http://h/v1'}", "models.yaml, a: model: Field required"),
        ("a: {base_url: 'ftp://h', model: m}", "base_url: give an http:// or https:// address"),
        ("a: {base_url: 'http://u:p@h/v1', model: m}", "base_url: no user name or password"),
        ("a: {base_url: 'http://h/v1', model: m, key: sk-1}", "key: unknown key"),
        ("a: {base_url: 'http://h/v1', model: m, temperature: hot}", "temperature"),
        ("a: {base_url: 'http://h/v1', model: m, max_tokens: 0}", "max_tokens"),
        ("a: {base_url: 'http://h/v1', model: m, key_env: NO_SUCH_KEY}", "key_env: there is no key in the environment"),
    ],
)
def test_a_bad_file_is_one_sentence(annotate: Annotate, text: str, said: str) -> None:
    (annotate.folder / "models.yaml").write_text(text)
    found = annotate.refuses("serve", "--port", "0", "--models", "models.yaml")
    assert said in found and "models.yaml" in found and "sk-1" not in found


def test_a_file_that_is_not_there(annotate: Annotate) -> None:
    assert "cannot read the models' file nothing.yaml" in annotate.refuses("serve", "--models", "nothing.yaml")


def test_the_key_goes_to_its_endpoint_and_nowhere_else(
    tmp_path: Path, world: Outside, monkeypatch: pytest.MonkeyPatch
) -> None:
    annotate = Annotate(tmp_path)
    chat_server(annotate, world.url, {"model-a": "say:One.", "model-b": "error"}, key_env="OPERATORS_KEY")
    annotate.environment["OPERATORS_KEY"] = KEY
    lines: list[str] = []
    with annotate.served(api_only=True, options=["--models", "models.yaml", "--logs", "json"], said=lines) as server:
        anna = server.visitor("anna")
        chat = anna.http.post(f"{anna.project}/chats", json={}).json()["chat"]
        heard = anna.http.post(f"{anna.project}/chats/{chat}/turns", json={"turn": 0, "text": "A private question"})
    assert [headers["Authorization"] for headers in world.headers] == [f"Bearer {KEY}"] * 2
    log = "".join(lines)
    assert '"model": "model-b"' in log and '"why": "away"' in log, "the operator reads which one failed"
    stored = b"".join(path.read_bytes() for path in (tmp_path / "data").iterdir())
    for secret in (KEY, world.url, "OPERATORS_KEY"):
        assert secret not in log and secret not in heard.text and secret.encode() not in stored
    assert "private question" not in log and "One." not in log


def test_a_project_is_made_at_the_command_line(annotate: Annotate) -> None:
    assert "--arena" in annotate.refuses("project", "create", "p", "--arena", "one")
    assert "each once" in annotate.refuses("project", "create", "p", "--arena", "one", "--arena", "one")
    assert "next: annotate serve --models" in annotate.ok("project", "create", "p", "--arena", "one", "--arena", "two")
    annotate.ok("project", "set", "p", "--arena", "two", "--arena", "three")
    assert "from the beginning or never" in annotate.refuses("project", "set", "p", "--arena", "")


# --- what comes of it -----------------------------------------------------------------------------------------------


def test_erasing_takes_the_chats_and_keeps_the_items(scene: Callable[..., Scene]) -> None:
    here = scene()
    first = here.anna.chat()
    here.anna.say(first, 0, "A vote on this")
    here.anna.vote(first)
    second = here.anna.chat()
    here.anna.say(second, 0, "No vote on this")
    with here.database.read() as session:
        said = json.dumps(data_of_member(session, session.get_one(Member, here.anna.member)))
    assert "No vote on this" in said and "A vote on this" in said
    assert said.count("model-") == 0
    with here.database.write() as session:
        erase(session, here.project, here.anna.member, by=None)
    voted, left = here.rows(Chat)
    assert left.turns == [] and voted.item_id == here.rows(Item)[0].id, "what was voted on is the project's"


def test_a_key_that_an_import_has_taken(scene: Callable[..., Scene]) -> None:
    here = scene()
    chat = here.anna.chat()
    here.anna.say(chat, 0, "Hello")
    record = ImportItem.model_validate({"id": f"chat-{chat}", "prompt": "Old?", "responses": ["a", "b"]})
    with here.database.write() as session:
        import_items(session, session.get_one(Project, here.project), [record], "i.jsonl")
    assert here.anna.vote(chat).status_code == 200
    assert [item.key for item in here.rows(Item)] == [f"chat-{chat}", f"chat-{chat}+"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    from tests.align.conftest import make_tiny_model

    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def test_votes_on_real_models_train_a_reward_model(tiny: Path, tmp_path: Path) -> None:
    """`align serve` behind it, chats of two turns, the export, and `align reward` and `align dpo` on it."""
    from tests.align.conftest import done, write_recipe

    with align_serve(tiny, key=KEY) as url:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SERVED_KEY", KEY)
            keys = {"key_env": "SERVED_KEY", **TINY}
            here = Scene(tmp_path, url, {"model-a": str(tiny), "model-b": str(tiny)}, keys, {"test": 0.2})
        with here.client:
            for number in range(6):
                chat = here.anna.chat()
                assert here.anna.say(chat, 0, f"Say {number}.").whole
                assert here.anna.say(chat, 1, "Say red.").whole
                assert here.anna.vote(chat, -3 if number % 2 else 2, key=f"key {number} of mine").status_code == 200
    with here.database.write() as session:
        settle_splits(session, find_project(session, "p"))
    with here.database.read() as session:
        folder = export_preferences(session, find_project(session, "p"))
        facts = project_report(session, find_project(session, "p"))
    write_preferences(tmp_path / "preferences", folder)
    rows = [pair for pairs in folder.pairs.values() for pair in pairs]
    assert len(rows) == 6 and facts["answers"] == 6
    assert all([turn.role for turn in row.chosen] == ["assistant", "user", "assistant"] for row in rows)
    assert all(row.models and {row.models.chosen, row.models.rejected} == {"model-a", "model-b"} for row in rows)
    few = {"use_peft": True, "lora_r": 4, "max_steps": 1, "save_strategy": "no", "model_name_or_path": str(tiny)}
    for verb in ("reward", "dpo"):
        recipe = write_recipe(tmp_path / f"{verb}.yaml", **few, dataset_name=str(tmp_path / "preferences"))
        done(verb, recipe, "--output_dir", tmp_path / verb)
    here.database.engine.dispose()
