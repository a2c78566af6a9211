"""How well an answer agrees with an item's known ranks, and whether a rater is qualified. Ranks: 1 = best."""

import time
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from annotate.services.projects import note
from annotate.store.tables import Answer, Item, Member, Project

PASS = 0.75  # share of an item's pairs that an answer must order as the gold ranks do


class Feedback(NamedTuple):
    """What a rater hears of a training item: its gold ranks, and how many of the `needed` items they have passed."""

    gold: list[int]
    correct: bool
    passed: int
    needed: int


def agreement_with_gold(ranks: Sequence[int], gold: Sequence[int]) -> float:
    """Share of the pairs i < j that both order the same way (first, tie, second): ranks (k,), gold (k,) -> [0, 1]."""
    pairs = list(combinations(range(len(gold)), 2))
    same = sum(_order(ranks, i, j) == _order(gold, i, j) for i, j in pairs)
    return same / len(pairs)


def _order(ranks: Sequence[int], i: int, j: int) -> int:
    return (ranks[i] > ranks[j]) - (ranks[i] < ranks[j])


def is_correct(ranks: Sequence[int], gold: Sequence[int]) -> bool:
    return agreement_with_gold(ranks, gold) >= PASS


def train(session: Session, member: Member, project: Project, item: int) -> Feedback:
    """What a training answer, stored just now, means: the rater is qualified after `project.qualify` passed items."""
    query = (
        select(Answer.item_id, Answer.ranks, Item.gold)
        .join(Item)
        .where(Answer.member_id == member.id, Answer.kind == "training")
    )
    results = {key: (gold, is_correct(ranks, gold)) for key, ranks, gold in session.execute(query)}
    passed = sum(correct for _, correct in results.values())
    if passed >= project.qualify and member.qualified_at is None:
        member.qualified_at = time.time()
        note(session, "qualified", project=project.id, member=member.id, passed=passed)
    gold, correct = results[item]
    return Feedback(gold, correct, passed, project.qualify)
