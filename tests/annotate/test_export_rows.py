"""What decisions, rewritten responses, marks and flags become in an export; and the look at it before."""

import json
import sqlite3
import zipfile
from collections import Counter
from io import BytesIO
from itertools import combinations, count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotate.services.decisions import decide, look
from annotate.services.exchange import import_items
from annotate.services.export import export_preferences, settle_splits
from annotate.services.masks import BLOCK, restore_names
from annotate.services.people import add_person
from annotate.services.projects import ProjectSettings, create_project
from annotate.store.database import Database, open_database
from annotate.store.tables import Item as ItemRow
from annotate.store.tables import Member, Person
from preferences.contract import Item, PreferencesFolder, check_preferences, read_rows, write_preferences
from tests.annotate.house import House, item

NUMBERS = count()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return open_database(str(tmp_path_factory.mktemp("rows") / "a.db"), create=True)


def exported(
    database: Database, rows: list[dict[str, Any]], decided: dict[str, Any] | None = None, **more: Any
) -> PreferencesFolder:
    """The rows of a project of these items; `decided` is {key: (ranks in import order, strength)} by its owner."""
    with database.write() as session:
        name = f"p{next(NUMBERS)}"
        project = create_project(session, name, guidelines=None, settings=ProjectSettings(**more))
        known = session.query(Person).filter_by(login="olga").count()
        password = None if known else "long enough"
        owner = add_person(session, project, "olga", role="owner", name=None, password=password)
        import_items(session, project, [Item.model_validate(row) for row in rows], "items")
        for key, (ranks, strength) in (decided or {}).items():
            number = session.query(ItemRow.id).filter_by(project_id=project.id, key=key).scalar()
            shown = look(session, owner, number).shown
            turned = -strength if strength is not None and shown == [1, 0] else strength
            decide(session, owner, number, [ranks[place] for place in shown], turned, None)
        settle_splits(session, project)
    with database.read() as session:
        folder = export_preferences(session, session.merge(project))
        names = {member.pseudonym: member.rater for member in session.query(Member).filter_by(project_id=project.id)}
    return named(folder, names)


def named(folder: PreferencesFolder, names: dict[str, str]) -> PreferencesFolder:
    """With the raters' own names in place of pseudonyms, so that tests can speak of them."""
    for row in [*(pair for rows in folder.pairs.values() for pair in rows), *folder.ties]:
        row.raters = [names[rater] for rater in row.raters]
    for ranking in folder.rankings:
        for answer in ranking.answers:
            answer.rater = names[answer.rater]
    folder.manifest["raters"] = {names[rater]: trust for rater, trust in folder.manifest["raters"].items()}
    return folder


def pairs(folder: PreferencesFolder, source: str = "ranked") -> list[Any]:
    return [row for rows in folder.pairs.values() for row in rows if row.source == source]


def texts(row: Any) -> tuple[str, str]:
    return row.chosen[-1].content, row.rejected[-1].content


def rewrite(rater: str, ranks: list[int], response: int, text: str, **more: Any) -> dict[str, Any]:
    return {"rater": rater, "ranks": ranks, "edited": {"response": response, "text": text}, **more}


def test_a_decision_is_the_consensus(database: Database) -> None:
    rows = [
        {**item("q", [1, 2, 3], [1, 2, 3], [2, 3, 1], responses=3)},
        item("other", [1, 2], [1, 2], [2, 1]),
    ]
    free = exported(database, rows)
    folder = exported(database, rows, {"q": ([4, 4, 1], 3)})
    ranking = next(one for one in folder.rankings if one.ranking == "q")
    assert ranking.ranks == [2, 2, 1] and ranking.decided and ranking.weight == 1.0
    said = {answer.rater: answer.ranks for answer in ranking.answers}
    assert said == {"w0": [1, 2, 3], "w1": [1, 2, 3], "w2": [2, 3, 1]}
    got = {texts(row): (row.preference, row.strength, row.weight) for row in pairs(folder) if row.ranking == "q"}
    assert got == {
        ("q response 2", "q response 0"): (1.0, 3.0, 1.0),
        ("q response 2", "q response 1"): (1.0, 3.0, 1.0),
    }
    (tie,) = folder.ties
    assert (tie.preference, tie.ranking, tie.source) == (0.5, "q", "ranked")
    assert [row.completion[-1].content for row in folder.demonstrations if row.ranking == "q"] == ["q response 2"]
    assert folder.manifest["decided"] == folder.manifest["projects"][0]["decided"] == 1
    other = next(one for one in folder.rankings if one.ranking == "other")
    before = next(one for one in free.rankings if one.ranking == "other")
    assert (other.decided, other.ranks) == (False, [1, 2])
    # Who said otherwise than what was decided is trusted less, and so is what they say elsewhere.
    assert other.weight < before.weight and folder.manifest["raters"]["w0"] < free.manifest["raters"]["w0"]
    assert folder.manifest["raters"]["w2"] > free.manifest["raters"]["w2"]


