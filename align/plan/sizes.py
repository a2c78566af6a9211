"""How many bytes models and steps take: pure functions of configurations and settings, without any weights.

A model is built on torch's meta device, where tensors have shapes and no memory. A step is gone through with fake
tensors, on which the code of transformers, PEFT and this package runs and computes nothing, while every tensor that
comes to life is counted until it is gone. So there is no formula of activations that one architecture follows and
another does not.
"""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.checkpoint import checkpoint

from align.models.load import ModelSource, loading
from align.models.logprobs import _LOGITS_AT_ONCE, Head, _FrozenHead, last_states
from align.models.sampling import _Draw
from align.models.shared_prompts import lay_out, take_shared
from align.models.text import train_text_only
from preferences.errors import BadInput

if TYPE_CHECKING:
    from peft import PeftConfig

_HEADS = ("lm_head", "score")  # linear layers that stay whole where the others are quantised


class Step(NamedTuple):
    """What a forward and backward pass takes beside weights, gradients and optimiser, in bytes."""

    kept: int  # by the layers, from the forward pass for the backward pass
    peak: int  # the most at any moment, what is kept among it


class Sampling(NamedTuple):
    """What sampling takes beside weights, in bytes."""

    cache: int  # keys and values of all tokens, prompts and responses
    peak: int  # the most at any moment, the cache among it


# --- weights ------------------------------------------------------------------------------------------------------


def empty_model(source: ModelSource, dtype: torch.dtype, *, score: bool = False, attention: str | None = None) -> Any:
    """A model on the meta device, by its config.json: a causal one, or (`score`) a sequence classifier with one output.

    Raises BadInput for a configuration that can't be read or is of a model that transformers does not know.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    auto: Any = AutoModelForSequenceClassification if score else AutoModelForCausalLM
    with loading(source), torch.device("meta"):
        config = AutoConfig.from_pretrained(source.base, revision=source.revision)
        if score:
            config.num_labels = 1
        options = {"attn_implementation": attention} if attention else {}
        model = auto.from_config(config, dtype=dtype, **options).eval()
    train_text_only(model)
    return model


def put_adapters_on(model: Any, adapters: "Mapping[str, PeftConfig]", trained: Iterable[str]) -> Any:
    """LoRA adapters by name on a model on the meta device, made by PEFT itself; the first of them is active.

    Raises BadInput for one that does not fit the model.
    """
    from peft import get_peft_model

    (first, config), *more = adapters.items()
    try:
        with torch.device("meta"):
            model = get_peft_model(model, config, adapter_name=first)
            for name, config in more:
                model.add_adapter(name, config)
    except ValueError as error:
        raise BadInput(f"the adapter does not fit the model: {' '.join(str(error).split())}") from None
    for name in adapters:
        model.set_requires_grad(name, name in trained)
    return model.eval()


def own_parameters(model: Any) -> list[nn.Parameter]:
    """A model's parameters, each once, without its adapters'."""
    return [p for name, p in model.named_parameters() if not set(name.split(".")) & _adapters(model)]


def adapter_parameters(model: Any, adapter: str) -> list[nn.Parameter]:
    """The parameters of one adapter."""
    return [p for name, p in model.named_parameters() if adapter in name.split(".")]


def _adapters(model: Any) -> set[str]:
    return set(getattr(model, "peft_config", {}))


def count(tensors: Iterable[torch.Tensor]) -> int:
    """Numbers in them."""
    return sum(tensor.numel() for tensor in tensors)


def size(tensors: Iterable[torch.Tensor]) -> int:
    """Bytes of them."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def quantised_linear_size(inputs: int, outputs: int, bits: int, nested: bool = False) -> float:
    """Bytes of a linear layer's quantised weights with their constants, as bitsandbytes keeps them.

    4 bits (QLoRA, arXiv 2305.14314, section 3): half a byte a weight, and a float32 for each block of 64; `nested`: a
    byte for each block, and a float32 for each 256 of these. 8 bits (LLM.int8(), arXiv 2208.07339): a byte a weight,
    and a float32 a row.
    """
    weights = inputs * outputs
    if bits == 8:
        return weights + 4 * outputs
    return weights / 2 + weights / 64 * (1 + 4 / 256 if nested else 4)


def model_size(model: Any, bits: int | None = None, nested: bool = False) -> int:
    """Bytes of a model's own weights without its adapters'; `bits` 4 or 8: with its linear layers quantised."""
    total: float = size(own_parameters(model))
    if bits is not None:
        for layer in _linear_layers(model):
            total += quantised_linear_size(layer.in_features, layer.out_features, bits, nested) - size([layer.weight])
    return round(total)


