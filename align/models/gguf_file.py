"""A model as one GGUF file, for llama.cpp: its weights, its tokenizer and its chat template, by the `gguf` package.

Only what is converted exactly, and was tried, is converted: everything else is refused with the reason. The names of
tensors are the package's own; what llama.cpp holds otherwise than transformers does is written here, after llama.cpp's
convert_hf_to_gguf.py (MIT licence).
"""

import importlib.util
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

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

# How byte-level tokenizers cut a text before they merge: the expression, and llama.cpp's name for it.
_SPLITS = {
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)"
    r"|\s+": "llama-bpe",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)"
    r"|\s+": "qwen2",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+": "tekken",
}
_GEMMA_PATTERN = 6  # every sixth layer of Gemma 3 sees all tokens; llama.cpp takes that for granted
_GEMMA_LOCAL_BASE = 10000.0  # of the rotary embedding of its other layers; likewise


def check_gguf(source: ModelSource, scores: bool) -> None:
    """Raise BadInput where a model can't be written as GGUF, before anything is loaded."""
    from transformers import AutoConfig

    if importlib.util.find_spec("gguf") is None:
        raise BadInput("--gguf: the package gguf is not installed; `pip install 'concord[gguf]'`")
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
    if reason := _unknown_tokenizer(load_tokenizer(source)):
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
    _vocabulary(writer, tokenizer, model)
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
        yield names.get_name("rope_freqs", try_suffixes=()) or "rope_freqs.weight", _llama3_factors(config)


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


# --- the tokenizer ----------------------------------------------------------------------------------------------


def _backend(tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return found


def _steps(node: Any, inside: str) -> list[dict[str, Any]]:
    """A step of a tokenizer.json, or the steps of a sequence of them."""
    if node is None:
        return []
    return list(node[inside]) if node["type"] == "Sequence" else [node]


def _unknown_tokenizer(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """Why llama.cpp would not make the same tokens, or None."""
    if not hasattr(tokenizer, "backend_tokenizer"):
        return "its tokenizer is written in Python"
    backend = _backend(tokenizer)
    if backend["model"]["type"] != "BPE":
        return f"its tokenizer is {backend['model']['type']} and not BPE"
    if not _is_byte_level(backend):
        return None if backend["model"].get("byte_fallback") else "its tokenizer has no tokens for single bytes"
    cuts = [step["type"] for step in _steps(backend["normalizer"], "normalizers")]
    if cuts not in ([], ["NFC"]):
        return f"its tokenizer changes texts ({', '.join(cuts)})"
    return None if _split_of(backend) else "its tokenizer cuts texts in a way of its own"


def _is_byte_level(backend: dict[str, Any]) -> bool:
    return any(step["type"] == "ByteLevel" for step in _steps(backend["pre_tokenizer"], "pretokenizers"))


def _split_of(backend: dict[str, Any]) -> str | None:
    """llama.cpp's name for how a byte-level tokenizer cuts texts, or None for a way that it does not know."""
    steps = _steps(backend["pre_tokenizer"], "pretokenizers")
    if any(step.get("add_prefix_space") for step in steps):
        return None
    last = steps[-1]
    if last.get("use_regex", True):
        before = [step["type"] for step in steps[:-1] if step.get("individual_digits", True)]
        names: dict[tuple[str, ...], str] = {(): "gpt-2", ("Digits",): "smollm"}
        return names.get(tuple(before)) if len(before) == len(steps) - 1 else None
    if len(steps) == 2 and steps[0]["type"] == "Split":
        return _SPLITS.get(steps[0]["pattern"].get("Regex"))
    return None


def _vocabulary(writer: Any, tokenizer: "PreTrainedTokenizerBase", model: Any) -> None:
    """Tokens, merges or scores, special tokens and the template. Rows of the embedding without a token get a name."""
    import gguf

    types, backend = gguf.TokenType, _backend(tokenizer)
    by_number = {number: token for token, number in tokenizer.get_vocab().items()}
    rows = model.get_input_embeddings().weight.shape[0]
    if max(by_number) >= rows:
        raise BadInput(f"--gguf: the tokenizer has {max(by_number) + 1} tokens and the model {rows}; give --merge")
    tokens = [by_number.get(number, f"[PAD{number}]") for number in range(rows)]
    added = tokenizer.added_tokens_decoder
    kinds = [types.NORMAL if number in by_number else types.UNUSED for number in range(rows)]
    for number, token in added.items():
        kinds[number] = types.CONTROL if token.special else types.USER_DEFINED
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in backend["model"]["merges"]]
    if _is_byte_level(backend):
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(_split_of(backend))
        writer.add_token_list(tokens)
        writer.add_token_types(kinds)
        writer.add_token_merges(merges)
    else:
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        for number, token in enumerate(tokens):
            if len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
                kinds[number] = types.BYTE
            elif kinds[number] == types.USER_DEFINED:
                tokens[number] = token.replace("▁", " ")  # llama.cpp looks for these in the text as it is given
        if tokenizer.unk_token_id is not None:
            kinds[tokenizer.unk_token_id] = types.UNKNOWN
        writer.add_token_list(tokens)
        writer.add_token_scores(_scores(by_number, merges, rows))
        writer.add_token_types(kinds)
        writer.add_add_space_prefix(_adds_a_space(backend))
    begin = tokenizer("a").input_ids
    writer.add_add_bos_token(bool(begin) and begin[0] == tokenizer.bos_token_id)
    writer.add_add_eos_token(bool(begin) and begin[-1] == tokenizer.eos_token_id)
    for number, add in (
        (tokenizer.bos_token_id, writer.add_bos_token_id),
        (tokenizer.eos_token_id, writer.add_eos_token_id),
        (tokenizer.unk_token_id, writer.add_unk_token_id),
        (tokenizer.pad_token_id, writer.add_pad_token_id),
        (_other_end(model, tokenizer), writer.add_eot_token_id),
    ):
        if number is not None:
            add(number)
    if isinstance(tokenizer.chat_template, str):
        writer.add_chat_template(tokenizer.chat_template)


def _scores(by_number: dict[int, str], merges: list[str], rows: int) -> list[float]:
    """What llama.cpp merges first: the token whose first merge comes first in the tokenizer's own list."""
    first: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        first.setdefault(merge.replace(" ", "", 1), rank)
    return [-float(first.get(by_number.get(number, ""), len(merges))) for number in range(rows)]


def _adds_a_space(backend: dict[str, Any]) -> bool:
    """Whether the tokenizer puts a space before a text."""
    steps = [*_steps(backend["normalizer"], "normalizers"), *_steps(backend["pre_tokenizer"], "pretokenizers")]
    return any(
        step["type"] == "Prepend" or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") != "never")
        for step in steps
    )


def _other_end(model: Any, tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """Another token than the tokenizer's that ends a turn, by the generation config; llama.cpp has room for one."""
    ends = model.generation_config.eos_token_id
    others = [end for end in (ends if isinstance(ends, list) else [ends]) if end not in (None, tokenizer.eos_token_id)]
    return others[0] if others else None
