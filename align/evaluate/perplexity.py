"""How surprised each model is at held-out text: what it has unlearnt shows here before people notice it."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from align.data.lengths import context_length, like_lengths, token_ids
from align.data.load import as_turns, load_demonstrations
from align.evaluate.config import EvaluateConfig
from align.models.load import device, load_causal_lm, load_config, load_tokenizer, weights_of
from align.run.cache import Cache
from align.run.progress import say
from preferences.contract import is_preferences_folder, read_rows
from preferences.errors import BadInput
from preferences.files import sha256_json

if TYPE_CHECKING:
    from align.evaluate.responses import Candidate

Floats = NDArray[np.float64]


class Text(NamedTuple):
    """A held-out text, after a prompt (None: after nothing). Only the text's own tokens count."""

    prompt: list[dict[str, str]] | None
    text: str


class Nats(NamedTuple):
    """What a model says of n held-out texts: -log p(text | prompt), characters and tokens of each, all (n,).

    `cut` is a hash of the texts as tokens: where two models have the same one, they can be compared per token.
    """

    nats: Floats
    characters: Floats
    tokens: Floats
    cut: str


def held_out_texts(args: EvaluateConfig) -> list[Text]:
    """The completions of `perplexity_on`, each text once: by default the demonstrations of the data's own split, where
    the data are a preferences folder with some; else none. Raises BadInput.
    """
    if args.perplexity_on is not None:
        same = args.perplexity_on == args.dataset_name
        rows = load_demonstrations(args.perplexity_on, args.dataset_split, args.dataset_config if same else None)
        found = [_text(row) for row in rows]
    elif is_preferences_folder(args.dataset_name):
        rows = [row for row in read_rows(args.dataset_name, "sft.jsonl") if row.split == args.dataset_split]
        found = [_text(row.model_dump()) for row in rows]
    else:
        return []
    return list({sha256_json(one): one for one in found if one.text.strip()}.values())


def _text(row: Mapping[str, Any]) -> Text:
    if row.get("completion") is not None:
        return Text(as_turns(row["prompt"]), as_turns(row["completion"])[-1]["content"])
    if row.get("messages"):
        return Text(row["messages"][:-1] or None, row["messages"][-1]["content"])
    return Text(None, row["text"])


def open_texts(args: EvaluateConfig, candidates: Mapping[str, "Candidate"]) -> list[Text]:
    """The held-out texts that fit the context of every local model; the others are counted aloud. Raises BadInput where
    none does.
    """
    texts = held_out_texts(args)
    fitting = set(range(len(texts)))
    for candidate in _local(candidates).values():
        context = context_length(load_config(candidate.source))
        rows = _rows(load_tokenizer(candidate.source), texts)
        fitting &= {n for n, (prompt, own) in enumerate(rows) if context is None or len(prompt) + len(own) <= context}
    if len(fitting) < len(texts):
        if not fitting:
            where = args.perplexity_on or args.dataset_name
            raise BadInput(f"{where}: no held-out text fits the models' contexts; name others by `perplexity_on`")
        say(f"perplexity: {len(texts) - len(fitting)} of {len(texts)} held-out texts are too long, and left out")
    return [texts[number] for number in sorted(fitting)]


def perplexity(
    candidates: Mapping[str, "Candidate"], texts: Sequence[Text], batch_size: int, cache: Cache
) -> dict[str, Nats]:
    """What each local model says of the texts; at temperature 1, whatever it samples at. {} without texts."""
    if not texts:
        return {}
    return {name: _nats(candidate, texts, batch_size, cache) for name, candidate in _local(candidates).items()}


def _local(candidates: Mapping[str, "Candidate"]) -> dict[str, Any]:
    return {name: one for name, one in candidates.items() if one.kind == "local"}


def _rows(tokenizer: Any, texts: Sequence[Text]) -> list[tuple[list[int], list[int]]]:
    """(tokens before, tokens of the text) of each. What comes after the text in a template is not counted, since other
    models' templates have something else there. Before a text without a prompt stands the token that begins texts, or
    else the one that ends them.
    """
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return [
        (
            [begin] if one.prompt is None else token_ids(tokenizer, one.prompt, generation=True),
            list(tokenizer(one.text, add_special_tokens=False)["input_ids"]),
        )
        for one in texts
    ]


def _nats(candidate: Any, texts: Sequence[Text], batch_size: int, cache: Cache) -> Nats:
    from align.models.logprobs import total_logprobs

    rows = _rows(load_tokenizer(candidate.source), texts)
    key = {"what": "nats", "model": weights_of(candidate.source)}
    model = None
    nats = np.zeros(len(rows))
    for batch in like_lengths([len(prompt) + len(own) for prompt, own in rows], batch_size, device().type):
        keys = [{**key, "prompt": rows[number][0], "response": rows[number][1]} for number in batch]
        known: list[Any] = [cache.get(one) for one in keys]
        if any(value is None for value in known):
            if model is None:
                say(f"{candidate.name}: perplexity of {len(rows)} held-out texts")
                model = load_causal_lm(candidate.source).to(device()).eval()
            totals = total_logprobs(model, [rows[n][0] for n in batch], [rows[n][1] for n in batch], 1.0)
            known = [-total for total in totals]
            for one, value in zip(keys, known, strict=True):
                cache.put(one, value)
        nats[batch] = known
    return Nats(
        nats,
        np.array([len(one.text) for one in texts], dtype=np.float64),
        np.array([len(own) for _, own in rows], dtype=np.float64),
        sha256_json([own for _, own in rows]),
    )