def largest_linear_size(model: Any) -> int:
    """Bytes of a model's largest linear layer: bitsandbytes unpacks a quantised one into what it computes in."""
    return max((size([layer.weight]) for layer in _linear_layers(model)), default=0)


def _linear_layers(model: Any) -> list[nn.Linear]:
    """A model's own linear layers that would be quantised."""
    return [
        module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and not set(name.split(".")) & {*_HEADS, *_adapters(model)}
    ]


# --- training -----------------------------------------------------------------------------------------------------


def optimiser_size(trained: Iterable[torch.Tensor], name: str = "adamw") -> int:
    """Bytes of the optimiser's state: Adam's two moments (arXiv 1412.6980), each as large as the weights, or a byte
    a weight and a float32 for each 256 weights (arXiv 2110.02861).
    """
    tensors = list(trained)
    return round(2 * (1 + 4 / 256) * count(tensors)) if "8bit" in name else 2 * size(tensors)


def optimiser_step_size(trained: Iterable[torch.Tensor], gpu: bool, name: str = "adamw") -> int:
    """Bytes that a step of AdamW takes for a moment: roots of the second moments, on a GPU of all weights at once
    (torch's `foreach`), on a CPU twice those of one tensor after another; none in one kernel (fused, or in 8 bits).
    """
    sizes = [size([tensor]) for tensor in trained]
    if "8bit" in name or "fused" in name:
        return 0
    return sum(sizes) if gpu else 2 * max(sizes, default=0)


