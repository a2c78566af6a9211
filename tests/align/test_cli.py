"""The loop through the `align` command on a tiny model: what each verb leaves in its folder, what builds on what."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from align.cli import align as commands
from preferences.contract import read_items
from preferences.files import sha256_file
from tests.align.conftest import align, done, write_recipe, write_rows

SMALL = {"use_peft": True, "lora_r": 4, "max_steps": 2, "learning_rate": 1e-3, "save_strategy": "no", "seed": 7}
PPO = {
    "use_peft": True,
    "lora_r": 4,
    "total_episodes": 8,
    "batch_size": 4,
    "num_ppo_epochs": 1,
    "response_length": 8,
    "seed": 7,
}


@pytest.fixture(scope="session")
def runs(tiny: Path, preferences: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An SFT adapter, DPO going on from it, a reward model starting from it, PPO from DPO: all by the command."""
    home = tmp_path_factory.mktemp("loop")
    folders = {verb: home / verb for verb in ("sft", "dpo", "reward", "ppo")}
    for verb, start in (("sft", tiny), ("dpo", folders["sft"]), ("reward", folders["sft"]), ("ppo", folders["dpo"])):
        keys: dict[str, Any] = {"model_name_or_path": str(start), "dataset_name": str(preferences)}
        keys |= {**PPO, "reward_model_path": str(folders["reward"])} if verb == "ppo" else SMALL
        done(verb, write_recipe(home / f"{verb}.yaml", **keys), "--output_dir", folders[verb])
    return folders


def manifest_of(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return manifest


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return {name: value for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()}


@pytest.mark.parametrize("verb", ["sft", "dpo", "reward", "ppo"])
def test_a_run_folder_says_where_it_came_from(runs: dict[str, Path], tiny: Path, preferences: Path, verb: str) -> None:
    manifest = manifest_of(runs[verb])
    assert (manifest["format"], manifest["verb"], manifest["status"]) == (1, verb, "finished")
    assert manifest["inputs"]["dataset"]["sha256"] == {"manifest.json": sha256_file(preferences / "manifest.json")}
    assert manifest["inputs"]["model"]["sha256"][str(tiny)] == {
        "model.safetensors": sha256_file(tiny / "model.safetensors")
    }
    parents = {"sft": [], "dpo": ["sft"], "reward": ["sft"], "ppo": ["dpo", "reward"]}[verb]
    assert [parent["verb"] for parent in manifest["parents"]] == parents
    assert [parent["folder"] for parent in manifest["parents"]] == [str(runs[parent]) for parent in parents]
    assert {"torch", "transformers", "trl", "peft", "python", "concord"} <= set(manifest["versions"])
    assert manifest["git_commit"] is None or len(manifest["git_commit"].removesuffix("+changes")) == 40
    assert (manifest["seed"], manifest["processes"], manifest["resumed_at"]) == (7, 1, [])
    assert manifest["started_at"] <= manifest["finished_at"]
    assert manifest["started_at"].endswith("Z")
    file = "adapter_model.safetensors"
    assert manifest["weights_sha256"] == {file: sha256_file(runs[verb] / file)}
    steps = [json.loads(line)["step"] for line in (runs[verb] / "metrics.jsonl").read_text().splitlines()]
    assert steps[:2] == [1, 2]


@pytest.mark.parametrize("verb", ["sft", "dpo", "reward", "ppo"])
def test_the_kept_recipe_makes_the_run_again(runs: dict[str, Path], verb: str, tmp_path: Path) -> None:
    kept = runs[verb] / "recipe.yaml"
    assert yaml.safe_load(kept.read_text()) == manifest_of(runs[verb])["recipe"]
    done(verb, kept, "--output_dir", tmp_path / "again")
    first, second = weights(runs[verb]), weights(tmp_path / "again")
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)


