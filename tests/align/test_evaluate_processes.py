"""An evaluation in several processes: each samples its share into the cache, and what comes of it is what one gives."""

import json
from pathlib import Path
from typing import Any

import pytest

from align.evaluate.config import read_evaluation
from align.evaluate.prompts import load_evaluation_prompts
from align.evaluate.responses import answer_share, answers, open_models
from align.run.cache import Cache
from tests.align.conftest import WORDS, done, write_recipe, write_rows
from tests.align.test_distributed import start

JUDGE = "def short(prompts, completions, **columns):\n    return [-len(c[-1]['content']) for c in completions]\n"


def keys_of(home: Path, tiny: Path) -> dict[str, Any]:
    write_rows(home / "prompts.jsonl", [{"prompt": f"Say {word}."} for word in WORDS])
    (home / "judge.py").write_text(JUDGE)
    return {
        "models": {"base": str(tiny), "hot": {"model": str(tiny), "temperature": 1.3}},
        "judges": {"short": {"function": f"{home / 'judge.py'}:short"}},
        "dataset_name": str(home / "prompts.jsonl"),
        "max_new_tokens": 8,
        "batch_size": 5,
    }


def test_the_shares_of_two_are_the_whole(tiny: Path, tmp_path: Path) -> None:
    """Twelve prompts in batches of five: 5 and 2 for the first, 5 for the second; nothing is left to be sampled."""
    recipe = {**keys_of(tmp_path, tiny), "output_dir": str(tmp_path / "run"), "cache_dir": str(tmp_path / "cache")}
    args = read_evaluation(recipe, "evaluate.yaml")
    prompts = load_evaluation_prompts(args)
    model = open_models(args, prompts, "evaluate.yaml")["hot"]
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    whole = answers(model, prompts, args, tmp_path / "one", Cache(None))

    cache, lines = Cache(tmp_path / "cache"), []
    for rank in (0, 1):
        answer_share(model, prompts, args, Cache(tmp_path / "cache"), rank, 2)
        lines.append(sum(path.read_text().count("\n") for path in (tmp_path / "cache").glob("*.jsonl")))
    assert lines == [7, 12]
    assert answers(model, prompts, args, tmp_path / "two", cache) == whole
    assert sum(path.read_text().count("\n") for path in (tmp_path / "cache").glob("*.jsonl")) == 12


@pytest.mark.slow
def test_two_processes_evaluate_as_one(tiny: Path, tmp_path: Path) -> None:
    """The same samples and win rates; the second process writes nothing, and the run is opened once."""
    keys = keys_of(tmp_path, tiny)
    for name in ("one", "two"):
        more = {"output_dir": str(tmp_path / name), "cache_dir": str(tmp_path / f"cache of {name}")}
        write_recipe(tmp_path / f"{name}.yaml", **keys, **more)
    done("evaluate", tmp_path / "one.yaml")
    said = start("evaluate", tmp_path / "two.yaml", "--accelerate_config", "cpu", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert said.stderr.count("computing") == 1
    assert "hot: 12 of 12 prompts (12 from the cache)" in said.stderr
    assert (tmp_path / "one" / "samples.jsonl").read_bytes() == (tmp_path / "two" / "samples.jsonl").read_bytes()
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert first["models"] == second["models"]
    without = {**json.loads((tmp_path / "two.yaml").read_text()), "cache_dir": None, "output_dir": str(tmp_path / "3")}
    write_recipe(tmp_path / "three.yaml", **without)
    said = start("evaluate", tmp_path / "three.yaml", "--accelerate_config", "cpu", cwd=tmp_path)
    assert said.returncode == 2
    assert "key `cache_dir`: several processes hand their responses on in it" in said.stderr
    assert not (tmp_path / "3").exists()
