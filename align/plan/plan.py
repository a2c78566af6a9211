"""`align plan`: what a run will take, said before anything is loaded: memory of each role, time, disk, cost, advice.

Of models only config.json and adapter_config.json are read, of data the lengths. How the bytes are found stands in
sizes.py, the seconds in time.py.
"""

import copy
import importlib
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch

from align.config import parse
from align.models.load import ModelSource, find_model, whole_config
from align.plan import sizes
from align.plan import time as plan_time
from align.plan.cards import Card, card_of_driver, find_card
from align.plan.data import Texts, texts_of
from align.plan.disk import Disk, disk_of, steps_between_checkpoints
from align.plan.parts import MOMENTS, Device, Part, adapter_config, bits_of, empty
from align.plan.ppo import ppo_parts
from align.plan.sharing import Gathered, gathered, share, traffic
from align.plan.trainers import trainer_parts
from align.run import strategies
from align.run.launch import asked_of, unconfigured
from preferences.errors import BadInput

_CUDA = 600_000_000  # bytes of CUDA's context, kernels and workspaces; differs by GPU and version
_FREE = 0.05  # of a GPU's memory, which PyTorch's allocator loses to pieces that nothing fits into
_LOADED = "accelerate bitsandbytes datasets matplotlib.pyplot peft transformers.generation.utils trl"
_UNPLANNED = {
    "rloo": "`rloo` and `grpo` are TRL's own loops; a PPO recipe with the same model, reward runs and lengths bounds"
    " their memory",
    "evaluate": "`evaluate` holds one model at a time, sampling; plan the PPO recipe: its rollouts are no smaller",
}


class Asked(NamedTuple):
    """A checked recipe, and where it is to run."""

    verb: str
    args: Any  # the trainer's config, or PPOConfig
    model_args: Any  # trl.ModelConfig
    source: ModelSource
    texts: Texts
    device: Device
    recompute: bool
    strategy: str  # one of strategies.STRATEGIES
    processes: int
    card: Card | None
    memory: float | None  # bytes of the device; None: not known
    steps: dict[Any, Any]  # what was found out about passes, by all that it depends on

    @property
    def kind(self) -> str:
        return strategies.kind_of(self.model_args, self.source.adapter is not None)

    @property
    def room(self) -> float | None:
        """Bytes that a run may take."""
        return None if self.memory is None else self.memory * (1 - _FREE)

    def but(self, *, model: Mapping[str, Any] | None = None, **changed: Any) -> "Asked":
        """The same with other fields, keys of the trainer's config, or (`model`) keys of the model's."""
        args, model_args = copy.copy(self.args), copy.copy(self.model_args)
        for name in set(changed) - set(self._fields):
            setattr(args, name, changed.pop(name))
        for name, value in (model or {}).items():
            setattr(model_args, name, value)
        return self._replace(args=args, model_args=model_args, **changed)


class Memory(NamedTuple):
    """What a run takes on each device."""

    parts: list[Part]
    trained: int  # bytes of the weights that are trained
    units: Gathered

    def at(self, when: str) -> int:
        """Bytes of the parts of one moment."""
        return sum(part.bytes for part in self.parts if part.when == when)

    @property
    def largest(self) -> str:
        """The moment that takes most."""
        return max(("learning", *MOMENTS), key=self.at)

    @property
    def total(self) -> int:
        """Bytes at that moment, with what is there throughout and the libraries."""
        return self.at("throughout") + self.at(self.largest) + self.at("libraries")


class Plan(NamedTuple):
    """What a run takes."""

    asked: Asked
    memory: Memory
    work: plan_time.Work
    time: plan_time.Time | None  # None: the device's speed is not known
    disk: Disk
    price: float | None
    advice: list[Any]  # plan_advice.Advice
    notes: list[str]

    @property
    def gpu_hours(self) -> float | None:
        return None if self.time is None else self.time.total / 3600 * self.asked.processes

    @property
    def cost(self) -> float | None:
        return None if self.price is None or self.gpu_hours is None else self.price * self.gpu_hours


