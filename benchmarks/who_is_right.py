"""Who is right? Majority vote, Dawid-Skene, MACE and Concord's consensus, on crowds whose answers are known.

    python benchmarks/who_is_right.py [--data FOLDER] [--quick]

BarzanMozafari (1,000 tasks, two classes, 5 answers each of 83 workers, all gold), HITspam-UsingCrowdflower (100 gold)
and UKPConvArg1 (11,957 pairs of arguments, a winner or a tie, about 5 answers each of 3,756 raters). UKPConvArg1's gold
and competences are MACE's own, from these very answers. So what counts there is the second table: one answer of each
item is left out in turn, and predicted from the rest. A method says the probability of what this rater answers; the
mean of -log of it is the log loss. Intervals are 95%, by bootstrap over items; differences are of the same items.

Two classes are taken as a pair of responses, of which the first class is better or the second. Raters who like to name
one of them are then raters who like one place on the screen: the second class always stands first.

MACE (Hovy et al. 2013) is crowd-kit's: `pip install crowd-kit`, best in an environment of its own, or --quick.
"""

import argparse
import gzip
import json
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from preferences.stats.consensus import Rater, Said, expected, fit
from preferences.stats.dawid_skene import dawid_skene

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Crowd(NamedTuple):
    name: str
    classes: list[str]  # of three, the second is the tie
    item: Ints  # of each answer; so are rater and said
    rater: Ints
    said: Ints  # numbers of classes
    gold: Ints  # of each item, -1 where nobody knows
    raters: list[str]
    competence: Floats  # published, of each rater; NaN where there is none

    def only(self, kept: NDArray[np.bool_]) -> "Crowd":
        return self._replace(item=self.item[kept], rater=self.rater[kept], said=self.said[kept])


class Judged(NamedTuple):
    classes: Floats  # (items, C): how much speaks for each class being the right one
    predict: Callable[[Crowd], Floats]  # answers that were left out -> P(each class) (n, C)
    reliability: Floats  # (raters,)


Method = Callable[[Crowd], Judged]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", default="../shared/data", help="the folder with ukpconvarg1 and crowd-get-another-label"
    )
    parser.add_argument("--quick", action="store_true", help="without MACE")
    options = parser.parse_args()
    data = Path(options.data)
    if not (data / "ukpconvarg1").is_dir():
        sys.exit(f"error: {data} has no ukpconvarg1; say where it is with --data")
    methods: dict[str, Method] = {
        "majority": majority,
        "Dawid-Skene": dawid,
        "Dawid-Skene, all raters alike": dawid_alike,
        "MACE": mace,
        "Concord": concord,
    }
    if options.quick:
        del methods["MACE"]
    else:
        try:
            import crowdkit  # noqa: F401
        except ImportError:
            sys.exit("error: MACE is crowd-kit's; pip install crowd-kit, or leave it out with --quick")
    labels = data / "crowd-get-another-label"
    crowds = [labelled(labels, "BarzanMozafari"), labelled(labels, "HITspam-UsingCrowdflower"), arguments(data)]
    against_gold(crowds, methods)
    left_out(crowds[-1], methods)


# The data


