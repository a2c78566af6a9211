"""Export one or several projects as a preferences folder, or say what an export would hold.

An export has two steps: settling the splits, which writes and is short, and making the rows, which only reads.
"""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from annotate.services.consensus import Consensus, consensus_of
from annotate.services.contested import held_back
from annotate.services.counted import Counted, counted
from annotate.services.decisions import decisions
from annotate.services.projects import guideline_version, lock_project, note
from annotate.services.rows import PLACES, demonstration_rows, edited_rows, pair_rows, ranking_row
from annotate.services.splits import Place, choose_joint_splits, nearly_the_same, on_another_side
from annotate.services.webhooks import announce
from annotate.store.tables import Answer, Decision, Group, Item, Project
from preferences import contract
from preferences.contract import Demonstration, Pair, PreferencesFolder, Ranking, Tie
from preferences.errors import BadInput


class Part(NamedTuple):
    """What one project brings to an export: its items that have answers, in the order of import.

    `left_out` counts those that stand on another side of the split elsewhere, `held_back` those that raters differ on
    more than the project wants, until somebody decides.
    """

    project: Project
    items: list[tuple[Item, Place]]
    answers: dict[int, list[Counted]]  # by item id
    consensus: Consensus
    decisions: dict[int, Decision]  # that stand, by item id
    left_out: int = 0
    held_back: int = 0


def settle_splits(session: Session, *projects: Project, person: int | None = None) -> None:
    """Begin an export: choose and store a split for each group of items that has answers and no split yet.

    The audit log gets an entry for each project, with the `person` (an id) who exports.

    It goes before an export, in a transaction of its own: so raters need not wait while the rows are made. Raises
    BadInput if a project has no answers, or is named twice.
    """
    names = [project.name for project in projects]
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise BadInput(f"project {twice[0]!r} is named twice; name each project once, and the folder last")
    groups: list[Group] = []
    places: list[Place] = []
    sizes: list[tuple[Project, int]] = []
    for project in sorted(projects, key=lambda project: project.id):
        lock_project(session, project)
        found = _answered(session, project)
        if not found:
            raise BadInput(f"project {project.name!r} has no answers yet; rate some items or import some, then export")
        groups += [group for group, _ in found]
        places += [place for _, place in found]
        note(session, "exported", project=project.id, person=person)
        announce(session, project.id, "export.made", projects=[one.id for one in projects])
        sizes.append((project, len(found)))
    if any(place.split is None for place in places):
        near = _near(session, projects)
        for group, split in zip(groups, choose_joint_splits(places, near=near, **_shares(sizes)), strict=True):
            group.split = split


def export_preferences(session: Session, *projects: Project) -> PreferencesFolder:
    """Everything that the projects' answers say, as the rows of a preferences folder; call `settle_splits` before.

    Raters appear by pseudonym. The same answers give the same rows, in the order of import. With several projects the
    ids of rankings begin with the project's name, and what would put a prompt or a group on two sides of the split is
    left out. An item that was answered after the splits were settled waits for the next export.
    """
    parts = [
        _part(session, project, {group.id: group.split for group, _ in _answered(session, project) if group.split})
        for project in sorted(projects, key=lambda project: project.id)
    ]
    return _folder(session, parts, _near(session, projects))


def would_export(session: Session, project: Project) -> PreferencesFolder | None:
    """What an export of this project would be now, with the splits that it would choose; None without any answer.

    Nothing is stored, splits included.
    """
    found = _answered(session, project)
    if not found:
        return None
    shares, near = _shares([(project, len(found))]), _near(session, [project])
    splits = choose_joint_splits([place for _, place in found], near=near, **shares)
    chosen = {group.id: split for (group, _), split in zip(found, splits, strict=True)}
    return _folder(session, [_part(session, project, chosen)], near)


def _answered(session: Session, project: Project) -> list[tuple[Group, Place]]:
    """The group and the place of each item that has answers, in the order of import."""
    answered = exists().where(Answer.item_id == Item.id, Answer.kind.in_(["rated", "imported"]))
    query = select(Item.prompt_hash, Group).join(Group).where(Item.project_id == project.id, answered)
    rows = session.execute(query.order_by(Item.id))
    return [(group, Place(prompt, group.name, group.split)) for prompt, group in rows]


def _near(session: Session, projects: Sequence[Project]) -> dict[str, set[str]]:
    """{hash of a prompt: those of its near-duplicates}, over all items of the projects."""
    of_these = Item.project_id.in_([project.id for project in projects])
    rows = session.execute(select(Item.prompt_hash, Item.prompt).where(of_these).order_by(Item.id))
    return nearly_the_same((hashed, prompt) for hashed, prompt in rows)


def _part(session: Session, project: Project, splits: dict[int, str]) -> Part:
    """A project's items that have answers and whose group (an id) has one of the `splits`."""
    answers = counted(session, project.id)
    query = select(Item, Group.name).join(Group).where(Item.project_id == project.id).order_by(Item.id)
    items = [
        (item, Place(item.prompt_hash, group, splits[item.group_id]))
        for item, group in session.execute(query)
        if item.id in answers and item.group_id in splits
    ]
    together = consensus_of(session, project.id, answers)
    return Part(project, items, answers, together, decisions(session, project.id))


