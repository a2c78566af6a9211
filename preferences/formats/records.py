"""What every writer is given and what every reader makes: items with answers, and what the answers say together."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

from preferences.card import SPLITS
from preferences.contract import (
    Answer,
    Item,
    Models,
    Pair,
    PreferencesFolder,
    check_answer,
    check_preferences,
    read_rows,
)
from preferences.files import sha256_json
from preferences.formats.rows import Files, Lost
from preferences.formats.turns import Parts, Turns, dump
from preferences.shapes import Message, validate

OWN_GROUP = "prompt-"  # begins the name of a group that nobody named
MADE_ID = "item-"  # begins the id that an item without one gets


class Record(NamedTuple):
    """An item and what its answers, or a decision, say of it: `ranks` (None without answers), `pairs`, its `split`.

    `decided`: it was a decision. `pairs` hold ties as well (preference 0.5), and responses that a rater rewrote (source
    "edited").
    """

    item: Item
    ranks: list[int] | None
    pairs: list[Pair]
    split: str | None
    decided: bool = False


def from_folder(folder: PreferencesFolder) -> list[Record]:
    """The rankings of a preferences folder, with their pairs. Raters appear by pseudonym; reasons are not in it."""
    pairs: dict[str, list[Pair]] = {}
    for row in [*(pair for split in SPLITS for pair in folder.pairs.get(split, [])), *folder.ties]:
        pairs.setdefault(row.ranking, []).append(row)
    records = []
    for ranking in folder.rankings:
        models = ranking.models or [None] * len(ranking.responses)
        answers = [
            {key: value for key, value in answer.model_dump().items() if key != "guideline" and value not in (None, [])}
            for answer in ranking.answers
        ]
        value = {
            "id": ranking.ranking,
            "prompt": dump(ranking.prompt),
            "responses": [
                {"messages": dump(messages), "model": model}
                for messages, model in zip(ranking.responses, models, strict=True)
            ],
            "group": ranking.group,
            "tags": ranking.tags,
            "answers": answers,
        }
        item = validate(Item, value, f"rankings.jsonl, ranking {ranking.ranking}")
        records.append(Record(item, ranking.ranks, pairs.get(ranking.ranking, []), ranking.split, ranking.decided))
    return records


def read_folder(path: str | Path) -> list[Record]:
    """The same of a preferences folder on disk. Raises BadInput, also for one that was changed by hand."""
    manifest = check_preferences(path)
    pairs = {split: read_rows(path, f"{split}.jsonl") for split in SPLITS}
    return from_folder(
        PreferencesFolder(pairs, read_rows(path, "ties.jsonl"), read_rows(path, "rankings.jsonl"), [], manifest)
    )


def from_items(items: Iterable[Item]) -> list[Record]:
    """Import lines as records: the preference of a pair is the share of its answers, a tie counting half.

    That translates and does not weigh: `annotate export` is what estimates how far each rater can be trusted.
    """
    return [Record(item, _together(item), _pairs(item), None) for item in items]


def _wins(item: Item, i: int, j: int) -> int:
    """How many answers put response i above j, less how many put it below."""
    return sum((answer.ranks[j] > answer.ranks[i]) - (answer.ranks[j] < answer.ranks[i]) for answer in item.answers)


def _together(item: Item) -> list[int] | None:
    """Ranks by what each response wins against the others; who wins as much is a tie."""
    places = range(len(item.responses))
    points = [sum(_wins(item, i, j) for j in places) for i in places]
    return ranks_of(points) if item.answers else None


def _pairs(item: Item) -> list[Pair]:
    rows = []
    for i, j in combinations(range(len(item.responses)), 2) if item.answers else ():
        points = _wins(item, i, j)
        sides = item.responses[i], item.responses[j]
        chosen, rejected = sides if points >= 0 else sides[::-1]
        about = [answer.strength for answer in item.answers if _about(answer, i, j)]
        sizes = [abs(strength) for strength in about if strength is not None]
        named = chosen.model is not None or rejected.model is not None
        rows.append(
            Pair(
                prompt=item.prompt,
                chosen=chosen.messages,
                rejected=rejected.messages,
                preference=0.5 + abs(points) / (2 * len(item.answers)),
                strength=sum(sizes) / len(sizes) if sizes else None,
                weight=1.0,
                ranking=item.id,
                group=item.group or OWN_GROUP + sha256_json(dump(item.prompt))[:16],
                tags=item.tags,
                raters=[answer.rater for answer in item.answers],
                models=Models(chosen=chosen.model, rejected=rejected.model) if named else None,
            )
        )
    return rows


def _about(answer: Answer, i: int, j: int) -> bool:
    """Whether an answer's strength is about this pair: the best over a second, or two that share the first rank."""
    ranks = sorted(answer.ranks)
    return sorted((answer.ranks[i], answer.ranks[j])) == ranks[:2] or len(ranks) == 2