def plan_run(
    recipe: dict[str, Any],
    where: str,
    schemas: Mapping[str, tuple[type, ...]],
    verb: str | None = None,
    *,
    config: str | None = None,
    gpu: str | None = None,
    gpu_memory: float | None = None,
    device: Device | None = None,
    accelerate_config: str | None = None,
    num_processes: int | None = None,
    price: float | None = None,
) -> Plan:
    """The plan of a recipe. `schemas`: by verb, the dataclasses of its keys, its own or TRL's first, then ModelConfig.

    `verb` None: the one whose keys the recipe has. `config`: a folder whose config.json is the model's. The rest says
    where it is to run; None: here. Raises BadInput for what is wrong with the recipe, its models or its data.
    """
    from align.plan.advice import advise

    verb = verb or find_verb(set(recipe), where, schemas)
    if verb not in schemas:
        known = ", ".join(schemas)
        raise BadInput(f"{where}: align plan knows {known}. {_UNPLANNED.get(verb.replace('grpo', 'rloo'), '')}".strip())
    device, card, memory = _hardware(recipe, gpu, gpu_memory, device)
    strategy, processes = "one", 1
    if accelerate_config is not None:
        strategy, processes = asked_of(accelerate_config, num_processes)
        strategy = "one" if processes == 1 and strategy == "ddp" else strategy
    elif num_processes is not None:
        raise unconfigured("num_processes")
    notes: list[str] = []
    asked = _asked(recipe, where, schemas[verb], verb, config, device, strategy, processes, card, memory)
    strategies.refuse(verb, asked.kind, strategy)
    libraries = _libraries(device)  # now, before what follows takes memory, too
    found = memory_of(asked, notes)
    found.parts.append(libraries)
    asked.steps["libraries"] = libraries
    work = plan_time.work_of(verb, asked.args, asked.texts, processes)
    taken = time_of(asked, work)
    numbers, state = (
        asked.steps["numbers"],
        sum(part.bytes for part in found.parts if part.kind == "optimiser" and part.when == "throughout"),
    )
    every = steps_between_checkpoints(asked.args, work.steps, ppo=verb == "ppo")
    cached = round(4 * asked.texts.rows * asked.texts.responses) if verb in ("dpo", "kto") else 0
    whole_state = state * (processes if strategy not in ("one", "ddp") else 1)
    disk = disk_of(
        asked.source, numbers, found.trained, whole_state, every, work.steps, asked.args.save_total_limit, cached
    )
    _note(asked, recipe.get("dataset_name"), notes)
    advice = advise(asked, found.total) if device == "gpu" and memory is not None else []
    return Plan(asked, found, work, taken, disk, price, advice, list(dict.fromkeys(notes)))


def _asked(
    recipe: dict[str, Any],
    where: str,
    schemas: tuple[type, ...],
    verb: str,
    config: str | None,
    device: Device,
    *place: Any,
) -> Asked:
    given = {"dtype": "auto", **recipe}
    if verb != "ppo" and not torch.cuda.is_available():  # TRL's would refuse a GPU's settings on a machine without one
        given |= {"use_cpu": True, "bf16": False, "fp16": False}
    args, model_args, *more = parse(given, schemas, where)
    if not model_args.model_name_or_path:
        raise BadInput(f"{where}: the key `model_name_or_path` is missing; name a hub model or a model folder")
    source = _source(model_args, config)
    if (model_args.load_in_4bit or model_args.load_in_8bit) and not (source.adapter or model_args.use_peft):
        raise BadInput(f"{where}: a model in 4 or 8 bits can't be trained whole; add `use_peft: true`")
    if verb == "ppo":
        data, recompute = args, args.activation_checkpointing
    else:
        data = more[0]
        args.bf16 = device == "gpu" and recipe.get("bf16", not recipe.get("fp16"))  # TRL's default
        recompute = recipe.get("activation_checkpointing", recipe.get("gradient_checkpointing", device == "gpu"))
    texts = texts_of(verb, args, data, source)
    strategy, processes, card, memory = place
    return Asked(verb, args, model_args, source, texts, device, recompute, strategy, processes, card, memory, {})


def _source(model_args: Any, config: str | None) -> ModelSource:
    if config is None:
        source = find_model(model_args.model_name_or_path, model_args.model_revision)
        try:
            whole_config(source)
        except BadInput as error:
            if Path(source.base).is_dir():
                raise
            raise BadInput(f"{error}; --config FOLDER takes the shape from a config.json instead") from None
        return source
    if not (Path(config) / "config.json").is_file():
        raise BadInput(f"--config {config}: no config.json there; name the folder that it is in")
    return ModelSource(model_args.model_name_or_path, str(Path(config)), None)


def _hardware(
    recipe: dict[str, Any], gpu: str | None, gpu_memory: float | None, device: Device | None
) -> tuple[Device, Card | None, float | None]:
    """(kind of device, card where it is known, bytes of memory where they are)."""
    if gpu is not None or gpu_memory is not None:
        if device == "cpu":
            raise BadInput("--device cpu and --gpu contradict each other; give one of them")
        card = None if gpu is None else find_card(gpu)
        return "gpu", card, (gpu_memory or (card.memory if card else 0)) * 1e9
    here = torch.cuda.is_available() and not recipe.get("use_cpu", False)
    device = device or ("gpu" if here else "cpu")
    if device == "gpu":
        if not torch.cuda.is_available():
            return "gpu", None, None
        properties = torch.cuda.get_device_properties(0)
        return "gpu", card_of_driver(properties.name), float(properties.total_memory)
    return "cpu", None, float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def find_verb(keys: set[str], where: str, schemas: Mapping[str, tuple[type, ...]]) -> str:
    """The verb whose keys these are; of several, the one that the recipe's file or folder is named after.

    Raises BadInput when that leaves it open.
    """
    path = Path(where)
    other = next((verb for verb in ("rloo", "grpo", "evaluate") if verb in (path.stem, path.parent.name)), None)
    unknown = {
        verb: len(keys - {field.name for schema in those for field in fields(schema)})
        for verb, those in schemas.items()
    }
    if other and min(unknown.values()) > 0:
        return other
    fitting = [verb for verb in schemas if unknown[verb] == min(unknown.values())]
    named = [verb for verb in fitting if verb in (path.stem, path.parent.name)]
    if len(named or fitting) > 1:
        raise BadInput(f"{where}: may be a recipe of {', '.join(fitting)}; say of which by --verb")
    return (named or fitting)[0]


