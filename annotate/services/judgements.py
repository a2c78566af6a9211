"""What raters said about models: one judgement for each answer and each pair of its responses (docs/contract.md).

It reads the same answers as an export of preferences, but needs no splits, and says what people said, not what they
say together: decisions are left out, and nothing is held back. Answers to gold items say something about raters only.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from annotate.services.counted import Counted, counted
from annotate.services.projects import lock_project, note
from annotate.services.webhooks import announce
from annotate.store.tables import Item, Member, Project
from preferences.errors import BadInput
from preferences.files import sha256_json
from preferences.judgements import Judgement

BASE = "base"  # as recipes call the model that others are compared with
SIMULATED = "simulated raters"  # the judge that a simulated project's imported answers come from


class Judgements(NamedTuple):
    """`rows` in the order of import, then of pseudonyms. The counts are of items with answers, gold items left out:
    all, and those of which nothing can be said since fewer than two models of theirs are known.
    """

    rows: list[Judgement]
    items: int
    without_models: int
    raters: int

    def counts(self) -> dict[str, int]:
        return {
            "judgements": len(self.rows),
            "items": self.items,
            "raters": self.raters,
            "without_models": self.without_models,
        }


def note_judgements(session: Session, *projects: Project, person: int | None = None) -> None:
    """Write into the audit log of each project that its answers leave it, and with whom (the id of a `person`)."""
    for project in sorted(projects, key=lambda project: project.id):
        lock_project(session, project)
        note(session, "exported", project=project.id, person=person, what="judgements")
        announce(session, project.id, "export.made", projects=[one.id for one in projects])


def judgements(session: Session, *projects: Project) -> Judgements:
    """What the answers of the projects say about the models that wrote the responses; the same answers, the same rows.

    A row's prompt is the item's id. Which of two models is the baseline is the same in all rows: the one that more
    items are about, else one that is called "base", else the first by name. Raises BadInput where an id stands for
    different items in two projects, where no answer is about two known models, and for a project that is named twice.
    """
    names = [project.name for project in projects]
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise BadInput(f"project {twice[0]!r} is named twice; name each project once")
    found = [
        (project, item, answers)
        for project in sorted(projects, key=lambda project: project.id)
        for item, answers in _answered(session, project)
    ]
    _check_ids(found)
    ranked = _baselines_first([item for _, item, _ in found])
    groups = _groups(session, projects)
    rows = [
        row
        for project, item, answers in found
        for one in answers
        for row in _rows(item, one, ranked, groups[one.member], project.simulated)
    ]
    if not rows:
        raise BadInput(
            f"no answers about responses of two models in {', '.join(names)};"
            " import items whose responses say their `model`, and rate them"
        )
    said = {row.prompt for row in rows}
    items = {item.key for _, item, _ in found}
    return Judgements(rows, len(items), len(items - said), len({row.rater for row in rows}))


def tell_models_apart(session: Session, project: Project) -> bool:
    """Whether an item of the project has responses of two known models, so that there is something to say of them."""
    query = (
        select(Item.responses)
        .where(Item.project_id == project.id, Item.gold.is_(None))
        .execution_options(yield_per=500)
    )
    return any(len({one["model"] for one in responses if one["model"]}) > 1 for responses in session.scalars(query))


def _answered(session: Session, project: Project) -> Iterator[tuple[Item, list[Counted]]]:
    answers = counted(session, project.id)
    for item in session.scalars(select(Item).where(Item.project_id == project.id).order_by(Item.id)):
        if item.id in answers and item.gold is None:
            yield item, answers[item.id]


def _check_ids(found: Sequence[tuple[Project, Item, list[Counted]]]) -> None:
    """An id is one item, in whatever projects it is rated: so raters in two of them judge the same prompt."""
    first: dict[str, tuple[str, str]] = {}
    for project, item, _ in found:
        content = sha256_json([item.prompt, item.responses])
        name, before = first.setdefault(item.key, (project.name, content))
        if before != content:
            raise BadInput(
                f"id {item.key!r} is another item in project {name!r} than in project {project.name!r};"
                " export them one by one"
            )


def _baselines_first(items: Sequence[Item]) -> dict[str, int]:
    """{model: its place}; of two models the one with the smaller place is the baseline."""
    named = [{response["model"] for response in item.responses if response["model"]} for item in items]
    stands_in = Counter(model for models in named if len(models) > 1 for model in models)
    order = sorted(stands_in, key=lambda model: (-stands_in[model], model != BASE, model))
    return {model: place for place, model in enumerate(order)}


def _groups(session: Session, projects: Sequence[Project]) -> dict[int, list[str]]:
    """{member id: the groups of raters that they belong to}: the skills that owners gave them."""
    query = select(Member.id, Member.skills).where(Member.project_id.in_([project.id for project in projects]))
    return {member: sorted(skills) for member, skills in session.execute(query)}


def _rows(
    item: Item, answer: Counted, ranked: Mapping[str, int], groups: list[str], simulated: bool
) -> Iterator[Judgement]:
    """One for each two responses of different known models."""
    models = [response["model"] for response in item.responses]
    for i, j in combinations(range(len(models)), 2):
        if not models[i] or not models[j] or models[i] == models[j]:
            continue
        baseline, candidate = (i, j) if ranked[models[i]] < ranked[models[j]] else (j, i)
        better = answer.ranks[baseline] - answer.ranks[candidate]
        shown = answer.shown
        yield Judgement(
            prompt=item.key,
            candidate=models[candidate],
            baseline=models[baseline],
            preference=0.5 + 0.5 * ((better > 0) - (better < 0)),
            candidate_length=_length(item.responses[candidate]),
            baseline_length=_length(item.responses[baseline]),
            judge=SIMULATED if simulated and answer.kind == "imported" else None,
            rater=answer.pseudonym,
            rater_groups=groups,
            order=None if shown is None else 0 if shown.index(candidate) < shown.index(baseline) else 1,
            tags=item.tags,
        )


def _length(response: Mapping[str, Any]) -> int:
    """In characters, over all turns of the response."""
    return sum(len(turn["content"]) for turn in response["messages"])
