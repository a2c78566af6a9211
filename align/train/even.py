"""Several processes take the steps of one, though the rows don't come out even.

Every process must have as many batches as the others, and as large ones. So accelerate fills the last step of an epoch
up with rows from the epoch's beginning, which then count twice. Here it is filled up with blanks, which count nothing:
in `align sft` rows without a label, in our own losses rows of weight 0.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from align.run.progress import say

_BLANK = "blank"  # a row's column, true of a row that only fills a batch up


def fill_with_blanks(trainer: Any) -> dict[str, int]:
    """Have one of TRL's trainers fill the last step of an epoch up with blanks. What the manifest says about it: how
    many rows count twice in every epoch, where the trainer's loss can't weigh rows (`weighs_rows`, see `row_share`).
    """
    from trl import SFTTrainer

    args = trainer.args
    if args.world_size == 1 or args.dataloader_drop_last or not hasattr(trainer.train_dataset, "__len__"):
        return {}
    missing = -len(trainer.train_dataset) % (args.world_size * args.per_device_train_batch_size)
    if missing == 0:
        return {}
    by_labels = isinstance(trainer, SFTTrainer)
    if not (by_labels or getattr(trainer, "weighs_rows", False)):
        say(
            f"{len(trainer.train_dataset)} rows don't divide by {args.world_size} processes of"
            f" {args.per_device_train_batch_size}: {missing} of them count twice in the last step of an epoch"
        )
        return {"rows_repeated": missing}
    make_loader = trainer.get_train_dataloader
    if not by_labels:
        trainer.data_collator = _Marked(trainer.data_collator)

    def get_train_dataloader() -> Any:
        rows = trainer.train_dataset
        trainer.train_dataset = _WithBlanks(rows, missing)
        try:
            loader = make_loader()
        finally:
            trainer.train_dataset = rows
        batches = loader.batch_sampler.batch_sampler  # of all processes; the loader's own takes this one's share of it
        batches.sampler = _Filled(batches.sampler, len(rows), missing)
        return loader

    trainer.get_train_dataloader = get_train_dataloader
    return {}


def row_share(trainer: Any, batch: dict[str, Any]) -> Any:
    """What every row of a batch counts, (rows,) or 1.0: the mean over the rows of this process, averaged over the
    processes as DDP does it, is then the mean over all real rows.
    """
    if "real" not in batch or not trainer.model.training:
        return 1.0
    real = batch["real"]
    everybody = trainer.accelerator.reduce(real.sum(), reduction="sum")
    return real * (len(real) * trainer.accelerator.num_processes / everybody)


def real_rows(batch: dict[str, Any]) -> Any:
    """An index of the rows of a batch that are not blank: what is logged is about them."""
    return batch["real"].nonzero().flatten().tolist() if "real" in batch else slice(None)


class _WithBlanks:
    """A data set whose numbers go on after its end, with blanks; its length is that of the real rows."""

    def __init__(self, rows: Any, blanks: int) -> None:
        self.rows, self.blanks = rows, blanks
        row = rows[0]
        self.blank = {**row, _BLANK: True}
        if "input_ids" in row:  # of SFT; two tokens without a label
            self.blank |= {"input_ids": row["input_ids"][:2], "labels": [-100] * 2, "seq_lengths": [2]}

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)

    def __getitem__(self, number: int) -> Any:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[Any]:
        if max(numbers) >= len(self.rows) + self.blanks:
            raise IndexError(max(numbers))
        real = [number for number in numbers if number < len(self.rows)]
        return [*(self.rows[number] for number in real), *([self.blank] * (len(numbers) - len(real)))]


class _Filled:
    """A sampler, and the numbers of the blanks after its own. What wants to seed it finds it as `sampler`."""

    def __init__(self, sampler: Any, rows: int, blanks: int) -> None:
        self.sampler, self.rows, self.blanks = sampler, rows, blanks

    def __len__(self) -> int:
        return len(self.sampler) + self.blanks

    def __iter__(self) -> Iterator[int]:
        yield from self.sampler
        yield from range(self.rows, self.rows + self.blanks)

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)


class _Marked:
    """A collator that says which rows of its batch are real, (rows,) of 1 and 0."""

    def __init__(self, collate: Any) -> None:
        self.collate = collate

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        real = torch.tensor([0.0 if row.get(_BLANK) else 1.0 for row in rows])
        plain = [{name: value for name, value in row.items() if name != _BLANK} for row in rows]
        return {**self.collate(plain), "real": real}
