"""Judges: what says which of two responses is better. Each is checked before anything slow begins.

Reward models and functions give every response a score, and the higher one is better. Language models, people, and
functions that compare, say which of two they prefer: see llm_judge.py and people.py.
"""

import inspect
import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from align.data.lengths import check_prompts, context_length
from align.data.load import data_facts
from align.evaluate.best_of import Picker
from align.evaluate.config import EvaluateConfig, JudgeKeys, ModelKeys
from align.evaluate.endpoint import whole
from align.evaluate.evidence import Judged, Messages, Prompt, Said
from align.evaluate.lineage import lineage_of, own_weights, trained_by_function, trained_by_weights
from align.evaluate.llm_judge import LanguageJudge, open_language_judge
from align.evaluate.pairwise import in_both_orders
from align.evaluate.people import open_people
from align.evaluate.verdicts import prefer
from align.models.chain import check_parent
from align.models.load import find_model, has_score_head, load_config, load_tokenizer, weights_of
from align.models.rewards import Rewards, load_function
from align.models.scores import conversation_ids
from align.run.cache import Cache
from align.run.progress import Progress, say
from preferences.errors import BadInput

Conversation = tuple[Messages, str]  # (prompt, response)
LARGEST_SCORE = 1e100  # whose squares can be added up


class Judge(Protocol):
    """Whoever judges. Nothing is loaded or asked before `judge` is called."""

    def judge(
        self,
        base: str,
        prompts: Sequence[Prompt],
        responses: Mapping[str, Sequence[Said]],
        cache: Cache,
    ) -> Judged:
        """What it says of each model's response to each prompt, beside the base's. Raises BadInput."""
        ...


def open_judges(args: EvaluateConfig, prompts: Sequence[Prompt], where: str) -> dict[str, Judge]:
    """The judges by name, all checked: files, functions, reward runs and their lineage, templates, endpoints.

    Nothing is loaded but tokenizers and your functions' files. Raises BadInput.
    """
    opened: dict[str, Judge] = {}
    turns = [prompt.turns for prompt in prompts]
    longest = max([args.max_new_tokens, *(keys.max_new_tokens or 0 for keys in args.models.values())])
    for name, keys in args.judges.items():
        at = f"{where}: judge {name}"
        if keys.reward_model is not None:
            reward = RewardJudge(name, keys.reward_model, keys.gold, args.batch_size)
            reward.check(turns, longest)
            opened[name] = reward
        elif keys.judgements is not None:
            opened[name] = open_people(name, keys.judgements, prompts, args.models, at)
        elif keys.language_model is not None:
            opened[name] = open_language_judge(name, keys, turns, longest, args.batch_size, at)
        else:
            opened[name] = FunctionJudge(name, keys)
    _look_at_lineage(args, opened, where)
    return opened


class RewardJudge:
    """A reward run, loaded alone, as it was trained. `facts`: what metrics.json says of it."""

    def __init__(self, name: str, source: str, gold: bool, batch_size: int) -> None:
        self.name = name
        self.source = source
        self.batch_size = batch_size
        self.facts: dict[str, Any] = {"kind": "reward model", "source": source, "gold": gold}
        self._model: Any = None

    def check(self, prompts: Sequence[Messages], new_tokens: int) -> None:
        """Raises BadInput when it is no reward model, or a prompt with so many new tokens doesn't fit it."""
        source = find_model(self.source)
        if not has_score_head(source):
            raise BadInput(f"{self.source}: holds no score head, so it is not a reward model; `align reward` makes one")
        check_parent(source)
        context = context_length(load_config(source))
        check_prompts(load_tokenizer(source), prompts, new_tokens, context, f"the reward model {self.source}")

    def score(self, conversations: Sequence[Conversation], cache: Cache | None = None) -> list[float]:
        """The run's own score of each response. Raises BadInput for one that is longer than its context."""
        picker = Picker(self.source, cache or Cache(None), self.batch_size)
        picker.model = self._model
        scores: list[float] = []
        for start in range(0, len(conversations), 8 * self.batch_size):  # what a run that is killed loses at most
            some = conversations[start : start + 8 * self.batch_size]
            scores += picker.scores([prompt for prompt, _ in some], [whole(text) for _, text in some])
        self._model = picker.model
        return scores

    def judge(
        self,
        base: str,
        prompts: Sequence[Prompt],
        responses: Mapping[str, Sequence[Said]],
        cache: Cache,
    ) -> Judged:
        """A response that is longer than its context has no score. The model is let go of afterwards."""
        source = find_model(self.source)
        tokenizer, context = load_tokenizer(source), context_length(load_config(source))
        progress = Progress(self.name, len(responses) * len(prompts), "responses")
        scores: dict[str, list[float | None]] = {}
        for model, said in responses.items():
            given: list[Conversation] = [(p.turns, whole(one.text)) for p, one in zip(prompts, said, strict=True)]
            fits = [context is None or len(conversation_ids(tokenizer, *one)) <= context for one in given]
            found = iter(self.score([one for one, fit in zip(given, fits, strict=True) if fit], cache))
            scores[model] = [next(found) if fit else None for fit in fits]
            progress.tell(len(prompts))
        progress.end()
        self._model = None
        return _by_scores(base, scores, self.facts, self.name)


