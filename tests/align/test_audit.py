"""The audit: each check on data made for it, its verdict and places; what is fine is left alone."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from align.audit.audit import audit, check_names, refusal, summary
from align.audit.rows import read_data
from align.audit.shares import language, sure_language
from align.audit.verdicts import LIMITS
from preferences.errors import BadInput
from tests.align.conftest import write_rows

SHARED = Path(__file__).parents[3] / "shared" / "data"
WORDS = [
    "river", "comet", "stone", "window", "garden", "engine", "paper", "winter", "music", "bridge", "letter", "market",
    "silver", "forest", "kitchen", "island", "doctor", "summer", "coffee", "planet", "bottle", "castle", "dragon",
    "flower", "guitar", "hammer", "jacket", "lemon", "mirror", "needle", "orange", "pencil",
]  # fmt: skip


def sentence(chance: random.Random, words: int = 12) -> str:
    return " ".join(chance.choices(WORDS, k=words)).capitalize() + "."


def pairs(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Pairs in which there is nothing to find: the longer response wins half of the time."""
    chance = random.Random(seed)
    rows = []
    for number in range(count):
        ends = [sentence(chance, 14), sentence(chance, 18)]
        rows.append(
            {
                "prompt": f"Tell me about {sentence(chance, 8)}",
                "chosen": ends[number % 2],
                "rejected": ends[1 - number % 2],
            }
        )
    return rows


