"""Best of n: sample n responses and take the one that a reward model likes best. The honest rival of any training.

It needs no training, and costs n times the sampling. A policy that is trained against the same reward model has to beat
it, or at least to come near for a n-th of the cost.
"""

from collections.abc import Sequence
from typing import Any

from align.models.load import find_model, weights_of
from align.models.scores import RewardModel
from align.run.cache import Cache


class Picker:
    """Picks by a reward run, which is loaded when the first score is not in the cache."""

    def __init__(self, reward_model: str, cache: Cache, batch_size: int, what: str = "reward") -> None:
        """`what` the scores are for: each purpose has its own in the cache, since they are made in other batches."""
        self.name = reward_model
        self.cache = cache
        self.batch_size = batch_size
        self.key = {"what": what, "model": weights_of(find_model(reward_model))}
        self.model: RewardModel | None = None

    def __call__(self, prompts: Sequence[Any], drawn: Sequence[Sequence[str]]) -> list[int]:
        """Which of the n draws is the best for each of the b prompts: drawn (n, b) -> (b,). The first of equal ones."""
        scores = [self.scores(prompts, texts) for texts in drawn]
        return [max(range(len(scores)), key=lambda n: (scores[n][place], -n)) for place in range(len(prompts))]

    def scores(self, prompts: Sequence[Any], texts: Sequence[str]) -> list[float]:
        """The reward run's score of each text as a response to its prompt."""
        keys = [{**self.key, "prompt": p, "response": text} for p, text in zip(prompts, texts, strict=True)]
        found, _ = self.cache.complete(keys, lambda: self._compute(prompts, texts))
        return [float(value) for value in found]

    def _compute(self, prompts: Sequence[Any], texts: Sequence[str]) -> list[float]:
        from align.models.rewards import load_as_trained

        self.model = self.model or load_as_trained(self.name)
        return self.model.scores(prompts, texts, self.batch_size)
