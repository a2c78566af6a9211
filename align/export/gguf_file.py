"""A model as one GGUF file, for llama.cpp: its weights, its tokenizer and its chat template, by the `gguf` package.

Only what is converted exactly, and was tried, is converted: everything else is refused with the reason. The names of
tensors are the package's own; what llama.cpp holds otherwise than transformers does is written here, after llama.cpp's
convert_hf_to_gguf.py (MIT licence).
"""

import importlib.util
import io
import math
from collections.abc import Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.export.gguf_tokens import unknown_tokenizer, write_vocabulary
from align.models.load import ModelSource, load_config, load_tokenizer, loading
from align.run.progress import Progress
from preferences.errors import BadInput

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

GGUF = "model.gguf"

# transformers' name of an architecture, and llama.cpp's; Mistral is a Llama there.
_ARCHITECTURES = {"llama": "LLAMA", "mistral": "LLAMA", "qwen2": "QWEN2", "qwen3": "QWEN3", "gemma3_text": "GEMMA3"}
_FILE_TYPES = {"float32": "ALL_F32", "float16": "MOSTLY_F16", "bfloat16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
_TYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}

_GEMMA_PATTERN = 6  # every sixth layer of Gemma 3 sees all tokens; llama.cpp takes that for granted
_GEMMA_LOCAL_BASE = 10000.0  # of the rotary embedding of its other layers; likewise


def check_gguf(source: ModelSource, scores: bool) -> None:
    """Raise BadInput where a model can't be written as GGUF, before anything is loaded."""
    from transformers import AutoConfig

    if importlib.util.find_spec("gguf") is None:
        raise BadInput("--gguf: the package gguf is not installed; `pip install '.[gguf]'` in Concord's checkout")
    if scores:
        raise BadInput(f"{source.name}: is a reward model, which has no place in GGUF; give --merge")
    with loading(source):
        whole = AutoConfig.from_pretrained(source.base, revision=source.revision)
    config = load_config(source)
    known = ", ".join(sorted(_ARCHITECTURES))
    if whole.model_type != config.model_type:
        raise BadInput(f"{source.name}: is a model of text and images; --gguf writes models of text ({known})")
    if config.model_type not in _ARCHITECTURES:
        raise BadInput(
            f"{source.name}: --gguf writes {known}, and this is {config.model_type}; give --merge, and convert that"
            " folder by llama.cpp's convert_hf_to_gguf.py"
        )
    if reason := _not_exact(config):
        raise BadInput(f"{source.name}: {reason}, which llama.cpp would compute otherwise; give --merge")
    if reason := unknown_tokenizer(load_tokenizer(source)):
        raise BadInput(f"{source.name}: {reason}, which llama.cpp would read otherwise; give --merge")


def write_gguf(model: Any, tokenizer: "PreTrainedTokenizerBase", type_name: str, path: Path, name: str) -> None:
    """Write a causal model of transformers. type_name: of matrices; vectors stay in fp32, as llama.cpp wants them.

    One tensor after the other is converted and written, so that the model is held once.
    """
    import gguf
    import numpy as np

    config = model.config
    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[_arch(config)])
    writer.add_name(name)
    writer.add_file_type(int(getattr(gguf.LlamaFileType, _FILE_TYPES[type_name])))
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    _hyperparameters(writer, config)
    write_vocabulary(writer, tokenizer, model)
    tensors = list(_tensors(model))
    for key, tensor in tensors:
        kind = _type_of(tensor, type_name)
        plain = {"F32": np.float32, "F16": np.float16}.get(kind.name)
        if plain is not None:
            writer.add_tensor_info(key, tuple(tensor.shape), np.dtype(plain), tensor.numel() * np.dtype(plain).itemsize)
        else:
            shape = gguf.quant_shape_to_byte_shape(tuple(tensor.shape), kind)
            writer.add_tensor_info(key, shape, np.dtype(np.uint8), math.prod(shape), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    progress = Progress("writing", len(tensors), "tensors")
    for _, tensor in tensors:
        weights = np.ascontiguousarray(tensor.detach().float().cpu().numpy())
        writer.write_tensor_data(gguf.quants.quantize(weights, _type_of(tensor, type_name)))
        progress.tell(1)
    progress.end()
    writer.close()


def read_gguf(folder: Path, config: Any, dtype: "torch.dtype") -> Any:
    """The file's weights in a model of transformers. config: of the model that was written, since transformers reads
    few keys of a file's own (no head size of Qwen 3, say; llama.cpp reads them all).
    """
    from transformers import AutoModelForCausalLM, GgufConfig, LlamaConfig

    if config.model_type == "mistral":  # which is a Llama in the file
        config = LlamaConfig.from_dict(
            {**config.to_dict(), "model_type": "llama", "architectures": ["LlamaForCausalLM"]}
        )
    whole = GgufConfig(dequantize=True)
    # a bar of transformers' own, which it has no switch for, would break into our lines
    with loading(ModelSource(str(folder), str(folder), None), "the GGUF file"), redirect_stderr(io.StringIO()):
        return AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=GGUF, config=config, quantization_config=whole, dtype=dtype
        ).eval()


def _arch(config: Any) -> Any:
    import gguf

    return getattr(gguf.MODEL_ARCH, _ARCHITECTURES[config.model_type])


