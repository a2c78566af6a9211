"""Do Concord's 95% intervals hold the truth 95% of the time? Simulated studies whose truth is known.

    python benchmarks/coverage.py [--runs 10000] [--only "win rates" …]    minutes on one core

Every interval is made by the function that `align evaluate` and `align winrate` call. In each study prompts (and
people, where people judge) are drawn anew. Beside it stands what one might do instead, with its width. "!" marks a
coverage of a reported interval below 0.95 less two standard errors of the simulation (0.9456 for 10,000 runs).
"""

import argparse
import time
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from scipy.special import ndtr, stdtrit
from scipy.stats import binom

from preferences.stats.bradley_terry import against_others, fit_strengths, strengths
from preferences.stats.crossed import over_prompts_and_raters
from preferences.stats.intervals import clopper_pearson, exact_mean, wilson
from preferences.stats.power import more_prompts, prompts_needed
from preferences.stats.sequential import ends_of_counts
from preferences.stats.winrate import equal_values_interval, mean_interval, win_rate

SIZES = (50, 200, 1000)
RESAMPLED = 1000  # runs of what draws anew within each study, and is not what we report
LEVELS = np.array([1.0, 0.5, 0.0])  # win, tie, loss


class Tally:
    """How often intervals held a truth, and how wide they were on average."""

    def __init__(self, truth: float) -> None:
        self.truth, self.inside, self.width, self.runs = truth, 0, 0.0, 0

    def add(self, low: float, high: float) -> None:
        self.inside += low - 1e-12 <= self.truth <= high + 1e-12
        self.width += high - low
        self.runs += 1

    def cells(self, judged: bool = False) -> str:
        """Coverage and mean width, as two cells of a table."""
        rate = self.inside / self.runs
        short = judged and rate < 0.95 - 2 * np.sqrt(0.95 * 0.05 / self.runs)
        return f"{rate:.4f}{' !' if short else ''} | {self.width / self.runs:.3f}"


def errors(values: np.ndarray) -> np.ndarray:
    return values.std(axis=-1, ddof=1) / np.sqrt(values.shape[-1])


def chances(rate: float, ties: float) -> list[float]:
    return [rate - ties / 2, ties, 1 - rate - ties / 2]


def of_win_rates(runs: int) -> Iterator[str]:
    yield "## Win rates of wins, ties and losses\n"
    yield "Reported: `interval` of `win_rate`. BCa: its `bootstrap_interval` (2,000 resamples) in"
    yield f"{min(runs, RESAMPLED):,} runs. Naive: mean ± 1.96 standard errors.\n"
    yield "| prompts | win rate | ties | reported | width | BCa | width | naive | width |"
    yield "|---|---|---|---|---|---|---|---|---|"
    rng = np.random.default_rng(1)
    settings = ((0.5, 0), (0.5, 0.3), (0.5, 0.9), (0.6, 0), (0.6, 0.3), (0.6, 0.7), (0.8, 0), (0.8, 0.2), (0.95, 0))

    @cache
    def ends(*study: int) -> tuple[list[float], list[float]]:
        values = np.repeat(LEVELS, study)
        found = win_rate(values, resamples=2)
        reach = 1.96 * float(errors(values))
        return found["interval"], [found["win_rate"] - reach, found["win_rate"] + reach]

    @cache
    def drawn(*study: int) -> list[float]:
        found = win_rate(np.repeat(LEVELS, study), resamples=2000)
        return found["bootstrap_interval"] or found["interval"]

    for n in SIZES:
        for rate, ties in settings:
            reported, bca, naive = (Tally(rate) for _ in range(3))
            for run, study in enumerate(rng.multinomial(n, chances(rate, ties), size=runs).tolist()):
                exact, simple = ends(*study)
                reported.add(*exact)
                naive.add(*simple)
                if run < RESAMPLED:
                    bca.add(*drawn(*study))
            yield f"| {n} | {rate} | {ties:.0%} | {reported.cells(True)} | {bca.cells()} | {naive.cells()} |"