def learning_size(
    model: Any,
    rows: int,
    length: int,
    scored: int,
    *,
    recompute: bool = False,
    autocast: bool = False,
    entropy: bool = False,
    masked: bool = False,
    rests: Sequence[int] = (),
) -> Step:
    """A forward and backward pass of `rows` sequences of `length` tokens, with the log-probabilities of the last
    `scored` tokens of each as align/models/logprobs.py takes them; 0: only of the layers, without a head.

    recompute: the layers' activations in the backward pass instead of keeping them. masked: padding is masked, as in
    TRL's trainers, and not only on the right, as in PPO. rests: each sequence is several texts, which share their
    beginning and end in so many tokens of their own (align/models/shared_prompts.py). `model` is on the meta device,
    and of no use afterwards. Raises BadInput where what is computed depends on the data.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    inner = _inner(model)
    layers = [layer for layer in inner.modules() if isinstance(layer, GradientCheckpointingLayer)]
    if rests:
        take_shared(inner)
    elif not masked:
        _attend_without_mask(inner)
    kept = 0

    def step(living: _Living) -> None:
        nonlocal kept
        for layer in layers if recompute else []:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            if rests:
                states = _shared_states(inner, rows, length - sum(rests), rests)
            else:
                states = last_states(inner, torch.zeros((rows, length), dtype=torch.long))
        kept = living.now
        if not scored:
            states.float().sum().backward()
            return
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            last = states[:, -scored * (rows if rests else 1) :].reshape(rows * scored, -1)
            logprobs = _log_probabilities(Head.of(inner), last, entropy)
        logprobs.sum().backward()

    most = _go_through(model, step)
    return Step(kept, most)


def _shared_states(model: Any, rows: int, common: int, rests: Sequence[int]) -> torch.Tensor:
    """Last hidden states of rows of texts that share their beginning, (1, all tokens, h): no two tokens are alike."""
    texts = []
    for row in range(rows):
        first = row * (len(rests) + 1)
        texts += [[first] * common + [first + number] * own for number, own in enumerate(rests, start=1) if own]
    shared = lay_out(texts)
    states: torch.Tensor = getattr(model, model.base_model_prefix)(
        input_ids=shared.ids % model.get_input_embeddings().num_embeddings,
        position_ids=shared.positions,
        attention_mask=torch.ones((1, 1, 1, 1), dtype=torch.bool),
        use_cache=False,
        shared=shared,
    ).last_hidden_state
    return states


def _log_probabilities(head: Head, states: torch.Tensor, entropy: bool) -> torch.Tensor:
    """What response_logprobs of align/models/logprobs.py does with the states (N, h) of N response tokens; that one
    picks them by a mask, and how many a mask picks, fake tensors can't say. With entropies, their sum.
    """
    at_once = max(1, _LOGITS_AT_ONCE // head.layer.weight.shape[0])
    targets = torch.zeros(len(states), dtype=torch.long)
    parts = []
    for chunk, wanted in zip(states.split(at_once), targets.split(at_once), strict=True):
        if head.frozen and not entropy:
            layer = head.layer
            parts.append(_FrozenHead.apply(chunk, layer.weight, layer.bias, wanted, head.scale, False)[0])
        elif len(targets) > at_once:
            parts.append(sum(checkpoint(head.look, chunk, wanted, 1.0, entropy, use_reentrant=False)))
        else:
            parts.append(sum(head.look(chunk, wanted, 1.0, entropy)))
    return torch.cat(parts)


def sampling_size(model: Any, rows: int, prompt: int, response: int, *, autocast: bool = False) -> Sampling:
    """Sampling `response` tokens to each of `rows` prompts of `prompt` tokens, all at once (align/models/sampling.py).

    The most is taken either when the prompts go through, or at the last token: the whole cache is there then, and one
    layer of it twice, since it grows by copying, or the probabilities that the token is drawn from. `model` is on the
    meta device, and of no use afterwards. Raises BadInput where what is computed depends on the data.
    """
    inner = _inner(model)
    longer = (prompt + response) / prompt
    cache = layer = draw = 0

    def step(living: _Living) -> None:
        nonlocal cache, layer, draw
        ids, mask = torch.zeros((2, rows, prompt), dtype=torch.long)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            out = inner(input_ids=ids, attention_mask=mask, use_cache=True, logits_to_keep=1)
            if out.get("past_key_values") is not None:
                layers = [size(v for v in vars(x).values() if torch.is_tensor(v)) for x in out.past_key_values.layers]
                cache, layer = round(sum(layers) * longer), round(max(layers) * longer)
            logits = out.logits[:, -1].float()
            before = living.now
            reached = living.most
            living.most = before
            _Draw(torch.zeros((rows, 1), dtype=torch.float64), 0.7, 1.0)(ids, logits)
            draw, living.most = living.most - before + size([logits]), reached

    most = _go_through(model, step)
    return Sampling(cache, max(most, cache + max(layer, draw)))


# --- going through steps ------------------------------------------------------------------------------------------


class _Living(TorchDispatchMode):
    """Counts the bytes of all tensors from when an operation makes them to when they are gone; views count nothing."""

    def __init__(self, known: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known: dict[int, Any] = {}
        for tensor in known:
            storage = tensor.untyped_storage()
            self._known[storage._cdata] = storage

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if torch.is_tensor(tensor):
                self._add(tensor.untyped_storage())
        return out

    def _add(self, storage: Any) -> None:
        number, nbytes = storage._cdata, storage.nbytes()
        if number in self._known:
            return

        def gone(_: Any) -> None:
            del self._known[number]
            self.now -= nbytes

        self._known[number] = weakref.ref(storage, gone)
        self.now += nbytes
        self.most = max(self.most, self.now)


def _go_through(model: Any, step: Callable[[_Living], None]) -> int:
    """The most bytes that `step` takes at once with a model on the meta device, whose weights become fake tensors, as
    if on a CPU. There attention is one kernel, which keeps its inputs, its output, and a number a token and head, as
    FlashAttention (arXiv 2307.08691) does on a GPU. Gradients are there already, as from the second micro-batch on.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode(), torch.device("cpu"):
        fakes: dict[torch.Tensor, torch.Tensor] = {}
        for module in model.modules():
            for named in (module._parameters, module._buffers):
                for name, tensor in named.items():
                    if tensor is None:
                        continue
                    if tensor not in fakes:  # tied weights are one tensor
                        fakes[tensor] = fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                        if isinstance(tensor, nn.Parameter):
                            fakes[tensor] = nn.Parameter(fake, requires_grad=tensor.requires_grad)
                            fakes[tensor].grad = torch.empty_like(fake) if tensor.requires_grad else None
                    named[name] = fakes[tensor]
        gradients = [fake.grad for fake in fakes.values() if fake.grad is not None]
        with _Living([*fakes.values(), *gradients]) as living:
            try:
                step(living)
            except (NotImplementedError, RuntimeError) as error:
                reason = str(error).strip().split("\n")[0]
                raise BadInput(
                    f"what a step of a model of the kind {_inner(model).config.model_type} takes can't be found without"
                    f" running it ({reason})"
                ) from None
    return living.most


def _inner(model: Any) -> Any:
    """The model of transformers inside PEFT's."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _attend_without_mask(model: Any) -> None:
    """Have no mask made. transformers makes none where none is needed, but can't see that in fake tensors."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if model.config._attn_implementation == "sdpa":
        AttentionInterface.register("sdpa_without_mask", sdpa_attention_forward)
        AttentionMaskInterface.register("sdpa_without_mask", lambda *_, **__: None)
        model.set_attn_implementation("sdpa_without_mask")
