"""What a run of TRL's trainers takes: model, reference, optimiser, and a step of the most tokens that there can be."""

from typing import Any

import torch

from align.models import sizes
from align.models.load import ModelSource, load_config
from align.models.plan_data import Texts
from align.models.plan_parts import (
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
from align.models.plan_sharing import Gathered, gathered

_TILE = (4096, 32768)  # tokens, words: the logits that TRL's vocabulary head makes at once


def trainer_parts(
    verb: str,
    args: Any,
    model_args: Any,
    source: ModelSource,
    device: Device,
    recompute: bool,
    texts: Texts,
    strategy: str,
    steps: dict[Any, sizes.Step],
) -> tuple[list[Part], list[torch.Tensor], Gathered]:
    """(the parts of one process, what is trained, what a sharded model is put together from).

    steps: what was found out about a step before, by all that it depends on.
    """
    role = "reward" if verb == "reward" else "policy"
    model = empty(source, model_args, device, score=verb == "reward")
    bits, nested = bits_of(model_args), model_args.use_bnb_nested_quant
    whole = source.adapter is None and not model_args.use_peft
    held_in = 2 if device == "gpu" and args.bf16 else dtype_of(model_args, device).itemsize
    units = gathered(model, bits, nested, held_in)
    if whole:
        parts, trained = [whole_part(role, model, "trained")], [p for p in model.parameters() if p.requires_grad]
    else:
        adapters = {role: adapter_config(source, model_args, "SEQ_CLS" if verb == "reward" else "CAUSAL_LM")}
        if verb in ("dpo", "kto") and source.adapter:
            adapters["reference"] = adapters[role]
        model = sizes.put_adapters_on(model, adapters, [role])
        parts = [base_part(model, model_args), adapter_part(model, role)]
        trained = sizes.adapter_parameters(model, role)
    if verb in ("dpo", "kto"):
        reference = Part("reference", "its log-probabilities" if whole else "the base without adapters", 0)
        if whole and not args.precompute_ref_log_probs:
            reference = whole_part("reference", model)
        elif source.adapter:
            reference = adapter_part(model, "reference")
        parts.append(reference)
    parts += training_parts(role, trained, device, str(getattr(args.optim, "value", args.optim)))

    rows, length = rows_at_once(verb, args, texts)
    more = sizes.largest_linear_size(model) if bits else 0
    if verb != "reward":
        words = load_config(source).vocab_size
        logits = min(rows * length, _TILE[0]) * min(words, _TILE[1])
        more += logits * (2 if device == "gpu" else 33)  # in bf16 in one kernel; eight steps of it in fp32, and a mask
    autocast = bool(args.bf16)
    sharded = whole and device == "gpu" and strategy not in ("one", "ddp")
    key = (source, verb, repr(model_args), device, rows, length, recompute, autocast, sharded)
    if key not in steps:
        if sharded:  # the weights come in bf16; nothing casts them
            model, autocast = model.to(torch.bfloat16), False
        steps[key] = sizes.learning_size(
            model.train(), rows, length, 0, recompute=recompute, autocast=autocast, masked=True
        )
    return parts + learning_parts(role, steps[key], rows, length, recompute, more), trained, units


def rows_at_once(verb: str, args: Any, texts: Texts) -> tuple[int, int]:
    """(rows, tokens of each) that go through the model together, at the very most."""
    return args.per_device_train_batch_size * (1 if verb in ("sft", "kto") else 2), texts.longest
