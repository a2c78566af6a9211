"""How many labels does it take? UKPConvArg1's real answers, asked for one after the other.

    python benchmarks/labels_needed.py [--data FOLDER] [--seeds N] [--out benchmarks/results]

11,957 pairs of arguments with about five answers each (Habernal and Gurevych, ACL 2016, CC-BY 4.0). Every policy uses
the same consensus model (preferences/stats/consensus.py), fitted anew on what was asked for so far:

* everybody n times: each pair gets its first n answers, n = 1 … 5, in an order drawn at random;
* sure at t: each pair gets two, and one more as long as it is less certain than t which side is better: what a project
  does whose setting `sure` is t;
* least certain first: each pair gets one, then a fifth of the pairs at a time another one, those whose side is least
  certain: the order in which such a project hands out what is left, stopped at any moment.

What comes out is judged three times. By the published gold, where it has a winner: it comes from MACE on all of these
answers, so that it flatters all labels. By the consensus of all answers: how often the side is the same. And by an
answer of each pair that is held out: how often the consensus of the others takes its side, ties left out.
"""

import argparse
import gzip
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from preferences.stats.consensus import Fit, Said, fit
from preferences.stats.spend import certainty, is_enough

RANKS = {"a1": (1, 2), "a2": (2, 1), "equal": (1, 1)}
SIDE = {"a1": 1.0, "a2": 0.0}
THRESHOLDS = (0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99)
STEP = 0.2  # of the pairs, that get one more answer at a time where the least certain come first
WHY = """\
Half of the labels was the goal, and it is missed. Two answers are the least that any pair gets, which is 40% already.
These raters differ on many pairs (one alone is right in about four of five), and such pairs need all of their answers;
most raters gave few, so that little is known of whom to believe. By the gold all labels are flattered, since it was
made from them: an answer that is not asked for is one that the gold knows.
"""
MARGIN = 0.005  # of accuracy: as good as all labels, but for half a point


class Point(NamedTuple):
    policy: str
    labels: float  # a pair
    right: float  # share of the pairs that are judged by, on the side that they say
    same: float  # share of all pairs on the side that all labels together take


