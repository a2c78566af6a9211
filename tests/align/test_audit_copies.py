"""The audit of what stands in the data twice: copies, leakage, pairs both ways, cycles, pairs without a difference."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.audit.audit import audit, refusal
from align.audit.rows import read_data
from tests.align.conftest import write_rows
from tests.align.test_audit import found, pairs


def test_copies_and_near_copies(tmp_path):
    rows = pairs(50)
    rows.append({**rows[3], "chosen": rows[3]["chosen"].upper() + "  "})
    rows.append({**rows[4], "chosen": rows[4]["chosen"] + " Yes."})
    by = found(tmp_path, rows)["by"]
    assert by["duplicates"]["count"] == 1 and by["near_duplicates"]["count"] == 1
    assert by["duplicates"]["number"] == pytest.approx(1 / 52, abs=1e-6) and by["duplicates"]["verdict"] == "warn"
    assert by["duplicates"]["examples"][0]["where"] == ["train.jsonl, line 51", "train.jsonl, line 4"]
    assert by["near_duplicates"]["examples"][0]["where"] == ["train.jsonl, line 52", "train.jsonl, line 5"]
    assert by["contradictions"]["count"] == 0


def test_pairs_of_one_prompt_are_no_copies(tmp_path):
    rows = pairs(40)
    for row in rows:
        row["prompt"] = "Which of these two is the better one?"
    by = found(tmp_path, rows)["by"]
    assert by["duplicates"]["count"] == 0 and by["near_duplicates"]["count"] == 0


@pytest.mark.parametrize(
    ("leaking", "verdict"), [([], "ok"), (range(1), "warn"), (range(3), "stop"), (range(200), "stop")]
)
def test_leakage_by_how_much_of_what_is_held_out(tmp_path, leaking, verdict):
    rows, held_out = pairs(300), pairs(200, seed=1)
    for number in leaking:
        held_out[number]["prompt"] = "  " + rows[7 + number]["prompt"].upper()
    check = found(tmp_path, rows, held_out)["by"]["leakage"]
    assert check["verdict"] == verdict and check["count"] == len(leaking)
    if leaking:
        assert check["examples"][0]["where"] == ["eval0.jsonl, line 1", "train.jsonl, line 8"]


def test_a_small_set_that_leaks_is_not_hidden_by_a_large_one(tmp_path):
    rows = pairs(100)
    result = found(tmp_path, rows, pairs(900, seed=1), [{"prompt": rows[0]["prompt"] + " please"}])
    check = result["by"]["leakage"]
    assert check["number"] == 1.0 and check["verdict"] == "stop" and check["facts"]["near"] == 1
    sentence = refusal(result, "`allow: [CHECK]`")
    assert "leakage" in sentence and "eval1.jsonl, line 1 and train.jsonl, line 1" in sentence
    assert sentence.endswith("`allow: [leakage]`")
    allowed = found(tmp_path, rows, [{"prompt": rows[0]["prompt"]}], allow=["leakage"])
    assert allowed["by"]["leakage"]["verdict"] == "warn" and allowed["allowed"] == ["leakage"]
    assert refusal(allowed, "") is None


def test_other_numbers_are_other_prompts(tmp_path):
    rows = [{**row, "prompt": f"Work out how much {n} plus {n + 1} is."} for n, row in enumerate(pairs(50))]
    held_out = [{"prompt": f"Work out how much {n} plus {n + 1} is."} for n in range(60, 90)]
    by = found(tmp_path, rows, held_out)["by"]
    assert by["leakage"]["count"] == 0


def test_groups_that_the_data_names_stay_together(tmp_path):
    rows = [{**row, "group": f"doc-{n}"} for n, row in enumerate(pairs(50))]
    held_out = [{**row, "group": f"doc-{n}"} for n, row in enumerate(pairs(100, seed=1), start=49)]
    (tmp_path / "hub").mkdir()
    write_rows(tmp_path / "hub" / "train.jsonl", rows)
    write_rows(tmp_path / "hub" / "test.jsonl", held_out)
    checks = audit(read_data(str(tmp_path / "hub")))["checks"]
    (check,) = [check for check in checks if check["check"] == "leakage"]
    assert check["facts"]["group"] == 1 and check["examples"][0]["where"] == ["test, row 1", "train, row 50"]
    # in other data the same name may be another document's
    assert found(tmp_path, rows, held_out)["by"]["leakage"]["count"] == 0


def test_degenerate_rows(tmp_path):
    rows = pairs(100)
    rows[6]["rejected"] = rows[6]["chosen"].lower()
    by = found(tmp_path, rows)["by"]
    assert by["degenerate"]["count"] == 1 and by["degenerate"]["verdict"] == "warn"
    for row in rows[10:16]:
        row["rejected"] = row["chosen"]
    result = found(tmp_path, rows)
    assert result["by"]["degenerate"]["verdict"] == "stop" and "degenerate" in refusal(result, "")


def test_who_wins_is_what_the_preference_says(tmp_path):
    """A row whose `chosen` is probably the worse one is the mirror image of its opposite, and no contradiction."""
    rows = [{**row, "preference": 0.9, "models": {"chosen": "a", "rejected": "b"}} for row in pairs(60)]
    mirrored = [
        {
            **row,
            "chosen": row["rejected"],
            "rejected": row["chosen"],
            "preference": 0.1,
            "models": {"chosen": "b", "rejected": "a"},
        }
        for row in rows
    ]
    one, other = found(tmp_path, rows)["by"], found(tmp_path, [*rows[:30], *mirrored[30:]])["by"]
    for check in ("length_bias", "models", "empty", "cut_off", "contradictions"):
        assert one[check]["number"] == other[check]["number"] and one[check]["says"] == other[check]["says"]
    assert found(tmp_path, [*rows, *mirrored])["by"]["contradictions"]["count"] == 0


@pytest.mark.parametrize("facts", [{"tags": 7}, {"tags": "abc"}, {"models": "a"}, {"group": 3}, {"preference": "high"}])
def test_columns_of_another_meaning_are_left_alone(facts, tmp_path):
    rows = pairs(60)
    assert found(tmp_path, [{**row, **facts} for row in rows])["by"] == found(tmp_path, rows)["by"]


def test_ties_of_equal_texts_are_not_degenerate(tmp_path):
    rows = [{**row, "preference": 1.0} for row in pairs(40)]
    rows += [{**row, "rejected": row["chosen"], "preference": 0.5} for row in pairs(40, seed=3)]
    assert found(tmp_path, rows)["by"]["degenerate"]["count"] == 0


def test_contradictions(tmp_path):
    rows = pairs(100)
    turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows[:2]]
    other_prompt = {**turned[0], "prompt": "Something else altogether, and nothing like it."}
    check = found(tmp_path, [*rows, *turned[:1], other_prompt])["by"]["contradictions"]
    assert check["count"] == 2 and check["verdict"] == "warn"
    assert check["examples"][0]["where"] == ["train.jsonl, line 101", "train.jsonl, line 1"]
    mass = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows[:20]]
    assert found(tmp_path, [*rows, *mass])["by"]["contradictions"]["verdict"] == "stop"


def test_cycles_by_kendalls_count(tmp_path):
    def rows(orders: str) -> list[dict[str, Any]]:
        return [{"prompt": "Which one?", "chosen": f"{a} {a}", "rejected": f"{b} {b}"} for a, b in orders.split()]

    # of the four triples of a tournament of four with a > b > c > a, and d below all, one is cyclic
    check = found(tmp_path, rows("ab bc ca ad bd cd"))["by"]["cycles"]
    assert check["number"] == pytest.approx(0.25) and check["count"] == 1 and check["verdict"] == "ok"  # four are few
    assert sorted(check["examples"][0]["where"]) == [f"train.jsonl, line {n}" for n in (1, 2, 3)]
    assert found(tmp_path, rows("ab bc ac ad bd cd"))["by"]["cycles"]["number"] == 0
    assert found(tmp_path, rows("ab bc cd da"))["by"]["cycles"]["verdict"] == "skipped"  # no triple is complete


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 7), st.randoms(use_true_random=False))
def test_cycles_against_brute_force(size, chance):
    from itertools import combinations

    from align.audit.copies import compare, cycles
    from align.audit.rows import Part, _rows

    beats = {
        (a, b) if chance.random() < 0.5 else (b, a) for a, b in combinations(range(size), 2) if chance.random() < 0.8
    }
    rows = [{"prompt": "p", "chosen": "x" * (a + 1), "rejected": "x" * (b + 1)} for a, b in beats]
    triples = cycles(compare([Part("train", "", False, _rows(enumerate(rows, start=1), "pairs"))]))
    complete = cyclic = 0
    for some in combinations(range(size), 3):
        inside = [pair for pair in beats if set(pair) <= set(some)]
        complete += len(inside) == 3
        cyclic += len(inside) == 3 and len({winner for winner, _ in inside}) == 3
    assert (triples.complete, triples.cyclic) == (complete, cyclic)
