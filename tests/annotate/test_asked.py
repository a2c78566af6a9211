"""What a project asks for beyond the ranking, practice before real items, questions to the owner, pay. Over the API."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.annotate.conftest import Annotate, Server, Visitor
from tests.annotate.test_slots import Small

ASKS = [
    *("--dimension", "helpful=useless||perfect", "--dimension", "safe=no|yes", "--rationale", "required"),
    *("--edit", "--spans", "--all-bad", "--mask", "GPT-4", "--pay", "18 EUR/hour", "--practice", "2"),
    *("--gold-rate", "0"),
]
THREE = {"prompt": "Name a number!", "responses": ["As GPT-4 I say one", "two", "three"], "overlap": 1}
RIGHT = {"prompt": "Which is right?", "responses": ["right", "wrong"], "gold": [1, 2], "explanation": "It *is* right."}


@pytest.fixture(scope="module")
def project(shared_annotate: Annotate) -> Annotate:
    annotate = shared_annotate
    annotate.ok("project", "create", "p", *ASKS)
    for login in ("anna", "ben", "cleo"):
        annotate.person("p", login)
    annotate.person("p", "olga", "--role", "owner")
    annotate.person("p", "rita", "--role", "reviewer")
    items = [{"id": f"i{n}", **THREE} for n in range(6)]
    annotate.write("items.jsonl", *items, *({"id": f"g{n}", **RIGHT} for n in range(3)))
    annotate.ok("import", "p", "items.jsonl")
    return annotate


@pytest.fixture(scope="module")
def server(project: Annotate) -> Iterator[Server]:
    with project.served(api_only=True) as running:
        yield running


def practised(server: Server, login: str) -> tuple[Visitor, dict[str, Any]]:
    """Somebody past practice, and their first real task."""
    who = server.visitor(login)
    task = who.next()["task"]
    while task["training"]:
        task = answered(who, task).json()["next"]["task"]
    return who, task


def answered(who: Visitor, task: dict[str, Any], ranks: list[int] | None = None, **change: Any) -> Any:
    count = len(task["responses"])
    ratings = {one["name"]: [len(one["anchors"])] * count for one in task["asks"]["dimensions"]}
    body = {
        "ratings": ratings,
        "rationale": "because",
        "seconds": 20.0,
        "key": f"key of {task['assignment']:04}",
        **change,
    }
    return who.submit(task["assignment"], ranks or [*range(1, count + 1)], **body)


def test_practice_comes_first_and_explains(server: Server) -> None:
    anna = server.visitor("anna")
    seen = []
    following = anna.next()
    while following["task"]["training"]:
        task = following["task"]
        texts = ["".join(turn["html"] for turn in turns) for turns in task["responses"]]
        right = [1, 2] if "right" in texts[0] else [2, 1]
        done = answered(anna, task, right[::-1] if not seen else right).json()
        seen.append(done["receipt"]["feedback"])
        again = answered(anna, task, right[::-1] if len(seen) == 1 else right).json()
        assert again["receipt"] == done["receipt"]  # a receipt that got lost, once more
        assert seen[-1]["ranks"] == right and "<em>is</em>" in seen[-1]["explanation_html"]
        following = done["next"]
    olga = server.visitor("olga")
    gold = olga.http.get(f"{olga.project}/items?gold=true").json()["items"]
    assert [(one["met"], one["right"]) for one in gold] == [(1, 0), (1, 1), (0, 0)]  # in the order of the import
    told = [(one["correct"], one["done"], one["practice"], one["over"]) for one in seen]
    assert told == [(False, 1, 2, False), (True, 2, 2, True)]  # practice is over after two items, right or wrong
    assert len(following["task"]["responses"]) == 3


def test_a_rater_who_is_sent_back_practises_anew_and_no_late_receipt_admits_them(tmp_path: Path) -> None:
    gold = [{"id": f"g{n}", "prompt": f"g{n}", "gold": [1, 2, 3]} for n in range(3)]
    small = Small(tmp_path, [*gold, {"id": "r", "prompt": "r"}], raters=1, qualify=1, practice=0, gold_rate=0.0)
    first = small.given(0)
    small.submit(0, first, [1, 2, 3], key="the first")
    real = small.given(0, now=1001.0)
    assert real.purpose == "item"
    from annotate.services.members import MemberChange, change_member
    from annotate.store.tables import Member

    with small.database.write() as session:
        change_member(session, 1, small.raters[0].id, MemberChange(qualified=False), None, by=None)
    small.submit(0, first, [1, 2, 3], key="the first")  # the same try once more, whose receipt got lost
    with small.database.read() as session:
        assert session.get_one(Member, small.raters[0].id).qualified_at is None
    now = 4e9
    assert small.given(0, now=now).purpose == "training"  # not the real item that they had open
    small.submit(0, small.given(0, now=now), [1, 2, 3], key="the next", now=now)
    assert small.given(0, now=now + 1) == real


def test_what_is_asked_is_stored_as_it_was_given(server: Server, project: Annotate) -> None:
    ben, task = practised(server, "ben")
    asks = {"all_bad": True, "rationale": "required", "edit": True, "spans": True}
    assert {name: task["asks"][name] for name in asks} == asks
    assert [one["name"] for one in task["asks"]["dimensions"]] == ["helpful", "safe"]
    assert "GPT" not in json.dumps(task)
    masked = next(n for n, text in enumerate(task["texts"]) if "█" in text)
    two = task["texts"].index("two")

    given = {
        "ratings": {"helpful": [1, 2, 3], "safe": [1, 2, 2]},
        "rationale": "Two is enough.",
        "edited": {"response": two, "text": "two, exactly"},
        "spans": [{"response": two, "start": 0, "end": 2, "text": "tw", "mark": "bad"}],
        "flags": ["all-bad"],
    }
    for wrong, said in (
        ({"ratings": {"helpful": [1, 2, 3]}}, "'safe' is missing"),
        ({"ratings": {"helpful": [1, 2, 4], "safe": [1, 1, 1]}}, "whole numbers from 1 to 3"),
        ({"ratings": {"helpful": [1, 2, 2.5], "safe": [1, 1, 1]}}, "whole numbers from 1 to 3"),
        ({"ratings": {**given["ratings"], "witty": [1, 1, 1]}}, "no dimension 'witty'"),
        ({"rationale": "  "}, "asks for a few words on why"),
        ({"spans": [{**given["spans"][0], "response": 3}]}, "marks a response that is none of 3"),
        ({"spans": [{**given["spans"][0], "end": 3}]}, "are not 2 characters"),
    ):
        refused = answered(ben, task, [1, 2, 3], **{**given, **wrong})
        assert refused.status_code == 422 and said in refused.json()["detail"], refused.text
    done = answered(ben, task, [2, 1, 3], **given)
    assert done.status_code == 200, done.text
    assert answered(ben, task, [2, 1, 3], **given).json()["receipt"] == done.json()["receipt"]

    before = ben.http.post(f"{ben.project}/answers/{done.json()['receipt']['answer']}/reopen").json()["given"]
    assert {name: before[name] for name in given} == given
    stored = json.loads(project.ok("people", "data", "p", "ben"))["projects"][0]["answers"][-1]
    order = ["As GPT-4 I say one", "two", "three"]
    shown = [order.index(text.replace("█████", "GPT-4")) for text in task["texts"]]
    assert shown[masked] == 0 and stored["shown"] == shown
    assert [stored["ratings"]["helpful"][index] for index in shown] == [1, 2, 3]
    assert stored["spans"] == [{**given["spans"][0], "response": 1}] and stored["edited"]["response"] == 1


def test_a_change_of_mind_adds_its_time_and_keeps_the_rest(server: Server) -> None:
    cleo, task = practised(server, "cleo")
    before = cleo.http.get(f"{cleo.project}/mine").json()
    assert (before["answers"], before["active_seconds"]) == (2, 40.0)
    done = answered(cleo, task).json()
    answered(cleo, task, key="another one", revises=done["receipt"]["answer"], seconds=5.0)
    mine = cleo.http.get(f"{cleo.project}/mine").json()
    assert (mine["answers"], mine["active_seconds"]) == (3, 65.0)
    assert mine["earned"] == pytest.approx(18 * 65 / 3600) and mine["pay"]["currency"] == "EUR"
    newest = cleo.http.get(f"{cleo.project}/answers/mine").json()["answers"][0]
    assert (newest["prompt"], newest["ranks"], newest["revision"]) == ("Name a number!", [1, 2, 3], 2)
    answered(cleo, task, key="without a time", revises=newest["answer"], seconds=None)
    mine = cleo.http.get(f"{cleo.project}/mine").json()
    assert (mine["answers"], mine["active_seconds"]) == (3, 65.0)


def test_a_question_finds_its_reply(server: Server) -> None:
    anna, olga, rita = (server.visitor(login) for login in ("anna", "olga", "rita"))
    task = anna.next()["task"]
    ask = {"assignment": task["assignment"], "text": " Is zero a number? "}
    number = anna.http.post(f"{anna.project}/questions", json=ask).json()["question"]
    assert anna.http.post(f"{anna.project}/questions", json={**ask, "text": "  "}).status_code == 422
    (asked,) = olga.http.get(f"{olga.project}/questions").json()["questions"]
    assert (asked["rater"], asked["text"], asked["reply"]) == ("anna", "Is zero a number?", None)
    (seen,) = rita.http.get(f"{rita.project}/questions").json()["questions"]
    assert seen["rater"].startswith("rater-")
    assert anna.http.get(f"{anna.project}/mine").json()["unread"] == 0
    path = f"{olga.project}/questions/{number}/reply"
    assert olga.http.post(path, json={"text": "Yes."}).status_code == 204
    assert olga.http.post(path.replace(str(number), "999"), json={"text": "Yes."}).status_code == 404
    assert anna.http.get(f"{anna.project}/mine").json()["unread"] == 1
    (own,) = anna.http.get(f"{anna.project}/questions/mine").json()["questions"]
    assert (own["reply"], own["read"], own["prompt"]) == ("Yes.", False, "Name a number!")
    assert anna.http.post(f"{anna.project}/questions/read").status_code == 204
    assert anna.http.get(f"{anna.project}/mine").json()["unread"] == 0
    somebody_elses = server.visitor("ben").http.post(f"{anna.project}/questions", json=ask)
    assert somebody_elses.json()["rule"] == "not-yours"


def test_what_is_not_asked_for_is_left_out(project: Annotate, server: Server) -> None:
    project.ok("project", "create", "plain")
    project.person("plain", "paul")
    project.write("plain.jsonl", {"id": "a", **THREE})
    project.ok("import", "plain", "plain.jsonl")
    paul = server.visitor("paul")
    task = paul.next()["task"]
    mark = {"response": 0, "start": 0, "end": 3, "text": "BUY", "mark": "good"}
    more = {"edited": {"response": 0, "text": "BUY"}, "spans": [mark], "flags": ["all-bad", "unsafe", "unsafe"]}
    done = paul.submit(task["assignment"], [1, 2, 3], **more)
    assert done.status_code == 200 and paul.submit(task["assignment"], [1, 2, 3], **more).json() == done.json()
    (stored,) = json.loads(project.ok("people", "data", "plain", "paul"))["projects"][0]["answers"]
    assert (stored["edited"], stored["spans"], stored["flags"]) == (None, None, ["unsafe"])


def test_a_change_keeps_what_the_project_no_longer_asks_for(project: Annotate, server: Server) -> None:
    project.ok("project", "create", "was", "--edit", "--spans", "--all-bad")
    project.person("was", "wanda")
    project.write("was.jsonl", {"id": "a", **THREE})
    project.ok("import", "was", "was.jsonl")
    wanda = server.visitor("wanda")
    task = wanda.next()["task"]
    mark = {"response": 0, "start": 0, "end": 2, "text": "tw", "mark": "bad"}
    more = {"edited": {"response": 0, "text": "two"}, "spans": [mark], "flags": ["all-bad"]}
    first = wanda.submit(task["assignment"], [1, 2, 3], **more).json()["receipt"]["answer"]
    project.ok("project", "set", "was", "--no-edit", "--no-spans", "--no-all-bad")
    changed = {**more, "key": "the second one", "revises": first}
    second = wanda.submit(task["assignment"], [3, 2, 1], **changed)
    assert wanda.submit(task["assignment"], [3, 2, 1], **changed).json() == second.json()
    kept = json.loads(project.ok("people", "data", "was", "wanda"))["projects"][0]["answers"][-1]
    assert (kept["edited"]["text"], len(kept["spans"]), kept["flags"]) == ("two", 1, ["all-bad"])
    number = second.json()["receipt"]["answer"]
    other = {**changed, "key": "the third one", "revises": number, "edited": {"response": 0, "text": "BUY"}}
    assert wanda.submit(task["assignment"], [3, 2, 1], **other).status_code == 200
    kept = json.loads(project.ok("people", "data", "was", "wanda"))["projects"][0]["answers"][-1]
    assert (kept["edited"], len(kept["spans"])) == (None, 1)  # another rewrite is not what it had


@pytest.mark.parametrize(
    ("option", "said"),
    [
        (["--dimension", "helpful"], "give a name and 2 to 7 anchors"),
        (["--dimension", "a=1|2", "--dimension", "a=1|2"], "two dimensions have the same name"),
        (["--pay", "much"], "give an amount, a currency"),
    ],
)
def test_what_a_project_cannot_ask(project: Annotate, option: list[str], said: str) -> None:
    assert said in project.refuses("project", "create", "other", *option)