# --- what has no place --------------------------------------------------------------------------------------------

# kind: (what is counted, how many of them a record has); what every format holds, texts and a winner, is not among them
KINDS: dict[str, tuple[str, Any]] = {
    "unanswered": ("items have no answer, and are left out", lambda one: not one.item.answers),
    "gold": ("items have known ranks", lambda one: one.item.gold is not None),
    "ties": ("pairs have no winner, and are left out", lambda one: sum(pair.preference == 0.5 for pair in one.pairs)),
    "probabilities": (
        "pairs are not certain, and are written as if they were",
        lambda one: sum(0.5 < pair.preference < 1 for pair in one.pairs),
    ),
    "weights": ("pairs have a weight", lambda one: sum(pair.weight != 1 for pair in one.pairs)),
    "raters": ("answers name their rater", lambda one: len(one.item.answers)),
    "models": ("items name their models", lambda one: any(response.model for response in one.item.responses)),
    "tags": ("items have tags", lambda one: bool(one.item.tags)),
    "groups": ("items have a group", lambda one: bool(one.item.group) and not one.item.group.startswith(OWN_GROUP)),
    "strength": ("answers have a strength", lambda one: _count(one, "strength")),
    "ratings": ("answers have ratings", lambda one: _count(one, "ratings")),
    "flags": ("answers have flags", lambda one: _count(one, "flags")),
    "spans": ("answers mark passages", lambda one: _count(one, "spans")),
    "reasons": ("answers give a reason", lambda one: _count(one, "rationale")),
    "edits": ("answers rewrite a response", lambda one: _count(one, "edited")),
    "order": ("answers say the order on the screen", lambda one: _count(one, "shown")),
    "seconds": ("answers say how long they took", lambda one: _count(one, "seconds")),
    "times": ("answers say when they were given", lambda one: _count(one, "submitted_at")),
}


def _count(record: Record, key: str) -> int:
    return sum(getattr(answer, key) not in (None, [], {}) for answer in record.item.answers)


def count_lost(records: Sequence[Record], keeps: Collection[str], lost: Lost) -> None:
    """Count all that the records say and a format that `keeps` only some kinds has no place for."""
    for kind, (what, of) in KINDS.items():
        if kind not in keeps and (count := sum(int(of(record)) for record in records)):
            lost[kind, what if "," in what else f"{what}, for which this format has no place"] += count


def count_decisions(records: Sequence[Record], lost: Lost) -> None:
    """The same for a format of answers, which says what each rater said and nothing of what was decided."""
    decided = sum(record.decided for record in records)
    lost["decisions", "items were decided by a reviewer, and only what raters said is written"] += decided


def sentences(lost: Mapping[tuple[str, str], int]) -> list[str]:
    """A sentence a kind, such as "tags: 12 items have tags, for which this format has no place"."""
    return [f"{kind}: {count} {rest}" for (kind, rest), count in lost.items() if count]


# --- what readers make --------------------------------------------------------------------------------------------


def make_item(where: str, lost: Lost, **value: Any) -> Item | None:
    """A contract item from what a row says, None and counted where its prompt says nothing. Raises BadInput.

    Keys with None are left out. Without an `id` it gets one from its content, the same whenever it is read.
    """
    value = {key: given for key, given in value.items() if given is not None}
    prompt: Turns = value["prompt"]
    if not prompt or not prompt[-1]["content"].strip():
        lost["empty prompts", "rows whose prompt says nothing are left out"] += 1
        return None
    if prompt[-1]["role"] == "assistant":
        lost["open prompts", "rows whose prompt ends with the assistant's turn are left out"] += 1
        return None
    if "id" not in value:
        value["id"] = MADE_ID + sha256_json(value)[:20]
    return validate(Item, value, where)


def chosen_over_rejected(where: str, lost: Lost, rater: str, parts: Parts | None, **more: Any) -> Item | None:
    """An item of two responses with one answer: the first is better; None and counted where there are no parts.

    `strength` is a size here; `ratings` and `strength` go to the answer, `models` (of both) to the responses.
    """
    if parts is None:
        left_out(lost, "prompts", "rows have two conversations without a common beginning")
        return None
    prompt, chosen, rejected = parts
    strength, ratings, models = (more.pop(key, None) for key in ("strength", "ratings", "models"))
    answer = {"rater": rater, "ranks": [1, 2], "strength": -strength if strength else None, "ratings": ratings}
    responses = [
        {"messages": messages, "model": model or None}
        for messages, model in zip((chosen, rejected), models or (None, None), strict=True)
    ]
    return make_item(where, lost, prompt=prompt, responses=responses, answers=[answer], **more)


def fitting(strength: Any, ranks: Sequence[int], lost: Lost) -> int | None:
    """The strength, unless it is none or does not fit the ranks, which is counted: others mean other things by it."""
    try:
        check_answer(Answer.model_validate({"rater": "-", "ranks": ranks, "strength": strength}), len(ranks))
    except ValueError:
        lost["strength", "strengths do not fit the ranks, and are left out"] += 1
        return None
    return strength