class Judged(NamedTuple):
    """Answers to ask for, in order, and the side that is right of each pair: 1 the first, 0 the second, nan unknown."""

    answers: list[list[Said]]
    right: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/ukpconvarg1", help="the folder with judgements.jsonl.gz")
    parser.add_argument("--seeds", type=int, default=2, help="orders of the answers")
    parser.add_argument("--pairs", type=int, help="take only the first so many")
    parser.add_argument("--out", default="benchmarks/results", help="where the table and the picture go")
    options = parser.parse_args()
    source = Path(options.data) / "judgements.jsonl.gz"
    if not source.is_file():
        sys.exit(f"error: {source} is not there; give the folder of UKPConvArg1 with --data")
    with gzip.open(source, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream][: options.pairs]
    began = time.monotonic()
    points: dict[str, list[list[Point]]] = {"gold": [], "held out": []}
    for seed in range(options.seeds):
        for name, judge in (("gold", by_gold), ("held out", by_held_out)):
            points[name].append(replay(judge(rows, np.random.default_rng(seed))))
            print(f"seed {seed}, {name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    curves = {name: mean_of(runs) for name, runs in points.items()}
    out = Path(options.out)
    command = "python benchmarks/labels_needed.py" + (f" --pairs {options.pairs}" if options.pairs else "")
    text = report(curves, len(rows), options.seeds, command, time.monotonic() - began)
    (out / "labels_needed.md").write_text(text, encoding="utf-8")
    draw(curves, out / "labels_needed.png")
    print(text)


def by_gold(rows: Sequence[dict[str, Any]], order: np.random.Generator) -> Judged:
    answers = [[said(row["annotations"][n]) for n in order.permutation(len(row["annotations"]))] for row in rows]
    return Judged(answers, np.array([SIDE.get(row["gold"], np.nan) for row in rows]))


def by_held_out(rows: Sequence[dict[str, Any]], order: np.random.Generator) -> Judged:
    answers, right = [], []
    for row in rows:
        first, *others = order.permutation(len(row["annotations"]))
        answers.append([said(row["annotations"][n]) for n in others])
        right.append(SIDE.get(row["annotations"][first]["choice"], np.nan))
    return Judged(answers, np.array(right))


def said(annotation: dict[str, Any]) -> Said:
    return Said(annotation["worker"], RANKS[annotation["choice"]])


# --- policies ---------------------------------------------------------------------------------------------------


def replay(judged: Judged) -> list[Point]:
    """Every policy on the same answers in the same order."""
    most = np.array([len(one) for one in judged.answers])
    told: list[tuple[str, float, Fit]] = []
    fits: dict[int, Fit] = {}
    for n in range(1, most.max() + 1):
        asked = np.minimum(n, most)
        fits[n] = fitted(judged, asked)
        told.append((f"everybody {n} times", asked.mean(), fits[n]))
    for sure in THRESHOLDS:
        asked = np.minimum(2, most)
        found = fits[2]
        while True:
            open_ = [not is_enough(one, n, sure) for one, n in zip(found.items, asked, strict=True)]
            more = np.minimum(asked + np.array(open_), most)
            if (more == asked).all():
                break
            asked, found = more, fitted(judged, more)
        told.append((f"sure at {sure:g}", asked.mean(), found))
    asked, found = np.ones(len(most), dtype=int), fits[1]
    while (asked < most).any():
        sure = np.where(asked < most, [certainty(one) for one in found.items], 2.0)
        next_ = np.argsort(sure, kind="stable")[: round(STEP * len(most))]
        asked[next_] = np.minimum(asked[next_] + 1, most[next_])
        found = fitted(judged, asked)
        told.append(("least certain first", asked.mean(), found))
    together = sides(fits[int(most.max())])
    return [
        Point(policy, labels, agree(sides(found), judged.right), agree(sides(found), together))
        for policy, labels, found in told
    ]


def fitted(judged: Judged, asked: np.ndarray) -> Fit:
    return fit([one[:n] for one, n in zip(judged.answers, asked, strict=True)])


def sides(found: Fit) -> np.ndarray:
    """The side that the consensus takes of each pair: 1 the first, 0 the second, ½ neither."""
    return np.sign(np.array([item.preference[0, 1] for item in found.items]) - 0.5) / 2 + 0.5


def agree(mine: np.ndarray, right: np.ndarray) -> float:
    """The share of pairs on the right side where that is known, half a side counted half."""
    known = ~np.isnan(right)
    return float(1 - np.abs(mine[known] - right[known]).mean())


def mean_of(runs: Sequence[Sequence[Point]]) -> list[Point]:
    """The mean over seeds, point by point."""
    return [
        Point(points[0].policy, *(float(np.mean([one[n] for one in points])) for n in (1, 2, 3)))
        for points in zip(*runs, strict=False)
    ]


# --- what comes out ---------------------------------------------------------------------------------------------


def curve(points: Sequence[Point], family: str) -> list[Point]:
    return sorted((one for one in points if one.policy.startswith(family)), key=lambda one: one.labels)


def needed(points: Sequence[Point], goal: float) -> float | None:
    """Labels a pair at which a curve first reaches the goal, between its points by a straight line."""
    before = None
    for one in points:
        if one.right >= goal:
            if before is None:
                return one.labels
            share = (goal - before.right) / (one.right - before.right)
            return before.labels + share * (one.labels - before.labels)
        before = one
    return None


FAMILIES = {"everybody": "everybody n times", "sure": "sure at t", "least": "least certain first"}


def report(curves: dict[str, list[Point]], pairs: int, seeds: int, command: str, seconds: float) -> str:
    names = {"gold": "published gold", "held out": "a held-out answer"}
    lines = [
        "# Labels needed: UKPConvArg1's real answers, replayed",
        "",
        f"    {command}",
        "",
        f"{pairs} pairs, mean over {seeds} orders of the answers, {seconds:.0f} s. Accuracy is the share of pairs",
        "whose consensus takes the right side; the script says what the policies and the judges are.",
        "",
        "| policy | labels a pair | as with all labels | accuracy by published gold | labels a pair, one held out"
        " | accuracy by the held-out answer |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    by_policy: dict[str, dict[str, Point]] = {}
    for judge, points in curves.items():
        for one in points:
            if not one.policy.startswith("least"):
                by_policy.setdefault(one.policy, {})[judge] = one
    for policy, found in by_policy.items():
        one, out = found["gold"], found.get("held out")
        cells = [f"{one.labels:.2f} | {one.same:.4f} | {one.right:.4f}"]
        cells.append(f"{out.labels:.2f} | {out.right:.4f}" if out else " | ")
        lines.append(f"| {policy} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Labels a pair that it takes to be as good as all labels (between points by a straight line), and their share",
        f"of all labels; within {100 * MARGIN:g} points in brackets:",
        "",
        "| policy | " + " | ".join(f"by {name}" for name in names.values()) + " |",
        "|---|" + "---:|" * len(names),
    ]
    for family, title in FAMILIES.items():
        cells = []
        for points in curves.values():
            most = curve(points, "everybody")[-1]
            reached = [needed(curve(points, family), most.right - margin) for margin in (0.0, MARGIN)]
            cells.append(
                " ".join(_share(one, most.labels, inside) for one, inside in zip(reached, (False, True), strict=True))
            )
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", WHY, "![Accuracy by labels a pair](labels_needed.png)", ""])


def _share(labels: float | None, most: float, inside: bool) -> str:
    text = "never" if labels is None else f"{labels:.2f} = {labels / most:.0%}"
    return f"({text})" if inside else text


def draw(curves: dict[str, list[Point]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(10, 4))
    for (judge, points), plot in zip(curves.items(), axes, strict=True):
        for family, mark in zip(FAMILIES, ("o-", "s-", ".-"), strict=True):
            found = curve(points, family)
            plot.plot([one.labels for one in found], [one.right for one in found], mark, label=FAMILIES[family])
        plot.axhline(curve(points, "everybody")[-1].right, color="grey", linewidth=0.8, linestyle=":")
        plot.set(xlabel="labels a pair", ylabel="accuracy", title=f"by {judge}")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
