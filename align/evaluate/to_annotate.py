"""`align evaluate --to-annotate`: pairs of responses, base against each candidate, for people to judge blind.

The responses are those that the evaluation itself samples and keeps, so that what people say is about the very texts
that the report is about. Nothing here is left to chance: who stands first, and what comes when, follows from hashes.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from align.evaluate.config import read_evaluation
from align.evaluate.evidence import Prompt, main_numbers, pair_id
from align.evaluate.gold_items import gold_items
from align.evaluate.prompts import load_evaluation_prompts
from align.evaluate.responses import answers, open_models
from align.run.cache import Cache
from align.run.disk import check_can_be_written
from align.run.progress import say
from preferences.contract import Item, read_items
from preferences.errors import BadInput
from preferences.files import sha256_json, write_jsonl
from preferences.shapes import validate
from preferences.stats.power import power_of, prompts_needed

DETECT, POWER = 0.60, 0.80
GOLD_SHARE = 10  # one gold item for so many pairs


class Pairs(NamedTuple):
    """Import lines, in the order of the file, and of how many pairs both responses are the same."""

    items: list[dict[str, Any]]
    identical: int


def to_annotate(
    recipe: dict[str, Any],
    where: str,
    file: str,
    *,
    detect: float = DETECT,
    power: float = POWER,
    overlap: int | None = None,
    gold: str | None = None,
) -> None:
    """Sample what the cache does not have, and write `file` for `annotate import`. Raises BadInput before that.

    So many prompts are taken as show a true win rate of `detect` with probability `power`; `overlap` is how many raters
    see each pair (the project says it otherwise); `gold` is a file of gold items to mix in, instead of made ones.
    """
    args = read_evaluation(recipe, where)
    if len(args.models) < 2:
        raise BadInput(f"{where}: key `models`: names only {args.base}; name a model to compare it with")
    if args.cache_dir is None:
        raise BadInput(
            f"{where}: key `cache_dir`: null keeps no responses, and the evaluation would judge others than people did;"
            " leave the key out"
        )
    needed = _needed(detect, power)
    check_can_be_written(file, "--to-annotate")
    own = _own_gold(gold) if gold is not None else None
    cache = Cache(args.cache_dir)
    prompts = load_evaluation_prompts(args)
    models = open_models(args, prompts, where)

    taken = sample_of(prompts, needed)
    say(_power_words(len(taken), needed, detect, power))
    with tempfile.TemporaryDirectory() as folder:
        # All prompts, in the evaluation's own batches: so it finds these very responses in the cache.
        said = {name: answers(model, prompts, args, Path(folder), cache) for name, model in models.items()}
    texts = {name: [one.text for one in rows] for name, rows in said.items()}
    pairs = blind_pairs(prompts, taken, texts, args.base, overlap)
    if not pairs.items:
        raise BadInput(f"{where}: all responses of the models are the same as {args.base}'s; there is nothing to ask")
    wanted = math.ceil(len(pairs.items) / GOLD_SHARE)
    if own is None:
        spare = [number for number in by_id(prompts) if number not in set(taken)] + list(taken)
        some = {name: [rows[number] for number in spare] for name, rows in texts.items()}
        own = gold_items([prompts[number] for number in spare], some, wanted)
    items = shuffled([*pairs.items, *own])
    for number, item in enumerate(items, start=1):
        validate(Item, item, f"{file}, line {number}")
    write_jsonl(file, items)
    _say_what(file, len(taken), len(pairs.items), pairs.identical, len(own), wanted, len(models) - 1)


def _needed(detect: float, power: float) -> int:
    if not 0.5 < detect <= 1:
        raise BadInput(f"--detect {detect:g}: the win rate to detect lies above 0.5 and up to 1, as 0.60")
    if not 0 < power < 1:
        raise BadInput(f"--power {power:g}: a probability between 0 and 1, as 0.8")
    return prompts_needed(detect, power=power)


def _own_gold(path: str) -> list[dict[str, Any]]:
    """Import lines with `gold`. Models that they name are left out: nobody may count them for one."""
    items = read_items(path)
    for item in items:
        if item.gold is None:
            raise BadInput(f"--gold {path}: item {item.id!r} has no `gold`; say which ranks are right")
    rows = [item.model_dump(mode="json", exclude_none=True) for item in items]
    for row in rows:
        for response in row["responses"]:
            response.pop("model", None)
    return rows


def by_id(prompts: Sequence[Prompt]) -> list[int]:
    """The numbers of the main prompts by id: these are hashes, so the order has nothing to do with what they say."""
    return sorted(main_numbers(prompts), key=lambda number: prompts[number].id)


def sample_of(prompts: Sequence[Prompt], needed: int) -> list[int]:
    """So many of the main prompts, or all; more of them begin with the same ones."""
    return by_id(prompts)[:needed]


def blind_pairs(
    prompts: Sequence[Prompt],
    taken: Sequence[int],
    texts: Mapping[str, Sequence[str]],
    base: str,
    overlap: int | None = None,
) -> Pairs:
    """Import lines of the prompts with the numbers `taken`: the base's response beside that of each other model.

    Of each model's pairs it is in exactly half, up to one, that its response comes first; which half, hashes say. Pairs
    of the same text are left out.
    """
    items: list[dict[str, Any]] = []
    identical = 0
    for model in texts:
        if model == base:
            continue
        mine: list[dict[str, Any]] = []
        for number in taken:
            prompt, both = prompts[number], {base: texts[base][number], model: texts[model][number]}
            if both[base] == both[model]:
                identical += 1
                continue
            item: dict[str, Any] = {"id": pair_id(prompt.id, both), "prompt": prompt.turns}
            item["responses"] = [{"text": text, "model": name} for name, text in both.items()]
            if prompt.group is not None:
                item["group"] = prompt.group
            if prompt.tags:
                item["tags"] = list(prompt.tags)
            if overlap is not None:
                item["overlap"] = overlap
            mine.append(item)
        for place, item in enumerate(sorted(mine, key=lambda item: _order("first", item))):
            if place % 2:
                item["responses"].reverse()
        items += mine
    return Pairs(shuffled(items), identical)


def shuffled(items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """In an order by hash, so that neither a model's pairs nor a prompt's come one after the other."""
    return sorted(items, key=lambda item: _order("turn", item))


def _order(what: str, item: Mapping[str, Any]) -> str:
    return sha256_json([what, item["id"]])


def _power_words(taken: int, needed: int, detect: float, power: float) -> str:
    goal = (
        f"a true win rate of {detect:.0%} is found with probability {power:.0%} (at the 95% level) by {needed} prompts"
    )
    if taken == needed:
        return goal
    reach = next((rate / 1000 for rate in range(501, 1001) if power_of(rate / 1000, n=taken) >= power), None)
    found = f"what they find as surely is {reach:.1%}" if reach else "they are too few to find anything as surely"
    return f"{goal}; there are only {taken}: {found}, and {detect:.0%} with probability {power_of(detect, n=taken):.0%}"


def _say_what(file: str, prompts: int, pairs: int, identical: int, gold: int, wanted: int, models: int) -> None:
    many = f"{prompts} prompts × {models} models" if models > 1 else f"{prompts} prompts"
    text = f"{file}: {pairs} pairs of responses to {many}, and {gold} gold items among them"
    if identical:
        text += f"; nobody is asked about {identical} pairs of the same text, which count as ties in the evaluation"
    if gold < wanted:
        text += (
            f"; {wanted} gold items were wanted, but other responses don't plainly answer another prompt:"
            " give your own by --gold FILE"
        )
    say(f"{text}; next: annotate import PROJECT {file}")
