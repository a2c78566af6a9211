"""How far raters agree, as a report says it: each number with its interval, in all and in parts.

Units, values and the sums that items add are of units.py, the formulas of coefficients.py, the intervals of
bootstrap.py. None, never NaN, stands where a number is not defined.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from statistics import NormalDist
from typing import Any

import numpy as np

from preferences.stats.bootstrap import Estimate, Part, estimate
from preferences.stats.coefficients import Floats
from preferences.stats.units import (
    coefficients_of,
    kappas_of,
    orders_of,
    pair_values,
    spread,
    stack_answers,
    sums_of_orders,
    sums_of_pairs,
    sums_of_raters,
    table_of_ranks,
    table_of_ratings,
)

__all__ = ["agreement", "agreement_in_parts", "disagreement", "pair_values", "periods", "stack_answers"]

ENOUGH_SHARED = 20  # units that two raters both answered, below which their kappa is not taken
PERIODS, ENOUGH_ITEMS = 10, 20  # at most so many stretches of time, of so many items at least
MOST_PAIRS = 100  # of raters that are listed
ENOUGH_TAGGED = 20  # items that can be compared, below which nothing is said of a tag: its interval is a lottery

RAW_AND_ALPHAS = ["raw", *(f"krippendorff_alpha_{level}" for level in ("nominal", "ordinal", "interval"))]
SLICED = ["raw", "krippendorff_alpha_nominal", "krippendorff_alpha_ordinal", "krippendorff_alpha_symmetrised"]

Items = Sequence[Sequence[Sequence[int]]]
Raters = Sequence[Sequence[str]]


def disagreement(items: Items) -> list[float | None]:
    """How far the answers to each item differ: 1 - the share of pairs of answers that give a unit the same value.

    The mean is over the item's units; 0 = all say the same. None for an item with fewer than two answers.
    """
    result: list[float | None] = [None] * len(items)
    for rows, ranks in stack_answers(items):
        values, m = pair_values(ranks), ranks.shape[1]
        counts = np.stack([(values == value).sum(axis=1) for value in (-1, 0, 1)], axis=-1)  # (items, units, 3)
        same = (counts * (counts - 1)).sum(axis=-1) / (m * (m - 1))
        for row, share in zip(rows.tolist(), same.mean(axis=1).tolist(), strict=True):
            result[row] = 1 - share
    return result


def agreement(items: Items, raters: Raters | None = None, *, resamples: int = 1000, seed: int = 0) -> dict[str, Any]:
    """Agreement between raters, ready for JSON.

    `items` has one entry an item: its answers' rank lists, in import order of the responses. `raters` says who gave
    them; without it the kappa of pairs of raters is None. Each number has its 95% percentile bootstrap over items
    beside it, under its name with `_interval` behind; None with fewer than two items.

    raw                             share of pairs of answers to one unit that give it the same value
    krippendorff_alpha_nominal      over the units; 1 = perfect, 0 = as good as chance
    krippendorff_alpha_ordinal      the same, a tie being nearer to either side than these are to each other
    krippendorff_alpha_interval     the same, the sides being -1 and 1 and a tie 0
    krippendorff_alpha_symmetrised  nominal, with every unit counted in both orientations, its values mirrored: it
                                    doesn't depend on which response came first in the import
    fleiss_kappa                    of many raters, whoever they are
    cohen_kappa                     of two raters: the mean over all pairs who share 20 units or more, which are
                                    `cohen_kappa_pairs` many
    kendall_w, tau_b                means over items, and over pairs of raters, with three or more responses
    units, raters_per_unit          how many units have two or more answers, and how many answers they have (mean)
    """
    return agreement_in_parts(items, raters, resamples=resamples, seed=seed)["agreement"]


def agreement_in_parts(
    items: Items,
    raters: Raters | None = None,
    *,
    tags: Sequence[Collection[str]] = (),
    moments: Sequence[float | None] = (),
    ratings: Mapping[str, Sequence[Sequence[Sequence[float]]]] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Agreement in all and in parts, ready for JSON; every interval comes from the same resamples of the items.

    `tags` and `moments` say for each item what it is tagged with and when its last answer came (Unix time);
    `ratings` is {dimension: what each rater who gave any gave the responses of each item}.

    agreement    as `agreement`
    dimensions   [{dimension, items, units, raters_per_unit, raw, alphas and Fleiss' kappa of the ratings}]; a unit is
                 a response
    tags         [{tag, items, units, the same of the items with that tag, less}], the commonest first; `less` as
                 `_less` says
    over_time    [{from, to, items, units, the same}] of at most ten stretches of equally many items, as `periods`
    raters       {rater: {kappa, raw, units, items}}: each rater against the others of their items
    rater_pairs  [{raters: [two], kappa, raw, units, items}], who share most first, at most 100
    """
    comparable = [index for index, answers in enumerate(items) if len(answers) >= 2]
    stacks, count = stack_answers(items), len(comparable)
    places = np.zeros(len(items), dtype=np.int64)
    places[comparable] = np.arange(count)
    stacks = [(places[rows], ranks) for rows, ranks in stacks]

    table = table_of_ranks(stacks, count)
    tagged = _by_tag([tags[index] for index in comparable] if tags else [])
    stretches = periods([moments[index] for index in comparable] if moments else [])
    scales = {name: table_of_ratings([rows[index] for index in comparable]) for name, rows in (ratings or {}).items()}
    people = [raters[index] for index in comparable] if raters else []
    names = sorted({rater for item in people for rater in item})
    numbers = {name: number for number, name in enumerate(names)}
    who = [[numbers[rater] for rater in item] for item in people]
    rankings = stacks if raters else []
    shared, pairs = sums_of_pairs(rankings, who, len(names), count, ENOUGH_SHARED)

    def of_slices(sums: Floats) -> dict[str, Floats]:
        return coefficients_of(table, sums.reshape(*sums.shape[:-1], -1, table.sums.shape[1]))

    def of_pairs(sums: Floats) -> dict[str, Floats]:
        found = kappas_of(sums)
        return {**found, "cohen_kappa": _mean(found["kappa"])}

    whole, orders, both, each, by_tag, by_time, *by_dimension = estimate(
        [
            Part(table.sums, partial(coefficients_of, table)),
            Part(sums_of_orders(stacks, count), orders_of),
            Part(shared, of_pairs),
            Part(sums_of_raters(rankings, who, len(names), count), kappas_of),
            Part(spread(table.sums, tagged.values()), of_slices),
            Part(spread(table.sums, stretches), of_slices),
            *(Part(scale.sums, partial(coefficients_of, scale)) for scale in scales.values()),
        ],
        resamples=resamples,
        seed=seed,
    )
    listed = sorted(range(len(pairs)), key=lambda pair: (-both["units"].value[pair], pairs[pair]))[:MOST_PAIRS]
    return {
        "agreement": {
            **_numbers(whole, RAW_AND_ALPHAS),
            **_numbers(whole, ["krippendorff_alpha_symmetrised", "fleiss_kappa"]),
            **_numbers({**both, "items": _most(both["items"])}, ["cohen_kappa"]),
            "cohen_kappa_pairs": len(pairs),
            **_numbers(orders, ["kendall_w", "tau_b"]),
            **_counts(whole, without="items"),
        },
        "dimensions": [
            {"dimension": name, **_counts(found), **_numbers(found, [*RAW_AND_ALPHAS, "fleiss_kappa"])}
            for name, found in zip(scales, by_dimension, strict=True)
        ],
        "tags": _less(
            [
                {"tag": tag, **_counts(by_tag, place), **_numbers(by_tag, SLICED, place)}
                for place, tag in enumerate(tagged)
            ],
            _numbers(whole, ["krippendorff_alpha_nominal"])["krippendorff_alpha_nominal"],
        ),
        "over_time": [
            {**stretch, **_counts(by_time, place), **_numbers(by_time, SLICED, place)}
            for place, stretch in enumerate(_span([moments[comparable[row]] for row in rows]) for rows in stretches)
        ],
        "raters": {
            name: {**_counts(each, place), **_numbers(each, ["kappa", "raw"], place)}
            for place, name in enumerate(names)
        },
        "rater_pairs": [
            {
                "raters": [names[number] for number in pairs[pair]],
                **_counts(both, pair),
                **_numbers(both, ["kappa", "raw"], pair),
            }
            for pair in listed
        ],
    }


