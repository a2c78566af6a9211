"""How far judges agree, and what sways them besides what is said: the place on the screen, and length.

All of it is about the main set's prompts. An item is one model's response beside the base's, where the two are not
the same text, on which all judges tie. The items of one prompt hang together, so every interval draws whole prompts.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from align.evaluate.evidence import MAIN, Evidence, Judged
from preferences.judgements import Judgement
from preferences.stats.bootstrap import Part, estimate
from preferences.stats.coefficients import Floats, cohen_kappa
from preferences.stats.winrate import accuracy

RESAMPLES = 2000
HUMAN = ("people", "known truth")  # kinds of judges that the others are held against
Item = tuple[int, str]  # (number of a prompt, model)


def agreement(evidence: Evidence) -> list[dict[str, Any]]:
    """For every two judges who judged the same items: [{a, b, n, prompts, same, kappa, kappa_interval, human}].

    `same` is the share of items on which they say the same of better, worse and tie (mean, interval, n, standard
    error); `kappa` is Cohen's, None where it is not defined. `human`: one of them is people, or the known truth, and it
    then stands first. A judge that averages several verdicts says the side on which their mean is.
    """
    items = {judge: _items(evidence, judged) for judge, judged in evidence.judged.items()}
    rows = []
    for one, other in combinations(sorted(items, key=lambda judge: not _is_human(evidence.judged[judge])), 2):
        both = [item for item in items[one] if item in items[other]]
        if both:
            a, b = ([int(np.sign(items[judge][item] - 0.5)) for item in both] for judge in (one, other))
            prompts = [evidence.prompts[number].id for number, _ in both]
            human = _is_human(evidence.judged[one]) or _is_human(evidence.judged[other])
            rows.append({"a": one, "b": other, **agreement_of(a, b, prompts), "human": human})
    return rows


def agreement_of(one: Sequence[int], other: Sequence[int], prompts: Sequence[str]) -> dict[str, Any]:
    """What two judges say of n items, each -1, 0 or 1, and the n prompts that these belong to.

    Intervals are bootstrap intervals over prompts: BCa of `same`, percentile of kappa. Of a judge who always says the
    same kappa is 0 in every draw, which is no interval: it is None.
    """
    from scipy.sparse import csr_array

    a, b = np.asarray(one), np.asarray(other)
    names, place = np.unique(np.asarray(prompts), return_inverse=True)
    # each item adds: alike, then how often either judge gave each of the three values
    columns = np.stack([a == b, *(a == v for v in (-1, 0, 1)), *(b == v for v in (-1, 0, 1))], axis=1).astype(float)
    sums = np.zeros((len(names), 7))
    np.add.at(sums, place, columns)

    def kappa_of(totals: Floats) -> dict[str, Floats]:
        return {"kappa": cohen_kappa(totals[..., 0], totals[..., 1:4], totals[..., 4:7])}

    (found,) = estimate([Part(csr_array(sums), kappa_of)], resamples=RESAMPLES)
    value, low, high = (float(part) for part in found["kappa"])
    known = not np.isnan(low) and len(np.unique(a)) > 1 and len(np.unique(b)) > 1
    return {
        "n": len(a),
        "prompts": len(names),
        "same": share((a == b).astype(float), prompts),
        "kappa": None if np.isnan(value) else value,
        "kappa_interval": [low, high] if known else None,
    }


def judge_facts(evidence: Evidence) -> dict[str, dict[str, Any]]:
    """What each judge is, with `bias` measured: `judges` of metrics.json (docs/evaluation.md, "Judges").

    bias.position  of judges that are known to have been shown one response first: `first_share`, how often that one is
                   preferred (a tie half), 0.5 without bias where every item is judged in both orders; `flips`, the
                   share of items judged in both orders that do not get the same verdict in both, or None
    bias.length    `longer_share`, how often the longer response is preferred (a tie half), over items whose responses
                   differ in length; `beside`: {judge of people or truth: that share by both, `judge` and `people`,
                   over the items that both judged}
    between_raters how often two people who judged the same item say the same of better, worse and tie
    """
    items = {judge: _items(evidence, judged) for judge, judged in evidence.judged.items()}
    main = {prompt.id for prompt in evidence.prompts if prompt.set == MAIN}
    made = {}
    for judge, judged in evidence.judged.items():
        bias: dict[str, Any] = {}
        shown = [row for row in judged.judgements if row.order is not None and row.prompt in main]
        if shown:
            bias["position"] = position_bias(shown)
        by_length = _longer(evidence, items[judge])
        if by_length:
            bias["length"] = {"longer_share": _share_of(evidence, by_length)}
            beside = {}
            for other, held in evidence.judged.items():
                if other != judge and _is_human(held):
                    theirs = _longer(evidence, items[other])
                    both = [item for item in by_length if item in theirs]
                    if both:
                        beside[other] = {
                            "judge": _share_of(evidence, {item: by_length[item] for item in both}),
                            "people": _share_of(evidence, {item: theirs[item] for item in both}),
                        }
            if beside:
                bias["length"]["beside"] = beside
        made[judge] = {**judged.facts, "bias": bias or None}
        if between := between_raters(evidence, judged):
            made[judge]["between_raters"] = between
    return made


def between_raters(evidence: Evidence, judged: Judged) -> dict[str, Any] | None:
    """The share of pairs of verdicts by two people on one item that are the same; None without such a pair."""
    main = {prompt.id: number for number, prompt in enumerate(evidence.prompts) if prompt.set == MAIN}
    items: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in judged.judgements:
        one = row if row.candidate < row.baseline else row.turned()
        if row.rater is None or row.prompt not in main or row.candidate not in evidence.responses:
            continue
        texts = [evidence.responses[model][main[row.prompt]].text for model in (one.candidate, one.baseline)]
        if texts[0] != texts[1]:
            item = items.setdefault((row.prompt, one.candidate, one.baseline), {})
            item.setdefault(row.rater, []).append(one.preference)
    same, prompts = [], []
    for (prompt, _, _), said in items.items():
        sides = [np.sign(np.mean(values) - 0.5) for values in said.values()]
        pairs = list(combinations(sides, 2))
        same += [float(a == b) for a, b in pairs]
        prompts += [prompt] * len(pairs)
    return share(same, prompts) if same else None


def position_bias(judgements: Sequence[Judgement]) -> dict[str, Any]:
    """{first_share, flips} of verdicts that say their order, as in `judge_facts`."""
    first = [row.preference if row.order == 0 else 1 - row.preference for row in judgements]
    orders: dict[tuple[Any, ...], dict[int, float]] = {}
    for row in judgements:
        key = (row.prompt, row.candidate, row.baseline, row.judge, row.rater, row.sample)
        orders.setdefault(key, {})[int(row.order or 0)] = row.preference
    both = {key: found for key, found in orders.items() if len(found) == 2}
    flips = [float(found[0] != found[1]) for found in both.values()]
    return {
        "first_share": share(first, [row.prompt for row in judgements]),
        "flips": share(flips, [key[0] for key in both]) if both else None,
    }


def share(values: Any, prompts: Sequence[str]) -> dict[str, Any]:
    """The mean of values in [0, 1] with its interval over prompts: {mean, interval, n, standard_error}."""
    found = accuracy(values, prompts)
    return {"mean": found["accuracy"], **{key: found[key] for key in ("interval", "n", "standard_error")}}


def _is_human(judged: Judged) -> bool:
    return judged.facts.get("kind") in HUMAN


def _items(evidence: Evidence, judged: Judged) -> dict[Item, float]:
    """What a judge prefers, by item of the main set."""
    return {
        (number, model): value
        for model, values in judged.preferences.items()
        if model != evidence.base
        for number, value in enumerate(values)
        if value is not None
        and evidence.prompts[number].set == MAIN
        and evidence.responses[model][number].text != evidence.responses[evidence.base][number].text
    }


def _longer(evidence: Evidence, items: Mapping[Item, float]) -> dict[Item, float]:
    """The preference for the longer response, by item whose responses differ in length."""
    made = {}
    for (number, model), value in items.items():
        more = len(evidence.responses[model][number].text) - len(evidence.responses[evidence.base][number].text)
        if more:
            made[number, model] = value if more > 0 else 1 - value
    return made


def _share_of(evidence: Evidence, items: Mapping[Item, float]) -> dict[str, Any]:
    return share(list(items.values()), [evidence.prompts[number].id for number, _ in items])
