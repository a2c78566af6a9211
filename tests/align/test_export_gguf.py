"""GGUF files: every architecture that is written is read back by transformers and by llama.cpp, and says the same."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from align.export.gguf_file import GGUF, read_gguf, write_gguf
from tests.align import llama_cpp
from tests.align.conftest import CHATML

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
TEXTS = [
    "Say red.",
    "The cat's tea, at 1234.5 degrees; don't say it twice!",
    "two  spaces, a tab\t, and\n\n three lines\n",
    "Grüße, 世界 🙂 ½",
    "<|im_start|>user\nSay soup.<|im_end|>\n<|im_start|>assistant\n",
]
SAID = "the cat says red soup and tea to a dog under the moon it is not blue but green said he don't 12 345 Grüße"


def trained_bpe(pre_tokenizer: Any) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """(vocabulary, merges) of a few words."""
    import json
    import random

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizer
    alphabet = pre_tokenizers.ByteLevel.alphabet() if not isinstance(pre_tokenizer, pre_tokenizers.Metaspace) else []
    chance = random.Random(0)
    lines = [" ".join(chance.choices(SAID.split(), k=8)) for _ in range(200)]
    raw.train_from_iterator(lines, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False))
    model = json.loads(raw.to_str())["model"]
    return model["vocab"], [tuple(merge) for merge in model["merges"]]


def byte_level(split: str | None, digits: bool = False) -> Any:
    """A tokenizer like Llama 3's and Qwen's (with an expression that cuts texts), SmolLM2's (digits) or GPT-2's."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)
    before: list[Any] = [pre_tokenizers.Split(Regex(split), "isolated")] if split else []
    before += [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    cut = pre_tokenizers.Sequence([*before, last]) if before else last
    vocabulary, merges = trained_bpe(cut)
    raw = Tokenizer(models.BPE(vocabulary, merges))
    raw.pre_tokenizer, raw.decoder = cut, decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw)
    tokenizer.add_special_tokens({"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})
    return tokenizer


def sentencepiece(space: str | None) -> Any:
    """A tokenizer like Llama 2's (a space before "every" text), Mistral's (before the "first") or Gemma's (none): rare
    letters become bytes.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    learnt, merges = trained_bpe(pre_tokenizers.Metaspace(prepend_scheme="always"))
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *learnt]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    raw = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    spaces = normalizers.Replace(" ", "▁")
    if space == "first":
        raw.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if space else spaces
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "pad_token": "<pad>"})
    return tokenizer


SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
STRETCHED = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LINEAR = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
MODELS: dict[str, tuple[str, dict[str, Any], Callable[[], Any]]] = {
    "smollm2": ("LlamaConfig", {"tie_word_embeddings": True}, lambda: byte_level(None, digits=True)),
    "gpt-2's tokens": ("LlamaConfig", {"attention_bias": True, "mlp_bias": True}, lambda: byte_level(None)),
    "llama 3.1": ("LlamaConfig", {"rope_parameters": STRETCHED, "head_dim": 32}, lambda: byte_level(LLAMA3)),
    "linear positions": ("LlamaConfig", {"rope_parameters": LINEAR}, lambda: sentencepiece("every")),
    "mistral": ("MistralConfig", {"sliding_window": None}, lambda: sentencepiece("first")),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": True}, lambda: byte_level(QWEN2)),
    "qwen3": ("Qwen3Config", {"head_dim": 32}, lambda: byte_level(QWEN2)),
    "gemma3": (
        "Gemma3TextConfig",
        {"num_hidden_layers": 7, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 16},
        lambda: sentencepiece(None),
    ),
}


def made(kind: str) -> tuple[Any, Any]:
    """(model, tokenizer) of the kind, with weights at random that are not near zero, so that every one matters."""
    import transformers

    config_class, keys, tokenizer_of = MODELS[kind]
    tokenizer = tokenizer_of()
    tokenizer.chat_template = CHATML
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = getattr(transformers, config_class)(**{**SHAPE, "vocab_size": len(tokenizer) + 3, **ids, **keys})
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model, tokenizer


@pytest.mark.parametrize("kind", MODELS)
def test_transformers_and_llama_cpp_read_what_was_written(
    kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer

    model, tokenizer = made(kind)
    path = tmp_path / GGUF
    write_gguf(model, tokenizer, "float32", path, "small")
    texts = [f"<|im_start|>{text}" for text in TEXTS] if kind == "mistral" else TEXTS  # as a conversation begins
    rows = [tokenizer(text, add_special_tokens=False).input_ids for text in texts]
    with torch.no_grad():
        expected = [model(torch.tensor([row])).logits[0, -1].log_softmax(-1) for row in rows]
    back, its_tokenizer = (
        read_gguf(tmp_path, model.config, torch.float32),
        AutoTokenizer.from_pretrained(tmp_path, gguf_file=GGUF),
    )
    assert "it/s" not in capfd.readouterr().err
    for row, logprobs in zip(rows, expected, strict=True):
        with torch.no_grad():
            found = back(torch.tensor([row])).logits[0, -1].log_softmax(-1)
        assert found == pytest.approx(logprobs, abs=1e-5)
    assert its_tokenizer.chat_template == CHATML
    assert its_tokenizer.eos_token == tokenizer.eos_token
    if importlib.util.find_spec("xllamacpp") is None:
        pytest.skip("llama.cpp was not asked: xllamacpp is not installed")
    # llama.cpp takes Gemma's GELU from a table in fp16
    said = llama_cpp.ask(path, texts, rows)
    assert said["tokens"] == rows
    for logprobs, theirs in zip(expected, said["logprobs"], strict=True):
        assert torch.tensor(theirs) == pytest.approx(
            logprobs, abs=5e-3 if kind == "gemma3" else 2e-4
        )  # its GELU is a table in fp16
