"""How well an answer agrees with an item's known ranks, and whether a rater is qualified. Ranks: 1 = best."""

import time
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from annotate.services.projects import note
from annotate.store.tables import Answer, Item, Member, Project

PASS = 0.75  # share of an item's pairs that an answer must order as the gold ranks do


class Feedback(NamedTuple):
    """What a rater hears of a training item: its gold ranks and why, and how far they are.

    They have done `done` items, `practice` of which everybody does, and passed `passed`, of which it takes `needed`.
    """

    gold: list[int]
    explanation: str | None
    correct: bool
    done: int
    practice: int
    passed: int
    needed: int
    over: bool


def agreement_with_gold(ranks: Sequence[int], gold: Sequence[int]) -> float:
    """Share of the pairs i < j that both order the same way (first, tie, second): ranks (k,), gold (k,) -> [0, 1]."""
    pairs = list(combinations(range(len(gold)), 2))
    same = sum(_order(ranks, i, j) == _order(gold, i, j) for i, j in pairs)
    return same / len(pairs)


def _order(ranks: Sequence[int], i: int, j: int) -> int:
    return (ranks[i] > ranks[j]) - (ranks[i] < ranks[j])


def is_correct(ranks: Sequence[int], gold: Sequence[int]) -> bool:
    return agreement_with_gold(ranks, gold) >= PASS


def is_trained(session: Session, member: Member, project: Project) -> bool:
    """Whether a rater has practised on `project.practice` gold items and passed `project.qualify` of them.

    What counts is since they began, or since an owner sent them back.
    """
    if member.qualified_at is not None:
        return True
    results = list(_results(session, member).values())
    return len(results) >= _practice(session, project) and sum(results) >= project.qualify


def end_of_training(session: Session, member: Member, project: Project) -> bool:
    """Whether a rater for whom no gold item is left may go on to real ones; then they are qualified."""
    passed = sum(_results(session, member).values())
    if passed < project.qualify:
        return False
    _qualify(session, member, project, passed)
    return True


def train(session: Session, member: Member, project: Project, item: int) -> Feedback:
    """What a training answer, stored just now, means: it may be the one that qualifies the rater."""
    if member.qualified_at is None and is_trained(session, member, project):
        _qualify(session, member, project, sum(_results(session, member).values()))
    return feedback_of(session, member, project, item)


def feedback_of(session: Session, member: Member, project: Project, item: int) -> Feedback:
    """What a rater hears of a training item that they have answered, however often they ask."""
    results = _results(session, member)
    query = select(Item.gold, Item.explanation, Answer.ranks).join(Answer)
    found = session.execute(query.where(Answer.member_id == member.id, Answer.item_id == item)).first()
    assert found is not None
    return Feedback(
        gold=found.gold,
        explanation=found.explanation,
        correct=is_correct(found.ranks, found.gold),
        done=len(results),
        practice=_practice(session, project),
        passed=sum(results.values()),
        needed=project.qualify,
        over=member.qualified_at is not None,
    )


def _practice(session: Session, project: Project) -> int:
    """How many items everybody practises on: as many as the project wants and has."""
    gold = select(func.count()).select_from(Item).where(Item.project_id == project.id, Item.gold.is_not(None))
    return min(project.practice, session.scalar(gold) or 0)


def _qualify(session: Session, member: Member, project: Project, passed: int) -> None:
    member.qualified_at = time.time()
    note(session, "qualified", project=project.id, member=member.id, passed=passed)


def _results(session: Session, member: Member) -> dict[int, bool]:
    """{training item: whether it was passed}, since the rater's training began."""
    query = (
        select(Answer.item_id, Answer.ranks, Item.gold)
        .join(Item)
        .where(Answer.member_id == member.id, Answer.kind == "training")
        .where(Answer.submitted_at > (member.training_since or 0.0))
    )
    return {item: is_correct(ranks, gold) for item, ranks, gold in session.execute(query)}
