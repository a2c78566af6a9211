"""Where rewards come from: reward runs, one or an ensemble, and plain Python functions, made into one score a response.

PPO, RLOO and GRPO share it, so the same keys of a recipe mean the same numbers.
"""

import asyncio
import importlib.util
import inspect
import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from align.data.load import data_facts
from align.models.chain import as_trained, check_parent, check_same_tokenizer
from align.models.load import ModelSource, device, find_model, load_tokenizer, model_facts
from align.models.scores import RewardModel, load_scorer
from preferences.errors import BadInput
from preferences.files import read_json

if TYPE_CHECKING:
    from trl import ModelConfig

Function = Callable[..., Any]
Ensemble = Literal["mean", "min", "mean_minus_std"]


@dataclass(kw_only=True)
class RewardArguments:
    """The keys of a recipe that say what a response is worth: reward runs, Python functions, or both."""

    reward_model_path: list[str] | None = None
    reward_funcs: list[str] | None = None  # "path/to/file.py:function"
    reward_weights: list[float] | None = None  # one for all reward runs together, then one a function; None: 1 each
    ensemble: Ensemble = "mean"  # how several reward runs become one score
    ensemble_std_coef: float = 1.0  # of mean_minus_std
    normalize_scores: bool | None = None  # by the mean and spread kept in the reward run; None: when there are several

    def __post_init__(self) -> None:
        for name in ("reward_model_path", "reward_funcs"):  # one alone may stand without brackets
            if isinstance(getattr(self, name), str):
                setattr(self, name, [getattr(self, name)])
        if not 0 <= self.ensemble_std_coef < math.inf:
            raise ValueError(f"key `ensemble_std_coef`: {self.ensemble_std_coef} is not a number of 0 or more")


class Scores(NamedTuple):
    """What b responses are worth. None where nobody said anything: every source abstained."""

    total: list[float | None]
    parts: dict[str, list[float | None]]  # by source, before its weight; an ensemble's "spread" is beside it


class Rewards:
    """The reward sources of a recipe: all reward runs together are one source, each function is another.

    The score is the weighted sum over the sources that don't abstain.
    """

    def __init__(
        self,
        models: Sequence[RewardModel],
        functions: Sequence[Function],
        *,
        weights: Sequence[float] | None = None,
        ensemble: Ensemble = "mean",
        std_coef: float = 1.0,
        normalize: bool | None = None,
        batch_size: int = 8,
    ) -> None:
        """weights: one a source, None for 1 each. normalize: by what the reward runs kept of their scores; None where
        there are several, since each run's zero and unit are its own. Raises BadInput.
        """
        self.models = list(models)
        self.functions = list(functions)
        self.names = (["reward_model"] if models else []) + [function_name(f) for f in functions]
        if not self.names:
            raise BadInput("no reward: name a reward run in `reward_model_path`, or a function in `reward_funcs`")
        if weights is not None and len(weights) != len(self.names):
            raise BadInput(
                f"key `reward_weights`: {len(weights)} weights for {len(self.names)} sources ({', '.join(self.names)})"
            )
        self.weights = list(weights) if weights is not None else [1.0] * len(self.names)
        self.ensemble = ensemble
        self.std_coef = std_coef
        scaled = len(self.models) > 1 if normalize is None else normalize
        self.moments = [score_moments(model.name) if scaled else (0.0, 1.0) for model in self.models]
        self.batch_size = batch_size

    def __call__(
        self, prompts: Sequence[Any], texts: Sequence[str], columns: dict[str, list[Any]] | None = None
    ) -> Scores:
        """prompts: b lists of turns; texts: b responses; columns: the data's other columns, b values each.

        Raises BadInput for a function that fails, returns the wrong count, or something that is no number or None.
        """
        parts: dict[str, list[float | None]] = {}
        sources: list[list[float | None]] = []
        if self.models:
            each = []
            for model, (mean, std) in zip(self.models, self.moments, strict=True):
                scores = model.scores(prompts, texts, self.batch_size)
                each.append([(score - mean) / std for score in scores])
            together = [combine(scores, self.ensemble, self.std_coef) for scores in zip(*each, strict=True)]
            sources.append(list(together))
            if len(self.models) > 1:
                parts["spread"] = [_std(scores) for scores in zip(*each, strict=True)]
        if self.functions:
            sources += _call_all(self.functions, self.names[-len(self.functions) :], prompts, texts, columns or {})
        parts |= dict(zip(self.names, sources, strict=True))
        total = [
            sum(weight * part for weight, part in zip(self.weights, row, strict=True) if part is not None)
            if any(part is not None for part in row)
            else None
            for row in zip(*sources, strict=True)
        ]
        return Scores(total, parts)


def load_rewards(
    args: RewardArguments,
    device: Any,
    batch_size: int,
    policy: ModelSource | None = None,
    model_args: "ModelConfig | None" = None,
) -> Rewards:
    """The rewards of a recipe, its reward runs as models of their own. Raises BadInput.

    A run that stands on `policy`'s base is loaded as `model_args` say (in 4 bits, say), so that it scores as in PPO,
    where it shares that base.
    """
    from align.models.roles import stands_on

    functions = [load_function(name) for name in args.reward_funcs or ()]
    runs = [find_model(name) for name in args.reward_model_path or ()]
    for run in runs:
        check_parent(run)
        if policy is not None and stands_on(run, policy):
            check_same_tokenizer(policy, load_tokenizer(policy), run, load_tokenizer(run))
    models = [
        load_scorer(run.name, device, model_args if policy is not None and stands_on(run, policy) else None)
        for run in runs
    ]
    return Rewards(
        models,
        functions,
        weights=args.reward_weights,
        ensemble=args.ensemble,
        std_coef=args.ensemble_std_coef,
        normalize=args.normalize_scores,
        batch_size=batch_size,
    )