def test_rewritten_responses_become_pairs_and_demonstrations(database: Database) -> None:
    row = item("q", responses=3)
    row["responses"][1] = {"text": "original", "model": "model-b"}
    row["answers"] = [
        rewrite("w0", [2, 1, 3], 1, "better"),
        rewrite("w1", [2, 1, 3], 1, "better"),  # the same
        rewrite("w2", [2, 1, 3], 1, "original\r\n"),  # as it was, but for what a text field does
        rewrite("w3", [2, 1, 3], 0, "original"),  # another response
        rewrite("w4", [2, 1, 3], 2, "better"),  # over another original
        rewrite("w5", [3, 1, 2], 1, "best"),
    ]
    folder = exported(database, [row])
    got = {(texts(one), tuple(one.raters)) for one in pairs(folder, "edited")}
    first = {one[1] for one in got if one[0] == ("better", "original")}
    assert len(got) == 3 and first <= {("w0",), ("w1",)} and len(first) == 1
    assert {one for one in got if one[0] != ("better", "original")} == {
        (("better", "q response 2"), ("w4",)),
        (("best", "original"), ("w5",)),
    }
    for one in pairs(folder, "edited"):
        assert (one.preference, one.strength) == (1.0, None)
        assert one.weight == folder.manifest["raters"][one.raters[0]]
        by = (one.models.chosen, one.models.rejected) if one.models else None
        assert by == ((None, "model-b") if one.rejected[-1].content == "original" else None)
    told = [(one.source, one.completion[-1].content) for one in folder.demonstrations]
    assert sorted(told) == [("best", "original"), ("edited", "best"), ("edited", "better")]


def test_hidden_names_come_back_into_what_was_rewritten() -> None:
    original, names = "As GPT-4 I, gpt-4, like Claude.", ["GPT-4", "claude"]
    assert restore_names(f"As {BLOCK} I, {BLOCK}, love {BLOCK}.", original, names) == "As GPT-4 I, gpt-4, love Claude."
    assert restore_names("Nothing hidden.", original, names) == "Nothing hidden."
    assert restore_names(f"I, {BLOCK}, like it.", original, names) is None, "which of them?"
    assert restore_names(f"{BLOCK} and {BLOCK}", "I am Claude.", names) == "Claude and Claude"
    assert restore_names(f"A bar {BLOCK}", f"A bar: {BLOCK}", names) == f"A bar {BLOCK}"
    assert restore_names(f"As {BLOCK} I", original, []) is None, "the owner has taken the names off the list since"


def test_no_export_teaches_to_write_blocks(database: Database) -> None:
    row = item("q")
    row["responses"][0] = "As GPT-4 or Claude I say yes"
    row["answers"] = [
        rewrite("w0", [1, 2], 0, f"As {BLOCK} or {BLOCK} I say: yes"),
        rewrite("w1", [1, 2], 0, f"As {BLOCK} I say no"),
    ]
    folder = exported(database, [row], mask=["GPT-4", "Claude"])
    assert [texts(one)[0] for one in pairs(folder, "edited")] == ["As GPT-4 or Claude I say: yes"]
    assert [one.completion[-1].content for one in folder.demonstrations if one.source == "edited"] == [
        "As GPT-4 or Claude I say: yes"
    ]


