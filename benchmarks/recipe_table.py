"""What the recipes take, by `align plan`: results/recipe_table.json, the header of every recipe, and recipes/README.md.

    python benchmarks/recipe_table.py [--again] [--written]

Of a model only its shape is read: a config.json of model_shapes/, so nothing is fetched. A plan takes some CPU seconds,
and is made anew only where the recipe's keys have changed since; `--again` makes all of them anew. What is not planned
yet stands in the table without numbers.
"""

import argparse
import functools
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

from align.config import read_recipe
from align.plan import sizes
from align.plan.cards import find_card
from align.plan.plan import Plan, plan_run, time_of
from align.run.progress import quiet_libraries, time_left
from preferences.files import sha256_json

ROOT = Path(__file__).resolve().parents[1]
SHAPES = ROOT / "benchmarks/model_shapes"
RESULTS = ROOT / "benchmarks/results/recipe_table.json"
KINDS = ("lora", "qlora", "full")
STAGES = ("sft", "reward", "dpo", "ppo")
LADDER = ("RTX 4090", "L40S", "H100 80GB", "H200")  # the cards that are tried, by memory
FREE = 0.05  # of a card's memory, for the allocator's gaps, as in `align plan`
ROWS = {"sft": "demonstrations", "reward": "pairs", "dpo": "pairs", "kto": "responses", "ppo": "rollouts"}
WIDTH = 120


class Model(NamedTuple):
    """A model that there are recipes for."""

    name: str
    size: float  # billions of parameters
    folder: str  # of its recipes
    words: str  # what else there is to know


_LICENCE = "The hub asks for its licence to be accepted first."
_THOUGHTS = "It answers without a thought first: Concord's chat template says so."
MODELS = (
    Model("HuggingFaceTB/SmolLM2-135M-Instruct", 0.135, "smollm2-135m-instruct", "Runs on a CPU, too."),
    Model("google/gemma-3-270m-it", 0.27, "smollm2-135m-instruct", _LICENCE),
    Model("HuggingFaceTB/SmolLM2-360M-Instruct", 0.36, "smollm2-135m-instruct", "Runs on a CPU, too."),
    Model("Qwen/Qwen3-0.6B", 0.6, "any-model", _THOUGHTS),
    Model("meta-llama/Llama-3.2-1B-Instruct", 1.2, "any-model", f"{_LICENCE} Its template's date is fixed."),
    Model("HuggingFaceTB/SmolLM2-1.7B-Instruct", 1.7, "any-model", ""),
    Model("Qwen/Qwen3-4B-Instruct-2507", 4.0, "any-model", ""),
    Model("google/gemma-3-4b-it", 4.3, "any-model", f"{_LICENCE} Of text and images; only its text half is trained."),
    Model(
        "mistralai/Mistral-7B-Instruct-v0.3",
        7.2,
        "any-model",
        "Its template loses a system turn, so rows that have one are refused. It pads with `<unk>`.",
    ),
    Model("meta-llama/Llama-3.1-8B-Instruct", 8.0, "any-model", _LICENCE),
    Model("Qwen/Qwen3-8B", 8.2, "any-model", _THOUGHTS),
    Model("meta-llama/Llama-3.3-70B-Instruct", 70.6, "llama-3.3-70b-instruct", _LICENCE),
)


class Launch(NamedTuple):
    """A recipe, on a model, and how it is started."""

    recipe: str  # in recipes/
    model: str
    strategy: str | None = None  # a name of accelerate_configs/
    processes: int = 1

    @property
    def verb(self) -> str:
        return Path(self.recipe).parent.name

    def line(self, *, inputs: bool) -> str:
        """The command. inputs: with what it reads and where it writes."""
        words = [f"align {self.verb} recipes/{self.recipe}"]
        if keys_of(self.recipe).get("model_name_or_path", self.model) != self.model:
            words.append(f"--model_name_or_path {self.model}")
        if inputs:
            words.append(f"--dataset_name my-preferences --output_dir runs/{self.verb}")
        if self.strategy:
            words.append(f"--accelerate_config {self.strategy} --num_processes {self.processes}")
        return " ".join(words)


