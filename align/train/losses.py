"""Losses that TRL lacks: they take what raters said as it was said. Pure functions on tensors; docs/losses.md explains.

Each gives one number a row, to be weighted and averaged by the caller. `margin` is how far apart, in units of the
difference, the raters' strength asks the two to be: 0 where nobody gave one.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations

import torch
from torch.nn.functional import softplus


def bradley_terry(
    difference: torch.Tensor, preference: torch.Tensor, margin: torch.Tensor | float = 0.0
) -> torch.Tensor:
    """p l(d - m) + (1 - p) l(-d - m), where l(x) = -log sigmoid(x): (pairs,) from (pairs,) each.

    difference d: of two scores. preference p: the probability, in [0, 1], that the first is the better one; 0.5 is a
    tie. It is the mean over raters of Llama 2's loss (arXiv 2307.09288, eq. 2) where a share p says that the first is
    better, by m. Without a margin it is the cross-entropy of Bradley and Terry's model (1952) against what raters said;
    with p = 1 besides, the usual loss of reward models (arXiv 2203.02155, eq. 1).

    On d = beta (log ratio of chosen - log ratio of rejected) it is DPO's (arXiv 2305.18290, eq. 7), with p = 1 -
    epsilon conservative DPO's (ericmitchell.ai/cdpo.pdf), and with a margin ODPO's (arXiv 2402.10571).
    """
    return preference * softplus(margin - difference) + (1 - preference) * softplus(margin + difference)


def hinge(difference: torch.Tensor, preference: torch.Tensor, margin: torch.Tensor | float = 0.0) -> torch.Tensor:
    """p max(0, 1 + m - d) + (1 - p) max(0, 1 + m + d): (pairs,) from (pairs,) each, named as in `bradley_terry`.

    With p = 1 and no margin it is SLiC's hinge (arXiv 2305.10425) as RSO (arXiv 2309.06657) and TRL have it, on
    d = beta (log ratio of chosen - log ratio of rejected). It is least at d = 1 + m for every p > 0.5: a hinge asks who
    is better, and never how surely. For a tie it is flat within 1 + m of 0.
    """
    return preference * torch.relu(1 + margin - difference) + (1 - preference) * torch.relu(1 + margin + difference)


def ipo(
    difference: torch.Tensor, preference: torch.Tensor, beta: float, margin: torch.Tensor | float = 0.0
) -> torch.Tensor:
    """(h - (2p - 1) (1/2 + m) / beta)^2: (pairs,) from (pairs,) each.

    difference h: log ratio of chosen - log ratio of rejected, each divided by the tokens of its response, as TRL does.
    With p = 1 and no margin it is eq. 17 of arXiv 2310.12036, whose tau is beta. There the target comes of I(y, y'), a
    draw of who is preferred; with its mean p in place of the draw it is (2p - 1) / (2 tau), and 0 for a tie.
    """
    return (difference - (2 * preference - 1) * (0.5 + margin) / beta) ** 2


def smoothed(preference: torch.Tensor, epsilon: float) -> torch.Tensor:
    """The preference where a rater says the opposite of what they mean with probability epsilon, in [0, 0.5)."""
    return (1 - epsilon) * preference + epsilon * (1 - preference)


def centring(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """(first + second)^2 of two scores, (pairs,): keeps scores around 0 (arXiv 2312.09244, eq. 2)."""
    return (first + second) ** 2


def plackett_luce(scores: torch.Tensor, ranks: Sequence[int], margin: float = 0.0) -> torch.Tensor:
    """-log P(ranking) of k responses, a scalar, with scores (k,) and ranks (1 = best, equal = tie; only their order
    counts).

    P is Plackett's (1975) and Luce's (1959): the best is drawn with probability proportional to exp(score), then the
    next of the others, and so on. A tie leaves the order of its members open: the loss is the mean of -log P over all
    orders that fit, exactly. So two tied responses count as a pair with preference 0.5 does in `bradley_terry`. (The
    usual treatments of survival analysis, Breslow's and Efron's, count such a pair twice; averaging P in place of log P
    would make a tie of two say nothing.) An exact mean takes 2^t sums for t tied responses.

    margin: how far the best should be ahead of the others; it is taken off its score (for k = 2 as in `bradley_terry`).
    """
    ranks = tuple(ranks)
    stages, shares = _stages(ranks)
    best = torch.tensor([rank == min(ranks) for rank in ranks], device=scores.device).to(scores.dtype)
    scores = scores - margin * best
    left = torch.tensor(stages, device=scores.device)
    sums = scores.expand(left.shape).masked_fill(~left, -torch.inf).logsumexp(-1)
    return (sums * torch.tensor(shares, device=scores.device, dtype=scores.dtype)).sum() - scores.sum()


def ranked_pairs(scores: torch.Tensor, ranks: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All pairs of a ranking of k: scores of first and second, and whether the first is the better one (1, 0, or 0.5
    for a tie); (k (k - 1) / 2,) each.
    """
    first, second = torch.triu_indices(len(ranks), len(ranks), 1, device=scores.device)
    place = torch.tensor(ranks, device=scores.device)
    preference = 0.5 + 0.5 * torch.sign(place[second] - place[first])
    return scores[first], scores[second], preference


@lru_cache(maxsize=4096)
def _stages(ranks: tuple[int, ...]) -> tuple[list[list[bool]], list[float]]:
    """Who may be left when the next one is drawn, and in what share of the orders that fit the ranks: (s, k) and (s,).

    While u of t tied responses are left, each set of u of them is left in one of (t choose u) orders.
    """
    stages: list[list[bool]] = []
    shares: list[float] = []
    for rank in sorted(set(ranks)):
        tied = [number for number, other in enumerate(ranks) if other == rank]
        for count in range(1, len(tied) + 1):
            sets = list(combinations(tied, count))
            stages += [[other > rank or number in left for number, other in enumerate(ranks)] for left in sets]
            shares += [1 / len(sets)] * len(sets)
    return stages, shares