def test_where_all_are_bad_the_best_is_nothing_to_imitate(database: Database) -> None:
    def answers(*bad: bool) -> list[dict[str, Any]]:
        return [{"rater": f"w{n}", "ranks": [1, 2], "flags": ["all-bad"] * one} for n, one in enumerate(bad)]

    rows = [
        {**item(key), "answers": answers(*bad)} for key, bad in (("half", (True, False)), ("few", (True, False, False)))
    ]
    folder = exported(database, rows)
    assert [one.ranking for one in folder.demonstrations] == ["few"]
    assert len(pairs(folder)) == 2, "how the responses compare is known all the same"
    flags = {one.ranking: [flag for answer in one.answers for flag in answer.flags] for one in folder.rankings}
    assert flags == {"half": ["all-bad"], "few": ["all-bad"]}


def test_what_raters_differ_on_is_held_back_until_somebody_decides(tmp_path: Path) -> None:
    rows = [
        item("alike", [1, 2], [1, 2], [1, 2]),
        item("mostly", [1, 2], [1, 2], [2, 1]),  # two of three pairs of answers differ
        item("split", [1, 2], [2, 1]),
        item("once", [1, 2]),
    ]
    house = House(tmp_path, *rows, validation=0.0, test=0.0)

    def exported() -> tuple[set[str], dict[str, Any]]:
        body = {"projects": [house.project]}
        answer = house.client.post("/api/v1/exports", json=body, headers=house.headers["olga"])
        with zipfile.ZipFile(BytesIO(answer.content)) as archive:
            rankings = [json.loads(line) for line in archive.open("rankings.jsonl")]
            card, manifest = archive.read("README.md").decode(), json.loads(archive.read("manifest.json"))
        assert ("held back" in card) == (manifest["held_back"] > 0) == (manifest["projects"][0]["held_back"] > 0)
        return {row["ranking"] for row in rankings}, manifest

    def hold(back: float | None) -> None:
        version = house.ask("olga", "GET", "")["version"]
        said = house.client.patch(
            house.address, json={"hold_back": back}, headers={**house.headers["olga"], "If-Match": f'"{version}"'}
        )
        assert said.json()["hold_back"] == back

    assert len(exported()[0]) == 4
    hold(0.5)
    names, manifest = exported()
    assert names == {"alike", "once"} and (manifest["held_back"], manifest["items"], manifest["left_out"]) == (2, 2, 0)
    look = house.ask("olga", "GET", "/exports/preview")
    assert look["held_back"] == 2 and look["counts"]["rankings"] == 2
    assert "Items that are held back until somebody decides about them: 2" in look["warnings"]
    listed = house.ask("rita", "GET", "/contested")["items"]
    assert [(row["key"], row["held_back"]) for row in listed] == [("split", True), ("mostly", True), ("alike", False)]
    house.ask("rita", "PUT", f"/items/{listed[0]['item']}/decision", {"ranks": [1, 2]})
    assert exported()[0] == {"alike", "once", "split"}
    hold(0.7)
    assert exported()[0] == {"alike", "once", "split", "mostly"}
    hold(0.0)
    assert exported()[1]["held_back"] == 1
    hold(None)
    assert exported()[1]["held_back"] == 0


def test_holding_back_does_not_make_agreement_better(database: Database) -> None:
    rows = [item("alike", [1, 2], [1, 2]), item("split", [1, 2], [2, 1])]
    manifest = exported(database, rows, hold_back=0.5).manifest
    assert (manifest["items"], manifest["held_back"]) == (1, 1)
    assert (manifest["agreement"]["raw"], manifest["agreement"]["units"]) == (0.5, 2)


def test_gold_items_are_never_held_back(database: Database) -> None:
    """Nobody can decide about them, and what is right about them is known."""
    folder = exported(
        database, [item("gold", [1, 2], [2, 1], gold=[1, 2]), item("split", [1, 2], [2, 1])], hold_back=0.0
    )
    assert [row.ranking for row in folder.rankings] == ["gold"] and folder.manifest["held_back"] == 1


