"""Several projects as one preferences folder: ids, guidelines, and splits, also where these contradict each other."""

from collections import defaultdict
from typing import Any

import pytest
from sqlalchemy import select, text

from annotate.services.splits import Place, choose_joint_splits, on_another_side
from annotate.store.database import open_database
from annotate.store.tables import AnswerText, Item, ItemTag, Slot
from preferences.contract import Item as Line
from preferences.contract import check_preferences, read_rows, validate
from tests.annotate.conftest import FOUR, PAIR, Annotate

ANSWERS = [{"rater": "w1", "ranks": [1, 2]}, {"rater": "w2", "ranks": [1, 2], "strength": -2}]


def bring(annotate: Annotate, project: str, prompts: list[str], **rest: Any) -> None:
    rows = [
        {"id": f"q{number}", "prompt": prompt, "responses": ["x", "y"], "answers": ANSWERS, **rest}
        for number, prompt in enumerate(prompts)
    ]
    annotate.write("items.jsonl", *rows)
    annotate.ok("import", project, "items.jsonl")


def create(annotate: Annotate, *names: str, validation: float = 0.2, test: float = 0.3) -> None:
    for name in names:
        annotate.ok("project", "create", name, "--validation", str(validation), "--test", str(test))


def sides(annotate: Annotate, folder: str) -> dict[str, set[str]]:
    """{prompt, made plain: the splits that it stands in}, over all files of a folder."""
    found = defaultdict(set)
    rows = annotate.rows(f"{folder}/rankings.jsonl") + annotate.rows(f"{folder}/ties.jsonl")
    rows += annotate.rows(f"{folder}/sft.jsonl")
    for split in ("train", "validation", "test"):
        rows += [{**row, "split": split} for row in annotate.rows(f"{folder}/{split}.jsonl")]
    for row in rows:
        found[row["prompt"][-1]["content"].lower().strip(" ?!")].add(row["split"])
    return found


def test_rounds_that_share_prompts_are_split_alike(annotate: Annotate) -> None:
    """No split was chosen yet; half of the prompts are in both rounds, some with other punctuation."""
    create(annotate, "round 1", "round 2")
    bring(annotate, "round 1", [f"Question {n}?" for n in range(20)])
    bring(annotate, "round 2", [f"question {n} !" for n in range(10, 30)])
    said = annotate.json("export", "round 1", "round 2", "both")
    assert said["left_out"] == 0 and said["projects"] == ["round 1", "round 2"]
    rankings = annotate.rows("both/rankings.jsonl")
    assert len(rankings) == 40 and len({row["ranking"] for row in rankings}) == 40
    assert rankings[0]["ranking"] == "round 1/q0" and rankings[0]["project"] == "round 1"
    assert {row["ranking"].partition("/")[0] for row in rankings} == {row["project"] for row in rankings}
    for row in annotate.rows("both/train.jsonl"):
        assert row["ranking"] in {ranking["ranking"] for ranking in rankings}
    assert all(len(splits) == 1 for splits in sides(annotate, "both").values())
    counts = {split: sum(row["split"] == split for row in rankings) for split in ("train", "validation", "test")}
    assert counts == {"train": 20, "validation": 8, "test": 12}  # the shares are of all items
    check_preferences(annotate.folder / "both")
    assert len(read_rows(annotate.folder / "both", "rankings.jsonl")) == 40

    # Splits are stored: each round alone, and both in the other order, say the same.
    annotate.ok("export", "round 2", "round 1", "again")
    for file in (annotate.folder / "both").iterdir():
        assert file.read_bytes() == (annotate.folder / "again" / file.name).read_bytes(), file.name
    for name in ("round 1", "round 2"):
        annotate.ok("export", name, name)
        alone = {f"{name}/{row['ranking']}": row["split"] for row in annotate.rows(f"{name}/rankings.jsonl")}
        assert alone == {row["ranking"]: row["split"] for row in rankings if row["project"] == name}


