"""The lines of a plan: what bases, adapters, whole models, optimisers and passes take, in words and bytes."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from align.models.load import ModelSource, weight_dtype, whole_config
from align.models.text import lora_of
from align.plan import sizes

if TYPE_CHECKING:
    from peft import PeftConfig

Device = Literal["gpu", "cpu"]
MOMENTS = ("loading", "rolling out", "learning", "stepping")  # one after the other, each in the room of the last
_SHORT = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class Part(NamedTuple):
    """One line of a plan."""

    role: str
    what: str
    bytes: int
    when: str = "throughout"  # or one of MOMENTS, or "libraries"
    kind: str = ""  # of what a process may keep a share: weights, trained (weights, too), gradients, optimiser


def empty(source: ModelSource, model_args: Any, device: Device, *, score: bool = False) -> Any:
    """A recipe's model on the meta device, without adapters."""
    attention = "eager" if model_args.attn_implementation == "eager" else None
    return sizes.empty_model(source, dtype_of(model_args, device), score=score, attention=attention)


def dtype_of(model_args: Any, device: Device) -> torch.dtype:
    """What weights are held in: weight_dtype of align/models/load.py, for a device that need not be here."""
    if model_args.dtype not in (None, "auto"):
        return weight_dtype(model_args)
    return torch.bfloat16 if device == "gpu" and model_args.use_peft else torch.float32


def bits_of(model_args: Any) -> int | None:
    return 4 if model_args.load_in_4bit else 8 if model_args.load_in_8bit else None


def adapter_config(source: ModelSource, model_args: Any = None, task: str = "CAUSAL_LM") -> "PeftConfig":
    """The configuration of a model's adapter; of the recipe's, where the model has none."""
    from peft import PeftConfig

    if source.adapter:
        return PeftConfig.from_pretrained(source.adapter)
    return lora_of(model_args, whole_config(source), task)


def base_part(model: Any, model_args: Any) -> Part:
    """The frozen base under adapters."""
    bits, own = bits_of(model_args), sizes.own_parameters(model)
    held = f"{bits} bits" if bits else _names(own)
    nested = model_args.use_bnb_nested_quant
    return Part(
        "base", f"{_many(own)} parameters, {held}", sizes.model_size(model, bits, nested), "throughout", "weights"
    )


def whole_part(role: str, model: Any, kind: str = "weights") -> Part:
    parameters = list(model.parameters())
    what = f"{_many(parameters)} parameters, {_names(parameters)}"
    return Part(role, what, sizes.size(parameters), "throughout", kind)


def adapter_part(model: Any, adapter: str, role: str | None = None) -> Part:
    found = sizes.adapter_parameters(model, adapter)
    what = f"adapter, {_many(found)} parameters, {_names(found)}"
    kind = "trained" if any(parameter.requires_grad for parameter in found) else "weights"
    return Part(role or adapter, what, sizes.size(found), "throughout", kind)


def training_parts(role: str, trained: list[torch.Tensor], device: Device, optimiser: str = "adamw") -> list[Part]:
    """Gradients, the optimiser's state, and what its step takes for a moment."""
    bits = ", 8 bits" if "8bit" in optimiser else ""
    return [
        Part(role, f"gradients, {_many(trained)}", sizes.size(trained), "throughout", "gradients"),
        Part(
            role,
            f"Adam's two moments, {_many(trained)}{bits}",
            sizes.optimiser_size(trained, optimiser),
            "throughout",
            "optimiser",
        ),
        Part(
            role, "Adam's step", sizes.optimiser_step_size(trained, device == "gpu", optimiser), "stepping", "optimiser"
        ),
    ]


def learning_parts(role: str, step: sizes.Step, rows: int, tokens: int, recompute: bool, more: int) -> list[Part]:
    """The forward and backward pass. `more`: bytes that the pass takes on top."""
    how = "recomputed" if recompute else "kept"
    return [
        Part(role, f"activations, {rows} x {tokens} tokens, {how}", step.kept, "learning"),
        Part(role, "vocabulary logits, or a layer's backward pass", step.peak - step.kept + more, "learning"),
    ]


def _many(tensors: Iterable[torch.Tensor]) -> str:
    number = sizes.count(tensors)
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.1f} M"


def _names(tensors: Iterable[torch.Tensor]) -> str:
    return " and ".join(sorted({_SHORT.get(tensor.dtype, str(tensor.dtype)) for tensor in tensors}, reverse=True))
