"""What several processes change of a plan: which parts each keeps a share of, and what it takes to put them together.

ddp: every process has all of it. fsdp2 (PyTorch's fully_shard) and zero3 (DeepSpeed's ZeRO-3, arXiv 1910.02054) cut
weights, gradients and the optimiser's state into shares; zero2 all but the weights. Activations are each one's own.
"""

from typing import Any, NamedTuple

from align.plan import sizes
from align.plan.parts import Part

_SHARED = {
    "one": (),
    "ddp": (),
    "fsdp2": ("weights", "trained", "gradients", "optimiser"),
    "zero2": ("gradients", "optimiser"),
    "zero3": ("weights", "trained", "gradients", "optimiser"),
}
_BUCKET = 500_000_000  # numbers: DeepSpeed's reduce_bucket_size
_LIVE = 1_000_000_000  # numbers: DeepSpeed's stage3_max_live_parameters


class Gathered(NamedTuple):
    """What a sharded model is put together from while it computes, in bytes."""

    layer: int  # the largest layer
    rest: int  # embeddings, head and norms, which are one more unit
    whole: int  # the model


def gathered(model: Any, bits: int | None, nested: bool, held_in: int) -> Gathered:
    """Of a model on the meta device, without adapters. `held_in`: bytes a weight that is not quantised."""
    classes = set(getattr(model, "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__ in classes]
    of = [_size(layer, bits, nested, held_in) for layer in layers]
    whole = _size(model, bits, nested, held_in)
    return Gathered(max(of, default=whole), whole - sum(of), whole)


def _size(module: Any, bits: int | None, nested: bool, held_in: int) -> int:
    """Bytes of a module's weights as they are gathered."""
    plain = sizes.model_size(module, bits, nested)
    if bits is not None:
        return plain
    return sizes.count(sizes.own_parameters(module)) * held_in


def share(
    parts: list[Part], strategy: str, processes: int, whole: Gathered, numbers: int, *, packed: bool = False
) -> list[Part]:
    """The parts of each of `processes` processes. Of the optimiser's step, too, each does its share.

    packed: the base is in 4 bits, which FSDP2 cuts only once all of it is on every card (`_load` of load.py).
    numbers: that are trained. DeepSpeed trains them in bf16, and its optimiser keeps them in fp32.
    """
    cut = _SHARED[strategy]
    if strategy == "one" or processes == 1:
        return parts
    trained = sum(part.bytes for part in parts if part.kind == "gradients")
    zero = strategy.startswith("zero")
    found = []
    for part in parts:
        size = part.bytes
        if zero and part.kind in ("trained", "gradients"):
            size = round(size * 2 * numbers / trained)
        if part.kind in cut:
            found.append(part._replace(what=f"{part.what}, 1/{processes}", bytes=-(-size // processes)))
        else:
            found.append(part._replace(bytes=size))
    role = "each process"
    if strategy == "ddp":
        found.append(Part(role, "gradients, packed for the others", trained))
    if zero:
        found.append(Part(role, f"weights that are trained, fp32, 1/{processes}", -(-4 * numbers // processes)))
        found.append(Part(role, "gradients, packed for the others", 2 * min(_BUCKET, numbers), "learning"))
    if strategy == "fsdp2":
        both = min(2 * whole.layer + whole.rest, whole.whole)
        found.append(Part(role, "embeddings and two layers, put together", both, "learning"))
    if strategy == "fsdp2" and packed:
        found.append(Part(role, "the base before it is cut", whole.whole - -(-whole.whole // processes), "loading"))
    if strategy == "zero3":
        found.append(Part(role, "layers, put together", min(2 * _LIVE, whole.whole), "learning"))
    return found


def traffic(strategy: str, processes: int, trained: int, whole: Gathered, micro_batches: int) -> float:
    """Bytes that a process sends, or gets, for one step of the optimiser, by ring algorithms: (n − 1) / n of what is
    gathered or reduced, twice that for an all-reduce. Sharded weights are gathered forwards and backwards, for each
    micro-batch, and their gradients reduced.
    """
    around = (processes - 1) / processes
    if strategy in ("one", "ddp"):
        return 2 * around * trained
    if strategy == "zero2":  # the weights are gathered once, after the step
        return around * (micro_batches * trained / 2 + trained / 2)
    return around * micro_batches * (2 * whole.whole + trained)
