"""`align winrate` on files of judgements, through the command: the JSON, the words, the refusals, the real data."""

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from preferences.stats.pair import pair_fields
from preferences.stats.significance import holm
from tests.align.conftest import done, refused, write_rows

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
PAIR = [
    *("candidate", "baseline", "n", "ties", "win_rate", "standard_error", "level", "method", "interval"),
    *("bootstrap_interval", "smallest_detectable", "length_controlled_win_rate", "length_controlled_standard_error"),
    *("p_value", "anytime_interval", "more_prompts", "judges", "tags"),
]


def judgements(wins: int, losses: int, ties: int = 0, **more: Any) -> list[dict[str, Any]]:
    values = [1.0] * wins + [0.0] * losses + [0.5] * ties
    return [
        {"prompt": f"q{place}", "candidate": "dpo", "baseline": "base", "preference": value, **more}
        for place, value in enumerate(values)
    ]


def said_of(path: Path, *options: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done("winrate", path, "--json", *options).out)
    return found


def test_the_json_is_a_pairs_fields(tmp_path: Path) -> None:
    rows = judgements(45, 10, 9)
    found = said_of(write_rows(tmp_path / "a.jsonl", rows))
    (pair,) = found["pairs"]
    assert (found["format"], found["judgements"], found["prompts"], found["many_models"]) == (1, 64, 64, None)
    assert list(pair) == PAIR
    assert (pair["candidate"], pair["baseline"], pair["n"], pair["ties"]) == ("dpo", "base", 64, 9)
    assert pair["win_rate"] == 49.5 / 64
    expected = pair_fields([row["preference"] for row in rows])
    assert {key: pair[key] for key in ("interval", "p_value")} == {
        key: expected[key] for key in ("interval", "p_value")
    }


