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


def in_batches(texts: Iterable[Text], at_once: int) -> list[list[Text]]:
    """Each text once, in batches of at most so many: beside others with its prompt, and then those of like length."""
    of: dict[tuple[int, ...], list[Text]] = {}
    for text in dict.fromkeys(texts):
        of.setdefault(text.ids[: text.start], []).append(text)
    groups = [same[start : start + at_once] for same in of.values() for start in range(0, len(same), at_once)]
    groups.sort(key=lambda group: -max(len(text.ids) for text in group))
    batches: list[list[Text]] = []
    for group in groups:
        if not batches or len(batches[-1]) + len(group) > at_once:
            batches.append([])
        batches[-1] += group
    return batches


def computed_once(
    texts: Iterable[Text],
    total_logprobs: Callable[[list[Text]], list[float]],
    weights: str | None,
    accelerator: Any,
    at_once: int,
) -> dict[Text, float]:
    """log p(response | prompt) under the reference, in nats, of each text; all processes call it, and know all.

    total_logprobs: of texts that go through the model together, at most `at_once`. weights: a hash of all that the
    numbers depend on besides tokens; None keeps nothing.

    Which texts go together is settled by the texts alone, whatever is known already: a run that was killed meanwhile
    ends with the numbers of the unbroken one, to the last bit.
    """
    from accelerate.utils import broadcast_object_list, gather_object

    cache = _cache(weights)
    batches = in_batches(texts, at_once)
    keys = {text: _key(weights, text) for batch in batches for text in batch}
    known = [cache.get(key) for key in keys.values()]
    broadcast_object_list(known)  # of the first process: others may lie on machines that know less
    values: dict[Text, float] = {text: value for text, value in zip(keys, known, strict=True) if value is not None}
    missing = [batch for batch in batches if any(text not in values for text in batch)]
    if missing:
        say(f"what the reference holds of {len(keys)} responses is computed once; {len(values)} are known already")
    own, world = accelerator.process_index, accelerator.num_processes
    for start in range(0, len(missing), _ROUND * world):
        round_ = missing[start : start + _ROUND * world]
        made = [(number, total_logprobs(round_[number])) for number in range(own, len(round_), world)]
        for number, totals in gather_object(made):
            for text, total in zip(round_[number], totals, strict=True):
                if text not in values:
                    values[text] = total
                    if own == 0:
                        cache.put(keys[text], total)
    return values


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


def _key(weights: str | None, text: Text) -> dict[str, str]:
    tokens = sha256(array("q", (text.start, *text.ids)).tobytes()).hexdigest()
    return {"reference": str(weights), "tokens": tokens}


def _cache(weights: str | None) -> Cache:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "concord" / "reference"
    try:
        return Cache(None if weights is None else folder)
    except BadInput:
        return Cache(None)  # a home that can't be written to
