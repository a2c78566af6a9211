"""How well the raters of a project agree, in all and in parts, from the answers that count."""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from annotate.services.counted import Counted
from annotate.store.tables import Item, ItemTag, Project
from preferences.stats.agreement import agreement_in_parts


def project_agreement(session: Session, project: Project, answers: Mapping[int, Sequence[Counted]]) -> dict[str, Any]:
    """As `agreement_in_parts` of preferences/stats/agreement.py; raters are pseudonyms.

    Tags are those of the items; an item's moment is that of its newest answer, where one is known; the dimensions are
    the project's, and then those that imported answers have ratings on.
    """
    tags: dict[int, set[str]] = {item: set() for item in answers}
    query = select(ItemTag.item_id, ItemTag.tag).join(Item).where(Item.project_id == project.id)
    for item, tag in session.execute(query):
        if item in tags:
            tags[item].add(tag)
    return agreement_in_parts(
        [[one.ranks for one in given] for given in answers.values()],
        [[one.pseudonym for one in given] for given in answers.values()],
        tags=list(tags.values()),
        moments=[
            max((one.submitted_at for one in given if one.submitted_at is not None), default=None)
            for given in answers.values()
        ],
        ratings={name: _ratings(name, answers) for name in _dimensions(project, answers)},
    )


def _dimensions(project: Project, answers: Mapping[int, Sequence[Counted]]) -> list[str]:
    own = [one["name"] for one in project.dimensions]
    given = {name for item in answers.values() for one in item if one.ratings for name in one.ratings}
    return [*own, *sorted(given - set(own))]


def _ratings(dimension: str, answers: Mapping[int, Sequence[Counted]]) -> list[list[list[float]]]:
    """What the raters of each item who rated it on the dimension gave each response."""
    rated = ([one.ratings.get(dimension) for one in given if one.ratings] for given in answers.values())
    return [[values for values in item if values and all(map(isfinite, values))] for item in rated]
