# ruff: noqa: F811 (fixtures are imported, and then asked for)
"""The arena while models write: pace, stopping, two windows; endpoints that do wrong whatever can be; their file."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from annotate.services import endpoints
from annotate.services.pace import FASTEST, SLOWEST, Pace
from annotate.store.tables import Chat
from tests.annotate.arena import KEY, Background, Heard, Scene, chat_server, patient, rule, scene, until, world  # noqa: F401
from tests.annotate.conftest import Annotate
from tests.endpoints import HTML, Outside

# --- while it is being written -----------------------------------------------------------------------------------


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


def test_a_line_without_end_takes_no_time() -> None:
    """Its pieces must not be put together anew with each that comes: nobody else is answered meanwhile."""

    class Endless:
        async def aiter_raw(self) -> AsyncIterator[bytes]:
            for _ in range(8_000):
                yield b"x" * 1_000

    began = time.process_time()
    with pytest.raises(endpoints.Failed, match="broke off"):
        asyncio.run(endpoints._listen(Endless(), lambda piece: None))  # type: ignore[arg-type]
    assert time.process_time() - began < 1


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