class Needs(NamedTuple):
    """What a launch takes."""

    keys: str  # the hash of the recipe with the model's name
    card: str
    memory: int  # bytes, on each card
    base: int  # of them the base under adapters, or the model; a reward run of its own takes as much
    disk: int
    seconds: float
    rows: int
    prompt: float  # tokens on average
    responses: float


def launch_of(model: Model, stage: str, kind: str) -> Launch | None:
    """How a stage of a model is started; None where it makes no sense."""
    if model.size > 30:
        strategy = "multi_gpu" if stage == "ppo" else "fsdp2"
        return Launch(f"{model.folder}/{stage}/qlora.yaml", model.name, strategy, 4) if kind == "qlora" else None
    if kind == "full" and stage == "ppo" and model.size > 2:  # four whole models, in every process
        return None
    if kind == "full" and model.size > 5:
        return Launch(f"llama-3.1-8b-instruct/{stage}/full.yaml", model.name, "fsdp2", 4)
    return Launch(f"{model.folder}/{stage}/{kind}.yaml", model.name)


def launch_of_file(path: Path) -> Launch:
    """How a recipe is started with the model that it names."""
    recipe = str(path.relative_to(ROOT / "recipes"))
    name = keys_of(recipe).get("model_name_or_path")
    name = str(name or keys_of(recipe)["models"]["base"])
    model = next(model for model in MODELS if model.name == name)
    found = launch_of(model, path.parent.name, path.stem) if path.parent.name in STAGES else None
    return found if found and found.recipe == recipe else Launch(recipe, name)


@functools.cache
def keys_of(recipe: str) -> dict[str, Any]:
    return read_recipe(ROOT / "recipes" / recipe, [])


def keys_sha256(launch: Launch) -> str:
    return sha256_json([keys_of(launch.recipe), launch])


def known() -> dict[str, Needs]:
    """The plans that were made, by launch line."""
    if not RESULTS.is_file():
        return {}
    return {line: Needs(**needs) for line, needs in json.loads(RESULTS.read_text(encoding="utf-8")).items()}


def needs_of(launch: Launch) -> Needs | None:
    """What was planned for it; None where that is not there, or of other keys."""
    found = known().get(launch.line(inputs=False))
    return found if found and found.keys == keys_sha256(launch) else None


def planned(launch: Launch) -> Needs:
    """Its plan, on the first card that it fits."""
    found = _planned(launch)
    total, texts = found.memory.total, found.asked.texts
    card = next((card for card in map(find_card, LADDER) if total <= card.memory * 1e9 * (1 - FREE)), None)
    if card is None:
        raise SystemExit(f"{launch.line(inputs=False)}: {total / 1e9:.1f} GB, and no card has that")
    if launch.processes > 1:
        card = find_card("H100 80GB")
    time = time_of(found.asked._replace(card=card), found.work)
    assert time is not None
    base = found.memory.parts[0].bytes
    rest = (round(time.total), texts.rows, texts.prompt, texts.responses)
    return Needs(keys_sha256(launch), card.name, total, base, found.disk.total, *rest)


def _planned(launch: Launch) -> Plan:
    from huggingface_hub import constants

    keys = {**keys_of(launch.recipe), "model_name_or_path": launch.model}
    where = {"accelerate_config": launch.strategy, "num_processes": launch.processes} if launch.strategy else {}
    path = f"recipes/{launch.recipe}"
    with patch.object(constants, "HF_HUB_OFFLINE", True):  # the reward run of a recipe is not there yet
        return plan_run(keys, path, schemas(), launch.verb, config=shape(launch.model), device="gpu", **where)


def shape(model: str) -> str:
    return str(SHAPES / model.split("/")[1])


