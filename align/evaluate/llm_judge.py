"""A language model as a judge: shown the base's response and another model's, in both orders, it says which is better.

Every reply is kept by the content of its question, so a run that is killed goes on where it was, and no question is
paid for twice. How far such a judge can be trusted is measured beside it: see align.evaluate.judge_agreement.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from align.data.lengths import context_length
from align.evaluate.config import JudgeKeys
from align.evaluate.endpoint import Refused, at_once, check_endpoint, reply
from align.evaluate.evidence import Judged, Messages, Prompt, Said
from align.evaluate.local_verdicts import likeliest, longest_question, question_ids
from align.evaluate.pairwise import Template, fill, in_both_orders, read_template, verdict
from align.models.load import (
    device,
    find_model,
    has_score_head,
    load_causal_lm,
    load_config,
    load_tokenizer,
    weights_of,
)
from align.run.cache import Cache
from align.run.progress import Progress, say
from preferences.errors import BadInput

REPLY_TOKENS = 2048  # of a judge that says why, and may think first

Hear = Callable[[int, str | None], None]  # (number of a question, the reply, or None where there can't be one)


class Question(NamedTuple):
    """order 0: the model's response is shown first; 1: the base's."""

    model: str
    number: int
    order: int
    text: str


def open_language_judge(
    name: str, keys: JudgeKeys, prompts: Sequence[Messages], new_tokens: int, batch_size: int, where: str
) -> "LanguageJudge":
    """The judge, checked: its template, and that the model is there, or that the endpoint answers. Raises BadInput."""
    assert keys.language_model is not None
    template = read_template(keys.template or "helpful", where)
    model: Endpoint | Local
    if keys.endpoint is not None:
        check_endpoint(keys.endpoint, keys.language_model, keys.api_key_env, where)
        model = Endpoint(keys.endpoint, keys.language_model, keys.api_key_env)
    else:
        model = Local(keys.language_model, batch_size)
        model.check(template, prompts, new_tokens, where)
    return LanguageJudge(name, model, template)


class LanguageJudge:
    """See align.evaluate.judges.Judge. `model` says how questions get their replies; `facts` what the judge is."""

    def __init__(self, name: str, model: "Endpoint | Local", template: Template) -> None:
        self.name = name
        self.model = model
        self.template = template
        self.facts: dict[str, Any] = {"kind": "language model", "source": model.source, "gold": False}
        self.facts["template"] = {"name": template.name, "sha256": template.sha256}

    def judge(
        self,
        base: str,
        prompts: Sequence[Prompt],
        responses: Mapping[str, Sequence[Said]],
        cache: Cache,
    ) -> Judged:
        """Two responses with the same text are a tie without being shown. An item whose replies give no clear verdict
        in both orders has none: with one order alone its place could decide.
        """
        questions = []
        counts: Counter[str] = Counter()
        for model in responses:
            for number, prompt in enumerate(prompts) if model != base else ():
                ours, theirs = responses[model][number].text, responses[base][number].text
                if ours == theirs:
                    counts["same_text"] += 1
                    continue
                for order, (first, second) in enumerate([(ours, theirs), (theirs, ours)]):
                    questions.append(Question(model, number, order, fill(self.template, prompt.turns, first, second)))
        replies = self._replies([question.text for question in questions], cache)
        found: dict[tuple[str, int], list[float | None]] = {}
        for question, said in zip(questions, replies, strict=True):
            shown_first = None if said is None else verdict(said)
            counts["questions"] += 1
            counts["too_long"] += said is None
            counts["unparsable"] += said is not None and shown_first is None
            preference = shown_first if shown_first is None or question.order == 0 else 1 - shown_first
            found.setdefault((question.model, question.number), []).append(preference)
        counts["not_judged"] = sum(None in both for both in found.values())
        preferences, judgements = in_both_orders(self.name, base, prompts, responses, found)
        if counts["unparsable"] or counts["too_long"]:
            say(
                f"{self.name}: of {counts['questions']} questions {counts['unparsable']} got a reply without a clear"
                f" verdict, and {counts['too_long']} were too long; {counts['not_judged']} pairs are left out"
            )
        return Judged(preferences, None, judgements, {**self.facts, **_counted(counts)})

    def _replies(self, questions: Sequence[str], cache: Cache) -> list[str | None]:
        """The judge's reply to each question; each different question is asked once, if it never was before."""
        different = list(dict.fromkeys(questions))
        keys = [{"what": "verdict", **self.model.key, "question": text} for text in different]
        replies: dict[str, str | None] = {}
        for text, key in zip(different, keys, strict=True):
            kept = cache.get(key)
            if kept is not None:
                replies[text] = kept["reply"]
        asked = [number for number, text in enumerate(different) if text not in replies]
        if not asked:
            return [replies[text] for text in questions]
        progress = Progress(self.name, len(different), "questions", done=len(replies))
        one_at_a_time = threading.Lock()

        def hear(place: int, reply: str | None) -> None:
            number = asked[place]
            with one_at_a_time:
                replies[different[number]] = reply
                if reply is not None:  # whether a question is too long may be mended
                    cache.put(keys[number], {"reply": reply})
                progress.tell(1)

        self.model.ask([different[number] for number in asked], hear)
        progress.end()
        if self.model.refusal and all(reply is None for reply in replies.values()):  # it is not the questions
            raise BadInput(f"judge {self.name}: {self.model.refusal}")
        return [replies[text] for text in questions]


