"""What a reward run is worth on held-out pairs: load them, score them, and gather what its report says.

`align reward` writes the report at its end where its data set has held-out pairs, `align inspect` at any time.
"""

import gc
import os
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from align.data.lengths import token_ids, whole_texts
from align.data.load import as_turns, data_facts, load_pairs, parted, said_of
from align.evaluate import reward_numbers as numbers
from align.models.rewards import load_as_trained, score_moments
from align.models.scores import RewardModel
from align.report.reward import write_reward_report
from align.run.manifest import is_run
from align.run.progress import say
from preferences.contract import Ranking, check_preferences, is_preferences_folder, read_rows
from preferences.errors import BadInput
from preferences.files import read_json, sha256_json

MISTAKES = 10
MOST = 20_000  # pairs, and rankings: more would change no digit that anybody reads, and take hours
_BATCH = 16


class HeldOut(NamedTuple):
    """Pairs that the run did not train on, and the rankings that they come from, as far as the data have any."""

    data: str
    split: str | None  # None: all of a file
    pairs: list[dict[str, Any]]  # rows of pairs; where `preference` is ½ it is a tie
    rankings: list[Ranking]


def report_on(run: str, data: str | None = None) -> tuple[Path, dict[str, Any]]:
    """Write reward.html and reward.json into the folder of the reward run `run`; the page's path, and what it says.

    `data` is a preferences folder, a file of pairs, or a hub data set; None: the run's own. Raises BadInput.
    """
    report = inspect_run(run, data)
    if report is None:
        raise BadInput(
            f"{run}: no held-out pairs in {_manifest(run)['recipe']['dataset_name']}, or it can't be read any more;"
            " name data that it was not trained on: align inspect RUN DATA"
        )
    return write_reward_report(run, report), report


