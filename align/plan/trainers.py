"""What a run of TRL's trainers takes: model, reference, optimiser, and a step of the most tokens that there can be."""

import copy
from functools import partial
from typing import Any

import torch

from align.data.lengths import comes_to_each_row
from align.models.load import ModelSource, load_config
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
from align.plan.sharing import Gathered, gathered

_LOOKED_AT = 4  # rows of texts that share prompts, at most: each is attended to by itself, and more take as much more
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
    processes: int,
    steps: dict[Any, sizes.Step],
) -> tuple[list[Part], tuple[int, int], Gathered]:
    """(the parts of one process, numbers and bytes that are trained, what a sharded model is put together from).

    steps: what was found out about a step before, by all that it depends on.
    """
    given, model_args = model_args, copy.copy(model_args)  # finding the adapter's configuration changes it
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
        once = verb == "dpo" and reference_once(args, texts, strategy, processes)
        reference = Part("reference", "looked at before training" if once else "the base without adapters", 0)
        if whole and not once:
            reference = whole_part("reference", model)
        elif source.adapter:
            reference = adapter_part(model, "reference")
        parts.append(reference)
    parts += training_parts(role, trained, device, str(getattr(args.optim, "value", args.optim)))

    numbers, size = sizes.count(trained), sizes.size(trained)
    shares = shares_prompts(verb, args)
    rows, length = rows_at_once(verb, args, texts)
    more = sizes.largest_linear_size(model) if bits else 0
    if verb != "reward" and not shares:
        words = load_config(source).vocab_size
        logits = min(rows * length, _TILE[0]) * min(words, _TILE[1])
        more += logits * (2 if device == "gpu" else 33)  # in bf16 in one kernel; eight steps of it in fp32, and a mask
    autocast = bool(args.bf16)
    sharded = whole and device == "gpu" and strategy not in ("one", "ddp")
    key = (source, verb, repr(given), device, rows, length, recompute, autocast, sharded)
    if key not in steps and shares and rows > _LOOKED_AT:
        few = []
        for count in (_LOOKED_AT // 2, _LOOKED_AT):
            fewer = copy.copy(args)
            fewer.per_device_train_batch_size = count
            trainer_parts(verb, fewer, given, source, device, recompute, texts, strategy, processes, steps)
            few.append(steps[(*key[:4], count, *key[5:])])
        more_rows = (rows - _LOOKED_AT) / (_LOOKED_AT // 2)
        steps[key] = sizes.Step(*(round(b + (b - a) * more_rows) for a, b in zip(*few, strict=True)))
    if key not in steps:
        if sharded:  # the weights come in bf16; nothing casts them
            model, autocast = model.to(torch.bfloat16), False
        if getattr(args, "disable_dropout", False):  # TRL's default in reward runs, DPO and KTO
            from trl.trainer.utils import disable_dropout_in_model

            disable_dropout_in_model(model)
        step = partial(sizes.learning_size, model.train(), rows, length, recompute=recompute, autocast=autocast)
        if shares:
            rests = texts.largest.responses
            steps[key] = step(sum(rests) if verb == "dpo" else 0, entropy=True, rests=rests)
        else:
            steps[key] = step(0, masked=True)
    return parts + learning_parts(role, steps[key], rows, length, recompute, more), (numbers, size), units


def rows_at_once(verb: str, args: Any, texts: Texts) -> tuple[int, int]:
    """(rows, tokens of each) that go through the model together, at the very most; a pair is a row where its texts
    share their prompt.
    """
    rows = args.per_device_train_batch_size
    if shares_prompts(verb, args):
        return rows, texts.largest.prompt + sum(texts.largest.responses)
    return rows * (1 if verb in ("sft", "kto") else 2), texts.longest


def shares_prompts(verb: str, args: Any) -> bool:
    """Whether the texts of a pair go through with their prompt once: all but those of TRL's own DPO losses."""
    if verb != "dpo":
        return verb == "reward"
    trls = args.f_divergence_type != "reverse_kl" or args.ld_alpha is not None or args.use_weighting
    return not trls and set(args.loss_type) <= {"sigmoid", "ipo", "hinge"}


def reference_once(args: Any, texts: Texts, strategy: str, processes: int) -> bool:
    """Whether DPO's reference looks at all rows before training, so that none is needed beside the policy."""
    if strategy not in ("one", "ddp") or args.sync_ref_model:
        return bool(args.precompute_ref_log_probs)
    once = shares_prompts("dpo", args) and comes_to_each_row(args, texts.rows, processes)
    return bool(args.precompute_ref_log_probs) or once
