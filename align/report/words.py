"""Numbers and names in words, for a reader who is no statistician; and what is said of training. Pure functions."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from align.report.plots import number
from preferences.terminal import UNSEEN as UNSEEN


def percent(rate: float) -> str:
    """71%, with a decimal where rounding would hide on which side of 50% it lies."""
    return f"{rate:.1%}" if rate != 0.5 and f"{rate:.0%}" == "50%" else f"{rate:.0%}"


def spread(interval: Sequence[float]) -> str:
    """An interval of a rate in words: 61–80%."""
    low, high = percent(interval[0]), percent(interval[1])
    return f"{low.removesuffix('%')}–{high}"


def measured(fields: Mapping[str, Any]) -> tuple[str, str]:
    """A mean and its interval, both with as many digits as the interval's width deserves: "128", "116 to 141"."""
    mean, interval = fields["mean"], fields.get("interval")
    if not interval or interval[1] <= interval[0]:
        return number(mean), ""
    digits = max(0, 1 - math.floor(math.log10(interval[1] - interval[0])))
    # what rounds to zero has no sign
    texts = [f"{round(value, digits) + 0.0:,.{digits}f}".replace("-", "−") for value in (mean, *interval)]
    return texts[0], f"{texts[1]} to {texts[2]}"


METHODS = ("dpo", "grpo", "kto", "ppo", "rloo", "sft")


def quoted(name: str) -> str:
    """A name from outside in quotes, so that it can't pass for our words, nor turn them round."""
    return f"“{UNSEEN.sub(' ', name)}”"


def name_of(model: str) -> str:
    """DPO for dpo: the methods' names are written in capitals."""
    model = UNSEEN.sub(" ", model)
    return model.upper() if model.lower() in METHODS else model


def label_of(key: str) -> str:
    """A key in words; a path stays as it is."""
    return key if "/" in key else key.replace("_", " ")


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def joined(words: Sequence[str]) -> str:
    """one; one and two; one, two and three; nothing for none."""
    if not words:
        return ""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def reward_words(
    test: Mapping[str, Any], longer: Mapping[str, Any] | None, difference: Mapping[str, Any] | None
) -> str:
    """What the reward model's accuracy means beside the simplest rule there is."""
    text = (
        f"Of {test['n']} held-out pairs of responses it orders {percent(test['accuracy'])} as the raters did "
        f"(95% interval {spread(test['interval'])}); a coin would get 50%."
    )
    if test["interval"][0] <= 0.5:
        text += " So it has not been shown to be better than a coin."
    if longer is None:
        return text
    text += f" The rule “the longer one is better” gets {percent(longer['accuracy'])}."
    if difference and difference.get("interval"):
        low, high = difference["interval"]
    else:
        low, high = test["interval"][0] - longer["interval"][1], test["interval"][1] - longer["interval"][0]
    if low > 0:
        return text + " The reward model is better than that rule."
    return text + (
        " The reward model is worse than that rule."
        if high < 0
        else " No clear advantage over that rule could be shown."
    )


def held_out_words(looks: Mapping[str, Any]) -> str:
    """What a run's looks at held-out prompts say: {"first", "best", "last": {step, scores, kl}, "kl_budget"}."""
    first, best, last, budget = looks["first"], looks["best"], looks["last"], looks["kl_budget"]
    within = f", within its budget of {number(budget)}" if budget else ""
    if best["step"] == first["step"]:
        return (
            f"On held-out prompts the reward was never higher{within} than the {number(first['scores'])} that training "
            "started from, so what was kept is the start."
        )
    text = (
        f"On held-out prompts the reward rose from {number(first['scores'])} to {number(best['scores'])} at a KL of "
        f"{number(best['kl'])} nats{within} (update {best['step']:.0f}); that policy was kept."
    )
    if last["step"] == best["step"]:
        return text
    return text + f" It ended at {number(last['scores'])} and a KL of {number(last['kl'])}."