def test_all_may_be_held_back(tmp_path: Path) -> None:
    house = House(tmp_path, item("split", [1, 2], [2, 1]), hold_back=0.0)
    look = house.ask("olga", "GET", "/exports/preview")
    assert (look["held_back"], look["counts"]["rankings"]) == (1, 0)
    answer = house.client.post("/api/v1/exports", json={"projects": [house.project]}, headers=house.headers["olga"])
    assert answer.status_code == 200


# --- any answers ----------------------------------------------------------------------------------------------------


@st.composite
def items(draw: st.DrawFn) -> list[tuple[dict[str, Any], list[int] | None]]:
    """Items with any answers, and for some what was decided."""
    made = []
    for number in range(draw(st.integers(1, 4))):
        k = draw(st.integers(2, 4))
        contents = [draw(st.sampled_from(["a", "b", "c", "d"])) for _ in range(k)]
        ranks = st.lists(st.integers(1, k), min_size=k, max_size=k).map(
            lambda given: [one - min(given) + 1 for one in given]
        )
        answers = []
        for rater in draw(st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True)):
            answer: dict[str, Any] = {"rater": f"w{rater}", "ranks": draw(ranks)}
            if draw(st.booleans()):
                answer["flags"] = draw(st.lists(st.sampled_from(["unsafe", "all-bad"]), unique=True, max_size=2))
            if draw(st.booleans()):
                text = draw(st.sampled_from(["a", "b", "x", "y", "x "]))
                answer["edited"] = {"response": draw(st.integers(0, k - 1)), "text": text}
            if draw(st.booleans()):
                answer["spans"] = [{"response": 0, "start": 0, "end": 1, "text": "a", "mark": "bad"}]
            if draw(st.booleans()):
                answer["shown"] = draw(st.permutations(range(k)))
            answers.append(answer)
        row = {"id": f"q{number}", "prompt": f"Prompt {number}", "responses": contents, "answers": answers}
        made.append((row, draw(st.none() | ranks)))
    return made


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items())
def test_every_answer_survives_edits_count_once_and_decisions_win(
    database: Database, drawn: list[tuple[dict[str, Any], list[int] | None]]
) -> None:
    decided = {row["id"]: (ranks, None) for row, ranks in drawn if ranks}
    folder = exported(database, [row for row, _ in drawn], decided)
    found = {ranking.ranking: ranking for ranking in folder.rankings}
    assert found.keys() == {row["id"] for row, _ in drawn}
    everything = [*(pair for rows in folder.pairs.values() for pair in rows), *folder.ties]
    for row, ranks in drawn:
        ranking = found[row["id"]]
        said = {answer.rater: answer.model_dump() for answer in ranking.answers}
        assert said.keys() == {answer["rater"] for answer in row["answers"]}
        for answer in row["answers"]:
            for name in ("ranks", "edited", "shown"):
                assert said[answer["rater"]][name] == answer.get(name)
            for name in ("flags", "spans"):
                assert said[answer["rater"]][name] == answer.get(name, [])

        mine = [one for one in everything if one.ranking == row["id"]]
        k = len(row["responses"])
        assert sum(one.source == "ranked" for one in mine) == k * (k - 1) // 2
        edited = Counter(texts(one) for one in mine if one.source == "edited")
        wanted = {
            (edit["text"], row["responses"][edit["response"]])
            for answer in row["answers"]
            if (edit := answer.get("edited"))
            and edit["text"] not in row["responses"]
            and edit["text"].strip() != row["responses"][edit["response"]].strip()
        }
        assert set(edited) == wanted and set(edited.values()) <= {1}

        assert ranking.decided == (ranks is not None)
        if ranks is not None:
            for i, j in combinations(range(k), 2):
                assert (ranking.ranks[i] > ranking.ranks[j]) == (ranks[i] > ranks[j])
                assert (ranking.ranks[i] == ranking.ranks[j]) == (ranks[i] == ranks[j])
            assert {one.preference for one in mine} <= {0.5, 1.0}
    assert folder.manifest["decided"] == len(decided)


