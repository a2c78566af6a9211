"""`align evaluate --to-annotate`: what people are asked. Balanced, blind, shuffled, as many as the power wants."""

import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from align.evaluate.evidence import MAIN, Prompt, pair_id
from align.evaluate.gold_items import gold_items
from align.evaluate.to_annotate import blind_pairs, by_id, sample_of, shuffled
from preferences.contract import Item, read_items
from preferences.files import sha256_json
from preferences.stats.power import prompts_needed
from tests.align.conftest import done, refused, write_rows

THINGS = ["apples", "bridges", "candles", "dolphins", "engines", "forests", "guitars", "harbours", "islands", "jackets"]


def prompt(number: int, where: str = MAIN, **more: Any) -> Prompt:
    turns = [{"role": "user", "content": f"Tell {number} of {THINGS[number % 10]}?"}]
    return Prompt(sha256_json(turns)[:16], turns, where, **more)


PROMPTS = [prompt(n, tags=("de",) if n % 2 else (), group="g" if n == 3 else None) for n in range(101)]
TEXTS = {
    "dpo": [f"All about {THINGS[n % 10]}, number {n}." for n in range(101)],
    "base": [f"{THINGS[n % 10].title()} it is." for n in range(101)],
    "best of 4": [f"{THINGS[n % 10].title()} it is." if n < 11 else f"Well, {THINGS[n % 10]}." for n in range(101)],
}


def test_who_comes_first_is_balanced_for_each_model() -> None:
    pairs = blind_pairs(PROMPTS, range(101), TEXTS, "base", overlap=3)
    assert (len(pairs.items), pairs.identical) == (101 + 90, 11)
    firsts: Counter[tuple[str, str]] = Counter()
    for row in pairs.items:
        item = Item.model_validate(row)
        first, second = (response.model or "" for response in item.responses)
        assert "base" in (first, second) and item.overlap == 3 and item.gold is None
        firsts[({first, second} - {"base"}).pop(), first] += 1
    assert abs(firsts["dpo", "dpo"] - firsts["dpo", "base"]) == 1
    assert firsts["best of 4", "best of 4"] == firsts["best of 4", "base"] == 45
    # Which ones is not by turns in the order that raters get them.
    order = [row["responses"][0]["model"] == "base" for row in pairs.items]
    assert 0 < sum(one != two for one, two in pairwise(order)) < len(order) - 1


def test_nothing_but_the_models_field_names_a_model() -> None:
    for row in blind_pairs(PROMPTS, range(101), TEXTS, "base").items:
        rest = {**row, "responses": [response["text"] for response in row["responses"]]}
        assert set(row) <= {"id", "prompt", "responses", "group", "tags"}
        assert not any(model in json.dumps(rest) for model in TEXTS)


def test_ids_tell_prompt_and_responses() -> None:
    (row,) = [row for row in blind_pairs(PROMPTS, [3], TEXTS, "base").items if "group" in row and row["responses"][0]][
        :1
    ]
    texts = {response["model"]: response["text"] for response in row["responses"]}
    assert row["id"] == pair_id(PROMPTS[3].id, texts) and row["id"].startswith(PROMPTS[3].id + "-")
    assert (row["group"], row["tags"]) == ("g", ["de"])
    changed = {**TEXTS, "base": ["Another text."] * 101}
    assert row["id"] not in {other["id"] for other in blind_pairs(PROMPTS, [3], changed, "base").items}


def test_models_and_prompts_are_shuffled_and_the_same_each_time() -> None:
    rows = blind_pairs(PROMPTS, range(101), TEXTS, "base").items
    assert rows == blind_pairs(PROMPTS, list(reversed(range(101))), TEXTS, "base").items == shuffled(rows[::-1])
    models = [({response["model"] for response in row["responses"]} - {"base"}).pop() for row in rows]
    changes = sum(one != two for one, two in pairwise(models))
    assert 70 <= changes <= 120  # of 190; a fair shuffle has 95, with a spread of 7


def test_more_prompts_begin_with_the_same_ones() -> None:
    mixed = [*PROMPTS, *(prompt(n, "safety") for n in range(200, 220))]
    assert sample_of(mixed, 10) == sample_of(mixed, 50)[:10]
    assert sorted(sample_of(mixed, 1000)) == list(range(101))
    assert [mixed[n].id for n in by_id(mixed)] == sorted(one.id for one in PROMPTS)


def test_gold_items_answer_another_prompt() -> None:
    rows = gold_items(PROMPTS, TEXTS, 12)
    assert len(rows) == 12 and len({row["id"] for row in rows}) == 12
    about = {one.id: THINGS[n % 10] for n, one in enumerate(PROMPTS)}
    for row in rows:
        item = Item.model_validate(row)
        assert item.gold is not None and item.explanation is not None
        right, wrong = (item.responses[item.gold.index(rank)].messages[0].content.lower() for rank in (1, 2))
        thing = about[item.id.rpartition("-")[0]]
        assert thing in right and thing not in wrong
        assert any(other in wrong and other in item.explanation for other in THINGS)
        assert all(response.model is None for response in item.responses)
    assert sum(row["gold"] == [1, 2] for row in rows) == 6
    nothing = {"base": ["Yes."] * 101}
    assert gold_items(PROMPTS, nothing, 5) == []


