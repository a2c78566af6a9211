"""The items that raters disagree on most, for who decides."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from annotate.services.counted import Counted, counted
from annotate.store.tables import Decision, Item, Project, Skip
from preferences.stats.agreement import disagreement


class Contested(NamedTuple):
    """An item and what says that somebody should look at it.

    `disagreement` is 1 minus the mean agreement of two answers over the pairs of responses; None with fewer than two
    answers. `flags` counts the flags of its answers and the reasons of its skips. `held_back`: it stays out of exports
    until it is decided.
    """

    item: Item
    answers: int
    disagreement: float | None
    flags: dict[str, int]
    decided: bool
    held_back: bool


def contested_items(session: Session, project_id: int, *, after: int, limit: int) -> list[Contested]:
    """The items with two answers or more, or with a flag or a skip, in this order, from the `after`-th on.

    What is not decided comes first; then what is most contested; then what has most flags and skips. Gold items are
    not among them: what is right about them is known.
    """
    answers, flags = counted(session, project_id), _flags_of_skips(session, project_id)
    gold = set(session.scalars(select(Item.id).where(Item.project_id == project_id, Item.gold.is_not(None))))
    decided = set(session.scalars(select(Decision.item_id).join(Item).where(Item.project_id == project_id)))
    for item, given in answers.items():
        flags[item].update(flag for one in given for flag in one.flags)
    candidates = sorted(
        item
        for item in answers.keys() | flags.keys()
        if item not in gold and (_ranks(answers, item)[1:] or flags[item])
    )
    apart = dict(zip(candidates, disagreement([_ranks(answers, item) for item in candidates]), strict=True))
    candidates.sort(key=lambda item: (item in decided, -(apart[item] or 0.0), -flags[item].total(), item))
    page = candidates[after : after + limit]
    held = held_back(session.get_one(Project, project_id), {item: _ranks(answers, item) for item in page}, decided)
    found = {item.id: item for item in session.scalars(select(Item).where(Item.id.in_(page)))}
    return [
        Contested(
            found[item],
            len(answers.get(item, ())),
            apart[item],
            dict(sorted(flags[item].items())),
            item in decided,
            item in held,
        )
        for item in page
    ]


def held_back(project: Project, given: Mapping[int, Sequence[Sequence[int]]], decided: Collection[int]) -> set[int]:
    """The items that stay out of exports, of {item id: the ranks of its answers}: raters differ, nobody has decided."""
    most = project.hold_back
    if most is None:
        return set()
    apart = zip(given, disagreement(list(given.values())), strict=True)
    return {item for item, value in apart if value is not None and value > most and item not in decided}


def _ranks(answers: dict[int, list[Counted]], item: int) -> Sequence[Sequence[int]]:
    return [one.ranks for one in answers.get(item, ())]


def _flags_of_skips(session: Session, project_id: int) -> defaultdict[int, Counter[str]]:
    flags: defaultdict[int, Counter[str]] = defaultdict(Counter)
    query = select(Skip.item_id, Skip.reason).join(Item).where(Item.project_id == project_id)
    for item, reason in session.execute(query):
        flags[item][reason] += 1
    return flags
