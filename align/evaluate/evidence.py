"""What an evaluation knows once every model has answered and every judge has spoken; all numbers are made of this."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from preferences.files import sha256_json
from preferences.judgements import Judgement

Messages = list[dict[str, str]]
MAIN = ""  # the set of the prompts that the verdict is about; challenge sets have names


class Prompt(NamedTuple):
    """A held-out prompt. `id` is a hash of its text; `set` is MAIN or the name of a challenge set."""

    id: str
    turns: Messages
    set: str = MAIN
    tags: Sequence[str] = ()
    group: str | None = None
    reference: str | None = None


def main_numbers(prompts: Sequence[Prompt]) -> list[int]:
    """The numbers of the prompts that the verdict is about."""
    return [number for number, prompt in enumerate(prompts) if prompt.set == MAIN]


class Said(NamedTuple):
    """A model's response to a prompt. Tokens and log-probability are known of models that run here."""

    text: str
    ended: bool | None = None
    prompt_ids: Sequence[int] | None = None
    ids: Sequence[int] | None = None
    logprob: float | None = None  # in nats, at the sampling temperature, under the model itself


def pair_id(prompt: str, responses: Mapping[str, str]) -> str:
    """The id under which people are asked about two models' responses ({model: text}) to a prompt, by its id.

    It is the prompt's id, a dash, and a hash of models and texts: so what people say about other responses than these,
    of an earlier version of a model, can't be taken for a verdict on these.
    """
    return f"{prompt}-{sha256_json(dict(responses))[:8]}"


class Judged(NamedTuple):
    """What one judge says. `preferences[model][n]`: does it prefer the model's response to prompt n to the base's?

    1 = yes, 0 = no, 0.5 = tie, None = not judged. `scores` are those of judges that give each response one (higher is
    better), else None. `judgements` are the single verdicts of judges that compare (people, language models), else ().
    `facts` say what the judge is: see `judges` in docs/evaluation.md.
    """

    preferences: Mapping[str, Sequence[float | None]]
    scores: Mapping[str, Sequence[float | None]] | None
    judgements: Sequence[Judgement]
    facts: Mapping[str, Any]


class Evidence(NamedTuple):
    """Everything said. Lists run along `prompts`; `base` is one of the models."""

    base: str
    prompts: Sequence[Prompt]
    responses: Mapping[str, Sequence[Said]]  # by model
    judged: Mapping[str, Judged]  # by judge
