"""What the verbs over TRL's trainers share: a checked recipe, a model, data and a trainer; running.py runs it.

Everything that can be wrong with the input is looked at before the run folder is opened.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from align.audit.audit import audit_for_training, check_names
from align.audit.rows import Kind
from align.config import parse
from align.data.lengths import context_length
from align.data.load import check_test_split, looked_at
from align.models.chain import check_parent
from align.models.load import (
    ModelSource,
    find_model,
    load_causal_lm,
    load_config,
    load_tokenizer,
    weight_dtype,
    whole_config,
)
from align.models.text import lora_of
from align.run.launch import check_strategy, check_world, meet_on_cpus, sharded
from align.run.manifest import check_output_folder
from align.run.progress import say
from align.run.strategies import asked_strategy, kind_of, refuse
from preferences.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

T = TypeVar("T")


@dataclass
class DataArguments:
    """Which data: a preferences folder, a JSON-lines file or a hub dataset. Names as in TRL's ScriptArguments."""

    dataset_name: str
    dataset_config: str | None = None
    dataset_train_split: str = "train"
    dataset_test_split: str = field(
        default="validation", metadata={"help": "looked at while training, when `eval_strategy` is set"}
    )
    allow: list[str] = field(default_factory=list, metadata={"help": "checks of the audit that may not stop the run"})

    def __post_init__(self) -> None:
        check_names(self.allow, "key `allow`")


@dataclass
class RunArguments:
    """How a run goes on and ends, besides what transformers' keys say of that."""

    patience: int | None = field(default=None, metadata={"help": "stop after so many looks without a new best"})
    mirror: str | None = field(default=None, metadata={"help": "s3://bucket/runs/dpo: gets a copy of each checkpoint"})

    def __post_init__(self) -> None:
        if self.patience is not None and self.patience < 1:
            raise ValueError(f"key `patience`: {self.patience} is less than 1")


class Job(NamedTuple):
    """A checked recipe, ready to train."""

    verb: str
    recipe: dict[str, Any]
    where: str
    data: DataArguments
    model_args: Any  # trl.ModelConfig
    args: Any  # the trainer's config: SFTConfig, RewardConfig, DPOConfig, RLOOConfig or GRPOConfig
    source: ModelSource
    tokenizer: "PreTrainedTokenizerBase"
    context: int | None
    resume: bool
    run: RunArguments = RunArguments()
    own: tuple[Any, ...] = ()  # one instance of each dataclass of keys that the verb has besides
    inputs: dict[str, dict[str, Any]] = {}  # noqa: RUF012  what it is made from besides model and data, for the manifest
    audit: dict[str, Any] | None = None  # of the data, in the main process


def read_job(
    verb: str, recipe: dict[str, Any], where: str, config: type, resume: bool, overwrite: bool, *own: type
) -> Job:
    """Check a recipe for one of TRL's trainers, and find its model. Loads no weights and writes nothing.

    own: dataclasses of keys that the verb has besides TRL's and DataArguments.
    """
    from trl import ModelConfig

    if not isinstance(recipe.get("output_dir"), str):
        raise BadInput(f"{where}: the key `output_dir` is missing; add `output_dir: runs/NAME`")
    recipe = with_machine_defaults(recipe)
    if recipe.get("use_cpu"):
        meet_on_cpus(recipe.get("ddp_timeout"))
    data, model_args, args, run, *more = parse(recipe, (DataArguments, ModelConfig, config, RunArguments, *own), where)
    _check_run(run, args, where)
    if not model_args.model_name_or_path:
        raise BadInput(f"{where}: the key `model_name_or_path` is missing; name a hub model or a model folder")
    if (model_args.load_in_4bit or model_args.load_in_8bit) and not model_args.use_peft:
        raise BadInput(f"{where}: a model in 4 or 8 bits can't be trained whole; add `use_peft: true`")
    for key in ("per_device_train_batch_size", "per_device_eval_batch_size"):
        if getattr(args, key) < 1:
            raise BadInput(f"{where}: key `{key}`: {getattr(args, key)} is less than 1")
    elsewhere = any(getattr(each, "eval_dataset_name", None) not in (None, data.dataset_name) for each in more)
    if args.eval_strategy != "no" and not elsewhere:
        check_test_split(data.dataset_train_split, data.dataset_test_split, f"{where}: ")
    check_world(args.world_size)
    if args.ddp_find_unused_parameters is None:
        args.ddp_find_unused_parameters = False  # all that trains is used; looking for more costs time, and warns
    check_output_folder(args.output_dir, verb, resume, overwrite)
    source = find_model(model_args.model_name_or_path, model_args.model_revision)
    kind, strategy = kind_of(model_args, source.adapter is not None), asked_strategy()
    refuse(verb, kind, strategy)
    if kind == "lora-4bit" and strategy in ("fsdp2", "zero3"):
        _check_packed(model_args, args, where)
    check_parent(source)
    context = context_length(load_config(source))
    tokenizer = load_tokenizer(source)
    return Job(verb, recipe, where, data, model_args, args, source, tokenizer, context, resume, run, tuple(more))


