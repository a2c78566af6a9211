"""The models and data of gpu_training.py: published shapes with random weights, and texts of exactly so many tokens."""

import json
import random
from pathlib import Path
from typing import Any

LLAMA = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 8192, "rope_theta": 500000.0}
SHAPES: dict[str, dict[str, Any]] = {
    "toy": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "vocab_size": 512, "tie_word_embeddings": True},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
           "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "tie_word_embeddings": True},
    "7b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 32768, "tie_word_embeddings": False},
}  # fmt: skip
TOKENS = {"toy": (32, 16), "1b": (512, 256), "7b": (512, 256)}  # of a prompt, of a response
ROWS = {"toy": 2, "1b": 8, "7b": 4}  # rows, pairs or sequences that go through at once


def make_model(home: Path, size: str) -> Path:
    """A folder with random weights of the shape and a tokenizer; made once."""
    folder = home / size
    if (folder / "made").is_file():
        return folder
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        [" ".join(words()) + " user assistant"] * 4,
        trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=alphabet, min_frequency=1),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<|im_end|>", pad_token="<pad>")
    tokenizer.chat_template = (
        "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() and size != "toy" else "cpu"
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    with torch.device(device):
        dtype = torch.float32 if size == "toy" else torch.bfloat16
        model = AutoModelForCausalLM.from_config(LlamaConfig(**{**LLAMA, **SHAPES[size], **ends}), dtype=dtype)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "made").write_text("")
    return folder


def words() -> list[str]:
    """Four hundred short words: each a token of the tokenizer that learns them, or two."""
    chance = random.Random(0)
    return sorted({"".join(chance.choices("bdfgklmnprst", k=1) + chance.choices("aeiou", k=1)) for _ in range(400)})


def write_data(home: Path, size: str) -> dict[str, Path]:
    """Prompts, pairs and demonstrations of exactly the tokens asked for, all different."""
    from align.data.lengths import token_ids
    from align.models.load import find_model, load_tokenizer

    tokenizer = load_tokenizer(find_model(str(home / size)))
    prompt, response = TOKENS[size]
    chance = random.Random(1)

    def turn(before: list[dict[str, str]], role: str, length: int) -> dict[str, str]:
        """A turn after which the conversation has `length` tokens."""
        said = {"role": role, "content": chance.choice(words())}
        while len(token_ids(tokenizer, [*before, said], generation=role == "user")) < length:
            said["content"] += " " + chance.choice(words())
        return said

    rows: dict[str, list[dict[str, Any]]] = {"prompts": [], "pairs": [], "demonstrations": []}
    for _ in range(4 * ROWS[size]):
        turns = [turn([], "user", prompt)]
        chosen, rejected = ([turn(turns, "assistant", prompt + response)] for _ in range(2))
        rows["prompts"].append({"prompt": turns})
        rows["pairs"].append({"prompt": turns, "chosen": chosen, "rejected": rejected})
        rows["demonstrations"].append({"prompt": turns, "completion": chosen})
    files = {name: home / f"{size}-{name}.jsonl" for name in rows}
    for name, path in files.items():
        path.write_text("".join(json.dumps(row) + "\n" for row in rows[name]))
    return files