def whole_ratings(given: Mapping[str, Mapping[str, float]], names: Sequence[str], lost: Lost) -> dict[str, list[float]]:
    """{dimension: a value for each of `names`} of {dimension: {name: value}}; what lacks a response is counted."""
    whole = {name: [values[one] for one in names] for name, values in given.items() if values.keys() == set(names)}
    lost["ratings", "ratings are not given to all responses, and are left out"] += len(given) - len(whole)
    return whole


def ranks_of(scores: Sequence[float]) -> list[int]:
    """Ranks of scores, the highest first: 1 + how many are higher."""
    return [1 + sum(other > mine for other in scores) for mine in scores]


def from_labels(rows: Iterable[tuple[str, Turns, Turns, bool]], rater: str, lost: Lost) -> Iterator[Item]:
    """Items from single responses (where, prompt, response, whether it is good): all of one prompt are one item.

    Good ones share the first rank, the others the next. A prompt with one kind only has nothing to compare.
    """
    prompts: dict[str, list[tuple[str, Turns, Turns, bool]]] = {}
    for row in rows:
        prompts.setdefault(sha256_json(row[1]), []).append(row)
    for group in prompts.values():
        where, prompt, _, _ = group[0]
        labels = [label for _, _, _, label in group]
        if all(labels) or not any(labels):
            lost["unpaired", "responses have no response of the other label to the same prompt, and are left out"] += (
                len(group)
            )
            continue
        answer = {"rater": rater, "ranks": ranks_of(labels)}
        responses = [{"messages": response} for _, _, response, _ in group]
        if item := make_item(where, lost, prompt=prompt, responses=responses, answers=[answer]):
            yield item


def line_of(item: Item) -> dict[str, Any]:
    """An item as one line of an import, without what is not said."""
    line = item.model_dump(mode="json", exclude_none=True, exclude_defaults=True)
    for response in line["responses"]:
        if len(response["messages"]) == 1 and response["messages"][0]["role"] == "assistant":
            response["text"] = response.pop("messages")[0]["content"]
    return line


# --- what writers share -------------------------------------------------------------------------------------------


def by_split(records: Sequence[Record], suffix: str = ".jsonl") -> dict[str, list[Record]]:
    """The records of each split that has any, by the name of its file; "train" where nobody chose a split."""
    parts = {f"{split}{suffix}": [one for one in records if (one.split or "train") == split] for split in SPLITS}
    return {name: part for name, part in parts.items() if part}


def winners(records: Sequence[Record]) -> Iterator[tuple[Record, Pair]]:
    """Each pair that has a winner, with its record."""
    for record in records:
        for pair in record.pairs:
            if pair.preference > 0.5:
                yield record, pair


def pair_rows(records: Sequence[Record], row: Callable[[Record, Pair], dict[str, Any] | None]) -> Files:
    """A file a split, a row for each pair with a winner; `row` gives None, and counts why, where it has no place."""
    parts = by_split(records)
    files = {name: [made for one in winners(part) if (made := row(*one)) is not None] for name, part in parts.items()}
    return {name: rows for name, rows in files.items() if rows}


def label_rows(
    records: Sequence[Record], row: Callable[[Record, list[Message], bool], dict[str, Any] | None], lost: Lost
) -> Files:
    """A file a split with a row for each response that only wins (True) or only loses (False) in its item."""
    files: Files = {}
    for name, part in by_split(records).items():
        rows = []
        for record in part:
            won = _each_once(pair.chosen for _, pair in winners([record]))
            lose = _each_once(pair.rejected for _, pair in winners([record]))
            both = [messages for messages in won if messages in lose]
            lost["between", "responses are better than one and worse than another, and are left out"] += len(both)
            for messages in won + lose:
                if messages not in both and (made := row(record, messages, messages in won)) is not None:
                    rows.append(made)
        if rows:
            files[name] = rows
    return files


def _each_once(all_of_them: Iterable[list[Message]]) -> list[list[Message]]:
    once: list[list[Message]] = []
    for messages in all_of_them:
        if messages not in once:
            once.append(messages)
    return once


def places(record: Record, pair: Pair) -> tuple[int, int] | None:
    """Which responses of the item the pair is about; None where one was rewritten by a rater."""
    texts: list[list[Message]] = [response.messages for response in record.item.responses]
    if pair.source == "edited" or pair.chosen not in texts or pair.rejected not in texts:
        return None
    return texts.index(pair.chosen), texts.index(pair.rejected)


def left_out(lost: Lost, kind: str, why: str) -> None:
    """Count a row that a format can't hold: `why` says what it has, as in "pairs have a system prompt"."""
    lost[kind, f"{why}, and are left out"] += 1
