"""What the answers to a project's items say together: the model of preferences/stats/consensus.py, with its anchors.

What owners know about gold items, and what somebody decided, tells the model how far each rater can be trusted.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from annotate.services.answers import standing_answers
from annotate.services.counted import Counted
from annotate.services.decisions import decisions
from annotate.store.tables import Answer, Item, Member
from preferences.stats.consensus import Fit, ItemFit, Said, fit

CLOSE = 0.05  # a preference this near to even is nobody's win
KEPT = 4  # fits that a process keeps: a page that looks again, and an export after its preview, need not wait
_kept: OrderedDict[bytes, Fit] = OrderedDict()
_state = threading.Lock()  # requests are answered by threads


class Consensus(NamedTuple):
    """`fit.raters` by pseudonym; `items` by item id, those with answers that count."""

    fit: Fit
    items: dict[int, ItemFit]


def consensus_of(session: Session, project_id: int, answers: Mapping[int, Sequence[Counted]]) -> Consensus:
    """Fit the answers that count, {item id: its answers}, and those to gold items with them."""
    right: dict[int, list[int]] = {item: one.ranks for item, one in decisions(session, project_id).items()}
    gold = select(Item.id, Item.gold).where(Item.project_id == project_id, Item.gold.is_not(None))
    right |= {item: ranks for item, ranks in session.execute(gold)}
    everything = {item: {one.pseudonym: one.said() for one in given} for item, given in answers.items()}
    columns = Answer.item_id, Member.pseudonym, Answer.ranks, Answer.strength, Answer.shown
    checks = standing_answers().with_only_columns(*columns)
    checks = checks.where(Member.project_id == project_id, Answer.kind == "gold")
    for item, *one in session.execute(checks):
        answer = Said(*one)
        everything.setdefault(item, {}).setdefault(answer.rater, answer)
    numbers = sorted(everything)
    anchors = {place: right[item] for place, item in enumerate(numbers) if item in right}
    found = _fit([list(everything[item].values()) for item in numbers], anchors)
    return Consensus(found, {item: one for item, one in zip(numbers, found.items, strict=True) if item in answers})


def _fit(items: list[list[Said]], anchors: dict[int, list[int]]) -> Fit:
    key = hashlib.sha256(repr(([tuple(one) for item in items for one in (*item, ())], anchors)).encode()).digest()
    with _state:
        found = _kept.get(key)
    found = found or fit(items, anchors)
    with _state:
        _kept[key] = found
        _kept.move_to_end(key)
        while len(_kept) > KEPT:
            _kept.popitem(last=False)
    return found


def is_tie(item: ItemFit, i: int, j: int) -> bool:
    """Whether nobody won: a tie is the likeliest thing that a reliable rater says of two responses, or it is all but
    even whom they prefer. A winner by a hair would be a coin's to whoever reads no probabilities.
    """
    tie = item.tie[i, j]
    better, worse = item.preference[i, j] - tie / 2, item.preference[j, i] - tie / 2
    return bool(tie >= max(better, worse) or abs(item.preference[i, j] - 0.5) < CLOSE)


def plain_ranks(ranks: Sequence[int]) -> list[int]:
    """Ranks that begin at 1 and count who is better: [4, 4, 1] -> [2, 2, 1]."""
    return [1 + sum(other < mine for other in ranks) for mine in ranks]


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
