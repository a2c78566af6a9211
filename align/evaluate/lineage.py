"""What a model was trained to please, by the manifests of the runs that it comes from: by content, not by name."""

from pathlib import Path
from typing import Any, NamedTuple

from align.models.load import find_model
from align.run.manifest import hash_weights, is_run, run_of
from preferences.files import read_json, sha256_file


class Lineage(NamedTuple):
    """`weights` are the hashes of the weights of reward models, `functions` (hash of a file, function in it).

    `unknown` are run folders that manifests name and that are not there, so that nothing is known of what made them.
    """

    weights: list[dict[str, str]]
    functions: set[tuple[str, str]]
    unknown: list[str]


def lineage_of(model: str) -> Lineage:
    """What the run that made a model, or a checkpoint, learnt from, and the runs that this one built on."""
    found = Lineage([], set(), [])
    manifests, unknown = runs_behind(model)
    for manifest in manifests:
        _learnt_from(manifest, found)
    return found._replace(unknown=unknown)


def runs_behind(model: str) -> tuple[list[dict[str, Any]], list[str]]:
    """(manifests of the run that made a model, or a checkpoint, and of those that it built on; the folders of such runs
    that are not there). Runs of reward models are not among them, nor exports, which learn nothing.
    """
    manifests: list[dict[str, Any]] = []
    unknown: list[str] = []
    waiting = [run] if (run := run_of(model)) is not None else []
    seen: set[Path] = set()
    while waiting:
        place = waiting.pop()
        if place.resolve() in seen:
            continue
        seen.add(place.resolve())
        manifest = read_json(place / "manifest.json")
        if manifest["verb"] != "export":
            manifests.append(manifest)
        for parent in manifest.get("parents") or []:
            if parent["verb"] == "reward":  # what a reward model was made of is not what it makes of others
                continue
            if is_run(parent["folder"]):
                waiting.append(Path(parent["folder"]))
            else:
                unknown.append(parent["folder"])
    return manifests, unknown


def own_weights(reward_model: str) -> dict[str, str]:
    """The hashes of a reward run's own weights: of its adapter where it is one, not of the base that many share. Of an
    export the hashes of what was exported.
    """
    source = find_model(reward_model)
    folder = Path(source.adapter or source.base)
    if is_run(folder) and (manifest := read_json(folder / "manifest.json"))["verb"] == "export":
        known: dict[str, str] = manifest["inputs"]["model"]["sha256"].get(manifest["inputs"]["model"]["name"], {})
        return known
    return hash_weights(folder) if folder.is_dir() else {}


def trained_by_weights(lineage: Lineage, weights: dict[str, str]) -> bool:
    """Whether these very weights rewarded the model. A model on the hub has none to compare."""
    return bool(weights) and weights in lineage.weights


def trained_by_function(lineage: Lineage, name: str) -> bool:
    """Whether `file.py:function`, with this content, rewarded the model."""
    file, _, function = name.rpartition(":")
    return Path(file).is_file() and (sha256_file(file), function) in lineage.functions


def _learnt_from(manifest: dict[str, Any], found: Lineage) -> None:
    inputs = manifest.get("inputs") or {}
    functions = (manifest.get("recipe") or {}).get("reward_funcs") or []
    for role, facts in inputs.items():
        digests = facts.get("sha256") or {}
        if role.startswith("reward_function"):
            names = [functions] if isinstance(functions, str) else functions
            for name in names:
                file, _, function = str(name).rpartition(":")
                if file == facts["name"]:
                    found.functions.update((digest, function) for digest in digests.values())
        elif role.startswith("reward_model"):
            found.weights.extend(hashes for hashes in digests.values() if isinstance(hashes, dict) and hashes)
            if is_run(facts["name"]) and (own := own_weights(facts["name"])) not in found.weights:
                found.weights.append(own)  # an export of a reward run rewards as the run does
