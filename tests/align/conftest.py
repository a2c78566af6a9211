"""A tiny chat model, trained in a minute's fraction, that stands in for a real one in every test of the loop."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

WORDS = ["red", "green", "blue", "cat", "dog", "fox", "sun", "moon", "star", "tea", "milk", "soup"]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def make_tiny_model(folder: Path, steps: int = 120) -> Path:
    """A 2-layer Llama over a byte-level vocabulary that has learnt to answer with one to six words, and to stop.

    As in SmolLM2, the tokenizer pads with its end token, and the template writes a line break after it.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    chance = random.Random(0)
    conversations = [
        [
            {"role": "user", "content": f"Say {chance.choice(WORDS)}."},
            {"role": "assistant", "content": " ".join(chance.choices(WORDS, k=chance.randint(1, 6)))},
        ]
        for _ in range(400)
    ]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    raw.train_from_iterator([turn["content"] for turns in conversations for turn in turns], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, bos_token="<|endoftext|>", eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.chat_template = CHATML

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    rows = [tokenizer.apply_chat_template(turns, return_dict=True)["input_ids"] for turns in conversations]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(steps):
        batch = [torch.tensor(row) for row in chance.sample(rows, 32)]
        ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=0)
        labels = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=-100)
        model(input_ids=ids, attention_mask=(labels != -100).long(), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    """A row of preference pairs in TRL's conversational format."""
    return {
        "prompt": [{"role": "user", "content": prompt}],
        "chosen": [{"role": "assistant", "content": chosen}],
        "rejected": [{"role": "assistant", "content": rejected}],
    }


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty pairs in which the shorter response is the better one."""
    chance = random.Random(1)
    rows = []
    for _ in range(40):
        short = " ".join(chance.choices(WORDS, k=chance.randint(1, 2)))
        long = " ".join(chance.choices(WORDS, k=chance.randint(4, 6)))
        rows.append(pair(f"Say {chance.choice(WORDS)}.", short, long))
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def reward_run(tiny: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward run on the tiny model, made by the verb itself."""
    from align.train.reward import run_reward

    folder = tmp_path_factory.mktemp("runs") / "reward"
    recipe = {
        "model_name_or_path": str(tiny),
        "dataset_name": str(pairs_file),
        "output_dir": str(folder),
        "use_peft": True,
        "lora_r": 4,
        "learning_rate": 5e-3,
        "num_train_epochs": 2,
        "disable_tqdm": True,
    }
    run_reward(recipe, "reward.yaml")
    return folder
