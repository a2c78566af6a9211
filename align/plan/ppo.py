"""What the roles of a PPO run take: those of align/models/roles.py, on one base or whole."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from align.models.load import ModelSource, find_model, load_config, load_tokenizer
from align.models.roles import stands_on
from align.plan import sizes
from align.plan.data import Texts
from align.plan.parts import (
    Device,
    Part,
    adapter_config,
    adapter_part,
    base_part,
    bits_of,
    dtype_of,
    empty,
    learning_parts,
    training_parts,
    whole_part,
)
from preferences.errors import BadInput


def ppo_parts(
    args: Any,
    model_args: Any,
    source: ModelSource,
    device: Device,
    notes: list[str],
    texts: Texts,
    processes: int,
    steps: dict[Any, Any],
) -> tuple[list[Part], list[torch.Tensor]]:
    """The parts of one process of a PPO run, and what is trained. `steps`: as in trainers.py."""
    rewards = [_reward(name, source, notes) for name in args.reward_model_path or ()]
    whole = source.adapter is None and not model_args.use_peft
    found = _whole_roles if whole else _roles_on_one_base
    parts, trained, policy, value = found(args, model_args, source, rewards, device)
    shared = args.value == "shared"
    parts += training_parts("policy" if shared and not whole else "policy and value", trained, device)

    longest = texts.longest
    tokens = longest + args.response_length
    autocast = whole and device == "gpu" and dtype_of(model_args, device) == torch.float32
    unpacked = sizes.largest_linear_size(policy()) if bits_of(model_args) else 0
    mine = max(1, args.batch_size // processes)  # rollouts of this process
    rows = min(args.per_device_rollout_batch_size, max(mine, args.eval_prompts if args.eval_steps else 0))
    shape = (source, repr(model_args), device, tokens, args.response_length, args.value)
    drawn = (*shape, "sampling", rows)
    if drawn not in steps:
        steps[drawn] = sizes.sampling_size(policy(), rows, longest, args.response_length, autocast=autocast)
    sampling = steps[drawn]
    cache = f"key-value cache, {rows} x ({longest} + {args.response_length}) tokens"
    rest = sampling.peak - sampling.cache + unpacked
    parts.append(Part("policy", cache, sampling.cache, "rolling out"))
    parts.append(Part("policy", "reading prompts, or drawing tokens", rest, "rolling out"))

    rows = min(args.per_device_train_batch_size, max(1, mine // args.num_mini_batches))
    entropy = args.entropy_coef > 0
    learnt = (*shape, "learning", rows, args.activation_checkpointing, entropy)
    if learnt not in steps:
        step = partial(
            sizes.learning_size, rows=rows, length=tokens, recompute=args.activation_checkpointing, autocast=autocast
        )
        steps[learnt] = {"policy": step(policy(), scored=args.response_length, entropy=entropy)}
        if value is not None:
            steps[learnt]["value"] = step(value(), scored=0)
    largest = max(steps[learnt].values(), key=lambda each: each.peak)
    name = "policy, then value" if not shared else "policy"
    parts += learning_parts(name, largest, rows, tokens, args.activation_checkpointing, unpacked)
    return parts, trained


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
    policy = adapter_config(source, model_args, "CAUSAL_LM")
    adapters = {"policy": policy}
    if source.adapter:
        adapters["reference"] = policy
    here = {}  # reward runs on the same base, by the name of their adapter
    for number, reward in enumerate(rewards, start=1):
        if stands_on(reward.source, source):
            here[f"reward_{number}"] = adapter_config(reward.source) if reward.there else policy
    adapters |= here
    if args.value == "separate":  # it starts as the first reward run
        adapters["value"] = next(iter(here.values()), policy)
    trained = [name for name in ("policy", "value") if name in adapters]

    def make() -> Any:
        return sizes.put_adapters_on(empty(source, model_args, device), adapters, trained)

    model = make()
    parts = [base_part(model, model_args), adapter_part(model, "policy")]
    parts.append(adapter_part(model, "value") if "value" in adapters else Part("value", "a head on the policy", 0))
    without = Part("reference", "the base without adapters", 0)
    parts.append(adapter_part(model, "reference") if source.adapter else without)
    for number, reward in enumerate(rewards, start=1):
        name, role = f"reward_{number}", _reward_role(number, rewards)
        parts.append(adapter_part(model, name, role) if name in here else _own_reward(reward, role, device))
    return parts, [p for name in trained for p in sizes.adapter_parameters(model, name)], make, None


def _whole_roles(
    args: Any, model_args: Any, source: ModelSource, rewards: list[_Reward], device: Device
) -> tuple[list[Part], list[torch.Tensor], Any, Any]:
    """(parts, what is trained, a maker of the policy, a maker of the value model or None where it is no other)."""
    make, make_value = partial(empty, source, model_args, device), None
    policy = make()
    trained = [p for p in policy.parameters() if p.requires_grad]
    parts = [whole_part("policy", policy, "trained")]
    if args.value == "shared":
        parts.append(Part("value", "a head on the policy", 0))
    else:
        make_value = make
        if rewards and (
            not rewards[0].there or load_tokenizer(rewards[0].source).get_vocab() == load_tokenizer(source).get_vocab()
        ):
            make_value = partial(sizes.empty_model, rewards[0].source._replace(adapter=None), torch.float32, score=True)
        value = make_value()
        parts.append(whole_part("value", value, "trained"))
        trained += list(getattr(value, value.base_model_prefix).parameters())  # its head has no part in it
    parts.append(whole_part("reference", policy) if args.use_reference else Part("reference", "none", 0))
    for number, reward in enumerate(rewards, start=1):
        parts.append(_own_reward(reward, _reward_role(number, rewards), device))
    return parts, trained, make, make_value


def _reward_role(number: int, rewards: list[_Reward]) -> str:
    return f"reward {number}" if len(rewards) > 1 else "reward"


def _own_reward(reward: _Reward, role: str, device: Device) -> Part:
    """A reward run as a model of its own, loaded as `evaluate` loads it."""
    model = sizes.empty_model(reward.source, torch.bfloat16 if device == "gpu" else torch.float32, score=True)
    if reward.source.adapter and reward.there:
        model = sizes.put_adapters_on(model, {"reward": adapter_config(reward.source)}, [])
    return whole_part(role, model)
