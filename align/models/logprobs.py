"""Log-probabilities of responses from a forward pass: no logits of prompts or padding, and never all of them at once.

Rows are padded on the right, without a mask: a causal model never looks to the right, so what stands there changes
nothing, attention takes its fastest path, and positions count from each row's first token.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_LOGITS_AT_ONCE = 2**24  # numbers; 64 MB in fp32


class Rows(NamedTuple):
    """b conversations to look at. n: longest row, t: longest response, in tokens."""

    ids: torch.Tensor  # (b, n) padded on the right
    mask: torch.Tensor  # (b, t) bool: response tokens
    before: torch.Tensor  # (b, t): the position in `ids` of the token before each response token; 0 outside the mask
    targets: torch.Tensor  # (b, t): the response tokens; 0 outside the mask


def to_rows(prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], device: Any) -> Rows:
    """Lay prompts and their responses (token ids; neither empty) out as rows."""
    width = max(len(p) + len(r) for p, r in zip(prompts, responses, strict=True))
    length = max(map(len, responses))
    ids = torch.zeros((len(prompts), width), dtype=torch.long)
    mask = torch.zeros((len(prompts), length), dtype=torch.bool)
    before, targets = torch.zeros((2, len(prompts), length), dtype=torch.long)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        ids[row, : len(prompt) + len(response)] = torch.tensor([*prompt, *response])
        mask[row, : len(response)] = True
        before[row, : len(response)] = torch.arange(len(prompt) - 1, len(prompt) + len(response) - 1)
        targets[row, : len(response)] = torch.tensor(list(response))
    return Rows(ids.to(device), mask.to(device), before.to(device), targets.to(device))


def last_states(model: "PreTrainedModel", ids: torch.Tensor) -> torch.Tensor:
    """Last hidden states (b, n, h) of ids (b, n), without the head. `model` is not wrapped by PEFT."""
    trunk = getattr(model, model.base_model_prefix)
    states: torch.Tensor = trunk(input_ids=ids, use_cache=False).last_hidden_state
    return states


def states_before(states: torch.Tensor, rows: Rows) -> torch.Tensor:
    """(N, h): the states that predict the N response tokens under the mask, row after row."""
    number = torch.arange(len(states), device=states.device)[:, None].expand_as(rows.before)
    return states[number[rows.mask], rows.before[rows.mask]]


def spread(values: torch.Tensor, rows: Rows) -> torch.Tensor:
    """(N,) values of the response tokens back into (b, t), zeros elsewhere."""
    return torch.zeros(rows.mask.shape, dtype=values.dtype, device=values.device).masked_scatter(rows.mask, values)


def response_logprobs(
    model: "PreTrainedModel",
    states: torch.Tensor,
    rows: Rows,
    temperature: float,
    *,
    entropy: bool = False,
    entropy_gradient: bool = True,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """(log-probabilities, entropies), both (b, t) float32 in nats, at `temperature`; zeros outside the mask.

    states: (b, n, h) of `last_states`. Entropies are None unless asked for. Gradients flow into the states, and into
    the head where it is trained. entropy_gradient: False where entropies are only looked at: a frozen head is faster.
    """
    head = Head.of(model)
    states, targets = states_before(states, rows), rows.targets[rows.mask]
    at_once = max(1, _LOGITS_AT_ONCE // head.layer.weight.shape[0])
    parts = []
    for chunk, wanted in zip(states.split(at_once), targets.split(at_once), strict=True):
        if head.frozen and not (entropy and entropy_gradient and torch.is_grad_enabled()):
            layer = head.layer
            parts.append(_FrozenHead.apply(chunk, layer.weight, layer.bias, wanted, head.scale / temperature, entropy))
        elif torch.is_grad_enabled() and len(targets) > at_once:
            parts.append(checkpoint(head.look, chunk, wanted, temperature, entropy, use_reentrant=False))
        else:
            parts.append(head.look(chunk, wanted, temperature, entropy))
    logprobs = spread(torch.cat([part[0] for part in parts]), rows)
    return logprobs, spread(torch.cat([part[1] for part in parts]), rows) if entropy else None


def total_logprobs(
    model: Any, prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], temperature: float
) -> list[float]:
    """log p(response | prompt) of each row, in nats. `model` may be wrapped by PEFT; its active adapter counts."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    rows = to_rows(prompts, responses, model.device)
    with torch.no_grad():
        logprobs, _ = response_logprobs(inner, last_states(inner, rows.ids), rows, temperature)
    return [float(total) for total in logprobs.sum(-1)]


