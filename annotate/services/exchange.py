"""Import items with their answers; export one or several projects as a preferences folder."""

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Select, exists, insert, select, update
from sqlalchemy.orm import Session, aliased

from annotate.services.answers import GivenAnswer, answer_columns, counted_answers, text_columns
from annotate.services.people import new_pseudonym
from annotate.services.projects import guideline_version, lock_project, note
from annotate.services.refusals import Refused
from annotate.services.rows import demonstration_rows, pair_rows, ranking_row
from annotate.services.splits import GroupsOfPrompts, Place, choose_joint_splits, on_another_side, prompt_hash
from annotate.services.webhooks import announce
from annotate.store.tables import Answer, AnswerText, Group, Item, ItemTag, Member, Project, Slot
from preferences import contract
from preferences.contract import Demonstration, Pair, PreferencesFolder, Ranking, Tie
from preferences.errors import BadInput
from preferences.files import read_jsonl

CHUNK = 2000


def import_items(
    session: Session,
    project: Project,
    records: Sequence[contract.Item],
    path: str | Path,
    advance: Callable[[int], Any] = lambda count: None,
    *,
    by: Member | None = None,
) -> dict[str, int]:
    """Store the items that were read from the file `path`, in the caller's transaction.

    `advance(n)` is called whenever n more items are stored. Returns how many {items, answers, raters} are new, how
    many items were there `unchanged`, and how many groups stay `kept_apart` from one that they share a prompt with,
    because both have a split already. Raises BadInput, with file and line, for a known id with other content, and
    Refused for a closed project.
    """
    lock_project(session, project)
    if project.closed_at is not None:
        raise Refused("project-closed", f"Project {project.name!r} is closed; open it again to add items.")
    known = _mapping(session, select(Item.key, Item.content_hash).where(Item.project_id == project.id))
    fresh: list[tuple[contract.Item, str]] = []
    for record in records:
        content = record.content_hash()
        if record.id not in known:
            fresh.append((record, content))
        elif known[record.id] != content:
            raise BadInput(
                f"{path}{_line_of(path, record.id)}: id {record.id!r} is in project {project.name!r} already"
                " with other content; give it another id"
            )
    advance(len(records) - len(fresh))

    prompts, groups, kept_apart = _place(session, project, [record for record, _ in fresh])
    raters, new_raters = _raters(session, project, [record for record, _ in fresh])
    answers = 0
    for start in range(0, len(fresh), CHUNK):
        chunk = fresh[start : start + CHUNK]
        rows = [
            {
                "project_id": project.id,
                "group_id": groups[prompts[record.id][1]],
                "key": record.id,
                "prompt": [message.model_dump() for message in record.prompt],
                "responses": [response.model_dump() for response in record.responses],
                "tags": record.tags,
                "gold": record.gold,
                "priority": record.priority,
                "overlap": record.overlap or project.overlap,
                "content_hash": content,
                "prompt_hash": prompts[record.id][0],
            }
            for record, content in chunk
        ]
        ids = session.scalars(insert(Item).returning(Item.id, sort_by_parameter_order=True), rows).all()
        stored = [(item, record) for item, (record, _) in zip(ids, chunk, strict=True)]
        _store_tags_and_slots(session, project, stored)
        answers += _store_answers(session, stored, raters)
        advance(len(chunk))
    counts = {
        "items": len(fresh),
        "answers": answers,
        "raters": new_raters,
        "unchanged": len(records) - len(fresh),
        "kept_apart": kept_apart,
    }
    note(session, "imported", project=project.id, member=by.id if by else None, **counts)
    return counts


def _place(
    session: Session, project: Project, records: Sequence[contract.Item]
) -> tuple[dict[str, tuple[str, str]], dict[str, int], int]:
    """Find each new item's group, and store the groups that are new and those that have become one.

    Returns {item key: (prompt hash, group name)}, {group name: group id}, and how many groups are kept apart.
    """
    of_project = Group.project_id == project.id
    prompts = select(Item.prompt_hash, Group.name).join(Group).where(of_project)
    into = aliased(Group)
    joined = select(Group.name, into.name).join(into, Group.joined_id == into.id).where(of_project)
    groups = GroupsOfPrompts(
        _mapping(session, prompts),
        _mapping(session, select(Group.name, Group.split).where(of_project)),
        _mapping(session, joined),
    )
    known = select(Group.name, Group.id).where(of_project)
    before = _mapping(session, known)
    hashes = {record.id: prompt_hash([message.model_dump() for message in record.prompt]) for record in records}
    for record in records:
        groups.add(hashes[record.id], record.group)
    missing = [name for name in groups.splits if name not in before]
    if missing:
        session.execute(insert(Group), [{"project_id": project.id, "name": name} for name in missing])
    ids = _mapping(session, known)
    for name in groups.newly_joined:
        old, new = ids[name], ids[groups.whole(name)]
        session.execute(update(Group).where(Group.id == old).values(joined_id=new))
        session.execute(update(Item).where(Item.group_id == old).values(group_id=new))
    places = {record.id: (prompt := hashes[record.id], groups.of(prompt)) for record in records}
    return places, ids, len(groups.kept_apart)


