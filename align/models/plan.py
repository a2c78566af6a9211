"""`align plan`: the memory that each role of a recipe will take, said before anything is loaded.

Of models only config.json and adapter_config.json are read. How the bytes are found stands in sizes.py.
"""

import importlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import torch

from align.config import parse
from align.data.lengths import context_length
from align.models import sizes
from align.models.load import ModelSource, find_model, load_config
from align.models.plan_parts import (
    ASSUMED_PROMPT,
    MOMENTS,
    Device,
    Part,
    adapter_config,
    adapter_part,
    base_part,
    bits_of,
    empty,
    learning_parts,
    training_parts,
    whole_part,
)
from align.models.plan_ppo import ppo_parts
from preferences.errors import BadInput

_CUDA = 600_000_000  # bytes of CUDA's context, kernels and workspaces; differs by GPU and version
_TILE = (4096, 32768)  # tokens, words: the logits that TRL's vocabulary head makes at once
_LOADED = "accelerate bitsandbytes datasets matplotlib.pyplot peft transformers.generation.utils trl"


class Plan(NamedTuple):
    """What a run takes on each device."""

    verb: str
    device: Device
    parts: list[Part]
    longest: tuple[int, str]  # tokens of the longest prompt, for trainers of a row; and where that is from
    notes: list[str]

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


def plan_run(
    recipe: dict[str, Any],
    where: str,
    schemas: Mapping[str, tuple[type, ...]],
    verb: str | None = None,
    device: Device | None = None,
) -> Plan:
    """The plan of a recipe. `schemas`: by verb, the dataclasses of its keys, its own or TRL's first, then ModelConfig.

    `verb` None: the one whose keys the recipe has. `device` None: what is here. Raises BadInput for what is wrong with
    the recipe, its models or its data.
    """
    here = torch.cuda.is_available() and not recipe.get("use_cpu", False)
    device = device or ("gpu" if here else "cpu")
    verb = verb or find_verb(set(recipe), where, schemas)
    given = {"dtype": "auto", **recipe}
    if verb != "ppo" and not torch.cuda.is_available():  # TRL's would refuse a GPU's settings on a machine without one
        given |= {"use_cpu": True, "bf16": False, "fp16": False}
    args, model_args, *_ = parse(given, schemas[verb], where)
    if not model_args.model_name_or_path:
        raise BadInput(f"{where}: the key `model_name_or_path` is missing; name a hub model or a model folder")
    source = find_model(model_args.model_name_or_path, model_args.model_revision)
    if (model_args.load_in_4bit or model_args.load_in_8bit) and not (source.adapter or model_args.use_peft):
        raise BadInput(f"{where}: a model in 4 or 8 bits can't be trained whole; add `use_peft: true`")
    libraries = _libraries(device)  # now, before what follows takes memory, too
    notes: list[str] = []
    if verb == "ppo":
        parts, longest = ppo_parts(args, model_args, source, device, notes)
    else:
        args.bf16 = device == "gpu" and recipe.get("bf16", not recipe.get("fp16"))  # TRL's default
        recompute = recipe.get("activation_checkpointing", recipe.get("gradient_checkpointing", device == "gpu"))
        parts, longest = _trainer(verb, args, model_args, source, device, recompute)
    if device == "cpu":
        notes.append(
            "malloc keeps some of what is freed, and the process may grow to twice this; with"
            " MALLOC_MMAP_THRESHOLD_=65536 in its environment it does not."
        )
        if bits_of(model_args):
            notes.append(
                "The file of the whole weights stays mapped and counts as resident; its pages are free when needed."
            )
    return Plan(verb, device, [*parts, libraries], longest, notes)


def find_verb(keys: set[str], where: str, schemas: Mapping[str, tuple[type, ...]]) -> str:
    """The verb whose keys these are; of several, the one that the recipe's file or folder is named after.

    Raises BadInput when that leaves it open.
    """
    unknown = {
        verb: len(keys - {field.name for schema in those for field in fields(schema)})
        for verb, those in schemas.items()
    }
    fitting = [verb for verb in schemas if unknown[verb] == min(unknown.values())]
    path = Path(where)
    named = [verb for verb in fitting if verb in (path.stem, path.parent.name)]
    if len(named or fitting) > 1:
        raise BadInput(f"{where}: may be a recipe of {', '.join(fitting)}; say of which by --verb")
    return (named or fitting)[0]


# --- TRL's trainers -----------------------------------------------------------------------------------------------


