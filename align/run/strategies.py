"""What runs in which way: a stage, a kind and a strategy work, and how that was tested, or are refused, and why.

docs/distributed.md shows this table; a test compares the two. Nothing here loads a library: verbs ask before anything
slow.
"""

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from preferences.errors import BadInput

STAGES = ("sft", "reward", "dpo", "kto", "rloo", "grpo", "ppo", "evaluate")
KINDS = {"lora": "LoRA", "lora-4bit": "4-bit LoRA", "lora-8bit": "8-bit LoRA", "full": "full"}
STRATEGIES = {"one": "one process", "ddp": "DDP", "fsdp2": "FSDP2", "zero2": "ZeRO-2", "zero3": "ZeRO-3"}


class Cell(NamedTuple):
    """One entry of the table: works, and how that was tested; or is refused, and why."""

    works: bool
    why: str


def _works(how: str) -> Cell:
    return Cell(True, how)


def _no(why: str) -> Cell:
    return Cell(False, why)


Row = Mapping[str, Cell]  # by strategy

# How something was tested.
_CPU = _works("on a CPU")
_TWO = _works("on a CPU with two processes, equal to one")
_TWO_DRAW = _works("on a CPU with two processes, each of which draws responses of its own")
_SHARDED = _works("on a CPU with two processes, equal to one; not run on a GPU")

# Why something is refused.
_WHOLE_ROLES = _no("PPO keeps whole copies of its roles in every process; take multi_gpu")
_INT8_SHARDED = _no("bitsandbytes keeps 8-bit weights in a form that can't be cut into shards; take load_in_4bit: true")
_SAMPLES = _no("every process samples from the whole model; take multi_gpu")

_TRAINERS: dict[str, Row] = {
    "lora": {"one": _CPU, "ddp": _TWO, "fsdp2": _SHARDED, "zero2": _SHARDED, "zero3": _SHARDED},
    "lora-4bit": {"one": _CPU, "ddp": _TWO, "fsdp2": _SHARDED, "zero2": _SHARDED, "zero3": _SHARDED},
    "lora-8bit": {"one": _CPU, "ddp": _TWO, "fsdp2": _INT8_SHARDED, "zero2": _SHARDED, "zero3": _INT8_SHARDED},
    "full": {"one": _CPU, "ddp": _TWO, "fsdp2": _SHARDED, "zero2": _SHARDED, "zero3": _SHARDED},
}
_PPO: dict[str, Row] = {
    kind: {"one": _CPU, "ddp": _TWO, "fsdp2": _WHOLE_ROLES, "zero2": _WHOLE_ROLES, "zero3": _WHOLE_ROLES}
    for kind in KINDS
}
_EVALUATE: dict[str, Row] = {  # an adapter is put on its base whole, in whatever it was trained on
    kind: {"one": _CPU, "ddp": _TWO, "fsdp2": _SAMPLES, "zero2": _SAMPLES, "zero3": _SAMPLES} for kind in KINDS
}
_ONLINE: dict[str, Row] = {
    kind: {"one": _CPU, "ddp": _TWO_DRAW, "fsdp2": _SAMPLES, "zero2": _SAMPLES, "zero3": _SAMPLES} for kind in KINDS
}

TABLE: dict[str, Mapping[str, Row]] = {
    "sft": _TRAINERS,
    "reward": _TRAINERS,
    "dpo": _TRAINERS,
    "kto": _TRAINERS,
    "rloo": _ONLINE,
    "grpo": _ONLINE,
    "ppo": _PPO,
    "evaluate": _EVALUATE,
}


def refuse(stage: str, kind: str, strategy: str) -> None:
    """Raise BadInput where this stage does not run so; do nothing where it does."""
    cell = TABLE[stage][kind][strategy]
    if not cell.works:
        raise BadInput(f"`align {stage}`, {KINDS[kind]}, under {STRATEGIES[strategy]}: {cell.why}")


def kind_of(model_args: Any, adapter: bool) -> str:
    """Which of KINDS a recipe's trl.ModelConfig asks for; `adapter`: its model is an adapter, which is trained on."""
    if not (model_args.use_peft or adapter):
        return "full"
    return "lora-4bit" if model_args.load_in_4bit else "lora-8bit" if model_args.load_in_8bit else "lora"


def asked_strategy() -> str:
    """Which of STRATEGIES this process was started for, as `align VERB --accelerate_config` was told, or as torchrun or
    accelerate's own launcher say in their variables. Raises BadInput for one that is none of them.
    """
    told = os.environ.get("CONCORD_STRATEGY")
    if told:
        return told
    if _is_on("ACCELERATE_USE_DEEPSPEED"):
        return zero_of(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE"))
    if _is_on("ACCELERATE_USE_FSDP"):
        return fsdp_of(os.environ.get("FSDP_VERSION"))
    return "one" if int(os.environ.get("WORLD_SIZE", "1")) == 1 else "ddp"


def zero_of(stage: Any) -> str:
    """The strategy of a DeepSpeed ZeRO stage. Raises BadInput for one that is not in the table."""
    if str(stage) not in ("2", "3"):
        raise BadInput(
            f"DeepSpeed with `zero_stage: {stage}`: Concord knows 2 and 3; take multi_gpu in place of the others"
        )
    return f"zero{stage}"


def fsdp_of(version: Any) -> str:
    """The strategy of a version of FSDP. Raises BadInput for the first one, which PyTorch has retired."""
    if str(version) != "2":
        raise BadInput(
            f"FSDP with `fsdp_version: {version}`: Concord knows FSDP2; add `fsdp_version: 2` to fsdp_config"
        )
    return "fsdp2"


def _is_on(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("true", "1")
