"""A plan for people, the verdict first, and for scripts."""

import json
from typing import Any

from align.plan import time as plan_time
from align.plan.parts import MOMENTS
from align.plan.plan import Plan
from align.run.progress import time_left
from align.run.strategies import STRATEGIES

_FILES = {"ddp": "multi_gpu", "fsdp2": "fsdp2", "zero2": "deepspeed_zero2", "zero3": "deepspeed_zero3"}


def as_table(plan: Plan) -> str:
    """A plan in words; memory in GB (10^9 bytes)."""
    memory = plan.memory
    rows = [("role", "what", "GB")]
    for when in ("throughout", *MOMENTS, "libraries"):
        parts = [part for part in memory.parts if part.when == when]
        if not parts or (when == "stepping" and memory.largest != when):
            continue
        rows += [(part.role, part.what, f"{part.bytes / 1e9:.2f}") for part in parts]
        if when != "libraries":
            name = when if when == "throughout" else f"while {when}"
            most = " (the most)" if when == memory.largest else ""
            rows.append(("", f"= {name}{most}", f"{memory.at(when) / 1e9:.2f}"))
    rows.append(("total", f"throughout, while {memory.largest}, and libraries", f"{memory.total / 1e9:.2f}"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    table = [f"{role:<{widths[0]}}  {what:<{widths[1]}}  {size:>{widths[2]}}" for role, what, size in rows]
    return "\n".join([verdict(plan), "", *table, "", *_facts(plan), *_suggestions(plan), *plan.notes])


def verdict(plan: Plan) -> str:
    """Whether it fits, and by how much."""
    asked, total = plan.asked, plan.memory.total
    run = f"align {asked.verb} on {place(plan)}"
    if asked.memory is None or asked.room is None:
        return f"{run}: {_gb(total)}"
    kept = "" if total > asked.memory or total <= asked.room else " (5% stay free for the allocator's gaps)"
    of = f"{_gb(total)} of {_gb(asked.memory)}"
    if total <= asked.room:
        return f"{run}: fits, {of}"
    return f"{run}: does not fit, {of}: {_gb(total - asked.room)} too much{kept}"


def place(plan: Plan) -> str:
    """Where it is to run, in words."""
    asked = plan.asked
    name = "a CPU" if asked.device == "cpu" else (f"one {asked.card.name}" if asked.card else "one GPU")
    if asked.processes > 1:
        what = "CPU processes" if asked.device == "cpu" else (f"{asked.card.name} cards" if asked.card else "GPUs")
        return f"each of {asked.processes} {what} by {STRATEGIES[asked.strategy]}"
    return name


def _facts(plan: Plan) -> list[str]:
    asked, texts = plan.asked, plan.asked.texts
    lines = [f"Longest {'prompt' if asked.verb == 'ppo' else 'row'}: {texts.longest} tokens ({texts.where})."]
    if plan.time is not None:
        spent = plan.time
        parts = [("sampling", spent.sampling), ("learning", spent.learning), ("reading", spent.reading)]
        parts.append(("waiting for other processes", spent.talking))
        shares = ", ".join(f"{name} {time_left(took)}" for name, took in parts if took >= 0.5)
        lines.append(f"Time: about {time_left(spent.total)} ({shares}); {basis(plan)}")
    elif asked.device == "gpu":
        lines.append("Time: name the card by --gpu to have it said.")
    if plan.cost is not None:
        lines.append(f"Cost: about {plan.cost:,.2f} ({plan.gpu_hours:.2f} GPU hours at {plan.price:g}).")
    disk = plan.disk
    fetched = f"{_gb(disk.model)} of them the model in the hub's cache, " if disk.model else ""
    many = f"{disk.checkpoints} checkpoint{'s' * (disk.checkpoints != 1)} of {_gb(disk.checkpoint)}"
    lines.append(f"Disk: {_gb(disk.total)}, {fetched}{many if disk.checkpoints else 'no checkpoints'}.")
    return lines


def basis(plan: Plan) -> str:
    """What the time rests on."""
    card, work = plan.asked.card, plan.work
    amount = (
        f"{plan.time.operations:.2g} operations in {work.steps:,} step{'s' * (work.steps != 1)}" if plan.time else ""
    )
    if card is None:
        return f"{amount}, at {plan_time.CPU_SHARE:.0%} of what a product of matrices reached here just now."
    rate = f"{plan_time.SHARE:.0%} of {card.tflops:g} TFLOP/s"
    return f"{amount}, assumed at {rate}; without loading, looks and saving. No GPU has measured that share yet."


def _suggestions(plan: Plan) -> list[str]:
    lines = []
    for advice in plan.advice:
        keys = " ".join(f"--{name} {str(value).lower()}" for name, value in advice.keys.items())
        if advice.processes > 1:
            keys += f" --accelerate_config {_FILES[advice.strategy]} --num_processes {advice.processes}"
        elif advice.what == "strategy":
            keys += " without --accelerate_config"
        words = advice.words or "the largest batch that fits"
        hours = "" if advice.gpu_hours is None else f", {_hours(advice.gpu_hours)}"
        lines.append(f"Suggestion: {words} ({_gb(advice.total)} each{hours}): {keys}")
    if plan.asked.room is not None and not plan.advice and plan.memory.total > plan.asked.room:
        lines.append("Nothing that align plan knows makes it fit; take a smaller model, or shorter texts (max_length).")
    return lines


def _hours(hours: float) -> str:
    return f"{hours:.3g} GPU hour{'s' * (f'{hours:.3g}' != '1')}"


def _gb(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e9:.2f} GB"


def as_json(plan: Plan) -> str:
    """A plan for scripts, in bytes and seconds."""
    asked, memory, spent = plan.asked, plan.memory, plan.time
    document: dict[str, Any] = {
        "format": 1,
        "verb": asked.verb,
        "kind": asked.kind,
        "device": asked.device,
        "gpu": None if asked.card is None else asked.card._asdict(),
        "strategy": asked.strategy,
        "processes": asked.processes,
        "device_memory": asked.memory,
        "fits": None if asked.room is None else memory.total <= asked.room,
        "parts": [part._asdict() for part in memory.parts],
        "moments": {when: memory.at(when) for when in ("throughout", *MOMENTS, "libraries")},
        "largest": memory.largest,
        "total": memory.total,
        "longest": {"tokens": asked.texts.longest, "from": asked.texts.where},
        "data": asked.texts._asdict(),
        "steps": plan.work.steps,
        "tokens": plan.work._asdict(),
        "seconds": None if spent is None else {**spent._asdict(), "total": spent.total},
        "gpu_hours": plan.gpu_hours,
        "cost": plan.cost,
        "disk": {**plan.disk._asdict(), "total": plan.disk.total},
        "suggestions": [advice._asdict() for advice in plan.advice],
        "verdict": verdict(plan),
        "notes": plan.notes,
    }
    return json.dumps(document, indent=1)
