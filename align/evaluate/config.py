"""The keys of an evaluation recipe, and all that can be said against them before a model or a file is looked at."""

import math
import re
from dataclasses import dataclass, field
from typing import Any, Literal

from align.config import parse
from preferences.errors import BadInput

CACHE = "~/.cache/concord/evaluate"
_PLAIN = re.compile(r"[\w .+-]+")  # names become parts of files' names
LONGEST = 150  # bytes of a name, so that it fits into a file's name with what stands around it

JudgeKind = Literal["known truth", "people", "reward model", "language model", "function", "judgements"]

# The keys that say what judges, of which a judge has exactly one, with the kind of judge that they make.
_JUDGES: dict[str, JudgeKind] = {
    "reward_model": "reward model",
    "function": "function",
    "truth": "known truth",
    "judgements": "judgements",  # or people, by what the file says
    "language_model": "language model",
}


@dataclass(kw_only=True)
class ModelKeys:
    """`models.NAME`: a model to compare, and how it samples where that differs from the others."""

    model: str  # a hub name, a model folder, an adapter, a run, or a checkpoint of one; or what an endpoint calls it
    endpoint: str | None = None  # of an OpenAI-compatible server, up to and with /v1
    api_key_env: str | None = None  # the environment variable with the endpoint's key
    best_of: int | None = None  # sample so many, and take what `reward_model` likes best
    reward_model: str | None = None
    temperature: float | None = None
    max_new_tokens: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        _check_endpoint(self.endpoint, self.api_key_env)
        _check_sampling(self.temperature, self.max_new_tokens)
        if self.best_of is not None and self.best_of < 2:
            raise ValueError(f"key `best_of`: {self.best_of} is less than 2, and there is nothing to pick from")
        if self.best_of is not None and self.reward_model is None:
            raise ValueError("key `reward_model`: missing; say which reward run picks the best")
        if self.best_of is None and self.reward_model is not None:
            raise ValueError("key `best_of`: missing; say how many samples `reward_model` picks from")


@dataclass(kw_only=True)
class JudgeKeys:
    """`judges.NAME`: what says which response is better."""

    reward_model: str | None = None  # a reward run
    function: str | None = None  # file.py:function, from (prompt, response) to a number; more is better
    truth: str | None = None  # the same, where it is the known truth, as with simulated raters
    judgements: str | None = None  # a judgements file: what people, or others, said about these responses
    language_model: str | None = None  # a model that compares the responses: local, or at `endpoint`
    gold: bool = False  # kept away from training
    endpoint: str | None = None
    api_key_env: str | None = None
    template: str | None = None  # a file with the question to the language model

    def __post_init__(self) -> None:
        given = [key for key in _JUDGES if getattr(self, key) is not None]
        if len(given) != 1:
            keys = ", ".join(f"`{key}`" for key in _JUDGES)
            raise ValueError(f"{' and '.join(given) or 'no judge'}: give one of {keys}")
        for key in ("endpoint", "api_key_env", "template"):
            if getattr(self, key) is not None and self.language_model is None:
                raise ValueError(f"key `{key}`: is for a `language_model`, and this judge is a `{given[0]}`")
        if self.gold and self.reward_model is None:
            raise ValueError(f"key `gold`: is for a `reward_model`, and this judge is a `{given[0]}`")
        _check_endpoint(self.endpoint, self.api_key_env)

    @property
    def kind(self) -> JudgeKind:
        return next(kind for key, kind in _JUDGES.items() if getattr(self, key) is not None)

    @property
    def source(self) -> str:
        """The model, the function or the file that judges."""
        return str(next(getattr(self, key) for key in _JUDGES if getattr(self, key) is not None))


@dataclass(kw_only=True)
class FrontierKeys:
    """`frontier`: how far a run's checkpoints, and best of n, went, and what they won by it."""

    run: str
    gold: str  # the judge that says what is really won
    reward_model: str | None = None  # what was trained against; the run's own by default
    best_of: int = 16

    def __post_init__(self) -> None:
        if self.best_of < 2:
            raise ValueError(f"key `best_of`: {self.best_of} is less than 2, and there is nothing to pick from")


