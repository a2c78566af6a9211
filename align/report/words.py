"""The report's sentences: verdicts, evidence, doubts and warnings, for a reader who is no statistician. Pure functions.

`fields` are those of `preferences.stats.winrate.win_rate`.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from align.report.plots import number

LENGTH_CHANGE = 0.25  # a change of the mean length that deserves a sentence
FINISHED_CHANGE = 0.15  # the same for the share of responses that ended by themselves
LARGE_KL = 30.0  # nats per response: a rule of thumb; see Gao et al. 2023, arXiv 2210.10760, for what happens beyond


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
    if not interval or interval[0] == interval[1]:
        return number(mean), ""
    digits = max(0, 1 - math.floor(math.log10(interval[1] - interval[0])))
    texts = [f"{value:,.{digits}f}".replace("-", "−") for value in (mean, *interval)]
    return texts[0], f"{texts[1]} to {texts[2]}"


def name_of(model: str) -> str:
    """DPO for dpo: the methods' names are written in capitals."""
    return model.upper() if model.lower() in ("dpo", "grpo", "ppo", "rloo", "sft") else model


def minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def joined(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def outcome(fields: Mapping[str, Any]) -> str:
    """ "win" or "loss" where the interval of the win rate excludes 50%, else "unclear"."""
    low, high = fields["interval"]
    return "win" if low > 0.5 else "loss" if high < 0.5 else "unclear"


def evidence(fields: Mapping[str, Any], judge: str) -> str:
    """The numbers behind a verdict, in one sentence."""
    ties = f", {fields['ties']} of them ties, which count half" if fields.get("ties") else ""
    return (
        f"It wins {percent(fields['win_rate'])} of {fields['n']} held-out prompts{ties} "
        f"({fields.get('level', 0.95):.0%} interval {spread(fields['interval'])}), judged by {judge}."
    )


def limit(fields: Mapping[str, Any]) -> str:
    """What the sample could have shown at all."""
    smallest = fields.get("smallest_detectable")
    if smallest is None:
        return "This sample is too small to show any difference reliably."
    return f"This sample could only have shown a true win rate of at least {percent(smallest)} (found 4 times in 5)."


def verdict(model: str, base: str, outcome: str) -> str:
    """The verdict on one model as the head of its card."""
    if outcome == "win":
        return f"{name_of(model)} beats {base}"
    if outcome == "loss":
        return f"{name_of(model)} loses to {base}"
    return (
        f"{name_of(model)}: no difference could be shown" if outcome == "unclear" else f"{name_of(model)}: not judged"
    )


def headline(outcomes: Mapping[str, str], base: str) -> list[str]:
    """All verdicts in one to three short sentences: the page's first words."""
    models = {
        kind: [name_of(model) for model, value in outcomes.items() if value == kind]
        for kind in ("win", "loss", "unclear")
    }
    parts = []
    for kind, one, many in (("win", "beats", "beat"), ("loss", "loses to", "lose to")):
        if models[kind]:
            parts.append(f"{joined(models[kind])} {one if len(models[kind]) == 1 else many} {base}.")
    if models["unclear"]:
        parts.append(f"For {joined(models['unclear'])} no difference to {base} could be shown.")
    return parts or [f"No model was compared with {base}."]


def second_opinion(fields: Mapping[str, Any], judge: str, kind: str, main: str, first: str) -> str:
    """What a further judge says beside the main one, `main`, whose outcome is `first`."""
    here = outcome(fields)
    rate = f"{percent(fields['win_rate'])}, 95% interval {spread(fields['interval'])}"
    judge = judge[0].upper() + judge[1:]
    if here == first:
        return f"{judge} agrees: {rate}."
    seen = {"win": "sees a win", "loss": "sees a loss", "unclear": "shows no difference"}[here]
    text = f"The judges differ. {judge} {seen}: {rate}."
    if kind == "reward model" and here == "win":
        text += (
            f" {main[0].upper()}{main[1:]} does not confirm it: the model may have learned to please the reward model."
        )
    return text


def warnings(model: str, facts: Mapping[str, Any], base: Mapping[str, Any]) -> list[str]:
    """Sentences on what changed so much that it may explain a win, or spoil it."""
    found = []
    before, after = base.get("length"), facts.get("length")
    if before and after and before["mean"] > 0:
        change = after["mean"] / before["mean"] - 1
        if abs(change) >= LENGTH_CHANGE:
            found.append(
                f"{name_of(model)}'s responses are {abs(change):.0%} {'longer' if change > 0 else 'shorter'} than the "
                f"base's ({after['mean']:.0f} against {before['mean']:.0f} characters on average). If the judge likes "
                f"{'long' if change > 0 else 'short'} responses, a part of the win rate may be length alone."
            )
    if facts.get("kl") and facts["kl"]["mean"] > LARGE_KL:
        found.append(
            f"{name_of(model)} has moved far from the base: KL {number(facts['kl']['mean'])} nats per response, "
            f"beyond our rule of thumb of {LARGE_KL:.0f}. Models that far off often please their judge in ways that "
            "people don't like: read the examples."
        )
    ended, ended_before = facts.get("finished"), base.get("finished")
    if ended is not None and ended_before is not None and abs(ended - ended_before) >= FINISHED_CHANGE:
        found.append(
            f"{name_of(model)} ends {percent(ended)} of its responses by itself, the base {percent(ended_before)}; "
            "the others were cut off at the length limit."
        )
    return found


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
