"""What checkpoints and best of n won by going so far, as numbers and in words. Pure functions on arrays.

Rewards are (score - the base's mean on the same prompt) / the base's standard deviation over all its responses: the
training reward and the gold one have units of their own, and so they stand on one axis, with 0 for the base.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from preferences.stats.overoptimisation import (
    LEAST,
    Form,
    best_of,
    best_of_kl,
    fall,
    fit_curve,
    nearest_unbeaten,
    told_apart,
)
from preferences.stats.winrate import mean_interval

Floats = NDArray[np.float64]
Reward = Literal["reward", "gold"]
REWARDS: tuple[Reward, Reward] = ("reward", "gold")


class Reached(NamedTuple):
    """A checkpoint on the prompts: log pi - log pi_base of what it said, and its scores, all (prompts,)."""

    label: str
    step: int | None
    kl: Floats
    scores: Mapping[Reward, Floats]


def frontier_numbers(
    base: str, drawn: Mapping[Reward, Floats], reached: Sequence[Reached], gold: str
) -> dict[str, Any]:
    """The parts of `frontier` in metrics.json that are computed: base, points, fits, fall, peak, recommended, words.

    drawn: both scores (prompts, N) of the base's N responses to each prompt. gold: what the words call the gold judge.
    """
    spreads = {reward: _spread(drawn[reward], [one.scores[reward] for one in reached]) for reward in REWARDS}
    own = {reward: drawn[reward].mean(axis=1) for reward in REWARDS}
    most = drawn["gold"].shape[1]
    ns = [*(2**power for power in range(1, most.bit_length()) if 2**power < most), most]
    picked = {r: (best_of(drawn["reward"], drawn[r], ns) - own[r]) / spreads[r] for r in REWARDS}
    gained = {r: _stack([(one.scores[r] - own[r]) / spreads[r] for one in reached], own[r]) for r in REWARDS}
    kl = _stack([one.kl for one in reached], own["gold"])
    bounds = np.array([best_of_kl(n) for n in ns])

    points: list[dict[str, Any]] = []
    for number, n in enumerate(ns):
        known = {"mean": float(bounds[number]), "interval": None, "standard_error": None, "bound": True}
        about = {"label": f"best of {n}", "kind": "best of n", "n": n}
        points.append(_point(about, {**known, "n": kl.shape[1]}, {r: picked[r][number] for r in REWARDS}))
    for number, one in enumerate(reached):
        about = {"label": one.label, "kind": "checkpoint", "step": one.step}
        points.append(_point(about, mean_interval(one.kl), {r: gained[r][number] for r in REWARDS}))

    fits = {
        "bon": {reward: _fit("bon", bounds, picked[reward]) for reward in REWARDS},
        "rl": {reward: _fit("rl", kl, gained[reward]) for reward in REWARDS},
    }
    distance = np.sqrt(np.maximum([0.0, *kl.mean(axis=1)], 0))
    above = told_apart(np.vstack([np.zeros(kl.shape[1]), gained["gold"]])).above
    labels = [base, *(one.label for one in reached)]
    down = fall(distance, above)
    chosen = nearest_unbeaten(distance, above) if reached else 0
    peak = (fits["rl"]["gold"] or {}).get("peak")
    found: dict[str, Any] = {
        "base": {
            "label": base,
            **{r: {"mean": float(drawn[r].mean()), "std": spreads[r]} for r in REWARDS},
        },
        "points": points,
        "fits": fits,
        "fall": None if down is None else {"from": labels[down[0]], "to": labels[down[1]]},
        "peak": peak and {"form": "rl", **{key: peak[key] for key in ("sqrt_kl", "interval")}, "gold": peak["reward"]},
        "recommended": labels[chosen],
    }
    best = int(np.argmax([0.0, *gained["gold"].mean(axis=1)]))
    rival = _rival(gained["gold"][chosen - 1] if chosen else np.zeros(kl.shape[1]), picked["gold"][-1])
    return {**found, "words": words(found, labels[best], gold, rival)}


def words(found: Mapping[str, Any], best: str, gold: str, rival: str) -> str:
    """What the numbers carry, in sentences. `best` has the highest gold reward that was measured, base included.

    `rival`: whether the best of the most draws is shown to be "better" or "worse" than what is recommended, or "".
    """
    chosen, base = found["recommended"], found["base"]["label"]
    by = {point["label"]: point for point in found["points"]}
    checkpoints = [point for point in found["points"] if point["kind"] == "checkpoint"]
    said = []
    if not checkpoints:
        said.append("The run left no checkpoint that is another model than the base.")
    elif chosen == base:
        said.append(f"No checkpoint is shown to be better than {base} by {gold}, so none is recommended.")
        if best != base:
            said.append(f"The highest is {best}, {_gain(by[best])}.")
    else:
        said.append(
            f"Recommended is {chosen}: by {gold} it is {_gain(by[chosen])}, at √KL {by[chosen]['sqrt_kl']:.2f}."
        )
        if best != chosen:
            said.append(
                f"{_capital(best)} has the highest gold reward ({by[best]['gold']['mean']:+.2f}), but can't be told"
                f" apart from {chosen}, which is nearer to {base}."
            )
    said += _turn(found, checkpoints)
    off = sum(point["sqrt_kl"] > 0 for point in checkpoints)
    if checkpoints and off < LEAST:
        said.append(
            f"A curve through checkpoints needs {LEAST} of them off the base, and there {'is' if off == 1 else 'are'}"
            f" {off}: `save_total_limit: null` keeps all, `save_steps` makes more."
        )
    rivals = [point for point in found["points"] if point["kind"] == "best of n"]
    if top := (found["fits"]["bon"]["gold"] or {}).get("peak"):
        nearest = min(rivals, key=lambda point: abs(float(point["sqrt_kl"]) - top["sqrt_kl"]))
        said.append(
            f"Best of n, too, can go too far: it wins most at √KL {top['sqrt_kl']:.2f}, about n = {nearest['n']}."
        )
    if rivals and checkpoints and rival:
        said.append(f"The {rivals[-1]['label']} of {base}, without any training, is shown to be {rival} than {chosen}.")
    elif rivals and checkpoints and chosen != base:
        said.append(f"The {rivals[-1]['label']} of {base} and {chosen} can't be told apart by {gold}.")
    return " ".join(said)


def _turn(found: Mapping[str, Any], checkpoints: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether the gold reward falls again, and from where on."""
    peak, down = found["peak"], found["fall"]
    if peak is not None:
        low, high = peak["interval"]
        place = f"√KL {peak['sqrt_kl']:.2f} (95% interval {low:.2f} to {high:.2f})"
        return [f"The gold reward rises up to {place} and then falls."]
    if down is not None:
        return [
            f"The gold reward falls: {down['to']} is shown to be below {down['from']}, which is nearer. At which"
            " distance it turns, these points don't say."
        ]
    if len(checkpoints) > 1:
        far = max(point["sqrt_kl"] for point in checkpoints)
        return [f"No fall of the gold reward is shown, up to √KL {far:.2f}."]
    return []


