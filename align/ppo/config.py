"""The keys of a PPO recipe. The names are those of TRL's PPOConfig and of transformers where they mean the same."""

import math
from dataclasses import dataclass, field
from typing import Literal

from align.audit.audit import check_names
from align.models.rewards import RewardArguments


@dataclass
class PPOConfig(RewardArguments):
    """An update is `batch_size` rollouts, learnt from for `num_ppo_epochs` epochs of `num_mini_batches` steps."""

    output_dir: str
    mirror: str | None = None  # s3://bucket/runs/ppo: where checkpoints and the finished run are copied to
    seed: int = 42
    use_cpu: bool = False

    # Prompts
    dataset_name: str | None = None
    dataset_config: str | None = None
    dataset_train_split: str = "train"
    eval_dataset_name: str | None = None  # where held-out prompts are; None: in `dataset_name`, another split
    dataset_test_split: str = "validation"  # held out, looked at every `eval_steps`
    allow: list[str] = field(default_factory=list)  # checks of the audit that may not stop the run
    max_prompt_length: int | None = None  # longer prompts are left out, and counted; None: what the context allows

    # Rewards: RewardArguments, and what becomes of a score
    score_clip: float | None = None  # scores are kept within ± this
    missing_eos_penalty: float | None = None  # taken off the score of a response that did not end by itself
    whiten_rewards: bool = False  # token rewards to variance 1, their mean kept

    # Roles
    value: Literal["separate", "shared"] = "separate"  # the value model's own trunk, or a head on the policy's
    use_reference: bool = True  # whole models: false saves one model, and then nothing holds the policy back

    # How much
    total_episodes: int = 10_000  # rollouts in the whole run
    batch_size: int = 64  # rollouts an update, over all processes
    num_mini_batches: int = 1  # optimiser steps an epoch
    num_ppo_epochs: int = 4
    per_device_train_batch_size: int = 8  # sequences scored and learnt from at once; changes memory, not results
    per_device_rollout_batch_size: int = 64  # sequences sampled at once; changes memory, not results
    activation_checkpointing: bool = False  # less memory for a third more time; changes no result

    # Rollouts
    response_length: int = 53  # new tokens at most
    temperature: float = 0.7
    rollout_engine: Literal["generate", "continuous", "vllm"] = "generate"  # the others are for GPUs
    stop_tokens: list[str] | None = None  # end a response besides the model's own end tokens; one token each

    # Optimiser
    learning_rate: float = 1e-5
    lr_scheduler_type: str = "linear"  # to zero; any of transformers'
    warmup_steps: int = 0
    max_grad_norm: float = 1.0

    # The algorithm
    kl_coef: float = 0.05
    kl_estimator: Literal["k1", "k2", "k3"] = "k1"
    kl_in: Literal["reward", "loss"] = "reward"
    kl_target: float | None = None  # nats a response: adapt kl_coef towards it
    kl_horizon: int = 10_000  # episodes in which kl_coef can adapt by a fifth
    cliprange: float = 0.2
    cliprange_value: float = 0.2
    vf_coef: float = 0.1
    entropy_coef: float = 0.0
    gamma: float = 1.0
    lam: float = 0.95
    target_kl: float | None = None  # nats a token between old and new policy: no more steps in this update beyond it

    # While it runs
    save_steps: int = 50  # updates between checkpoints
    save_total_limit: int | None = 1  # the last ones that stay, besides the best; null: all, for `frontier` of evaluate
    eval_steps: int | None = None  # updates between looks at held-out prompts; then the best policy is what is kept
    eval_prompts: int = 64  # held-out prompts at most
    kl_budget: float | None = None  # nats a response: the best policy is the best within it
    patience: int | None = None  # stop after so many looks without a new best
    report_to: str = "none"  # a tracker of accelerate: tensorboard, wandb, trackio, mlflow, ...
    ddp_timeout: int = 1800  # seconds that one process waits for another, before the run ends

    def __post_init__(self) -> None:
        super().__post_init__()
        check_names(self.allow, "key `allow`")
        if isinstance(self.stop_tokens, str):  # one alone may stand without brackets
            self.stop_tokens = [self.stop_tokens]
        for key, least in _AT_LEAST.items():
            value = getattr(self, key)
            if value is not None and not (least <= value < math.inf):
                raise ValueError(f"key `{key}`: {value} is less than {least}, or no number")
        for key in _ABOVE_ZERO:
            value = getattr(self, key)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"key `{key}`: {value} is not a number above 0")
        for key in ("gamma", "lam"):
            if not 0 <= getattr(self, key) <= 1:
                raise ValueError(f"key `{key}`: {getattr(self, key)} is not between 0 and 1")
        if self.batch_size % self.num_mini_batches:
            raise ValueError(
                f"key `num_mini_batches`: batch_size {self.batch_size} does not divide into {self.num_mini_batches}"
            )
        if self.kl_in == "loss" and self.kl_estimator == "k1":
            raise ValueError(
                "key `kl_estimator`: k1 in the loss has a gradient of mean zero, so it holds nothing back; take k2"
            )
        if not self.use_reference and (self.kl_coef or self.kl_target or self.kl_budget):
            raise ValueError("key `use_reference`: without a reference there is no KL; set `kl_coef: 0` and no target")
        if self.kl_target is not None and not (self.kl_coef > 0 and self.batch_size < 5 * self.kl_horizon):
            raise ValueError(
                "key `kl_target`: needs a `kl_coef` above 0 to start from, and a `kl_horizon` above a fifth of"
                " batch_size; else it would stay at 0 or jump below"
            )
        if self.eval_steps is None and (self.kl_budget or self.patience):
            raise ValueError("key `eval_steps`: is needed for `kl_budget` and `patience`; say every how many updates")


_AT_LEAST = {
    "total_episodes": 1,
    "batch_size": 1,
    "num_mini_batches": 1,
    "num_ppo_epochs": 1,
    "per_device_train_batch_size": 1,
    "per_device_rollout_batch_size": 1,
    "response_length": 1,
    "max_prompt_length": 1,
    "warmup_steps": 0,
    "kl_horizon": 1,
    "save_steps": 1,
    "save_total_limit": 1,
    "eval_steps": 1,
    "eval_prompts": 1,
    "patience": 1,
    "ddp_timeout": 1,
    "kl_coef": 0,
    "missing_eos_penalty": 0,
    "vf_coef": 0,
    "entropy_coef": 0,
}
_ABOVE_ZERO = (
    "temperature",
    "learning_rate",
    "max_grad_norm",
    "cliprange",
    "cliprange_value",
    "score_clip",
    "kl_target",
    "target_kl",
    "kl_budget",
)