@dataclass(kw_only=True)
class EvaluateConfig:
    """The keys of an evaluation recipe."""

    output_dir: str
    models: dict[str, ModelKeys]  # what is compared
    dataset_name: str  # its prompts, and its pairs for the reward models' accuracy
    judges: dict[str, JudgeKeys] = field(default_factory=dict)  # who says which response is better
    base: str = "base"  # the name of the model that the others are compared with
    dataset_config: str | None = None
    dataset_split: str = "test"
    num_prompts: int | None = None  # the first ones; all by default
    challenge_sets: dict[str, str] | None = None  # prompts that are reported by themselves, never in the verdict
    perplexity_on: str | None = None  # held-out texts; a preferences folder's demonstrations by default
    frontier: FrontierKeys | None = None
    harness_tasks: list[str] | None = None  # of lm-evaluation-harness
    cache_dir: str | None = CACHE  # responses and verdicts by content; null: none is kept beyond the run
    title: str | None = None
    max_new_tokens: int = 256
    temperature: float = 0.7
    batch_size: int = 16
    seed: int = 42

    def __post_init__(self) -> None:
        for key in ("num_prompts", "batch_size"):
            if getattr(self, key) is not None and getattr(self, key) < 1:
                raise ValueError(f"key `{key}`: {getattr(self, key)} is less than 1")
        _check_sampling(self.temperature, self.max_new_tokens)
        for key, what in (("models", self.models), ("judges", self.judges), ("challenge_sets", self.challenge_sets)):
            for name in what or {}:
                if not _PLAIN.fullmatch(name) or name.startswith("."):
                    raise ValueError(f"key `{key}`: {name!r} is not a plain name; it becomes part of a file's name")
                if len(name.encode()) > LONGEST:
                    raise ValueError(f"key `{key}`: {name[:40]}… is too long for a name; {LONGEST} bytes are the most")
        if self.base not in self.models:
            raise ValueError(f"key `base`: there is no model {self.base!r} among the models {', '.join(self.models)}")
        if self.models[self.base].best_of is not None:
            raise ValueError(f"key `base`: {self.base!r} is a best of n; compare with a model that answers once")
        if self.frontier is not None and self.frontier.gold not in self.judges:
            named = ", ".join(self.judges) or "none"
            raise ValueError(
                f"key `frontier.gold`: there is no judge {self.frontier.gold!r} among the judges ({named})"
            )


def read_evaluation(recipe: dict[str, Any], where: str) -> EvaluateConfig:
    """The recipe, checked. A model or a judge may stand as one text for short. Raises BadInput."""
    if "reward_model_path" in recipe or "truth" in recipe:  # as it was called until several judges could be named
        old = "reward_model_path" if "reward_model_path" in recipe else "truth"
        new = f"reward: {recipe[old]}" if old == "reward_model_path" else f"truth: {{truth: {recipe[old]}}}"
        raise BadInput(f"{where}: unknown key `{old}`; write `judges: {{{new}}}`")
    known: dict[str, Any] = dict(recipe)
    for key, reading in (("models", _model), ("judges", _judge)):
        if isinstance(recipe.get(key), dict):
            known[key] = {
                str(name): reading(value) if isinstance(value, str) else value for name, value in recipe[key].items()
            }
        elif isinstance(recipe.get(key), str):
            name = "reward" if key == "judges" else "base"
            raise BadInput(f"{where}: key `{key}`: give each a name, as in `{key}: {{{name}: {recipe[key]}}}`")
    args: EvaluateConfig = parse(known, (EvaluateConfig,), where)[0]
    return args


def _model(text: str) -> dict[str, Any]:
    return {"model": text}


def _judge(text: str) -> dict[str, Any]:
    """What judges, told by how it is written: people.jsonl, rewards.py:concise, or else a reward run."""
    if text.endswith(".jsonl"):
        return {"judgements": text}
    if re.fullmatch(r".+\.py:\w+", text):
        return {"function": text}
    return {"reward_model": text}


def _check_sampling(temperature: float | None, max_new_tokens: int | None) -> None:
    if temperature is not None and not 0 < temperature < math.inf:
        raise ValueError(f"key `temperature`: {temperature} is not above 0")
    if max_new_tokens is not None and max_new_tokens < 1:
        raise ValueError(f"key `max_new_tokens`: {max_new_tokens} is less than 1")


def _check_endpoint(endpoint: str | None, api_key_env: str | None) -> None:
    if endpoint is not None and "@" in endpoint:
        raise ValueError("key `endpoint`: has a name or a password in it; name its key's variable by `api_key_env`")
    if endpoint is not None and not re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", endpoint):
        raise ValueError(f"key `endpoint`: {endpoint!r} is no address of a server; write it like http://host:8000/v1")
    if api_key_env is not None and not re.fullmatch(r"[A-Za-z_]\w*", api_key_env):
        raise ValueError("key `api_key_env`: is the name of an environment variable, as MY_KEY, and not the key itself")
    if api_key_env is not None and endpoint is None:
        raise ValueError("key `api_key_env`: is for an `endpoint`, and there is none")