@functools.cache
def schemas() -> dict[str, tuple[type, ...]]:
    """The keys of the verbs that `align plan` knows."""
    from trl import DPOConfig, KTOConfig, ModelConfig, RewardConfig, SFTConfig

    from align.ppo.config import PPOConfig
    from align.train.common import DataArguments
    from align.train.dpo import DPOLossArguments
    from align.train.reward import RewardLossArguments

    trainers = {"sft": SFTConfig, "reward": RewardConfig, "dpo": DPOConfig, "kto": KTOConfig}
    own: dict[str, tuple[type, ...]] = {"reward": (RewardLossArguments,), "dpo": (DPOLossArguments,)}
    found = {name: (config, ModelConfig, DataArguments, *own.get(name, ())) for name, config in trainers.items()}
    return {"ppo": (PPOConfig, ModelConfig), **found}


# --- what is written ----------------------------------------------------------------------------------------------


def header(path: Path) -> list[str]:
    """The lines that a recipe opens with: its launch line, and what that takes."""
    launch = launch_of_file(path)
    said = {"rloo": _online, "grpo": _online, "evaluate": _sampling, "sample": _sampling}.get(launch.verb, _training)
    return [f"# {_command(launch)}", *_wrapped(said(launch))]


def _command(launch: Launch) -> str:
    if launch.verb == "sample":
        return f"{launch.line(inputs=False)} --dataset_name prompts.jsonl --to-annotate items.jsonl"
    return launch.line(inputs=True).replace("runs/evaluate", "runs/report")


def _training(launch: Launch) -> str:
    needs = needs_of(launch)
    if needs is None:
        return "What it needs: `align plan` with this line."
    many, each = (f"{launch.processes} cards", " each") if launch.processes > 1 else ("a card", "")
    length = f"on average {needs.prompt:.0f} tokens of prompt, {needs.responses:.0f} of what follows"
    said = (
        f"Needs {many} of {find_card(needs.card).memory:g} GB ({needs.card}), of which it takes"
        f" {_gb(needs.memory)}{each}, and {_gb(needs.disk)} of disk with the model in the hub's cache. Takes about"
        f" {time_left(needs.seconds)} for {needs.rows:,} {ROWS[launch.verb]} ({length}). By `align plan`, not measured."
    )
    if launch.recipe.startswith("smollm2"):
        said += " A CPU will do, too: `align plan --device cpu`."
    return said + (" recipes/README.md says it of other models." if "any-model" in launch.recipe else "")


def _online(launch: Launch) -> str:
    """rloo and grpo: `align plan` knows PPO, which has the reward model on the policy's base."""
    name = Path(launch.recipe).name
    ppo = needs_of(launch._replace(recipe=launch.recipe.replace(f"/{launch.verb}/", "/ppo/")))
    if ppo is None:
        return f"Needs what ppo/{name} does, and the reward run as a model of its own."
    return (
        f"Needs about {_gb(ppo.memory + ppo.base)} of GPU memory: what `align plan` says of ppo/{name}"
        f" ({_gb(ppo.memory)}), and the reward run as a model of its own. Not measured."
    )


def _sampling(launch: Launch) -> str:
    """evaluate and sample: weights in bf16, and the key-value caches of what is sampled at once."""
    from align.models.load import ModelSource

    keys = keys_of(launch.recipe)
    import torch

    model = sizes.empty_model(ModelSource(launch.model, shape(launch.model), None), torch.bfloat16)
    weights = sizes.model_size(model)
    rows, tokens = keys.get("batch_size", 16), keys["max_new_tokens"]
    peak = sizes.sampling_size(model, rows, 512, tokens).peak
    judge = weights if launch.verb == "evaluate" else 0
    what = "two models (one that is looked at, one that judges)" if judge else "one model"
    return (
        f"Needs about {_gb(weights + judge + peak + 600_000_000)} of GPU memory: {what} of {_gb(weights)} in bf16, and"
        f" {rows} responses at once to prompts of at most 512 tokens. By the sums of `align plan`, not measured."
    )


def _wrapped(text: str) -> list[str]:
    import textwrap

    return [f"# {line}" for line in textwrap.wrap(text, WIDTH - 2, break_long_words=False, break_on_hyphens=False)]


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size < 1e10 else f"{size / 1e9:.0f} GB"


def with_header(path: Path) -> str:
    """A recipe's text with its header anew: all comment lines before the first key."""
    lines = path.read_text(encoding="utf-8").splitlines()
    while lines and lines[0].startswith("#"):
        lines.pop(0)
    return "\n".join([*header(path), *lines]) + "\n"


