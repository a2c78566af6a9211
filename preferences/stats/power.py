"""How many prompts an evaluation needs, before it and during it. Pure functions, by the normal approximation.

All is about a two-sided test of "the win rate is one half" at 1 - level, on the mean of preferences with standard
deviation `spread`: 0.5 where each prompt is a win or a loss, less with ties (√(0.25 · share without ties) at a rate of
one half). Miller 2024, "Adding Error Bars to Evals", arXiv 2411.00640, section 5; the inverse of
winrate.smallest_detectable.
"""

from math import ceil, isfinite, sqrt

from scipy.special import ndtr, ndtri

LEVEL, POWER = 0.95, 0.80


def prompts_needed(
    rate: float, spread: float = 0.5, power: float = POWER, level: float = LEVEL, design_effect: float = 1.0
) -> int:
    """Prompts with which a true win rate `rate` is told from one half with probability `power`.

    n = ((z_(1+level)/2 + z_power) spread / (rate - 0.5))² · design effect, rounded up (Chow, Shao & Wang 2008, Sample
    Size Calculations in Clinical Research, section 4.1). `design_effect`: see the function of this name. Raises
    ValueError for a rate of one half, which no number of prompts tells from itself.
    """
    if not (0 <= rate <= 1 and rate != 0.5):
        raise ValueError(f"a rate of {rate:g}; a number in [0, 1] that is not one half is needed")
    _check(spread, level)
    if not 0 < power < 1:
        raise ValueError(f"power {power:g} is not in (0, 1)")
    both = ndtri((1 + level) / 2) + ndtri(power)
    return max(1, ceil((max(both, 0.0) * spread / (rate - 0.5)) ** 2 * design_effect - 1e-9))


def power_of(rate: float, spread: float = 0.5, n: int = 100, level: float = LEVEL, design_effect: float = 1.0) -> float:
    """The probability that n prompts tell a true win rate from one half, on either side.

    Φ(d - z) + Φ(-d - z), with d = |rate - 0.5| √(n / design effect) / spread.
    """
    _check(spread, level)
    if n < 0 or not 0 <= rate <= 1:
        raise ValueError(f"{n} prompts at a rate of {rate:g}; n is at least 0 and the rate in [0, 1]")
    distance = abs(rate - 0.5) * sqrt(n / design_effect) / spread
    z = ndtri((1 + level) / 2)
    return float(ndtr(distance - z) + ndtr(-distance - z))


def more_prompts(
    rate: float,
    interval: tuple[float, float] | list[float],
    n: int,
    power: float = POWER,
    level: float = LEVEL,
) -> int | None:
    """How many more prompts until the interval excludes one half with probability `power`, if the rate stays as seen.

    The side of the interval towards one half, whose length is w, shrinks as 1/√n, and the rate will be seen a bit off:
    n (w (1 + z_power / z_(1+level)/2) / |rate - 0.5|)² - n. None where the interval excludes one half already, and
    where the rate is one half, so that no number would do (the interval tells which). Where it is about raters, too, it
    means more raters in proportion.
    """
    low, high = interval
    if low > 0.5 or high < 0.5 or rate == 0.5:
        return None
    reach = (rate - low if rate > 0.5 else high - rate) * (1 + ndtri(power) / ndtri((1 + level) / 2))
    needed = n * (reach / abs(rate - 0.5)) ** 2
    return max(1, ceil(needed - n - 1e-9)) if isfinite(needed) else None


def design_effect(raters: float, correlation: float) -> float:
    """By how much prompts judged by the same people count for less: 1 + (m - 1) ρ (Kish 1965, Survey Sampling, section
    5.4).

    `raters`: m, how many verdicts a cluster has (the prompts that one person judges); `correlation`: how much alike,
    from 0 to 1, two verdicts of one cluster are beyond chance.
    """
    if raters < 1 or not 0 <= correlation <= 1:
        raise ValueError(f"{raters:g} verdicts a cluster with correlation {correlation:g}; at least 1, and in [0, 1]")
    return 1 + (raters - 1) * correlation


def _check(spread: float, level: float) -> None:
    if not (0 < spread <= 0.5 and 0 < level < 1):
        raise ValueError(f"spread {spread:g} at level {level:g}; the spread is in (0, 0.5] and the level in (0, 1)")