def _raters(session: Session, project: Project, records: Sequence[contract.Item]) -> tuple[dict[str, int], int]:
    """Make members without a login of the raters that an import names. Returns {rater: member id}, how many are new."""
    query = select(Member.rater, Member.id).where(Member.project_id == project.id)
    known = _mapping(session, query)
    named = dict.fromkeys(answer.rater for record in records for answer in record.answers)
    new = [
        {"project_id": project.id, "rater": rater, "role": "rater", "pseudonym": new_pseudonym()}
        for rater in named
        if rater not in known
    ]
    if new:
        session.execute(insert(Member), new)
    return _mapping(session, query), len(new)


def _store_tags_and_slots(session: Session, project: Project, stored: Sequence[tuple[int, contract.Item]]) -> None:
    """Make the tags and slots of items (id, record) that were just stored. Gold items have no slots."""
    tags = [{"item_id": item, "tag": tag} for item, record in stored for tag in dict.fromkeys(record.tags)]
    slots = [
        {"project_id": project.id, "item_id": item, "number": number, "position": -record.priority}
        for item, record in stored
        if record.gold is None
        for number in range(1, (record.overlap or project.overlap) + 1)
    ]
    for table, rows in ((ItemTag, tags), (Slot, slots)):
        if rows:
            session.execute(insert(table), rows)


def _store_answers(session: Session, stored: Sequence[tuple[int, contract.Item]], raters: dict[str, int]) -> int:
    """Store the answers that came with items (id, record), their free text apart. Returns how many there were."""
    given = [(item, answer) for item, record in stored for answer in record.answers]
    if not given:
        return 0
    rows = [
        {
            "item_id": item,
            "member_id": raters[answer.rater],
            "kind": "imported",
            "shown": answer.shown,
            "submitted_at": _seconds(answer.submitted_at),
            **answer_columns(answer),
        }
        for item, answer in given
    ]
    ids = session.scalars(insert(Answer).returning(Answer.id, sort_by_parameter_order=True), rows).all()
    texts = [
        {"answer_id": row, **said}
        for row, (_, answer) in zip(ids, given, strict=True)
        if (said := text_columns(answer))
    ]
    if texts:
        session.execute(insert(AnswerText), texts)
    return len(rows)


def _seconds(moment: str | None) -> float | None:
    return None if moment is None else datetime.fromisoformat(moment).timestamp()


def _mapping(session: Session, query: Select) -> dict[str, Any]:
    return {key: value for key, value in session.execute(query)}


def _line_of(path: str | Path, key: str) -> str:
    """ ", line 7"; nothing where the file was a pipe, which can't be read twice."""
    return next((f", line {line}" for line, row in read_jsonl(path) if str(row.get("id")) == key), "")


# --- export -----------------------------------------------------------------------------------------------------


class Placed(NamedTuple):
    """An item that has answers, with what says on which side of the split it stands."""

    item: int
    prompt_hash: str
    group: Group


class Part(NamedTuple):
    """What one project brings to an export: its items that have answers, in the order of import."""

    project: Project
    items: list[tuple[Item, Group]]
    answers: dict[int, list[GivenAnswer]]  # by item id
    trust: dict[str, float]  # the reliability of each pseudonym
    left_out: int = 0


def settle_splits(session: Session, *projects: Project, person: int | None = None) -> None:
    """Begin an export: choose and store a split for each group of items that has answers and no split yet.

    The audit log gets an entry for each project, with the `person` (an id) who exports.

    It goes before an export, in a transaction of its own: so raters need not wait while the rows are made. Raises
    BadInput if a project has no answers, or is named twice.
    """
    names = [project.name for project in projects]
    if twice := sorted(name for name, count in Counter(names).items() if count > 1):
        raise BadInput(f"project {twice[0]!r} is named twice; name each project once, and the folder last")
    placed: list[Placed] = []
    sizes: list[tuple[Project, int]] = []
    answered = exists().where(Answer.item_id == Item.id, Answer.kind.in_(["rated", "imported"]))
    for project in sorted(projects, key=lambda project: project.id):
        lock_project(session, project)
        query = select(Item.id, Item.prompt_hash, Group).join(Group).where(Item.project_id == project.id, answered)
        found = [Placed(*row) for row in session.execute(query.order_by(Item.id))]
        if not found:
            raise BadInput(f"project {project.name!r} has no answers yet; rate some items or import some, then export")
        placed += found
        note(session, "exported", project=project.id, person=person)
        announce(session, project.id, "export.made", projects=[one.id for one in projects])
        sizes.append((project, len(found)))
    places = [Place(one.prompt_hash, one.group.name, one.group.split) for one in placed]
    for one, split in zip(placed, choose_joint_splits(places, **_shares(sizes)), strict=True):
        one.group.split = split


