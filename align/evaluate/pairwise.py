"""Judging two responses side by side: what a language model is asked, what of its reply counts, and both orders as one.

Responses are hostile input: they may hold braces, our own delimiters, or verdicts. A template is filled in one pass, so
nothing in a text is filled again; what separates the texts is a mark that depends on them and stands in none of them; a
verdict is read from the judge's reply only. What a text *says* to the judge can't be kept from it.
"""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from align.evaluate.endpoint import whole
from align.evaluate.evidence import Prompt, Said
from preferences.errors import BadInput
from preferences.judgements import Judgement

TEMPLATES = Path(__file__).parent / "templates"
NEEDED = ("prompt", "first", "second")
LONGEST_TEMPLATE = 100_000  # characters
VERDICTS = {"1": 1.0, "2": 0.0, "tie": 0.5}  # preference for the response that was shown first

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_VERDICT = re.compile(r"verdict\s*:\s*(1|2|tie)", re.IGNORECASE)


class Template(NamedTuple):
    """A text with {prompt}, {first} and {second} in it, and, where it separates the texts by it, {mark}."""

    name: str
    text: str
    sha256: str  # of the file


def read_template(name: str, where: str) -> Template:
    """A file, or one of ours by its name (helpful, harmless). Raises BadInput for what can't be a template."""
    ours = {path.stem: path for path in sorted(TEMPLATES.glob("*.txt"))}
    path = ours.get(name, Path(name).expanduser())
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise BadInput(
            f"{where}: key `template`: cannot read {name} ({error.strerror}); give a text file, or one of"
            f" {', '.join(ours)}"
        ) from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{where}: key `template`: {name} is not UTF-8 ({error.reason}); save it as UTF-8") from None
    if len(text) > LONGEST_TEMPLATE:
        raise BadInput(f"{where}: key `template`: {name} has {len(text)} characters; {LONGEST_TEMPLATE} are the most")
    found = _PLACEHOLDER.findall(text)
    for needed in NEEDED:
        if needed not in found:
            raise BadInput(
                f"{where}: key `template`: {name} has no {{{needed}}}; it needs {{prompt}}, {{first}} and {{second}}"
            )
    if unknown := [one for one in found if one not in (*NEEDED, "mark")]:
        raise BadInput(
            f"{where}: key `template`: {name} has {{{unknown[0]}}}, which nothing fills; there are {{prompt}},"
            " {first}, {second} and {mark}"
        )
    return Template(name, text, sha256(data).hexdigest())


def fill(template: Template, prompt: Sequence[dict[str, str]], first: str, second: str) -> str:
    """The question to the judge. The texts stand in it as they are, but for halves of characters, which become U+FFFD.

    {mark} is a line's beginning that nobody can have foreseen who wrote one of the texts.
    """
    texts = {"prompt": as_text(prompt), "first": whole(first), "second": whole(second)}
    texts["mark"] = _mark(list(texts.values()))
    return _PLACEHOLDER.sub(lambda found: texts[found[1]], template.text)


def as_text(turns: Sequence[dict[str, str]]) -> str:
    """A prompt as text: what the person says, and where there are several turns who says what."""
    if len(turns) == 1 and turns[0]["role"] == "user":
        return whole(turns[0]["content"])
    return "\n\n".join(f"{turn['role'].capitalize()}: {whole(turn['content'])}" for turn in turns)


def verdict(reply: str) -> float | None:
    """The preference for the response shown first: 1, 0, or 0.5 for a tie. None where the reply gives no clear verdict.

    Its last line that is not blank must be `Verdict: 1`, `Verdict: 2` or `Verdict: tie` (in any case, in bold or not),
    and no other line may be another verdict. Nothing else is read as one.
    """
    lines = [line.strip(" \t\r*_`.") for line in reply.splitlines()]
    lines = [line for line in lines if line]
    if not lines:
        return None
    found = [match for line in lines if (match := _VERDICT.fullmatch(line.replace("*", "")))]
    said = {match[1].lower() for match in found}
    if len(said) != 1 or found[-1].string != lines[-1].replace("*", ""):
        return None
    return VERDICTS[said.pop()]


def _mark(texts: Sequence[str]) -> str:
    salt = 0
    while True:
        digest = sha256("\0".join([str(salt), *texts]).encode()).hexdigest()
        mark = f"#### {digest[:12]}"
        if not any(mark in text for text in texts):
            return mark
        salt += 1


def in_both_orders(
    judge: str,
    base: str,
    prompts: Sequence[Prompt],
    responses: Mapping[str, Sequence[Said]],
    found: Mapping[tuple[str, int], Sequence[float | None]],
) -> tuple[dict[str, list[float | None]], list[Judgement]]:
    """(preferences, single verdicts) of what a judge said: by (model, number of a prompt) the preference for the
    model's response over the base's, first where it was shown first, then where the base's was.

    Two responses that are the same text are a tie. An item without a verdict in both orders has no preference: with one
    order alone, the place could decide.
    """
    preferences: dict[str, list[float | None]] = {model: [None] * len(prompts) for model in responses if model != base}
    judgements = []
    for model, values in preferences.items():
        for number, prompt in enumerate(prompts):
            ours, theirs = responses[model][number].text, responses[base][number].text
            both = [value for value in found.get((model, number), ()) if value is not None]
            if ours == theirs:
                values[number] = 0.5
            elif len(both) == 2:
                mean = sum(both) / 2
                values[number] = 0.5 if abs(mean - 0.5) < 1e-12 else mean  # 0.1 and 0.9 are a tie in floats, too
                judgements += [
                    Judgement(
                        prompt=prompt.id,
                        candidate=model,
                        baseline=base,
                        preference=value,
                        candidate_length=len(ours),
                        baseline_length=len(theirs),
                        judge=judge,
                        order=order,  # type: ignore[arg-type]  # 0 or 1
                    )
                    for order, value in enumerate(both)
                ]
    return preferences, judgements
