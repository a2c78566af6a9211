"""RLOO and GRPO: TRL's trainers, with PPO's prompts, rewards, run folders and sentences."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from align.models.load import find_model, load_causal_lm, load_tokenizer
from align.models.rewards import load_rewards
from align.models.sampling import end_ids
from align.train.online import OnlineArguments, reward_function
from tests.align.conftest import PROMPTS, SAY, WORDS, done, ppo_trainer, refused, write_recipe, write_rows

FUNCTIONS = """
import json, os, pathlib

def concise(completions, **columns):
    return [-float(len(turns[-1]["content"].split())) for turns in completions]

def liked(completions, what, **columns):
    return [None if word == "sun" else 1.0 for word in what]

def heard(prompts, completions, **columns):
    with open(pathlib.Path(__file__).parent / "heard.jsonl", "a") as stream:
        for number, (prompt, turns) in enumerate(zip(prompts, completions, strict=True)):
            row = {key: values[number] for key, values in columns.items()}
            stream.write(json.dumps({"turns": prompt, "text": turns[-1]["content"], **row}) + "\\n")
    return [0.0] * len(prompts)

def silent(completions, **columns):
    return [None] * len(completions)

def broken(completions, **columns):
    return [1 / 0]
"""
VERBS = ["rloo", "grpo"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Functions, and prompts with columns whose names mean something to TRL."""
    folder = tmp_path_factory.mktemp("online")
    (folder / "f.py").write_text(FUNCTIONS)
    rows = [{"prompt": f"Say {word}.", "what": word, "images": "none", "completion": "x"} for word in WORDS]
    write_rows(folder / "prompts.jsonl", [*rows, {**rows[0], "prompt": "Say soup. " * 60}])
    return folder


@pytest.fixture()
def recipe(tiny: Path, home: Path, tmp_path: Path) -> Any:
    def make(*functions: str, **keys: Any) -> Path:
        right: dict[str, Any] = {"model_name_or_path": str(tiny), "dataset_name": str(home / "prompts.jsonl")}
        right |= {"output_dir": str(tmp_path / "run"), "use_peft": True, "lora_r": 4, "learning_rate": 5e-3}
        right |= {"per_device_train_batch_size": 8, "num_generations": 4, "max_completion_length": 10}
        right |= {"max_steps": 2, "save_strategy": "no", "beta": 0.02, "seed": 5}
        right |= {"reward_funcs": [f"{home / 'f.py'}:{name}" for name in functions]} if functions else {}
        return write_recipe(tmp_path / "recipe.yaml", **{**right, **keys})

    return make


def metrics(folder: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row for row in rows if "loss" in row]


@pytest.mark.parametrize("verb", VERBS)
def test_the_known_reward_rises(verb: str, recipe: Any, tiny: Path, tmp_path: Path) -> None:
    said = done(verb, recipe("concise", max_steps=10, per_device_train_batch_size=24, num_generations=8))
    assert "1 of 13 prompts are too long and left out" in said.err
    rows = metrics(tmp_path / "run")
    rewards = [row["reward"] for row in rows]
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 1
    assert rewards == [row["rewards/concise/mean"] for row in rows]
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert rows[-1]["kl"] > 0.01

    source = find_model(str(tmp_path / "run"))
    assert (source.adapter, source.base) == (str(tmp_path / "run"), str(tiny))
    assert load_causal_lm(source).active_adapters == ["default"]
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert (manifest["verb"], manifest["status"], manifest["steps"]) == (verb, "finished", 10)
    assert (manifest["prompts"], manifest["prompts_dropped"], manifest["recipe"]["disable_dropout"]) == (12, 1, True)


def test_a_score_is_the_one_that_ppo_gives(tiny: Path, reward_run: Path, other_reward_run: Path, home: Path) -> None:
    """An ensemble, one of it on another base, and a function that abstains; clipped, and fined for not ending."""
    functions = [f"{home / 'f.py'}:{name}" for name in ("concise", "liked")]
    keys: dict[str, Any] = {"reward_weights": [1.0, 0.3, 0.5], "ensemble": "mean_minus_std", "ensemble_std_coef": 0.5}
    keys |= {"score_clip": 0.8, "missing_eos_penalty": 0.7}
    trainer = ppo_trainer(
        tiny,
        [str(reward_run), str(other_reward_run), *functions],
        home / "never",
        response_length=4,
        batch_size=20,
        **keys,
    )
    rollouts = trainer._roll_out(1)
    assert {rollout.ended for rollout in rollouts} == {True, False}
    assert any(abs(rollout.score) == 0.8 for rollout in rollouts if rollout.ended)

    args = OnlineArguments(reward_model_path=[str(reward_run), str(other_reward_run)], reward_funcs=functions, **keys)
    source = find_model(str(tiny))
    tokenizer = load_tokenizer(source)
    rows = [{"prompt": prompt, "what": what} for prompt, what in zip(PROMPTS, SAY, strict=True)]
    function = reward_function(
        load_rewards(args, "cpu", 3), rows, tokenizer, set(end_ids(load_causal_lm(source), tokenizer)), args
    )
    told: dict[str, float] = {}
    scores = function(
        prompts=None,
        completions=None,
        completion_ids=[rollout.response for rollout in rollouts],
        row=[PROMPTS.index(rollout.turns) for rollout in rollouts],
        log_metric=told.__setitem__,
        trainer_state=None,
    )
    assert scores == pytest.approx([rollout.score for rollout in rollouts], abs=1e-5)
    for name in ("reward_model", "concise", "liked", "spread"):
        parts = [rollout.parts[name] for rollout in rollouts if rollout.parts[name] is not None]
        assert told[f"rewards/{name}/mean"] == pytest.approx(sum(parts) / len(parts), abs=1e-5)