def periods(moments: Sequence[float | None]) -> list[list[int]]:
    """The items in the order of their moments, cut into stretches of equally many: lists of their places.

    As many stretches as there are twenty items for, ten at most; none where that is less than two, or where all
    moments are one. Items without a moment are left out.
    """
    known = sorted((moment, place) for place, moment in enumerate(moments) if moment is not None)
    number = min(PERIODS, len(known) // ENOUGH_ITEMS)
    if number < 2 or known[0][0] == known[-1][0]:
        return []
    return [part.tolist() for part in np.array_split([place for _, place in known], number)]


def _span(moments: Sequence[float | None]) -> dict[str, str]:
    first, *_, last = sorted(moment for moment in moments if moment is not None)
    return {
        name: datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        for name, moment in (("from", first), ("to", last))
    }


def _by_tag(tags: Sequence[Collection[str]]) -> dict[str, list[int]]:
    """{tag: places of the items that have it}, the commonest first."""
    places: dict[str, list[int]] = {}
    for place, own in enumerate(tags):
        for tag in set(own):
            places.setdefault(tag, []).append(place)
    return dict(sorted(places.items(), key=lambda one: (-len(one[1]), one[0])))


def _less(tags: Sequence[Mapping[str, Any]], whole: Any) -> list[dict[str, Any]]:
    """The tags with `less`: whether raters clearly agree less there than on the `whole`, by nominal alpha.

    None for a tag of fewer than ENOUGH_TAGGED items, which is not judged. Of those that are, the upper half of the
    interval is widened for their number (Bonferroni): however many are compared, about one list in forty names a tag
    that is as good as the whole.
    """
    judged = sum(tag["items"] >= ENOUGH_TAGGED for tag in tags)
    normal = NormalDist()
    wider = normal.inv_cdf(1 - 0.025 / max(judged, 1)) / normal.inv_cdf(0.975)

    def less(value: float | None, interval: list[float] | None) -> bool:
        if whole is None or value is None or interval is None:
            return False
        return value + (interval[1] - value) * wider < whole

    alpha = "krippendorff_alpha_nominal"
    return [
        {**tag, "less": less(tag[alpha], tag[f"{alpha}_interval"]) if tag["items"] >= ENOUGH_TAGGED else None}
        for tag in tags
    ]


def _mean(values: Floats) -> Floats:
    """Mean over the last axis of what is not NaN; NaN where all is."""
    known = ~np.isnan(values)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(known, values, 0.0).sum(axis=-1) / known.sum(axis=-1)


def _most(found: Estimate) -> Estimate:
    return Estimate(*(np.asarray(np.max(part, initial=0.0)) for part in found))


def _counts(found: Mapping[str, Estimate], place: int | tuple[()] = (), *, without: str = "") -> dict[str, Any]:
    """How much there is of what: items and units that can be compared, and answers to such a unit (mean)."""
    items, units = (round(float(found[name].value[place])) for name in ("items", "units"))
    counts: dict[str, Any] = {"items": items, "units": units}
    if "answers" in found:
        counts["raters_per_unit"] = float(found["answers"].value[place]) / units if units else None
    return {name: value for name, value in counts.items() if name != without}


def _numbers(
    found: Mapping[str, Estimate], names: Sequence[str], place: int | tuple[()] = ()
) -> dict[str, float | list[float] | None]:
    """Each number and its interval, or None; one item alone can't be resampled."""
    several = found["items"].value[place] >= 2
    made: dict[str, float | list[float] | None] = {}
    for name in names:
        value, low, high = (float(part[place]) for part in found[name])
        made[name] = None if np.isnan(value) else value
        made[f"{name}_interval"] = [low, high] if several and not np.isnan(low) else None
    return made
