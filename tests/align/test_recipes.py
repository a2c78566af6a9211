"""The recipes: nothing stands there twice, and what they say of themselves is what `align plan` says."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from align.config import read_recipe
from align.models.load import ModelSource
from align.plan import sizes
from benchmarks import recipe_table
from benchmarks.recipe_table import KINDS, MODELS, ROOT, STAGES, Launch, launch_of

RECIPES = recipe_table.recipes()
# As the hub counts them, tied weights once. A typo in a shape gives another number.
PARAMETERS = {
    "SmolLM2-135M-Instruct": 134_515_008,
    "SmolLM2-360M-Instruct": 361_821_120,
    "SmolLM2-1.7B-Instruct": 1_711_376_384,
    "Qwen3-0.6B": 596_049_920,
    "Qwen3-4B-Instruct-2507": 4_022_468_096,
    "Qwen3-8B": 8_190_735_360,
    "Llama-3.2-1B-Instruct": 1_235_814_400,
    "Llama-3.1-8B-Instruct": 8_030_261_248,
    "Llama-3.3-70B-Instruct": 70_553_706_496,
    "gemma-3-270m-it": 268_098_176,
    "gemma-3-4b-it": 4_300_079_472,
    "Mistral-7B-Instruct-v0.3": 7_248_023_552,
}


def named(path: Path) -> str:
    return str(path.relative_to(ROOT / "recipes"))


def own_keys(path: Path) -> dict[str, Any]:
    """What stands in the file itself."""
    keys: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return keys


@pytest.mark.parametrize("path", RECIPES, ids=named)
def test_a_recipe_repeats_nothing_of_its_defaults(path: Path) -> None:
    own = own_keys(path)
    if "defaults" not in own:
        assert path.parts[-3] == "any-model"
        return
    below = read_recipe(path.parent / own.pop("defaults"), [])
    assert not {key for key, value in own.items() if key in below and below[key] == value}


@pytest.mark.parametrize("path", [path for path in RECIPES if path.parts[-3] != "any-model"], ids=named)
def test_a_model_has_a_recipe_of_its_own_where_more_than_its_name_differs(path: Path) -> None:
    own = read_recipe(path, []) | {"model_name_or_path": "any"}
    for other in RECIPES:
        if other != path and other.parts[-2:] == path.parts[-2:]:
            assert own != read_recipe(other, []) | {"model_name_or_path": "any"}, other


def test_every_model_has_every_stage() -> None:
    """LoRA and QLoRA of all, whole models where memory and sense allow; of 70 billion QLoRA only."""
    found = {(model, stage, kind): launch_of(model, stage, kind)
             for model in MODELS for stage in STAGES for kind in KINDS}  # fmt: skip
    for (model, stage, kind), launch in found.items():
        left_out = kind != "qlora" if model.size > 30 else (stage, kind) == ("ppo", "full") and model.size > 2
        assert (launch is None) == left_out, (model, stage, kind)
        if launch is not None:
            assert (ROOT / "recipes" / launch.recipe).is_file()
            assert Path(launch.recipe).stem == kind
    lines = [launch.line(inputs=False) for launch in found.values() if launch]
    assert len(set(lines)) == len(lines)


def test_a_launch_line_starts_what_it_says() -> None:
    """Its options are the launcher's and the recipe's."""
    qwen = Launch("any-model/dpo/qlora.yaml", "Qwen/Qwen3-8B")
    assert qwen.line(inputs=False) == "align dpo recipes/any-model/dpo/qlora.yaml --model_name_or_path Qwen/Qwen3-8B"
    large = launch_of(MODELS[-1], "sft", "qlora")
    assert large is not None
    assert large.line(inputs=True) == (
        "align sft recipes/llama-3.3-70b-instruct/sft/qlora.yaml --dataset_name my-preferences --output_dir runs/sft"
        " --accelerate_config fsdp2 --num_processes 4"
    )


def test_headers_and_table_are_what_the_script_writes() -> None:
    for path, text in recipe_table.texts().items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: python benchmarks/recipe_table.py"


def test_no_number_is_of_an_older_recipe() -> None:
    current = {launch.line(inputs=False): launch for launch in recipe_table.launches()}
    for line, needs in recipe_table.known().items():
        assert needs.keys == recipe_table.keys_sha256(current[line]), f"{line}: python benchmarks/recipe_table.py"


def check_plan(launch: Launch) -> None:
    said, now = recipe_table.needs_of(launch), recipe_table.planned(launch)
    assert said is not None
    assert said.memory == pytest.approx(now.memory, rel=0.1)
    assert said.disk == pytest.approx(now.disk, rel=0.1)
    assert said.seconds == pytest.approx(now.seconds, rel=0.1, abs=60)
    assert said.card == now.card


SAMPLE = Launch("any-model/sft/lora.yaml", "meta-llama/Llama-3.2-1B-Instruct")


def test_a_plan_is_what_it_was() -> None:
    check_plan(SAMPLE)


@pytest.mark.slow
def test_all_plans_are_what_they_were() -> None:
    for launch in recipe_table.launches():
        if recipe_table.needs_of(launch):
            check_plan(launch)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_shape_is_that_of_the_model(name: str) -> None:
    assert name in {model.name.split("/")[1] for model in MODELS}
    source = ModelSource(name, recipe_table.shape(f"org/{name}"), None)
    assert sizes.count(sizes.empty_model(source, torch.bfloat16).parameters()) == PARAMETERS[name]