def _gain(point: Mapping[str, Any]) -> str:
    gold = point["gold"]
    ends = [f"{end:+.2f}" for end in gold["interval"] or ()]
    interval = f" (95% interval {ends[0]} to {ends[1]})" if ends else ""
    return f"{gold['mean']:+.2f} standard deviations from the base{interval}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _rival(chosen: Floats, rival: Floats) -> str:
    above = told_apart(np.stack([chosen, rival])).above
    return "better" if above[1, 0] else "worse" if above[0, 1] else ""


def _point(about: Mapping[str, Any], kl: Mapping[str, Any], rewards: Mapping[Reward, Floats]) -> dict[str, Any]:
    fields: dict[str, Any] = {reward: mean_interval(values) for reward, values in rewards.items()}
    return {**about, "kl": dict(kl), "sqrt_kl": float(np.sqrt(max(kl["mean"], 0.0))), **fields}


def _fit(form: Form, kl: Floats, rewards: Floats) -> dict[str, Any] | None:
    return fit_curve(form, kl, rewards) if len(rewards) else None


def _spread(drawn: Floats, others: Sequence[Floats]) -> float:
    """The standard deviation of the base's scores; where they are all the same, that of all scores, else 1."""
    everything = np.concatenate([drawn.ravel(), *others])
    return float(drawn.std()) or float(everything.std()) or 1.0


def _stack(rows: Sequence[Floats], like: Floats) -> Floats:
    return np.stack(rows) if rows else np.zeros((0, len(like)))