class FunctionJudge:
    """A Python function of your own, run as it stands. What it takes says what it is:

    (prompt, response)                 a score, more is better
    (prompts, completions, **columns)  the same for many at once: a reward function, as TRL calls them
    (prompt, first, second)            a preference, from 0 (the second is better) to 1 (the first), in both orders

    It may give None where it has nothing to say. Prompts are lists of {role, content}.
    """

    def __init__(self, name: str, keys: JudgeKeys) -> None:
        """Raises BadInput when it can't be loaded."""
        self.name = name
        self.source = keys.source
        self.function = load_function(self.source, "truth" if keys.truth is not None else "function")
        self.facts: dict[str, Any] = {"kind": keys.kind, "source": self.source, "gold": False}
        self.facts["sha256"] = data_facts(self.source.rpartition(":")[0])["sha256"]
        names = _parameters(self.function)
        self.compares = len(names) == 3 and "completions" not in names
        self.is_reward = "completions" in names
        if not self.is_reward and len(names) not in (2, 3):
            raise BadInput(
                f"{self.source}: takes {len(names)} arguments; a judge takes (prompt, response) and gives a score, or"
                " (prompt, first, second) and gives a preference"
            )

    def score(self, conversations: Sequence[Conversation], cache: Cache | None = None) -> list[float]:
        """A number for each response. Raises BadInput where it gives none, or compares and so has none."""
        scores = self._scores(conversations)
        if None in scores:
            raise BadInput(f"{self.source}: gave None for a response, and here a number is needed")
        return [score for score in scores if score is not None]

    def judge(
        self,
        base: str,
        prompts: Sequence[Prompt],
        responses: Mapping[str, Sequence[Said]],
        cache: Cache,
    ) -> Judged:
        """Nothing is kept in the cache: your function may have changed, and what it imports."""
        if not self.compares:
            scores = {
                model: self._scores([(p.turns, one.text) for p, one in zip(prompts, said, strict=True)])
                for model, said in responses.items()
            }
            return _by_scores(base, scores, self.facts, self.name)
        found: dict[tuple[str, int], list[float | None]] = {}
        for model in responses:
            for number, prompt in enumerate(prompts) if model != base else ():
                ours, theirs = responses[model][number].text, responses[base][number].text
                first, second = self._call(prompt.turns, ours, theirs), self._call(prompt.turns, theirs, ours)
                for value in (first, second):
                    if value is not None and not 0 <= value <= 1:
                        raise BadInput(f"{self.source}: gave {value!r}; a preference is a number from 0 to 1")
                found[model, number] = [first, None if second is None else 1 - second]
        preferences, judgements = in_both_orders(self.name, base, prompts, responses, found)
        return Judged(preferences, None, judgements, self.facts)

    def _scores(self, conversations: Sequence[Conversation]) -> list[float | None]:
        if self.is_reward:
            try:
                scores = Rewards([], [self.function])(
                    [p for p, _ in conversations], [text for _, text in conversations]
                )
            except BadInput as error:
                raise BadInput(f"{self.source}: {error}") from None
            return scores.total
        if self.compares:
            raise BadInput(f"{self.source}: compares two responses, and here a score of one is needed")
        return [self._call(prompt, text) for prompt, text in conversations]

    def _call(self, prompt: Messages, *texts: str) -> float | None:
        try:
            value = self.function(prompt, *texts)
        except BadInput:
            raise
        except (Exception, SystemExit) as error:
            trace = error.__traceback__
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            line = "" if trace is None else f", line {trace.tb_lineno}"
            asked = str(prompt[-1]["content"])[:40]
            said = " ".join(str(error).split())
            raise BadInput(
                f"{self.source}: {type(error).__name__}: {said}{line}, for a response to {asked!r}"
            ) from None
        try:
            number = None if value is None else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if number is not None and not math.isfinite(number):
            raise BadInput(f"{self.source}: gave {value!r:.80} for a response, and a judge gives a number")
        return number


