"""What a run's metrics.jsonl says: curves to draw."""

from pathlib import Path
from typing import Any

from preferences.files import read_json, read_jsonl

# The few that tell whether training went well, of all that a run logs.
_TELLING = (
    "loss",
    "accuracy",
    "rewards/accuracies",
    "rewards/margins",
    "reward",
    "kl",
    "objective/scores",
    "eval/scores",
    "objective/kl",
    "eval/kl",
    "response/ended",
    "response/tokens",
)


def curves(folder: Path) -> dict[str, Any] | None:
    """{"x": steps, "series": {metric: values}} of a run folder, or None when it has no curves."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return None
    rows = [row for _, row in read_jsonl(path) if any(name in row for name in _TELLING)]
    series = {name: [row.get(name) for row in rows] for name in _TELLING if any(name in row for row in rows)}
    return {"x": [row["step"] for row in rows], "series": series} if series else None


def held_out_looks(folder: Path) -> dict[str, Any] | None:
    """What a run that looked at held-out prompts saw at its start, at its best and at its end, and its `kl_budget`."""
    path = folder / "metrics.jsonl"
    looks = [row for _, row in read_jsonl(path) if "eval/scores" in row] if path.is_file() else []
    best = read_json(folder / "manifest.json").get("best") if looks else None
    if best is None:
        return None
    first, last = (
        {"step": row["step"], "scores": row["eval/scores"], "kl": row["eval/kl"]} for row in (looks[0], looks[-1])
    )
    budget = read_json(folder / "manifest.json")["recipe"].get("kl_budget")
    return {"first": first, "best": best, "last": last, "kl_budget": budget}
