"""`align score`: how unsure reward runs are of items that nobody has ranked yet, as priorities for raters.

A label is worth most where the models that are to learn from it differ. (What ensembles of reward models know of their
own errors: Gleave & Irving 2022, arXiv 2203.07472.)
"""

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from align.data.lengths import token_ids
from align.evaluate.calibration import entropies
from align.models.rewards import load_as_trained, score_moments
from align.run.disk import check_can_be_written
from align.run.progress import say
from preferences.contract import Item, check_preferences, read_items, read_rows
from preferences.errors import BadInput
from preferences.files import write_jsonl
from preferences.shapes import Response

Floats = NDArray[np.float64]
_BATCH = 16


class Scored(NamedTuple):
    """An item with what the reward runs say of its k responses, and how unsure they are of its pairs i < j."""

    item: Item
    scores: Floats  # (runs, k), each run in units of its own mean and spread
    unsure: dict[tuple[int, int], float]

    @property
    def priority(self) -> float:
        """The mean over pairs; of an item with gold ranks its own, for it is there to check raters."""
        if self.item.gold is not None:
            return self.item.priority
        return sum(self.unsure.values()) / len(self.unsure)


def run_score(name: str, runs: Sequence[str], pairs: int | None, to_annotate: str | None) -> None:
    """Score the items of an import file or of a preferences folder, and write them with priorities, as items or as
    their `pairs` least sure pairs; or print them, the least sure first. Raises BadInput, and then writes nothing.
    """
    if to_annotate:
        check_can_be_written(to_annotate, "--to-annotate")
    items = items_of(name)
    scored = score_items(items, runs, name)
    if to_annotate:
        lines = [line for one in scored for line in import_lines(one, pairs)]
        write_jsonl(to_annotate, lines)
        if pairs is not None and any(item.answers and len(item.responses) > 2 for item in items):
            say("answers to whole items are not carried over to their pairs")
        say(f"{len(lines)} items: {to_annotate}; next: annotate import PROJECT {to_annotate}")
        return
    print("priority  item  mean score of each response")
    for one in sorted(scored, key=lambda one: -one.priority):
        means = "  ".join(f"{score:+.2f}" for score in one.scores.mean(axis=0))
        print(f"{one.priority:.4f}  {one.item.id}  {means}")


def items_of(name: str) -> list[Item]:
    """The items of an import file, or of a preferences folder without its answers. Raises BadInput."""
    if not Path(name).is_dir():
        return read_items(name)
    check_preferences(name)
    rankings = read_rows(name, "rankings.jsonl")
    if not rankings:
        raise BadInput(f"{Path(name) / 'rankings.jsonl'}: no items in it; rank some, and export again")
    return [
        Item(
            id=row.ranking,
            prompt=row.prompt,
            responses=[
                Response(messages=messages, model=row.models[number] if row.models else None)
                for number, messages in enumerate(row.responses)
            ],
            group=row.group,
            tags=row.tags,
        )
        for row in rankings
    ]


def score_items(items: Sequence[Item], runs: Sequence[str], where: str) -> list[Scored]:
    """Every response by every run, one run in memory at a time. Raises BadInput for what a run's context can't hold."""
    moments = [score_moments(run) for run in runs]
    raw = []
    for run in runs:
        model = load_as_trained(run)
        rows = []
        for item in items:
            prompt = [turn.model_dump() for turn in item.prompt]
            for number, response in enumerate(item.responses, start=1):
                ids = tuple(token_ids(model.tokenizer, prompt + [turn.model_dump() for turn in response.messages]))
                if model.context is not None and len(ids) > model.context:
                    raise BadInput(
                        f"{where}, item {item.id}, response {number}: {len(ids)} tokens with its prompt do not fit the"
                        f" context of {run}, {model.context}; take it out"
                    )
                rows.append(ids)
        say(f"scoring {len(rows)} responses with {run}")
        raw.append(np.array(model.scores_of_ids(rows, _BATCH), dtype=np.float64))
        del model
    ends = np.cumsum([len(item.responses) for item in items])[:-1]
    scored = []
    for item, scores in zip(items, np.split(np.array(raw), ends, axis=1), strict=True):
        normal = np.array([(row - mean) / std for row, (mean, std) in zip(scores, moments, strict=True)])
        scored.append(Scored(item, normal, unsure_pairs(scores if len(runs) == 1 else normal)))
    return scored


def unsure_pairs(scores: Floats) -> dict[tuple[int, int], float]:
    """How unsure the runs are of each pair of responses i < j: scores (runs, k) -> {(i, j): number of at least 0}.

    Several runs, whose scores are in units of their own spread: the (population) standard deviation, over the runs, of
    the score difference. It is what they don't know, not how alike the responses are: runs that agree on a tie are
    sure.
    One run, with scores in its own units: the entropy in bits of its probability, 1 where it would toss a coin.
    """
    found = {}
    for i, j in combinations(range(scores.shape[1]), 2):
        difference = scores[:, i] - scores[:, j]
        if len(difference) > 1:
            found[i, j] = float(difference.std())
        else:
            found[i, j] = float(entropies(1 / (1 + np.exp(-np.abs(difference))))[0] / math.log(2))
    return found


def import_lines(scored: Scored, pairs: int | None) -> list[dict[str, Any]]:
    """The item with its priority, or its `pairs` least sure pairs as items of their own, each with the pair's priority.

    A pair of q17's second and third response is called q17/2-3. It keeps prompt, group, tags and overlap. Items with
    gold ranks, and pairs, stay as they are.
    """
    item = scored.item
    if item.gold is not None:
        return [item.model_dump(mode="json", exclude_unset=True)]
    if pairs is None or len(item.responses) == 2:
        return [{**item.model_dump(mode="json", exclude_unset=True), "priority": round(scored.priority, 6)}]
    least_sure = sorted(scored.unsure, key=lambda pair: (-scored.unsure[pair], pair))[:pairs]
    line = item.model_dump(mode="json", exclude_unset=True, exclude={"answers"})
    return [
        {
            **line,
            "id": f"{item.id}/{i + 1}-{j + 1}",
            "responses": [line["responses"][i], line["responses"][j]],
            "priority": round(scored.unsure[i, j], 6),
        }
        for i, j in least_sure
    ]
