"""What the answers to one item say together. Pure functions; ranks are 1 = best, equal = tie, in import order.

The probability that response i is better than j is the share of answers that say so, a tie counting one half. A
ranking is ordered by each response's mean share against the others (the Borda count of the answers; for a pair it
is the majority). Shares are exact fractions, so that 0.5 is a tie and equal means are equal whatever the order of
the answers.
"""

from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations


def share(answers: Sequence[Sequence[int]], i: int, j: int) -> Fraction:
    """Probability that response i is better than j: answers (n, k), n >= 1 -> [0, 1]."""
    half_points = sum(1 + (ranks[j] > ranks[i]) - (ranks[j] < ranks[i]) for ranks in answers)
    return Fraction(half_points, 2 * len(answers))


def consensus_ranks(answers: Sequence[Sequence[int]]) -> list[int]:
    """Ranks (k,) that the answers (n, k) give together; a rank is 1 + how many responses do strictly better.

    Two answers [1, 2, 3] and [2, 1, 3]: shares of 0 against 1, 2 are 1/2, 1; of 1 against 0, 2 1/2, 1; so [1, 1, 3].
    """
    count = len(answers[0])
    sums = [sum((share(answers, i, j) for j in range(count) if j != i), Fraction(0)) for i in range(count)]
    return [1 + sum(other > mine for other in sums) for mine in sums]


def strength_pairs(ranks: Sequence[int]) -> set[tuple[int, int]]:
    """The pairs i < j that an answer's strength is about: best over second.

    Where several share the second place it is each of them; where several share the first it is the pairs among
    these (their strength is 0, as for a pair that is a tie).
    """
    best = [index for index, rank in enumerate(ranks) if rank == 1]
    if len(best) > 1:
        return set(combinations(best, 2))
    second = min(rank for rank in ranks if rank > 1)
    return {(min(best[0], index), max(best[0], index)) for index, rank in enumerate(ranks) if rank == second}


def pair_strength(answers: Sequence[tuple[Sequence[int], int | None]], i: int, j: int) -> float | None:
    """Mean size of strength for the pair i < j over the (ranks, strength) answers that gave one for it, or None."""
    sizes = [abs(strength) for ranks, strength in answers if strength is not None and (i, j) in strength_pairs(ranks)]
    return sum(sizes) / len(sizes) if sizes else None