def of_graded(runs: int) -> Iterator[str]:
    yield "\n## Win rates of graded preferences\n"
    yield "Probabilities, as language models and people's means give them. The last is a warning: where one prompt"
    yield "in twenty is a disaster and all others are alike, a study holds a handful of what matters, or nothing.\n"
    yield "| prompts | preferences | win rate | reported | width | naive | width |\n|---|---|---|---|---|---|---|"
    rng = np.random.default_rng(2)
    draws: dict[str, tuple[Callable[[tuple[int, int]], np.ndarray], float]] = {
        "uniform": (lambda size: rng.random(size), 0.5),
        "beta(5, 1)": (lambda size: rng.beta(5, 1, size), 5 / 6),
        "beta(0.5, 0.5)": (lambda size: rng.beta(0.5, 0.5, size), 0.5),
        "means of three people, 0.6 each": (lambda size: rng.binomial(3, 0.6, size) / 3, 0.6),
        "0.6, and 0 in one of ten": (lambda size: np.where(rng.random(size) < 0.1, 0, 0.6), 0.54),
        "0.8, and 0 in one of twenty": (lambda size: np.where(rng.random(size) < 0.05, 0, 0.8), 0.76),
    }
    for n in SIZES:
        for name, (draw, truth) in draws.items():
            reported, naive = Tally(truth), Tally(truth)
            values = draw((runs, n))
            for mean, error, study in zip(values.mean(axis=1).tolist(), errors(values).tolist(), values, strict=True):
                # As win_rate does, whose bootstrap would take hours here.
                reported.add(*(exact_mean(mean, error, n) if np.ptp(study) else equal_values_interval(study[0], n)))
                naive.add(mean - 1.96 * error, mean + 1.96 * error)
            yield f"| {n} | {name} | {truth:.3f} | {reported.cells(True)} | {naive.cells()} |"


def of_people(runs: int) -> Iterator[str]:
    yield "\n## Win rates by people: prompts crossed with raters\n"
    yield "A verdict is a win, tie or loss by a normal score: 0.6, plus the prompt's own (spread 1), plus the"
    yield "rater's taste, plus noise (spread 1); within 0.3 of 0 it is a tie. The truth is about other prompts and"
    yield "other people. Over prompts: the interval that takes raters for given. Both drawn: percentiles of a"
    yield "bootstrap that draws prompts and raters (Owen 2007, Annals of Applied Statistics 1(2); 400 resamples,"
    yield f"{min(runs, RESAMPLED // 5):,} runs).\n"
    yield "| prompts | raters | on each | taste | reported | width | over prompts | width | both drawn | width |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    rng = np.random.default_rng(3)
    for n in SIZES:
        for people, each in ((3, 3), (3, 1), (10, 3), (20, 2)):
            for taste in (0.0, 0.3, 0.8):
                yield _people(rng, runs, n, people, each, taste)