class Endpoint:
    """A model behind an OpenAI-compatible address. It is asked without chance, and says why before its verdict."""

    def __init__(self, endpoint: str, model: str, api_key_env: str | None) -> None:
        self.endpoint = endpoint
        self.model = model
        self.api_key_env = api_key_env
        self.source = f"{model} at {endpoint}"
        self.key = {"endpoint": endpoint, "model": model, "max_tokens": REPLY_TOKENS}
        self.refusal = ""  # of a question, in the server's words

    def ask(self, questions: Sequence[str], hear: Hear) -> None:
        """A question that the server won't take (too long, say) has no reply. Raises BadInput for other trouble."""

        def one(number: int) -> None:
            said = None
            try:
                said = reply(
                    self.endpoint,
                    self.model,
                    [{"role": "user", "content": questions[number]}],
                    api_key_env=self.api_key_env,
                    max_tokens=REPLY_TOKENS,
                    temperature=0.0,
                    seed=0,
                ).text
            except Refused as error:
                self.refusal = str(error)
            hear(number, said)

        at_once(one, range(len(questions)))


class Local:
    """A causal model that runs here: the likeliest of the three verdicts is its reply."""

    def __init__(self, name: str, batch_size: int) -> None:
        """Raises BadInput where there is no such model."""
        self.found = find_model(name)
        self.source = name
        self.batch_size = batch_size
        self.key = {"weights": weights_of(self.found)}
        self.refusal = ""  # it takes what fits

    def check(self, template: Template, prompts: Sequence[Messages], new_tokens: int, where: str) -> None:
        """Raises BadInput for a prompt that leaves no room for two responses of so many tokens."""
        if has_score_head(self.found):
            raise BadInput(f"{where}: {self.source} is a reward model, which scores texts; name it as a `reward_model`")
        tokenizer = load_tokenizer(self.found)
        most = longest_question(tokenizer, context_length(load_config(self.found)))
        for number, prompt in enumerate(prompts, start=1):
            length = len(question_ids(tokenizer, fill(template, prompt, "", "")))
            if most is not None and length + 2 * new_tokens > most:
                raise BadInput(
                    f"{where}: prompt {number} in the template {template.name} has {length} tokens, and with two"
                    f" responses of {new_tokens} that is more than the {most} that {self.source} can read; take a judge"
                    " with a longer context, a shorter template, or shorter responses"
                )

    def ask(self, questions: Sequence[str], hear: Hear) -> None:
        """The model is loaded for it, and let go of afterwards."""
        tokenizer = load_tokenizer(self.found)
        most = longest_question(tokenizer, context_length(load_config(self.found)))
        fit = []
        for number, question in enumerate(questions):
            if most is None or len(question_ids(tokenizer, question)) <= most:
                fit.append(number)
            else:
                hear(number, None)
        if not fit:
            return
        model = load_causal_lm(self.found).to(device()).eval()

        def heard(place: int, name: str) -> None:
            hear(fit[place], f"Verdict: {name}")

        likeliest(model, tokenizer, [questions[number] for number in fit], self.batch_size, heard)


def _counted(counts: Counter[str]) -> dict[str, int]:
    """What became of the questions: `not_judged` are pairs of responses without a verdict in both orders."""
    return {name: counts[name] for name in ("questions", "unparsable", "too_long", "not_judged", "same_text")}