def test_rows_in_any_order_and_turned_round_say_the_same(tmp_path: Path) -> None:
    chance = random.Random(0)
    rows = [
        {**row, "judge": judge, "order": order, "candidate_length": chance.randint(5, 99), "baseline_length": 50}
        for row in judgements(12, 9, 4, tags=["de"])
        for judge in ("gpt", "llama")
        for order in (0, 1)
    ]
    before = said_of(write_rows(tmp_path / "a.jsonl", rows))
    mixed = [dict(row) for row in rows]
    for row in mixed[: len(rows) // 3]:  # the lesser part, so that the pair's direction stays
        row.update(candidate="base", baseline="dpo", preference=1 - row["preference"], order=1 - row["order"])
        row["candidate_length"], row["baseline_length"] = row["baseline_length"], row["candidate_length"]
    chance.shuffle(mixed)
    after = said_of(write_rows(tmp_path / "b.jsonl", mixed))
    assert after["pairs"] == before["pairs"]
    (turned,) = said_of(tmp_path / "b.jsonl", "--baseline", "dpo")["pairs"]
    pair = before["pairs"][0]
    assert (turned["candidate"], turned["baseline"]) == ("base", "dpo")
    assert turned["win_rate"] == pytest.approx(1 - pair["win_rate"])
    assert turned["interval"] == pytest.approx([1 - pair["interval"][1], 1 - pair["interval"][0]])
    assert turned["length_controlled_win_rate"] == pytest.approx(1 - pair["length_controlled_win_rate"])


def test_of_many_tags_those_of_few_prompts_are_only_counted(tmp_path: Path) -> None:
    rows = [{**row, "tags": ["all", f"t{at // 4}"]} for at, row in enumerate(judgements(30, 18))]
    said = done("winrate", write_rows(tmp_path / "many.jsonl", rows)).out
    assert "12 tags have too few prompts to say anything; --json has them" in said
    assert "\nall  " in said and "\nt3" not in said
    few = [{**row, "tags": [f"t{at // 10}"]} for at, row in enumerate(judgements(30, 18))]
    said = done("winrate", write_rows(tmp_path / "few.jsonl", few)).out
    assert "too few prompts to say" not in said and "\nt3" in said


def test_tags_are_corrected_for_their_number(tmp_path: Path) -> None:
    rows = judgements(30, 10, tags=["maths"])
    rows += [{**row, "prompt": f"s{row['prompt']}", "tags": ["safety"]} for row in judgements(8, 20)]
    tags = said_of(write_rows(tmp_path / "a.jsonl", rows))["pairs"][0]["tags"]
    assert {name: tag["n"] for name, tag in tags.items()} == {"maths": 40, "safety": 28}
    assert tags["safety"]["win_rate"] == 8 / 28
    assert [tag["p_adjusted"] for tag in tags.values()] == holm([tag["p_value"] for tag in tags.values()])


def test_several_judges_are_shown_beside_their_mean(tmp_path: Path) -> None:
    gpt = [{**row, "judge": "gpt", "order": order} for row in judgements(30, 10) for order in (0, 1)]
    people = [{**row, "rater": f"w{number}"} for row in judgements(18, 22) for number in range(3)]
    found = said_of(write_rows(tmp_path / "a.jsonl", gpt + people))
    judges = found["pairs"][0]["judges"]
    assert {name: (judge["n"], judge["win_rate"]) for name, judge in judges.items()} == {
        "gpt": (40, 0.75),
        "people": (40, 0.45),
    }
    assert judges["people"]["raters"] == 3 and "raters" not in judges["gpt"]
    # Each of the three people counts like a judge: (30 + 3 · 18) / 4 of 40 prompts.
    assert found["pairs"][0]["win_rate"] == pytest.approx(84 / 160)
    assert "dpo against base by judge" in done("winrate", tmp_path / "a.jsonl").out
    assert said_of(write_rows(tmp_path / "b.jsonl", gpt))["pairs"][0]["judges"] == {}


def test_many_models_get_one_order(tmp_path: Path) -> None:
    rows = judgements(30, 10)
    rows += [{**row, "candidate": "ppo", "baseline": "dpo"} for row in judgements(28, 12)]
    path = write_rows(tmp_path / "a.jsonl", rows)
    found = said_of(path)
    assert list(found["many_models"]) == ["ppo", "dpo", "base"]
    only = said_of(path, "--baseline", "base")
    assert [(pair["candidate"], pair["baseline"]) for pair in only["pairs"]] == [("dpo", "base")]
    assert only["many_models"] == found["many_models"]
    apart = rows + [{**row, "candidate": "x", "baseline": "y"} for row in judgements(3, 1)]
    lone = said_of(write_rows(tmp_path / "b.jsonl", apart))
    assert lone["many_models"] is None and "no chain of comparisons connects" in lone["many_models_missing"]


def test_people_are_raters_and_their_interval_is_about_others(tmp_path: Path) -> None:
    chance = random.Random(1)
    rows = [{**row, "rater": f"w{number}"} for row in judgements(30, 20) for number in chance.sample(range(6), 3)]
    (pair,) = said_of(write_rows(tmp_path / "a.jsonl", rows))["pairs"]
    assert pair["raters"] == 6
    assert pair["method"].startswith("over prompts and raters")
    assert "6 raters" in done("winrate", tmp_path / "a.jsonl").out


def test_words_carry_no_more_than_the_numbers(tmp_path: Path) -> None:
    win = done("winrate", write_rows(tmp_path / "a.jsonl", judgements(45, 10, 9))).out
    assert "64 judgements of 64 prompts" in win
    assert "dpo is preferred to base in 77% of 64 prompts, 95% interval" in win
    loss = done("winrate", write_rows(tmp_path / "b.jsonl", judgements(10, 45, 9))).out
    assert "base is preferred to dpo, which is preferred in 23% of 64 prompts" in loss
    few = done("winrate", write_rows(tmp_path / "c.jsonl", judgements(13, 8))).out
    more = said_of(tmp_path / "c.jsonl")["pairs"][0]["more_prompts"]
    assert "No difference between dpo and base is shown: 62% of 21 prompts" in few
    assert f"With about {more:,} more prompts like these it can probably be told" in few and more > 21
    unsaid = done("winrate", write_rows(tmp_path / "f.jsonl", judgements(19, 0))).out
    assert "Too little is known to say whether dpo or base is better: dpo is preferred in 100% of 19 prompts" in unsaid
    even = done("winrate", write_rows(tmp_path / "d.jsonl", judgements(15, 15))).out
    assert "No difference" in even and "more prompts" not in even
    assert (
        "takes more than 20 times as many prompts"
        in done("winrate", write_rows(tmp_path / "e.jsonl", judgements(101, 100))).out
    )


def test_at_equal_length_is_not_said_where_one_model_is_always_the_longer_one(tmp_path: Path) -> None:
    rows = [
        {**row, "candidate_length": 100 + place, "baseline_length": 50} for place, row in enumerate(judgements(45, 10))
    ]
    found = write_rows(tmp_path / "a.jsonl", rows)
    pair = said_of(found)["pairs"][0]
    assert pair["length_controlled_win_rate"] >= 0 and pair["length_controlled_standard_error"] is None
    assert "At equal length: these prompts can't tell." in done("winrate", found).out


@pytest.mark.parametrize(
    ("rows", "options", "sentence"),
    [
        ([{"prompt": "q", "candidate": "a", "baseline": "b", "preference": 2}], [], "line 1: preference: Input should"),
        ([{"prompt": "q", "candidate": "a", "preference": 1}], [], "line 1: baseline: Field required"),
        (judgements(1, 1), ["--baseline", "pbo"], "nothing is compared with 'pbo'; the models in it are base and dpo"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, rows: list, options: list[str], sentence: str) -> None:
    said = refused("winrate", write_rows(tmp_path / "a.jsonl", rows), *options)
    assert sentence in said and "a.jsonl" in said


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert "cannot read" in refused("winrate", tmp_path / "none.jsonl")


def test_it_loads_neither_torch_nor_pictures(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.jsonl", judgements(30, 10, candidate_length=9, baseline_length=5))
    code = "import sys; from align.cli import main; main(); print(*sys.modules, file=sys.stderr)"
    done_ = subprocess.run([sys.executable, "-c", code, "winrate", path], capture_output=True, text=True, check=True)
    heavy = {"torch", "transformers", "trl", "matplotlib", "datasets", "pandas"}
    assert not heavy & set(done_.stderr.split())


@pytest.mark.skipif(not SHARED.exists(), reason="the real data are not there")
def test_pandalms_people_as_counted_by_hand(tmp_path: Path) -> None:
    rows = json.loads((SHARED / "pandalm-testset-v1" / "testset-v1.json").read_text(encoding="utf-8"))
    made, counted = [], Counter()
    for row in rows:
        if row["cmp_key"] != "llama-7b_opt-7b":
            continue
        values = [{1: 1.0, 2: 0.0, 0: 0.5}[row[f"annotator{number}"]] for number in (1, 2, 3)]
        counted["n"] += 1
        counted["six times the rate"] += int(2 * sum(values))
        counted["ties"] += sum(values) == 1.5
        for number, value in enumerate(values):
            fields = {"candidate": "llama-7b", "baseline": "opt-7b", "preference": value, "rater": f"p{number}"}
            made.append({"prompt": str(row["idx"]), **fields})
    (pair,) = said_of(write_rows(tmp_path / "a.jsonl", made))["pairs"]
    assert (pair["n"], pair["ties"], pair["raters"]) == (counted["n"], counted["ties"], 3)
    assert pair["win_rate"] == pytest.approx(counted["six times the rate"] / 6 / counted["n"])


def test_names_from_outside_do_nothing_to_the_terminal(tmp_path: Path) -> None:
    evil = "\x1b[31mevil\u202e\nbase is preferred to evil in 100% of 1,000 prompts"
    row = {"prompt": "p", "candidate": evil, "baseline": "b", "preference": 1, "judge": evil, "tags": [evil]}
    (tmp_path / "j.jsonl").write_text(json.dumps(row))
    said = done("winrate", tmp_path / "j.jsonl")
    assert "evil" in said.out and not {"\x1b", "\u202e"} & set(said.out)
    assert not any(line.startswith("base is") for line in said.out.splitlines())
