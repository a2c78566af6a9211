"""The sentences of a reward model's report: verdicts and warnings, for a reader who is no statistician. Pure functions.

Arguments are parts of reward.json, as `align.evaluate.inspect` gathers them.
"""

from collections.abc import Mapping
from typing import Any

from align.report.plots import number
from align.report.words import measured, percent, spread

FEW_GROUPS = 10  # below which a bootstrap over groups gives intervals that are too narrow
MANY_DROPPED = 0.02
COIN = 0.5


def side(interval: Any, line: float) -> str:
    """ "win" where an interval lies above the line, "loss" where below, else "unclear"."""
    if not interval:
        return "unclear"
    low, high = interval
    return "win" if low > line else "loss" if high < line else "unclear"


def headline(report: Mapping[str, Any]) -> list[str]:
    """The page's first words."""
    found = report["accuracy"]
    pairs = "the pairs that it was trained on" if report["trained_on"] else "held-out pairs"
    first = f"It orders {percent(found['model']['accuracy'])} of {pairs} as the raters did."
    against = side(found["difference"]["interval"], 0.0)
    longer = percent(found["longer_wins"]["accuracy"])
    second = {
        "win": f"That is better than “the longer one wins” ({longer}).",
        "unclear": f"No advantage over “the longer one wins” ({longer}) could be shown.",
        "loss": f"“The longer one wins” does better ({longer}).",
    }[against]
    return [first, second]


def accuracy_words(report: Mapping[str, Any]) -> str:
    """What the accuracy stands on."""
    found = report["accuracy"]["model"]
    words = (
        f"Right on {percent(found['accuracy'])} of {found['n']} pairs with a winner, of {report['groups']} groups"
        f" (95% interval {spread(found['interval'])}); a coin would get 50%."
    )
    if side(found["interval"], COIN) != "win":
        words += " So it has not been shown to be better than a coin."
    return words


def human_words(human: Mapping[str, Any] | None) -> str:
    """The model beside a single rater, on the same question."""
    if human is None:
        return "The data say nothing of single raters who can be compared, so there is no human ceiling."
    rater, model = human["rater"], human["model"]
    words = (
        f"Asked which side most of the other raters take, one rater is right in {percent(rater['accuracy'])}"
        f" ({spread(rater['interval'])}) and the model in {percent(model['accuracy'])} ({spread(model['interval'])})."
    )
    return (
        words
        + {
            "win": " The model knows the crowd better than one of its raters does.",
            "loss": " There is still something to learn before it is as good as one rater.",
            "unclear": " No difference between the model and one rater could be shown.",
        }[side(human["difference"]["interval"], 0.0)]
    )


def calibration_words(found: Mapping[str, Any]) -> str:
    """Can its probabilities be believed?"""
    words = (
        f"Log loss {number(found['log_loss'])}, where saying 50% of every pair gets {number(found['constant'])} and"
        f" nobody could get below {number(found['least'])}. On average its probability is"
        f" {100 * found['ece']:.1f} points off (ECE)."
    )
    if found["scale"] is None:
        return words + " No scale makes its probabilities fit."
    if found["scale"] < 0.8:
        return words + f" It is too sure of itself: scores {1 / found['scale']:.1f} times smaller would fit best."
    if found["scale"] > 1.25:
        return words + f" It is not sure enough: scores {found['scale']:.1f} times larger would fit best."
    return words + " Its scale is about right."


def ranking_words(found: Mapping[str, Any] | None) -> str:
    """How well it orders responses over all prompts, and whole rankings; nothing where neither is known."""
    if not found:
        return ""
    words = ""
    if found["roc_auc"] is not None:
        mean, interval = measured(found["roc_auc"])
        words = (
            "Across prompts, too, a preferred response scores above one that was not with a probability of"
            f" {mean}{f' ({interval})' if interval else ''} (ROC-AUC; a coin has 0.5)."
        )
    if found["rankings"]:
        ndcg, mrr = (measured(found[name])[0] for name in ("ndcg", "mrr"))
        chance = found["chance"]
        words += (
            f" On {found['rankings']} whole rankings its NDCG is {ndcg} and its MRR {mrr}; chance gets"
            f" {number(chance['ndcg'])} and {number(chance['mrr'])}."
        )
    return words.strip()