def test_a_reward_run_on_a_base_in_4_bits_scores_as_in_ppo(tiny: Path, reward_run: Path, tmp_path: Path) -> None:
    """Where PPO's reward run shares a quantised base, it is quantised here, too."""
    from trl import ModelConfig

    def in_4_bits() -> Any:
        return ModelConfig(dtype="auto", use_peft=True, load_in_4bit=True)

    shared = ppo_trainer(tiny, reward_run, tmp_path / "never", model_args=in_4_bits()).setup.rewards
    args = OnlineArguments(reward_model_path=[str(reward_run)])
    alone = load_rewards(args, "cpu", 4, find_model(str(tiny)), in_4_bits())
    whole = load_rewards(args, "cpu", 4)
    texts = ["red", "cat dog fox", "", "soup soup soup soup soup soup", "moon star"]
    scores = alone(PROMPTS, texts).total
    assert scores == pytest.approx(shared(PROMPTS, texts).total, abs=1e-4)
    assert scores != pytest.approx(whole(PROMPTS, texts).total, abs=1e-3)


@pytest.mark.parametrize("verb", VERBS)
def test_a_reward_run_and_functions_together(
    verb: str, recipe: Any, reward_run: Path, home: Path, tmp_path: Path
) -> None:
    (home / "heard.jsonl").unlink(missing_ok=True)
    keys: dict[str, Any] = {"reward_model_path": str(reward_run), "reward_weights": [2.0, 0.5, 1.0]}
    written = recipe("liked", "heard", **keys, max_steps=1, per_device_train_batch_size=32)
    done(verb, written)
    heard = [json.loads(line) for line in (home / "heard.jsonl").read_text().splitlines()][2:]  # two to try it out
    assert len(heard) == 32
    assert {row["what"] for row in heard} > {"sun"}
    assert {(row["images"], row["completion"]) for row in heard} == {("none", "x")}
    assert all(row["turns"] == [{"role": "user", "content": f"Say {row['what']}."}] for row in heard)

    functions = json.loads(written.read_text())["reward_funcs"][:1]
    args = OnlineArguments(reward_model_path=[str(reward_run)], reward_funcs=functions, reward_weights=[2.0, 0.5])
    worth = load_rewards(args, "cpu", 4)(
        [row["turns"] for row in heard], [row["text"] for row in heard], {"what": [row["what"] for row in heard]}
    )
    (row,) = metrics(tmp_path / "run")
    total = [score for score in worth.total if score is not None]
    assert row["reward"] == pytest.approx(sum(total) / len(total), abs=1e-4)
    by_model = [score for score in worth.parts["reward_model"] if score is not None]
    assert row["rewards/reward_model/mean"] == pytest.approx(sum(by_model) / len(by_model), abs=1e-4)
    assert (row["rewards/liked/mean"], row["completions/abstained"]) == (1.0, 0.0)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert [(parent["folder"], parent["verb"]) for parent in manifest["parents"]] == [(str(reward_run), "reward")]
    assert set(manifest["inputs"]) == {"model", "reward_model", "reward_function_1", "dataset"}