def _trainer(
    verb: str, args: Any, model_args: Any, source: ModelSource, device: Device, recompute: bool
) -> tuple[list[Part], tuple[int, str]]:
    """The parts of a run of TRL's trainers, and the longest row."""
    role = "reward" if verb == "reward" else "policy"
    model = empty(source, model_args, device, score=verb == "reward")
    whole = source.adapter is None and not model_args.use_peft
    if whole:
        parts, trained = [whole_part(role, model)], list(model.parameters())
    else:
        adapters = {role: adapter_config(source, model_args, "SEQ_CLS" if verb == "reward" else "CAUSAL_LM")}
        if verb in ("dpo", "kto") and source.adapter:
            adapters["reference"] = adapters[role]
        model = sizes.put_adapters_on(model, adapters, [role])
        parts, trained = (
            [base_part(model, model_args), adapter_part(model, role)],
            sizes.adapter_parameters(model, role),
        )
    if verb in ("dpo", "kto"):
        reference = Part("reference", "none" if whole else "the base without adapters", 0)
        if whole and not args.precompute_ref_log_probs:
            reference = whole_part("reference", model)
        elif source.adapter:
            reference = adapter_part(model, "reference")
        parts.append(reference)
    parts += training_parts(role, trained, device, str(getattr(args.optim, "value", args.optim)))

    config = load_config(source)
    context = context_length(config)
    limits = [(limit, name) for limit, name in ((args.max_length, "max_length"), (context, "the context")) if limit]
    length, name = min(limits) if limits else (ASSUMED_PROMPT, "assumed: set max_length")
    rows = args.per_device_train_batch_size * (1 if verb in ("sft", "kto") else 2)
    more = sizes.largest_linear_size(model) if bits_of(model_args) else 0
    if verb != "reward":
        logits = min(rows * length, _TILE[0]) * min(config.vocab_size, _TILE[1])
        more += logits * (2 if device == "gpu" else 33)  # in bf16 in one kernel; eight steps of it in fp32, and a mask
    step = sizes.learning_size(
        model.train(), rows, length, 0, recompute=recompute, autocast=bool(args.bf16), masked=True
    )
    return parts + learning_parts(role, step, rows, length, recompute, more), (length, name)


def _libraries(device: Device) -> Part:
    """Python, torch and the rest. On a CPU what they take in this process, which loads them for it."""
    status = Path("/proc/self/status")
    if device == "gpu" or not status.is_file():
        return Part("libraries", "CUDA, a usual value" if device == "gpu" else "a usual value", _CUDA, "libraries")
    for module in _LOADED.split():
        importlib.import_module(module)
    resident = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return Part("libraries", "Python, torch and others", int(resident.split()[1]) * 1024, "libraries")


# --- what is shown ------------------------------------------------------------------------------------------------


def as_table(plan: Plan) -> str:
    """A plan in words, in GB (10^9 bytes)."""
    rows = [("role", "what", "GB")]
    for when in ("throughout", *MOMENTS, "libraries"):
        parts = [part for part in plan.parts if part.when == when]
        if not parts or (when == "stepping" and plan.largest != when):
            continue
        rows += [(part.role, part.what, f"{part.bytes / 1e9:.2f}") for part in parts]
        if when != "libraries":
            name = when if when == "throughout" else f"while {when}"
            rows.append(("", f"= {name}{' (the most)' if when == plan.largest else ''}", f"{plan.at(when) / 1e9:.2f}"))
    rows.append(("total", f"throughout, while {plan.largest}, and libraries", f"{plan.total / 1e9:.2f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = [f"{role:<{widths[0]}}  {what:<{widths[1]}}  {size:>{widths[2]}}" for role, what, size in rows]
    device = "each GPU" if plan.device == "gpu" else "a CPU"
    longest = f"Longest {'prompt' if plan.verb == 'ppo' else 'row'}: {plan.longest[0]} tokens ({plan.longest[1]})."
    return "\n".join([f"align {plan.verb} on {device}", "", *table, "", longest, *plan.notes])


def as_json(plan: Plan) -> str:
    """A plan for scripts, in bytes."""
    document = {
        "format": 1,
        "verb": plan.verb,
        "device": plan.device,
        "parts": [part._asdict() for part in plan.parts],
        "moments": {when: plan.at(when) for when in ("throughout", *MOMENTS, "libraries")},
        "largest": plan.largest,
        "total": plan.total,
        "longest": {"tokens": plan.longest[0], "from": plan.longest[1]},
        "notes": plan.notes,
    }
    return json.dumps(document, indent=1)
