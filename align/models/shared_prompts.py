"""Texts with a common beginning go through a model with that beginning encoded once.

Chosen and rejected answer the same prompt, and so do all responses of a ranking. Laid out for themselves, b pairs are
2 b rows, padded to the longest; here they are one stream without padding: a beginning, then each text's own rest, then
the next beginning. Rests count their positions on from their beginning's end, and attend to it and to themselves. What
a causal model computes at a token depends on the tokens before it only, so states, scores, log-probabilities and
gradients are those of each text alone.

    model = ...                                # a causal model or a sequence classifier, maybe wrapped by PEFT
    take_shared(model)                         # its forward now takes `shared`, and is otherwise what it was
    model(shared=lay_out(texts))               # a classifier: scores (T,) float32, of the state of the last token
    logprobs, entropies = model(shared=lay_out(texts, starts), temperature=1.0, entropy=False)
                                               # a causal model: (T, t) float32, of each text's tokens from its start
                                               # on, zeros outside shared.rows.mask; entropies None unless asked
                                               # for, and to look at: a frozen head gives them no gradient

The patched forward is that of the model below PEFT, so all may be called through whatever wraps the model: PEFT, DDP,
FSDP, autocast. It works for models whose attention goes through transformers' AttentionInterface by sdpa or eagerly
(any position encoding that follows `position_ids`, sliding windows, softcaps, sinks), and not for recurrent ones. So
a run tries it first: `why_not(model, texts, starts)` compares it with the plain forward, text by text.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from itertools import takewhile
from types import MethodType
from typing import Any

import torch

from align.models.logprobs import Rows, response_logprobs

_WORTH = 0.05  # share of its tokens that a family must save; a text of its own is simpler
_KINDS = ("sdpa", "eager")
_EXACT, _ROUGH = 1e-4, 0.1  # how far apart numbers may be, of their norm


@dataclass(frozen=True, eq=False)
class Shared:
    """T texts as one stream of N tokens. Moves between devices by `to`, as tensors do."""

    texts: Sequence[Sequence[int]]
    ids: torch.Tensor  # (1, N)
    positions: torch.Tensor  # (1, N): of each token in its text
    families: tuple[tuple[int, ...], ...]  # lengths in the stream: of a beginning, then of each text's own rest
    last: torch.Tensor  # (T,): where each text's last token stands in the stream
    rows: Rows | None  # the tokens whose log-probabilities are wanted, (T, t); None where scores are
    _masks: dict[Any, torch.Tensor] = field(default_factory=dict)

    def to(self, device: Any, **options: Any) -> "Shared":
        ids, positions, last = (each.to(device, **options) for each in (self.ids, self.positions, self.last))
        rows = self.rows and Rows(*(each.to(device, **options) for each in self.rows))
        return Shared(self.texts, ids, positions, self.families, last, rows)

    def mask(self, before: int, own: int, window: int | None, like: torch.Tensor, additive: bool) -> torch.Tensor:
        """(1, 1, own, before + own): a causal mask of the last `own` of before + own tokens. One for all layers."""
        key = (before, own, window, like.dtype if additive else None)
        if key not in self._masks:
            seen = torch.ones(own, before + own, dtype=torch.bool, device=like.device).tril(before)
            if window is not None:
                seen = seen.triu(before - window + 1)
            if additive:
                seen = torch.zeros_like(seen, dtype=like.dtype).masked_fill(~seen, torch.finfo(like.dtype).min)
            self._masks[key] = seen[None, None]
        return self._masks[key]


def lay_out(texts: Sequence[Sequence[int]], starts: Sequence[int] | None = None) -> Shared:
    """Texts (token ids, none empty) as a stream, in which families share their beginning.

    starts: of each text the number (1 or more) of its first token whose log-probability is wanted; None: scores are.
    """
    stream: list[int] = []
    positions: list[int] = []
    families = []
    paths: list[list[int]] = [[] for _ in texts]  # where a text's tokens stand in the stream
    for members, common in find_families(texts):
        at, sizes = len(stream), [common]
        stream += texts[members[0]][:common]
        positions += range(common)
        for number in members:
            own = texts[number][common:]
            paths[number] = [*range(at, at + common), *range(len(stream), len(stream) + len(own))]
            stream += own
            positions += range(common, common + len(own))
            sizes.append(len(own))
        families.append(tuple(sizes))
    ids = torch.tensor([stream])
    rows = None
    if starts is not None:
        length = max(len(text) - start for text, start in zip(texts, starts, strict=True))
        mask = torch.zeros((len(texts), length), dtype=torch.bool)
        before, targets = torch.zeros((2, len(texts), length), dtype=torch.long)
        for number, (text, start) in enumerate(zip(texts, starts, strict=True)):
            wanted = len(text) - start
            mask[number, :wanted] = True
            before[number, :wanted] = torch.tensor(paths[number][start - 1 : -1])
            targets[number, :wanted] = torch.tensor(list(text[start:]))
        rows = Rows(ids, mask, before, targets)
    last = torch.tensor([path[-1] for path in paths])
    return Shared(texts, ids, torch.tensor([positions]), tuple(families), last, rows)


def find_families(texts: Sequence[Sequence[int]]) -> list[tuple[list[int], int]]:
    """Which texts share a beginning, and how many tokens of it, such that the most tokens are saved in all.

    Texts in alphabetical order share most with their neighbours, so a family is a run of them: the best cut into runs,
    by dynamic programming. A run that saves less than a twentieth of its tokens shares nothing.
    """
    order = sorted(range(len(texts)), key=lambda number: list(texts[number]))
    common = [0] * len(texts)  # of each text and the one before it
    for place in range(1, len(order)):
        pairs = zip(texts[order[place - 1]], texts[order[place]], strict=False)
        common[place] = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
    best: list[tuple[int, int, int]] = [(0, 0, 0)]  # of the first n: tokens saved, start of the last run, its beginning
    for end in range(1, len(order) + 1):
        found = (best[end - 1][0], end - 1, 0)
        beginning, tokens = len(texts[order[end - 1]]), len(texts[order[end - 1]])
        for start in range(end - 2, -1, -1):
            beginning = min(beginning, common[start + 1])
            if not beginning:
                break
            tokens += len(texts[order[start]])
            saved = beginning * (end - start - 1)
            if saved >= _WORTH * tokens and best[start][0] + saved > found[0]:
                found = (best[start][0] + saved, start, beginning)
        best.append(found)
    families = []
    end = len(order)
    while end:
        _, start, beginning = best[end]
        families.append((sorted(order[start:end]), beginning))
        end = start
    return families[::-1]


def take_shared(model: Any) -> None:
    """Let the forward of `model` take `shared`. Raises NotImplementedError where its attention takes none."""
    from transformers import AttentionInterface, AttentionMaskInterface

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    kind = str(inner.config.get_text_config()._attn_implementation)
    if kind not in _KINDS:
        raise NotImplementedError(f"attention by {kind} takes no prompts that are shared")
    # The name stays: layers whose activations are recomputed run again in the backward pass
    AttentionInterface.register(_name(kind), partial(_attend, kind))
    AttentionMaskInterface.register(_name(kind), AttentionMaskInterface()[kind])
    for module in inner.modules():
        config = getattr(module, "config", None)
        if config is not None and getattr(config, "_attn_implementation", None) == kind:
            config._attn_implementation = _name(kind)
    inner.forward = MethodType(_with_shared(inner.forward), inner)


def _name(kind: str) -> str:
    return f"shared_prompts_{kind}"


def _with_shared(plain: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(plain.__func__ if hasattr(plain, "__func__") else plain)
    def forward(self: Any, *args: Any, shared: Shared | None = None, **kwargs: Any) -> Any:
        if shared is None:
            return plain(*args, **kwargs)
        trunk = getattr(self, self.base_model_prefix)
        # A mask of four dimensions is handed on as it is, and `_attend` makes its own: this one stands for "none"
        nothing = torch.ones((1, 1, 1, 1), dtype=torch.bool, device=shared.ids.device)
        states = trunk(
            input_ids=shared.ids,
            position_ids=shared.positions,
            attention_mask=nothing,
            use_cache=False,
            shared=shared,
        ).last_hidden_state
        if shared.rows is None:
            return self.score(states[0, shared.last]).squeeze(-1).float()
        temperature, entropy = kwargs.get("temperature", 1.0), kwargs.get("entropy", False)
        with _whole(self.get_output_embeddings()):
            return response_logprobs(self, states, shared.rows, temperature, entropy=entropy, entropy_gradient=False)

    return forward


def _whole(head: Any) -> AbstractContextManager[Any]:
    """Under ZeRO-3 a frozen head, which is read outside its module, lies in pieces that have to be put together."""
    if head.weight.requires_grad or not hasattr(head.weight, "ds_id"):
        return nullcontext()
    from deepspeed import zero

    gathered: AbstractContextManager[Any] = zero.GatheredParameters(list(head.parameters()))
    return gathered


def _attend(
    kind: str,
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: Any,
    shared: Shared | None = None,
    **options: Any,
) -> tuple[torch.Tensor, Any]:
    """Attention of a layer, (1, heads, N, size) each: transformers' own, beginning by beginning and rest by rest."""
    from transformers import AttentionInterface

    eager = kind == "eager"
    attend = sys.modules[type(module).__module__].eager_attention_forward if eager else AttentionInterface()[kind]
    if shared is None:
        return attend(module, query, key, value, attention_mask, **options)
    sizes = [size for family in shared.families for size in family if size]
    # `split` joins the gradients of its parts at once; a slice's gradient is as large as what it was cut from
    parts = iter(zip(*(each.split(sizes, 2) for each in (query, key, value)), strict=True))
    window = options.get("sliding_window")

    def look(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        own, before = queries.shape[2], keys.shape[2] - queries.shape[2]
        narrow = window is not None and window < before + own
        mask = None  # sdpa is causal by itself
        if eager or before or narrow:
            mask = shared.mask(before, own, window if narrow else None, queries, eager)
        if mask is not None and not eager:
            return _grouped(queries, keys, values, mask, options)
        output: torch.Tensor = attend(module, queries, keys, values, mask, **options)[0]
        return output

    outputs = []
    for common, *rests in shared.families:
        beginning = []
        if common:
            queries, *beginning = next(parts)
            outputs.append(look(queries, *beginning))
        for rest in rests:
            if rest:
                queries, *own = next(parts)
                keys, values = (torch.cat(both, 2) for both in zip(beginning, own, strict=True)) if common else own
                outputs.append(look(queries, keys, values))
    return torch.cat(outputs, 1), None


def _grouped(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, options: dict[str, Any]
) -> torch.Tensor:
    """sdpa under a mask; where heads share keys, their queries stand in one column. transformers copies the keys for
    each of them, and the copies would stay until the backward pass: (1, own, heads, size).
    """
    heads, own = query.shape[1:3]
    groups = heads // key.shape[1]
    output = torch.nn.functional.scaled_dot_product_attention(
        query.reshape(1, key.shape[1], groups * own, query.shape[3]),
        key,
        value,
        attn_mask=mask.repeat(1, 1, groups, 1),
        dropout_p=options.get("dropout", 0.0),
        scale=options.get("scaling"),
    )
    return output.reshape(1, heads, own, value.shape[3]).transpose(1, 2)


def why_not(model: Any, texts: Sequence[Sequence[int]], starts: Sequence[int] | None = None, *, exact: bool) -> str:
    """Why `model`, which takes shared texts, may not be given them; "" where it gives each the numbers it has alone,
    whatever the others are.

    exact: weights and arithmetic are fp32, so the numbers agree to float tolerance; otherwise to that of bf16 and int8.
    A few short forward passes. Every process of several must call this, with the same texts.
    """
    training = model.training
    device = next(model.parameters()).device
    shared = lay_out(texts, starts).to(device)
    model.eval()
    try:
        with torch.no_grad():
            alone = [_alone(model, text, starts[n] if starts else None, device) for n, text in enumerate(texts)]
            together = _numbers(model, shared)
            changed, others = _with_another_first_text(shared)
            beside = _numbers(model, changed)
    except torch.OutOfMemoryError:  # a RuntimeError, too, and no word on the model
        raise
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        return f"its forward pass does not take them ({' '.join(str(error).split())})"
    finally:
        model.train(training)
    off = _off(together, alone, range(len(texts)))
    if not off <= (_EXACT if exact else _ROUGH):
        return f"its numbers are off by {off:.1g} of their size"
    # The same shapes and tokens: in bf16, too, they differ only where they see what is not theirs
    eight_bits = any(parameter.dtype == torch.int8 for parameter in model.parameters())
    seen = _off(beside, together, others)
    return f"a text sees the one before it (by {seen:.1g})" if not seen <= (_ROUGH if eight_bits else _EXACT) else ""


def _off(found: Sequence[torch.Tensor], expected: Sequence[torch.Tensor], which: Sequence[int]) -> float:
    """How far numbers are apart, of their norm."""
    if not which:
        return 0.0
    one, other = (torch.cat([each[number] for number in which]) for each in (found, expected))
    return float((one - other).norm() / other.norm().clamp(min=1e-6))


def _with_another_first_text(shared: Shared) -> tuple[Shared, list[int]]:
    """The layout with other tokens in its first text's own rest, and the texts whose tokens stay."""
    begin, *rests = shared.families[0]
    end = begin + next((size for size in rests if size), 0)
    ids = shared.ids.clone()
    ids[:, begin:end] = (ids[:, begin:end] + 1) % (ids.max() + 1)  # any other tokens that the model knows
    return replace(shared, ids=ids), [n for n, place in enumerate(shared.last.tolist()) if not begin <= place < end]


def _numbers(model: Any, shared: Shared) -> list[torch.Tensor]:
    """Of each text its score, (1,), or its log-probabilities."""
    found = model(shared=shared)
    if shared.rows is None:
        return list(found[:, None])
    return [row[mask] for row, mask in zip(found[0], shared.rows.mask, strict=True)]


def _alone(model: Any, text: Sequence[int], start: int | None, device: Any) -> torch.Tensor:
    """What the plain forward gives a text: its score, (1,), or its log-probabilities from `start` on."""
    ids = torch.tensor([list(text)], device=device)
    logits = model(input_ids=ids, use_cache=False).logits
    if start is None:
        return logits[0].float()
    return logits[0, start - 1 : -1].float().log_softmax(-1).gather(-1, ids[0, start:, None])[:, 0]
