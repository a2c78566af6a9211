"""`align plan`: the memory that each role of a recipe will take, said before anything is loaded.

Of models only config.json and adapter_config.json are read. How the bytes are found stands in sizes.py.
"""

import importlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from align.config import parse
from align.data.lengths import context_length, prompts_that_fit, token_ids
from align.data.load import load_prompts
from align.models import sizes
from align.models.load import ModelSource, find_model, load_config, load_tokenizer, weight_dtype
from align.models.roles import stands_on
from preferences.errors import BadInput

if TYPE_CHECKING:
    from peft import PeftConfig

Device = Literal["gpu", "cpu"]
MOMENTS = ("rolling out", "learning", "stepping")  # one after the other: what one takes is free for the next

_ASSUMED_PROMPT = 512  # tokens, where neither the recipe nor data at hand say
_CUDA = 600_000_000  # bytes of CUDA's context, kernels and workspaces; differs by GPU and version
_TILE = (4096, 32768)  # tokens, words: the logits that TRL's vocabulary head makes at once
_LOADED = "accelerate bitsandbytes datasets matplotlib.pyplot peft transformers.generation.utils trl"
_SHORT = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}


class Part(NamedTuple):
    """One line of a plan."""

    role: str
    what: str
    bytes: int
    when: str = "throughout"  # or one of MOMENTS, or "libraries"


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
        parts, longest = _ppo(args, model_args, source, device, notes)
    else:
        args.bf16 = device == "gpu" and recipe.get("bf16", not recipe.get("fp16"))  # TRL's default
        recompute = recipe.get("activation_checkpointing", recipe.get("gradient_checkpointing", device == "gpu"))
        parts, longest = _trainer(verb, args, model_args, source, device, recompute)
    if device == "cpu":
        notes.append(
            "malloc keeps some of what is freed, and the process may grow to twice this; with"
            " MALLOC_MMAP_THRESHOLD_=65536 in its environment it does not."
        )
        if _bits(model_args):
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


# --- PPO ----------------------------------------------------------------------------------------------------------