def _folder(session: Session, parts: list[Part], near: dict[str, set[str]]) -> PreferencesFolder:
    shares = _shares([(part.project, len(part.items)) for part in parts])
    before = _without_other_sides(parts, near)
    parts = [_without_held_back(part) for part in before]
    pairs: dict[str, list[Pair]] = {split: [] for split in contract.SPLITS}
    ties: list[Tie] = []
    rankings: list[Ranking] = []
    demonstrations: list[Demonstration] = []
    for part in parts:
        prefix, trust = _prefix(part.project) if len(parts) > 1 else "", _trust(part)
        for item, place in part.items:
            given, decision = part.answers[item.id], part.decisions.get(item.id)
            together = part.consensus.items[item.id]
            ranking = ranking_row(
                item, place, given, together, decision, project=part.project.name, ranking=prefix + item.key
            )
            rankings.append(ranking)
            ranked = list(pair_rows(ranking, together, decision))
            pairs[ranking.split] += [pair for pair in ranked if pair.preference > 0.5]
            ties += [Tie(**dict(pair), split=ranking.split) for pair in ranked if pair.preference == 0.5]
            pairs[ranking.split] += edited_rows(ranking, trust, part.project.mask)
            demonstrations += demonstration_rows(ranking, part.project.mask)
    return PreferencesFolder(pairs, ties, rankings, demonstrations, _manifest(session, parts, shares, before))


def _shares(sizes: Sequence[tuple[Project, int]]) -> dict[str, float]:
    """The shares of validation and test that were asked for, of all projects together; by their numbers of items."""
    total = sum(items for _, items in sizes)
    return {
        split: float(sum(Fraction(getattr(project, split)) * items for project, items in sizes) / total)
        for split in ("validation", "test")
    }


def _without_other_sides(parts: Sequence[Part], near: dict[str, set[str]]) -> list[Part]:
    """The parts without the items that stand on another side of the split than the same prompt, or one near it."""
    placed = [both for part in parts for both in part.items]
    sides = on_another_side([place for _, place in placed], near)
    out = {item.id for (item, _), out in zip(placed, sides, strict=True) if out}
    kept = [[(item, place) for item, place in part.items if item.id not in out] for part in parts]
    return [
        part._replace(items=items, left_out=len(part.items) - len(items))
        for part, items in zip(parts, kept, strict=True)
    ]


def _without_held_back(part: Part) -> Part:
    """Gold items stay: what is right about them is known, and nobody is asked to decide it."""
    given = {item.id: [one.ranks for one in part.answers[item.id]] for item, _ in part.items if item.gold is None}
    held = held_back(part.project, given, part.decisions)
    items = [(item, place) for item, place in part.items if item.id not in held]
    return part._replace(items=items, held_back=len(held))


def _prefix(project: Project) -> str:
    """What makes the ids of a project's rankings its own; no two projects and ids give the same."""
    return project.name.replace("%", "%25").replace("/", "%2F") + "/"


def _manifest(
    session: Session, parts: Sequence[Part], shares: dict[str, float], before: Sequence[Part]
) -> dict[str, Any]:
    """The facts of an export. What is each project's own stands under `projects`, and above where there is just one.

    Agreement is of the parts `before` anything was held back, which is what raters differ on.
    """
    from preferences.stats.agreement import agreement

    names = [part.project.name for part in parts]
    simulated = [part.project.name for part in parts if part.project.simulated]
    one = parts[0].project if len(parts) == 1 else None
    overlaps = {part.project.overlap for part in parts}
    said = f"Raters gave these rankings in the project{'' if one else 's'} {', '.join(map(repr, names))}."
    if simulated:
        which = "It is simulated: its" if one else f"Simulated: {', '.join(map(repr, simulated))}; there the"
        said += f" {which} imported answers come from programs, not people."
    sizes = [len(part.answers[item.id]) for part in parts for item, _ in part.items]
    compared = [part.answers[item.id] for part in before for item, _ in part.items]
    groups = {(place.group, place.split) for part in parts for _, place in part.items}
    return {
        "project": " + ".join(names),
        "description": said,
        "simulated": bool(simulated),
        "guideline": guideline_version(session, one.id) if one else None,
        "items": len(sizes),
        "answers": sum(sizes),
        "decided": sum(item.id in part.decisions for part in parts for item, _ in part.items),
        "left_out": sum(part.left_out for part in parts),
        "held_back": sum(part.held_back for part in parts),
        "overlap": overlaps.pop() if len(overlaps) == 1 else None,
        "groups": dict(sorted(Counter(split for _, split in groups if split).items())),
        "shares_asked": shares,
        "raters": {name: trust for part in parts for name, trust in sorted(_trust(part).items())},
        "projects": [_facts(session, part) for part in parts],
        "agreement": agreement(
            [[one.ranks for one in answers] for answers in compared],
            [[one.pseudonym for one in answers] for answers in compared],
        ),
    }


def _trust(part: Part) -> dict[str, float]:
    """The reliability of each pseudonym that the part has answers of."""
    named = {one.pseudonym for item, _ in part.items for one in part.answers[item.id]}
    raters = part.consensus.fit.raters
    return {name: round(raters[name].reliability, PLACES) for name in named}


def _facts(session: Session, part: Part) -> dict[str, Any]:
    """What the manifest says of one project; answers under no guideline were imported, or there was none to read."""
    found = part.consensus.fit.parameters
    versions = Counter(one.guideline for item, _ in part.items for one in part.answers[item.id])
    return {
        "project": part.project.name,
        "simulated": part.project.simulated,
        "guideline": guideline_version(session, part.project.id),
        "guidelines": [
            {"version": version, "answers": versions[version]}
            for version in sorted(versions, key=lambda version: version or 0)
        ],
        "items": len(part.items),
        "answers": versions.total(),
        "decided": sum(item.id in part.decisions for item, _ in part.items),
        "left_out": part.left_out,
        "held_back": part.held_back,
        "overlap": part.project.overlap,
        "shares_asked": {"validation": part.project.validation, "test": part.project.test},
        "consensus": {
            "spread": round(found.spread, PLACES),
            "reliability": round(found.reliability, PLACES),
            "ties": round(found.ties, PLACES),
            "strong": [round(share, PLACES) for share in found.strong],
        },
    }
