"""What the reward model that judges is worth itself: its accuracy on held-out pairs, beside plainer judges'."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from align.data.lengths import context_length
from align.data.load import as_turns, load_pairs, said_of
from align.evaluate.calibration import log_losses, reliability
from align.evaluate.config import EvaluateConfig
from align.evaluate.evidence import MAIN, Evidence
from align.evaluate.reward_numbers import ranking
from align.evaluate.verdicts import better
from align.models.load import find_model, load_config, load_tokenizer
from align.models.scores import fitting_ids
from align.run.cache import Cache
from align.run.progress import say
from preferences.contract import is_preferences_folder, read_rows
from preferences.errors import BadInput
from preferences.stats.winrate import accuracy

if TYPE_CHECKING:
    from datasets import Dataset

Conversation = tuple[list[dict[str, str]], str]  # (prompt, response)


class HeldOut(NamedTuple):
    """Held-out pairs, and (chosen, rejected) scores by length and by the truth; `groups` are None where not said."""

    judge: str  # the reward model's name among the judges
    source: str
    chosen: list[Conversation]
    rejected: list[Conversation]
    groups: list[str] | None
    scores: dict[str, tuple[list[float], list[float]]]
    preference: Sequence[float] = ()  # the raters' probability that chosen is the better one
    rankings: Sequence[tuple[list[int], list[Conversation], str]] = ()  # ranks, responses and group of each


def open_held_out(args: EvaluateConfig, judges: Mapping[str, Any]) -> HeldOut | None:
    """The pairs that raters ranked, of the same data and split as the prompts. None where the data are prompts only, or
    no reward model judges. Raises BadInput for a pair that doesn't fit the reward model, and for a truth that tells
    nothing apart.
    """
    judge = _judge(args)
    if judge is None:
        return None
    try:
        pairs = load_pairs(args.dataset_name, args.dataset_split, args.dataset_config)
    except BadInput as error:
        say(f"no held-out pairs, so the reward model itself is not measured ({error})")
        return None
    pairs = _ranked(pairs, args.dataset_name)
    chosen, rejected = (
        [(as_turns(row["prompt"]), as_turns(row[side])[-1]["content"]) for row in pairs]
        for side in ("chosen", "rejected")
    )
    source = find_model(args.judges[judge].source)
    tokenizer, context = load_tokenizer(source), context_length(load_config(source))
    for side in (chosen, rejected):
        fitting_ids(source.name, tokenizer, context, [prompt for prompt, _ in side], [text for _, text in side])
    scores = {"length": ([float(len(text)) for _, text in chosen], [float(len(text)) for _, text in rejected])}
    truth = next((name for name, keys in args.judges.items() if keys.truth is not None), None)
    if truth is not None:
        scores["truth"] = (judges[truth].score(chosen), judges[truth].score(rejected))
        if scores["truth"][0] == scores["truth"][1]:
            raise BadInput(
                f"{args.judges[truth].truth}: gives both sides of every held-out pair the same score; it tells nothing"
                " apart"
            )
    groups = list(pairs["group"]) if "group" in pairs.column_names else None
    preference = [said_of(row, f"{args.dataset_name}, row {number}")[0] for number, row in enumerate(pairs, start=1)]
    rankings = _rankings(args.dataset_name, args.dataset_split)
    return HeldOut(judge, args.judges[judge].source, chosen, rejected, groups, scores, preference, rankings)


def _rankings(name: str, split: str) -> list[tuple[list[int], list[Conversation], str]]:
    """The held-out rankings of a preferences folder."""
    if not is_preferences_folder(name):
        return []
    found = []
    for row in read_rows(name, "rankings.jsonl"):
        if row.split == split:
            prompt = [turn.model_dump() for turn in row.prompt]
            found.append((row.ranks, [(prompt, response[-1].content) for response in row.responses], row.group))
    return found


def _judge(args: EvaluateConfig) -> str | None:
    """The reward model that is measured: the first that was trained against, else the gold one; None without any."""
    found = [name for name, keys in args.judges.items() if keys.reward_model is not None]
    return next((name for name in found if not args.judges[name].gold), found[0] if found else None)


def _ranked(pairs: "Dataset", name: str) -> "Dataset":
    """The pairs that raters ranked: what one of them wrote over a response is no verdict of the raters."""
    if "source" not in pairs.column_names:
        return pairs
    ranked = [number for number, source in enumerate(pairs["source"]) if source != "edited"]
    if not ranked:
        raise BadInput(f"{name}: all held-out pairs are rewritten responses over their originals; rank more items")
    return pairs.select(ranked)


def reward_model(held_out: HeldOut, judges: Mapping[str, Any], evidence: Evidence, cache: Cache) -> dict[str, Any]:
    """The reward model scores the held-out pairs, and how often it is right: see `agreement`."""
    say(f"scoring {len(held_out.chosen)} held-out pairs with the reward model")
    score = judges[held_out.judge].score
    chosen, rejected = score(held_out.chosen, cache), score(held_out.rejected, cache)
    found = held_out._replace(scores={**held_out.scores, "reward": (chosen, rejected)})
    items = [(ranks, score(responses, cache), group) for ranks, responses, group in held_out.rankings]
    groups = held_out.groups or [str(number) for number in range(len(chosen))]
    return {
        **agreement(found, points_of(evidence, held_out.judge)),
        "ranking": {
            **ranking(chosen, rejected, held_out.preference, groups, items),
            **_calibration(np.subtract(chosen, rejected), held_out.preference),
        },
    }


def _calibration(difference: ArrayLike, preference: ArrayLike) -> dict[str, float]:
    """How far its probabilities can be believed, in two numbers; `align inspect` says more."""
    said = {"log_loss": float(log_losses(difference, preference).mean())}
    return {**said, "ece": float(reliability(difference, preference)["ece"])}


def agreement(held_out: HeldOut, points: Sequence[Sequence[float]]) -> dict[str, Any]:
    """How often the reward model agrees with held-out preferences, beside two things that know less than it should:
    "the longer one wins", and, where the truth is known, the raters themselves. `points`: (truth, reward) of responses.
    """
    groups = held_out.groups
    right = {judge: [better(*pair) for pair in zip(*sides, strict=True)] for judge, sides in held_out.scores.items()}
    result: dict[str, Any] = {
        "source": held_out.source,
        "test": accuracy(right["reward"], groups),
        "longer_wins": accuracy(right["length"], groups),
    }
    if "truth" in right:
        from scipy.stats import spearmanr

        decided = [number for number, value in enumerate(right["truth"]) if value != 0.5]
        kept_groups = [groups[number] for number in decided] if groups else None
        by_reward = [right["reward"][n] if right["truth"][n] == 1.0 else 1.0 - right["reward"][n] for n in decided]
        correlation = spearmanr(points).statistic if len(points) > 2 else float("nan")
        result["truth"] = {
            "pairs": accuracy(by_reward, kept_groups),
            "raters": accuracy([right["truth"][n] for n in decided], kept_groups),
            "correlation": None if correlation != correlation else float(correlation),
            "points": points,
        }
    return result


def points_of(evidence: Evidence, reward: str) -> list[list[float]]:
    """(truth, reward) of every response to a main prompt, where the truth is known."""
    truths = [name for name, judged in evidence.judged.items() if judged.facts["kind"] == "known truth"]
    if not truths:
        return []
    true, said = evidence.judged[truths[0]].scores or {}, evidence.judged[reward].scores or {}
    return [
        [t, r]
        for model in evidence.responses
        for prompt, t, r in zip(evidence.prompts, true[model], said[model], strict=True)
        if prompt.set == MAIN and t is not None and r is not None
    ]