def test_splits_that_contradict_each_other_leave_the_less_held_out_away(annotate: Annotate) -> None:
    create(annotate, "one", test=0.4, validation=0.2)
    create(annotate, "two", test=0.0, validation=0.5)
    prompts = [f"Question {n}?" for n in range(20)]
    bring(annotate, "one", prompts)
    bring(annotate, "two", [*prompts, *(f"Else {n}?" for n in range(4))])
    for name in ("one", "two"):
        annotate.ok("export", name, name)
    stored = {
        (name, row["ranking"]): row["split"]
        for name in ("one", "two")
        for row in annotate.rows(f"{name}/rankings.jsonl")
    }
    order = ["train", "validation", "test"]
    wanted = {
        (name, key): split
        for (name, key), split in stored.items()
        if split == max((stored[other, key] for other in ("one", "two") if (other, key) in stored), key=order.index)
    }
    assert 24 < len(wanted) < 44  # some fit, some do not

    told = annotate.ok("export", "one", "two", "both")
    out = 44 - len(wanted)
    assert f"left out, because the same prompt or group is held out in another project: {out} rankings" in told
    got = {
        (row["project"], row["ranking"].partition("/")[2]): row["split"] for row in annotate.rows("both/rankings.jsonl")
    }
    assert got == wanted
    assert all(len(splits) == 1 for splits in sides(annotate, "both").values())
    manifest = check_preferences(annotate.folder / "both")
    assert manifest["left_out"] == out == sum(part["left_out"] for part in manifest["projects"]) > 0
    assert manifest["items"] == len(wanted) and manifest["answers"] == 2 * len(wanted)
    for name in ("one", "two"):  # and what is stored has not moved
        annotate.ok("export", name, name, "--overwrite")
        assert {key: split for (one, key), split in stored.items() if one == name} == {
            row["ranking"]: row["split"] for row in annotate.rows(f"{name}/rankings.jsonl")
        }


def test_a_prompt_that_comes_later_follows_the_stored_split(annotate: Annotate) -> None:
    create(annotate, "old", test=0.5, validation=0.0)
    bring(annotate, "old", [f"Question {n}?" for n in range(10)])
    annotate.ok("export", "old", "first")
    before = sides(annotate, "first")
    create(annotate, "new", test=0.0, validation=0.0)  # alone it would train on everything
    bring(annotate, "new", [f"Question {n}?" for n in range(10)])
    assert annotate.json("export", "old", "new", "both")["left_out"] == 0
    assert {prompt: before[prompt] for prompt in before} == dict(sides(annotate, "both"))


def test_near_duplicates_of_another_project_stand_on_one_side(annotate: Annotate) -> None:
    topics = ["rivers", "comets", "bridges", "violins", "glaciers", "tulips", "lighthouses", "sparrows", "cheeses"]
    create(annotate, "one", "two", test=0.4)
    bring(annotate, "one", [f"Tell me all that you know about the history of {topic}!" for topic in topics])
    bring(annotate, "two", [f"Tell me all that you know about the history of {topic}, please." for topic in topics])
    assert annotate.json("export", "one", "two", "both")["left_out"] == 0
    rows = {row["ranking"]: row for row in annotate.rows("both/rankings.jsonl")}
    assert len({row["split"] for row in rows.values()}) == 3
    assert all(rows[f"one/q{n}"]["split"] == rows[f"two/q{n}"]["split"] for n in range(len(topics)))

    # Stored before, and otherwise: what is held out most stays, alone or with others.
    with open_database(str(annotate.folder / "data" / "annotate.db")).write() as session:
        session.execute(text("UPDATE groups SET split = CASE project_id WHEN 1 THEN 'train' ELSE 'test' END"))
    assert annotate.json("export", "one", "two", "later")["left_out"] == len(topics)
    assert {row["project"] for row in annotate.rows("later/rankings.jsonl")} == {"two"}


def test_the_manifest_keeps_guidelines_and_projects_apart(annotate: Annotate) -> None:
    (annotate.folder / "g.md").write_text("Be kind.")
    for name in ("a/b", "a"):
        annotate.ok("project", "create", name, "--guidelines", "g.md", *(["--simulated"] if name == "a" else []))
        bring(annotate, name, ["One?", "Two?"])
    with open_database(str(annotate.folder / "data" / "annotate.db")).write() as session:
        session.execute(text("DROP TRIGGER answers_no_update"))
        session.execute(text("UPDATE answers SET guideline = 1 WHERE item_id <= 2 AND member_id = 1"))
        session.execute(text("UPDATE answers SET guideline = 2 WHERE item_id = 3"))
        # An id that would make two rankings of one name, were the projects' names not kept apart.
        session.execute(text("UPDATE items SET key = 'b/q0' WHERE id = 3"))
    annotate.ok("export", "a/b", "a", "out")
    manifest = check_preferences(annotate.folder / "out")
    assert [(one["project"], one["guidelines"]) for one in manifest["projects"]] == [
        ("a/b", [{"version": None, "answers": 2}, {"version": 1, "answers": 2}]),
        ("a", [{"version": None, "answers": 2}, {"version": 2, "answers": 2}]),
    ]
    assert manifest["project"] == "a/b + a" and manifest["simulated"] and manifest["guideline"] is None
    assert "Simulated: 'a'" in manifest["description"]
    assert [row["ranking"] for row in annotate.rows("out/rankings.jsonl")] == ["a%2Fb/q0", "a%2Fb/q1", "a/b/q0", "a/q1"]
    raters = {
        rater for row in annotate.rows("out/rankings.jsonl") for rater in [one["rater"] for one in row["answers"]]
    }
    assert len(raters) == 4 and set(manifest["raters"]) == raters  # one pseudonym a project and rater