def test_a_folder_says_and_keeps_all_of_it(database: Database, tmp_path: Path) -> None:
    spans = [{"response": 1, "start": 2, "end": 10, "text": "response", "mark": "good"}]
    row = item("q")
    row["answers"] = [rewrite("w0", [1, 2], 0, "better", spans=spans), {"rater": "w1", "ranks": [2, 1]}]
    folder = exported(database, [row, item("tied", [1, 1])], {"q": ([2, 1], -1 * -2)}, test=0.0, validation=0.0)
    manifest = write_preferences(tmp_path / "out", folder)
    assert check_preferences(tmp_path / "out") == manifest and manifest["counts"] == folder.counts()
    assert read_rows(tmp_path / "out", "rankings.jsonl") == folder.rankings
    assert read_rows(tmp_path / "out", "train.jsonl") == folder.pairs["train"]

    datasets = pytest.importorskip("datasets")
    cache = str(tmp_path / "cache")
    loaded = datasets.load_dataset(str(tmp_path / "out"), cache_dir=cache)["train"]
    assert sorted(loaded["source"]) == ["edited", "ranked"]
    rankings = datasets.load_dataset(str(tmp_path / "out"), "rankings", cache_dir=cache)["train"]
    assert list(rankings["decided"]) == [True, False]
    assert [dict(one) for answer in rankings[0]["answers"] for one in answer["spans"]] == spans
    assert datasets.load_dataset(str(tmp_path / "out"), "ties", cache_dir=cache)["train"]["source"] == ["ranked"]


def test_folders_from_before_can_be_read(database: Database, tmp_path: Path) -> None:
    """Those have neither sources, nor decisions, nor spans."""
    write_preferences(tmp_path / "out", exported(database, [item("q", [1, 2]), item("tied", [1, 1])]))
    for name, keys in (("train", ["source"]), ("ties", ["source"]), ("rankings", ["decided"])):
        file = tmp_path / "out" / f"{name}.jsonl"
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            for key in keys:
                del row[key]
            for answer in row.get("answers", []):
                del answer["spans"]
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert all(
        row.source == "ranked" for name in ("train", "ties") for row in read_rows(tmp_path / "out", f"{name}.jsonl")
    )
    rankings = read_rows(tmp_path / "out", "rankings.jsonl")
    assert not any(row.decided for row in rankings) and rankings[0].answers[0].spans == []


