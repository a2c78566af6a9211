"""Signs that a PPO run goes wrong, read from its metrics, each as a sentence: numbers, likely cause, what to do.

Pure functions on the rows of metrics.jsonl: one an update, an evaluation in it or in a row of its own. Single updates
are noisy, so a sign looks at medians over a few; a key that a row lacks is nothing to judge. Scores have no scale of
their own: changes in them are measured in their spread over the responses at the start of the run.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import fmean, median
from typing import NamedTuple

Rows = Sequence[Mapping[str, float]]

SMOOTH = 5  # updates in a median: one or two outliers don't move it
QUICK = 3  # the same where an update is already a mean of clear-cut facts, such as whether a response ended

# A mean over n rollouts of k1 at a true KL of k nats has the standard error sqrt(2 k / n), so over SMOOTH updates of 16
# rollouts a right estimate stays 5 standard errors above this, whatever k is.
NEGATIVE_KL = -0.2
LARGE_KL = 25.0  # nats a response without a budget: a rule of thumb; see Gao et al., arXiv 2210.10760, for beyond
SCORE_CHANGE = 0.5  # of the spread: at 16 rollouts an update 2.5 standard errors of a difference of two medians
LENGTH_GROWTH = 1.5  # the task stays the same, so half as long again needs a reason
DISTINCT_LEFT = 0.6  # of the start; twice as long responses alone cost a twentieth (batches of demo/responses.jsonl)
ENTROPY_LEFT = 0.25  # of the start; runs of the tests that learn come down to a half
LOW_ENTROPY = 0.05  # nats a token at the start below which there is nothing to collapse
VALUE_AFTER, VALUE_WINDOW = 15, 10  # updates: value models start below 0 and take ten updates to find the scale
POOR_VALUE = 0.05  # explained variance; working value models reach 0.3 and more
ENDED_RARELY = 0.1  # share of responses: the others are judged as if cut text were whole
LARGE_APPROX_KL = 0.1  # nats a token: a typical ratio off by exp(0.45), twice the usual clip range of 0.2
LARGE_CLIPFRAC = 0.3  # of the tokens: a tenth to a fifth is usual
STILL_AFTER = 20  # updates: by then a run that learns has moved
STILL_APPROX_KL = 1e-4  # nats a token: a typical log ratio of 0.014, the size of bf16's rounding
STILL_CLIPFRAC = 1e-3  # of the tokens
STILL_KL = 0.1  # nats a response: the policy still is the reference
STILL_RATE = 0.5  # of the highest learning rate: while it warms up or runs out, small steps are meant
SAME_SCORES = 1e-3  # spread over mean (or over 1): no more than rounding
MOST = 0.5


class Sign(NamedTuple):
    sign: str  # a short name that stays the same while the numbers change
    sentence: str


def warnings(rows: Rows, *, response_length: int, kl_budget: float | None = None) -> list[Sign]:
    """What is wrong with the run as it stands after the last of `rows`, the gravest first; empty for a healthy run.

    response_length: the most tokens of a response. kl_budget: nats a response that the run means to stay within;
    None: LARGE_KL.
    """
    found = [
        _not_finite(rows),
        _abstained(rows),
        _same_scores(rows),
        _negative_kl(rows),
        _large_kl(rows, kl_budget),
        _large_steps(rows),
        _held_out_falls(rows),
        _longer(rows),
        _repetitive(rows),
        _entropy_collapse(rows),
        _truncated(rows, response_length),
        _poor_value(rows),
        _standing_still(rows),
    ]
    return [sign for sign in found if sign is not None]


def distinct_ngrams(responses: Sequence[Sequence[int]], n: int) -> float:
    """Share of distinct n-grams among all n-grams of all responses (distinct-n, Li et al., arXiv 1510.03055).

    responses: token ids, without padding. 1.0 when no response has n tokens.
    """
    grams = [tuple(response[i : i + n]) for response in responses for i in range(len(response) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 1.0


def _not_finite(rows: Rows) -> Sign | None:
    bad = (
        [name for name, number in rows[-1].items() if number is not None and not math.isfinite(number)] if rows else []
    )
    if not bad:
        return None
    return Sign(
        "not-finite",
        f"{', '.join(sorted(bad))}: not a finite number. The weights are probably spoilt, so don't wait: start again "
        "from an earlier checkpoint with a lower learning_rate, and see that no reward is NaN or infinite.",
    )


def _abstained(rows: Rows) -> Sign | None:
    share = _now(rows, "response/abstained", QUICK)
    if share is None or share <= MOST:
        return None
    return Sign(
        "abstained",
        f"No reward source scored {share:.0%} of the responses, so most of each update teaches nothing. See when your "
        "reward functions give no score, or add a reward run, which scores everything.",
    )


def _same_scores(rows: Rows) -> Sign | None:
    spread, score = _now(rows, "objective/scores_std", QUICK), _now(rows, "objective/scores", QUICK)
    if spread is None or score is None or spread > SAME_SCORES * max(1.0, abs(score)) or _abstained(rows):
        return None
    return Sign(
        "same-scores",
        f"All responses get about the same score ({_words(score)}, standard deviation {_words(spread)}), so there is "
        "nothing to learn from. The task is too hard or too easy for the policy, score_clip is too narrow, or the "
        "reward doesn't look at the response.",
    )


def _negative_kl(rows: Rows) -> Sign | None:
    recent = _finite(rows, "objective/kl")[-SMOOTH:]
    if len(recent) < SMOOTH or max(recent) >= 0 or fmean(recent) > NEGATIVE_KL:
        return None
    return Sign(
        "negative-kl",
        f"The KL to the reference is negative ({fmean(recent):.2f} nats a response over the last {SMOOTH} updates), "
        "which no true KL is: responses are not sampled from the distribution that they are scored with. Look for "
        "another temperature, top-k, top-p, suppressed end tokens, or wrong padding; the reward is not to be trusted.",
    )


def _large_kl(rows: Rows, budget: float | None) -> Sign | None:
    limit = LARGE_KL if budget is None else budget
    kl = _now(rows, "objective/kl")
    if kl is None or kl <= limit:
        return None
    before = _now(rows[:-SMOOTH], "objective/kl")
    grows = f", up from {_words(before)} over {SMOOTH} updates" if before is not None and before < kl else ""
    than = "where rewards often stop being true" if budget is None else "its budget"
    return Sign(
        "large-kl",
        f"The policy is {_words(kl)} nats a response away from the reference{grows}; above {_words(limit)}, {than}. "
        "Raise kl_coef, set kl_target, or lower learning_rate, and read responses before you trust the score.",
    )


def _large_steps(rows: Rows) -> Sign | None:
    step, clipped = _now(rows, "policy/approxkl_avg"), _now(rows, "policy/clipfrac_avg")
    if (step is None or step <= LARGE_APPROX_KL) and (clipped is None or clipped <= LARGE_CLIPFRAC):
        return None
    numbers = [
        None if step is None else f"approximate KL {_words(step)} nats a token (large above {LARGE_APPROX_KL})",
        None if clipped is None else f"{clipped:.0%} of the tokens clipped (large above {LARGE_CLIPFRAC:.0%})",
    ]
    return Sign(
        "large-steps",
        f"The policy changes too much within an update: {', '.join(text for text in numbers if text)}. Lower "
        "learning_rate or num_ppo_epochs, or set target_kl.",
    )


def _held_out_falls(rows: Rows) -> Sign | None:
    """Reward hacking by what it does to prompts that were not trained on. Looks at means of two evaluations."""
    looks = [index for index, row in enumerate(rows) if _is_finite(row.get("eval/scores"))]
    spread = _spread(rows)
    if len(looks) < 4 or spread is None:
        return None
    means = [fmean((rows[a]["eval/scores"], rows[b]["eval/scores"])) for a, b in pairwise(looks)]
    place = max(range(len(means) - 2), key=means.__getitem__)  # the best pair that shares no look with the last one
    best = looks[place + 1]
    then, now = _now(rows[: best + 1], "objective/scores"), _now(rows, "objective/scores")
    if then is None or now is None:
        return None
    if means[place] - means[-1] < SCORE_CHANGE * spread or now - then < SCORE_CHANGE * spread:
        return None
    return Sign(
        "held-out-falls",
        f"Since update {rows[best]['step']:.0f} the score rose from {_words(then)} to {_words(now)} on the training "
        f"prompts and fell from {_words(means[place])} to {_words(means[-1])} on the held-out ones, a sign of reward "
        "hacking. Keep the best policy from before, and train on more prompts, for fewer episodes, or with a higher "
        "kl_coef.",
    )


def _longer(rows: Rows) -> Sign | None:
    rise, tokens = _rise(rows), _change(rows, "response/tokens")
    if rise is None or tokens is None or tokens[1] < LENGTH_GROWTH * tokens[0]:
        return None
    return Sign(
        "longer",
        f"{rise} while responses grew from {tokens[0]:.0f} to {tokens[1]:.0f} tokens, a sign of reward hacking: the "
        "reward may like length for itself. Read long responses; raise kl_coef, or train the reward model on pairs "
        "where the shorter one wins.",
    )


def _repetitive(rows: Rows) -> Sign | None:
    rise, distinct = _rise(rows), _change(rows, "response/distinct_2")
    if rise is None or distinct is None or distinct[1] > DISTINCT_LEFT * distinct[0]:
        return None
    return Sign(
        "repetitive",
        f"{rise} while distinct bigrams fell from {distinct[0]:.0%} to {distinct[1]:.0%}, a sign of reward hacking: "
        "the policy repeats what the reward likes. Read responses; raise kl_coef, or stop at an earlier policy.",
    )


def _entropy_collapse(rows: Rows) -> Sign | None:
    """By the token, not by the response: that one also falls when responses get shorter."""
    entropy = _change(rows, "policy/entropy_avg")
    if entropy is None or entropy[0] < LOW_ENTROPY or entropy[1] > ENTROPY_LEFT * entropy[0]:
        return None
    return Sign(
        "entropy-collapse",
        f"The policy's entropy fell from {_words(entropy[0])} to {_words(entropy[1])} nats a token: it gives nearly "
        "the same response every time, and has little left to try out. Lower learning_rate, raise kl_coef, or set a "
        "small entropy_coef.",
    )


def _truncated(rows: Rows, response_length: int) -> Sign | None:
    ended = _now(rows, "response/ended", QUICK)
    if ended is None or ended > ENDED_RARELY:
        return None
    return Sign(
        "truncated",
        f"Only {ended:.0%} of the responses end by themselves within {response_length} tokens, the others are cut off "
        "and scored as if whole. Set missing_eos_penalty, raise response_length, or start from an SFT run that ends.",
    )


def _poor_value(rows: Rows) -> Sign | None:
    explained, clipped = _now(rows, "val/explained_variance", VALUE_WINDOW), _now(rows, "val/clipfrac_avg")
    if explained is None or explained > POOR_VALUE or rows[-1]["step"] < VALUE_AFTER or _same_scores(rows):
        return None
    limits = "" if clipped is None else f"; it clips {clipped:.0%} of the tokens now"
    return Sign(
        "poor-value",
        f"After {rows[-1]['step']:.0f} updates the value model's explained variance is {_words(explained)} "
        "(1 is perfect, 0 a constant), so it doesn't tell good from bad luck. Raise vf_coef or learning_rate, or "
        f"cliprange_value where scores differ by much more than it{limits}.",
    )


def _standing_still(rows: Rows) -> Sign | None:
    """Steps of size 0 alone say little: with one step an update they are measured before it. The KL says it then."""
    rates = _finite(rows, "lr")
    if rates and min(rates[-STILL_AFTER:]) < STILL_RATE * max(rates):
        return None
    step, clipped = _now(rows, "policy/approxkl_avg", STILL_AFTER), _now(rows, "policy/clipfrac_avg", STILL_AFTER)
    kl = _now(rows, "objective/kl", STILL_AFTER)
    if step is None or clipped is None or step > STILL_APPROX_KL or clipped > STILL_CLIPFRAC:
        return None
    if (kl is not None and abs(kl) > STILL_KL) or _rise(rows) is not None:
        return None
    norm = _now(rows, "policy/grad_norm")
    gradient = "" if norm is None else f" (gradient norm {_words(norm)})"
    return Sign(
        "standing-still",
        f"After {rows[-1]['step']:.0f} updates the policy has hardly moved: approximate KL {_words(step)} nats a token "
        f"and {clipped:.1%} of the tokens clipped within an update, and the score is flat{gradient}. Raise "
        "learning_rate; if kl_coef is high, lower it; a gradient norm of 0 means that no trained weight takes part.",
    )


def _rise(rows: Rows) -> str | None:
    """ "The score rose from 0.1 to 1.2", when it did since the start of the run."""
    score, spread = _change(rows, "objective/scores"), _spread(rows)
    if score is None or spread is None or score[1] - score[0] < SCORE_CHANGE * spread:
        return None
    return f"The score rose from {_words(score[0])} to {_words(score[1])}"


def _change(rows: Rows, key: str) -> tuple[float, float] | None:
    """A key's median at the start of the run and now, over updates that don't overlap."""
    numbers = _finite(rows, key)
    return (median(numbers[:SMOOTH]), median(numbers[-SMOOTH:])) if len(numbers) >= 2 * SMOOTH else None


def _spread(rows: Rows) -> float | None:
    """The scores' standard deviation over responses at the start of the run; None where they are all the same."""
    numbers = _finite(rows, "objective/scores_std")[:SMOOTH]
    return (median(numbers) or None) if numbers else None


def _now(rows: Rows, key: str, updates: int = SMOOTH) -> float | None:
    """The median of a key's last `updates` numbers; None when there are fewer."""
    numbers = _finite(rows, key)[-updates:]
    return median(numbers) if len(numbers) == updates else None


def _finite(rows: Rows, key: str) -> list[float]:
    return [row[key] for row in rows if _is_finite(row.get(key))]


def _is_finite(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


def _words(number: float) -> str:
    """Three significant digits, and no exponent for large numbers."""
    return f"{number:.0f}" if abs(number) >= 100 else f"{number:.3g}"
