"""The run of one of TRL's trainers: an open run folder, its checkpoints, and what is saved at the end."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from align.data.load import data_facts
from align.models.load import model_facts
from align.report.audit import keep_audit
from align.run.disk import full_disk_is_said
from align.run.manifest import Run, hash_weights, is_run, start_run
from align.run.progress import say
from align.train.common import Job, one_line
from preferences.errors import BadInput


def open_run(job: Job) -> Run:
    """Open the run folder; the last step before training."""
    from accelerate import PartialState

    PartialState().wait_for_everyone()  # until every process has found the input right, the folder free among it
    inputs = {"model": model_facts(job.source), **job.inputs, "dataset": data_facts(job.data.dataset_name)}
    run = start_run(
        job.verb,
        job.recipe,
        inputs=inputs,
        parents=[facts["name"] for facts in inputs.values() if is_run(facts["name"])],
        seed=job.args.seed,
        resume=job.resume,
        processes=job.args.world_size,
        writes=job.args.process_index == 0,
    )
    keep_audit(run, job.audit)
    return run


def train(trainer: Any, job: Job, after: Callable[[], dict[str, Any]] = dict, **facts: Any) -> None:
    """Open the run folder, train, from the last whole checkpoint when resuming, and save the weights. The manifest
    gets `facts`, and what `after` says when the training is done.

    Some values of a recipe TRL looks at in the first step only: raises BadInput then, and leaves no folder behind.
    """
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    from align.train.progress import RunCallback

    run = open_run(job)
    for bar in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(bar)
    trainer.add_callback(RunCallback(run))
    checkpoint = _last_whole_checkpoint(run.folder) if run.resumed else None
    if run.resumed:
        run.forget_after(_step_of(checkpoint) if checkpoint else 0)
        say(f"resuming from {checkpoint}" if checkpoint else "no whole checkpoint yet; starting from the beginning")
    with full_disk_is_said(run.folder):
        try:
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        except (ImportError, NotImplementedError, ValueError) as error:
            if trainer.state.global_step > 0 or run.resumed:
                raise
            run.discard()
            raise BadInput(f"{job.where}: {one_line(error)}") from None
        trainer.save_model(str(run.folder))
    if run.writes:
        (run.folder / "training_args.bin").unlink(missing_ok=True)  # a pickle; recipe.yaml says the same
    run.finish(weights_sha256=hash_weights(run.folder), steps=trainer.state.global_step, **facts, **after())
    say(f"finished in {run.manifest['seconds']:.0f} s: {run.folder}")


def _last_whole_checkpoint(folder: Path) -> Path | None:
    """The latest checkpoint written to its end, or None; trainer_state.json is what the trainer writes last."""
    for path in sorted(folder.glob("checkpoint-[0-9]*"), key=_step_of, reverse=True):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        return path
    return None


def _step_of(checkpoint: Path) -> int:
    """The step in a checkpoint folder's name."""
    return int(checkpoint.name.rpartition("-")[2])
