"""The texts of a run, for its plan: how many, how long, what prompts they share. Nothing is downloaded for it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from align.data.lengths import context_length, prompts_that_fit, token_ids, whole_texts
from align.data.load import load_demonstrations, load_pairs, load_prompts
from align.data.unpaired import load_unpaired
from align.models.load import ModelSource, load_config, load_tokenizer
from preferences.errors import BadInput

ASSUMED_PROMPT = 512  # tokens of the longest prompt, where neither the recipe nor data at hand say
_ASSUMED_ROWS = 10_000
_ASSUMED_TOKENS = (200, 200)  # of a prompt and of a response, on average
_LOOKED_AT = 4_000  # rows: enough for a mean; the longest in characters are looked at besides
_LONGEST = 100


class Text(NamedTuple):
    """A row: tokens of its prompt, and of each response, as they are trained on."""

    prompt: int
    responses: tuple[int, ...]


class Texts(NamedTuple):
    """What goes through a model in one epoch. Means are of a row, in tokens."""

    rows: int
    prompt: float
    responses: float  # of all of a row's responses together: two of a pair
    longest: int  # tokens of the longest text; of PPO: of the longest prompt
    largest: Text  # the row of the most tokens, its prompt once; nothing shared where it is assumed
    where: str  # of `longest`, in words
    known: bool  # from data, not assumed


def texts_of(verb: str, args: Any, data: Any, source: ModelSource) -> Texts:
    """The texts of a recipe, from the data where it is here and so is the tokenizer, else assumed. Raises BadInput."""
    if verb == "ppo":
        return _prompts(args, data, source)
    limits = [(args.max_length, "max_length"), (context_length(load_config(source)), "the context")]
    most, name = min(((limit, name) for limit, name in limits if limit), default=(None, ""))
    tokenizer = _tokenizer(source, data.dataset_name)
    if tokenizer is None:
        longest, where = (most, name) if most else (ASSUMED_PROMPT, "assumed: set max_length")
        count = 2 if verb in ("dpo", "reward") else 1
        prompt, response = _assumed(longest)
        return Texts(_ASSUMED_ROWS, prompt, count * response, longest, Text(0, (longest,) * count), where, False)
    rows, total = _rows(verb, args, data)
    found = [_cut(_text(tokenizer, row), most, dropped=verb == "reward") for row in rows]
    texts = [text for text in found if text is not None]
    if not texts:
        raise BadInput(f"{data.dataset_name}: every one of its {total} rows is longer than {name} {most}")
    longest = max(text.prompt + max(text.responses) for text in texts)
    where = f"the longest of {total} in {data.dataset_name}" + (f", cut at {name}" if longest == most else "")
    sample = texts[: min(len(texts), _LOOKED_AT)]
    return Texts(
        round(total * len(texts) / len(found)),
        sum(text.prompt for text in sample) / len(sample),
        sum(sum(text.responses) for text in sample) / len(sample),
        longest,
        max(texts, key=lambda text: text.prompt + sum(text.responses)),
        where,
        True,
    )


def _assumed(longest: int) -> tuple[float, float]:
    """Mean tokens of prompt and response, no longer than the longest."""
    prompt, response = _ASSUMED_TOKENS
    scale = min(1.0, longest / (prompt + response))
    return prompt * scale, response * scale


def _tokenizer(source: ModelSource, data: str | None) -> Any:
    """The tokenizer; None where it or the data is not here."""
    if not data or not Path(data).expanduser().exists():
        return None
    try:
        return load_tokenizer(source)
    except BadInput:
        return None


def _rows(verb: str, args: Any, data: Any) -> tuple[list[Any], int]:
    """Rows to look at, spread over all and then the longest; and how many there are."""
    name, split, config = data.dataset_name, data.dataset_train_split, data.dataset_config
    if verb == "sft":
        rows = list(load_demonstrations(name, split, config))
    elif verb == "kto":
        rows = list(load_unpaired(name, split, config, args.seed))
    else:
        rows = list(load_pairs(name, split, config, ties=True))
    if len(rows) <= _LOOKED_AT:
        return rows, len(rows)
    step = len(rows) / _LOOKED_AT
    spread = [rows[int(number * step)] for number in range(_LOOKED_AT)]
    return [*spread, *sorted(rows, key=lambda row: len(str(row)))[-_LONGEST:]], len(rows)


def _text(tokenizer: Any, row: dict[str, Any]) -> Text:
    if row.get("chosen") is not None:
        chosen, rejected = (token_ids(tokenizer, text) for text in whole_texts(row))
        same = _common(chosen, rejected)
        return Text(same, (len(chosen) - same, len(rejected) - same))
    if row.get("completion") is not None:
        whole = token_ids(tokenizer, row["prompt"] + row["completion"])
        prompt = _common(whole, token_ids(tokenizer, row["prompt"]))
        return Text(prompt, (len(whole) - prompt,))
    return Text(0, (len(token_ids(tokenizer, row["messages"] if row.get("messages") is not None else row["text"])),))


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens that both begin with."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _cut(text: Text, most: int | None, *, dropped: bool) -> Text | None:
    """The text within `most` tokens: cut at the end, or (`dropped`) None where it is longer."""
    if most is None or text.prompt + max(text.responses) <= most:
        return text
    if dropped:
        return None
    prompt = min(text.prompt, most)
    return Text(prompt, tuple(min(response, most - prompt) for response in text.responses))


def _prompts(args: Any, data: Any, source: ModelSource) -> Texts:
    """Those of a PPO run, whose responses are not there yet: all are taken for as long as they may get."""
    context = context_length(load_config(source))
    room = None if context is None else context - args.response_length
    if room is not None and room < 1:
        raise BadInput(f"key `response_length`: {args.response_length} does not fit the model's context of {context}")
    most = args.max_prompt_length or room
    tokenizer = _tokenizer(source, data.dataset_name)

    def texts(rows: int, mean: float, longest: int, where: str, known: bool) -> Texts:
        whole = Text(longest, (args.response_length,))
        return Texts(rows, mean, args.response_length, longest, whole, where, known)

    if tokenizer is None:
        if args.max_prompt_length is not None:
            longest, where = min(args.max_prompt_length, room or args.max_prompt_length), "max_prompt_length"
        else:
            longest = min(ASSUMED_PROMPT, room or ASSUMED_PROMPT)
            where = "assumed: set max_prompt_length, or have the data here"
        return texts(_ASSUMED_ROWS, min(_ASSUMED_TOKENS[0], longest), longest, where, False)
    prompts = load_prompts(data.dataset_name, data.dataset_train_split, data.dataset_config)
    lengths = [len(token_ids(tokenizer, prompt, generation=True)) for prompt in prompts]
    fitting = [length for length in lengths if most is None or length <= min(most, room or most)]
    if not fitting:
        prompts_that_fit(
            tokenizer, prompts, args.response_length, context, args.max_prompt_length, data.dataset_name
        )  # says so
    where = f"the longest of {len(prompts)} in {data.dataset_name}"
    return texts(len(fitting), sum(fitting) / len(fitting), max(fitting), where, True)