def labelled(folder: Path, name: str) -> Crowd:
    with gzip.open(folder / f"{name}.labels.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = {(row["task"], row["worker"]): row["label"] for row in map(json.loads, stream)}  # the last one counts
    with open(folder / f"{name}.gold.jsonl", encoding="utf-8") as stream:
        gold = {row["task"]: row["label"] for row in map(json.loads, stream)}
    tasks, workers, classes = (
        sorted(set(column)) for column in zip(*((*key, said) for key, said in rows.items()), strict=True)
    )
    numbers = [{name: number for number, name in enumerate(names)} for names in (tasks, workers, classes)]
    item, rater, said = np.array(
        [(numbers[0][task], numbers[1][worker], numbers[2][label]) for (task, worker), label in rows.items()]
    ).T
    right = np.array([numbers[2].get(gold.get(task), -1) for task in tasks])
    return Crowd(name, classes, item, rater, said, right, workers, np.full(len(workers), np.nan))


def arguments(data: Path) -> Crowd:
    with gzip.open(data / "ukpconvarg1" / "judgements.jsonl.gz", "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    classes = ["a1", "equal", "a2"]
    raters: dict[str, int] = {}
    competence: dict[int, float] = {}
    answers = []
    for number, row in enumerate(rows):
        for answer in row["annotations"]:
            rater = raters.setdefault(answer["worker"], len(raters))
            competence[rater] = float(answer["mace_competence"] or "nan")
            answers.append((number, rater, classes.index(answer["choice"])))
    gold = np.array([classes.index(row["gold"]) if row["gold"] else -1 for row in rows])
    published = np.array([competence[number] for number in range(len(raters))])
    return Crowd("UKPConvArg1", classes, *np.array(answers).T, gold, list(raters), published)


# The methods


def majority(crowd: Crowd) -> Judged:
    counts = np.zeros((len(crowd.gold), len(crowd.classes)))
    np.add.at(counts, (crowd.item, crowd.said), 1)
    pool = counts.sum(axis=0) / counts.sum()
    smooth = (counts + 4 * pool) / (counts.sum(axis=1, keepdims=True) + 4)  # 4 did best of 1, 2, 3, 4, 6, 8
    return Judged(counts, lambda out: smooth[out.item], np.full(len(crowd.raters), np.nan))


def dawid(crowd: Crowd) -> Judged:
    found = dawid_skene(crowd.item, crowd.rater, crowd.said, len(crowd.classes), prior=0.01)
    # What is predicted of raters with few answers needs more than that: a count of 1 in each cell did best of 0.1, 0.3,
    # 1, 3 and 10. Who has no other answer is taken for the mean rater.
    smooth = dawid_skene(crowd.item, crowd.rater, crowd.said, len(crowd.classes), prior=1.0)
    given = np.bincount(crowd.rater, minlength=len(crowd.raters))
    errors = np.tile(np.average(smooth.errors, axis=0, weights=given[: len(smooth.errors)]), (len(crowd.raters), 1, 1))
    errors[: len(smooth.errors)][given[: len(smooth.errors)] > 0] = smooth.errors[given[: len(smooth.errors)] > 0]
    right = np.einsum("rcc,c->r", errors, smooth.marginals)
    return Judged(
        found.classes,
        lambda out: np.einsum("nc,ncs->ns", smooth.classes[out.item], errors[out.rater]),
        right,
    )


def dawid_alike(crowd: Crowd) -> Judged:
    found = dawid_skene(crowd.item, np.zeros_like(crowd.rater), crowd.said, len(crowd.classes))
    return Judged(
        found.classes, lambda out: found.classes[out.item] @ found.errors[0], np.full(len(crowd.raters), np.nan)
    )


def mace(crowd: Crowd) -> Judged:
    import pandas as pd
    from crowdkit.aggregation import MACE

    warnings.simplefilter("ignore")
    # crowd-kit 1.4.2 mixes up workers and labels that do not appear in sorted order, and starts each restart alike.
    workers, worker_names = pd.factorize(crowd.rater)
    labels, label_names = pd.factorize(crowd.said)
    model = MACE(n_restarts=1)
    model.fit(pd.DataFrame({"task": crowd.item, "worker": workers, "label": labels}))
    classes = np.zeros((len(crowd.gold), len(crowd.classes)))
    classes[np.ix_(model.probas_.index, label_names)] = model.probas_.sort_index(axis=1).to_numpy()
    knows = np.full(len(crowd.raters), np.nan)
    knows[worker_names] = model.spamming_[:, 1] / model.spamming_.sum(axis=1)
    habit = np.full(classes[:1].shape, 1 / len(crowd.classes)).repeat(len(crowd.raters), axis=0)
    habit[np.ix_(worker_names, label_names)] = model.thetas_ / model.thetas_.sum(axis=1, keepdims=True)
    trust = np.nan_to_num(knows, nan=np.nanmean(knows))[:, None]
    return Judged(
        classes,
        lambda out: trust[out.rater] * classes[out.item] + (1 - trust[out.rater]) * habit[out.rater],
        knows,
    )


def concord(crowd: Crowd) -> Judged:
    items = said_of(crowd)
    found = fit(items)
    tie = np.array([one.tie[0, 1] if one.ranks else 1 / 3 for one in found.items])
    first = np.array([one.preference[0, 1] if one.ranks else 1 / 2 for one in found.items]) - tie / 2
    classes = np.stack([first, tie, 1 - first - tie], axis=1)
    mean = Rater(found.parameters.reliability, (0.0, 1.0), 0, found.parameters.ties)
    everybody = found._replace(raters={name: found.raters.get(name, mean) for name in crowd.raters})

    def predict(out: Crowd) -> Floats:
        """Of each answer that was left out, by the others' answers to its item; there is one an item."""
        extra = said_of(out)
        likely = expected([[*item, *more] for item, more in zip(items, extra, strict=True)], everybody)
        return np.array([likely[item][-1][0] for item in out.item])

    reliability = np.array([everybody.raters[name].reliability for name in crowd.raters])
    return Judged(classes if len(crowd.classes) == 3 else classes[:, [0, 2]] + tie[:, None] / 2, predict, reliability)


def said_of(crowd: Crowd) -> list[list[Said]]:
    ranks = [[1, 2], [1, 1], [2, 1]] if len(crowd.classes) == 3 else [[1, 2], [2, 1]]
    shown = None if len(crowd.classes) == 3 else [1, 0]
    items: list[list[Said]] = [[] for _ in crowd.gold]
    for item, rater, said in zip(crowd.item.tolist(), crowd.rater.tolist(), crowd.said.tolist(), strict=True):
        items[item].append(Said(crowd.raters[rater], ranks[said], None, shown))
    return items


# What comes out


def against_gold(crowds: Sequence[Crowd], methods: Mapping[str, Method]) -> None:
    print("## Against gold\n\n| crowd | method | accuracy | less majority | reliability | CPU seconds |")
    print("|---|---|---|---|---|---|")
    for crowd in crowds:
        known = crowd.gold >= 0
        usual = np.empty(0)
        for name, method in methods.items():
            began = time.process_time()
            judged = method(crowd)
            seconds = time.process_time() - began
            right = correct(judged.classes[known], crowd.gold[known])
            usual = usual if len(usual) else right
            more = mean(right - usual, sign="+") if name != "majority" else ""
            told = correlation(judged.reliability, crowd)
            items = f"{crowd.name}, {known.sum():,} items"
            print(f"| {items} | {name} | {mean(right)} | {more} | {told} | {seconds:.1f} |", flush=True)
    print()


def left_out(crowd: Crowd, methods: Mapping[str, Method], seed: int = 0) -> None:
    """Each answer of an item is left out in turn, in a random order; the answers that were left out are predicted."""
    order = np.random.default_rng(seed).permutation(len(crowd.item))
    turn = np.empty(len(order), dtype=int)
    seen: dict[int, int] = {}
    for place in order:
        turn[place] = seen[crowd.item[place]] = seen.get(crowd.item[place], -1) + 1
    answers = np.bincount(crowd.item, minlength=len(crowd.gold))
    print(f"## Left-out answers of {crowd.name}\n")
    print("| method | log loss | more than Concord | accuracy | of sides, where the answer is no tie |")
    print("|---|---|---|---|---|")
    losses: dict[str, Floats] = {}
    rows = {}
    for name, method in reversed(methods.items()):
        likely = np.empty((len(crowd.item), len(crowd.classes)))
        for one in range(turn.max() + 1):
            out = turn == one
            likely[out] = method(crowd.only(~out)).predict(crowd.only(out))
        likely = np.clip(likely / likely.sum(axis=1, keepdims=True), 1e-6, 1)
        side = crowd.said != 1
        losses[name] = -np.log(likely[np.arange(len(likely)), crowd.said])
        right, sides = correct(likely, crowd.said), correct(likely[side][:, [0, 2]], crowd.said[side] // 2)
        by_item = [np.bincount(crowd.item, losses[which]) / answers for which in (name, "Concord")]
        more = mean(by_item[0] - by_item[1], "+", 4) if name != "Concord" else ""
        rows[name] = f"| {name} | {losses[name].mean():.4f} | {more} | {right.mean():.4f} | {sides.mean():.4f} |"
    print("\n".join(rows[name] for name in methods))


def correct(classes: Floats, right: Ints) -> Floats:
    """1 where the likeliest class is the right one, its share of the first place where several are: (n,)."""
    best = np.isclose(classes, classes.max(axis=1, keepdims=True))
    return best[np.arange(len(right)), right] / best.sum(axis=1)


def mean(values: Floats, sign: str = "", digits: int = 3) -> str:
    """The mean with its 95% bootstrap interval."""
    rng = np.random.default_rng(0)
    drawn = [values[rng.integers(len(values), size=len(values))].mean() for _ in range(1000)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return f"{values.mean():{sign}.{digits}f} ({low:{sign}.{digits}f} to {high:{sign}.{digits}f})"


def correlation(reliability: Floats, crowd: Crowd) -> str:
    """With the published competence where there is one, else with the share of right answers, of raters with 20."""
    known = crowd.gold[crowd.item] >= 0
    given = np.bincount(crowd.rater[known], minlength=len(crowd.raters))
    right = np.bincount(crowd.rater[known], crowd.said[known] == crowd.gold[crowd.item[known]], len(crowd.raters))
    target = crowd.competence if np.isfinite(crowd.competence).any() else right / np.maximum(given, 1)
    some = (given >= 20) & np.isfinite(reliability) & np.isfinite(target)
    return f"{spearmanr(reliability[some], target[some])[0]:.2f} ({some.sum()} raters)" if some.sum() > 9 else ""


if __name__ == "__main__":
    main()
