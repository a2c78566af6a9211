"""Import of everything the contract allows, and what comes out of the export."""

import json
import os
import sqlite3
import subprocess
from typing import Any

import pytest

from preferences.contract import check_preferences
from tests.annotate.conftest import COMMAND, FOUR, PAIR, Annotate

RATERS = ("secret-anna", "secret-ben", "secret-cem")
RICH = {
    "id": 17,
    "prompt": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "A joke?"},
    ],
    "responses": [
        {"text": "Knock knock.", "model": "model-a", "id": "r0"},
        {
            "messages": [
                {"role": "assistant", "content": "Which kind?"},
                {"role": "user", "content": "Short."},
                {"role": "assistant", "content": "Me."},
            ]
        },
        "No.",
    ],
    "group": "jokes",
    "tags": ["humour", "en"],
    "gold": [2, 1, 3],
    "priority": 1.5,
    "answers": [
        {
            "rater": RATERS[0],
            "ranks": [2, 1, 3],
            "strength": 2,
            "ratings": {"helpful": [4, 5, 1.5]},
            "flags": ["rude"],
            "spans": [{"response": 0, "start": 6, "end": 12, "text": "knock.", "mark": "bad"}],
            "rationale": "The second is funny.",
            "edited": {"response": 1, "text": "Which kind of joke?"},
            "shown": [2, 0, 1],
            "seconds": 41.5,
            "submitted_at": "2026-11-21T10:00:00Z",
        },
        {"rater": RATERS[1], "ranks": [1, 1, 2], "strength": 0},
        {"rater": RATERS[2], "ranks": [2, 1, 3], "strength": 1},
    ],
}


@pytest.fixture
def rich(annotate: Annotate) -> Annotate:
    """Three items, one without answers, and a pair that raters tie."""
    tied = [{"rater": rater, "ranks": [1, 1], "strength": 0} for rater in RATERS[:2]]
    annotate.ok("project", "create", "p")
    annotate.person("p", "secret-login", "--name", "Secret Name")
    annotate.write("items.jsonl", RICH, {**PAIR, "answers": tied}, FOUR)
    annotate.ok("import", "p", "items.jsonl")
    annotate.ok("export", "p", "out")
    return annotate


def all_pairs(annotate: Annotate, folder: str = "out") -> list[dict[str, Any]]:
    return [row for split in ("train", "validation", "test") for row in annotate.rows(f"{folder}/{split}.jsonl")]


def text(messages: list[dict[str, str]]) -> str:
    return messages[-1]["content"]


def test_pairs_of_a_ranking(rich: Annotate) -> None:
    ranked = [row for row in all_pairs(rich) if row["source"] == "ranked"]
    rows = {(text(row["chosen"]), text(row["rejected"])): row for row in ranked}
    # Ranks [2, 1, 3] twice and [1, 1, 2]: 1 over 0 by two and a tie, 0 over 2 and 1 over 2 by all.
    assert set(rows) == {("Me.", "Knock knock."), ("Knock knock.", "No."), ("Me.", "No.")}
    best, next_best, widest = (
        rows[pair] for pair in (("Me.", "Knock knock."), ("Knock knock.", "No."), ("Me.", "No."))
    )
    assert 0.5 < best["preference"] < next_best["preference"] < widest["preference"] < 1
    assert best["strength"] == (2 + 0 + 1) / 3  # best over second of two answers, the tie of the other
    assert widest["strength"] is None
    assert {row["weight"] for row in rows.values()} == {rich.rows("out/rankings.jsonl")[0]["weight"]}
    assert 0 < best["weight"] < 1 and all(
        number == round(number, 6) for row in rows.values() for number in (row["preference"], row["weight"])
    )
    assert best["models"] == {"chosen": None, "rejected": "model-a"} and rows["Me.", "No."]["models"] is None
    assert (best["ranking"], best["group"], best["tags"]) == ("17", "jokes", ["humour", "en"])
    assert best["prompt"] == RICH["prompt"]


