"""A tiny chat model, trained in a minute's fraction, that stands in for a real one in every test of the loop."""

import contextlib
import io
import json
import os
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import pytest

os.environ["OMP_NUM_THREADS"] = "1"  # of the processes that tests start, too: tiny matrices gain nothing from threads

WORDS = ["red", "green", "blue", "cat", "dog", "fox", "sun", "moon", "star", "tea", "milk", "soup"]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def write_recipe(path: Path, **keys: Any) -> Path:
    """A recipe file; JSON is YAML."""
    path.write_text(json.dumps(keys, indent=1))
    return path


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A JSON-lines file."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def make_tiny_model(folder: Path, steps: int = 120, *, vocabulary: int = 400, width: int = 32) -> Path:
    """A 2-layer Llama over a byte-level vocabulary that has learnt to answer with one to six words, and to stop.

    As in SmolLM2, the tokenizer pads with its end token, and the template writes a line break after it. At most 305
    tokens come of the words.
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
        vocab_size=vocabulary,
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
        hidden_size=width,
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


class Said(NamedTuple):
    """How a command ended, and what it said."""

    code: int
    out: str
    err: str


def align(*words: Any) -> Said:
    """Run `align WORDS` in this process, through its entry point: importing TRL anew would cost seconds a call."""
    from align.cli import main

    out, err, code = io.StringIO(), io.StringIO(), 0
    command = mock.patch.object(sys, "argv", ["align", *map(str, words)])
    with command, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    return Said(code, out.getvalue(), err.getvalue())


def done(*words: Any) -> Said:
    """Run `align WORDS`, which must end well."""
    said = align(*words)
    assert said.code == 0, said.err
    return said


@pytest.fixture(scope="session", autouse=True)
def a_cache_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What earlier runs of the tests computed is not known to these, nor to the processes that they start."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


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
def preferences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A preferences folder as `annotate export` writes it: shorter is better; train and test, no validation, a tie."""
    from preferences.contract import Demonstration, Pair, PreferencesFolder, Ranking, Tie, write_preferences

    chance = random.Random(2)
    pairs: dict[str, list[Pair]] = {"train": [], "validation": [], "test": []}
    rankings, demonstrations = [], []
    for number in range(24):
        split = "test" if number % 4 == 3 else "train"
        row = pair(f"Say {chance.choice(WORDS)}, {number}.", chance.choice(WORDS), " ".join(chance.choices(WORDS, k=5)))
        name = f"r{number}"
        facts: dict[str, Any] = {"ranking": name, "group": f"g{number}"}
        more: dict[str, Any] = {"strength": None, "weight": 1.0, "tags": [], "raters": ["p1"], "models": None}
        pairs[split].append(Pair(**row, preference=0.9, **facts, **more))
        rankings.append(
            Ranking(
                **facts,
                split=split,
                prompt=row["prompt"],
                responses=[row["chosen"], row["rejected"]],
                models=None,
                ranks=[1, 2],
                weight=1.0,
                tags=[],
                answers=[],
            )
        )
        demonstrations.append(
            Demonstration(prompt=row["prompt"], completion=row["chosen"], split=split, source="best", **facts)
        )
    tie = Tie(**pairs["train"][0].model_dump() | {"preference": 0.5}, split="train")
    folder = tmp_path_factory.mktemp("data") / "preferences"
    write_preferences(folder, PreferencesFolder(pairs, [tie], rankings, demonstrations, {"project": "tiny"}))
    return folder


def make_reward_run(folder: Path, model: Path, data: Path, **keys: Any) -> Path:
    """A reward run, made by the verb itself."""
    from align.train.reward import run_reward

    recipe = {
        "model_name_or_path": str(model),
        "dataset_name": str(data),
        "output_dir": str(folder),
        "use_peft": True,
        "lora_r": 4,
        "learning_rate": 5e-3,
        "num_train_epochs": 2,
        "disable_tqdm": True,
    }
    run_reward({**recipe, **keys}, "reward.yaml")
    return folder