def _by_scores(base: str, scores: Mapping[str, Sequence[float | None]], facts: Mapping[str, Any], name: str) -> Judged:
    """What follows from scores; how many responses have none is said."""
    largest = max((abs(score) for values in scores.values() for score in values if score is not None), default=0.0)
    if largest > LARGEST_SCORE:
        raise BadInput(f"judge {name}: gave {largest:g} for a response, which is too large to be averaged")
    without = sum(score is None for values in scores.values() for score in values)
    if without:
        say(f"{name}: {without} responses have no score: it abstained, or they are longer than it can read")
    preferences = {model: prefer(values, scores[base]) for model, values in scores.items() if model != base}
    return Judged(preferences, scores, (), {**facts, "not_judged": without})


def _parameters(function: Any) -> list[str]:
    """The names of what must be given to a function by position."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin says nothing of itself
        return ["prompt", "response"]
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p.name for p in parameters if p.kind in by_place and p.default is inspect.Parameter.empty]
    named = [p.name for p in parameters if p.name == "completions" and p.name not in needed]
    return needed + named


def _look_at_lineage(args: EvaluateConfig, judges: Mapping[str, Judge], where: str) -> None:
    """Note in each judge's facts which models learnt to please it (`trained`), are picked by it (`picks`), or are the
    judge itself (`wrote`).

    Raises BadInput for a gold judge of which either is true: what a model was made to score well on tells nothing about
    whether it is better.
    """
    lineages = {name: lineage_of(keys.model) for name, keys in args.models.items() if keys.endpoint is None}
    unknown = {name: found.unknown for name, found in lineages.items() if found.unknown}
    for name, judge in judges.items():
        if isinstance(judge, RewardJudge):
            weights = own_weights(judge.source)
            trained = [model for model, found in lineages.items() if trained_by_weights(found, weights)]
            picks = [
                model
                for model, keys in args.models.items()
                if keys.reward_model is not None and _same_reward(keys.reward_model, judge.source, weights)
            ]
            if judge.facts["gold"] and trained:
                raise BadInput(
                    f"{where}: judge {name}: {judge.source} is not gold: the model {trained[0]} was trained to please"
                    " it, as the manifest of its run says (same weights); leave `gold` out, or take a reward run kept"
                    " away from training"
                )
            if judge.facts["gold"] and picks:
                raise BadInput(
                    f"{where}: judge {name}: {judge.source} is not gold: the model {picks[0]} is the best of n that it"
                    " picks itself; leave `gold` out, or take another reward run for one of the two"
                )
            if judge.facts["gold"] and unknown:
                model, runs = next(iter(unknown.items()))
                judge.facts["lineage_unknown"] = unknown
                say(f"{name}: whether {model} was trained to please it is not known, since {runs[0]} is gone")
            judge.facts |= {"trained": trained} if trained else {}
            judge.facts |= {"picks": picks} if picks else {}
        elif isinstance(judge, FunctionJudge):
            trained = [model for model, found in lineages.items() if trained_by_function(found, judge.source)]
            judge.facts |= {"trained": trained} if trained else {}
        elif isinstance(judge, LanguageJudge):
            wrote = [model for model, keys in args.models.items() if _same_model(keys, args.judges[name])]
            if wrote:
                judge.facts["wrote"] = wrote
                say(f"{name}: judges its own responses (those of {', '.join(wrote)}); it may like its own style")


def _same_model(keys: ModelKeys, judge: JudgeKeys) -> bool:
    """Whether a compared model is the one that judges: the same at the same endpoint, or the same weights."""
    if keys.endpoint is not None or judge.endpoint is not None:
        return (keys.endpoint, keys.model) == (judge.endpoint, judge.language_model)
    return keys.model == judge.language_model or weights_of(find_model(keys.model)) == weights_of(
        find_model(judge.source)
    )


def _same_reward(one: str, other: str, weights: dict[str, str]) -> bool:
    return one == other or (bool(weights) and own_weights(one) == weights)