INTRO = """# Recipes

For each model the line that starts each stage, the card, and what `align plan` says: memory (of each card), time for
10,000 rows on that card, disk with the model in the hub's cache. None of it was measured. `python
benchmarks/recipe_table.py` writes this page, and the headers of the recipes.

* `--dataset_name DATA --output_dir FOLDER` belong to every line, and `--reward_model_path RUN` to those of `ppo`.
* The recipes of `any-model/` are for whatever has 0.6 to 8 billion parameters: `--model_name_or_path NAME`. Those of
  `smollm2-135m-instruct/` are for less. A model has files of its own only where a key other than its name differs.
* A file names under `defaults:` the one that it stands on, and holds what differs from it.
* The smallest of these cards that has room is named: RTX 4090 (24 GB), L40S (48 GB), H100 (80 GB), H200 (141 GB).
* `kto` takes what `dpo` takes; `rloo` and `grpo` what `ppo` takes, and the reward run as a model of its own; `evaluate`
  and `sample` hold models in bf16. Their recipes lie beside the others.
* More cards make a run shorter: `--accelerate_config multi_gpu --num_processes N`, or a larger N where a line has
  `fsdp2` ([docs/distributed.md](../docs/distributed.md)). PPO does so without a change; elsewhere divide
  `gradient_accumulation_steps` by as much as the cards are more, to keep the size of a step.
* A line without numbers is not planned yet: `align plan` in place of its verb, with `--gpu NAME`, says what it takes.

"""


def readme() -> str:
    """recipes/README.md."""
    pages = [INTRO + " · ".join(f"[{_short(model)}](#{_anchor(model)})" for model in MODELS) + "\n"]
    for model in MODELS:
        rows = ["| launch | card | memory | time | disk |", "|---|---|---|---|---|"]
        for stage in STAGES:
            for kind in KINDS:
                launch = launch_of(model, stage, kind)
                if launch is not None:
                    rows.append(_row(launch))
        pages.append("\n".join([f"## {model.name}", "", *([model.words, ""] if model.words else []), *rows, ""]))
    return "\n".join(pages)


def _short(model: Model) -> str:
    return model.name.split("/")[1]


def _anchor(model: Model) -> str:
    """What GitHub calls the heading with its name."""
    return "".join(sign for sign in model.name.lower() if sign.isalnum() or sign in "-_")


def _row(launch: Launch) -> str:
    needs = needs_of(launch)
    line = f"`{launch.line(inputs=False)}`"
    if needs is None:
        return f"| {line} | | | | |"
    card = f"{launch.processes} × {needs.card}" if launch.processes > 1 else needs.card
    return f"| {line} | {card} | {_gb(needs.memory)} | {time_left(needs.seconds)} | {_gb(needs.disk)} |"


def launches() -> list[Launch]:
    """All that is planned: the recipes with the models that they name, then those of the table."""
    files = [launch_of_file(path) for path in recipes()]
    table = [launch_of(model, stage, kind) for model in MODELS for stage in STAGES for kind in KINDS]
    return list(dict.fromkeys(launch for launch in [*files, *table] if launch and launch.verb in ROWS))


def texts() -> dict[Path, str]:
    """What is written: the recipes with their headers, and recipes/README.md."""
    return {**{path: with_header(path) for path in recipes()}, ROOT / "recipes/README.md": readme()}


def recipes() -> list[Path]:
    return sorted((ROOT / "recipes").glob("*/*/*.yaml"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--again", action="store_true", help="plan everything anew")
    parser.add_argument("--written", action="store_true", help="plan nothing; write what was planned")
    options = parser.parse_args()
    quiet_libraries()
    for launch in [] if options.written else launches():
        if options.again or needs_of(launch) is None:
            print(launch.line(inputs=False), file=sys.stderr, flush=True)
            found = planned(launch)  # which takes a while, in which others may have written
            results = {**known(), launch.line(inputs=False): found}
            table = {line: needs._asdict() for line, needs in sorted(results.items())}
            RESULTS.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    for path, text in texts().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
