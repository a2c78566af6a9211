"""`annotate export --judgements`: what raters said of models as a judgements file."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from annotate.api.client import Client, ProblemError
from preferences.judgements import read_judgements
from tests.annotate.conftest import PASSWORD, Annotate, Visitor

TEXTS = {"base": "It is a long answer.", "dpo": "Short.", "ppo": "Medium one."}


def response(model: str | None) -> dict[str, Any]:
    return {"text": TEXTS.get(model or "", "Nobody knows who."), "model": model}


def pair(name: str, first: str, second: str, **rest: Any) -> dict[str, Any]:
    return {"id": name, "prompt": f"Question {name}?", "responses": [response(first), response(second)], **rest}


ITEMS = [
    pair("q1", "dpo", "base", tags=["de", "medical"]),
    pair("q2", "base", "dpo"),
    {"id": "all", "prompt": "Three?", "responses": [response(model) for model in ("ppo", "base", "dpo")]},
    {"id": "unknown", "prompt": "Who?", "responses": ["one", "two"]},
    {"id": "half", "prompt": "Half?", "responses": [response("dpo"), "nobody's"]},
    {"id": "same", "prompt": "Same?", "responses": [response("dpo"), {"text": "Other.", "model": "dpo"}]},
    pair("check", "base", "dpo", gold=[1, 2]),
]
# What each rater thinks, in the order of the import.
ANNA = {
    "q1": [1, 2],
    "q2": [1, 2],
    "all": [1, 2, 2],
    "unknown": [1, 2],
    "half": [1, 2],
    "same": [2, 1],
    "check": [1, 2],
}
BEN = {"q1": [2, 1], "q2": [1, 1], "all": [3, 1, 2], "unknown": [1, 2], "half": [1, 2], "same": [2, 1], "check": [2, 1]}


def answer_all(
    visitor: Visitor, annotate: Annotate, opinion: dict[str, list[int]], **rest: Any
) -> dict[str, list[int]]:
    """Answer what is given, in the order on the screen. Returns {item: the order in which it was shown}."""
    keys = {item["prompt"]: item["id"] for item in ITEMS}
    orders: dict[str, list[int]] = {}
    for number in itertools.count():
        given = visitor.next()
        task = given["task"]
        if task is None:
            return orders
        assert not any(model in json.dumps(given) for model in TEXTS), "a rater may not see a model's name"
        (prompt,) = [text for text in keys if text in task["prompt"][0]["html"]]
        key = keys[prompt]
        item = next(item for item in ITEMS if item["id"] == key)
        texts = [one["text"] if isinstance(one, dict) else one for one in item["responses"]]
        shown = [next(n for n, text in enumerate(texts) if text in turns[0]["html"]) for turns in task["responses"]]
        ranks = [opinion[key][place] for place in shown]
        visitor.submit(
            task["assignment"], ranks, key=f"{visitor.me['login']}-{number}-xxxxxx", **rest
        ).raise_for_status()
        orders[key] = shown
    raise AssertionError


def campaign(annotate: Annotate) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    annotate.ok("project", "create", "p", "--overlap", "3", "--gold-rate", "0", "--practice", "1")
    annotate.write("items.jsonl", *ITEMS)
    annotate.ok("import", "p", "items.jsonl")
    for login, role in (("olga", "owner"), ("anna", "rater"), ("ben", "rater"), ("cem", "rater")):
        annotate.person("p", login, "--role", role)
    with annotate.served(api_only=True) as server:
        owner = server.visitor("olga")
        people = {one["rater"]: one for one in owner.http.get(f"{owner.project}/people").json()["people"]}
        found = people["anna"]
        changed = owner.http.patch(
            f"{owner.project}/people/{found['id']}",
            json={"skills": ["nurse", "de"]},
            headers={"If-Match": f'"{found["version"]}"'},
        )
        assert changed.status_code == 200, changed.text
        anna, ben, cem = (server.visitor(login) for login in ("anna", "ben", "cem"))
        practice = cem.next()["task"]
        late = cem.submit(practice["assignment"], [1, 2]).json()["next"]["task"]
        orders = answer_all(anna, annotate, ANNA), answer_all(ben, annotate, BEN)
        # Anna corrects one answer: only the newest one counts.
        mine = anna.http.get(f"{anna.project}/answers/mine").json()["answers"]
        (first,) = [one for one in mine if "Question q2" in json.dumps(one)]
        task = anna.http.post(f"{anna.project}/answers/{first['answer']}/reopen").json()
        again = anna.submit(task["assignment"], [1, 1], key="a-correction-of-it", revises=first["answer"])
        assert again.status_code == 200, again.text
        # Cem answers when the project is closed: paid, and not counted.
        version = owner.http.get(owner.project).headers["ETag"]
        assert owner.http.patch(owner.project, json={"closed": True}, headers={"If-Match": version}).status_code == 200
        ranks = list(range(1, len(late["responses"]) + 1))
        assert cem.submit(late["assignment"], ranks, key="the late one of cem").json()["receipt"]["surplus"]
    return orders


def test_each_answer_is_a_line_for_each_pair_of_models(annotate: Annotate) -> None:
    anna, ben = campaign(annotate)
    said = annotate.json("export", "p", "--judgements", "people.jsonl")
    rows = annotate.rows("people.jsonl")
    assert said["counts"] == {"judgements": len(rows), "items": 6, "raters": 2, "without_models": 3}
    text = (annotate.folder / "people.jsonl").read_text()
    assert not any(login in text for login in ("anna", "ben", "cem", "olga")) and "strength" not in text
    assert len(read_judgements(annotate.folder / "people.jsonl")) == len(rows)

    report = annotate.json("report", "p")["people"]
    name = {one["rater"]: one["pseudonym"] for one in report}
    found = {(row["prompt"], row["candidate"], row["baseline"], row["rater"]): row for row in rows}
    both = {
        ("q1", "dpo", "base"),
        ("q2", "dpo", "base"),
        ("all", "dpo", "base"),
        ("all", "ppo", "base"),
        ("all", "ppo", "dpo"),
    }
    wanted = {
        "anna": dict(zip(sorted(both), [0.5, 1.0, 1.0, 1.0, 0.5], strict=True)),
        "ben": dict(zip(sorted(both), [0.0, 0.0, 0.0, 0.0, 0.5], strict=True)),
    }
    filled = {key[:3] for key in found}
    assert filled == both
    for login, orders in (("anna", anna), ("ben", ben)):
        for (prompt, candidate, baseline), preference in wanted[login].items():
            row = found.pop((prompt, candidate, baseline, name[login]))
            models = [one["model"] for one in next(item for item in ITEMS if item["id"] == prompt)["responses"]]
            places = [orders[prompt].index(models.index(model)) for model in (candidate, baseline)]
            assert row["preference"] == preference, row
            assert row.get("order", 0) == int(places[0] > places[1]), row
            assert (row["candidate_length"], row["baseline_length"]) == (len(TEXTS[candidate]), len(TEXTS[baseline]))
            assert row.get("tags", []) == (["de", "medical"] if prompt == "q1" else [])
            assert row.get("rater_groups", []) == (["de", "nurse"] if login == "anna" else [])
    assert not found

    annotate.ok("export", "p", "--judgements", "again.jsonl")
    assert (annotate.folder / "again.jsonl").read_bytes() == text.encode()
    assert "is there already" in annotate.refuses("export", "p", "--judgements", "again.jsonl")
    annotate.ok("export", "p", "--judgements", "again.jsonl", "--overwrite")


IMPORTED = [
    {**pair("q1", "base", "dpo"), "answers": [{"rater": "w1", "ranks": [2, 1], "shown": [1, 0], "strength": 3}]},
    {**pair("q2", "dpo", "base"), "answers": [{"rater": "w1", "ranks": [1, 2], "strength": -3}]},
]


def imported(annotate: Annotate, project: str = "p", rows: list[dict[str, Any]] = IMPORTED, *options: str) -> None:
    annotate.ok("project", "create", project, *options)
    annotate.write("items.jsonl", *rows)
    annotate.ok("import", project, "items.jsonl")


@pytest.fixture(params=["SQLite", "PostgreSQL"])
def anywhere(annotate: Annotate, request: pytest.FixtureRequest) -> Annotate:
    if request.param == "PostgreSQL":
        new: Callable[[], str] = request.getfixturevalue("new_database")
        annotate.environment["ANNOTATE_DATABASE"] = new()
    return annotate


def test_the_command_and_the_server_write_the_same(anywhere: Annotate) -> None:
    imported(anywhere)
    anywhere.person("p", "olga", "--role", "owner")
    anywhere.person("p", "rita", "--role", "reviewer")
    token = anywhere.json("token", "create", "olga", "--name", "t", "--right", "export")["token"]
    said = anywhere.json("export", "p", "--judgements", "here.jsonl")
    first, second = anywhere.rows("here.jsonl")
    assert (first["preference"], first["order"]) == (1.0, 0)
    assert second["preference"] == 1.0 and "order" not in second and "judge" not in second
    with anywhere.served(api_only=True) as server:
        anywhere.environment["ANNOTATE_TOKEN"] = token
        there = anywhere.json("export", "p", "--judgements", "there.jsonl", "--server", server.url)
        assert there["counts"] == said["counts"] == {"judgements": 2, "items": 2, "raters": 1, "without_models": 0}
        anywhere.ok("export", "p", "--judgements", "there.jsonl.gz", "--server", server.url)
        with Client(server.url) as rita:
            rita.sign_in("rita", PASSWORD)
            with pytest.raises(ProblemError) as problem:
                rita.export_judgements([1], anywhere.folder / "no.jsonl")
            assert problem.value.rule == "forbidden"
    assert (anywhere.folder / "here.jsonl").read_bytes() == (anywhere.folder / "there.jsonl").read_bytes()
    assert read_judgements(anywhere.folder / "there.jsonl.gz") == read_judgements(anywhere.folder / "here.jsonl")


def test_several_projects_share_what_is_one_item(annotate: Annotate) -> None:
    imported(annotate, "one")
    imported(annotate, "two", [{**row, "answers": [{"rater": "w9", "ranks": [1, 1]}]} for row in IMPORTED])
    said = annotate.json("export", "one", "two", "--judgements", "both.jsonl")
    assert said["counts"] == {"judgements": 4, "items": 2, "raters": 2, "without_models": 0}
    assert [row["prompt"] for row in annotate.rows("both.jsonl")] == ["q1", "q2", "q1", "q2"]
    imported(annotate, "three", [{**IMPORTED[0], "prompt": "Another one?"}])
    assert "id 'q1' is another item in project 'one' than in project 'three'" in annotate.refuses(
        "export", "one", "three", "--judgements", "no.jsonl"
    )
    assert "named twice" in annotate.refuses("export", "one", "one", "--judgements", "no.jsonl")
    assert not (annotate.folder / "no.jsonl").exists()


def test_which_model_is_the_baseline(annotate: Annotate) -> None:
    """The one in most items; else `base`; else the first by name."""

    def pairs_of(project: str, *models: tuple[str, str]) -> set[tuple[str, str]]:
        answers = [{"rater": "w1", "ranks": [1, 2]}]
        rows = [pair(f"{project}-{n}", *two, answers=answers) for n, two in enumerate(models)]
        imported(annotate, project, rows)
        annotate.ok("export", project, "--judgements", f"{project}.jsonl")
        return {(row["candidate"], row["baseline"]) for row in annotate.rows(f"{project}.jsonl")}

    assert pairs_of("a", ("old", "new"), ("newer", "old")) == {("new", "old"), ("newer", "old")}
    assert pairs_of("b", ("base", "alpha"), ("alpha", "base")) == {("alpha", "base")}
    assert pairs_of("c", ("two", "one")) == {("two", "one")}


def test_simulated_raters_are_not_taken_for_people(annotate: Annotate) -> None:
    imported(annotate, "p", IMPORTED, "--simulated")
    annotate.ok("export", "p", "--judgements", "made.jsonl")
    assert {row["judge"] for row in annotate.rows("made.jsonl")} == {"simulated raters"}


def test_what_is_refused(annotate: Annotate) -> None:
    imported(annotate, "p", [{"id": "x", "prompt": "?", "responses": ["a", "b"], "answers": IMPORTED[0]["answers"]}])
    assert "no answers about responses of two models in p" in annotate.refuses("export", "p", "--judgements", "a.jsonl")
    assert "leave --format out" in annotate.refuses("export", "p", "--judgements", "a.jsonl", "--format", "dpo")
    assert "name a file, such as folder.jsonl" in annotate.refuses("export", "p", "--judgements", "folder")
    assert "no project" in annotate.refuses("export", "q", "--judgements", "a.jsonl")
    assert "then the folder to write to" in annotate.refuses("export", "p")
    assert not (annotate.folder / "a.jsonl").exists()


def test_an_export_of_judgements_is_audited(annotate: Annotate) -> None:
    from sqlalchemy import select

    from annotate.store.database import open_database
    from annotate.store.tables import Audit

    imported(annotate)
    annotate.ok("export", "p", "--judgements", "a.jsonl")
    database = open_database(str(Path(annotate.folder) / "data/annotate.db"))
    with database.read() as session:
        (entry,) = session.scalars(select(Audit).where(Audit.action == "exported"))
        assert entry.detail == {"what": "judgements"}
    database.engine.dispose()
