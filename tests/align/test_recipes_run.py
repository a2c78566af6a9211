"""Every shape of recipe runs: each architecture that the recipes are for, at toy size, with the recipes' own keys.

Only the model, the data, and how much of everything are other than in the recipe.
"""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from align.config import read_recipe
from align.data.lengths import token_ids
from align.models.load import find_model, load_causal_lm, load_reward_model, load_tokenizer
from align.models.sampling import sample
from align.models.scores import load_scorer
from preferences.errors import BadInput
from tests.align.architectures import ARCHITECTURES, make_toy
from tests.align.conftest import WORDS, done, pair, refused, write_rows

ROOT = Path(__file__).parents[2]
STAGES = ("sft", "reward", "dpo", "ppo")
KINDS = ("lora", "qlora", "full")
LITTLE: dict[str, Any] = {"max_steps": 3, "max_length": 64, "gradient_accumulation_steps": 1, "save_steps": 3}
LITTLE_PPO: dict[str, Any] = {
    "total_episodes": 8,
    "batch_size": 4,
    "num_ppo_epochs": 2,
    "response_length": 6,
    "eval_steps": 2,
    "eval_prompts": 2,
}


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    home = tmp_path_factory.mktemp("toys")
    return {architecture: make_toy(architecture, home / architecture) for architecture in ARCHITECTURES}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as hub data sets are laid out, of pairs that also are demonstrations and prompts."""
    folder = tmp_path_factory.mktemp("data")
    for number, split in enumerate(("train", "validation")):
        rows = []
        for what in WORDS[number * 6 :][:6]:
            row = pair(f"Say {what} and sun.", what, f"{what} dog " * 3)
            rows.append({**row, "completion": row["chosen"]})
        write_rows(folder / f"{split}.jsonl", rows)
    return folder


def recipe_of(architecture: str, stage: str, kind: str) -> Path:
    """The one that a model of this architecture is trained by."""
    model = "smollm2-135m-instruct" if architecture == "smollm2" else "any-model"
    return ROOT / "recipes" / model / stage / f"{kind}.yaml"


def run(recipe: Path, model: Path, data: Path, folder: Path, reward: Path | None = None) -> dict[str, Any]:
    """Train by the recipe; what metrics.jsonl says of the first step."""
    stage = recipe.parent.name
    keys = {**(LITTLE_PPO if stage == "ppo" else LITTLE), "model_name_or_path": model, "output_dir": folder}
    if stage == "ppo":
        keys["reward_model_path"] = reward
    if stage == "sft":
        data = write_rows(folder.parent / "sft.jsonl", [
            {"prompt": row["prompt"], "completion": row["completion"]}
            for row in map(json.loads, (data / "train.jsonl").read_text().splitlines())
        ])  # fmt: skip
    keys["dataset_name"] = data
    done(stage, recipe, *(word for key, value in keys.items() for word in (f"--{key}", value)))
    kept = yaml.safe_load((folder / "recipe.yaml").read_text())  # whole, whatever the recipe stood on
    assert "defaults" not in kept
    assert kept.items() >= {key: value for key, value in read_recipe(recipe, []).items() if key not in keys}.items()
    rows: list[dict[str, Any]] = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return next(row for row in rows if ("objective/kl" if stage == "ppo" else "loss") in row)


def check_what_was_trained(folder: Path, model: Path, kind: str) -> None:
    """Every adapter moved, on the text half of the model only; of a whole model what is not text stayed."""
    if kind == "full":
        before, after = load_file(model / "model.safetensors"), load_file(folder / "model.safetensors")
        kept = before.keys() & after.keys()  # a reward model has another head
        moved = {name for name in kept if not torch.equal(before[name], after[name])}
        seeing = {name for name in before if "vision" in name or "projector" in name}
        assert moved
        assert not moved & seeing
        assert all(name in moved for name in before if name.endswith("_proj.weight") and name not in seeing)
        return
    adapter = load_file(folder / "adapter_model.safetensors")
    assert not [name for name in adapter if "vision" in name or "projector" in name]
    layers = {name.split(".layers.")[1].split(".")[0] for name in adapter if ".layers." in name}
    assert len(layers) == len({name.split(".layers.")[1].split(".")[0] for name in language_weights(model)})
    assert len([name for name in adapter if "lora_B" in name]) == 7 * len(layers)
    assert all(bool(weight.any()) for name, weight in adapter.items() if "lora_B" in name)


def language_weights(model: Path) -> list[str]:
    names = load_file(model / "model.safetensors")
    return [name for name in names if ".layers." in name and "vision" not in name]


def check_chain(
    architecture: str, kind: str, stages: tuple[str, ...], toys: dict[str, Path], data: Path, home: Path
) -> None:
    model = toys[architecture]
    for stage in stages:
        folder = home / stage
        first = run(recipe_of(architecture, stage, kind), model, data, folder, home / "reward")
        if stage == "ppo":
            assert first["objective/kl"] == pytest.approx(0, abs=1e-4)  # before the first update
            rows = [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]
            rows = [row for row in rows if row["step"] == 1]
            alone = load_scorer(str(home / "reward"), "cpu")
            said = alone.scores([row["prompt"] for row in rows], [row["completion"] for row in rows], 2)
            given = [row["score"] + (0 if row["ended"] else 1) for row in rows]  # missing_eos_penalty
            loose = {"lora": 1e-5, "qlora": 0.3, "full": 1e-5}[kind]  # the run alone stands on the base in fp32
            assert given == pytest.approx(said, abs=loose)
            assert first["policy/grad_norm"] > 0
            assert first["val/grad_norm"] > 0  # which weights are kept is up to the looks
        else:
            assert math.isfinite(first["loss"])
            check_what_was_trained(folder, model, kind)


FAST = [("llama", "qlora", ("dpo",)), ("qwen3", "lora", ("sft",)), ("gemma3", "lora", ("reward", "ppo")),
        ("gemma3", "full", ("sft",)), ("mistral", "full", ("dpo",))]  # fmt: skip


@pytest.mark.parametrize(("architecture", "kind", "stages"), FAST)
def test_some_shapes_run(
    architecture: str, kind: str, stages: tuple[str, ...], toys: dict[str, Path], data: Path, tmp_path: Path
) -> None:
    check_chain(architecture, kind, stages, toys, data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_shape_runs(architecture: str, kind: str, toys: dict[str, Path], data: Path, tmp_path: Path) -> None:
    check_chain(architecture, kind, STAGES, toys, data, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_the_recipes_of_70_billion_run(stage: str, toys: dict[str, Path], data: Path, tmp_path: Path) -> None:
    if stage == "ppo":
        run(recipe_of("llama", "reward", "qlora"), toys["llama"], data, tmp_path / "reward")
    recipe = ROOT / "recipes/llama-3.3-70b-instruct" / stage / "qlora.yaml"
    run(recipe, toys["llama"], data, tmp_path / stage, tmp_path / "reward")
    if stage != "ppo":
        check_what_was_trained(tmp_path / stage, toys["llama"], "qlora")


# --- what differs between architectures ---------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_sampling_says_what_a_forward_pass_says(architecture: str, toys: dict[str, Path]) -> None:
    """Greedily, of prompts of several lengths at once: padding, caches and windows change nothing."""
    source = find_model(str(toys[architecture]))
    model, tokenizer = load_causal_lm(source), load_tokenizer(source)
    prompts = [[{"role": "user", "content": "Say " + "red cat " * number}] for number in (1, 3, 20)]
    said = sample(model, tokenizer, prompts, [0, 1, 2], max_new_tokens=20, temperature=0)
    assert len(said.prompts[2]) > 32  # twice the toys' windows
    assert len({len(ids) for ids in said.prompts}) == 3
    for prompt, response in zip(said.prompts, said.responses, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        chosen = logits.gather(1, torch.tensor(response)[:, None])[:, 0]
        assert torch.allclose(chosen, logits.amax(1), atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_response_begins_where_its_prompt_ends(architecture: str, toys: dict[str, Path]) -> None:
    """What is trained on begins with what is sampled from; else the model learns to begin otherwise than asked."""
    tokenizer = load_tokenizer(find_model(str(toys[architecture])))
    prompt = [{"role": "user", "content": "Say red."}]
    ids = token_ids(tokenizer, [*prompt, {"role": "assistant", "content": "red"}])
    start = token_ids(tokenizer, prompt, generation=True)
    assert ids[: len(start)] == start
    assert tokenizer.decode(ids[len(start) :]).strip().startswith("red")
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id)


def test_a_template_has_no_clock_and_no_thoughts(toys: dict[str, Path], tmp_path: Path) -> None:
    llama, qwen = (load_tokenizer(find_model(str(toys[name]))) for name in ("llama", "qwen3"))
    prompt = [{"role": "user", "content": "Say red."}]
    assert "Today Date: 26 Jul 2024" in llama.decode(token_ids(llama, prompt))
    assert qwen.decode(token_ids(qwen, prompt, generation=True)).endswith("<think>\n\n</think>\n\n")
    asked = qwen.apply_chat_template(prompt, add_generation_prompt=True, enable_thinking=True, tokenize=False)
    assert asked.endswith("<|im_start|>assistant\n")
    llama.save_pretrained(tmp_path)  # as a run folder keeps it
    again = load_tokenizer(find_model(str(toys["llama"]))._replace(base=str(tmp_path)))
    assert again.chat_template == llama.chat_template


def test_a_system_turn_that_the_template_would_lose(toys: dict[str, Path], tmp_path: Path) -> None:
    row = pair("Say red.", "red", "red dog")
    row["prompt"].insert(0, {"role": "system", "content": "Be brief."})
    data = write_rows(tmp_path / "pairs.jsonl", [row] * 4)
    keys = ("--dataset_name", data, "--output_dir", tmp_path / "out", "--model_name_or_path")
    for stage in ("dpo", "ppo"):
        recipe = recipe_of("mistral", stage, "lora")
        more = ("--eval_steps", "null", "--patience", "null", "--kl_budget", "null") if stage == "ppo" else ()
        said = refused(stage, recipe, *keys, toys["mistral"], *more)
        assert "leaves the system turn out as soon as a response follows" in said
    assert not (tmp_path / "out").exists()
    tokenizer = load_tokenizer(find_model(str(toys["gemma3"])))
    two = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    with pytest.raises(BadInput, match="refuses a conversation of user, user: Conversation roles must alternate"):
        token_ids(tokenizer, two)


@pytest.mark.parametrize("load", [load_causal_lm, load_reward_model])
def test_of_text_and_images_only_text_is_trained(load: Any, toys: dict[str, Path]) -> None:
    model = load(find_model(str(toys["gemma3"])), trainable=True)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any("language_model" in name for name in trained)
    assert not [name for name in trained if "vision" in name or "projector" in name]
    assert load is load_causal_lm or "score.weight" in trained
