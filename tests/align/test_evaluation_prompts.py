"""What an evaluation asks: held-out prompts and challenge sets, with tags, groups and references."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from align.evaluate.evidence import MAIN
from align.evaluate.prompts import load_evaluation_prompts
from preferences.errors import BadInput
from tests.align.conftest import write_rows


def arguments(name: Path, **keys: Any) -> Any:
    right = {"dataset_name": str(name), "dataset_config": None, "dataset_split": "test", "num_prompts": None}
    return SimpleNamespace(**{**right, "challenge_sets": None, **keys})


def test_prompts_of_a_file_with_challenge_sets(tmp_path: Path) -> None:
    main = write_rows(
        tmp_path / "main.jsonl",
        [
            {"prompt": "Who?", "tags": ["a", "b", "a"], "group": 7, "reference": " Nobody. "},
            {"prompt": "What?", "completion": "Nothing."},
            {"prompt": "Who?", "reference": "A second time, and not looked at."},
            {"prompt": "Where?", "completion": "Nowhere, you fool.", "label": False},
        ],
    )
    turns = [{"role": "user", "content": "Why?"}]
    said = [{"role": "assistant", "content": "Because."}]
    hard = write_rows(tmp_path / "hard.jsonl", [{"prompt": turns, "reference": said}, {"prompt": turns + said + turns}])
    prompts = load_evaluation_prompts(arguments(main, challenge_sets={"hard": str(hard)}))
    assert [prompt.set for prompt in prompts] == [MAIN, MAIN, MAIN, "hard", "hard"]
    assert [prompt.turns[-1]["content"] for prompt in prompts] == ["Who?", "What?", "Where?", "Why?", "Why?"]
    assert [prompt.reference for prompt in prompts] == ["Nobody.", "Nothing.", None, "Because.", None]
    assert prompts[0].tags == ("a", "b") and prompts[0].group == "7" and prompts[1].group is None
    assert len({prompt.id for prompt in prompts}) == 5
    first = load_evaluation_prompts(arguments(main, num_prompts=1, challenge_sets={"hard": str(hard)}))
    assert first == [prompts[0], *prompts[3:]]


def test_prompts_of_a_preferences_folder(preferences: Path) -> None:
    """Its demonstrations are references, of their own prompts only."""
    prompts = load_evaluation_prompts(arguments(preferences))
    shown = [prompt for prompt in prompts if prompt.reference]
    assert shown and all(prompt.group for prompt in prompts)
    from preferences.contract import read_rows

    rows = {row.prompt[-1].content: row.completion[-1].content for row in read_rows(preferences, "sft.jsonl")}
    assert all(rows[prompt.turns[-1]["content"]].strip() == prompt.reference for prompt in shown)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "a", "tags": "medical"}, "prompt 1: `tags` is no list of texts"),
        ({"prompt": "a", "reference": 3}, "prompt 1: `reference` is neither a text nor a list"),
    ],
)
def test_rows_that_say_it_wrongly(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=said):
        load_evaluation_prompts(arguments(write_rows(tmp_path / "p.jsonl", [row])))