def _check_packed(model_args: Any, args: Any, where: str) -> None:
    """Raise BadInput where sharding would cast weights in 4 bits, which are packed into numbers of the weights' type:
    a cast of these would make others of them.
    """
    asked = "fp16" if args.fp16 else "bf16" if args.bf16 else os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    dtype = str(weight_dtype(model_args)).removeprefix("torch.")
    computed = {"fp16": "float16", "bf16": "bfloat16"}.get(asked, dtype)
    if dtype != computed:
        raise BadInput(
            f"{where}: key `dtype`: weights in 4 bits are sharded as {dtype} and computed with as {computed} ({asked}),"
            f" which must be one: set `dtype: {computed}`, or `bf16: false`"
        )


def _check_run(run: RunArguments, args: Any, where: str) -> None:
    """Raise BadInput where the best of the run is asked for, and nothing says which that is."""
    key = "patience" if run.patience is not None else "metric_for_best_model" if args.metric_for_best_model else None
    if key is None:
        return
    if args.eval_strategy == "no":
        raise BadInput(
            f"{where}: key `{key}` needs looks at held-out rows; add `eval_strategy: steps` and `eval_steps`"
        )
    if args.metric_for_best_model is None:
        raise BadInput(f"{where}: key `patience`: say of what; add `metric_for_best_model: loss`")


def held_out(job: Job, load: Callable[[str], T]) -> T | None:
    """What `load` makes of the split that the run looks at while it trains; None where it looks at none."""
    if job.args.eval_strategy == "no":
        return None
    data = job.data
    return looked_at(data.dataset_train_split, data.dataset_test_split, "`eval_strategy: no`", load)


def audited(job: Job, kind: Kind | None, limit: int | None, evaluated_on: str | None = None) -> Job:
    """The job with the audit of its data, which has at most `limit` tokens a row. Raises BadInput where that stops."""
    from accelerate import PartialState

    data = job.data
    splits = [data.dataset_train_split]
    if job.args.eval_strategy != "no" and evaluated_on is None:
        if Path(data.dataset_name).expanduser().is_file():
            raise BadInput(
                f"{job.where}: key `eval_strategy`: {data.dataset_name} is one file without a held-out split; take the"
                " key out, or name a folder with splits"
            )
        splits.append(data.dataset_test_split)
    found = audit_for_training(
        data.dataset_name,
        kind,
        config=data.dataset_config,
        splits=splits,
        evaluated_on=evaluated_on,
        tokenizer=job.tokenizer,
        limit=min((each for each in (limit, job.context) if each is not None), default=None),
        allow=data.allow,
    )
    PartialState().wait_for_everyone()  # one process audits for all
    return job._replace(audit=found)


def with_machine_defaults(recipe: dict[str, Any]) -> dict[str, Any]:
    """Fill in what a recipe leaves open and TRL would get wrong here: TRL's defaults are for a recent GPU."""
    import torch

    defaults: dict[str, Any] = {"report_to": "none", "logging_steps": 1, "dtype": "auto"}
    if not torch.cuda.is_available():
        # `bf16: true` fails on most CPUs, and recomputing activations makes a step several times slower
        defaults |= {"use_cpu": True, "bf16": False, "activation_checkpointing": False, "dataloader_pin_memory": False}
    return {**defaults, **recipe}


def lora_config(job: Job, task_type: str) -> Any:
    """The recipe's LoRA as PEFT wants it, or None: full-parameter training, or an adapter that is trained further."""
    if job.source.adapter:
        say(f"training goes on with the adapter in {job.source.adapter}; the recipe's lora_* keys are not used")
        return None
    return lora_of(job.model_args, whole_config(job.source), task_type)


def reference(job: Job) -> Any:
    """The frozen copy of a policy that is trained whole; None for one with an adapter, which has its reference below.

    TRL would load it by itself, but not at the recipe's revision, and under FSDP in pieces on all GPUs.
    """
    if job.model_args.use_peft or job.source.adapter:
        return None
    return load_causal_lm(job.source, job.model_args)


def make_trainer(trainer_class: Any, job: Job, model: Any, **arguments: Any) -> Any:
    """One of TRL's trainers. It looks at the recipe and the data once more: raises BadInput for what it finds."""
    import torch

    trls_file = sharded() or trainer_class.__module__.startswith("trl.")  # and not our cache
    if getattr(job.args, "precompute_ref_log_probs", False) and job.args.world_size > 1 and trls_file:
        raise BadInput(
            f"{job.where}: key `precompute_ref_log_probs`: TRL keeps what it computes in a file that other processes"
            " can't find; take the key out"
        )
    folder = Path(job.args.output_dir)
    there_already = folder.exists()
    weights = {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}
    try:
        trainer = trainer_class(model=model, args=job.args, processing_class=job.tokenizer, **arguments)
        check_strategy(trainer.accelerator)
    except (ImportError, RuntimeError, ValueError) as error:
        if isinstance(error, RuntimeError) and "installed" not in str(error):  # of a logger that `report_to` names
            raise
        if not there_already and folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()  # transformers makes it
        raise BadInput(f"{job.where}: {one_line(error)}") from None
    quantised = job.model_args.load_in_4bit or job.model_args.load_in_8bit
    if quantised and not job.args.bf16 and weight_dtype(job.model_args) == torch.float32:
        for name, parameter in trainer.model.named_parameters():
            if parameter.requires_grad and parameter.dtype == torch.bfloat16:  # TRL's, whatever the rest is in
                parameter.data = weights.get(name, parameter.data).float()
    return trainer


def one_line(error: Exception) -> str:
    """What an error of a library says, without its line breaks."""
    return " ".join(str(error).split())
