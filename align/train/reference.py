"""What the reference holds of the responses: log-probabilities that are computed once, before training, and kept.

The reference never changes, so every epoch, every look at held-out pairs, and every other run from the same weights
would compute the same numbers again. They are kept by the content of what makes them: weights, tokens, and versions.
"""

import os
from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from align.models.load import ModelSource, weights_of
from align.run.cache import Cache
from align.run.progress import say
from preferences.errors import BadInput
from preferences.files import sha256_json

_ROUND = 16  # batches a process, after which all that is known is kept


class Text(NamedTuple):
    """Token ids, of which those from `start` on are the response."""

    ids: tuple[int, ...]
    start: int


def texts_of(row: Mapping[str, Any], max_length: int | None, truncation_mode: str) -> tuple[Text, Text]:
    """Prompt and chosen, prompt and rejected of a row of TRL's tokens, cut as TRL's collator cuts them."""
    prompt = tuple(row["prompt_ids"])
    found = []
    for response in (row["chosen_ids"], row["rejected_ids"]):
        text = Text(prompt + tuple(response), len(prompt))
        if max_length is not None and truncation_mode == "keep_end":
            cut = max(0, len(text.ids) - max_length)
            text = Text(text.ids[cut:], max(0, text.start - cut))
        elif max_length is not None:
            text = Text(text.ids[:max_length], min(text.start, max_length))
        found.append(text)
    return found[0], found[1]


def for_layout(texts: Sequence[Text]) -> tuple[list[tuple[int, ...]], list[int]]:
    """What `lay_out` takes: token ids, and where the log-probabilities that are wanted begin."""
    return [text.ids for text in texts], [max(text.start, 1) for text in texts]  # nothing is said before the first


def in_batches(texts: Iterable[tuple[str, int]], at_once: int) -> list[list[int]]:
    """Numbers of texts, given as (prompt, tokens), in batches of at most so many: each beside others with its prompt,
    and then those of like length.
    """
    lengths = []
    of: dict[str, list[int]] = {}
    for number, (prompt, tokens) in enumerate(texts):
        lengths.append(tokens)
        of.setdefault(prompt, []).append(number)
    groups = [same[start : start + at_once] for same in of.values() for start in range(0, len(same), at_once)]
    groups.sort(key=lambda group: -max(lengths[number] for number in group))
    batches: list[list[int]] = []
    for group in groups:
        if not batches or len(batches[-1]) + len(group) > at_once:
            batches.append([])
        batches[-1] += group
    return batches


def computed_once(
    count: int,
    text: Callable[[int], Text],
    total_logprobs: Callable[[list[Text]], list[float]],
    weights: str | None,
    accelerator: Any,
    at_once: int,
) -> list[float]:
    """log p(response | prompt) under the reference, in nats, of each of so many texts, by number; all processes call
    it, and know all. The texts themselves are never in memory together.

    total_logprobs: of texts that go through the model together, at most `at_once`. weights: a hash of all that the
    numbers depend on besides tokens; None keeps nothing.

    Which texts go together is settled by the texts alone, whatever is known already: a run that was killed meanwhile
    ends with the numbers of the unbroken one, to the last bit.
    """
    from accelerate.utils import broadcast_object_list, gather_object

    cache = _cache(weights)
    places: dict[str, int] = {}  # where a text is first, by its tokens
    shapes = []  # of each of these, its prompt and how long it is
    tokens = []
    for number in range(count):
        ids, start = text(number)
        tokens.append(_hash((start, *ids)))
        if tokens[-1] not in places:
            places[tokens[-1]] = number
            shapes.append((_hash(ids[:start]), len(ids)))
    hashes = list(places)
    known = [cache.get(_key(weights, each)) for each in hashes]
    broadcast_object_list(known)  # of the first process: others may lie on machines that know less
    missing = [batch for batch in in_batches(shapes, at_once) if any(known[each] is None for each in batch)]
    if missing:
        there = sum(value is not None for value in known)
        say(f"what the reference holds of {len(hashes)} responses is computed once; {there} are known already")
    own, world = accelerator.process_index, accelerator.num_processes
    for start in range(0, len(missing), _ROUND * world):
        batches = missing[start : start + _ROUND * world]
        made = []
        for number in range(own, len(batches), world):
            texts = [text(places[hashes[each]]) for each in batches[number]]
            made.append((number, total_logprobs(texts)))
        for number, totals in gather_object(made):
            for each, total in zip(batches[number], totals, strict=True):
                if known[each] is None:
                    known[each] = total
                    if own == 0:
                        cache.put(_key(weights, hashes[each]), total)
    held: dict[str, Any] = dict(zip(hashes, known, strict=True))
    return [float(held[each]) for each in tokens]


def weights_hash(source: ModelSource, model_args: Any, model: Any, accelerator: Any) -> str | None:
    """A hash of what reference log-probabilities depend on besides tokens: None where it can't be told."""
    import importlib.metadata

    facts = weights_of(source)
    if any("hub" in part and part["commit"] is None for part in facts["parts"]):
        return None
    quantised = (
        "load_in_4bit",
        "load_in_8bit",
        "bnb_4bit_quant_type",
        "use_bnb_nested_quant",
        "bnb_4bit_quant_storage",
    )
    facts |= {
        "dtype": str(model.dtype),
        "device": accelerator.device.type,
        "mixed_precision": accelerator.mixed_precision,
        "attention": model.config._attn_implementation,
        "quantised": {key: str(getattr(model_args, key, None)) for key in quantised},
        **{name: importlib.metadata.version(name) for name in ("peft", "bitsandbytes")},
    }
    return sha256_json(facts)


def _hash(ids: Sequence[int]) -> str:
    return sha256(array("q", ids).tobytes()).hexdigest()


def _key(weights: str | None, tokens: str) -> dict[str, str]:
    return {"reference": str(weights), "tokens": tokens}


def _cache(weights: str | None) -> Cache:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "concord" / "reference"
    try:
        return Cache(None if weights is None else folder)
    except BadInput:
        return Cache(None)  # a home that can't be written to
