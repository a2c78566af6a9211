"""The audit where people meet it: the command, the page, and in front of training."""

import json
from pathlib import Path
from typing import Any

import pytest

from align.audit.audit import audit, audit_for_training
from align.audit.rows import read_data
from align.report.audit import write_audit
from tests.align.conftest import TRAIN, align, done, refused, write_recipe, write_rows
from tests.align.pages import HOSTILE as EVIL
from tests.align.pages import assert_text_stays_text, on_a_phone
from tests.align.test_audit import found, pairs

HOSTILE = EVIL.replace("\ud800", "")  # half a character: no file that is read has one


def hostile_rows() -> list[dict[str, Any]]:
    """Rows in which everything stops or warns, and every text is an attack."""
    rows = [{**row, "tags": ["common"], "models": {"chosen": HOSTILE, "rejected": "b"}} for row in pairs(3001)]
    for number, row in enumerate(rows[:40]):
        row["prompt"] = row["chosen"] = f"{HOSTILE} {number}"
    rows[1] |= {"rejected": rows[1]["chosen"], "tags": [HOSTILE]}
    rows[2] |= {"chosen": "", "rejected": HOSTILE}
    rows += [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows[:50]]
    return rows


def test_the_page_shows_hostile_text_as_text(tmp_path):
    rows = hostile_rows()[-300:]
    data = read_data(str(write_rows(tmp_path / "x.jsonl", rows)))
    data.name = HOSTILE
    page = write_audit(tmp_path / "out", audit(data)).read_text()
    assert_text_stays_text(page)


def test_page_and_json_say_the_same(tmp_path):
    rows = pairs(60)
    data = read_data(str(write_rows(tmp_path / "x.jsonl", [*rows, *rows[:4]])))
    found = audit(data)
    page = write_audit(tmp_path / "new" / "out", found).read_text()
    assert json.loads((tmp_path / "new" / "out" / "audit.json").read_text()) == found
    assert "One thing to look at." in page and "4 of 64 rows (6.2%) stand there before" in page
    assert "x.jsonl, line 61</code> and <code>x.jsonl, line 1" in page
    again = write_audit(tmp_path / "again", audit(read_data(str(tmp_path / "x.jsonl")))).read_text()
    assert again == page  # the same data, the same bytes


