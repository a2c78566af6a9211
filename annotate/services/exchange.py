"""Import items with the answers that were given to them elsewhere."""

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Select, insert, select, update
from sqlalchemy.orm import Session, aliased

from annotate.services.answers import answer_columns, text_columns
from annotate.services.people import new_pseudonym
from annotate.services.projects import lock_project, note
from annotate.services.refusals import Refused
from annotate.services.splits import GroupsOfPrompts, nearly_the_same, prompt_hash
from annotate.store.tables import Answer, AnswerText, Group, Item, ItemTag, Member, Project, Slot
from preferences import contract
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
    near: bool = True,
) -> dict[str, int]:
    """Store the items that were read from the file `path`, in the caller's transaction.

    `advance(n)` is called whenever n more items are stored. Returns how many {items, answers, raters} are new, how
    many items were there `unchanged` but for their priority, how many of these take another one (`priorities`), how
    many share a group since their prompt is `near` another one, and how many groups stay `kept_apart` from one that
    they share a prompt with, because both have a split already. Without `near` only prompts that are the same share
    one, until an export looks at all of them.

    A known id that comes back with another priority and nothing else gets it; so does one that comes back without its
    answers, as `align score` writes the items of an exported folder. Raises BadInput, with file and line, for a known
    id with other content, and Refused for a closed project.
    """
    lock_project(session, project)
    if project.closed_at is not None:
        raise Refused("project-closed", f"Project {project.name!r} is closed; open it again to add items.")
    there = session.execute(select(Item.key, Item.content_hash, Item.priority).where(Item.project_id == project.id))
    known = {key: (content, priority) for key, content, priority in there}
    fresh: list[tuple[contract.Item, str]] = []
    urgent: list[tuple[contract.Item, str]] = []
    others: list[contract.Item] = []
    for record in records:
        content = record.content_hash()
        if record.id not in known:
            fresh.append((record, content))
        elif known[record.id][0] == content:
            continue
        elif known[record.id][0] in (_but_priority(record, known[record.id][1]), _but_priority(record, 0.0)):
            urgent.append((record, content))
        else:
            others.append(record)
    for record, stored_hash, differ in _compared(session, project, others):
        if differ:
            raise BadInput(
                f"{path}{_line_of(path, record.id)}: id {record.id!r} is in project {project.name!r} already with other"
                f" content (what differs: {', '.join(differ)}); give it another id"
            )
        if record.priority != known[record.id][1]:
            urgent.append((record, stored_hash))
    _set_priorities(session, project, urgent)
    advance(len(records) - len(fresh))

    prompts, groups, kept_apart, alike = _place(session, project, [record for record, _ in fresh], near)
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
                "explanation": record.explanation,
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
        "priorities": len(urgent),
        "near": alike,
        "kept_apart": kept_apart,
    }
    note(session, "imported", project=project.id, member=by.id if by else None, **counts)
    return counts


def _but_priority(record: contract.Item, priority: float) -> str:
    """The hash of an item's content, had it this priority."""
    return record.model_copy(update={"priority": priority}).content_hash()


def _compared(
    session: Session, project: Project, records: Sequence[contract.Item]
) -> Iterator[tuple[contract.Item, str, list[str]]]:
    """Records whose id is known, each with the stored hash and the keys in which it differs from what is stored.

    Priority is not looked at; group, overlap and answers only where the record has them.
    """
    for start in range(0, len(records), CHUNK):
        chunk = {record.id: record for record in records[start : start + CHUNK]}
        query = select(Item, Group.name).join(Group).where(Item.project_id == project.id, Item.key.in_(chunk))
        for item, group in session.execute(query):
            record = chunk[item.key]
            same = {
                "prompt": [message.model_dump() for message in record.prompt] == item.prompt,
                "responses": [response.model_dump() for response in record.responses] == item.responses,
                "group": record.group in (None, group),
                "tags": record.tags == item.tags,
                "gold": record.gold == item.gold,
                "explanation": record.explanation == item.explanation,
                "overlap": record.overlap in (None, item.overlap),
            }
            differ = [name for name, alike in same.items() if not alike]
            yield record, item.content_hash, differ or (["answers"] if record.answers else [])


def _set_priorities(session: Session, project: Project, urgent: Sequence[tuple[contract.Item, str]]) -> None:
    """Give known items, each with the hash to keep of its content, the priority that they came back with."""
    for record, content in urgent:
        here = (Item.project_id == project.id, Item.key == record.id)
        values = {"priority": record.priority, "content_hash": content, "version": Item.version + 1}
        session.execute(update(Item).where(*here).values(values))
        item = select(Item.id).where(*here).scalar_subquery()
        session.execute(update(Slot).where(Slot.item_id == item).values(position=-record.priority))


def _place(
    session: Session, project: Project, records: Sequence[contract.Item], near: bool
) -> tuple[dict[str, tuple[str, str]], dict[str, int], int, int]:
    """Find each new item's group, and store the groups that are new and those that have become one.

    Returns {item key: (prompt hash, group name)}, {group name: group id}, how many groups are kept apart, and how many
    items have a prompt that is near another one.
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
    turns = {record.id: [message.model_dump() for message in record.prompt] for record in records}
    hashes = {key: prompt_hash(prompt) for key, prompt in turns.items()}
    like: dict[str, set[str]] = {}
    if near and records:
        there = session.execute(select(Item.prompt_hash, Item.prompt).where(Item.project_id == project.id))
        like = nearly_the_same(
            [*((hashed, prompt) for hashed, prompt in there), *((hashes[key], turns[key]) for key in turns)]
        )
    for record in records:
        groups.add(hashes[record.id], record.group, like.get(hashes[record.id], ()))
    missing = [name for name in groups.splits if name not in before]
    if missing:
        session.execute(insert(Group), [{"project_id": project.id, "name": name} for name in missing])
    ids = _mapping(session, known)
    for name in groups.newly_joined:
        old, new = ids[name], ids[groups.whole(name)]
        session.execute(update(Group).where(Group.id == old).values(joined_id=new))
        session.execute(update(Item).where(Item.group_id == old).values(group_id=new))
    places = {record.id: (prompt := hashes[record.id], groups.of(prompt)) for record in records}
    return places, ids, len(groups.kept_apart), sum(hashes[record.id] in like for record in records)


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
        {"project_id": project.id, "item_id": item, "number": number, "position": -record.priority, "turn": item}
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
    try:
        return next((f", line {line}" for line, row in read_jsonl(path) if str(row.get("id")) == key), "")
    except BadInput:  # another tool's file
        return ""
