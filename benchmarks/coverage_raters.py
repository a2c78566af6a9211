"""Do the intervals of win rates hold where one person gave most of the verdicts, and where one looks every day?

    python benchmarks/coverage_raters.py [--runs 1000]    minutes on one core

Studies as in coverage.py: a verdict is a win, tie or loss by a normal score, which is 0.6, plus the prompt's own
(spread 1), plus the rater's taste, plus noise (spread 1); within 0.3 of 0 it is a tie. The truth is about other prompts
and other people. Every interval is made by the functions that `align evaluate` and `align winrate` call.
"""

import argparse
from collections.abc import Iterator

import numpy as np
from scipy.special import ndtr

from preferences.stats.crossed import over_prompts_and_raters
from preferences.stats.intervals import exact_mean
from preferences.stats.pair import DAILY
from preferences.stats.sequential import confidence_sequence

Cells = list[tuple[int, str, float]]


def truth_of(taste: float) -> float:
    spread = np.sqrt(2 + taste**2)
    return float(ndtr((0.6 - 0.3) / spread) + ndtr((0.6 + 0.3) / spread)) / 2


def study(rng: np.random.Generator, n: int, shares: np.ndarray, each: int, taste: float) -> tuple[np.ndarray, Cells]:
    """The prompts' means (n,), and the cells in the order of prompts; a rater is asked as often as `shares` say."""
    raters = np.argsort(-rng.gumbel(size=(n, len(shares))) - np.log(shares), axis=1)[:, :each]
    score = 0.6 + rng.normal(size=(n, 1)) + rng.normal(0, taste, len(shares))[raters] + rng.normal(size=raters.shape)
    said = np.where(score > 0.3, 1.0, np.where(score < -0.3, 0.0, 0.5))
    rows = zip(np.repeat(np.arange(n), each).tolist(), raters.ravel().tolist(), said.ravel().tolist(), strict=True)
    return said.mean(axis=1), [(prompt, f"w{rater}", value) for prompt, rater, value in rows]


def holds(interval: list[float], truth: float) -> bool:
    return interval[0] <= truth <= interval[1]


def of_unequal_raters(runs: int) -> Iterator[str]:
    yield "## Raters of unequal numbers of verdicts\n"
    yield "Busiest: its share of the verdicts that are asked for; the others share the rest. Reported: `interval`."
    yield "Over prompts: the interval that takes raters for given.\n"
    yield "| prompts | raters | busiest | on each | taste | reported | width | over prompts | width |"
    yield "|---|---|---|---|---|---|---|---|---|"
    rng = np.random.default_rng(1)
    for n in (50, 200):
        for people, busiest in ((3, 0.8), (10, 0.5), (10, 0.75), (20, 0.3)):
            for each in (1, 2):
                for taste in (0.0, 0.3, 0.8):
                    shares = np.r_[busiest, np.full(people - 1, (1 - busiest) / (people - 1))]
                    truth, found = truth_of(taste), np.zeros(4)
                    for _ in range(runs):
                        means, cells = study(rng, n, shares, each, taste)
                        alone = exact_mean(float(means.mean()), float(means.std(ddof=1)) / np.sqrt(n), n)
                        crossed = over_prompts_and_raters(cells, n)
                        both = alone if crossed is None else crossed[1]  # fewer than three raters came
                        found += [holds(both, truth), both[1] - both[0], holds(alone, truth), alone[1] - alone[0]]
                    a, b, c, d = found / runs
                    asked = f"{n} | {people} | {busiest:.0%} | {each} | {taste}"
                    yield f"| {asked} | {a:.3f} | {b:.2f} | {c:.3f} | {d:.2f} |"


def of_daily_looks(runs: int) -> Iterator[str]:
    yield "\n## Looking every day where people judge\n"
    yield "Twenty prompts a day, a look each day, up to 400 prompts, by the same people all the time. Reported:"
    yield "`anytime_interval`, as it is made where `interval` is over raters. For prompts: the confidence sequence"
    yield "alone. One look: `interval`, used every day. Coverage: the share of studies in which the intervals of all"
    yield "days held the truth; widths are those of the last day.\n"
    yield "| raters | on each | taste | reported | width | for prompts | width | one look | width |"
    yield "|---|---|---|---|---|---|---|---|---|"
    rng = np.random.default_rng(2)
    for people in (3, 10, 20):
        for each in (1, 3):
            for taste in (0.0, 0.3, 0.8):
                truth, held, widths = truth_of(taste), np.zeros(3), np.zeros(3)
                for _ in range(runs):
                    means, cells = study(rng, 400, np.full(people, 1 / people), each, taste)
                    sequence, always = confidence_sequence(means), np.ones(3, dtype=bool)
                    for seen in range(20, 401, 20):
                        prompts, known = sequence[seen - 1].tolist(), cells[: seen * each]
                        once = over_prompts_and_raters(known, seen)
                        wider = over_prompts_and_raters(known, seen, 1 - 0.05 / DAILY)
                        three = [prompts, prompts, prompts]  # fewer than three raters came
                        if once is not None and wider is not None:
                            (low, high), (far_low, far_high) = prompts, wider[1]
                            three = [[min(low, far_low), max(high, far_high)], prompts, once[1]]
                        always &= [holds(one, truth) for one in three]
                    held += always
                    widths += [one[1] - one[0] for one in three]
                cells_of = [f"{a:.3f} | {b:.2f}" for a, b in zip(held / runs, widths / runs, strict=True)]
                yield f"| {people} | {each} | {taste} | {' | '.join(cells_of)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    runs = parser.parse_args().runs
    print("# Coverage where raters are few, unequal, or looked at daily\n")
    print(f"`python benchmarks/coverage_raters.py`: {runs:,} studies a row.")
    print(f"The simulation's own error is {np.sqrt(0.95 * 0.05 / runs):.3f}.\n")
    for part in (of_unequal_raters, of_daily_looks):
        for line in part(runs):
            print(line, flush=True)


if __name__ == "__main__":
    main()
