"""Checkpoints and best of n on the plane of distance and reward: what is measured, what is said, what is refused."""

import html
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from align.evaluate.frontier_numbers import Reached, frontier_numbers
from preferences.files import read_jsonl
from tests.align.conftest import done, refused, write_recipe

TRUTH = "def two_words(prompt, response):\n    return -float(abs(len(response.split()) - 2))\n"
COMPARES = "def longer(prompt, first, second):\n    return float(len(first) > len(second))\n"


@pytest.fixture(scope="module")
def ppo_run(tiny: Path, pairs_file: Path, reward_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four updates towards short answers, with every checkpoint."""
    home = tmp_path_factory.mktemp("frontier")
    keys: dict[str, Any] = {"use_peft": True, "lora_r": 4, "total_episodes": 32, "batch_size": 8, "response_length": 8}
    keys |= {"learning_rate": 1e-2, "kl_coef": 0.0, "save_steps": 1, "save_total_limit": None, "num_ppo_epochs": 2}
    keys |= {"model_name_or_path": str(tiny), "dataset_name": str(pairs_file), "reward_model_path": str(reward_run)}
    done("ppo", write_recipe(home / "ppo.yaml", **keys, output_dir=str(home / "ppo")))
    return home / "ppo"


@pytest.fixture()
def frontier_recipe(evaluate_recipe: Callable[..., Path], ppo_run: Path, tmp_path: Path) -> Callable[..., Path]:
    def make(frontier: dict[str, Any] | None = None, **keys: Any) -> Path:
        (tmp_path / "truth.py").write_text(TRUTH)
        (tmp_path / "compares.py").write_text(COMPARES)
        judges = {"truth": {"truth": f"{tmp_path / 'truth.py'}:two_words"}}
        asked = {"run": str(ppo_run), "gold": "truth", "best_of": 4, **(frontier or {})}
        right = {"judges": judges, "frontier": asked, "num_prompts": 12, "max_new_tokens": 8, "batch_size": 8}
        return evaluate_recipe(**{**right, **keys})

    return make


def metrics_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "metrics.json").read_text())
    return found


def test_a_run_and_best_of_n_on_the_plane(
    frontier_recipe: Callable[..., Path], ppo_run: Path, reward_run: Path, tmp_path: Path
) -> None:
    recipe = frontier_recipe(cache_dir=str(tmp_path / "cache"))
    done("evaluate", recipe)
    out = tmp_path / "home/out"
    found = metrics_of(out)["frontier"]
    assert (found["run"], found["reward_model"], found["gold"]) == (str(ppo_run), str(reward_run), "truth")
    assert [point["label"] for point in found["points"]] == [
        "best of 2", "best of 4", "step 1", "step 2", "step 3", "the final model",
    ]  # fmt: skip
    n = found["prompts"]
    assert n == metrics_of(out)["prompts"] - found["prompts_left_out"]

    # the truth of each response that is kept, less the base's mean over its four draws, in the base's own spread
    def truths(name: str) -> np.ndarray:
        rows = [row for _, row in read_jsonl(out / "frontier" / f"responses-{name}.jsonl")]
        return np.array([-abs(len(row["text"].split()) - 2) for row in rows], dtype=float)

    drawn = np.stack([truths(f"base-{number}") for number in range(4)], axis=1)
    assert len({tuple(column) for column in drawn.T}) == 4, "four different draws"
    for point in found["points"][2:]:
        gained = (truths(point["label"]) - drawn.mean(axis=1)) / drawn.std()
        assert point["gold"]["mean"] == pytest.approx(gained.mean())
        low, high = point["gold"]["interval"]
        assert low < point["gold"]["mean"] < high
        kl = [row["logprob"] for _, row in read_jsonl(out / "frontier" / f"responses-{point['label']}.jsonl")]
        assert len(kl) == n
        assert point["sqrt_kl"] == pytest.approx(math.sqrt(max(point["kl"]["mean"], 0)))
    assert found["points"][-1]["reward"]["mean"] > 0.3, "trained towards it"
    assert found["points"][1]["reward"]["mean"] > found["points"][0]["reward"]["mean"] > 0, "picked by it"
    assert found["points"][0]["kl"]["mean"] == pytest.approx(math.log(2) - 0.5)
    assert found["words"] in html.unescape((out / "report.html").read_text())
    assert set(found["fits"]) == {"bon", "rl"} and found["fits"]["rl"]["gold"]["points"] >= 3

    # killed while it drew, and gone on with: the same; and again with everything in the cache
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    kept = out / "frontier" / "responses-step 2.jsonl"
    kept.write_bytes(kept.read_bytes()[:-40])
    said = done("evaluate", recipe, "--resume").err
    assert "(8 from the cache)" in said or "from the cache" in said
    assert metrics_of(out)["frontier"] == found
    done("evaluate", recipe, "--output_dir", tmp_path / "home/again")
    assert metrics_of(tmp_path / "home/again")["frontier"] == found


def test_checkpoints_of_trls_trainers(
    frontier_recipe: Callable[..., Path], tiny: Path, pairs_file: Path, tmp_path: Path
) -> None:
    """DPO has no reward of its own, so it is named; its last checkpoint is its final model."""
    keys: dict[str, Any] = {"use_peft": True, "lora_r": 4, "max_steps": 4, "save_steps": 2, "learning_rate": 1e-2}
    keys |= {"model_name_or_path": str(tiny), "dataset_name": str(pairs_file), "output_dir": str(tmp_path / "dpo")}
    done("dpo", write_recipe(tmp_path / "dpo.yaml", **keys))
    said = refused("evaluate", frontier_recipe({"run": str(tmp_path / "dpo")}))
    assert "key `frontier.reward_model`: missing" in said and "has no reward of its own" in said
    (tmp_path / "short.py").write_text("def short(prompts, completions, **_):\n    return [1.0 for _ in prompts]\n")
    function = f"{tmp_path / 'short.py'}:short"
    done("evaluate", frontier_recipe({"run": str(tmp_path / "dpo"), "reward_model": function}))
    found = metrics_of(tmp_path / "home/out")["frontier"]
    assert found["reward_model"] == function
    assert all(point["reward"]["mean"] == 0 for point in found["points"]), "it says the same of everything"
    assert [point["label"] for point in found["points"]][2:] == ["step 2", "step 4"]
    assert found["points"][-1]["sqrt_kl"] > 0
    assert "needs 3 of them off the base" in found["words"]


def test_what_can_not_be_a_frontier_is_refused(
    frontier_recipe: Callable[..., Path], ppo_run: Path, reward_run: Path, other_reward_run: Path, tmp_path: Path
) -> None:
    def with_gold(judge: dict[str, Any]) -> str:
        return refused("evaluate", frontier_recipe({"gold": "g"}, judges={"g": judge}))

    same = {"reward_model": str(reward_run)}
    assert "was trained to please" in with_gold(same)
    assert "compares responses" in with_gold({"function": f"{tmp_path / 'compares.py'}:longer"})
    assert "no run folder" in refused("evaluate", frontier_recipe({"run": str(tmp_path / "nowhere")}))
    assert "a run of `align reward`" in refused("evaluate", frontier_recipe({"run": str(reward_run)}))
    assert "there is no judge 'x'" in refused("evaluate", frontier_recipe({"gold": "x"}))
    other = str(other_reward_run.parent / "base")
    models = {"models": {"base": other}}
    assert "has another vocabulary than the base" in refused("evaluate", frontier_recipe(**models))
    assert not (tmp_path / "home/out").exists()


# --- the numbers, from runs whose truth is known --------------------------------------------------------------------

KLS = (0.25, 1.0, 2.25, 4.0, 6.25, 9.0)


def run_with(gold: Callable[[float], float], prompts: int = 150, noise: float = 0.6) -> dict[str, Any]:
    """Six checkpoints at √KL ½ to 3 whose gold reward follows `gold`, while the one in training rises by 1 a √nat."""
    rng = np.random.default_rng(0)
    drawn = rng.normal(size=(prompts, 8))
    reached = []
    for step, kl in enumerate(KLS, start=1):
        d = math.sqrt(kl)
        scores = {"reward": d + noise * rng.normal(size=prompts), "gold": gold(d) + noise * rng.normal(size=prompts)}
        reached.append(Reached(f"step {step}", step, kl + 0.3 * rng.normal(size=prompts), scores))  # type: ignore[arg-type]
    true = 0.5 * drawn + rng.normal(size=drawn.shape)
    return frontier_numbers("base", {"reward": drawn, "gold": true}, reached, "the gold judge")


def test_a_run_that_went_too_far() -> None:
    """d(2 - 0.7 log d … ) falls after √KL 1.5: the second and third checkpoint are its top, and can't be told apart."""
    found = run_with(lambda d: 1.8 * d * (1 - d / 3))
    assert found["recommended"] in ("step 2", "step 3")
    assert found["fall"]["to"] == "step 6"
    low, high = found["peak"]["interval"]
    assert 1 < low < found["peak"]["sqrt_kl"] < high < 2.2
    assert f"Recommended is {found['recommended']}: by the gold judge it is +" in found["words"]
    assert "and then falls" in found["words"]


def test_a_run_that_may_go_on() -> None:
    found = run_with(lambda d: 0.8 * d)
    assert found["recommended"] == "step 6"
    assert found["peak"] is None and found["fall"] is None
    assert "No fall of the gold reward is shown, up to √KL 3.0" in found["words"]


def test_of_checkpoints_that_can_not_be_told_apart_the_nearest_is_recommended() -> None:
    found = run_with(lambda d: 1.0 if d > 1.2 else 0.0)
    assert found["recommended"] == "step 3"
    gold = {point["label"]: point["gold"]["mean"] for point in found["points"] if point["kind"] == "checkpoint"}
    best = max(gold, key=lambda label: gold[label])
    assert best != "step 3"
    assert f"{best.capitalize()} has the highest gold reward" in found["words"]
    assert "can't be told apart from step 3, which is nearer to base" in found["words"]
    assert found["peak"] is None


def test_no_checkpoint_is_recommended_that_is_not_shown_to_be_better() -> None:
    for gold in (lambda d: 0.0, lambda d: -0.5 * d):
        found = run_with(gold)
        assert found["recommended"] == "base"
        assert found["peak"] is None
        assert "No checkpoint is shown to be better than base by the gold judge" in found["words"]


def test_best_of_n_is_the_honest_rival() -> None:
    """Best of 8 by the training reward wins 0.5 × 1.42 of the gold one (the expected highest of 8 normal draws)."""
    weak = run_with(lambda d: 0.15 * d)
    eight = next(point for point in weak["points"] if point["label"] == "best of 8")
    assert eight["gold"]["mean"] * weak["base"]["gold"]["std"] == pytest.approx(0.5 * 1.4236, abs=0.15)
    assert "The best of 8 of base, without any training, is shown to be better than" in weak["words"]
    strong = run_with(lambda d: 1.5 * d)
    assert "without any training, is shown to be worse than step 6" in strong["words"]


def test_best_of_n_can_go_too_far() -> None:
    """The truth likes scores up to 1 standard deviation, and takes off for more: best of 4 picks 1.03 on average."""
    drawn = np.random.default_rng(2).normal(size=(200, 64))
    found = frontier_numbers("base", {"reward": drawn, "gold": -np.abs(drawn - 1)}, [], "gold")
    assert found["fits"]["bon"]["gold"]["peak"] is not None
    assert "Best of n, too, can go too far: it wins most at √KL" in found["words"]
    assert "about n = 4." in found["words"] or "about n = 8." in found["words"]


def test_without_checkpoints_off_the_base_there_is_best_of_n_alone() -> None:
    drawn = np.random.default_rng(1).normal(size=(30, 6))
    found = frontier_numbers("base", {"reward": drawn, "gold": drawn}, [], "gold")
    assert [point["label"] for point in found["points"]] == ["best of 2", "best of 4", "best of 6"]
    assert found["fits"]["rl"] == {"reward": None, "gold": None}
    assert found["recommended"] == "base"
    json.dumps(found, allow_nan=False)


def test_scores_that_are_all_the_same_divide_by_nothing() -> None:
    same = np.ones((20, 4))
    reached = [Reached("step 1", 1, np.full(20, 0.5), {"reward": np.full(20, 2.0), "gold": np.ones(20)})]
    found = frontier_numbers("base", {"reward": same, "gold": same}, reached, "gold")
    assert found["points"][-1]["gold"]["mean"] == 0
    assert found["recommended"] == "base"
    json.dumps(found, allow_nan=False)
