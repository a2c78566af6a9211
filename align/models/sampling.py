"""Sampling responses from a causal model: one way, for rollouts, for evaluation, and for items to rank.

Every response draws from its own seed, so it comes out the same whoever else is in the batch, however large the batch
is, and however many processes share the work (up to the last bits of a float).
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from align.data.lengths import like_lengths, token_ids

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

_STAGE = 16  # tokens between looks at which rows have ended and may leave the batch


class Settings(NamedTuple):
    """How to sample. temperature 0 is greedy."""

    length: int  # new tokens at most
    temperature: float
    top_p: float
    pad_id: int


# (model, prompts, end tokens, a seed a prompt, settings) -> responses, all as token ids; see align.models.engines
Engine = Callable[[Any, list[list[int]], list[int], Sequence[int], Settings], list[list[int]]]


class Samples(NamedTuple):
    """One sampled response to each of b prompts, as token ids without padding."""

    prompts: list[list[int]]
    responses: list[list[int]]  # with the token that ended it, if one did
    ended: list[bool]  # by itself, within the length asked for
    texts: list[str]  # decoded, without special tokens and without the token that ended it


def pad_left(rows: Sequence[Sequence[int]], pad_id: int) -> "tuple[torch.Tensor, torch.Tensor]":
    """(ids, mask), both (rows, longest row) int64, padded on the left. A mask says what is padding, never the id."""
    import torch

    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    for number, row in enumerate(rows):
        ids[number, width - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[number, width - len(row) :] = 1
    return ids, mask


def end_ids(model: Any, tokenizer: "PreTrainedTokenizerBase", stop_tokens: Sequence[str] = ()) -> list[int]:
    """Every token that ends a response: the tokenizer's, those of the model's generation config, and `stop_tokens`."""
    found = {tokenizer.eos_token_id}
    ids = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    found.update([ids] if isinstance(ids, int) else ids or [])
    found.update(tokenizer.encode(token, add_special_tokens=False)[0] for token in stop_tokens)
    return sorted(found)


def sample(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Any],
    seeds: Sequence[int],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    stop_tokens: Sequence[str] = (),
    batch_size: int = 64,
    engine: Engine | None = None,
) -> Samples:
    """One response to each prompt (lists of turns), drawn from its seed; temperature 0 is greedy.

    The model samples as it stands: with whichever adapter is active. Prompts of like length go together. An `engine`
    takes the place of transformers' generate.
    """
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    rows = [token_ids(tokenizer, prompt, generation=True) for prompt in prompts]
    ends = end_ids(model, tokenizer, stop_tokens)
    settings = Settings(max_new_tokens, temperature, top_p, tokenizer.pad_token_id)
    responses: list[list[int]] = [[] for _ in rows]
    by_length = sorted(range(len(rows)), key=lambda number: len(rows[number]))
    for start in range(0, len(rows), batch_size):
        batch = by_length[start : start + batch_size]
        said = (engine or _continue)(
            model, [rows[number] for number in batch], ends, [seeds[number] for number in batch], settings
        )
        for number, response in zip(batch, said, strict=True):
            responses[number] = response
    ended = [response[-1] in ends for response in responses]
    spoken = [response[:-1] if end else response for response, end in zip(responses, ended, strict=True)]
    texts = [tokenizer.decode(response, skip_special_tokens=True) for response in spoken]
    return Samples(rows, responses, ended, texts)


def stream(
    model: Any,
    tokenizer: "PreTrainedTokenizerBase",
    prompt: Any,
    seed: int,
    hear: Callable[[int], None],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> None:
    """The response that `sample` draws from this seed, one token at a time: `hear` gets each as soon as it is drawn.

    The token that ends it is not heard. What `hear` raises ends the sampling and goes on to the caller.
    """
    import torch
    from transformers import GenerationConfig, LogitsProcessorList

    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    ends = end_ids(model, tokenizer)
    ids, mask = (tensor.to(model.device) for tensor in pad_left([token_ids(tokenizer, prompt, generation=True)], 0))
    choice = [_Draw(_uniforms([seed], max_new_tokens), temperature, top_p)] if temperature > 0 else []
    config = GenerationConfig(
        max_new_tokens=max_new_tokens, do_sample=False, eos_token_id=ends, pad_token_id=tokenizer.pad_token_id
    )
    with torch.no_grad(), _plain(model):
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            generation_config=config,
            logits_processor=LogitsProcessorList(choice),
            streamer=_Listener(ends, hear),
        )


class _Listener:
    """A streamer of transformers, which gets the prompt first and then every token."""

    def __init__(self, ends: list[int], hear: Callable[[int], None]) -> None:
        self.ends = ends
        self.hear = hear
        self.begun = False

    def put(self, ids: "torch.Tensor") -> None:
        if self.begun and (token := int(ids.item())) not in self.ends:
            self.hear(token)
        self.begun = True

    def end(self) -> None:
        """transformers calls it after the last token."""


def _uniforms(seeds: Sequence[int], length: int) -> "torch.Tensor":
    """(rows, length) float64 in [0, 1): each row's own random numbers, one a token."""
    import torch

    rows = [torch.rand(length, generator=torch.Generator().manual_seed(s), dtype=torch.float64) for s in seeds]
    return torch.stack(rows)