def test_a_rewritten_response_beats_its_original(rich: Annotate) -> None:
    (row,) = (row for row in all_pairs(rich) if row["source"] == "edited")
    assert [message["content"] for message in row["chosen"]] == ["Which kind?", "Short.", "Which kind of joke?"]
    assert [message["content"] for message in row["rejected"]] == ["Which kind?", "Short.", "Me."]
    assert (row["preference"], row["strength"], row["models"], row["ranking"]) == (1.0, None, None, "17")
    person = next(one for one in rich.json("report", "p")["people"] if one["rater"] == RATERS[0])
    trust = check_preferences(rich.folder / "out")["raters"]
    assert (row["raters"], row["weight"]) == ([person["pseudonym"]], trust[person["pseudonym"]])
    assert set(trust) == {one["pseudonym"] for one in rich.json("report", "p")["people"] if one["answers"]}


def test_ties_rankings_and_demonstrations(rich: Annotate) -> None:
    (tie,) = rich.rows("out/ties.jsonl")
    assert (tie["preference"], tie["strength"], tie["ranking"]) == (0.5, 0.0, "pair")
    ranking = next(row for row in rich.rows("out/rankings.jsonl") if row["ranking"] == "17")
    assert ranking["ranks"] == [2, 1, 3] and ranking["models"] == ["model-a", None, None]
    answer = next(answer for answer in ranking["answers"] if answer["flags"])
    assert answer["ratings"] == {"helpful": [4.0, 5.0, 1.5]} and answer["shown"] == [2, 0, 1]
    assert answer["spans"] == RICH["answers"][0]["spans"]
    assert answer["edited"] == {"response": 1, "text": "Which kind of joke?"} and answer["seconds"] == 41.5
    demonstrations = [(row["source"], text(row["completion"])) for row in rich.rows("out/sft.jsonl")]
    assert demonstrations == [("best", "Me."), ("edited", "Which kind of joke?")]
    assert check_preferences(rich.folder / "out")["counts"]["rankings"] == 2


def test_an_export_names_nobody(rich: Annotate) -> None:
    written = "".join(file.read_text() for file in (rich.folder / "out").iterdir())
    for name in (*RATERS, "secret-login", "Secret Name", "The second is funny."):
        assert name not in written
    pseudonyms = {person["rater"]: person["pseudonym"] for person in rich.json("report", "p")["people"]}
    assert pseudonyms[RATERS[0]] in written and len(set(pseudonyms.values())) == 4


def test_exporting_again_gives_the_same_bytes(rich: Annotate) -> None:
    rich.ok("export", "p", "again")
    for file in (rich.folder / "out").iterdir():
        assert file.read_bytes() == (rich.folder / "again" / file.name).read_bytes(), file.name


def test_a_copy_of_a_prompt_joins_its_group_and_splits_never_move(annotate: Annotate) -> None:
    annotate.ok("project", "create", "p", "--test", "0.3", "--validation", "0.3")
    answers = [{"rater": "w", "ranks": [1, 2]}]
    first = [
        {"id": f"a{n}", "prompt": f"Question number {n}?", "responses": ["x", "y"], "answers": answers}
        for n in range(10)
    ]
    annotate.write("one.jsonl", *first)
    annotate.ok("import", "p", "one.jsonl")
    annotate.ok("export", "p", "one")
    before = {row["ranking"]: (row["split"], row["group"]) for row in annotate.rows("one/rankings.jsonl")}
    assert sorted(split for split, _ in before.values()) == ["test"] * 3 + ["train"] * 4 + ["validation"] * 3
    copies = [{**row, "id": f"b{n}", "prompt": f"question  number {n}", "group": "else"} for n, row in enumerate(first)]
    more = [{**row, "id": f"c{n}", "prompt": f"Other {n}?"} for n, row in enumerate(first)]
    annotate.write("two.jsonl", *copies, *more)
    annotate.ok("import", "p", "two.jsonl")
    annotate.ok("export", "p", "two")
    after = {row["ranking"]: (row["split"], row["group"]) for row in annotate.rows("two/rankings.jsonl")}
    assert all(after[key] == place for key, place in before.items())
    assert all(after[f"b{n}"] == before[f"a{n}"] for n in range(10))


