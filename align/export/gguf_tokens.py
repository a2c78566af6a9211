"""A tokenizer as a GGUF file holds it: tokens, what merges first, special tokens, the chat template."""

import json
from typing import TYPE_CHECKING, Any

from preferences.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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


def _backend(tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    return found


def _steps(node: Any, inside: str) -> list[dict[str, Any]]:
    """A step of a tokenizer.json, or the steps of a sequence of them."""
    if node is None:
        return []
    return list(node[inside]) if node["type"] == "Sequence" else [node]


def unknown_tokenizer(tokenizer: "PreTrainedTokenizerBase") -> str | None:
    """Why llama.cpp would not make the same tokens, or None."""
    if not hasattr(tokenizer, "backend_tokenizer"):
        return "its tokenizer is written in Python"
    backend = _backend(tokenizer)
    if backend["model"]["type"] != "BPE":
        return f"its tokenizer is {backend['model']['type']} and not BPE"
    changes = [step["type"] for step in _steps(backend["normalizer"], "normalizers")]
    if not _is_byte_level(backend):
        changes += [step["type"] for step in _steps(backend["pre_tokenizer"], "pretokenizers")]
        if not backend["model"].get("byte_fallback"):
            return "its tokenizer has no tokens for single bytes"
        if not set(changes) <= {"Prepend", "Replace", "Metaspace", "Split"}:
            return f"its tokenizer changes texts ({', '.join(changes)})"
        return None
    if changes not in ([], ["NFC"]):
        return f"its tokenizer changes texts ({', '.join(changes)})"
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


def write_vocabulary(writer: Any, tokenizer: "PreTrainedTokenizerBase", model: Any) -> None:
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
    """Whether the tokenizer puts a space before a text and after every special token, as llama.cpp then does.

    One that does so at the very beginning only (Mistral's) does not: a conversation begins with a special token, and a
    text without a template is a space shorter in llama.cpp.
    """
    steps = [*_steps(backend["normalizer"], "normalizers"), *_steps(backend["pre_tokenizer"], "pretokenizers")]
    return any(
        step["type"] == "Prepend" or (step["type"] == "Metaspace" and step.get("prepend_scheme", "always") == "always")
        for step in steps
    )


def _other_end(model: Any, tokenizer: "PreTrainedTokenizerBase") -> int | None:
    """Another token than the tokenizer's that ends a turn, by the generation config; llama.cpp has room for one."""
    ends = model.generation_config.eos_token_id
    others = [end for end in (ends if isinstance(ends, list) else [ends]) if end not in (None, tokenizer.eos_token_id)]
    return others[0] if others else None