def _people(rng: np.random.Generator, runs: int, n: int, people: int, each: int, taste: float) -> str:
    spread = np.sqrt(2 + taste**2)
    truth = float(ndtr((0.6 - 0.3) / spread) + ndtr((0.6 + 0.3) / spread)) / 2
    reported, given, drawn = (Tally(truth) for _ in range(3))
    some = max(1, 1_000_000 // (n * each))
    for begin in range(0, runs, some):
        count = min(some, runs - begin)
        # Who judges a prompt: neighbours on a circle of people, from a place of its own.
        raters = (rng.integers(people, size=(count, n, 1)) + np.arange(each)) % people
        tastes = np.take_along_axis(rng.normal(0, taste, (count, people)), raters.reshape(count, -1), axis=1)
        score = 0.6 + rng.normal(size=(count, n, 1)) + tastes.reshape(raters.shape) + rng.normal(size=raters.shape)
        said = np.where(score > 0.3, 1.0, np.where(score < -0.3, 0.0, 0.5))
        means, error = said.mean(axis=(1, 2)), errors(said.mean(axis=2))
        crossed = _crossed_errors(said, raters, people)
        for study in range(count):
            one = exact_mean(float(means[study]), float(crossed[study]), n)
            if begin + study < 20:  # what ships says the same
                assert np.allclose(one, over_prompts_and_raters(_cells(said[study], raters[study]), n)[1], atol=1e-9)
            reported.add(*one)
            given.add(*exact_mean(float(means[study]), float(error[study]), n))
            if begin + study < RESAMPLED // 5:
                drawn.add(*_both_drawn(rng, said[study], raters[study], people))
    return f"| {n} | {people} | {each} | {taste} | {reported.cells(True)} | {given.cells()} | {drawn.cells()} |"


def _cells(said: np.ndarray, raters: np.ndarray) -> list[tuple[int, str, float]]:
    prompts = np.repeat(np.arange(len(said)), said.shape[1])
    return list(zip(prompts.tolist(), raters.ravel().astype(str).tolist(), said.ravel().tolist(), strict=True))


def _crossed_errors(said: np.ndarray, raters: np.ndarray, people: int) -> np.ndarray:
    """The errors (studies,) in `over_prompts_and_raters`, of many studies at once: said, raters (studies, n, each)."""
    count, n, each = said.shape
    u = (said - said.mean(axis=(1, 2), keepdims=True)) / (n * each)
    who = raters + people * np.arange(count)[:, None, None]
    by_rater = np.bincount(who.ravel(), u.ravel(), count * people).reshape(count, people)
    verdicts = np.bincount(who.ravel(), minlength=count * people).reshape(count, people)
    share = verdicts / (n * each)
    a = n / (n - 1) * (u.sum(axis=2) ** 2).sum(axis=1)
    b = (by_rater**2 / (1 - share)).sum(axis=1)
    c = (u**2).sum(axis=(1, 2))
    ratio = (stdtrit(1 / (share**2).sum(axis=1) - 1, 0.975) / stdtrit(n - 1, 0.975)) ** 2
    return np.sqrt(np.maximum(a, np.maximum(a - c, 0) + ratio * b))


def _both_drawn(rng: np.random.Generator, said: np.ndarray, raters: np.ndarray, people: int) -> np.ndarray:
    n = len(said)
    table, known = np.zeros((n, people)), np.zeros((n, people))
    np.put_along_axis(table, raters, said, axis=1)
    np.put_along_axis(known, raters, 1.0, axis=1)
    rows = rng.multinomial(n, [1 / n] * n, size=400).astype(float)
    columns = rng.multinomial(people, [1 / people] * people, size=400)
    sums, sizes = ((rows @ part * columns).sum(axis=1) for part in (table, known))
    return np.quantile(sums[sizes > 0] / sizes[sizes > 0], [0.025, 0.975])


def _ends(study: np.ndarray) -> list[float]:
    """The interval of (wins, ties, losses), as win_rate has it, whose bootstrap would take hours here."""
    n = int(study.sum())
    mean = float(study @ LEVELS) / n
    variance = max(float(study @ LEVELS**2) / n - mean**2, 0.0)
    if study.max() == n:
        return equal_values_interval(mean, n)
    return exact_mean(mean, float(np.sqrt(variance / (n - 1))), n)


def of_daily_looks(runs: int) -> Iterator[str]:
    yield "\n## Looking every day\n"
    yield "Ten prompts a day, a look each day, up to the number of prompts. Coverage: the share of studies in which"
    yield "the intervals of all days held the truth. At a win rate of 0.5 the rest is who would have stopped with a"
    yield "difference that is none. Naive: the interval of a single look, used every day. Widths are those of the"
    yield "last day.\n"
    yield "| prompts | win rate | ties | anytime | width | naive, every day | width | ratio of widths |"
    yield "|---|---|---|---|---|---|---|---|"
    rng = np.random.default_rng(4)

    for n in SIZES:
        for rate, ties in ((0.5, 0), (0.5, 0.3), (0.6, 0), (0.6, 0.3), (0.9, 0), (0.9, 0.1)):
            days = n // 10
            counts = rng.multinomial(10, chances(rate, ties), size=(runs, days)).cumsum(axis=1)
            different, which = np.unique(counts.reshape(-1, 3), axis=0, return_inverse=True)
            low, high = ends_of_counts(different, LEVELS)
            both = [np.stack([low, high], axis=1), np.array([_ends(study) for study in different])]
            cells, widths = [], []
            for intervals, judged in zip(both, (True, False), strict=True):
                each = intervals[which.ravel()].reshape(runs, days, 2)
                tally = Tally(rate)
                missed = ((each[..., 0] > rate + 1e-12) | (each[..., 1] < rate - 1e-12)).any(axis=1)
                tally.inside, tally.runs, tally.width = (
                    int((~missed).sum()),
                    runs,
                    float(np.ptp(each[:, -1], axis=1).sum()),
                )
                cells.append(tally.cells(judged))
                widths.append(tally.width)
            yield f"| {n} | {rate} | {ties:.0%} | {' | '.join(cells)} | {widths[0] / widths[1]:.2f} |"


def of_many_models(runs: int) -> Iterator[str]:
    yield "\n## Bradley-Terry, four models\n"
    yield "All pairs on every prompt; strengths evenly spaced, with a prompt's own liking of each model (spread"
    yield "0.7) and ties, so that the model's form is wrong, as it always is; the truth is its fit to endless"
    yield "prompts. Of the four models, the one covered most rarely. Resampled: percentiles of a bootstrap over"
    yield f"prompts (500 resamples, {min(runs, RESAMPLED):,} runs).\n"
    yield "| prompts | best less worst | strength | width | win rate | width | strength, resampled | width |"
    yield "|---|---|---|---|---|---|---|---|"
    rng = np.random.default_rng(5)
    first, second = np.triu_indices(4, 1)
    models = np.array(["a", "b", "c", "d"])

    def say(true: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
        liking = rng.normal(0, 0.7, (*size, 4))
        apart = (true + liking)[..., first] - (true + liking)[..., second] + rng.logistic(size=(*size, 6))
        return np.where(apart > 0.4, 1.0, np.where(apart < -0.4, 0.0, 0.5))

    def table(sums: np.ndarray, n: float) -> np.ndarray:
        wins = np.zeros((*sums.shape[:-1], 4, 4))
        wins[..., first, second], wins[..., second, first] = sums, n - sums
        return wins

    for n in SIZES:
        for reach in (0.6, 3.0):
            true = np.linspace(reach / 2, -reach / 2, 4)
            target = strengths(table(say(true, (2_000_000,)).sum(axis=0), 2_000_000))
            rates = against_others(target)
            tallies = [[Tally(float(truth)) for truth in one] for one in (target, rates, target)]
            prompts = np.repeat(np.arange(n), 6)
            ones, others = np.tile(models[first], n).tolist(), np.tile(models[second], n).tolist()
            for run in range(runs):
                said = say(true, (n,))
                found = fit_strengths(prompts, ones, others, said.ravel())
                for place, model in enumerate(models):
                    tallies[0][place].add(*found[model]["interval"])
                    tallies[1][place].add(*found[model]["win_rate_interval"])
                if run < RESAMPLED:
                    sums = rng.multinomial(n, [1 / n] * n, size=500) @ said
                    drawn = strengths(table(sums, n) + 0.5 * (1 - np.eye(4)))
                    for tally, low, high in zip(tallies[2], *np.quantile(drawn, [0.025, 0.975], axis=0), strict=True):
                        tally.add(low, high)
            lowest = [min(part, key=lambda tally: tally.inside) for part in tallies]
            cells = [tally.cells(judged) for tally, judged in zip(lowest, (True, True, False), strict=True)]
            yield f"| {n} | {reach} | {' | '.join(cells)} |"


def of_shares(runs: int) -> Iterator[str]:
    yield "\n## Shares of yes and no: Wilson and Clopper-Pearson\n"
    yield "Exactly, by summing binomial probabilities: at rates 0.01, 0.02, …, 0.99 the mean and the lowest"
    yield "coverage, and the mean width.\n"
    yield "| n | Wilson, mean | lowest | width | Clopper-Pearson, mean | lowest | width |"
    yield "|---|---|---|---|---|---|---|"
    rates = np.arange(1, 100) / 100
    for n in SIZES:
        cells = []
        for interval in (wilson, clopper_pearson):
            ends = np.array([interval(k, n) for k in range(n + 1)])
            likely = binom.pmf(np.arange(n + 1), n, rates[:, None])
            held = (ends[:, 0] <= rates[:, None]) & (rates[:, None] <= ends[:, 1])
            coverage, width = (likely * held).sum(axis=1), likely @ np.ptp(ends, axis=1)
            cells.append(f"{coverage.mean():.4f} | {coverage.min():.4f} | {width.mean():.3f}")
        yield f"| {n} | {' | '.join(cells)} |"


def of_power(runs: int) -> Iterator[str]:
    yield "\n## How many prompts\n"
    yield "`prompts_needed` for 80% power, with the spread that a rate of one half would have with so many ties."
    yield "Found: the share of studies of that size whose reported interval excludes one half. Ask for: what"
    yield "`more_prompts` says after three fifths of them where the interval holds one half still, the median."
    yield "Every day: a look at the anytime interval every ten prompts up to two and a half times as many, stopping"
    yield "when it excludes one half; the share that stops, and after how many prompts half of all have"
    yield f"({min(runs, 2000):,} runs).\n"
    yield "| win rate | ties | prompts | found | after | ask for | every day, up to | found | half stop by |"
    yield "|---|---|---|---|---|---|---|---|---|"
    rng = np.random.default_rng(7)
    for rate, ties in ((0.55, 0), (0.55, 0.3), (0.6, 0), (0.6, 0.3), (0.65, 0), (0.7, 0)):
        n = prompts_needed(rate, float(np.sqrt(0.25 * (1 - ties))))
        counts, which = np.unique(rng.multinomial(n, chances(rate, ties), size=runs), axis=0, return_inverse=True)
        ends = np.array([_ends(study) for study in counts])
        found = ((ends[:, 0] > 0.5) | (ends[:, 1] < 0.5))[which.ravel()].mean()
        part = round(0.6 * n)
        asked = [
            more_prompts(float(study @ LEVELS) / part, _ends(study), part)
            for study in rng.multinomial(part, chances(rate, ties), size=min(runs, 2000))
        ]
        more = np.median([number for number in asked if number is not None])
        days = round(n / 4)
        looks = rng.multinomial(10, chances(rate, ties), size=(min(runs, 2000), days)).cumsum(axis=1)
        low, high = ends_of_counts(looks.reshape(-1, 3), LEVELS)
        out = ((low > 0.5) | (high < 0.5)).reshape(-1, days)
        stopped = np.where(out.any(axis=1), 10 * (out.argmax(axis=1) + 1), np.inf)
        daily = f"{10 * days} | {out.any(axis=1).mean():.1%} | {np.median(stopped):.0f}"
        yield f"| {rate} | {ties:.0%} | {n} | {found:.1%} | {part} | {more:.0f} | {daily} |"


def of_means(runs: int) -> Iterator[str]:
    yield "\n## Means of what has no bounds\n"
    yield f"`mean_interval` (BCa, made wider for few values; 1,000 resamples, {min(runs, 2000):,} runs), of lengths,"
    yield "scores, KL. No interval holds its level where a mean hangs on rare huge values; these rows show how far"
    yield "off it is.\n"
    yield "| values | distribution | reported | width | naive | width |\n|---|---|---|---|---|---|"
    rng = np.random.default_rng(6)
    draws: dict[str, tuple[Callable[[int], np.ndarray], float]] = {
        "normal": (lambda n: rng.normal(size=n), 0.0),
        "gamma, shape 2": (lambda n: rng.gamma(2, size=n), 2.0),
        "lognormal, σ = 0.5": (lambda n: rng.lognormal(0, 0.5, n), float(np.exp(0.125))),
        "lognormal, σ = 1": (lambda n: rng.lognormal(0, 1, n), float(np.exp(0.5))),
    }
    for n in SIZES[:2]:
        for name, (draw, truth) in draws.items():
            reported, naive = Tally(truth), Tally(truth)
            for _ in range(min(runs, 2000)):
                values = draw(n)
                reported.add(*mean_interval(values, resamples=1000)["interval"])
                naive.add(values.mean() - 1.96 * errors(values), values.mean() + 1.96 * errors(values))
            yield f"| {n} | {name} | {reported.cells()} | {naive.cells()} |"


PARTS = {
    "win rates": of_win_rates,
    "graded": of_graded,
    "people": of_people,
    "daily": of_daily_looks,
    "power": of_power,
    "shares": of_shares,
    "means": of_means,
    "many models": of_many_models,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    print(f"# Coverage of 95% intervals\n\n`python benchmarks/coverage.py`: {args.runs:,} studies a row.")
    error = np.sqrt(0.95 * 0.05 / args.runs)
    print(f'The simulation\'s own error is {error:.4f}; "!" marks reported intervals below {0.95 - 2 * error:.4f}.\n')
    for name in args.only:
        begun = time.process_time()
        for line in PARTS[name](args.runs):
            print(line, flush=True)
        print(f"\n{time.process_time() - begun:.0f} CPU seconds.", flush=True)


if __name__ == "__main__":
    main()
