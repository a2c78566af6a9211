"""The keys of a PPO recipe. The names are those of TRL's PPOConfig and of transformers where they mean the same."""

from dataclasses import dataclass


@dataclass
class PPOConfig:
    """An update is `batch_size` rollouts, learnt from for `num_ppo_epochs` epochs of `num_mini_batches` steps."""

    output_dir: str
    reward_model_path: str
    dataset_name: str
    dataset_config: str | None = None
    dataset_train_split: str = "train"
    seed: int = 42
    use_cpu: bool = False

    total_episodes: int = 10_000  # rollouts in the whole run
    batch_size: int = 64  # rollouts an update, over all processes
    num_mini_batches: int = 1  # optimiser steps an epoch
    num_ppo_epochs: int = 4
    per_device_train_batch_size: int = 8  # sequences scored and learnt from at once; changes memory, not results

    response_length: int = 53  # new tokens at most
    temperature: float = 0.7
    missing_eos_penalty: float | None = None  # taken off the score of a response that did not end by itself

    learning_rate: float = 1e-5
    max_grad_norm: float = 1.0
    kl_coef: float = 0.05
    cliprange: float = 0.2
    cliprange_value: float = 0.2
    vf_coef: float = 0.1
    gamma: float = 1.0
    lam: float = 0.95

    save_steps: int = 50  # updates between checkpoints

    def __post_init__(self) -> None:
        for key in (
            "total_episodes",
            "batch_size",
            "num_mini_batches",
            "num_ppo_epochs",
            "per_device_train_batch_size",
            "response_length",
            "save_steps",
        ):
            if getattr(self, key) < 1:
                raise ValueError(f"key `{key}`: {getattr(self, key)} is less than 1")
        for key in ("temperature", "learning_rate", "cliprange", "cliprange_value"):
            if not 0 < getattr(self, key) < float("inf"):
                raise ValueError(f"key `{key}`: {getattr(self, key)} is not a number above 0")
        if self.batch_size % self.num_mini_batches:
            raise ValueError(
                f"key `num_mini_batches`: batch_size {self.batch_size} does not divide into {self.num_mini_batches}"
            )