def found(tmp_path: Path, rows: list[dict[str, Any]], *held_out: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """The audit of these rows, its checks by name."""
    data = read_data(str(write_rows(tmp_path / "train.jsonl", rows)))
    others = [read_data(str(write_rows(tmp_path / f"eval{n}.jsonl", some))) for n, some in enumerate(held_out)]
    result = audit(data, others, **more)
    json.dumps(result, allow_nan=False)
    return {**result, "by": {check["check"]: check for check in result["checks"]}}


def test_nothing_is_found_where_nothing_is(tmp_path):
    result = found(tmp_path, pairs(300), pairs(50, seed=1))
    assert {
        check["check"]: check["verdict"] for check in result["checks"] if check["verdict"] in ("warn", "stop")
    } == {}
    assert result["verdict"] == "ok" and refusal(result, "") is None
    assert set(result["by"]) == set(LIMITS)
    assert result["rows"] == [
        {"part": "train", "held_out": False, "rows": 300, "ties": 0},
        {"part": str(tmp_path / "eval0.jsonl"), "held_out": True, "rows": 50, "ties": 0},
    ]


# --- texts ------------------------------------------------------------------------------------------------------


def test_empty_responses(tmp_path):
    rows = pairs(200)
    rows[4]["chosen"], rows[5]["rejected"] = " \n", ""
    check = found(tmp_path, rows)["by"]["empty"]
    assert check["count"] == 1 and check["facts"]["rejected"] == 1 and check["verdict"] == "warn"
    rows[9]["chosen"] = rows[11]["chosen"] = ""
    assert found(tmp_path, rows)["by"]["empty"]["verdict"] == "stop"


def test_hh_strings_lose_their_common_dialogue(tmp_path):
    rows = [
        {
            "chosen": f"\n\nHuman: {row['prompt']}\n\nAssistant: {row['chosen']}",
            "rejected": f"\n\nHuman: {row['prompt']}\n\nAssistant: {row['rejected']}",
        }
        for row in pairs(60)
    ]
    (part,) = read_data(str(write_rows(tmp_path / "hh.jsonl", rows))).parts
    assert part.rows[0].prompt.startswith("Human: Tell me about") and part.rows[0].prompt.endswith("Assistant:")
    assert part.rows[0].chosen.strip() == pairs(60)[0]["chosen"]
    assert found(tmp_path, rows, pairs(3, seed=9))["by"]["leakage"]["count"] == 0


def test_languages_of_question_and_answer(tmp_path):
    german = "Ein Komet ist ein kleiner Himmelskörper, der in der Nähe der Sonne eine Koma und einen Schweif bildet."
    rows = [
        {**row, "prompt": "Was ist ein Komet, und woraus besteht er eigentlich? " + "Bitte erkläre es."}
        for row in pairs(60)
    ]
    answers = [
        {**row, "chosen": german if n % 2 else "A comet is a small icy body that shines when it passes the Sun."}
        for n, row in enumerate(rows)
    ]
    check = found(tmp_path, answers)["by"]["languages"]
    assert check["verdict"] == "warn" and check["count"] == 30
    assert check["examples"][0]["note"] == "asked in de, answered in en"
    assert set(check["facts"]["languages"]) == {"de", "en"}


def test_few_rows_and_lists_say_nothing_about_a_language(tmp_path):
    german = "Ein Komet ist ein kleiner Himmelskörper, der in der Nähe der Sonne eine Koma und einen Schweif bildet."
    asked = "Which countries of Europe have a name that begins with the letter S, please?"
    said = "There are quite a few of these, and I will be glad to tell you all of them."
    rows = [{**row, "prompt": asked, "chosen": german if n < 4 else said} for n, row in enumerate(pairs(42))]
    check = found(tmp_path, rows)["by"]["languages"]
    assert check["verdict"] == "ok" and check["count"] == 4
    rows[4]["chosen"] = german
    assert found(tmp_path, rows)["by"]["languages"]["verdict"] == "warn"
    assert language("Spain, Sweden, Switzerland, Portugal, Norway, Italy, France") is None
    assert language("1. Spain\n2. Sweden\n3. Switzerland\n4. Denmark\n5. Portugal\n6. Norway") is None
    assert language(said) == "en" and language(german) == "de"


def test_a_language_that_is_not_sure() -> None:
    """Titles in English that py3langid takes for Welsh, with a probability of 0.08."""
    titles = "The Godfather, The Godfather: Part II, The Godfather: Part III."
    assert language(titles) == "cy" and sure_language(titles) is None
    german = "Ein Komet ist ein kleiner Himmelskörper, der in der Nähe der Sonne eine Koma und einen Schweif bildet."
    assert sure_language(german) == "de" and sure_language("Nein.") is None


# --- who wins ---------------------------------------------------------------------------------------------------


def test_the_longer_one_wins(tmp_path):
    rows = pairs(200)
    for row in rows[:160]:
        row["chosen"], row["rejected"] = sorted((row["chosen"], row["rejected"]), key=len, reverse=True)
    check = found(tmp_path, rows)["by"]["length_bias"]
    assert check["number"] == pytest.approx(0.9) and check["verdict"] == "warn"
    assert check["interval"] == pytest.approx([0.8507, 0.9343], abs=2e-3)  # Wilson's
    assert found(tmp_path, rows[:20])["by"]["length_bias"]["verdict"] == "skipped"


def test_a_model_that_always_wins(tmp_path):
    rows = [{**row, "models": {"chosen": "big", "rejected": "small"}} for row in pairs(100)]
    by = found(tmp_path, rows)["by"]
    assert by["models"]["verdict"] == "warn" and by["models"]["facts"]["big"] == {"won": 100, "pairs": 100}
    assert by["synthetic"]["number"] == 1.0 and by["synthetic"]["verdict"] == "ok"
    rows = [{**row, "models": {"chosen": "ab"[n % 2], "rejected": "ba"[n % 2]}} for n, row in enumerate(pairs(100))]
    assert found(tmp_path, rows)["by"]["models"]["verdict"] == "ok"


def test_rare_tags(tmp_path):
    rows = [{**row, "tags": ["common"] if n else ["medical"]} for n, row in enumerate(pairs(300))]
    check = found(tmp_path, rows)["by"]["tags"]
    assert check["verdict"] == "warn" and "medical (1)" in check["says"]
    few = [{**row, "tags": ["common"] if n else ["medical"]} for n, row in enumerate(pairs(40))]
    check = found(tmp_path, few)["by"]["tags"]
    assert check["verdict"] == "ok" and "1 of 2 have under 30, the rarest 1: numbers for" in check["says"]
    many = [{**row, "tags": ["common"]} for row in pairs(40)]
    assert found(tmp_path, many)["by"]["tags"]["says"] == "All 1 tags have 30 rows or more."


# --- other data, names, places ----------------------------------------------------------------------------------


def test_demonstrations_prompts_and_labels(tmp_path):
    shown = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in pairs(40)]
    assert found(tmp_path, shown)["kind"] == "demonstrations"
    asked = found(tmp_path, [{"prompt": row["prompt"]} for row in pairs(40)])
    assert asked["kind"] == "prompts" and asked["verdict"] == "ok" and "empty" not in asked["by"]
    labelled = [{**row, "label": n > 0} for n, row in enumerate(shown)]
    labelled[0]["completion"] = ""  # a bad response that says nothing is no loss
    assert found(tmp_path, labelled)["by"]["empty"]["count"] == 0
    messages = [
        {"messages": [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["chosen"]}]}
        for row in pairs(40)
    ]
    assert found(tmp_path, messages)["by"]["empty"]["verdict"] == "ok"


def test_what_can_not_be_read(tmp_path):
    with pytest.raises(BadInput, match="no column"):
        read_data(str(write_rows(tmp_path / "x.jsonl", [{"a": 1}])))
    with pytest.raises(BadInput, match="line 2: the prompt is empty"):
        read_data(str(write_rows(tmp_path / "x.jsonl", [{"prompt": "a"}, {"prompt": " "}])))
    with pytest.raises(ValueError, match="no check 'leek'; the nearest is 'leakage'"):
        check_names(["leek"], "--allow")