@pytest.mark.parametrize("verb", VERBS)
def test_abstaining(verb: str, recipe: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Now and then it costs a response its say; always, it stops the run."""
    done(verb, recipe("liked", per_device_train_batch_size=48, max_steps=1))
    (row,) = metrics(tmp_path / "run")
    assert row["completions/abstained"] == pytest.approx(1 / 12)
    assert row["reward"] == 1.0
    assert not caplog.records
    said = refused(verb, recipe("silent", output_dir=str(tmp_path / "silent")))
    assert "step 1: every reward source abstained on all responses" in said


@pytest.mark.parametrize("verb", VERBS)
def test_resumed_it_ends_where_the_unbroken_run_ends(verb: str, recipe: Any, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"max_steps": 6, "save_strategy": "steps", "save_steps": 2, "num_iterations": 2}
    written = recipe("concise", **keys, gradient_accumulation_steps=2, lora_dropout=0.1, eval_strategy="no")
    done(verb, written)
    folder = tmp_path / "run"
    unbroken, rewards = load_file(folder / "adapter_model.safetensors"), [row.get("reward") for row in metrics(folder)]
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "status": "running"}))
    for name in ("checkpoint-4", "checkpoint-6"):
        shutil.rmtree(folder / name)
    (folder / "adapter_model.safetensors").unlink()
    assert "checkpoint-2" in done(verb, written, "--resume").err
    resumed = load_file(folder / "adapter_model.safetensors")
    assert unbroken.keys() == resumed.keys()
    assert all(torch.allclose(unbroken[name], resumed[name], atol=1e-6) for name in unbroken)
    assert [row.get("reward") for row in metrics(folder)] == pytest.approx(rewards)


def test_going_on_with_an_adapter_and_whole_models(recipe: Any, tiny: Path, preferences: Path, tmp_path: Path) -> None:
    """The reference is what training starts from; whole models can be trained; held-out prompts can be looked at. What
    comes out is a model to evaluate.
    """
    done("rloo", recipe("concise", output_dir=str(tmp_path / "first")))
    keys: dict[str, Any] = {"eval_strategy": "steps", "eval_steps": 1, "per_device_eval_batch_size": 24, "beta": 0.1}
    keys["eval_dataset_name"] = str(write_rows(tmp_path / "more.jsonl", [{"prompt": "Say sun.", "what": "sun"}]))
    keys["allow"] = ["leakage"]  # it is one of the prompts that are trained on, too
    done("grpo", recipe("concise", model_name_or_path=str(tmp_path / "first"), **keys))
    folder = tmp_path / "run"
    assert metrics(folder)[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert find_model(str(folder)).base == str(tiny)
    assert sum("eval_reward" in json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()) == 2
    done("rloo", recipe("concise", use_peft=False, output_dir=str(tmp_path / "whole"), learning_rate=1e-4))
    assert metrics(tmp_path / "whole")[0]["kl"] == pytest.approx(0, abs=1e-6)
    assert find_model(str(tmp_path / "whole")).adapter is None

    (tmp_path / "truth.py").write_text("def shorter(prompt, text):\n    return -float(len(text.split()))\n")
    models = {"base": str(tiny), "rloo": str(tmp_path / "first"), "grpo": str(folder), "whole": str(tmp_path / "whole")}
    more = {"judges": {"truth": {"truth": f"{tmp_path / 'truth.py'}:shorter"}}, "cache_dir": None}
    more |= {"dataset_name": str(preferences), "max_new_tokens": 8}
    done("evaluate", write_recipe(tmp_path / "e.yaml", models=models, output_dir=str(tmp_path / "e"), **more))
    manifest = json.loads((tmp_path / "e" / "manifest.json").read_text())
    assert [parent["verb"] for parent in manifest["parents"]] == ["rloo", "grpo", "rloo"]


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({}, "no reward: name a reward run in `reward_model_path`"),
        ({"reward_funcs": "nowhere.py:f"}, "no such file"),
        ({"reward_funcs": "f.py:broken"}, "reward function broken: ZeroDivisionError"),
        ({"reward_funcs": "f.py:concise", "reward_weights": [1, 2]}, "2 weights for 1 sources (concise)"),
        ({"reward_model_path": "tiny"}, "not a reward model"),
        ({"score_clip": 0}, "key `score_clip`: 0.0 is not a number above 0"),
        ({"ensemble": "max"}, "key `ensemble`: 'max' is not one of 'mean', 'min', 'mean_minus_std'"),
        ({"ensemble_std_coef": -1}, "key `ensemble_std_coef`: -1.0 is not a number of 0 or more"),
        ({"reward_clip_range": [-1, 1]}, "use `score_clip: X`"),
        ({"response_length": 5}, "unknown key `response_length`"),
        ({"eval_strategy": "epoch"}, "one file without a held-out split"),
        ({"max_prompt_length": 3}, "every one of its 13 prompts is too long"),
        ({"max_completion_length": None}, "say how many new tokens"),
        ({"num_generations": 3}, "must be divisible by num_generations"),
        ({"per_device_train_batch_size": 64}, "12 prompts, and responses to 16 are made at once"),
        ({"reward_funcs": "f.py:concise", "save_strategy": "steps", "num_iterations": 3}, "not a multiple of 3"),
        ({"reward_funcs": "f.py:concise", "temperature": 0}, "`temperature`"),
        ({"model_name_or_path": "./nowhere", "reward_funcs": "f.py:concise"}, "no such folder"),
    ],
)
def test_what_is_refused(keys: dict[str, Any], said: str, recipe: Any, home: Path, tiny: Path, tmp_path: Path) -> None:
    if str(keys.get("reward_funcs", "")).startswith("f.py"):
        keys = {**keys, "reward_funcs": f"{home}/{keys['reward_funcs']}"}
    if "reward_model_path" in keys:
        keys = {**keys, "reward_model_path": str(tiny)}
    for verb in VERBS:
        assert said in refused(verb, recipe(**keys))
    assert not (tmp_path / "run").exists()