@contextmanager
def _plain(model: Any) -> Iterator[None]:
    """The model without settings of its own for generation. What a call leaves open generate takes from there, a
    repetition_penalty, say; then the log-probabilities of a forward pass would be of another distribution.
    """
    from transformers import GenerationConfig

    own, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _continue(
    model: Any,
    prompts: list[list[int]],
    ends: list[int],
    seeds: Sequence[int],
    settings: Settings,
) -> list[list[int]]:
    """Token ids that follow each prompt, up to and with the first end token.

    transformers' generate, a few tokens at a time: rows that have ended leave the batch and its key-value cache,
    instead of being carried along to the end of the longest.
    """
    import torch
    from transformers import GenerationConfig, LogitsProcessorList

    length, temperature, top_p, pad_id = settings
    uniforms = _uniforms(seeds, length) if temperature > 0 else None
    responses: list[list[int]] = [[] for _ in prompts]
    going = list(range(len(prompts)))
    ids, mask = (tensor.to(model.device) for tensor in pad_left(prompts, pad_id))
    cache = _prefilled(model, prompts)
    produced = 0
    while going and produced < length:
        choice = [] if uniforms is None else [_Draw(uniforms[going, produced:], temperature, top_p)]
        config = GenerationConfig(
            max_new_tokens=min(_STAGE, length - produced),
            do_sample=False,  # what is likeliest after _Draw is what was drawn
            eos_token_id=ends,
            pad_token_id=pad_id,
            return_dict_in_generate=True,
        )
        with torch.no_grad(), _plain(model):
            out = model.generate(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                generation_config=config,
                logits_processor=LogitsProcessorList(choice),
            )
        new = out.sequences[:, ids.shape[1] :]
        stay = []
        for row, (number, tokens) in enumerate(zip(going, new.tolist(), strict=True)):
            end = next((place for place, token in enumerate(tokens) if token in ends), None)
            responses[number] += tokens if end is None else tokens[: end + 1]
            if end is None:
                stay.append(row)
        produced += new.shape[1]
        ids, mask = out.sequences, torch.cat([mask, mask.new_ones(new.shape)], dim=1)
        cache = out.past_key_values
        if len(stay) < len(going):
            kept = torch.tensor(stay, dtype=torch.long, device=ids.device)
            ids, mask, going = ids[kept], mask[kept], [going[row] for row in stay]
            if stay and cache is not None:  # Mamba's is not given back: its rows start anew at each stage
                cache.reorder_cache(kept)  # transformers' name for selecting rows, which every kind of cache has
    return responses


def _prefilled(model: Any, prompts: list[list[int]]) -> Any:
    """A key-value cache of all prompts but for their last tokens, read in groups of like length, so that a long prompt
    does not make the short ones as long. None, and generate reads them padded, for models with another kind of cache.
    """
    import torch
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    groups = like_lengths([len(prompt) for prompt in prompts], len(prompts), model.device.type)
    width = max(map(len, prompts)) - 1
    if len(groups) == 1 or min(map(len, prompts)) < 2:
        return None
    parts = []
    for group in groups:
        ids, mask = (tensor.to(model.device) for tensor in pad_left([prompts[n][:-1] for n in group], 0))
        cache = DynamicCache(config=model.config)
        if any(type(layer) is not DynamicLayer for layer in cache.layers):
            return None
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        with torch.no_grad():
            model(input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1)
        parts.append(cache)
    back = torch.tensor([n for group in groups for n in group], device=model.device).argsort()
    whole = DynamicCache(config=model.config)
    for number in range(len(parts[0].layers)):
        layers = [part.layers[number] for part in parts]
        keys, values = (
            torch.cat([torch.nn.functional.pad(kind, (0, 0, width - kind.shape[-2], 0)) for kind in kinds])[back]
            for kinds in ([layer.keys for layer in layers], [layer.values for layer in layers])
        )
        whole.update(keys, values, number)
        for part in parts:  # what has been copied need not stay
            part.layers[number] = None
    return whole


class _Draw:
    """A logits processor of transformers that draws by inverting the distribution function at given numbers."""

    def __init__(self, uniforms: "torch.Tensor", temperature: float, top_p: float) -> None:
        """uniforms: (rows, at least as many as tokens will be asked for)."""
        self.uniforms = uniforms
        self.temperature = temperature
        self.top_p = top_p
        self.step = 0

    def __call__(self, input_ids: "torch.Tensor", scores: "torch.Tensor") -> "torch.Tensor":
        import torch

        scores = scores / self.temperature
        if self.top_p < 1:
            from transformers import TopPLogitsWarper

            scores = TopPLogitsWarper(self.top_p)(input_ids, scores)
        # float64: the sum over 100,000 tokens in float32 would be off by more than rare tokens weigh
        reached = scores.softmax(-1, dtype=torch.float64).cumsum(-1)
        number = self.uniforms[:, self.step, None].to(reached.device) * reached[:, -1:]
        self.step += 1
        token = torch.searchsorted(reached, number, right=True).clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(-1, token, 0.0)


def seed_of(*what: object) -> int:
    """A seed for each thing that draws, from a run's seed and what the thing is: the same in every process."""
    from hashlib import sha256

    return int.from_bytes(sha256(" ".join(map(str, what)).encode()).digest()[:7])
