"""What a run takes on disk: the model's files, checkpoints with the optimiser's state, the run itself."""

from pathlib import Path
from typing import Any, NamedTuple

from align.models.load import ModelSource

_REST = 20_000_000  # bytes: manifest, metrics, curves, card, tokenizer
_NAMES = ("model.safetensors", "model.safetensors.index.json")


class Disk(NamedTuple):
    """Bytes."""

    model: int  # in the hub's cache; 0 where it is there already
    checkpoint: int  # one of them
    checkpoints: int  # how many are there at once
    run: int  # the finished run's weights and the rest
    cache: int  # reference log-probabilities

    @property
    def total(self) -> int:
        return self.model + self.checkpoint * self.checkpoints + self.run + self.cache


def disk_of(
    source: ModelSource,
    numbers: int,
    trained: int,
    state: int,
    every: int | None,
    steps: int,
    limit: int | None,
    cache: int,
) -> Disk:
    """numbers: of the model. trained, state: bytes of what is trained and of its optimiser's. every: steps between
    checkpoints, None: none is written. limit: how many stay; one more is there while it is written.
    """
    written = 0 if every is None else -(-steps // every)
    held = written if limit is None else min(written, limit + 1)
    return Disk(0 if is_here(source) else 2 * numbers, trained + state + _REST, held, trained + _REST, cache)


def is_here(source: ModelSource) -> bool:
    """Whether the base's weights are on this machine, in a folder or in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    name = source.base
    if Path(name).is_dir():
        if any(Path(name).glob("*.safetensors")):
            return True
        name = source.name  # only its configuration is here
    return any(isinstance(try_to_load_from_cache(name, file, revision=source.revision), str) for file in _NAMES)


def steps_between_checkpoints(args: Any, steps: int, *, ppo: bool) -> int | None:
    """Of a recipe of so many steps of the optimiser; None where no checkpoint is written."""
    if ppo:
        return args.save_steps * args.num_ppo_epochs * args.num_mini_batches
    strategy = str(getattr(args.save_strategy, "value", args.save_strategy))
    if strategy == "no":
        return None
    if strategy != "steps":  # at the end of an epoch, or where a look was the best
        return max(1, round(steps / max(args.num_train_epochs, 1)))
    return max(1, round(args.save_steps if args.save_steps >= 1 else args.save_steps * steps))