def test_training_reads_rewritten_pairs_and_evaluation_leaves_them_out(database: Database, tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    held_out = pytest.importorskip("align.evaluate.held_out")
    from align.data.load import load_pairs
    from preferences.errors import BadInput

    row = {**item("q"), "answers": [rewrite("w0", [1, 2], 1, "better")]}
    tied = {**item("q"), "answers": [rewrite("w0", [1, 1], 1, "better")]}
    for name, rows in (("both", [row]), ("edits", [tied])):
        write_preferences(tmp_path / name, exported(database, rows, test=0.0, validation=0.0))
    both = load_pairs(str(tmp_path / "both"), "train")
    said = dict(zip(both["source"], both["preference"], strict=True))
    assert said.keys() == {"edited", "ranked"} and said["edited"] == 1.0 > said["ranked"] > 0.5
    assert held_out._ranked(both, "both")["source"] == ["ranked"]
    with pytest.raises(BadInput, match="rewritten"):
        held_out._ranked(load_pairs(str(tmp_path / "edits"), "train"), "edits")


# --- the look before ------------------------------------------------------------------------------------------------


def test_a_look_at_an_export_says_what_the_export_says_and_settles_nothing(tmp_path: Path) -> None:
    rows = [item(f"q{n}", [1, 2], [1, 2], [1, 2]) for n in range(8)]
    rows += [
        item("split", [1, 2], [2, 1]),
        item("mostly", [1, 2], [1, 2], [1, 2], [2, 1]),
        item("wait"),
        item("gold", gold=[1, 2]),
    ]
    rows[0]["answers"][0]["edited"] = {"response": 0, "text": "better"}
    house = House(tmp_path, *rows, validation=0.2, test=0.2)

    def stored() -> str:
        with sqlite3.connect(tmp_path / "house.db") as connection:
            return "\n".join(connection.iterdump())

    before = stored()
    look = house.ask("olga", "GET", "/exports/preview")
    assert house.ask("olga", "GET", "/exports/preview") == look and stored() == before
    house.ask("rita", "GET", "/exports/preview", status=403)
    assert look["warnings"] == [
        "Items that wait for their first answer: 1",
        "Items with fewer answers than they ask for: 10",
        "Items that raters are divided on, and nobody has decided: 1",
        "Groups of items whose split this export would choose for good: 10",
    ]
    body = {"projects": [house.project]}
    answer = house.client.post("/api/v1/exports", json=body, headers=house.headers["olga"])
    with zipfile.ZipFile(BytesIO(answer.content)) as archive:
        manifest = json.loads(archive.read("manifest.json"))
        pairs = [json.loads(line) for name in ("train", "validation", "test") for line in archive.open(f"{name}.jsonl")]
    assert look["counts"] == {**manifest["counts"], "pairs": len(pairs), "edited": 1}
    assert look["rows"] == pairs[:3] and look["left_out"] == 0
    after = house.ask("olga", "GET", "/exports/preview")
    assert after["counts"] == look["counts"] and after["warnings"] == look["warnings"][:-1]


def test_a_look_says_whose_answers_weigh_hardly_anything(tmp_path: Path) -> None:
    # Two are of one mind on all of forty items; what the third one says has nothing to do with it.
    both = [[1, 2] if number % 3 else [2, 1] for number in range(40)]
    rows = [item(f"q{n}", ranks, ranks, [1, 2] if n % 2 else [2, 1]) for n, ranks in enumerate(both)]
    look = House(tmp_path, *rows).ask("olga", "GET", "/exports/preview")
    assert "by chance, and weigh little: 1" in "".join(look["warnings"])


def test_a_look_at_nothing(tmp_path: Path) -> None:
    look = House(tmp_path, item("wait")).ask("olga", "GET", "/exports/preview")
    assert look["counts"] == {"pairs": 0, "edited": 0} and look["rows"] == []
    assert look["warnings"][0] == "There are no answers yet, so there is nothing to export."


def test_a_look_at_items_before_they_are_imported(tmp_path: Path) -> None:
    house = House(tmp_path)

    def look(*rows: Any, mask: list[str] | None = None, who: str = "olga", status: int = 200) -> dict[str, Any]:
        lines = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
        answer = house.client.post(
            "/api/v1/projects/preview", json={"lines": lines, "mask": mask or []}, headers=house.headers[who]
        )
        assert answer.status_code == status, answer.text
        return answer.json()

    rows = [item(f"q{n}") for n in range(9)]
    rows[0] |= {"responses": ["I am **Hal**.", "<b>no</b>"], "gold": [1, 2], "explanation": "*So*.", "tags": ["x"]}
    seen = look(*rows, mask=["hal"])
    assert (seen["count"], seen["problem"]) == (9, None)
    assert [one["key"] for one in seen["items"]] == ["q0", "q1", "q2", "q3", "q4"]
    first = seen["items"][0]
    assert "Hal" not in first["responses"][0][0]["html"] and "&lt;b&gt;" in first["responses"][1][0]["html"]
    assert first["gold"] == [1, 2] and "<em>So</em>" in first["explanation_html"] and first["tags"] == ["x"]
    wrong = look(rows[0], {"id": "bad", "prompt": "?", "responses": ["one"]})
    assert (wrong["count"], wrong["items"]) == (0, []) and wrong["problem"].startswith(
        "items, line 2: responses: 1 given"
    )
    assert "line 1" in look("{nonsense")["problem"] and "no items" in look()["problem"]
    assert look(rows[0], who="rita", status=403)["rule"] == "forbidden"
    long = item("long", responses=2)
    long["responses"][0] = "x" * 3_000_000
    assert look(long)["count"] == 1
    with sqlite3.connect(tmp_path / "house.db") as connection:
        assert connection.execute("SELECT count(*) FROM items").fetchone() == (0,)
