"""One stage on top of another: each says which run it comes from, and stands on what that run was trained with."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from align.evaluate.lineage import lineage_of, own_weights, runs_behind, trained_by_weights
from align.run.manifest import hash_weights
from preferences.files import sha256_json
from tests.align.conftest import PPO, TRAIN, done, refused, write_recipe, write_rows


@pytest.fixture(scope="module")
def stages(tiny: Path, pairs_file: Path, reward_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base of its own, an SFT adapter on it, DPO and PPO on top of that; the reward run stands on the same base."""
    home = tmp_path_factory.mktemp("chain")
    rows = [json.loads(line) for line in pairs_file.read_text().splitlines()][:8]
    texts = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows]
    data = {"sft": write_rows(home / "sft.jsonl", texts), "dpo": pairs_file, "ppo": pairs_file}
    models = {"sft": tiny, "dpo": home / "sft", "ppo": home / "sft"}
    for verb, model in models.items():
        keys: dict[str, Any] = {"model_name_or_path": str(model), "dataset_name": str(data[verb])}
        keys |= {**PPO, "reward_model_path": str(reward_run)} if verb == "ppo" else TRAIN
        if verb == "sft":
            keys |= {"learning_rate": 1e-3, "max_steps": 2, "save_steps": 1, "save_strategy": "steps"}
        done(verb, write_recipe(home / f"{verb}.yaml", **keys), "--output_dir", home / verb)
    return {"base": tiny, "reward": reward_run} | {verb: home / verb for verb in models}


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def parents(folder: Path) -> list[tuple[str, str]]:
    """(verb, folder) of each parent; its manifest is the very one."""
    found = manifest(folder)["parents"]
    for parent in found:
        assert parent["manifest_sha256"] == sha256_json(manifest(Path(parent["folder"])))
    return [(parent["verb"], parent["folder"]) for parent in found]


def test_every_stage_names_its_parents(stages: dict[str, Path]) -> None:
    assert parents(stages["sft"]) == []
    assert parents(stages["dpo"]) == [("sft", str(stages["sft"]))]
    assert parents(stages["ppo"]) == [("sft", str(stages["sft"])), ("reward", str(stages["reward"]))]
    for verb in ("dpo", "ppo"):
        assert [found["verb"] for found in runs_behind(str(stages[verb]))[0]] == [verb, "sft"]
        assert manifest(stages[verb])["inputs"]["model"]["sha256"] == {
            str(stages[folder]): hash_weights(stages[folder]) for folder in ("sft", "base")
        }


@pytest.mark.slow
def test_a_checkpoints_parent_is_the_run_around_it(stages: dict[str, Path], pairs_file: Path, tmp_path: Path) -> None:
    checkpoint = next(stages["sft"].glob("checkpoint-*"))
    keys = {**TRAIN, "model_name_or_path": str(checkpoint), "dataset_name": str(pairs_file)}
    done("dpo", write_recipe(tmp_path / "dpo.yaml", **keys), "--output_dir", tmp_path / "dpo")
    assert [verb for verb, _ in parents(tmp_path / "dpo")] == ["sft"]


def test_the_end_of_a_chain_is_exported_with_its_history(stages: dict[str, Path], tmp_path: Path) -> None:
    """PPO on SFT's adapter: as plain weights it still comes from both, and from the reward run that trained it."""
    done("export", stages["ppo"], "--merge", "--out", tmp_path / "merged")
    assert parents(tmp_path / "merged") == [("ppo", str(stages["ppo"]))]
    assert [found["verb"] for found in runs_behind(str(tmp_path / "merged"))[0]] == ["ppo", "sft"]
    assert trained_by_weights(lineage_of(str(tmp_path / "merged")), own_weights(str(stages["reward"])))
    assert manifest(tmp_path / "merged")["proof"]["within_tolerance"] is True


