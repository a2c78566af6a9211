"""Single responses that are good or bad, as KTO takes them, out of pairs."""

import random
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.data.load import Messages, load_pairs_or_labels, load_rankings, said_of
from preferences.contract import is_preferences_folder
from preferences.errors import BadInput
from preferences.files import sha256_json

if TYPE_CHECKING:
    from datasets import Dataset

_ALL_BAD = "all-bad"  # the flag of an answer to which no response is good
_DRAW = 1e-9  # of all that was said of a response: what rounding leaves of wins and losses that balance


def load_unpaired(name: str, split: str, config: str | None, seed: int) -> "Dataset":
    """Rows of `prompt`, `completion`, `label` (true: good): the data's own, or made from its pairs. Raises BadInput.

    They come in a random order, since KTO takes a batch's completions for other prompts to measure the KL divergence.
    """
    from datasets import Dataset
    from trl import extract_prompt

    found = load_pairs_or_labels(name, split, config)
    if "completion" in found.column_names:
        for number, row in enumerate(found, start=1):
            if not isinstance(row.get("label"), bool):
                raise BadInput(f"{name}, row {number}: label {row.get('label')!r}: it is true (good) or false (bad)")
        rows = [{column: row[column] for column in ("prompt", "completion", "label")} for row in found]
    else:
        if "prompt" not in found.column_names:
            found = found.map(extract_prompt)
        folder = Path(name).expanduser()
        rows = unpaired(found, _all_bad(name, split) if is_preferences_folder(folder) else (), name)
    if not rows:
        raise BadInput(f"{name}: no response in it is liked or disliked, only ties; name another split, or other data")
    random.Random(seed).shuffle(rows)
    return Dataset.from_list(rows)


def unpaired(
    pairs: Iterable[dict[str, Any]], all_bad: Collection[tuple[Any, list[Any]]] = (), where: str = "pairs"
) -> list[dict[str, Any]]:
    """Each different response to a prompt once: good if it wins more than it loses, over all its pairs, and bad if it
    loses more; left out if it does neither.

    A pair counts weight (2 preference - 1). What one rater rewrote stays what the others think of it: an edited pair
    speaks of its chosen side alone. `all_bad`: (prompt, responses) whose raters found none of them good. Raises
    BadInput, which begins with `where`.
    """
    known: dict[str, dict[str, Any]] = {}
    votes: dict[str, list[float]] = {}

    def vote(prompt: Any, completion: Any, value: float) -> None:
        key = sha256_json([prompt, completion])
        known.setdefault(key, {"prompt": prompt, "completion": completion})
        votes.setdefault(key, []).append(value)

    for number, pair in enumerate(pairs, start=1):
        preference, weight, _ = said_of(pair, f"{where}, row {number}")
        value = weight * (2 * preference - 1)
        vote(pair["prompt"], pair["chosen"], value)
        if pair.get("source") != "edited":
            vote(pair["prompt"], pair["rejected"], -value)
    for prompt, responses in all_bad:
        for response in responses:
            vote(prompt, response, -float("inf"))
    return [
        {**known[key], "label": sum(values) > 0}
        for key, values in votes.items()
        if sum(values) != 0 and not abs(sum(values)) < _DRAW * sum(map(abs, values))
    ]


def _all_bad(folder: str, split: str) -> list[tuple[Messages, list[Messages]]]:
    """The rankings of which half of the answers, or more, say that no response is good."""
    rows, _ = load_rankings(folder, split)
    flags = [[_ALL_BAD in answer["flags"] for answer in row["answers"]] for row in rows]
    return [
        (row["prompt"], row["responses"])
        for row, said in zip(rows, flags, strict=True)
        if said and 2 * sum(said) >= len(said)
    ]
