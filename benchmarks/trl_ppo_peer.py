"""The peer that PPO is measured against: the PPOTrainer of TRL 1.12.0, the last release that has one.

    PEER/bin/python benchmarks/trl_ppo_peer.py SETTINGS.json

Runs in a Python environment of its own (trl-peer-requirements.txt), never in Concord's, and imports nothing of
Concord's. The settings are one JSON object, see `DEFAULTS`; what it measured goes to the file `out`. TRL is left as it
is, but for a Python function in place of the reward model, counters, and what the last three settings switch.
"""

import os

os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "TRL_EXPERIMENTAL_SILENCE": "1", "TOKENIZERS_PARALLELISM": "false"}

import importlib.metadata
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, inject_adapter_in_model
from torch.utils.data import DataLoader
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
    set_seed,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer, ppo_trainer

DEFAULTS: dict[str, Any] = {
    "mode": "lora",  # or "full"
    "lora_r": 16,
    "lora_alpha": 32,
    "lora_target_modules": "all-linear",
    "response_length": 53,
    "temperature": 0.7,
    "batch_size": 64,
    "num_mini_batches": 1,
    "num_ppo_epochs": 4,
    "micro_batch_size": 8,
    "rollout_batch_size": 64,
    "total_episodes": 64,
    "learning_rate": 3e-6,
    "lr_scheduler_type": "linear",
    "kl_coef": 0.05,
    "cliprange": 0.2,
    "cliprange_value": 0.2,
    "vf_coef": 0.1,
    "gamma": 1.0,
    "lam": 0.95,
    "missing_eos_penalty": None,
    "stop_token": "eos",
    "seed": 42,
    "threads": 1,
    "adam_epsilon": 1e-5,  # what PPO is run with (detail 3 of the 37); the Trainer's own default is 1e-8
    # TRL puts adapters on the policy only: with LoRA, too, every weight of the value model is trained, at the same
    # learning rate. True gives the value model adapters as well, and trains those and its score head.
    "value_lora": False,
    # TRL hands Accelerate the micro-batches of a whole batch as the accumulation steps, so that `num_mini_batches` does
    # not change how many optimiser steps there are, and the last batch before the prompts start over gets a step for
    # every micro-batch. True gives num_mini_batches steps an epoch, always.
    "fix_accumulation": False,
    # False takes the prompts in the order of the file, so that both sides of a comparison can see the same batches.
    "shuffle": True,
}
REQUIRED = ("model", "prompts", "reward", "out")


