"""What an export would be now, before anything is settled: its rows, and what its owner may want to see to first."""

from typing import Any, NamedTuple

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session

from annotate.services.export import would_export
from annotate.store.tables import Answer, Group, Item, Project, Slot
from preferences.contract import PreferencesFolder, Ranking

COIN = 0.2  # a reliability below which what somebody says is little more than a coin's


class Preview(NamedTuple):
    """`folder` is None where nothing is answered yet. The numbers count items, but for `unsettled` and `weightless`.

    `waiting`: without an answer; `short`: with fewer answers than they ask for; `divided`: where answers differ so
    evenly that no single response is best, and nobody has decided; `unsettled`: groups whose split this export would
    choose; `weightless`: raters whose answers weigh hardly anything; `held_back`: that stay out until they are decided.
    """

    folder: PreferencesFolder | None
    waiting: int
    short: int
    divided: int
    unsettled: int
    weightless: int
    held_back: int


def preview(session: Session, project: Project) -> Preview:
    """What an export of the project would be. Nothing is stored, and no split is chosen for good."""
    folder = would_export(session, project)
    rankings = folder.rankings if folder else []
    counts = [session.scalar(query) or 0 for query in _counts(project.id)]
    trust = folder.manifest["raters"].values() if folder else ()
    return Preview(
        folder,
        waiting=counts[0],
        short=counts[1],
        divided=sum(map(_divided, rankings)),
        unsettled=counts[2],
        weightless=sum(reliability < COIN for reliability in trust),
        held_back=folder.manifest["held_back"] if folder else 0,
    )


def _divided(ranking: Ranking) -> bool:
    said = {tuple(answer.ranks) for answer in ranking.answers}
    return len(said) > 1 and ranking.ranks.count(1) > 1 and not ranking.decided


def _counts(project_id: int) -> list[Any]:
    """Queries of how many items wait for an answer, how many have too few, how many groups have no split yet."""
    answered = exists().where(Answer.item_id == Item.id, Answer.kind.in_(["rated", "imported"]))
    wanting = exists().where(Slot.item_id == Item.id, Slot.filled.is_(False))
    items = select(func.count()).select_from(Item).where(Item.project_id == project_id, Item.gold.is_(None))
    groups = select(func.count(Group.id.distinct())).select_from(Item).join(Group)
    return [
        items.where(~answered),
        items.where(answered, wanting),
        groups.where(Item.project_id == project_id, answered, Group.split.is_(None)),
    ]