def _ppo(
    args: Any, model_args: Any, source: ModelSource, device: Device, notes: list[str]
) -> tuple[list[Part], tuple[int, str]]:
    """The parts of a PPO run, whose roles are those of align/models/roles.py, and its longest prompt."""
    rewards = [_reward(name, source, notes) for name in args.reward_model_path or ()]
    whole = source.adapter is None and not model_args.use_peft
    found = _whole_roles if whole else _roles_on_one_base
    parts, trained, policy, value = found(args, model_args, source, rewards, device)
    shared = args.value == "shared"
    parts += _training("policy" if shared and not whole else "policy and value", trained, device)

    longest = _longest_prompt(args, source)
    tokens = longest[0] + args.response_length
    autocast = whole and device == "gpu" and _dtype(model_args, device) == torch.float32
    unpacked = sizes.largest_linear_size(policy()) if _bits(model_args) else 0
    rows = min(args.per_device_rollout_batch_size, max(args.batch_size, args.eval_prompts if args.eval_steps else 0))
    sampling = sizes.sampling_size(policy(), rows, longest[0], args.response_length, autocast=autocast)
    cache = f"key-value cache, {rows} x ({longest[0]} + {args.response_length}) tokens"
    rest = sampling.peak - sampling.cache + unpacked
    parts.append(Part("policy", cache, sampling.cache, "rolling out"))
    parts.append(Part("policy", "reading prompts, or drawing tokens", rest, "rolling out"))

    rows = min(args.per_device_train_batch_size, args.batch_size // args.num_mini_batches)
    step = partial(
        sizes.learning_size, rows=rows, length=tokens, recompute=args.activation_checkpointing, autocast=autocast
    )
    steps = {"policy": step(policy(), scored=args.response_length, entropy=args.entropy_coef > 0)}
    if value is not None:
        steps["value"] = step(value(), scored=0)
    role = max(steps, key=lambda role: steps[role].peak)
    name = "policy, then value" if not shared else "policy"
    parts += _learning(name, steps[role], rows, tokens, args.activation_checkpointing, unpacked)
    return parts, longest


class _Reward(NamedTuple):
    """A reward run; one that is not there yet is taken for one on the policy's base, its adapter like the policy's."""

    source: ModelSource
    there: bool


def _reward(name: str, source: ModelSource, notes: list[str]) -> _Reward:
    try:
        found = find_model(name)
        load_config(found)
        return _Reward(found, True)
    except BadInput:
        if Path(name).exists():
            raise
    notes.append(f"{name} is not there: counted as a reward run on the policy's base.")
    return _Reward(ModelSource(name, source.base, name), False)


def _roles_on_one_base(
    args: Any, model_args: Any, source: ModelSource, rewards: list[_Reward], device: Device
) -> tuple[list[Part], list[torch.Tensor], Any, Any]:
    """(parts, what is trained, a maker of the policy, None): the value model is built as the policy is."""
    policy = _adapter(source, model_args, "CAUSAL_LM")
    adapters = {"policy": policy}
    if source.adapter:
        adapters["reference"] = policy
    here = {}  # reward runs on the same base, by the name of their adapter
    for number, reward in enumerate(rewards, start=1):
        if stands_on(reward.source, source):
            here[f"reward_{number}"] = _adapter(reward.source) if reward.there else policy
    adapters |= here
    if args.value == "separate":  # it starts as the first reward run
        adapters["value"] = next(iter(here.values()), policy)
    trained = [name for name in ("policy", "value") if name in adapters]

    def make() -> Any:
        return sizes.put_adapters_on(_empty(source, model_args, device), adapters, trained)

    model = make()
    parts = [_base(model, model_args), _adapter_part(model, "policy")]
    parts.append(_adapter_part(model, "value") if "value" in adapters else Part("value", "a head on the policy", 0))
    without = Part("reference", "the base without adapters", 0)
    parts.append(_adapter_part(model, "reference") if source.adapter else without)
    for number, reward in enumerate(rewards, start=1):
        name, role = f"reward_{number}", _reward_role(number, rewards)
        parts.append(_adapter_part(model, name, role) if name in here else _own_reward(reward, role, device))
    return parts, [p for name in trained for p in sizes.adapter_parameters(model, name)], make, None


def _whole_roles(
    args: Any, model_args: Any, source: ModelSource, rewards: list[_Reward], device: Device
) -> tuple[list[Part], list[torch.Tensor], Any, Any]:
    """(parts, what is trained, a maker of the policy, a maker of the value model or None where it is no other)."""
    make, make_value = partial(_empty, source, model_args, device), None
    policy = make()
    trained = list(policy.parameters())
    parts = [_whole("policy", policy)]
    if args.value == "shared":
        parts.append(Part("value", "a head on the policy", 0))
    else:
        make_value = make
        if rewards and (
            not rewards[0].there or load_tokenizer(rewards[0].source).get_vocab() == load_tokenizer(source).get_vocab()
        ):
            make_value = partial(sizes.empty_model, rewards[0].source._replace(adapter=None), torch.float32, score=True)
        value = make_value()
        parts.append(_whole("value", value))
        trained += list(getattr(value, value.base_model_prefix).parameters())  # its head has no part in it
    parts.append(_whole("reference", policy) if args.use_reference else Part("reference", "none", 0))
    for number, reward in enumerate(rewards, start=1):
        parts.append(_own_reward(reward, _reward_role(number, rewards), device))
    return parts, trained, make, make_value


def _reward_role(number: int, rewards: list[_Reward]) -> str:
    return f"reward {number}" if len(rewards) > 1 else "reward"


def _own_reward(reward: _Reward, role: str, device: Device) -> Part:
    """A reward run as a model of its own, loaded as `evaluate` loads it."""
    model = sizes.empty_model(reward.source, torch.bfloat16 if device == "gpu" else torch.float32, score=True)
    if reward.source.adapter and reward.there:
        model = sizes.put_adapters_on(model, {"reward": _adapter(reward.source)}, [])
    return _whole(role, model)


def _longest_prompt(args: Any, source: ModelSource) -> tuple[int, str]:
    """(tokens of the longest prompt that the run would take, where that is from). Nothing is downloaded for it."""
    context = context_length(load_config(source))
    room = None if context is None else context - args.response_length
    if room is not None and room < 1:
        raise BadInput(f"key `response_length`: {args.response_length} does not fit the model's context of {context}")
    if args.max_prompt_length is not None:
        return min(args.max_prompt_length, room or args.max_prompt_length), "max_prompt_length"
    if args.dataset_name and Path(args.dataset_name).expanduser().exists():
        tokenizer = load_tokenizer(source)
        prompts = load_prompts(args.dataset_name, args.dataset_train_split, args.dataset_config)
        lengths = [len(token_ids(tokenizer, prompt, generation=True)) for prompt in prompts]
        if room is not None and min(lengths) > room:
            prompts_that_fit(tokenizer, prompts, args.response_length, context, None, args.dataset_name)  # says so
        longest = max(length for length in lengths if room is None or length <= room)
        return longest, f"the longest of {len(prompts)} in {args.dataset_name}"
    return min(_ASSUMED_PROMPT, room or _ASSUMED_PROMPT), "assumed: set max_prompt_length, or have the data here"


# --- TRL's trainers -----------------------------------------------------------------------------------------------


def _trainer(
    verb: str, args: Any, model_args: Any, source: ModelSource, device: Device, recompute: bool
) -> tuple[list[Part], tuple[int, str]]:
    """The parts of a run of TRL's trainers, and the longest row."""
    role = "reward" if verb == "reward" else "policy"
    model = _empty(source, model_args, device, score=verb == "reward")
    whole = source.adapter is None and not model_args.use_peft
    if whole:
        parts, trained = [_whole(role, model)], list(model.parameters())
    else:
        adapters = {role: _adapter(source, model_args, "SEQ_CLS" if verb == "reward" else "CAUSAL_LM")}
        if verb in ("dpo", "kto") and source.adapter:
            adapters["reference"] = adapters[role]
        model = sizes.put_adapters_on(model, adapters, [role])
        parts, trained = [_base(model, model_args), _adapter_part(model, role)], sizes.adapter_parameters(model, role)
    if verb in ("dpo", "kto"):
        reference = Part("reference", "none" if whole else "the base without adapters", 0)
        if whole and not args.precompute_ref_log_probs:
            reference = _whole("reference", model)
        elif source.adapter:
            reference = _adapter_part(model, "reference")
        parts.append(reference)
    parts += _training(role, trained, device, str(getattr(args.optim, "value", args.optim)))

    config = load_config(source)
    context = context_length(config)
    limits = [(limit, name) for limit, name in ((args.max_length, "max_length"), (context, "the context")) if limit]
    length, name = min(limits) if limits else (_ASSUMED_PROMPT, "assumed: set max_length")
    rows = args.per_device_train_batch_size * (1 if verb in ("sft", "kto") else 2)
    more = sizes.largest_linear_size(model) if _bits(model_args) else 0
    if verb != "reward":
        logits = min(rows * length, _TILE[0]) * min(config.vocab_size, _TILE[1])
        more += logits * (2 if device == "gpu" else 33)  # in bf16 in one kernel; eight steps of it in fp32, and a mask
    step = sizes.learning_size(
        model.train(), rows, length, 0, recompute=recompute, autocast=bool(args.bf16), masked=True
    )
    return parts + _learning(role, step, rows, length, recompute, more), (length, name)


# --- parts --------------------------------------------------------------------------------------------------------


def _empty(source: ModelSource, model_args: Any, device: Device, *, score: bool = False) -> Any:
    """A recipe's model on the meta device, without adapters."""
    attention = "eager" if model_args.attn_implementation == "eager" else None
    return sizes.empty_model(source, _dtype(model_args, device), score=score, attention=attention)


def _dtype(model_args: Any, device: Device) -> torch.dtype:
    """What weights are held in: weight_dtype of align/models/load.py, for a device that need not be here."""
    if model_args.dtype not in (None, "auto"):
        return weight_dtype(model_args)
    return torch.bfloat16 if device == "gpu" and model_args.use_peft else torch.float32


def _bits(model_args: Any) -> int | None:
    return 4 if model_args.load_in_4bit else 8 if model_args.load_in_8bit else None


def _adapter(source: ModelSource, model_args: Any = None, task: str = "CAUSAL_LM") -> "PeftConfig":
    """The configuration of a model's adapter; of the recipe's, where the model has none."""
    from peft import PeftConfig
    from trl import get_peft_config

    if source.adapter:
        return PeftConfig.from_pretrained(source.adapter)
    model_args.lora_task_type = task
    model_args.lora_target_modules = model_args.lora_target_modules or "all-linear"
    if task == "SEQ_CLS":
        model_args.lora_modules_to_save = ["score"]
    return get_peft_config(model_args)


def _base(model: Any, model_args: Any) -> Part:
    """The frozen base under adapters."""
    bits, own = _bits(model_args), sizes.own_parameters(model)
    held = f"{bits} bits" if bits else _names(own)
    return Part(
        "base", f"{_many(own)} parameters, {held}", sizes.model_size(model, bits, model_args.use_bnb_nested_quant)
    )


def _whole(role: str, model: Any) -> Part:
    parameters = list(model.parameters())
    return Part(role, f"{_many(parameters)} parameters, {_names(parameters)}", sizes.size(parameters))


def _adapter_part(model: Any, adapter: str, role: str | None = None) -> Part:
    found = sizes.adapter_parameters(model, adapter)
    return Part(role or adapter, f"adapter, {_many(found)} parameters, {_names(found)}", sizes.size(found))


def _training(role: str, trained: list[torch.Tensor], device: Device, optimiser: str = "adamw") -> list[Part]:
    """Gradients, the optimiser's state, and what its step takes for a moment."""
    bits = ", 8 bits" if "8bit" in optimiser else ""
    return [
        Part(role, f"gradients, {_many(trained)}", sizes.size(trained)),
        Part(role, f"Adam's two moments, {_many(trained)}{bits}", sizes.optimiser_size(trained, optimiser)),
        Part(role, "Adam's step", sizes.optimiser_step_size(trained, device == "gpu", optimiser), "stepping"),
    ]


def _learning(role: str, step: sizes.Step, rows: int, tokens: int, recompute: bool, more: int) -> list[Part]:
    """The forward and backward pass. `more`: bytes that the pass takes on top."""
    how = "recomputed" if recompute else "kept"
    return [
        Part(role, f"activations, {rows} x {tokens} tokens, {how}", step.kept, "learning"),
        Part(role, "vocabulary logits, or a layer's backward pass", step.peak - step.kept + more, "learning"),
    ]


def _libraries(device: Device) -> Part:
    """Python, torch and the rest. On a CPU what they take in this process, which loads them for it."""
    status = Path("/proc/self/status")
    if device == "gpu" or not status.is_file():
        return Part("libraries", "CUDA, a usual value" if device == "gpu" else "a usual value", _CUDA, "libraries")
    for module in _LOADED.split():
        importlib.import_module(module)
    resident = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
    return Part("libraries", "Python, torch and others", int(resident.split()[1]) * 1024, "libraries")


def _many(tensors: Iterable[torch.Tensor]) -> str:
    number = sizes.count(tensors)
    return f"{number / 1e9:.2f} B" if number >= 1e9 else f"{number / 1e6:.1f} M"


def _names(tensors: Iterable[torch.Tensor]) -> str:
    return " and ".join(sorted({_SHORT.get(tensor.dtype, str(tensor.dtype)) for tensor in tensors}, reverse=True))


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
