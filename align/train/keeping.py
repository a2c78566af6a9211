"""What a run of TRL's trainers keeps, and when it stops: marked checkpoints, the best one, SIGTERM, patience.

transformers writes the files of a checkpoint. That it is whole, and which ones go, is said here: transformers deletes
old ones before it is known that the new one is on the disk.
"""

import math
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback
from transformers.trainer_utils import SaveStrategy

from align.run.checkpoint import mark_whole, prune
from align.run.manifest import Run
from align.run.progress import say
from align.run.stopping import everybody_asked
from preferences.errors import BadInput

_PICKLE = "training_args.bin"  # recipe.yaml says the same


class Keeper(TrainerCallback):
    """Marks and prunes checkpoints, sees to it that the best one is among them, and stops the run when it should."""

    def __init__(self, run: Run, limit: int | None, patience: int | None) -> None:
        self.run = run
        self.limit = limit
        self.patience = patience
        self.saved = -1  # the step of the last checkpoint of this process
        self.stopped = False  # SIGTERM came, and the run can go on from its last checkpoint
        self._asked = False

    def on_epoch_begin(self, args: Any, state: Any, control: Any, train_dataloader: Any = None, **kwargs: Any) -> None:
        _seed_order(train_dataloader, (args.data_seed or args.seed) + int(state.epoch or 0))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._asked = self._asked or everybody_asked(args.device)
        if not self._asked or state.global_step >= state.max_steps or state.global_step % rollout_steps(args):
            return
        if float(state.epoch).is_integer() and "epoch" in (args.eval_strategy, args.save_strategy):
            return  # on_epoch_end comes next, and this step is not done before
        self._stop(args, control)

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if (
            not float(state.epoch).is_integer() and state.global_step < state.max_steps
        ):  # cut short; transformers looks at held-out rows and saves all the same
            control.should_evaluate = control.should_save = False
        elif self._asked and state.global_step < state.max_steps and not state.global_step % rollout_steps(args):
            self._stop(args, control)
        if self.saved == state.global_step:  # nothing has been learnt since
            control.should_save = False

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **kwargs: Any) -> None:
        name = best_metric(args)
        if name is None or state.global_step == 0:
            return
        metrics.update({key: value for key, value in state.log_history[-1].items() if key.startswith("eval_")})
        if not isinstance(metrics.get(name), int | float):
            known = sorted(key for key in metrics if key.startswith("eval_"))
            raise BadInput(
                f"key `metric_for_best_model`: {name} is not measured on held-out rows; take one of {', '.join(known)}"
            )
        best, since = looks(state.log_history, name, args.greater_is_better)
        if best == state.global_step and self.saved != state.global_step:
            control.should_save = True
        if self.patience is not None and since >= self.patience:
            say(f"stopping: no new best in {since} looks at held-out rows")
            control.should_training_stop = True

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        PartialState().wait_for_everyone()  # until every process has written its part
        if self.run.writes:
            (folder / _PICKLE).unlink(missing_ok=True)
            mark_whole(folder, state.global_step, args.world_size, model_only=args.save_only_model)
            prune(self.run.folder, self.limit, [state.best_global_step] if state.best_global_step else [])
            self.run.copy_checkpoint(folder)
        PartialState().wait_for_everyone()  # nobody goes on, or ends, before it is whole
        self.saved = state.global_step

    def facts(self, state: Any, args: Any) -> dict[str, Any]:
        """What the manifest gets to know: which look at held-out rows was the best."""
        name = best_metric(args)
        if name is None or not state.best_global_step:
            return {}
        return {"best": {"step": state.best_global_step, name: state.best_metric}}

    def _stop(self, args: Any, control: Any) -> None:
        self.stopped = control.should_training_stop = control.should_save = True
        args.save_only_model = False  # what is stopped is to go on
        args.load_best_model_at_end = False  # it is not the end
        if args.save_strategy == SaveStrategy.BEST:  # which would save this one if it is the best only
            args.save_strategy = SaveStrategy.STEPS


def rollout_steps(args: Any) -> int:
    """The steps that learn from responses made at once; a run of RLOO or GRPO can go on between such rounds only."""
    if not hasattr(args, "steps_per_generation"):
        return 1
    forwards: int = args.steps_per_generation * args.num_iterations
    return forwards // math.gcd(forwards, args.gradient_accumulation_steps)


def best_metric(args: Any) -> str | None:
    """The name of what decides which checkpoint is the best, as it is logged; None where nothing does."""
    name: str | None = args.metric_for_best_model
    return name if name is None or name.startswith("eval_") else f"eval_{name}"


def looks(history: Sequence[dict[str, Any]], name: str, greater: bool) -> tuple[int | None, int]:
    """The step of the best value of a metric so far (None: there is none), and how many looks came after it."""
    best: tuple[float, int] | None = None
    since = 0
    for row in history:
        if name not in row or row["step"] == 0:
            continue
        if best is None or (row[name] > best[0] if greater else row[name] < best[0]):
            best, since = (row[name], row["step"]), 0
        else:
            since += 1
    return (best[1] if best else None), since


def has_ended(state: dict[str, Any], args: Any, patience: int | None) -> bool:
    """Whether the run of which trainer_state.json was the last word had nothing left to learn."""
    name = best_metric(args)
    since = looks(state["log_history"], name, args.greater_is_better)[1] if name else 0
    return bool(state["global_step"] >= state["max_steps"] or (patience is not None and since >= patience))


def _seed_order(loader: Any, seed: int) -> None:
    """Make the order of an epoch a function of its seed, for samplers that go on with one generator from epoch to
    epoch: a resumed run has not drawn what came before. accelerate's do so by themselves.
    """
    import torch

    sampler = loader
    while sampler is not None:
        if (
            not hasattr(sampler, "set_epoch")
            and hasattr(sampler, "generator")
            and not hasattr(sampler, "batch_sampler")
        ):
            sampler.generator = torch.Generator().manual_seed(seed)
        sampler = getattr(sampler, "batch_sampler", None) or getattr(sampler, "sampler", None)


def without_draws(evaluate: Callable[..., Any]) -> Callable[..., Any]:
    """A look at held-out rows that leaves every generator of random numbers as it was: how often a run looks does not
    change what it learns.
    """
    import numpy
    import torch

    def neutral(*args: Any, **kwargs: Any) -> Any:
        python, arrays = random.getstate(), numpy.random.get_state()
        here = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        try:
            with torch.random.fork_rng(here):
                return evaluate(*args, **kwargs)
        finally:
            random.setstate(python)
            numpy.random.set_state(arrays)

    return neutral
