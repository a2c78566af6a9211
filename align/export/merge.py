"""An adapter and the base that it was trained on, as one plain model: what the adapter saw, and what it learnt of it.

A base in 4 or 8 bits is unpacked by bitsandbytes' own rule, so the merged weights stand on the numbers that training
computed with. PEFT's merge into a quantised layer would quantise the sum again, and the model would be another one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.models.load import (
    ModelSource,
    has_score_head,
    load_causal_lm,
    load_config,
    load_reward_model,
    load_tokenizer,
    loading,
)
from align.run.progress import Progress, say
from preferences.errors import BadInput

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel
    from trl import ModelConfig

DTYPES = ("float32", "bfloat16", "float16")


def load_as_it_is(source: ModelSource, model_args: "ModelConfig | None" = None, *, new_head: bool = False) -> Any:
    """A language model or, where the weights hold a score head, a reward model; quantised where `model_args` say.

    new_head: the source is the base of a reward adapter, which brings the head.
    """
    if new_head or has_score_head(source):
        return load_reward_model(source, model_args, trainable=new_head)
    return load_causal_lm(source, model_args)


def serving_dtype(source: ModelSource) -> "torch.dtype":
    """What the base's config.json says that its weights are, else what they are: what one serves it in."""
    import torch
    from safetensors import safe_open

    found = load_config(source).dtype
    if isinstance(found, torch.dtype):
        return found
    for path in sorted(Path(source.base).glob("*.safetensors")):
        with loading(source), safe_open(path, framework="pt") as weights:
            for key in weights.keys():  # noqa: SIM118
                return weights.get_tensor(key).dtype
    return torch.bfloat16


def merged(source: ModelSource, model_args: "ModelConfig | None", dtype: "torch.dtype") -> "PreTrainedModel":
    """The model as plain weights in `dtype`: each sum is taken in fp32 and rounded once. Without an adapter, the model.

    model_args: how the adapter's base was held in training. Raises BadInput where a sum is not finite.
    """
    if source.adapter is None:
        model = load_as_it_is(source, model_args).to(dtype)
    else:
        from peft import PeftModel

        head = has_score_head(source)
        base = load_as_it_is(source._replace(adapter=None), model_args, new_head=head)
        if getattr(base, "is_quantized", False):
            say("unpacking the quantised base")
            with _quiet():
                base = base.dequantize()
        with loading(source):
            wrapped = PeftModel.from_pretrained(base, source.adapter)
        model = _sum_up(wrapped, source.name, dtype)
    return _as_saved(model, source, dtype)


def _sum_up(wrapped: Any, name: str, dtype: "torch.dtype") -> Any:
    """PEFT's layers merged one by one, in fp32, so that no more than one layer is ever held twice."""
    import torch

    own = _own_weights(wrapped)
    layers = list(_tuned(wrapped))
    progress = Progress("merging", len(layers), "layers")
    for layer in layers:
        base = layer.get_base_layer()
        if base.weight is not None and id(base.weight) in own:  # else the layer that it is tied to would change with it
            base.weight = torch.nn.Parameter(base.weight.detach().clone(), requires_grad=False)
        base.float()
        try:
            layer.merge(safe_merge=True)
        except ValueError as error:  # PEFT's, of a sum that is not finite
            raise BadInput(f"{name}: could not be merged ({' '.join(str(error).split())})") from None
        base.to(dtype)
        progress.tell(1)
    progress.end()
    return wrapped.unload()


@contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def _tuned(wrapped: Any) -> Iterator[Any]:
    from peft.tuners.tuners_utils import BaseTunerLayer

    return (module for module in wrapped.modules() if isinstance(module, BaseTunerLayer))


def _own_weights(wrapped: Any) -> set[int]:
    """The weights, by identity, that two modules or more hold: an embedding that is the vocabulary head, too."""
    seen: dict[int, int] = {}
    for module in wrapped.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                seen[id(parameter)] = seen.get(id(parameter), 0) + 1
    return {weight for weight, holders in seen.items() if holders > 1}


def _as_saved(model: Any, source: ModelSource, dtype: "torch.dtype") -> "PreTrainedModel":
    """The model with a configuration that says what it is now."""
    model = model.to(dtype).eval().requires_grad_(False)
    model.config.dtype = dtype
    model.config.pad_token_id = load_tokenizer(source).pad_token_id  # a classifier reads the last token that isn't this
    into, out = model.get_input_embeddings(), model.get_output_embeddings()
    text = model.config.get_text_config()
    if text.tie_word_embeddings and out is not None and out.weight is not into.weight:
        # one of the two was trained: tied again, as the configuration says, it would be lost
        text.tie_word_embeddings = model.config.tie_word_embeddings = False
    return model