def test_dpo_goes_on_with_the_adapter_and_refers_to_it(runs: dict[str, Path]) -> None:
    """Before its first step DPO's policy is its reference, so the loss is log 2 and the margin 0."""
    first = json.loads((runs["dpo"] / "metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert first["rewards/margins"] == pytest.approx(0.0, abs=1e-6)
    sft, dpo = weights(runs["sft"]), weights(runs["dpo"])
    assert sft.keys() == dpo.keys()
    name = next(name for name in sft if "lora_B" in name)
    assert (sft[name] != 0).any()
    assert 0 < (sft[name] - dpo[name]).abs().max() < 0.01  # two steps away from where SFT ended, not from zero


def test_a_reward_run_from_an_sft_adapter_has_a_score_head(runs: dict[str, Path]) -> None:
    config = json.loads((runs["reward"] / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_CLS"
    sft, reward = weights(runs["sft"]), weights(runs["reward"])
    assert set(reward) - set(sft) == {"base_model.model.score.weight"}
    name = next(name for name in sft if "lora_B" in name)
    assert 0 < (sft[name] - reward[name]).abs().max() < 0.01


def test_evaluate_with_a_reward_model_and_the_truth(
    runs: dict[str, Path], tiny: Path, preferences: Path, tmp_path: Path
) -> None:
    truth = tmp_path / "truth.py"
    truth.write_text("def shorter(prompt, text):\n    return -float(len(text))\n")
    recipe = write_recipe(
        tmp_path / "evaluate.yaml",
        models={"base": str(tiny), "dpo": str(runs["dpo"]), "ppo": str(runs["ppo"])},
        judges={"reward": str(runs["reward"]), "truth": {"truth": f"{truth}:shorter"}},
        cache_dir=None,
        dataset_name=str(preferences),
        output_dir=str(tmp_path / "evaluation"),
        max_new_tokens=8,
    )
    said = done("evaluate", recipe)
    folder = tmp_path / "evaluation"
    assert said.out.strip() == str(folder / "report.html")
    assert said.err.splitlines()[-2].startswith("6 prompts are too few to say anything about the ")
    assert "<html" in (folder / "report.html").read_text()
    metrics = json.loads((folder / "metrics.json").read_text())
    cards = {path.name: path.read_text() for path in folder.glob("model-card-*.md")}
    assert set(cards) == {"model-card-dpo.md", "model-card-ppo.md"}
    assert all("6 prompts are too few to say anything about" in text for text in cards.values())
    assert "6 prompts are too few to say anything about the DPO model" in (folder / "report.html").read_text()
    assert (metrics["format"], metrics["prompts"]) == (1, 6)
    assert set(metrics["models"]["dpo"]["judges"]) == {"reward", "truth"}
    low, high = metrics["models"]["dpo"]["judges"]["reward"]["interval"]
    assert 0 <= low <= metrics["models"]["dpo"]["judges"]["reward"]["win_rate"] <= high <= 1
    # a rater of this data always prefers the shorter one, and says so in every held-out pair
    assert metrics["reward_model"]["truth"]["raters"]["accuracy"] == 1.0
    assert metrics["reward_model"]["longer_wins"]["accuracy"] == 0.0
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 6
    assert set(samples[0]["responses"]) == {"base", "dpo", "ppo"}
    manifest = manifest_of(folder)
    assert manifest["status"] == "finished"
    assert {parent["verb"] for parent in manifest["parents"]} == {"dpo", "ppo", "reward"}


def test_what_is_sampled_annotate_can_import(runs: dict[str, Path], preferences: Path, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path / "sample.yaml",
        model_name_or_path=[str(runs["sft"]), str(runs["ppo"])],
        dataset_name=str(preferences),
        system=[None, "Be brief."],
        num_prompts=3,
        num_responses=1,
        max_new_tokens=6,
    )
    file = tmp_path / "items.jsonl"
    done("sample", recipe, "--to-annotate", file)
    items = read_items(file)
    assert len(items) == 3
    assert [len(item.responses) for item in items] == [4, 4, 4]
    assert {response.model for response in items[0].responses} == {
        name for run in ("sft", "ppo") for name in (str(runs[run]), f"{runs[run]} under 'Be brief.'")
    }
    said = done("sample", recipe, "--num_prompts", 1)
    assert "(4)" in said.out


@pytest.mark.parametrize("verb", ["sft", "dpo", "reward"])
def test_full_parameter_training(tiny: Path, preferences: Path, verb: str, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path / "full.yaml",
        **{**SMALL, "use_peft": False, "lora_r": 16},
        model_name_or_path=str(tiny),
        dataset_name=str(preferences),
        output_dir=str(tmp_path / verb),
    )
    done(verb, recipe)
    assert set(manifest_of(tmp_path / verb)["weights_sha256"]) == {"model.safetensors"}
    if verb != "reward":
        done("sample", write_recipe(tmp_path / "s.yaml", model_name_or_path=[str(tmp_path / verb)], num_prompts=1,
                                    dataset_name=str(preferences), max_new_tokens=4))  # fmt: skip
        return
    models = {"base": str(tiny), "copy": str(tiny)}
    evaluate = write_recipe(
        tmp_path / "e.yaml",
        models=models,
        judges={"reward": str(tmp_path / verb)},
        cache_dir=None,
        dataset_name=str(preferences),
        output_dir=str(tmp_path / "evaluation"),
        max_new_tokens=4,
    )
    done("evaluate", evaluate)
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert metrics["reward_model"]["test"]["n"] == 6
    ranking = metrics["reward_model"]["ranking"]
    assert ranking["rankings"] == 6 and 0 <= ranking["roc_auc"]["interval"][0] <= ranking["roc_auc"]["mean"] <= 1
    inspected = json.loads(done("inspect", tmp_path / verb, preferences, "--json").out)
    assert ranking["roc_auc"]["mean"] == pytest.approx(inspected["ranking"]["roc_auc"]["mean"])
    assert ranking["ndcg"]["mean"] == pytest.approx(inspected["ranking"]["ndcg"]["mean"])
    assert ranking["log_loss"] == pytest.approx(inspected["calibration"]["log_loss"], abs=1e-5)
    assert metrics["models"]["copy"]["judges"]["reward"]["win_rate"] == 0.5  # the same draws from the same model


def test_a_local_folder_that_load_dataset_takes(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    data = tmp_path / "hub-style"
    data.mkdir()
    shutil.copy(pairs_file, data / "train.jsonl")
    recipe = write_recipe(tmp_path / "dpo.yaml", **SMALL, model_name_or_path=str(tiny), dataset_name=str(data))
    done("dpo", recipe, "--output_dir", tmp_path / "dpo")
    facts = manifest_of(tmp_path / "dpo")["inputs"]["dataset"]
    assert facts["sha256"] == {"train.jsonl": sha256_file(pairs_file)}


def test_plain_texts_train_and_are_compared(tiny: Path, tmp_path: Path) -> None:
    rows = [{"prompt": f"Say {n}.", "chosen": " red", "rejected": " red red red"} for n in range(6)]
    data = write_rows(tmp_path / "texts.jsonl", rows)
    keys = {"model_name_or_path": str(tiny), "dataset_name": str(data)}
    for verb in ("dpo", "reward"):
        done(verb, write_recipe(tmp_path / "r.yaml", **SMALL, **keys), "--output_dir", tmp_path / verb)
    done("ppo", write_recipe(tmp_path / "p.yaml", **PPO, **keys, reward_model_path=str(tmp_path / "reward")),
         "--output_dir", tmp_path / "ppo")  # fmt: skip
    evaluate = write_recipe(
        tmp_path / "e.yaml",
        models={"base": str(tiny), "ppo": str(tmp_path / "ppo")},
        judges={"reward": str(tmp_path / "reward")},
        cache_dir=None,
        dataset_name=str(data),
        output_dir=str(tmp_path / "evaluation"),
        max_new_tokens=4,
    )
    done("evaluate", evaluate)


def test_ctrl_c_is_no_crash(tiny: Path, pairs_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("align.evaluate.sample.sample", press)
    keys = {"model_name_or_path": [str(tiny)], "dataset_name": str(pairs_file), "max_new_tokens": 4}
    said = align("sample", write_recipe(tmp_path / "s.yaml", **keys))
    assert (said.code, said.err.strip().splitlines()[-1]) == (130, "interrupted")


def test_every_command_says_in_the_list_what_it_does() -> None:
    said = align("--help").out
    assert "..." not in said.split("Commands:")[1]
    for name, command in commands.commands.items():
        short = command.get_short_help_str(60)
        assert re.fullmatch(r"[A-Z].{,58}\.", short), (name, short)
        assert f"  {name} " in said and f" {short}\n" in said


def test_help_and_wrong_words() -> None:
    assert align("--help").code == 0
    assert "--accelerate_config" in align("dpo", "--help").out
    assert align("train").code == 2
    assert align("dpo").code == 2
    assert "align, version" in align("--version").out


def script(name: str) -> str:
    """A command beside this Python, as a user calls it."""
    path = Path(sys.executable).parent / name
    if not path.is_file():
        pytest.skip(f"{name} is not installed beside {sys.executable}")
    return str(path)


def test_chat_reads_turns_until_the_input_ends(runs: dict[str, Path]) -> None:
    turns = "Say red.\n\n" + "soup " * 300 + "\nSay tea.\n"
    said = subprocess.run(
        [script("align"), "chat", str(runs["ppo"]), "--max-new-tokens", "8", "--temperature", "0"],
        input=turns,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.count("model:") == 2
    assert "(a new conversation)" in said.stdout
    assert "too long" in said.stdout
    assert "Traceback" not in said.stderr


def test_the_installed_command_trains(tiny: Path, preferences: Path, tmp_path: Path) -> None:
    """One verb as its own process: keys from the command line, progress on stderr, nothing else on stdout."""
    recipe = write_recipe(tmp_path / "r.yaml", **SMALL, model_name_or_path=str(tiny), dataset_name=str(preferences))
    words = [script("align"), "reward", recipe, "--output_dir=run", "--max_steps", "1", "--learning_rate", "1e-4"]
    said = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=300, env=dict(os.environ))
    assert said.returncode == 0, said.stderr
    assert said.stdout == ""
    assert "step 1/1" in said.stderr
    recipe_kept = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert (recipe_kept["max_steps"], float(recipe_kept["learning_rate"])) == (1, 1e-4)