def test_the_summary_names_places(tmp_path):
    rows = pairs(60)
    text = summary(found(tmp_path, [*rows, rows[0]]))
    assert "61 train rows of pairs" in text and "train.jsonl, line 61 = train.jsonl, line 1" in text


def test_ties_are_counted_apart(tmp_path):
    rows = [{**row, "preference": 0.5 if n < 6 else 1.0} for n, row in enumerate(pairs(48))]
    result = found(tmp_path, rows)
    assert "48 train (42 pairs and 6 ties) rows of pairs" in summary(result)
    assert result["rows"] == [{"part": "train", "held_out": False, "rows": 48, "ties": 6}]


def test_two_processes_find_what_one_finds(tmp_path, monkeypatch):
    from align.audit import audit as module

    rows = pairs(60)
    rows[5]["chosen"] = "I'm sorry, but I can't help with that."
    alone = found(tmp_path, rows)
    monkeypatch.setattr(module, "_MANY", 10)
    monkeypatch.setattr(module, "_CHUNK", 7)
    assert found(tmp_path, rows) == alone and alone["by"]["refusals"]["count"] == 1


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs shared/data")
def test_no_false_alarms_on_hh_rlhf(tmp_path):
    """2,312 real pairs: nothing stops, and the warnings are true ones."""
    import gzip

    source = SHARED / "hh-rlhf-harmless-base-test" / "harmless-base-test.jsonl.gz"
    (tmp_path / "hh.jsonl").write_bytes(gzip.decompress(source.read_bytes()))
    result = audit(read_data(str(tmp_path / "hh.jsonl")))
    by = {check["check"]: check for check in result["checks"]}
    assert {name for name, check in by.items() if check["verdict"] in ("warn", "stop")} == {
        "empty",
        "personal_data",
        "slurs",
    }
    assert by["empty"]["count"] == 4 and by["identity"]["count"] == 0
    assert 0.43 < by["length_bias"]["number"] < 0.47  # in harmless-base the shorter one wins a little more often


def test_a_folder_of_splits_as_the_hub_has_them(tmp_path):
    rows = pairs(40)
    folder = tmp_path / "hub"
    folder.mkdir()
    write_rows(folder / "train.jsonl", rows)
    write_rows(folder / "test.jsonl", [*pairs(9, seed=1), rows[2]])
    result = audit(read_data(str(folder)))
    (check,) = [check for check in result["checks"] if check["check"] == "leakage"]
    assert [(part["part"], part["held_out"]) for part in result["rows"]] == [("train", False), ("test", True)]
    assert check["verdict"] == "stop" and check["examples"][0]["where"] == ["test, row 10", "train, row 3"]
    write_rows(folder / "train_sft.jsonl", rows)  # to be trained on, too
    parts = read_data(str(folder), "pairs", splits=["train"]).parts  # and what a model may be judged by
    assert [(part.name, part.held_out) for part in parts] == [("train", False), ("test", True)]


def test_a_dialogue_that_both_responses_begin_with_is_the_prompt(tmp_path):
    asked = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "And you?"}]
    row = {side: [*asked, {"role": "assistant", "content": side}] for side in ("chosen", "rejected")}
    plain = {"chosen": "A question?\nYes.", "rejected": "A question?\nYellow."}
    (part,) = read_data(str(write_rows(tmp_path / "x.jsonl", [row]))).parts
    assert part.rows[0][1:5] == ("system: Be kind.\n\nuser: And you?", "And you?", "chosen", "rejected")
    (part,) = read_data(str(write_rows(tmp_path / "x.jsonl", [plain]))).parts
    assert part.rows[0][1:5] == ("A question?", "A question?", "Yes.", "Yellow.")


def test_a_system_turn_that_all_share_is_no_leak(tmp_path):
    def asked(text: str) -> dict[str, Any]:
        return {
            "prompt": [{"role": "system", "content": "You answer questions. " * 20}, {"role": "user", "content": text}]
        }

    rows = [asked(row["prompt"]) for row in pairs(10)]
    assert found(tmp_path, rows, [asked(row["prompt"]) for row in pairs(10, seed=1)])["by"]["leakage"]["count"] == 0
    assert found(tmp_path, rows, rows[:1])["by"]["leakage"]["count"] == 1


def test_the_documentation_names_every_check():
    from align.audit.texts import _SLURS

    text = (Path(__file__).parents[2] / "docs" / "audit.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert {name for name in LIMITS if any(row.startswith(f"| `{name}` |") for row in rows)} == set(LIMITS)
    assert f"list of {len(_SLURS)} English slurs" in text