def test_groups_that_share_a_prompt_become_one(annotate: Annotate) -> None:
    """Also a prompt that stood alone, also a chain of imports, and also when one of them has a split already."""

    def item(key: str, prompt: str, group: str | None = None) -> dict[str, Any]:
        row = {"id": key, "prompt": prompt, "responses": ["x", "y"], "answers": [{"rater": "w", "ranks": [1, 2]}]}
        return row | ({"group": group} if group else {})

    def bring(*rows: dict[str, Any]) -> int:
        annotate.write("items.jsonl", *rows)
        return annotate.json("import", "p", "items.jsonl")["kept_apart"]

    def places(folder: str) -> dict[str, tuple[str, str]]:
        annotate.ok("export", "p", folder)
        return {row["ranking"]: (row["group"], row["split"]) for row in annotate.rows(f"{folder}/rankings.jsonl")}

    annotate.ok("project", "create", "p", "--test", "0.4", "--validation", "0")
    bring(item("a", "shared", "red"), item("b", "alone"))
    bring(item("c", "Shared!", "blue"), item("d", "fresh", "blue"), item("e", "alone?", "blue"))
    bring(item("f", "later", "blue"), *(item(f"z{n}", f"other {n}") for n in range(8)))
    first = places("one")
    assert {first[key] for key in "abcdef"} == {first["a"]} and first["a"][0] == "red"

    assert bring(item("g", "new", "green"), item("h", "SHARED", "green"), item("i", "newer", "green")) == 0
    second = places("two")
    assert {second[key] for key in "ghi"} == {first["a"]} and {key: second[key] for key in first} == first

    train, test = (next(key for key, place in first.items() if place[1] == side) for side in ("train", "test"))
    prompts = {key: prompt for key, prompt in (*((f"z{n}", f"other {n}") for n in range(8)), ("a", "shared"))}
    assert bring(item("j", prompts[train], "both"), item("k", prompts[test], "both"), item("l", "last", "both")) == 1
    third = places("three")
    assert {key: third[key] for key in second} == second
    assert (third["j"], third["k"], third["l"]) == (first[train], first[test], first[train])
    annotate.write("items.jsonl", item("m", prompts[test], "both"))
    assert "one on another side of the split, and stay: 1" in annotate.ok("import", "p", "items.jsonl")


def test_a_near_duplicate_joins_the_known_prompt_and_never_trains_on_what_is_held_out(annotate: Annotate) -> None:
    annotate.ok("project", "create", "p", "--test", "0.3", "--validation", "0.3")
    topics = ["rivers", "comets", "bridges", "violins", "glaciers", "tulips", "lighthouses", "sparrows", "cheeses"]
    answers = [{"rater": "w", "ranks": [1, 2]}]

    def bring(name: str, wanted: str) -> dict[str, Any]:
        rows = [
            {"id": f"{name}{topic}", "prompt": wanted.format(topic=topic), "responses": ["x", "y"], "answers": answers}
            for topic in topics
        ]
        annotate.write("items.jsonl", *rows)
        return annotate.json("import", "p", "items.jsonl")

    def places(folder: str) -> dict[str, tuple[str, str]]:
        annotate.ok("export", "p", folder)
        return {row["ranking"]: (row["group"], row["split"]) for row in annotate.rows(f"{folder}/rankings.jsonl")}

    assert bring("a", "Tell me all that you know about the history of {topic}!")["near"] == 0
    first = places("one")
    assert {split for _, split in first.values()} == {"train", "validation", "test"}
    said = bring("b", "Tell me all that you know about the history of {topic}, please.")
    assert (said["near"], said["kept_apart"]) == (len(topics), 0)
    second = places("two")
    assert all(second[key] == place for key, place in first.items())
    assert all(second[f"b{topic}"] == first[f"a{topic}"] for topic in topics)


@pytest.mark.parametrize("kind", ["rich", "only ties", "bare"])
def test_datasets_loads_every_config(annotate: Annotate, kind: str) -> None:
    datasets = pytest.importorskip("datasets")
    rows: dict[str, list[dict[str, Any]]] = {
        "rich": [RICH, {**PAIR, "answers": [{"rater": "w", "ranks": [1, 1]}]}],
        "only ties": [{**PAIR, "answers": [{"rater": "w", "ranks": [1, 1]}]}],
        "bare": [{**PAIR, "answers": [{"rater": "w", "ranks": [1, 2]}]}],
    }
    annotate.ok("project", "create", "p", "--no-strength")
    annotate.write("items.jsonl", *rows[kind])
    annotate.ok("import", "p", "items.jsonl")
    annotate.ok("export", "p", "out")
    path, cache = str(annotate.folder / "out"), str(annotate.folder / "cache")
    names = datasets.get_dataset_config_names(path)
    for name in names:
        loaded = datasets.load_dataset(path, name, cache_dir=cache)
        assert sum(split.num_rows for split in loaded.values()) > 0
    assert "rankings" in names
    if kind != "only ties":
        (split, *_) = datasets.load_dataset(path, cache_dir=cache).values()
        assert split[0]["prompt"][-1]["role"] == "user" and split.features["strength"].dtype == "float64"