def test_mistakes(annotate: Annotate) -> None:
    create(annotate, "p", "empty")
    bring(annotate, "p", ["One?"])
    assert "'p' is named twice" in annotate.refuses("export", "p", "p", "out")
    assert "'empty' has no answers yet" in annotate.refuses("export", "p", "empty", "out")
    assert "no project 'else'" in annotate.refuses("export", "p", "else", "out")
    assert annotate("export", "p").returncode == 2
    assert not (annotate.folder / "out").exists()


def test_datasets_loads_several_projects(annotate: Annotate) -> None:
    datasets = pytest.importorskip("datasets")
    create(annotate, "p", "q")
    bring(annotate, "p", ["One?", "Two?"])
    bring(annotate, "q", ["Three?", "Four?"])
    annotate.ok("export", "p", "q", "out")
    loaded = datasets.load_dataset(str(annotate.folder / "out"), "rankings", cache_dir=str(annotate.folder / "cache"))
    assert loaded["train"]["project"] == ["p", "p", "q", "q"]


# --- which side, without a database -------------------------------------------------------------------------------


def test_joint_splits_follow_chains_of_prompts_and_names() -> None:
    places = [
        Place("x", "doc-1", None),
        Place("y", "doc-1", None),
        Place("y", "doc-2", None),  # another project's group, bound by the prompt y
        Place("z", "doc-2", "test"),
        Place("w", "alone", None),
    ]
    assert choose_joint_splits(places, validation=0.0, test=0.0) == ["test"] * 4 + ["train"]
    assert choose_joint_splits(places[:3], validation=0.0, test=0.5) == ["train"] * 3  # one group: nothing to hold out


def test_a_stored_split_never_changes() -> None:
    places = [Place("x", "a", "train"), Place("x", "b", "test"), Place("x", "c", "validation"), Place("x", "d", None)]
    splits = choose_joint_splits(places, validation=0.1, test=0.1)
    assert splits == ["train", "test", "validation", "test"]
    settled = [place._replace(split=split) for place, split in zip(places, splits, strict=True)]
    assert on_another_side(settled) == [True, False, True, False]
    group = [Place("x", "doc", "train"), Place("y", "doc", "validation"), Place("z", "else", "train")]
    assert on_another_side(group) == [True, False, False]


# --- what an import stores for the service ------------------------------------------------------------------------


def test_an_import_fills_slots_tags_and_texts(annotate: Annotate) -> None:
    annotate.ok("project", "create", "p", "--overlap", "2")
    edited = {"response": 0, "text": "It is four."}
    annotate.write(
        "items.jsonl",
        {**PAIR, "overlap": 3, "priority": 1.5, "tags": ["de", "ä", "de"]},
        {**FOUR, "gold": [1, 2, 3, 4], "overlap": 3},
        {**PAIR, "id": "c", "answers": [{"rater": "w", "ranks": [1, 2], "rationale": "because", "edited": edited}]},
    )
    annotate.ok("import", "p", "items.jsonl")
    assert annotate.json("import", "p", "items.jsonl")["unchanged"] == 3
    with open_database(str(annotate.folder / "data" / "annotate.db")).read() as session:
        assert session.scalars(select(Item.overlap).order_by(Item.id)).all() == [3, 3, 2]
        slots = session.execute(select(Slot.project_id, Slot.item_id, Slot.number, Slot.position, Slot.filled)).all()
        assert slots == [(1, 1, n, -1.5, False) for n in (1, 2, 3)] + [(1, 3, n, 0.0, False) for n in (1, 2)]
        assert session.execute(select(ItemTag.item_id, ItemTag.tag)).all() == [(1, "de"), (1, "ä")]
        assert [(one.rationale, one.edited) for one in session.scalars(select(AnswerText))] == [("because", edited)]
    annotate.write("bad.jsonl", {**PAIR, "id": "d", "overlap": 0})
    assert "bad.jsonl, line 1: overlap" in annotate.refuses("import", "p", "bad.jsonl")
    annotate.write("other.jsonl", {**PAIR, "overlap": 4, "priority": 1.5, "tags": ["de", "ä", "de"]})
    assert "with other content" in annotate.refuses("import", "p", "other.jsonl")


def test_items_without_an_overlap_have_the_hash_that_older_databases_hold() -> None:
    old = "ccffc5eb768074e82c73c45c66210e209cb9add9e2d6b08713e2387cc110aa89"
    assert validate(Line, PAIR, "x").content_hash() == old
    assert validate(Line, {**PAIR, "overlap": 1}, "x").content_hash() != old
