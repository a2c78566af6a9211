"""Which of an evaluation's prompts its models were trained on, by the manifests of the runs that made them.

What a model learnt before these runs, on the hub say, nobody can look up: it is not what this is about.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from align.audit.rows import Kind, read_data, said
from align.data.load import data_facts
from align.evaluate.config import ModelKeys
from align.evaluate.evidence import MAIN, Prompt
from align.evaluate.lineage import runs_behind
from align.run.progress import say
from preferences.errors import BadInput

# What each verb reads of its data.
_KINDS: dict[str, Kind] = {
    "sft": "demonstrations",
    "dpo": "pairs",
    "ppo": "prompts",
    "rloo": "prompts",
    "grpo": "prompts",
}


def trained_on(models: Mapping[str, ModelKeys], prompts: Sequence[Prompt]) -> dict[str, dict[str, Any]]:
    """{model: {"runs": of how many runs it comes, "seen": how many of the main prompts are in their training data,
    "unknown": [what could not be looked at, and why]}}; none of models behind an endpoint.
    """
    main = {said(prompt.turns).strip() for prompt in prompts if prompt.set == MAIN}
    read: dict[tuple[str, ...], frozenset[str] | str] = {}
    found: dict[str, dict[str, Any]] = {}
    for name, keys in models.items():
        if keys.endpoint is not None:
            continue
        manifests, gone = runs_behind(keys.model)
        seen: set[str] = set()
        unknown = [f"{folder} is gone" for folder in gone]
        for manifest in manifests:
            key = _data_of(manifest)
            if key not in read:
                read[key] = _prompts_in(manifest, main)
            inside = read[key]
            if isinstance(inside, str):
                unknown.append(inside)
            else:
                seen |= inside
        found[name] = {"runs": len(manifests) + len(gone), "seen": len(seen), "unknown": list(dict.fromkeys(unknown))}
        if seen:
            say(f"{name}: {len(seen)} of the {len(main)} prompts are in the data that it was trained on; take others")
    return found


def _data_of(manifest: Mapping[str, Any]) -> tuple[str, ...]:
    recipe = manifest.get("recipe") or {}
    keys = ("dataset_name", "dataset_config", "dataset_train_split")
    return (str(manifest.get("verb")), *(str(recipe.get(key)) for key in keys))


def _prompts_in(manifest: Mapping[str, Any], prompts: set[str]) -> frozenset[str] | str:
    """Those of the prompts that a run's training data has; or why that can't be told."""
    recipe, facts = manifest.get("recipe") or {}, (manifest.get("inputs") or {}).get("dataset") or {}
    name, split = str(recipe.get("dataset_name")), recipe.get("dataset_train_split") or "train"
    if not facts.get("sha256"):
        return f"{name} is data of the hub"
    if not Path(name).expanduser().exists():
        return f"{name} is gone"
    if data_facts(name)["sha256"] != facts["sha256"]:
        return f"{name} has changed since"
    try:
        data = read_data(name, _KINDS.get(str(manifest.get("verb"))), recipe.get("dataset_config"), split)
    except BadInput as error:
        return str(error)
    rows = [row for part in data.parts if not part.held_out for row in part.rows]
    if any(not row.prompt for row in rows):
        return f"{name} does not say what in it is the prompt"
    return frozenset(text for row in rows if (text := said(row.prompt).strip()) in prompts)