def report_after_training(run: str) -> None:
    """The same at the end of training, if there are held-out pairs; the run is finished whether or not.

    Not in one process of several: under DeepSpeed or FSDP it could not load a model for itself.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        say(f"what it is worth on held-out pairs: align inspect {run}")
        return
    import torch

    gc.collect()  # what trained is gone; its memory, too
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    try:
        report = inspect_run(run)
        if report is not None:
            say(f"what it is worth on held-out pairs: {write_reward_report(run, report)}")
    except BadInput as error:
        say(f"no report on held-out pairs: {error}")
    except Exception as error:  # memory, the disk, or a mistake of ours: the weights are there, and the run went well
        why = " ".join(str(error).split())
        say(f"no report on held-out pairs ({type(error).__name__}: {why}); to try again: align inspect {run}")


def inspect_run(run: str, data: str | None = None) -> dict[str, Any] | None:
    """The content of reward.json for the reward run `run`, on `data` or on the held-out pairs of its own data set.

    None where neither its `test` nor its `validation` split has pairs and no `data` is given. Raises BadInput.
    """
    manifest = _manifest(run)
    recipe = manifest["recipe"]
    held_out = _given(data) if data is not None else find_held_out(recipe)
    if held_out is None:
        return None
    model = load_as_trained(run)
    return {
        "format": 1,
        "run": str(run),
        "model": str(recipe.get("model_name_or_path")),
        "data": held_out.data,
        "split": held_out.split,
        "data_sha256": data_facts(held_out.data)["sha256"],
        "simulated": _is_simulated(held_out.data),
        "trained_on": _trained_on(held_out, manifest),
        "weights_sha256": manifest.get("weights_sha256"),
        "steps": manifest.get("steps"),
        "normalisation": dict(zip(("mean", "std"), score_moments(run), strict=True)),
        **gather(held_out, model, score_moments(run)),
    }


def find_held_out(recipe: Mapping[str, Any]) -> HeldOut | None:
    """The pairs of a recipe's data set that it does not train on: its test split, else its validation split, else None.

    A file has no splits, so nothing of it is held out.
    """
    name = str(recipe["dataset_name"])
    if Path(name).is_file():
        return None
    for split in ("test", "validation"):
        if split == recipe.get("dataset_train_split", "train"):
            continue
        try:
            return _load(name, split, recipe.get("dataset_config"))
        except BadInput:
            continue
    return None


def gather(held_out: HeldOut, model: RewardModel, moments: tuple[float, float]) -> dict[str, Any]:
    """All numbers of the report, and the worst mistakes. Raises BadInput where no pair with a winner can be scored."""
    rows, dropped, ids = _that_fit(_some(held_out.pairs), model)
    preference = np.array([row["preference"] for row in rows], dtype=np.float64)
    winners = np.flatnonzero(preference != 0.5)
    if not len(winners):
        raise BadInput(
            f"{held_out.data}: none of its {len(held_out.pairs)} pairs has a winner and fits the reward model's context"
            f" of {model.context} tokens; give pairs that do"
        )
    items = [_item_ids(ranking, model) for ranking in _some(held_out.rankings)]
    known = [item for item in items if item is not None]
    texts = sorted({text for pair in ids for text in pair} | {text for item in known for text in item[1]})
    say(f"scoring {len(texts)} held-out responses with {model.name}")
    scores = dict(zip(texts, model.scores_of_ids(texts, _BATCH), strict=True))
    if not np.isfinite(list(scores.values())).all():
        raise BadInput(f"{model.name}: some of its scores are no numbers; train it again with a lower learning_rate")

    first, second = (np.array([scores[pair[side]] for pair in ids], dtype=np.float64) for side in (0, 1))
    characters = np.array([[_characters(row, side) for side in ("chosen", "rejected")] for row in rows], dtype=float)
    longer = np.log((1 + characters[:, 0]) / (1 + characters[:, 1]))
    groups = np.array([_group(row) for row in rows])
    difference = first - second
    d, y, length, of = difference[winners], preference[winners], longer[winners], groups[winners]
    right = numbers.rightness(d, y)
    tags = [rows[number].get("tags") or [] for number in winners]
    facts = {
        "pairs": len(winners),
        "ties": len(rows) - len(winners),
        "pairs_dropped": dropped,
        "pairs_left_out": max(0, len(held_out.pairs) - MOST),
        "groups": len(set(of.tolist())),
        "accuracy": numbers.accuracies(d, y, length, of),
        "human": numbers.human_ceiling(
            [item[0] for item in known],
            [[scores[text] for text in item[1]] for item in known],
            [item[2] for item in known],
        ),
        "tags": numbers.by_tag(right, tags, of),
        "lengths": numbers.by_length(right, characters[winners], numbers.rightness(length, y), of),
        "length": numbers.length_facts(d, y, length, of),
        "ranking": numbers.ranking(
            first[winners],
            second[winners],
            y,
            of,
            [(item[3], [scores[text] for text in item[1]], item[2]) for item in known],
        ),
        "calibration": numbers.calibration(difference, preference, groups),
        "sureness": numbers.by_sureness(d, y, of),
        "strength": numbers.by_strength(difference, preference, [row.get("strength") for row in rows], groups),
        "scores": numbers.distribution(first, second, preference, {"mean": moments[0], "std": moments[1]}),
    }
    worst = np.argsort((difference * (2 * preference - 1)), kind="stable")[:MISTAKES]
    facts["mistakes"] = [
        _mistake(rows[n], first[n], second[n], preference[n], moments)
        for n in worst.tolist()
        if difference[n] * (preference[n] - 0.5) < 0
    ]
    return facts


# --- the data ---------------------------------------------------------------------------------------------------


def _manifest(run: str) -> dict[str, Any]:
    if not is_run(run):
        raise BadInput(f"{run}: not a run folder; `align reward` makes one")
    manifest = read_json(Path(run) / "manifest.json")
    if manifest["verb"] != "reward":
        raise BadInput(f"{run}: a run of `align {manifest['verb']}`; give one of `align reward`")
    if manifest.get("status") != "finished":
        raise BadInput(f"{run}: that run is not finished ({manifest.get('status')}); go on with it by --resume")
    return manifest


def _given(data: str) -> HeldOut:
    """Data that somebody named: a preferences folder's or a hub data set's held-out split, or a whole file."""
    if Path(data).is_file():
        return HeldOut(data, None, _rows(load_pairs(data, "train"), data), [])
    found = find_held_out({"dataset_name": data, "dataset_train_split": None})
    if found is None:
        return _load(data, "test", None)  # which says what is wrong with it
    return found


def _load(name: str, split: str, config: str | None) -> HeldOut:
    if not is_preferences_folder(name):
        return HeldOut(name, split, _rows(load_pairs(name, split, config), name), [])
    check_preferences(name)
    pairs = [row.model_dump() for row in read_rows(name, f"{split}.jsonl")]
    ties = [row.model_dump() for row in read_rows(name, "ties.jsonl") if row.split == split]
    ranked = [row for row in (*pairs, *ties) if row["source"] != "edited"]  # one rater's rewriting is no verdict
    if not any(row["preference"] != 0.5 for row in ranked):
        raise BadInput(f"{Path(name) / f'{split}.jsonl'}: no pairs that raters ranked; rank more items")
    return HeldOut(name, split, ranked, [row for row in read_rows(name, "rankings.jsonl") if row.split == split])


def _rows(pairs: Any, name: str) -> list[dict[str, Any]]:
    rows = []
    for number, row in enumerate(pairs, start=1):
        where, tags = f"{name}, row {number}", row.get("tags")
        preference, _, _ = said_of(row, where)
        if tags is not None and not (isinstance(tags, list) and all(isinstance(tag, str) for tag in tags)):
            raise BadInput(f"{where}: tags {tags!r}: it is a list of texts; mend it, or take the column out")
        if row.get("source") != "edited":
            rows.append({**row, "preference": preference})
    return rows


def _some(rows: Sequence[Any]) -> list[Any]:
    """At most MOST of them, drawn at random and the same ones each time, in their order."""
    if len(rows) <= MOST:
        return list(rows)
    return [rows[number] for number in sorted(random.Random(0).sample(range(len(rows)), MOST))]


def _group(row: Mapping[str, Any]) -> str:
    prompt, chosen, rejected = parted(row)
    return str(row.get("group") or row.get("ranking") or sha256_json(prompt or [chosen, rejected]))


def _response(row: Mapping[str, Any], side: str) -> list[dict[str, str]]:
    """The turns of a response, without those of a prompt that stands in it."""
    _, chosen, rejected = parted(row)
    return as_turns(chosen if side == "chosen" else rejected, "assistant")


def _characters(row: Mapping[str, Any], side: str) -> int:
    return sum(len(turn["content"]) for turn in _response(row, side))


def _that_fit(
    rows: Sequence[dict[str, Any]], model: RewardModel
) -> tuple[list[dict[str, Any]], int, list[tuple[tuple[int, ...], tuple[int, ...]]]]:
    """(rows within the model's context, how many are not, token ids of both sides)."""
    kept, ids = [], []
    for row in rows:
        first, second = (tuple(token_ids(model.tokenizer, text)) for text in whole_texts(row))
        if model.context is None or max(len(first), len(second)) <= model.context:
            kept.append(row)
            ids.append((first, second))
    return kept, len(rows) - len(kept), ids


def _item_ids(
    ranking: Ranking, model: RewardModel
) -> tuple[list[list[int]], list[tuple[int, ...]], str, list[int]] | None:
    """(every answer's ranks, token ids of every response, group, the consensus' ranks), or None where a response does
    not fit the context.
    """
    prompt = [turn.model_dump() for turn in ranking.prompt]
    responses = [[turn.model_dump() for turn in response] for response in ranking.responses]
    ids = [tuple(token_ids(model.tokenizer, prompt + response)) for response in responses]
    if model.context is not None and max(map(len, ids)) > model.context:
        return None
    return [answer.ranks for answer in ranking.answers], ids, ranking.group, ranking.ranks


def _mistake(
    row: Mapping[str, Any], first: float, second: float, preference: float, moments: tuple[float, float]
) -> dict[str, Any]:
    """A pair that the model orders against the raters: what they preferred, and what it does; scores normalised."""
    mean, std = moments
    sides = [("chosen", first), ("rejected", second)]
    (better, low), (worse, high) = sides if preference > 0.5 else sides[::-1]
    return {
        "prompt": as_turns(parted(row)[0]),
        "preferred": {"turns": _response(row, better), "score": (float(low) - mean) / std},
        "favoured": {"turns": _response(row, worse), "score": (float(high) - mean) / std},
        "preference": max(preference, 1 - preference),
        "strength": row.get("strength"),
        "ranking": row.get("ranking"),
        "tags": list(row.get("tags") or []),
    }


def _trained_on(held_out: HeldOut, manifest: Mapping[str, Any]) -> bool:
    """Whether these are the pairs that the run was trained on, by their name, their place or their bytes."""
    recipe = manifest["recipe"]
    train = recipe.get("dataset_train_split", "train")
    data, trained = (Path(str(name)).expanduser().resolve() for name in (held_out.data, recipe["dataset_name"]))
    if data.is_file() and data.parent == trained:
        return data.stem == str(train)
    hashes = [set(facts["sha256"].values()) for facts in (data_facts(held_out.data), manifest["inputs"]["dataset"])]
    same = data == trained or (hashes[0] == hashes[1] and bool(hashes[0]))
    return same and held_out.split in (None, train)


def _is_simulated(data: str) -> bool:
    manifest = Path(data) / "manifest.json"
    return manifest.is_file() and bool(read_json(manifest).get("simulated"))