@pytest.fixture
def asking(tiny: Path, tmp_path: Path) -> Callable[..., Path]:
    """A recipe with two models that answer twelve prompts."""
    from tests.align.conftest import write_recipe

    rows = [{"prompt": f"Say {thing}, please, in {n} words."} for n, thing in enumerate(THINGS)]
    data = write_rows(tmp_path / "prompts.jsonl", rows)

    def make(**keys: Any) -> Path:
        hot = {"model": str(tiny), "temperature": 1.5}
        right: dict[str, Any] = {"models": {"base": str(tiny), "hot": hot}, "dataset_name": str(data)}
        right |= {"output_dir": str(tmp_path / "out"), "cache_dir": str(tmp_path / "cache"), "max_new_tokens": 6}
        return write_recipe(tmp_path / "evaluate.yaml", **{**right, "dataset_split": "train", **keys})

    return make


def test_the_command_writes_what_annotate_takes(asking: Callable[..., Path], tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    said = done("evaluate", asking(), "--to-annotate", file, "--overlap", "2")
    assert f"by {prompts_needed(0.6)} prompts; there are only 10: what they find as surely is 94" in said.err
    assert "next: annotate import PROJECT" in said.err and not (tmp_path / "out").exists()
    items = [item for item in read_items(file) if item.gold is None]
    assert items and all({response.model for response in item.responses} == {"base", "hot"} for item in items)
    same = 10 - len(items)
    assert not same or f"nobody is asked about {same} pairs of the same text" in said.err

    before = file.read_bytes()
    again = done("evaluate", asking(), "--to-annotate", file, "--overlap", "2")
    assert "(10 from the cache)" in again.err and file.read_bytes() == before
    few = done("evaluate", asking(), "--to-annotate", tmp_path / "few.jsonl", "--detect", "0.9", "--power", "0.5")
    assert "90% is found with probability 50% (at the 95% level) by 7 prompts\n" in few.err
    ids = {item.id for item in read_items(tmp_path / "few.jsonl") if item.gold is None}
    assert ids <= {item.id for item in items}


def test_own_gold_items(asking: Callable[..., Path], tmp_path: Path) -> None:
    own = {"id": "mine", "prompt": "2 + 2?", "responses": [{"text": "4", "model": "gpt"}, "5"], "gold": [1, 2]}
    gold, file = write_rows(tmp_path / "gold.jsonl", [{**own, "explanation": "Count."}]), tmp_path / "pairs.jsonl"
    done("evaluate", asking(), "--to-annotate", file, "--gold", gold)
    (item,) = [item for item in read_items(file) if item.gold is not None]
    assert (item.id, item.explanation, item.responses[0].model) == ("mine", "Count.", None)
    write_rows(gold, [{**own, "gold": None}])
    said = refused("evaluate", asking(), "--to-annotate", tmp_path / "no.jsonl", "--gold", gold)
    assert "item 'mine' has no `gold`" in said and not (tmp_path / "no.jsonl").exists()


@pytest.mark.parametrize(
    ("keys", "words", "sentence"),
    [
        ({}, ("--detect", "0.6"), "say --to-annotate FILE, too"),
        ({}, ("--to-annotate", "FILE", "--detect", "0.4"), "--detect 0.4: the win rate to detect lies above 0.5"),
        ({}, ("--to-annotate", "FILE", "--power", "80"), "--power 80: a probability between 0 and 1"),
        ({}, ("--to-annotate", "nowhere/at/all.jsonl"), "there is no folder"),
        ({}, ("--to-annotate", "FILE", "--gold", "nowhere.jsonl"), "cannot read nowhere.jsonl"),
        ({}, ("--to-annotate", "FILE", "--overlap", "0"), "0 is not in the range"),
        ({"cache_dir": None}, ("--to-annotate", "FILE"), "key `cache_dir`: null keeps no responses"),
        ({"models": {"base": "x"}}, ("--to-annotate", "FILE"), "names only base"),
    ],
)
def test_what_is_refused_is_refused_first(
    asking: Callable[..., Path], tmp_path: Path, keys: dict[str, Any], words: tuple[str, ...], sentence: str
) -> None:
    words = tuple(str(tmp_path / "pairs.jsonl") if word == "FILE" else word for word in words)
    assert sentence in refused("evaluate", asking(**keys), *words)
    assert not (tmp_path / "pairs.jsonl").exists() and not (tmp_path / "cache").exists()


def test_models_that_say_the_same_leave_nothing_to_ask(asking: Callable[..., Path], tiny: Path, tmp_path: Path) -> None:
    said = refused(
        "evaluate", asking(models={"base": str(tiny), "copy": str(tiny)}), "--to-annotate", tmp_path / "pairs.jsonl"
    )
    assert "there is nothing to ask" in said and not (tmp_path / "pairs.jsonl").exists()


def test_the_numbers_in_the_docs() -> None:
    docs = (Path(__file__).parents[2] / "docs/evaluation.md").read_text()
    head, _, numbers = docs.partition("| a true win rate of |")[2].split("\n")[:3]
    rates = [int(cell.strip(" %")) for cell in head.strip("| ").split("|")]
    counts = [int(cell) for cell in numbers.strip("| ").split("|")[1:]]
    assert counts == [prompts_needed(rate / 100) for rate in rates] and len(rates) == 5
