"""What holds the house together: import names, quick help, and recipes that their verbs take."""

import dataclasses
import importlib.metadata
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from align.config import parse, read_recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted([*ROOT.glob("recipes/**/*.yaml"), *ROOT.glob("demo/*.yaml")])


@pytest.mark.parametrize("name", ["align", "annotate", "preferences"])
def test_no_dependency_has_our_import_names(name: str) -> None:
    owners = set(importlib.metadata.packages_distributions().get(name, []))
    assert owners <= {"concord"}


@pytest.mark.parametrize("package", ["align", "annotate"])
def test_help_imports_nothing_heavy(package: str) -> None:
    code = (
        f"import sys; sys.argv = ['{package}', '--help']\n"
        f"from {package}.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'transformers', 'trl', 'datasets', 'gradio', 'sqlalchemy', 'pydantic', 'numpy', 'scipy'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=ROOT)
    assert said.returncode == 0, said.stderr
    assert "Usage:" in said.stdout
    assert said.stderr.strip() == "[]"


@pytest.mark.parametrize("command", ["align", "annotate"])
def test_help_comes_at_once(command: str) -> None:
    """In half a second, on a machine that has nothing else to do; the best of three here."""
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        subprocess.run([Path(sys.executable).parent / command, "--help"], capture_output=True, check=True, timeout=60)
        seconds.append(time.monotonic() - started)
    assert min(seconds) < 1.0


def schemas_of(verb: str) -> tuple[type, ...]:
    from trl import DPOConfig, GRPOConfig, KTOConfig, ModelConfig, RewardConfig, RLOOConfig, SFTConfig

    from align.evaluate.config import EvaluateConfig
    from align.evaluate.sample import SampleConfig
    from align.ppo.config import PPOConfig
    from align.train.common import DataArguments, RunArguments
    from align.train.dpo import DPOLossArguments
    from align.train.online import OnlineArguments
    from align.train.reward import RewardLossArguments

    return {
        "sft": (DataArguments, RunArguments, ModelConfig, SFTConfig),
        "reward": (DataArguments, RunArguments, ModelConfig, RewardConfig, RewardLossArguments),
        "dpo": (DataArguments, RunArguments, ModelConfig, DPOConfig, DPOLossArguments),
        "kto": (DataArguments, RunArguments, ModelConfig, KTOConfig),
        "ppo": (PPOConfig, ModelConfig),
        "rloo": (DataArguments, RunArguments, OnlineArguments, ModelConfig, RLOOConfig),
        "grpo": (DataArguments, RunArguments, OnlineArguments, ModelConfig, GRPOConfig),
        "evaluate": (EvaluateConfig,),
        "sample": (SampleConfig,),
    }[verb]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_recipe_is_what_its_verb_takes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """recipes/MODEL/VERB/*.yaml and demo/VERB.yaml, whatever machine they are for; each opens with its launch line."""
    from align.evaluate.config import read_evaluation
    from align.train.common import with_machine_defaults

    verb = path.stem if path.parent.name == "demo" else path.parent.name
    recipe: dict[str, Any] = read_recipe(path, [])
    if verb == "evaluate":
        assert read_evaluation({"output_dir": "runs/here", **recipe}, str(path)).judges
    names = [field.name for schema in schemas_of(verb) for field in dataclasses.fields(schema)]
    assert not set(recipe) - set(names)
    here = {key: value for key, value in recipe.items() if key not in ("bf16", "fp16", "tf32")}
    here = here if verb in ("evaluate", "sample", "ppo") else with_machine_defaults(here)
    if verb != "evaluate":
        parse({"output_dir": "runs/here", **here} if verb != "sample" else here, schemas_of(verb), str(path))
    opening = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any(f"align {verb} " in line for line in opening)