def load_as_trained(name: str) -> RewardModel:
    """A reward run alone, on the base that it was trained on: the same weights, and quantised where they were.

    Any other classifier with one output is taken as it is. Raises BadInput.
    """
    check_parent(find_model(name))
    held = as_trained(name)
    model_args = held if held is not None and (held.load_in_4bit or held.load_in_8bit) else None
    return load_scorer(name, device(), model_args)


def reward_facts(runs: Sequence[ModelSource], functions: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """What a run's manifest says about its reward runs, and about the files of its reward functions, with hashes."""
    facts = {f"reward_model_{number}" if number else "reward_model": model_facts(r) for number, r in enumerate(runs)}
    files = dict.fromkeys(name.rpartition(":")[0] for name in functions)
    return facts | {f"reward_function_{number}": data_facts(file) for number, file in enumerate(files, start=1)}


def limited(score: float | None, ended: bool, clip: float | None, penalty: float | None) -> float | None:
    """A score within ± clip, less the penalty where the response did not end by itself; None stays None."""
    if score is None:
        return None
    if clip is not None:
        score = min(max(score, -clip), clip)
    return score if ended else score - (penalty or 0.0)


def combine(scores: Sequence[float], ensemble: Ensemble, std_coef: float) -> float:
    """One score from an ensemble's: their mean, the least (Coste et al., arXiv 2310.02743, worst-case optimisation),
    or the mean less std_coef times the (population) standard deviation (there uncertainty-weighted, with the variance).
    """
    if ensemble == "min":
        return min(scores)
    mean = sum(scores) / len(scores)
    return mean if ensemble == "mean" else mean - std_coef * _std(scores)


def _std(scores: Sequence[float]) -> float:
    mean = sum(scores) / len(scores)
    return math.sqrt(sum((score - mean) ** 2 for score in scores) / len(scores))


def score_moments(run: str) -> tuple[float, float]:
    """(mean, standard deviation) of a reward run's scores on its training data, from its manifest. Raises BadInput."""
    path = Path(run) / "manifest.json"
    moments = read_json(path).get("scores") if path.is_file() else None
    if not moments:
        raise BadInput(
            f"reward_model_path {run}: keeps no mean and spread of its scores, which `normalize_scores` and ensembles"
            " need; train it again with `align reward`"
        )
    return float(moments["mean"]), max(float(moments["std"]), 1e-8)


def load_function(name: str, key: str = "reward_funcs") -> Function:
    """The Python function `path/to/file.py:function`. It is your code, run as it stands. Raises BadInput."""
    file, _, function = name.rpartition(":")
    if not Path(file).is_file():
        raise BadInput(f"{key} {name}: no such file; write it as path/to/file.py:function")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None:
        raise BadInput(f"{key} {name}: {file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise BadInput(f"{key} {name}: {file} could not be run ({type(error).__name__}: {error})") from None
    found = getattr(module, function, None)
    if not callable(found):
        raise BadInput(f"{key} {name}: {file} has no function {function!r}")
    return found


def function_name(function: Function) -> str:
    """What a reward function is called in metrics and messages."""
    return getattr(function, "__name__", type(function).__name__)


def _call_all(
    functions: Sequence[Function],
    names: Sequence[str],
    prompts: Sequence[Any],
    texts: Sequence[str],
    columns: dict[str, list[Any]],
) -> list[list[float | None]]:
    """Each function's scores. They are called as TRL calls reward functions; those that are async, all at once."""
    given: dict[str, Any] = {key: values for key, values in columns.items() if key not in ("prompts", "completions")}
    given |= {"prompts": list(prompts), "completions": [[{"role": "assistant", "content": text}] for text in texts]}

    async def wait_for(pending: list[Any]) -> list[Any]:
        return list(await asyncio.gather(*pending))

    results: list[Any] = []
    pending: dict[int, Any] = {}
    for number, (function, name) in enumerate(zip(functions, names, strict=True)):
        with _failing(name):
            results.append(function(**given))
        if inspect.isawaitable(results[-1]):
            pending[number] = results[-1]
    if pending:
        with _failing(", ".join(names[number] for number in pending)), ThreadPoolExecutor(1) as pool:
            # in a thread of its own, since a notebook has an event loop running in this one
            done = pool.submit(lambda: asyncio.run(wait_for(list(pending.values())))).result()
        results = [done.pop(0) if number in pending else result for number, result in enumerate(results)]
    return [_checked(name, result, len(texts)) for name, result in zip(names, results, strict=True)]


class _failing:
    """Turns what a reward function raises into one sentence with the function's name and line."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if not isinstance(error, Exception) or isinstance(error, BadInput):
            return
        while trace.tb_next is not None:
            trace = trace.tb_next
        where = f"{Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno}"
        raise BadInput(f"reward function {self.name}: {type(error).__name__}: {error} ({where})") from None


def _checked(name: str, result: Any, count: int) -> list[float | None]:
    try:
        scores = list(result)
    except TypeError:
        raise BadInput(
            f"reward function {name}: returned {json.dumps(result, default=str)[:40]}, and not a list of {count} scores"
        ) from None
    if len(scores) != count:
        raise BadInput(f"reward function {name}: returned {len(scores)} scores for {count} responses")
    checked: list[float | None] = []
    for number, score in enumerate(scores, start=1):
        try:
            value = None if score is None else float(score)
        except (TypeError, ValueError, OverflowError):
            value = math.nan
        if value is not None and not math.isfinite(value):
            raise BadInput(
                f"reward function {name}: gave {score!r:.80} for response {number} of {count}; give a number, or"
                " None to abstain"
            )
        checked.append(value)
    return checked