# --- memory and time ----------------------------------------------------------------------------------------------


def memory_of(asked: Asked, notes: list[str] | None = None) -> Memory:
    """What one process takes, without the libraries unless they were counted before."""
    said: list[str] = []
    if asked.verb == "ppo":
        parts, trained = ppo_parts(
            asked.args,
            asked.model_args,
            asked.source,
            asked.device,
            said if notes is None else notes,
            asked.texts,
            asked.processes,
            asked.steps,
        )
        units = gathered(empty(asked.source, asked.model_args, asked.device), bits_of(asked.model_args), False, 2)
        size = sizes.size(trained)
    else:
        parts, (numbers, size), units = trainer_parts(
            asked.verb,
            asked.args,
            asked.model_args,
            asked.source,
            asked.device,
            asked.recompute,
            asked.texts,
            asked.strategy,
            asked.processes,
            asked.steps,
        )
        packed = bits_of(asked.model_args) is not None
        parts = share(parts, asked.strategy, asked.processes, units, numbers, packed=packed)
    libraries = [asked.steps["libraries"]] if "libraries" in asked.steps else []
    return Memory([*parts, *libraries], size, units)


def time_of(asked: Asked, work: plan_time.Work | None = None) -> plan_time.Time | None:
    """The seconds of a run; None on a GPU that is not in the table."""
    work = work or plan_time.work_of(asked.verb, asked.args, asked.texts, asked.processes)
    model = empty(asked.source, asked.model_args, asked.device, score=asked.verb == "reward")
    asked.steps["numbers"] = plan_time.parameters(model)
    if asked.device == "gpu" and asked.card is None:
        return None
    whole, bits = asked.kind == "full", bits_of(asked.model_args)
    units, shape = gathered(model, bits, False, 2), plan_time.shape_of(model)
    if not whole:
        shape = shape._replace(adapter=_adapter_numbers(asked, model))
    trained = (asked.steps["numbers"] if whole else shape.adapter) * 4
    micro = max(1, round(work.micro_batches / work.steps))
    sent = traffic(asked.strategy, asked.processes, trained, units, micro) * work.steps if asked.processes > 1 else 0.0
    if asked.device == "cpu" and "cpu" not in asked.steps:
        asked.steps["cpu"] = plan_time.cpu_rate()
    return plan_time.seconds(
        shape,
        work,
        asked.card,
        processes=asked.processes,
        whole=whole,
        recompute=asked.recompute,
        bits=bits,
        sent=sent,
        engine=getattr(asked.args, "rollout_engine", "generate"),
        cpu=asked.steps.get("cpu", 0.0),
    )


def _adapter_numbers(asked: Asked, model: Any) -> int:
    """Of the adapter that a role has, put on `model`."""
    task = "SEQ_CLS" if asked.verb == "reward" else "CAUSAL_LM"
    config = adapter_config(asked.source, copy.copy(asked.model_args), task)
    return sizes.count(sizes.adapter_parameters(sizes.put_adapters_on(model, {"role": config}, ["role"]), "role"))


def _libraries(device: Device) -> Part:
    """Python, torch and the rest. On a CPU what they take in this process, which loads them for it."""
    status = Path("/proc/self/status")
    if device == "gpu" or not status.is_file():
        return Part("libraries", "CUDA, a usual value" if device == "gpu" else "a usual value", _CUDA, "libraries")
    for module in _LOADED.split():
        importlib.import_module(module)
    resident = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return Part("libraries", "Python, torch and others", int(resident.split()[1]) * 1024, "libraries")


def _note(asked: Asked, data: Any, notes: list[str]) -> None:
    """What holds only under some assumption."""
    if not asked.texts.known:
        here = bool(data) and Path(str(data)).expanduser().exists()
        what = "The model's tokenizer is not here to read the data with" if here else "The data is not here"
        notes.append(
            f"{what}: {asked.texts.rows:,} rows are assumed, of {asked.texts.prompt:.0f} and"
            f" {asked.texts.responses:.0f} tokens on average (prompt, and all that follows it)."
        )
    if asked.device == "cpu":
        notes.append(
            "malloc keeps some of what is freed, and the process may grow to twice this; with"
            " MALLOC_MMAP_THRESHOLD_=65536 in its environment it does not."
        )
        if bits_of(asked.model_args):
            notes.append(
                "The file of the whole weights stays mapped and counts as resident; its pages are free when needed."
            )
    if asked.card is not None and not asked.card.bf16:
        notes.append(f"The {asked.card.name} has no bf16: set `bf16: false`, `fp16: true` and `dtype: float16`.")
