"""The run of one of TRL's trainers: an open run folder, its checkpoints, and what is saved at the end."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState

from align.data.load import data_facts
from align.models.chain import stage_facts
from align.report.audit import keep_audit
from align.run.checkpoint import MARKER, checkpoints
from align.run.disk import full_disk_is_said
from align.run.manifest import Run, hash_weights, parents_of, start_run
from align.run.progress import say
from align.run.stopping import Stopped, finishing_steps
from align.train.common import Job, one_line
from align.train.even import fill_with_blanks
from preferences.errors import BadInput
from preferences.files import read_json


def open_run(job: Job) -> Run:
    """Open the run folder; the last step before training."""
    PartialState().wait_for_everyone()  # until every process has found the input right, the folder free among it
    if job.resume:
        _check_resume(job)
    inputs = {
        "model": stage_facts(job.source, job.tokenizer),
        **job.inputs,
        "dataset": data_facts(job.data.dataset_name),
    }
    run = start_run(
        job.verb,
        job.recipe,
        inputs=inputs,
        parents=parents_of(facts["name"] for facts in inputs.values()),
        seed=job.args.seed,
        resume=job.resume,
        processes=job.args.world_size,
        writes=job.args.process_index == 0,
        mirror=job.run.mirror,
    )
    keep_audit(run, job.audit)
    return run


def _check_resume(job: Job) -> None:
    """Raise BadInput where a resumed run would not end where the unbroken one ends."""
    folder = job.args.output_dir
    before = read_json(Path(folder) / "manifest.json").get("processes")
    if before != job.args.world_size:
        processes = f"{before} process{'es' * (before != 1)}"
        raise BadInput(
            f"output_dir {folder}: the run to resume has {processes}, and with {job.args.world_size} it"
            f" would not end where it would have ended; resume it with {before}"
        )
    if getattr(job.args, "sync_ref_model", False):
        raise BadInput(f"{job.where}: key `sync_ref_model`: a reference that moves is not in checkpoints; --overwrite")


def train(trainer: Any, job: Job, after: Callable[[], dict[str, Any]] = dict, **facts: Any) -> None:
    """Open the run folder, train, from the last whole checkpoint when resuming, and save the weights. The manifest
    gets `facts`, and what `after` says when the training is done. SIGTERM raises Stopped, with a checkpoint to go on
    from.

    Some values of a recipe TRL looks at in the first step only: raises BadInput then, and leaves no folder behind.
    """
    from transformers.trainer_callback import PrinterCallback, ProgressCallback

    from align.train.keeping import Keeper, without_draws
    from align.train.progress import RunCallback

    run = open_run(job)
    facts |= fill_with_blanks(trainer)
    args = trainer.args
    for bar in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(bar)
    keeper = Keeper(run, args.save_total_limit, job.run.patience)
    trainer.add_callback(keeper)
    trainer.add_callback(RunCallback(run, keeper))
    args.save_total_limit = None  # the keeper's
    args.restore_callback_states_from_checkpoint = False  # there are none, but for "stop" of a run that was stopped
    trainer.evaluate = without_draws(trainer.evaluate)
    with full_disk_is_said(run.folder), finishing_steps():
        checkpoint = _to_resume_from(run, args, job.run.patience) if run.resumed else None
        try:
            trainer.train(resume_from_checkpoint=checkpoint)
        except (ImportError, NotImplementedError, ValueError) as error:
            if trainer.state.global_step > 0 or run.resumed:
                raise
            run.discard()
            raise BadInput(f"{job.where}: {one_line(error)}") from None
        if keeper.stopped:
            raise Stopped
        trainer.save_model(str(run.folder))
        if run.writes:
            (run.folder / "training_args.bin").unlink(missing_ok=True)  # a pickle; recipe.yaml says the same
        facts |= keeper.facts(trainer.state, args) | {"steps": trainer.state.global_step}
        run.finish(weights_sha256=hash_weights(run.folder), **facts, **after())
    say(f"finished in {run.manifest['seconds']:.0f} s: {run.folder}")


def _to_resume_from(run: Run, args: Any, patience: int | None) -> str | None:
    """The last whole checkpoint that says all there is to say, or None: the run starts anew. What came later is
    forgotten, and where nothing is left to be learnt, the trainer is told so.
    """
    from align.train.keeping import has_ended

    found = [
        (step, folder) for step, folder in checkpoints(run.folder) if not read_json(folder / MARKER).get("model_only")
    ]
    step, folder = max(found, default=(0, None))
    run.forget_after(step)
    if folder is None:
        say("no whole checkpoint yet; starting from the beginning")
        return None
    say(f"resuming from {folder}")
    state = read_json(folder / "trainer_state.json")
    if has_ended(state, args, patience):
        args.max_steps, args.num_train_epochs = -1, 0  # else transformers would take one step more
    args.eval_on_start = False
    return str(folder)