def main() -> None:
    imports_mb = memory("VmRSS")
    given = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if wrong := [key for key in given if key not in DEFAULTS and key not in REQUIRED]:
        sys.exit(f"error: unknown keys: {', '.join(wrong)}")
    if missing := [key for key in REQUIRED if key not in given]:
        sys.exit(f"error: missing keys: {', '.join(missing)}")
    settings = DEFAULTS | given
    torch.set_num_threads(settings["threads"])
    set_seed(settings["seed"])

    tokenizer = AutoTokenizer.from_pretrained(settings["model"], padding_side="left")
    set_pad_token(tokenizer)
    rows, texts = load_prompts(tokenizer, Path(settings["prompts"]))
    lora = LoraConfig(
        r=settings["lora_r"],
        lora_alpha=settings["lora_alpha"],
        target_modules=settings["lora_target_modules"],
        task_type="CAUSAL_LM",
    )
    fp32 = {"dtype": torch.float32}
    policy = AutoModelForCausalLM.from_pretrained(settings["model"], **fp32)
    if "model" in settings["reward"]:
        reward = AutoModelForSequenceClassification.from_pretrained(settings["reward"]["model"], num_labels=1, **fp32)
        value = AutoModelForSequenceClassification.from_pretrained(settings["reward"]["model"], num_labels=1, **fp32)
    else:
        reward = FunctionReward(load_function(settings["reward"]["function"]), tokenizer, texts)
        value = AutoModelForSequenceClassification.from_pretrained(settings["model"], num_labels=1, **fp32)
        torch.nn.init.zeros_(value.score.weight)  # nothing is known of the rewards yet
    if settings["value_lora"]:
        # in place: TRL looks for the backbone by `base_model_prefix`, which does not work through a PeftModel
        inject_adapter_in_model(LoraConfig(**{**lora.to_dict(), "task_type": "SEQ_CLS"}), value)
        value.score.requires_grad_(True)

    probe = Probe()
    probe.watch()
    with tempfile.TemporaryDirectory() as folder:
        trainer = PPOTrainer(
            args=config(settings, folder),
            processing_class=tokenizer,
            model=policy,
            ref_model=None,  # with adapters: the policy without them; without: TRL copies the policy
            reward_model=reward,
            value_model=value,
            train_dataset=Dataset.from_list([{"input_ids": row} for row in rows]),
            callbacks=[probe],
            peft_config=lora if settings["mode"] == "lora" else None,
        )
        if settings["fix_accumulation"]:
            state = trainer.accelerator.gradient_state
            steps = trainer.args.gradient_accumulation_steps // trainer.args.num_mini_batches
            state.plugin_kwargs.update(num_steps=steps, sync_with_dataloader=False)
        if not settings["shuffle"]:
            trainer.dataloader = trainer.accelerator.prepare(
                DataLoader(
                    trainer.train_dataset,
                    batch_size=settings["batch_size"],
                    collate_fn=trainer.data_collator,
                    drop_last=True,
                )
            )
        trainer.optimizer.optimizer.register_step_post_hook(probe.count_step)
        trainer.train()
    trained = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    packages = ("trl", "transformers", "torch", "peft", "accelerate")
    document = {
        "format": 1,
        "updates": probe.updates,
        "trained_parameters": trained,
        "peak_mb": memory("VmHWM"),
        "imports_mb": imports_mb,
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "settings": settings,
    }
    Path(settings["out"]).write_text(json.dumps(document, indent=1), encoding="utf-8")


def config(settings: dict[str, Any], folder: str) -> PPOConfig:
    same = (
        "response_length",
        "temperature",
        "num_mini_batches",
        "num_ppo_epochs",
        "total_episodes",
        "learning_rate",
        "lr_scheduler_type",
        "kl_coef",
        "cliprange",
        "cliprange_value",
        "vf_coef",
        "gamma",
        "lam",
        "missing_eos_penalty",
        "stop_token",
        "seed",
        "adam_epsilon",
    )
    micro, batch = settings["micro_batch_size"], settings["batch_size"]
    if batch % micro:
        sys.exit(f"error: batch_size {batch} does not divide into micro-batches of {micro}")
    return PPOConfig(
        output_dir=folder,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=batch // micro,
        local_rollout_forward_batch_size=settings["rollout_batch_size"],
        num_sample_generations=0,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        **{key: settings[key] for key in same},
    )