def test_the_adapter_goes_on_where_its_parent_left_it(stages: dict[str, Path]) -> None:
    """The first step of DPO is the reference, which is the SFT adapter and not the bare base; so it is in PPO."""
    first = json.loads((stages["dpo"] / "metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(0.693147, abs=1e-4)
    first = json.loads((stages["ppo"] / "metrics.jsonl").read_text().splitlines()[0])
    assert first["objective/kl"] == 0.0


@pytest.fixture()
def copied(stages: dict[str, Path], tmp_path: Path) -> dict[str, Path]:
    """The base and the SFT run on it, to change: the run's manifest says that it was trained on this very base."""
    for name in ("base", "sft", "reward"):
        shutil.copytree(stages[name], tmp_path / name)
    for name in ("sft", "reward"):
        for file in ("manifest.json", "adapter_config.json"):
            path = tmp_path / name / file
            path.write_text(path.read_text().replace(str(stages["base"]), str(tmp_path / "base")))
    return {name: tmp_path / name for name in ("base", "sft", "reward")}


@pytest.fixture()
def refused_next(copied: dict[str, Path], pairs_file: Path, tmp_path: Path) -> Any:
    """What `align dpo`, or `align ppo` with the reward run, says to the SFT run that was changed."""

    def run(verb: str = "dpo") -> str:
        keys = {"model_name_or_path": str(copied["sft"]), "dataset_name": str(pairs_file)}
        keys |= TRAIN if verb == "dpo" else {**PPO, "reward_model_path": str(copied["reward"])}
        sentence = refused(verb, write_recipe(tmp_path / "next.yaml", **keys), "--output_dir", tmp_path / "next")
        assert not (tmp_path / "next").exists()
        return sentence

    return run


def change(path: Path, **keys: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


@pytest.mark.parametrize("verb", ["dpo", "ppo"])
def test_a_base_with_other_weights(copied: dict[str, Path], refused_next: Any, verb: str) -> None:
    from safetensors.torch import load_file, save_file

    path = copied["base"] / "model.safetensors"
    weights = load_file(path)
    weights["model.norm.weight"] = weights["model.norm.weight"] * 1.01
    save_file(weights, path, metadata={"format": "pt"})
    assert f"the weights in {copied['base']} have changed since it was trained" in refused_next(verb)


def test_a_base_with_another_config(copied: dict[str, Path], refused_next: Any) -> None:
    change(copied["base"] / "config.json", rms_norm_eps=0.01)
    assert "config.json says `rms_norm_eps`: 0.01, and said 1e-06 when it was trained" in refused_next()


def test_another_special_token(copied: dict[str, Path], refused_next: Any) -> None:
    change(copied["sft"] / "tokenizer_config.json", eos_token="<|im_start|>")
    sentence = refused_next()
    assert "the eos_token of its tokenizer has changed since it was trained: '<|im_start|>', which was" in sentence


def test_another_vocabulary(copied: dict[str, Path], refused_next: Any) -> None:
    path = copied["sft"] / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 400, "content": "<tool>"})
    path.write_text(json.dumps(tokenizer))
    count = manifest(copied["sft"])["inputs"]["model"]["tokenizer"]["vocabulary"]
    words = f"has changed since it was trained: {count + 1} tokens ({count} tokens then)"
    assert words in refused_next()


def test_another_template(copied: dict[str, Path], refused_next: Any) -> None:
    path = copied["sft"] / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|im_start|>", "<|begin|>"))
    assert "sft: its chat template has changed since it was trained" in refused_next()


def trained_with(run: Path) -> None:
    """Write into a run's manifest that it was trained with the tokenizer that now lies in its folder."""
    from align.models.chain import tokenizer_facts
    from align.models.load import find_model, load_tokenizer

    found = manifest(run)
    found["inputs"]["model"]["tokenizer"] = tokenizer_facts(load_tokenizer(find_model(str(run))))
    (run / "manifest.json").write_text(json.dumps(found))


def test_a_reward_adapter_on_the_same_base_with_another_template(copied: dict[str, Path], refused_next: Any) -> None:
    path = copied["reward"] / "chat_template.jinja"
    path.write_text(path.read_text().replace("<|im_end|>\n", "<|im_end|>"))
    trained_with(copied["reward"])
    sentence = refused_next("ppo")
    assert "stands on the policy's base, but its chat template is another" in sentence
    assert str(copied["sft"]) in sentence


def test_a_reward_adapter_on_the_same_base_with_another_token(copied: dict[str, Path], refused_next: Any) -> None:
    change(copied["reward"] / "tokenizer_config.json", eos_token="<|im_start|>")
    trained_with(copied["reward"])
    assert "its eos_token is '<|im_start|>', and the policy's '<|im_end|>'" in refused_next("ppo")


def test_a_reward_run_on_another_base_may_read_otherwise(
    stages: dict[str, Path], other_reward_run: Path, pairs_file: Path, tmp_path: Path
) -> None:
    keys = {**PPO, "model_name_or_path": str(stages["sft"]), "dataset_name": str(pairs_file)}
    keys["reward_model_path"] = str(other_reward_run)
    said = done("ppo", write_recipe(tmp_path / "ppo.yaml", **keys), "--output_dir", tmp_path / "ppo")
    assert "it is loaded as a model of its own" in said.err
