"""The dataset card of a preferences folder: what `datasets.load_dataset` needs to read it, and a page for people."""

import json
from typing import Any

SPLITS = ("train", "validation", "test")

_MESSAGES: dict[str, Any] = {"list": [{"name": "role", "dtype": "string"}, {"name": "content", "dtype": "string"}]}
_PAIR_FEATURES: list[dict[str, Any]] = [
    {"name": "prompt", **_MESSAGES},
    {"name": "chosen", **_MESSAGES},
    {"name": "rejected", **_MESSAGES},
    {"name": "preference", "dtype": "float64"},
    {"name": "strength", "dtype": "float64"},
    {"name": "weight", "dtype": "float64"},
    {"name": "ranking", "dtype": "string"},
    {"name": "group", "dtype": "string"},
    {"name": "tags", "list": "string"},
    {"name": "raters", "list": "string"},
    {"name": "models", "struct": [{"name": "chosen", "dtype": "string"}, {"name": "rejected", "dtype": "string"}]},
    {"name": "source", "dtype": "string"},
]
_EDIT: dict[str, Any] = {
    "name": "edited",
    "struct": [{"name": "response", "dtype": "int64"}, {"name": "text", "dtype": "string"}],
}
_SPANS: dict[str, Any] = {
    "name": "spans",
    "list": [
        {"name": "response", "dtype": "int64"},
        {"name": "start", "dtype": "int64"},
        {"name": "end", "dtype": "int64"},
        {"name": "text", "dtype": "string"},
        {"name": "mark", "dtype": "string"},
    ],
}
_FEATURES: dict[str, list[dict[str, Any]]] = {
    "default": _PAIR_FEATURES,
    "ties": [*_PAIR_FEATURES, {"name": "split", "dtype": "string"}],
    "rankings": [
        {"name": "ranking", "dtype": "string"},
        {"name": "project", "dtype": "string"},
        {"name": "split", "dtype": "string"},
        {"name": "group", "dtype": "string"},
        {"name": "prompt", **_MESSAGES},
        {"name": "responses", "list": _MESSAGES},
        {"name": "models", "list": "string"},
        {"name": "ranks", "list": "int64"},
        {"name": "decided", "dtype": "bool"},
        {"name": "weight", "dtype": "float64"},
        {"name": "tags", "list": "string"},
        {
            "name": "answers",
            "list": [
                {"name": "rater", "dtype": "string"},
                {"name": "ranks", "list": "int64"},
                {"name": "strength", "dtype": "int64"},
                {"name": "ratings", "dtype": "json"},
                {"name": "flags", "list": "string"},
                _SPANS,
                _EDIT,
                {"name": "shown", "list": "int64"},
                {"name": "seconds", "dtype": "float64"},
                {"name": "guideline", "dtype": "int64"},
            ],
        },
    ],
    "sft": [
        {"name": "prompt", **_MESSAGES},
        {"name": "completion", **_MESSAGES},
        {"name": "split", "dtype": "string"},
        {"name": "group", "dtype": "string"},
        {"name": "ranking", "dtype": "string"},
        {"name": "source", "dtype": "string"},
    ],
}
_OTHER_FILES = {"ties": "ties.jsonl", "rankings": "rankings.jsonl", "sft": "sft.jsonl"}


def dataset_card(manifest: dict[str, Any]) -> str:
    """README.md of a folder with this manifest, whose `counts` say which files are empty.

    The features are written out, so that a column is read as what it is even where it is empty everywhere.
    """
    import yaml

    counts = manifest["counts"]
    # load_dataset fails on an empty file of a split, so empty splits are left out of the default config.
    default = [{"split": split, "path": f"{split}.jsonl"} for split in SPLITS if counts[split]]
    configs: list[dict[str, Any]] = (
        [{"config_name": "default", "default": True, "data_files": default}] if default else []
    )
    configs += [
        {"config_name": name, "data_files": [{"split": "train", "path": file}]}
        for name, file in _OTHER_FILES.items()
        if counts[file.removesuffix(".jsonl")]
    ]
    names = [config["config_name"] for config in configs]
    header = {
        "configs": configs,
        "dataset_info": [{"config_name": name, "features": _FEATURES[name]} for name in names],
        "tags": ["preference", "trl", "concord"],
    }
    header = json.loads(json.dumps(header))  # no shared parts: datasets can't read YAML's aliases
    table = "\n".join(f"| {name} | {count} |" for name, count in counts.items())
    held = manifest.get("held_back")
    held_back = (
        f"{held} items that raters differed on are held back until somebody decides about them.\n\n" if held else ""
    )
    return (
        f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n\n"
        f"# {manifest.get('project', 'Preferences')}\n\n"
        f"{manifest.get('description', '')}\n\n"
        "Human preferences exported by Concord, in TRL's conversational, explicit-prompt preference format. "
        "Raters appear under random pseudonyms.\n\n"
        f"| file | rows |\n|---|---|\n{table}\n\n"
        f"{held_back}"
        "`preference` is the probability that `chosen` is the better one, from all answers to the pair; `strength` the "
        "mean size of the raters' strength (1 slightly, 2 clearly, 3 much better); `weight` how much to trust the row; "
        "`source` is `edited` where a rater rewrote `rejected` into `chosen`. "
        "Whole groups stand on one side of the split. `manifest.json` holds the counts, the agreement and the hashes.\n"
    )
