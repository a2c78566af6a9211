"""Whether a run's texts may share their prompts: the model is tried at the first step, on rows of the run's data."""

from collections.abc import Sequence
from typing import Any

from align.models.shared_prompts import find_families, take_shared, why_not
from align.run.progress import say


class Sharing:
    """Lets a trainer's model take shared texts, and says once, on stderr, where it does not get along with them.

    texts, starts: what the model is tried on (see `why_not`), alike in every process.
    """

    def __init__(self, trainer: Any, texts: Sequence[Sequence[int]], starts: Sequence[int] | None = None) -> None:
        self.trainer, self.texts, self.starts = trainer, texts, starts
        self.why: str | None = None  # not tried yet
        try:
            take_shared(trainer.model)
        except NotImplementedError as error:
            self._decide(str(error))

    def works(self, model: Any) -> bool:
        """Whether `model`, the trainer's as it is wrapped for training, takes shared texts. To be called by all
        processes at the same step.
        """
        if self.why is None:
            args = self.trainer.args
            kinds = {str(parameter.dtype) for parameter in model.parameters()} - {"torch.uint8"}  # 4 bits, in fp32
            exact = kinds == {"torch.float32"} and not (args.bf16 or args.fp16)
            why = [why_not(model, self.texts, self.starts, exact=exact)]
            if args.world_size > 1:
                from accelerate.utils import broadcast_object_list

                broadcast_object_list(why)  # one word for all
            self._decide(why[0])
        return not self.why

    def _decide(self, why: str) -> None:
        self.why = why
        if why:
            say(f"prompts are encoded anew for each response, which is slower: {why}")


def hardest(texts: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """Up to four of the texts to try a model on: the longest, two that share its beginning, and the shortest."""
    longest = max(range(len(texts)), key=lambda number: len(texts[number]))
    shortest = min(range(len(texts)), key=lambda number: len(texts[number]))
    family = next(members for members, _ in find_families(texts) if longest in members)
    others = [number for number in family if number != longest][:2]
    return [texts[number] for number in dict.fromkeys((longest, *others, shortest))]