def test_twenty_thousand_answers_in_seconds(annotate: Annotate) -> None:
    """So that 60 000 take well under a minute: the time is linear in them."""
    annotate.ok("project", "create", "p")
    with open(annotate.folder / "items.jsonl", "w") as stream:
        for number in range(4000):
            answers = [{"rater": f"w{(number + step) % 300}", "ranks": [1, 2]} for step in range(5)]
            item = {"id": number, "prompt": f"p {number}", "responses": ["a", "b"], "answers": answers}
            stream.write(json.dumps(item) + "\n")
    # A process of its own, whose processor time can be told from what else the machine does.
    before = os.times()
    done = subprocess.run([COMMAND, "import", "p", "items.jsonl", "--json"], cwd=annotate.folder, capture_output=True)
    after = os.times()
    assert json.loads(done.stdout)["answers"] == 20000
    assert 0.5 < after.children_user + after.children_system - before.children_user - before.children_system < 13


def test_a_known_item_takes_another_priority_and_nothing_else(annotate: Annotate) -> None:
    """So that `align score` can say anew which of a running project's items come first."""
    rows = [{**PAIR, "id": name, "prompt": f"Prompt {name}", "answers": []} for name in ("a", "b", "c")]
    annotate.ok("project", "create", "p")
    annotate.ok("import", "p", annotate.write("items.jsonl", *rows))
    urgent = [{**rows[0], "priority": 0.5}, {**rows[2], "priority": 2.0}, rows[1]]
    made = annotate.json("import", "p", annotate.write("urgent.jsonl", *urgent))
    assert (made["items"], made["unchanged"], made["priorities"]) == (0, 3, 2)
    again = annotate.json("import", "p", "urgent.jsonl")
    assert (again["unchanged"], again["priorities"]) == (3, 0)
    with sqlite3.connect(annotate.folder / "data" / "annotate.db") as database:
        query = "select key, priority, position from items join slots on slots.item_id = items.id group by key"
        assert database.execute(query).fetchall() == [("a", 0.5, -0.5), ("b", 0.0, 0.0), ("c", 2.0, -2.0)]
    other = annotate.write("other.jsonl", {**rows[0], "priority": 3.0, "tags": ["new"]})
    assert "with other content" in annotate.refuses("import", "p", other)
    assert "; 3 items were there already, unchanged but for the priority of 2" in annotate.ok(
        "import", "p", "items.jsonl"
    )  # and back again


def test_priorities_come_back_from_an_exported_folder(annotate: Annotate) -> None:
    """Whose items have a group and no answers; later from the file that was imported, too."""
    answers = [{"rater": "w", "ranks": [1, 2]}]
    rows = [{**PAIR, "id": name, "prompt": f"Prompt {name}", "answers": answers} for name in ("a", "b")]
    annotate.ok("project", "create", "p")
    annotate.ok("import", "p", annotate.write("items.jsonl", *rows))
    annotate.ok("export", "p", "out")
    lines = [
        {"id": row["ranking"], **{key: row[key] for key in ("prompt", "group", "tags")}}
        | {"responses": [{"messages": one} for one in row["responses"]]}
        for row in map(json.loads, (annotate.folder / "out" / "rankings.jsonl").read_text().splitlines())
    ]
    scored = annotate.write("scored.jsonl", *({**line, "priority": 0.5} for line in lines))
    for changed in (2, 0):
        made = annotate.json("import", "p", scored)
        assert (made["items"], made["unchanged"], made["priorities"]) == (0, 2, changed)
    assert annotate.json("import", "p", "items.jsonl")["priorities"] == 0
    again = annotate.write("again.jsonl", *({**row, "priority": 0.75} for row in rows))
    assert annotate.json("import", "p", again)["priorities"] == 2
    for key, value in (("group", "other"), ("tags", ["new"]), ("answers", [{"rater": "new", "ranks": [1, 2]}])):
        other = annotate.write("other.jsonl", {**lines[0], key: value})
        assert f"(what differs: {key})" in annotate.refuses("import", "p", other)
