# ruff: noqa: F811 (fixtures are imported, and then asked for)
"""The arena: what a rater is told and when, and what is stored of it."""

import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from annotate.api import arena as arena_api
from annotate.services import arena
from annotate.services.exchange import import_items
from annotate.services.export import export_preferences, settle_splits
from annotate.services.people import add_person
from annotate.services.privacy import data_of_member, erase
from annotate.services.projects import ProjectSettings, create_project, find_project
from annotate.services.report import project_report
from annotate.store.tables import Answer, AnswerText, Chat, Item, Member, Project
from preferences.contract import Item as ImportItem
from preferences.contract import write_preferences
from tests.annotate.arena import KEY, Scene, Somebody, patient, rule, scene, until, world  # noqa: F401
from tests.endpoints import TINY, Outside, align_serve

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


def test_one_person_has_two_turns_written_at_once(scene: Callable[..., Scene], world: Outside) -> None:
    """Also where all of them are sent at the same moment."""
    here = scene("waits:Left", "waits:Right")
    row = {"project_id": here.project, "member_id": here.anna.member, "created_at": 0.0, "updated_at": 0.0}
    with here.database.write() as session:
        chats = [Chat(models=["model-a", "model-b"], turns=[], **row) for _ in range(8)]
        session.add_all(chats)
    told: list[int] = []

    def say(chat: Chat) -> None:
        told.append(here.anna.post(f"/chats/{chat.id}/turns", turn=0, text="Hello").status_code)

    threads = [threading.Thread(target=say, args=(chat,)) for chat in chats]
    for thread in threads:
        thread.start()
    until(lambda: len(told) >= 6)
    world.go_on.set()
    for thread in threads:
        thread.join(30)
    assert sorted(told) == [200, 200] + [429] * 6


# --- what comes of it -----------------------------------------------------------------------------------------------


def test_erasing_takes_the_chats_and_keeps_the_items(scene: Callable[..., Scene]) -> None:
    here = scene()
    first = here.anna.chat()
    here.anna.say(first, 0, "A vote on this")
    with here.database.write() as session:  # a turn that was never whole is no part of the item
        chat = session.get_one(Chat, first)
        chat.turns = [*chat.turns, {"user": "No reply to this", "replies": [None, None]}]
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
    assert left.turns == voted.turns == []
    assert voted.item_id == here.rows(Item)[0].id, "what was voted on is the project's"


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
