"""What a run's metrics.jsonl says: curves to draw."""

from pathlib import Path
from typing import Any

from preferences.files import read_jsonl

# The few that tell whether training went well, of all that a run logs.
_TELLING = (
    "loss",
    "accuracy",
    "rewards/accuracies",
    "rewards/margins",
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
