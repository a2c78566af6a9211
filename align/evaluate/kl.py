"""How far a model has gone from the base: the KL divergence, on what the model itself samples."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from align.evaluate.config import EvaluateConfig
from align.evaluate.evidence import Prompt, Said, main_numbers
from align.evaluate.responses import Candidate
from align.models.load import device, load_causal_lm, load_tokenizer, weights_of
from align.run.cache import Cache
from align.run.progress import say
from preferences.stats.overoptimisation import best_of_kl
from preferences.stats.winrate import mean_interval


def kl_to_base(
    candidates: Mapping[str, Candidate],
    prompts: Sequence[Prompt],
    responses: Mapping[str, Sequence[Said]],
    args: EvaluateConfig,
    cache: Cache,
) -> dict[str, dict[str, Any] | None]:
    """By model: the mean over the main prompts of log pi(y) - log pi_base(y), in nats, with its interval, or None.

    It is an unbiased estimate of the KL divergence at the sampling temperatures. None have the base itself, models
    behind an endpoint, and those with another vocabulary, whose tokens mean nothing to the base. Best of n of the base
    has the known upper bound instead, and "bound": true.
    """
    base = candidates[args.base]
    found: dict[str, dict[str, Any] | None] = {}
    own = main_numbers(prompts)
    scorer = BaseLogprobs(base, args.batch_size, cache) if base.source else None
    for name, candidate in candidates.items():
        found[name] = None
        if candidate.keys.best_of is not None:
            if _draws_alike(candidate, base):
                bound = best_of_kl(candidate.keys.best_of)
                found[name] = {"mean": bound, "interval": None, "n": len(own), "standard_error": None, "bound": True}
        elif name != args.base and scorer is not None and candidate.source is not None:
            vocabulary = load_tokenizer(candidate.source).get_vocab()
            if vocabulary == scorer.tokenizer.get_vocab():
                said = [responses[name][number] for number in own]
                found[name] = mean_interval(scorer.log_ratios(said))
    return found


def _draws_alike(one: Candidate, other: Candidate) -> bool:
    """Whether the two draw single responses from one distribution."""
    if (one.temperature, one.max_new_tokens) != (other.temperature, other.max_new_tokens):
        return False
    if one.source is None or other.source is None:
        return one.source is other.source and (one.keys.endpoint, one.keys.model) == (
            other.keys.endpoint,
            other.keys.model,
        )
    return weights_of(one.source) == weights_of(other.source)


class BaseLogprobs:
    """The base's log-probability of what others said; it is loaded when the first of them is not in the cache."""

    def __init__(self, base: Candidate, batch_size: int, cache: Cache) -> None:
        assert base.source is not None
        self.source, self.temperature = base.source, base.temperature
        self.batch_size = batch_size
        self.cache = cache
        self.tokenizer = load_tokenizer(base.source)
        self.key = {"what": "logprob", "model": weights_of(base.source), "temperature": base.temperature}
        self.model: Any = None

    def log_ratios(self, said: Sequence[Said]) -> list[float]:
        """log pi(y) - log pi_base(y) in nats of each, where pi is who said it; its mean estimates the KL divergence."""
        return [(one.logprob or 0) - total for one, total in zip(said, self(said), strict=True)]

    def __call__(self, said: Sequence[Said]) -> list[float]:
        values: list[float] = []
        for start in range(0, len(said), self.batch_size):
            batch = said[start : start + self.batch_size]
            keys = [{**self.key, "prompt": one.prompt_ids, "response": one.ids} for one in batch]
            values += self.cache.complete(keys, partial(self._compute, batch))[0]
        return values

    def _compute(self, batch: Sequence[Said]) -> list[float]:
        from align.models.logprobs import total_logprobs

        if self.model is None:
            say("measuring the distance to the base")
            self.model = load_causal_lm(self.source).to(device()).eval()
        prompts, texts = [list(one.prompt_ids or []) for one in batch], [list(one.ids or []) for one in batch]
        return total_logprobs(self.model, prompts, texts, self.temperature)
