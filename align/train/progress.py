"""One line a logged step, in place of transformers' progress bar and printed dictionaries; means over logged steps."""

import time
from typing import Any

from transformers import TrainerCallback

from align.run.manifest import Run
from align.run.progress import say
from align.train.keeping import Keeper

_SHOWN = {
    "loss": "loss",
    "accuracy": "accuracy",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
    "mean_token_accuracy": "token accuracy",
    "reward": "reward",
    "kl": "KL a token",
    "completions/mean_length": "tokens",
    "eval_loss": "held-out loss",
    "eval_accuracy": "held-out accuracy",
    "eval_rewards/accuracies": "held-out accuracy",
    "eval_reward": "held-out reward",
}


class RunCallback(TrainerCallback):
    """Writes what the trainer logs to the run's metrics.jsonl, and says the telling part of it."""

    def __init__(self, run: Run, keeper: Keeper) -> None:
        self.run = run
        self.keeper = keeper
        self.started = 0.0
        self.first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started, self.first_step = time.monotonic(), state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if not logs or not state.is_world_process_zero or ("train_runtime" in logs and self.keeper.stopped):
            return
        self.run.log({"step": state.global_step, **{key: value for key, value in logs.items() if key != "step"}})
        names = _SHOWN | ({"kl": "KL a response"} if self.run.manifest["verb"] == "kto" else {})
        shown = [f"{name} {logs[key]:.3f}" for key, name in names.items() if logs.get(key) is not None]
        done = state.global_step - self.first_step
        if shown and done:
            pace = (time.monotonic() - self.started) / done
            left = pace * (state.max_steps - state.global_step)
            say(
                f"step {state.global_step}/{state.max_steps}  {'  '.join(shown)}"
                f"  {pace:.1f} s a step, {left:.0f} s left"
            )


class Means:
    """Means over everything seen since the last log, of training and of evaluation apart."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[float, float]] = {}

    def add(self, trainer: Any, sums: dict[str, tuple[Any, Any]]) -> None:
        """sums: {name: (sum, number of values)}, scalars of this process; those of all processes are added."""
        import torch

        device = trainer.accelerator.device
        own = torch.tensor([[float(total), float(count)] for total, count in sums.values()], device=device)
        everybody = trainer.accelerator.gather_for_metrics(own.unsqueeze(0)).sum(0).tolist()
        for name, (total, count) in zip(sums, everybody, strict=True):
            before = self.sums.get(self._prefix(trainer) + name, (0.0, 0.0))
            self.sums[self._prefix(trainer) + name] = (before[0] + total, before[1] + count)

    def take(self, trainer: Any) -> dict[str, float]:
        """The means of what is going on now, by the names under which they are logged; they start anew."""
        due = [name for name in self.sums if name.startswith("eval_") == bool(self._prefix(trainer))]
        taken = {name: self.sums.pop(name) for name in due}
        return {name: total / count for name, (total, count) in taken.items() if count}

    @staticmethod
    def _prefix(trainer: Any) -> str:
        return "" if trainer.model.training else "eval_"