def export_preferences(session: Session, *projects: Project) -> PreferencesFolder:
    """Everything that the projects' answers say, as the rows of a preferences folder; call `settle_splits` before.

    Raters appear by pseudonym. The same answers give the same rows, in the order of import. With several projects the
    ids of rankings begin with the project's name, and what would put a prompt or a group on two sides of the split is
    left out. An item that was answered after the splits were settled waits for the next export.
    """
    parts = [_part(session, project) for project in sorted(projects, key=lambda project: project.id)]
    shares = _shares([(part.project, len(part.items)) for part in parts])
    parts = _without_other_sides(parts)

    pairs: dict[str, list[Pair]] = {split: [] for split in contract.SPLITS}
    ties: list[Tie] = []
    rankings: list[Ranking] = []
    demonstrations: list[Demonstration] = []
    for part in parts:
        prefix = _prefix(part.project) if len(parts) > 1 else ""
        for item, group in part.items:
            given, key = part.answers[item.id], prefix + item.key
            ranking = ranking_row(item, group, given, part.trust, project=part.project.name, ranking=key)
            rankings.append(ranking)
            for pair in pair_rows(ranking):
                if pair.preference > 0.5:
                    pairs[ranking.split].append(pair)
                else:
                    ties.append(Tie(**dict(pair), split=ranking.split))
            demonstrations += demonstration_rows(ranking)
    return PreferencesFolder(pairs, ties, rankings, demonstrations, _manifest(session, parts, shares))


def _part(session: Session, project: Project) -> Part:
    from preferences.stats.reliability import reliability  # half a second of scipy, which an import can do without

    answers = counted_answers(session, project.id)
    query = select(Item, Group).join(Group).where(Item.project_id == project.id, Group.split.is_not(None))
    items = [(item, group) for item, group in session.execute(query.order_by(Item.id)) if item.id in answers]
    ranks = [{one.member.pseudonym: one.answer.ranks for one in answers[item.id]} for item, _ in items]
    return Part(project, items, answers, reliability(ranks))


def _shares(sizes: Sequence[tuple[Project, int]]) -> dict[str, float]:
    """The shares of validation and test that were asked for, of all projects together; by their numbers of items."""
    total = sum(items for _, items in sizes)
    return {
        split: float(sum(Fraction(getattr(project, split)) * items for project, items in sizes) / total)
        for split in ("validation", "test")
    }


def _without_other_sides(parts: Sequence[Part]) -> list[Part]:
    """The parts without the items that stand on another side of the split than the same prompt of another project."""
    out = {item.id for (item, _), out in zip(_items(parts), on_another_side(_places(parts)), strict=True) if out}
    kept = [[(item, group) for item, group in part.items if item.id not in out] for part in parts]
    return [
        part._replace(items=items, left_out=len(part.items) - len(items))
        for part, items in zip(parts, kept, strict=True)
    ]


def _items(parts: Sequence[Part]) -> list[tuple[Item, Group]]:
    return [both for part in parts for both in part.items]


def _places(parts: Sequence[Part]) -> list[Place]:
    return [Place(item.prompt_hash, group.name, group.split) for item, group in _items(parts)]


def _prefix(project: Project) -> str:
    """What makes the ids of a project's rankings its own; no two projects and ids give the same."""
    return project.name.replace("%", "%25").replace("/", "%2F") + "/"


def _manifest(session: Session, parts: Sequence[Part], shares: dict[str, float]) -> dict[str, Any]:
    """The facts of an export. What is each project's own stands under `projects`, and above where there is just one."""
    from preferences.stats.agreement import agreement

    names = [part.project.name for part in parts]
    simulated = [part.project.name for part in parts if part.project.simulated]
    one = parts[0].project if len(parts) == 1 else None
    overlaps = {part.project.overlap for part in parts}
    said = f"Raters gave these rankings in the project{'' if one else 's'} {', '.join(map(repr, names))}."
    if simulated:
        which = "It is simulated: its" if one else f"Simulated: {', '.join(map(repr, simulated))}; there the"
        said += f" {which} imported answers come from programs, not people."
    given = [[answer.answer for answer in part.answers[item.id]] for part in parts for item, _ in part.items]
    groups = {(group.name, group.split) for _, group in _items(parts)}
    return {
        "project": " + ".join(names),
        "description": said,
        "simulated": bool(simulated),
        "guideline": guideline_version(session, one.id) if one else None,
        "items": len(given),
        "answers": sum(map(len, given)),
        "left_out": sum(part.left_out for part in parts),
        "overlap": overlaps.pop() if len(overlaps) == 1 else None,
        "groups": dict(sorted(Counter(split for _, split in groups if split).items())),
        "shares_asked": shares,
        "raters": {name: trust for part in parts for name, trust in sorted(part.trust.items())},
        "projects": [_facts(session, part) for part in parts],
        "agreement": agreement([[answer.ranks for answer in answers] for answers in given]),
    }


def _facts(session: Session, part: Part) -> dict[str, Any]:
    """What the manifest says of one project; answers under no guideline were imported, or there was none to read."""
    versions = Counter(one.answer.guideline for item, _ in part.items for one in part.answers[item.id])
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
        "left_out": part.left_out,
        "overlap": part.project.overlap,
        "shares_asked": {"validation": part.project.validation, "test": part.project.test},
    }