class Head(NamedTuple):
    """A vocabulary head as the model's own forward applies it: softcap(scale * layer(state))."""

    layer: Any
    scale: float
    softcap: float | None

    @classmethod
    def of(cls, model: "PreTrainedModel") -> "Head":
        """The head of a causal model. The configurations name their factors differently."""
        config = model.config.get_text_config()
        scale = next((s for key in _FACTORS if (s := getattr(config, key, None)) is not None), 1.0)
        if (divisor := getattr(config, "logits_scaling", None)) is not None:  # Granite; HyperCLOVA X multiplies
            scale = divisor if config.model_type == "hyperclovax" else 1 / divisor
        return cls(model.get_output_embeddings(), scale, getattr(config, "final_logit_softcapping", None))

    @property
    def frozen(self) -> bool:
        """A plain matrix that is not trained, whose gradient to the states we can take in the forward pass."""
        plain = type(self.layer) is nn.Linear and not self.layer.weight.requires_grad
        return plain and self.softcap is None

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """(N, v) float32 of states (N, h)."""
        logits = self.layer(states.to(self.layer.weight.dtype)).float() * self.scale
        return logits if self.softcap is None else self.softcap * torch.tanh(logits / self.softcap)

    def look(
        self, states: torch.Tensor, targets: torch.Tensor, temperature: float, entropy: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(log-probabilities of targets, entropies), both (N,), by autograd. Entropies are zeros unless asked for.

        The same steps as _FrozenHead's, so that a trained head and its frozen copy agree to the last bit.
        """
        if self.softcap is None:
            logits = self.layer(states.to(self.layer.weight.dtype)).float() * (self.scale / temperature)
        else:
            logits = self.logits(states) / temperature
        total = logits.logsumexp(-1)
        logprobs = logits.gather(-1, targets[:, None]).squeeze(-1) - total
        if not entropy:
            return logprobs, torch.zeros_like(logprobs)
        distribution = logits - total[:, None]
        return logprobs, -(distribution.exp() * distribution).sum(-1)


_FACTORS = ("logit_scale", "output_multiplier", "lm_head_multiplier")  # Cohere, Muse Glimmer, Falcon-H1


class _FrozenHead(torch.autograd.Function):
    """Log-probabilities under a frozen head W, whose gradient is ready when the forward pass ends.

    d log p(y) / d state = scale * (W[y] - sum_v p(v) W[v]), one vector of the state's size. Keeping that instead of the
    logits saves their memory, and three passes over them in the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        scale: float,
        entropy: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits = nn.functional.linear(states.to(weight.dtype), weight, bias).float().mul_(scale)
        total = logits.logsumexp(-1)
        logprobs = logits.gather(-1, targets[:, None]).squeeze(-1) - total
        entropies = torch.zeros_like(total)
        if entropy or ctx.needs_input_grad[0]:
            probabilities = (logits - total[:, None]).exp_()
            if entropy:
                entropies = total - torch.linalg.vecdot(probabilities, logits)
            if ctx.needs_input_grad[0]:
                mean = probabilities.to(weight.dtype) @ weight
                ctx.save_for_backward(((weight[targets] - mean) * scale).to(states.dtype))
        ctx.mark_non_differentiable(entropies)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, _: torch.Tensor) -> tuple[Any, ...]:
        (direction,) = ctx.saved_tensors
        return gradient[:, None].to(direction.dtype) * direction, None, None, None, None, None


def check_head(model: "PreTrainedModel") -> bool:
    """Whether `Head` gives the logits that the model's own forward gives; tried on three tokens."""
    ids = torch.tensor([[1, 2, 3]], device=model.device)
    with torch.no_grad():
        own = model(input_ids=ids, use_cache=False).logits.float()
        ours = Head.of(model).logits(last_states(model, ids)[0])
    return torch.allclose(own[0], ours, rtol=1e-3, atol=1e-3 * float(own.abs().max()))