def _type_of(tensor: "torch.Tensor", type_name: str) -> Any:
    """Of vectors fp32; of matrices the type asked for, or fp16 where rows don't divide into its blocks."""
    import gguf

    types = gguf.GGMLQuantizationType
    if tensor.dim() == 1:
        return types.F32
    kind = types[_TYPES[type_name]]
    block, _ = gguf.GGML_QUANT_SIZES[kind]
    return kind if tensor.shape[-1] % block == 0 else types.F16


# --- the configuration ------------------------------------------------------------------------------------------


def _rope(config: Any) -> dict[str, Any]:
    """The rotary embedding's parameters, of the layers that see all tokens."""
    found = dict(config.rope_parameters or {})
    return dict(found.get("full_attention", found))


def _not_exact(config: Any) -> str | None:
    """What of a configuration llama.cpp has no place for, or None."""
    rope = _rope(config)
    kind = rope.get("rope_type", "default")
    layers = getattr(config, "layer_types", None) or []
    head = _head_size(config)
    if kind not in ("default", "linear", "llama3"):
        return f"stretches its positions by {kind!r}"
    if rope.get("partial_rotary_factor", 1.0) != 1.0:
        return "turns only a part of each head (`partial_rotary_factor`)"
    if config.model_type == "gemma3_text":
        local = (config.rope_parameters or {}).get("sliding_attention", {}).get("rope_theta", _GEMMA_LOCAL_BASE)
        kinds = ("full_attention", "sliding_attention")
        pattern = [kinds[(number + 1) % _GEMMA_PATTERN > 0] for number in range(len(layers))]
        if local != _GEMMA_LOCAL_BASE:
            return f"has a rotary base of {local:g} in its sliding layers"
        if list(layers) != pattern:
            return "has its sliding layers in another order than Gemma 3"
        if config.query_pre_attn_scalar != head:
            return "scales its attention by another number than its head size"
        if config.use_bidirectional_attention:
            return "looks to the right (`use_bidirectional_attention`)"
        return "caps its attention" if config.attn_logit_softcapping else None
    if "sliding_attention" in layers:
        return "has layers with a sliding window"
    return None


def _head_size(config: Any) -> int:
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def _hyperparameters(writer: Any, config: Any) -> None:
    import gguf

    rope, head = _rope(config), _head_size(config)
    context = config.max_position_embeddings
    window = getattr(config, "sliding_window", None)
    gemma = config.model_type == "gemma3_text"
    if window and not gemma and config.model_type == "mistral":
        context = min(context, window)  # a Llama of llama.cpp has no window: up to there it makes no difference
    writer.add_context_length(context)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    writer.add_vocab_size(config.vocab_size)
    if _arch(config) == gguf.MODEL_ARCH.LLAMA:
        writer.add_rope_dimension_count(head)
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))
    if gemma:
        writer.add_sliding_window(window)
        if config.final_logit_softcapping:
            writer.add_final_logit_softcapping(config.final_logit_softcapping)


# --- the weights ------------------------------------------------------------------------------------------------


def _tensors(model: Any) -> Iterator[tuple[str, "torch.Tensor"]]:
    """(llama.cpp's name, weights) of a model, each laid out as llama.cpp has it."""
    import gguf

    config = model.config
    names = gguf.get_tensor_name_map(_arch(config), config.num_hidden_layers)
    for key, tensor in model.state_dict().items():
        if key == "lm_head.weight" and config.tie_word_embeddings:
            continue
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if name is None:
            raise BadInput(f"--gguf: llama.cpp has no place for {key}; give --merge")
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        part = key.split(".")[-2]
        if _arch(config) == gguf.MODEL_ARCH.LLAMA and part in heads:
            tensor = _turned(tensor, heads[part])
        if config.model_type == "gemma3_text" and key.endswith("norm.weight"):
            tensor = tensor.float() + 1.0  # transformers adds the 1 when it computes
        yield name, tensor
    if _rope(config).get("rope_type") == "llama3":
        yield "rope_freqs.weight", _llama3_factors(config)


def _turned(weight: "torch.Tensor", heads: int) -> "torch.Tensor":
    """The rows of each head from halves, as transformers turns them, to neighbours, as llama.cpp's Llama does.

    weight: (heads * d, ...), a matrix or its bias.
    """
    parts = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return parts.swapaxes(1, 2).reshape(weight.shape)


def _llama3_factors(config: Any) -> "torch.Tensor":
    """(d / 2,): by what Llama 3.1 divides each frequency of the rotary embedding (transformers'
    `_compute_llama3_parameters`).
    """
    import torch

    rope, size = _rope(config), _head_size(config)
    frequencies = 1.0 / (rope["rope_theta"] ** (torch.arange(0, size, 2, dtype=torch.float32) / size))
    low, high, factor = rope["low_freq_factor"], rope["high_freq_factor"], rope["factor"]
    length = rope["original_max_position_embeddings"]
    waves = 2 * math.pi / frequencies
    smooth = (length / waves - low) / (high - low)
    between = 1.0 / ((1 - smooth) / factor + smooth)
    found = torch.where(waves > length / low, torch.tensor(float(factor)), between)
    return torch.where(waves < length / high, torch.tensor(1.0), found)
