"""`align score`: how unsure reward runs are of items, by hand and by real tiny runs, and `annotate import` takes it."""

import math
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from align.evaluate.judges import RewardJudge
from align.evaluate.score import Scored, import_lines, items_of, score_items, unsure_pairs
from align.models.rewards import score_moments
from align.models.scores import load_scorer
from preferences.contract import Item, read_items
from preferences.errors import BadInput
from tests.align.conftest import WORDS, done, make_reward_run, refused, write_rows
from tests.annotate.conftest import Annotate


def item(name: str, *responses: Any, **more: Any) -> dict[str, Any]:
    return {"id": name, "prompt": f"Say {name}.", "responses": list(responses), **more}


@pytest.fixture(scope="module")
def runs(reward_run: Path, tiny: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two runs that differ in the seed of their head and in how long they learnt."""
    other = tmp_path_factory.mktemp("runs") / "other"
    return [str(reward_run), str(make_reward_run(other, tiny, pairs_file, seed=7, max_steps=3))]


def test_how_unsure_several_runs_and_one_run_are_by_hand() -> None:
    """Two runs see differences of 2 and 0: mean 1, spread 1; and -1 and -1: they agree, however near a tie. One run:
    the entropy of a coin is 1 bit, of 3 to 1 it is 2 - 0.75 log2 3.
    """
    found = unsure_pairs(np.array([[2.0, 0.0, 3.0], [0.0, 0.0, 1.0]]))
    assert found == {(0, 1): pytest.approx(1.0), (0, 2): pytest.approx(0.0), (1, 2): pytest.approx(1.0)}
    one = unsure_pairs(np.array([[1.0, 1.0, 1.0 - math.log(3), -5000.0]]))
    assert one[0, 1] == pytest.approx(1.0)
    assert one[0, 2] == one[1, 2] == pytest.approx(2 - 0.75 * math.log2(3))
    assert one[0, 3] == pytest.approx(0.0)


def test_lines_by_hand() -> None:
    made = Item.model_validate(
        item("q1", "a", {"text": "b", "model": "m"}, "c", tags=["x"], group="g", priority=3.0)
        | {"answers": [{"rater": "w", "ranks": [1, 2, 3]}]}
    )
    scored = Scored(made, np.zeros((2, 3)), {(0, 1): 0.2, (0, 2): 0.7, (1, 2): 0.7})
    (whole,) = import_lines(scored, None)
    assert whole["priority"] == pytest.approx(1.6 / 3, abs=1e-6)
    assert whole["answers"] and whole["group"] == "g" and whole["tags"] == ["x"]
    first, second = import_lines(scored, 2)
    assert [line["id"] for line in (first, second)] == ["q1/1-3", "q1/2-3"]
    assert [line["priority"] for line in (first, second)] == [0.7, 0.7]
    assert "answers" not in first and first["group"] == "g"
    assert [r["messages"][0]["content"] for r in second["responses"]] == ["b", "c"]
    assert second["responses"][0]["model"] == "m"
    assert len(import_lines(scored, 9)) == 3
    gold = made.model_copy(update={"gold": [1, 2, 3]})
    assert import_lines(scored._replace(item=gold), 1)[0]["priority"] == 3.0  # a check of raters stays as it is


def test_scores_are_the_runs_own_normalised(runs: list[str], tmp_path: Path) -> None:
    rows = [item("q1", "red", "cat dog fox sun"), item("q2", "tea", "tea milk", "soup soup soup", overlap=2)]
    scored = score_items(read_items(write_rows(tmp_path / "items.jsonl", rows)), runs, "items.jsonl")
    for number, run in enumerate(runs):
        mean, std = score_moments(run)
        for one, row in zip(scored, rows, strict=True):
            prompts = [[{"role": "user", "content": row["prompt"]}]] * len(row["responses"])
            expected = load_scorer(run, "cpu").scores(prompts, row["responses"], 4)
            assert one.scores[number] == pytest.approx([(score - mean) / std for score in expected], abs=1e-5)
    assert scored[1].unsure == unsure_pairs(scored[1].scores)
    assert max(scored[1].unsure.values()) > 0.01, "two runs that say the same would tell nothing"


def test_annotate_import_takes_what_score_writes(runs: list[str], tmp_path: Path) -> None:
    """Whole items, then pairs, into real projects; the least sure comes first in the queue."""
    items = [item(f"q{n}", *(" ".join(WORDS[n : n + k]) for k in (1, 3, 5))) for n in range(4)]
    source = write_rows(tmp_path / "items.jsonl", [*items, item("check", "red", "blue", gold=[1, 2], priority=1.0)])
    models = [word for run in runs for word in ("--reward-model", run)]
    said = done("score", source, *models, "--to-annotate", tmp_path / "whole.jsonl")
    assert "next: annotate import PROJECT" in said.err and said.out == ""
    done("score", source, *models, "--pairs", "1", "--to-annotate", tmp_path / "pairs.jsonl")
    whole, pairs = read_items(tmp_path / "whole.jsonl"), read_items(tmp_path / "pairs.jsonl")
    assert [one.id for one in whole] == ["q0", "q1", "q2", "q3", "check"]
    assert whole[4].priority == 1.0 and whole[4].gold == [1, 2]
    assert len({one.priority for one in whole[:4]}) == 4
    for one, pair in zip(whole[:4], pairs[:4], strict=True):
        assert pair.id.startswith(one.id + "/") and len(pair.responses) == 2
        assert pair.priority >= one.priority  # the most of what the other is the mean of
    header, *listed = done("score", source, "--reward-model", runs[0]).out.splitlines()
    assert header == "priority  item  mean score of each response"
    assert [float(line.split()[0]) for line in listed] == sorted((float(x.split()[0]) for x in listed), reverse=True)

    annotate = Annotate(tmp_path)
    for name, file in (("whole", "whole.jsonl"), ("pairs", "pairs.jsonl")):
        annotate.ok("project", "create", name)
        annotate.ok("import", name, file)
        with sqlite3.connect(tmp_path / "data" / "annotate.db") as database:
            stored = database.execute(
                "select key, priority from items join projects on projects.id = project_id where name = ?", [name]
            ).fetchall()
        assert sorted(stored) == sorted((one.id, one.priority) for one in read_items(tmp_path / file))


def test_a_preferences_folder_gives_its_items(preferences: Path, runs: list[str], tmp_path: Path) -> None:
    items = items_of(str(preferences))
    assert len(items) == 24 and items[0].id == "r0" and items[0].group == "g0" and not items[0].answers
    done("score", preferences, "--reward-model", runs[0], "--to-annotate", tmp_path / "items.jsonl")
    assert [one.id for one in read_items(tmp_path / "items.jsonl")] == [one.id for one in items]


def test_a_run_whose_base_has_changed_says_nothing(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    base = Path(shutil.copytree(tiny, tmp_path / "base"))
    run = make_reward_run(tmp_path / "run", base, pairs_file, max_steps=1)
    weights = load_file(base / "model.safetensors")
    save_file({name: 2 * value for name, value in weights.items()}, base / "model.safetensors", {"format": "pt"})
    items = write_rows(tmp_path / "items.jsonl", [item("q1", "red", "cat")])
    says = f"the weights in {base} have changed since it was trained"
    assert says in refused("score", items, "--reward-model", run)
    assert says in refused("inspect", run, pairs_file)
    with pytest.raises(BadInput, match="have changed since it was trained"):
        RewardJudge("reward", str(run), False, 2).check([], 8)


def test_what_can_be_mended_is_one_sentence(runs: list[str], tiny: Path, tmp_path: Path) -> None:
    source = write_rows(tmp_path / "items.jsonl", [item("q1", "red", "cat " * 200)])
    out = tmp_path / "out.jsonl"
    assert "item q1, response 2" in refused("score", source, "--reward-model", runs[0], "--to-annotate", out)
    assert not out.exists()
    assert "keeps no mean and spread" in refused("score", source, "--reward-model", tiny)
    assert "--reward-model" in refused("score", source)
    assert "there is no folder" in refused(
        "score", source, "--reward-model", runs[0], "--to-annotate", tmp_path / "no" / "out.jsonl"
    )
    assert f"{tmp_path} is a folder" in refused("score", source, "--reward-model", runs[0], "--to-annotate", tmp_path)
    assert "cannot read" in refused("score", tmp_path / "none.jsonl", "--reward-model", runs[0])