@pytest.fixture(scope="session")
def reward_run(tiny: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward run on the tiny model."""
    return make_reward_run(tmp_path_factory.mktemp("runs") / "reward", tiny, pairs_file)


@pytest.fixture(scope="session")
def whole_reward_run(tiny: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward run that trained the whole tiny model."""
    folder = tmp_path_factory.mktemp("runs") / "whole-reward"
    return make_reward_run(folder, tiny, pairs_file, use_peft=False, learning_rate=1e-3)


@pytest.fixture(scope="session")
def other_reward_run(pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward run on a base of another width and another vocabulary."""
    home = tmp_path_factory.mktemp("other")
    base = make_tiny_model(home / "base", steps=40, vocabulary=280, width=24)
    return make_reward_run(home / "reward", base, pairs_file)


SAY = ["red", "a cat and a dog", "sun", "soup, but only if there is tea or milk", "moon"]
PROMPTS = [[{"role": "user", "content": f"Say {what}."}] for what in SAY]


def ppo_trainer(
    model: Any,
    reward: Any,
    folder: Path,
    *,
    whole: bool = False,
    dropout: float = 0.0,
    callbacks: Any = None,
    model_args: Any = None,
    target_modules: Any = "all-linear",
    modules_to_save: Any = None,
    **keys: Any,
) -> Any:
    """A PPOTrainer on the five PROMPTS, whose rows also say `what`; with LoRA, unless the model is trained whole or is
    the folder of an adapter. Nothing is written yet. keys: of PPOConfig.
    """
    from peft import LoraConfig

    from align.ppo.config import PPOConfig
    from align.ppo.trainer import PPOTrainer

    where = {"target_modules": target_modules, "modules_to_save": modules_to_save}
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, lora_dropout=dropout, **where)
    adapter = isinstance(model, Path) and (model / "adapter_config.json").is_file()
    few: dict[str, Any] = {"response_length": 8, "temperature": 0.9, "batch_size": 5, "num_ppo_epochs": 1}
    few |= {"total_episodes": keys.get("batch_size", 5)}
    rows = [{"prompt": prompt, "what": what} for prompt, what in zip(PROMPTS, SAY, strict=True)]
    return PPOTrainer(
        str(model) if isinstance(model, Path) else model,
        str(reward) if isinstance(reward, Path) else reward,
        PPOConfig(output_dir=str(folder), use_cpu=True, **{**few, **keys}),
        rows,
        rows,
        peft_config=None if whole or adapter else lora,
        callbacks=callbacks,
        model_args=model_args,
    )


def ppo_gradients(
    trainer: Any, rollouts: Any, batch: Any, advantages: Any, returns: Any, kl_coef: float = 0.0
) -> dict[str, Any]:
    """The gradients of an update's first step by name of the parameter, not clipped. No step is taken."""
    learner = trainer.learner
    found: list[dict[str, Any]] = []

    def look() -> None:
        given = {name: p.grad for name, p in learner.parameters.items() if p.grad is not None}
        found.append({name: gradient.clone() for name, gradient in given.items()})

    args, max_grad_norm = learner.args, learner.args.max_grad_norm
    with mock.patch.object(learner.optimizer, "step", look), mock.patch.object(learner.scheduler, "step"):
        args.max_grad_norm = 1e9
        learner.learn(1, rollouts, batch, advantages, returns, kl_coef)
        args.max_grad_norm = max_grad_norm
    return found[0]


TRAIN = {"use_peft": True, "lora_r": 4, "max_steps": 1, "save_strategy": "no"}
PPO = {"use_peft": True, "lora_r": 4, "total_episodes": 4, "batch_size": 4, "response_length": 8}


def refused(*words: Any) -> str:
    """Run `align WORDS`, which must be refused; its sentence."""
    said = align(*words)
    assert said.code == 2, said
    assert said.out == ""
    lines = said.err.strip().splitlines()
    assert lines[-1].startswith(("error: ", "Error: ")), said.err
    assert sum(line.startswith("error: ") for line in lines) <= 1
    assert "Traceback" not in said.err
    return lines[-1]


@pytest.fixture()
def recipe(tiny: Path, pairs_file: Path, tmp_path: Path) -> Callable[..., Path]:
    """Makes a recipe that would run, but for the keys given."""

    def make(**keys: Any) -> Path:
        (tmp_path / "home").mkdir(exist_ok=True)
        right = {**TRAIN, "model_name_or_path": str(tiny), "dataset_name": str(pairs_file)}
        return write_recipe(tmp_path / "recipe.yaml", **{**right, "output_dir": str(tmp_path / "home/out"), **keys})

    return make


@pytest.fixture()
def ppo_recipe(tiny: Path, pairs_file: Path, reward_run: Path, tmp_path: Path) -> Callable[..., Path]:
    def make(**keys: Any) -> Path:
        (tmp_path / "home").mkdir(exist_ok=True)
        right = {**PPO, "model_name_or_path": str(tiny), "dataset_name": str(pairs_file)}
        right |= {"reward_model_path": str(reward_run), "output_dir": str(tmp_path / "home/out")}
        return write_recipe(tmp_path / "ppo.yaml", **{**right, **keys})

    return make


@pytest.fixture()
def evaluate_recipe(tiny: Path, pairs_file: Path, reward_run: Path, tmp_path: Path) -> Callable[..., Path]:
    def make(**keys: Any) -> Path:
        (tmp_path / "home").mkdir(exist_ok=True)
        right = {"models": {"base": str(tiny), "copy": str(tiny)}, "dataset_name": str(pairs_file)}
        right |= {"judges": {"reward": str(reward_run)}, "output_dir": str(tmp_path / "home/out")}
        right["cache_dir"] = None
        return write_recipe(tmp_path / "evaluate.yaml", **{**right, "max_new_tokens": 4, "num_prompts": 3, **keys})

    return make