def test_the_command(tmp_path):
    rows = pairs(60)
    train, test = write_rows(tmp_path / "train.jsonl", rows), write_rows(tmp_path / "test.jsonl", rows[:6])
    said = done("audit", train)
    assert "60 train rows of pairs" in said.out and not said.err
    said = align("audit", train, "--eval", test, "--out", tmp_path / "out")
    assert said.code == 2 and said.err.startswith(
        f"error: {train}: the audit stops at leakage: 6 of 6 held-out rows (100%)"
    )
    assert said.err.endswith(
        "test.jsonl, line 1 and train.jsonl, line 1; mend the data, or allow it with --allow leakage\n"
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["audit.html", "audit.json"]
    said = done("audit", train, "--eval", test, "--allow", "leakage", "--json")
    found = json.loads(said.out)
    assert found["format"] == 1 and found["verdict"] == "warn" and found["allowed"] == ["leakage"]
    double = write_rows(tmp_path / "double.jsonl", [*rows, *({**row, "chosen": row["rejected"]} for row in rows)])
    words = ["audit", double, "--eval", test]
    said = align(*words).err
    assert "stops at leakage, degenerate: " in said and said.endswith("allow it with --allow leakage,degenerate\n")
    assert align(*words, "--allow", "leakage,degenerate").code == 0
    assert align(*words, "--allow", "leakage", "--allow", "degenerate").code == 0
    said = align("audit", train, "--allow", "leek")
    assert said.code == 2 and "nearest is 'leakage'" in said.err
    assert align("audit", tmp_path / "nowhere.jsonl").code == 2
    assert f"cannot write to {train}" in refused("audit", train, "--out", train)
    assert f"cannot write to {train / 'in'}" in refused("audit", train, "--out", train / "in")


def test_a_slice_of_a_split_is_what_trains(tmp_path):
    """As `load_dataset` cuts a split in two: what is in both leaks."""
    (tmp_path / "data").mkdir()
    rows = pairs(40)
    write_rows(tmp_path / "data" / "train.jsonl", [*rows, *rows[:4]])
    keys = {"splits": ("train[:40]", "train[40:]"), "allow": ["leakage"]}
    found = audit_for_training(str(tmp_path / "data"), "pairs", **keys)
    assert [(part["part"], part["held_out"]) for part in found["rows"]] == [("train[:40]", False), ("train[40:]", True)]
    assert {check["check"]: check["count"] for check in found["checks"]}["leakage"] == 4


def test_lengths_by_a_models_context(tmp_path, tiny, preferences):
    found = json.loads(done("audit", preferences, "--model", tiny, "--json").out)
    by = {check["check"]: check for check in found["checks"]}
    assert by["lengths"]["verdict"] == "ok" and by["lengths"]["facts"]["limit"] == 128
    assert [(part["part"], part["held_out"]) for part in found["rows"]] == [("train", False), ("test", True)]
    assert by["leakage"]["count"] == 0 and by["leakage"]["verdict"] == "ok"


def test_too_long_rows(tmp_path, tiny):
    from align.models.load import find_model, load_tokenizer

    tokenizer = load_tokenizer(find_model(str(tiny)))
    rows = pairs(60)
    check = found(tmp_path, rows, tokenizer=tokenizer, limit=20)["by"]["lengths"]
    assert check["verdict"] == "stop" and check["number"] == 1.0
    check = found(tmp_path, rows, tokenizer=tokenizer, limit=4000)["by"]["lengths"]
    assert check["verdict"] == "ok" and check["count"] == 0 and check["facts"]["tokens_most"] < 4000


def leaking(folder: Path, **splits: list[dict[str, Any]]) -> Path:
    """A plain folder of splits; one of four rows of `test` trains."""
    folder.mkdir()
    rows = [{**row, "prompt": f"Say {row['prompt'][14:30]}", "chosen": "red", "rejected": "dog"} for row in pairs(20)]
    for number, row in enumerate(rows):
        row |= {"chosen": ["red", "red cat"][number % 2], "rejected": ["blue sun", "dog"][number % 2]}
    for name, some in {"train": rows[:14], "test": [rows[3], *rows[17:]], **splits}.items():
        write_rows(folder / f"{name}.jsonl", some)
    return folder


def test_training_audits_what_it_will_be_judged_by(tmp_path, recipe):
    data = leaking(tmp_path / "data")
    says = f"{data}: the audit stops at leakage: 1 of 4 held-out rows (25%)"
    assert says in refused("reward", recipe(dataset_name=str(data)), "--eval_strategy", "no")
    three = leaking(tmp_path / "three", validation=[{**pairs(1, seed=7)[0], "prompt": "Say soup and tea."}])
    for looks in ("no", "epoch"):
        said = refused("reward", recipe(dataset_name=str(three)), "--eval_strategy", looks)
        assert "the audit stops at leakage" in said and "Of test it is 25%" in said and "test, row 1" in said


def test_the_hint_works_as_typed(tmp_path, recipe):
    data = leaking(tmp_path / "data")
    rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    write_rows(data / "train.jsonl", [*rows, *({**row, "chosen": row["rejected"]} for row in rows[:9])])
    said = refused("reward", recipe(dataset_name=str(data)))
    assert said.endswith("`allow: [leakage,degenerate]` in the recipe, or --allow leakage,degenerate")
    done("reward", recipe(dataset_name=str(data)), "--allow", "leakage,degenerate")
    manifest = json.loads((tmp_path / "home" / "out" / "manifest.json").read_text())
    assert sorted(manifest["audit_allowed"]) == ["degenerate", "leakage"]


def test_the_split_to_look_at_is_there_and_held_out(tmp_path, recipe, ppo_recipe):
    data = leaking(tmp_path / "data")
    for verb in ("reward", "dpo"):
        said = refused(verb, recipe(dataset_name=str(data), eval_strategy="epoch"))
        has = f"{data}: has no split 'validation', only train, test;"
        assert said.endswith(f"{has} name `dataset_test_split: test`, or set `eval_strategy: no`")
        said = refused(verb, recipe(dataset_name=str(data), eval_strategy="epoch", dataset_test_split="train"))
        assert said.endswith("key `dataset_test_split`: 'train' is what trains; name a split that is held out")
    said = refused("ppo", ppo_recipe(dataset_name=str(data), eval_steps=1))
    assert "name `dataset_test_split: test`, or set `eval_steps: null`" in said
    said = refused("ppo", ppo_recipe(dataset_name=str(data), eval_steps=1, dataset_test_split="train"))
    assert "key `dataset_test_split`: 'train' is what trains" in said
    assert "has no split 'tain'" in refused("dpo", recipe(dataset_name=str(data), dataset_train_split="tain"))


@pytest.mark.parametrize("verb", ["reward", pytest.param("dpo", marks=pytest.mark.slow)])
def test_training_refuses_what_stops(verb, tmp_path, tiny):
    rows = [
        {**row, "prompt": f"Say {row['prompt'][14:30]}", "chosen": "red cat", "rejected": "dog"} for row in pairs(20)
    ]
    rows = [*rows, *({**row, "chosen": "dog", "rejected": "red cat"} for row in rows)]
    data = write_rows(tmp_path / "pairs.jsonl", rows)
    keys = {**TRAIN, "model_name_or_path": str(tiny), "dataset_name": str(data), "output_dir": str(tmp_path / "run")}
    recipe = write_recipe(tmp_path / "r.yaml", **{**keys, "max_steps": 1})
    said = refused(verb, recipe)
    assert "the audit stops at contradictions: 40 of 40 rows (100%)" in said and "`allow: [contradictions]`" in said
    assert not (tmp_path / "run").exists()
    said = done(verb, recipe, "--allow", "contradictions").err
    assert f"audit of {data}: look at" in said and "contradictions" in said
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["audit"]["contradictions"] == "warn" and manifest["audit_allowed"] == ["contradictions"]
    assert (tmp_path / "run" / "audit.html").is_file() and (tmp_path / "run" / "audit.json").is_file()


def test_an_unknown_check_is_an_error(tmp_path, tiny, pairs_file):
    keys = {
        **TRAIN,
        "model_name_or_path": str(tiny),
        "dataset_name": str(pairs_file),
        "output_dir": str(tmp_path / "run"),
    }
    said = refused("sft", write_recipe(tmp_path / "r.yaml", **keys, allow=["leak"]))
    assert "key `allow`: there is no check 'leak'; the nearest is 'leakage'" in said


@pytest.mark.browser
def test_in_chromium_nothing_runs_and_nothing_loads(tmp_path, browser):
    data = read_data(str(write_rows(tmp_path / "x.jsonl", hostile_rows())))
    with on_a_phone(browser, write_audit(tmp_path / "out", audit(data))) as (tab, _):
        assert tab.title().startswith("Audit")