def length_words(length: Mapping[str, Any] | None) -> str:
    """How the model and the raters feel about length."""
    if length is None:
        return "All responses of a pair are equally long, so length decides nothing here."
    favours = length["favours_longer"]
    return (
        f"It prefers the longer response in {percent(favours['model']['accuracy'])} of pairs, the raters in"
        f" {percent(favours['raters']['accuracy'])}."
    )


def length_verdict(length: Mapping[str, Any] | None) -> str | None:
    """What PPO would learn of length, or None where there is nothing to warn of."""
    if length is None:
        return None
    favours, balanced = length["favours_longer"], length["balanced"]
    lean = side(favours["model"]["interval"], COIN)
    way, more = ("longer", "longer and longer") if lean == "win" else ("shorter", "shorter and shorter")
    share = favours["model"]["accuracy"]
    share = share if lean == "win" else 1 - share
    if lean != "unclear" and balanced is not None and side(balanced["interval"], COIN) != "win":
        return (
            f"What it knows is length. It prefers the {way} response in {percent(share)} of pairs, and once pairs in"
            f" which the longer one won and pairs in which the shorter one won count the same, it is right in"
            f" {percent(balanced['accuracy'])} ({spread(balanced['interval'])}), where a coin gets 50%. PPO would learn"
            f" to write {more} responses. Collect pairs of like length, or pairs in which the {way} one loses, and"
            " train again."
        )
    apart = side(favours["difference"]["interval"], 0.0)
    if apart == "unclear":
        return None
    way = "longer" if apart == "win" else "shorter"
    shares = [favours[who]["accuracy"] for who in ("model", "raters")]
    model, raters = shares if apart == "win" else [1 - value for value in shares]
    return (
        f"It makes more of length than the raters did: it prefers the {way} response in {percent(model)} of pairs, they"
        f" did in {percent(raters)}. PPO would make responses {way} than people want; watch their length"
        " while it trains."
    )


def warnings(report: Mapping[str, Any]) -> list[str]:
    """What to know before PPO is given this reward."""
    found = []
    if report["trained_on"]:
        found.append("These are the very pairs that it was trained on, so every number here is too good.")
    length = length_verdict(report["length"])
    if length:
        found.append(length)
    if side(report["accuracy"]["model"]["interval"], COIN) != "win":
        found.append("It has not been shown to order pairs better than a coin. Don't train with it.")
    for tag, numbers in report["tags"].items():
        if side(numbers["interval"], COIN) == "loss" and numbers["n"] >= 20:
            found.append(
                f"On pairs tagged “{tag}” it is wrong more often than right: {percent(numbers['accuracy'])} of"
                f" {numbers['n']} ({spread(numbers['interval'])})."
            )
    gain = report["calibration"]["gain"]
    if side(gain["interval"], 0.0) == "loss":
        found.append(
            "Its probabilities are worse than saying 50% of every pair. Its order may still be right; PPO's step size"
            " depends on the scale, so normalise the scores (`normalize_scores: true`)."
        )
    if report["groups"] < FEW_GROUPS:
        groups = f"{report['groups']} group{'s' if report['groups'] != 1 else ''}"
        found.append(f"The held-out pairs come from {groups} only, so the intervals here are too narrow.")
    total = report["pairs"] + report["ties"] + report["pairs_dropped"]
    if report["pairs_dropped"] > MANY_DROPPED * total:
        found.append(
            f"{report['pairs_dropped']} of {total} held-out pairs don't fit the model's context and count nowhere."
        )
    return found