class Probe(TrainerCallback):
    """What an update costs, and what TRL says about it. `watch` puts a clock around TRL's rollout functions."""

    def __init__(self) -> None:
        self.updates: list[dict[str, Any]] = []
        self.phases: dict[str, float] = {}
        self.steps = 0
        self.responses: list[torch.Tensor] = []

    def watch(self) -> None:
        self._clock("batch_generation", "generation")
        self._clock("forward", "reference", only_without_gradient=True)  # with a gradient it is the update
        self._clock("get_reward", "value_and_reward")
        truncate = ppo_trainer.truncate_response

        def remember(stop_token_id: int, pad_token_id: int, responses: torch.Tensor) -> torch.Tensor:
            after: torch.Tensor = truncate(stop_token_id, pad_token_id, responses)
            self.responses += [torch.stack([(after != pad_token_id).sum(-1), (after == stop_token_id).any(-1).long()])]
            return after

        ppo_trainer.truncate_response = remember

    def _clock(self, name: str, phase: str, *, only_without_gradient: bool = False) -> None:
        function = getattr(ppo_trainer, name)

        def clocked(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            result = function(*args, **kwargs)
            if not (only_without_gradient and torch.is_grad_enabled()):
                self.phases[phase] = self.phases.get(phase, 0.0) + time.process_time() - started
            return result

        setattr(ppo_trainer, name, clocked)

    def count_step(self, *_: Any) -> None:
        self.steps += 1

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.cpu, self.clock = time.process_time(), time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        cpu, clock = time.process_time(), time.monotonic()
        seen = torch.cat(self.responses, dim=1).double() if self.responses else torch.zeros(2, 1)
        self.updates.append(
            {
                "cpu_seconds": cpu - self.cpu,
                "seconds": clock - self.clock,
                **{f"cpu_seconds_{phase}": seconds for phase, seconds in self.phases.items()},
                "cpu_seconds_update": cpu - self.cpu - sum(self.phases.values()),
                "optimizer_steps": self.steps,
                "response/tokens": seen[0].mean().item(),
                "response/ended": seen[1].mean().item(),
                **(logs or {}),
            }
        )
        self.phases, self.steps, self.responses = {}, 0, []
        self.cpu, self.clock = cpu, clock


class FunctionReward(torch.nn.Module):
    """Stands where TRL wants a reward model, and calls a Python function instead.

    TRL's PPO has no reward functions. So `get_reward` of its module is replaced: for the value model it is TRL's own,
    for this it decodes the responses up to their first end-of-text token and calls the function as TRL's GRPO would.
    """

    def __init__(self, function: Callable[..., list[float]], tokenizer: Any, texts: dict[tuple[int, ...], str]) -> None:
        super().__init__()
        self.function, self.tokenizer, self.texts = function, tokenizer, texts
        real = ppo_trainer.get_reward

        def get_reward(model: Any, ids: torch.Tensor, pad_token_id: int, context_length: int) -> Any:
            if model is self:
                return None, self.rewards(ids, context_length), None
            return real(model, ids, pad_token_id, context_length)

        ppo_trainer.get_reward = get_reward

    def rewards(self, ids: torch.Tensor, context_length: int) -> torch.Tensor:
        prompts, completions = [], []
        pad, end = self.tokenizer.pad_token_id, self.tokenizer.eos_token_id
        for row in ids.tolist():
            query = row[:context_length]
            start = next(place for place, token in enumerate(query) if token != pad)
            response = row[context_length:]
            response = response[: response.index(end)] if end in response else response
            prompts.append([{"role": "user", "content": self.texts[tuple(query[start:])]}])
            text = self.tokenizer.decode(response, skip_special_tokens=True)
            completions.append([{"role": "assistant", "content": text}])
        return torch.tensor(self.function(prompts, completions), dtype=torch.float32)


def load_function(where: str) -> Callable[..., list[float]]:
    """`file.py:name`"""
    path, _, name = where.rpartition(":")
    spec = importlib.util.spec_from_file_location("reward", path)
    if spec is None or spec.loader is None:
        sys.exit(f"error: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[..., list[float]] = getattr(module, name)
    return function


def set_pad_token(tokenizer: Any) -> None:
    """TRL finds padding by its id: with pad = end it would not see the ends of turns, in the prompt neither."""
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        known = tokenizer.get_vocab()
        spare = ("<|finetune_right_pad_id|>", "<pad>", "<|pad|>", "[PAD]", "<|endoftext|>", "<unk>")
        free = [token for token in spare if token in known and token != tokenizer.eos_token]
        if not free:
            sys.exit("error: the tokenizer has no token to pad with besides the end-of-text token")
        tokenizer.pad_token = free[0]


def load_prompts(tokenizer: Any, path: Path) -> tuple[list[list[int]], dict[tuple[int, ...], str]]:
    """Token ids of each prompt under the chat template, and the text that they came from."""
    rows, texts = [], {}
    for line in path.read_text(encoding="utf-8").splitlines():
        text = json.loads(line)["prompt"]
        turns = [{"role": "user", "content": text}]
        rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(rendered, add_special_tokens=False).input_ids
        rows.append(ids)
        texts[tuple(ids)] = text
    return rows, texts


def memory(field: str) -> float:
    """VmRSS (now) or VmHWM (at most, so far) of this process, in MB of 2^20 bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return float("nan")


if __name__ == "__main__":
    main()
