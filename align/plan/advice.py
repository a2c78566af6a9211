"""What would be better: the largest batch that fits, and, where nothing does, the cheapest way to make it fit."""

from typing import TYPE_CHECKING, NamedTuple

from align.run import strategies
from preferences.errors import BadInput

if TYPE_CHECKING:
    from align.plan.plan import Asked

_PROCESSES = (2, 4, 8, 16, 32)
_SMALLER_KINDS = {
    "full": ({"use_peft": True}, {"use_peft": True, "load_in_4bit": True, "use_bnb_nested_quant": True}),
    "lora": ({"load_in_4bit": True, "use_bnb_nested_quant": True},),
    "lora-8bit": ({"load_in_8bit": False, "load_in_4bit": True, "use_bnb_nested_quant": True},),
    "lora-4bit": (),
}


class Advice(NamedTuple):
    """One suggestion, in words, and the keys and options that follow it."""

    what: str  # "batch", "strategy" or "kind"
    words: str
    keys: dict[str, object]
    strategy: str
    processes: int
    total: int  # bytes it takes on each device
    gpu_hours: float | None


def advise(asked: "Asked", total: int) -> list[Advice]:
    """Suggestions for a device whose memory is known. `total`: bytes that the recipe takes as it is."""
    room = asked.room
    assert room is not None
    best = largest_batch(asked, room)
    if best is not None:
        keys = batch_keys(best)
        found = [] if keys == batch_keys(asked) and total <= room else [_advice("batch", best, "", keys)]
        if asked.processes > 1 and (one := _on(asked, "one", 1, room)) is not None:
            words = f"one {_card(asked)} has room for it"
            found.append(_advice("strategy", one, words, batch_keys(one)))
        return found
    if not asked.recompute and (lean := largest_batch(_recomputed(asked), room)) is not None:
        keys = {"activation_checkpointing": True, **batch_keys(lean)}
        return [_advice("batch", lean, "", keys)]
    found = []
    cheapest = cheapest_strategy(asked, room)
    if cheapest is not None:
        keys = {**batch_keys(cheapest), **({"activation_checkpointing": True} if not asked.recompute else {})}
        words = f"{cheapest.processes} GPUs share it by {strategies.STRATEGIES[cheapest.strategy]}"
        found.append(_advice("strategy", cheapest, words, keys))
    for model in _SMALLER_KINDS[asked.kind]:
        smaller = largest_batch(_recomputed(asked.but(model=model, strategy="one", processes=1)), room)
        if smaller is not None:
            keys = {**model, **batch_keys(smaller)}
            found.append(_advice("kind", smaller, f"as {strategies.KINDS[smaller.kind]} it fits one GPU", keys))
            break
    return found


def largest_batch(asked: "Asked", room: float) -> "Asked | None":
    """The recipe with the largest per_device_train_batch_size that fits, and as many texts a step as before; None
    where not even one at a time does.
    """
    fitting, sizes = None, candidates(asked)
    low, high = 0, len(sizes)
    while low < high:  # memory grows with the batch
        middle = (low + high) // 2
        found = _with_batch(asked, sizes[middle])
        if total_of(found) <= room:
            fitting, low = found, middle + 1
        else:
            high = middle
    return fitting


def candidates(asked: "Asked") -> list[int]:
    """Sizes of a micro-batch with which a step is of as many texts as the recipe says, the smallest first."""
    args = asked.args
    if asked.verb == "ppo":
        a_step = max(1, args.batch_size // asked.processes // args.num_mini_batches)
    else:
        a_step = args.per_device_train_batch_size * args.gradient_accumulation_steps
    return [size for size in range(1, a_step + 1) if a_step % size == 0]


def _with_batch(asked: "Asked", size: int) -> "Asked":
    args = asked.args
    if asked.verb == "ppo":
        return asked.but(per_device_train_batch_size=size)
    a_step = args.per_device_train_batch_size * args.gradient_accumulation_steps
    return asked.but(per_device_train_batch_size=size, gradient_accumulation_steps=a_step // size)


def batch_keys(asked: "Asked") -> dict[str, object]:
    """The keys of the micro-batch."""
    if asked.verb == "ppo":
        return {"per_device_train_batch_size": asked.args.per_device_train_batch_size}
    names = ("per_device_train_batch_size", "gradient_accumulation_steps")
    return {name: getattr(asked.args, name) for name in names}


def cheapest_strategy(asked: "Asked", room: float) -> "Asked | None":
    """The strategy, and the fewest processes, that make it fit; of several the one of the fewest GPU hours."""
    for processes in _PROCESSES:
        fitting = []
        for strategy in ("fsdp2", "zero2", "zero3"):
            found = _on(_recomputed(asked), strategy, processes, room)
            if found is not None:
                fitting.append(found)
        if fitting:
            return min(fitting, key=lambda each: (gpu_hours(each) or 0.0, each.strategy != "fsdp2"))
    return None


def _on(asked: "Asked", strategy: str, processes: int, room: float) -> "Asked | None":
    """The recipe on so many processes with as many texts a step; None where it is refused, or does not fit."""
    try:
        strategies.refuse(asked.verb, asked.kind, strategy)
    except BadInput:
        return None
    moved = asked.but(strategy=strategy, processes=processes)
    if asked.verb != "ppo":
        a_step = asked.args.per_device_train_batch_size * asked.args.gradient_accumulation_steps * asked.processes
        if a_step % processes:
            return None
        moved = moved.but(per_device_train_batch_size=1, gradient_accumulation_steps=a_step // processes)
    elif asked.args.batch_size % processes:
        return None
    return largest_batch(moved, room)


def _recomputed(asked: "Asked") -> "Asked":
    if asked.verb == "ppo":
        return asked.but(recompute=True, activation_checkpointing=True)
    return asked.but(recompute=True)


def total_of(asked: "Asked") -> int:
    from align.plan.plan import memory_of

    return memory_of(asked).total


def gpu_hours(asked: "Asked") -> float | None:
    from align.plan.plan import time_of

    found = time_of(asked)
    return None if found is None else found.total / 3600 * asked.processes


def _advice(what: str, asked: "Asked", words: str, keys: dict[str, object]) -> Advice:
    return Advice(what, words, keys, asked.strategy, asked.processes, total_of(asked), gpu_hours(asked))


def _card(asked: "Asked") -> str:
    return asked.card.name if asked.card is not None else "GPU"
