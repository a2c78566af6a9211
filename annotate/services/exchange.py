"""Import items with their answers, export a preferences folder."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import combinations
from pathlib import Path
from typing import Any

from sqlalchemy import Select, insert, select, update
from sqlalchemy.orm import Session, aliased

from annotate.services.answers import counted_answers
from annotate.services.consensus import consensus_ranks, pair_strength, share
from annotate.services.people import new_pseudonym
from annotate.services.projects import guideline_version, lock_project, note
from annotate.services.splits import GroupsOfPrompts, choose_splits, prompt_hash
from annotate.store.tables import Answer, AnswerText, Group, Item, ItemTag, Member, Project, Slot
from preferences import contract
from preferences.contract import Demonstration, ExportedAnswer, Message, Models, Pair, PreferencesFolder, Ranking, Tie
from preferences.errors import BadInput
from preferences.files import read_jsonl, sha256_json

CHUNK = 2000


def import_items(
    session: Session,
    project: Project,
    records: Sequence[contract.Item],
    path: str | Path,
    advance: Callable[[int], Any] = lambda count: None,
) -> dict[str, int]:
    """Store the items that were read from the file `path`, in the caller's transaction.

    `advance(n)` is called whenever n more items are stored. Returns how many {items, answers, raters} are new, how
    many items were there `unchanged`, and how many groups stay `kept_apart` from one that they share a prompt with,
    because both have a split already. Raises BadInput, with file and line, for a known id with other content.
    """
    lock_project(session, project)
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
    note(session, "imported", project=project.id, **counts)
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
            "ranks": answer.ranks,
            "strength": answer.strength,
            "ratings": answer.ratings,
            "flags": answer.flags or [],
            "shown": answer.shown,
            "seconds": answer.seconds,
            "submitted_at": _seconds(answer.submitted_at),
        }
        for item, answer in given
    ]
    ids = session.scalars(insert(Answer).returning(Answer.id, sort_by_parameter_order=True), rows).all()
    texts = [
        {
            "answer_id": row,
            "rationale": answer.rationale,
            "edited": answer.edited.model_dump() if answer.edited else None,
        }
        for row, (_, answer) in zip(ids, given, strict=True)
        if answer.rationale is not None or answer.edited is not None
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


def export_preferences(session: Session, project: Project) -> PreferencesFolder:
    """Everything that a project's answers say, as the rows of a preferences folder; chooses and stores missing splits.

    Raters appear by pseudonym. The same answers give the same rows, in the order of import. Raises BadInput if there
    are no answers.
    """
    from preferences.stats.agreement import agreement  # half a second of scipy, which an import can do without
    from preferences.stats.reliability import reliability

    lock_project(session, project)
    answers = counted_answers(session, project.id)
    if not answers:
        raise BadInput(f"project {project.name!r} has no answers yet; rate some items or import some, then export")
    query = select(Item, Group).join(Group).where(Item.project_id == project.id).order_by(Item.id)
    items = [(item, group) for item, group in session.execute(query) if item.id in answers]
    _choose_missing_splits(project, items)
    trust = reliability([_by_rater(answers[item.id]) for item, _ in items])

    pairs: dict[str, list[Pair]] = {split: [] for split in contract.SPLITS}
    ties: list[Tie] = []
    rankings: list[Ranking] = []
    demonstrations: list[Demonstration] = []
    for item, group in items:
        split = group.split or "train"
        ranking = _ranking(item, group, answers[item.id], trust)
        rankings.append(ranking)
        for pair in _pairs(ranking):
            if pair.preference > 0.5:
                pairs[split].append(pair)
            else:
                ties.append(Tie(**dict(pair), split=ranking.split))
        demonstrations += _demonstrations(ranking)
    manifest = {
        **_manifest(session, project, items, trust),
        "answers": sum(len(answers[item.id]) for item, _ in items),
        "agreement": agreement([[answer.ranks for answer, _ in answers[item.id]] for item, _ in items]),
    }
    return PreferencesFolder(pairs, ties, rankings, demonstrations, manifest)


def _choose_missing_splits(project: Project, items: Sequence[tuple[Item, Group]]) -> None:
    sizes = Counter(group.name for _, group in items)
    stored = {group.name: group.split for _, group in items}
    chosen = choose_splits(
        {name: sizes[name] for name, split in stored.items() if split is None},
        {name: (split, sizes[name]) for name, split in stored.items() if split is not None},
        validation=project.validation,
        test=project.test,
    )
    for _, group in items:
        if group.split is None:
            group.split = chosen[group.name]


def _ranking(item: Item, group: Group, given: Sequence[tuple[Answer, Member]], trust: dict[str, float]) -> Ranking:
    models = [response["model"] for response in item.responses]
    return Ranking.model_validate(
        {
            "ranking": item.key,
            "split": group.split,
            "group": group.name,
            "prompt": item.prompt,
            "responses": [response["messages"] for response in item.responses],
            "models": models if any(models) else None,
            "ranks": consensus_ranks([answer.ranks for answer, _ in given]),
            "weight": sum(trust[member.pseudonym] for _, member in given) / len(given),
            "tags": item.tags,
            "answers": [
                ExportedAnswer(
                    rater=member.pseudonym,
                    ranks=answer.ranks,
                    strength=answer.strength,
                    ratings=answer.ratings,
                    flags=answer.flags,
                    edited=contract.Edit(**answer.edited) if answer.edited else None,
                    shown=answer.shown,
                    seconds=answer.seconds,
                    guideline=answer.guideline,
                )
                for answer, member in given
            ],
        }
    )


def _pairs(ranking: Ranking) -> Iterator[Pair]:
    """One row for each two responses of a ranking; chosen is the better one, or in a tie the smaller content hash."""
    ranks = [answer.ranks for answer in ranking.answers]
    for i, j in combinations(range(len(ranking.responses)), 2):
        preference = share(ranks, i, j)
        one, two = ranking.responses[i], ranking.responses[j]
        flip = preference < 0.5 or (preference == 0.5 and _content(two) < _content(one))
        chosen, rejected = (j, i) if flip else (i, j)
        models = ranking.models and Models(chosen=ranking.models[chosen], rejected=ranking.models[rejected])
        yield Pair(
            prompt=ranking.prompt,
            chosen=ranking.responses[chosen],
            rejected=ranking.responses[rejected],
            preference=float(max(preference, 1 - preference)),
            strength=pair_strength([(answer.ranks, answer.strength) for answer in ranking.answers], i, j),
            weight=ranking.weight,
            ranking=ranking.ranking,
            group=ranking.group,
            tags=ranking.tags,
            raters=[answer.rater for answer in ranking.answers],
            models=models if models and (models.chosen or models.rejected) else None,
        )


def _demonstrations(ranking: Ranking) -> Iterator[Demonstration]:
    """The best-liked response, if there is a single one, and the responses that raters rewrote."""

    def row(completion: list[Message], source: str) -> Demonstration:
        return Demonstration.model_validate(
            {
                "prompt": ranking.prompt,
                "completion": completion,
                "split": ranking.split,
                "group": ranking.group,
                "ranking": ranking.ranking,
                "source": source,
            }
        )

    if ranking.ranks.count(1) == 1:
        yield row(ranking.responses[ranking.ranks.index(1)], "best")
    for answer in ranking.answers:
        if answer.edited:
            yield row([Message(role="assistant", content=answer.edited.text)], "edited")


def _manifest(
    session: Session,
    project: Project,
    items: Sequence[tuple[Item, Group]],
    trust: dict[str, float],
) -> dict[str, Any]:
    simulated = " It is simulated: its imported answers come from programs, not people." if project.simulated else ""
    return {
        "project": project.name,
        "description": f"Raters gave these rankings in the project {project.name!r}.{simulated}",
        "simulated": project.simulated,
        "guideline": guideline_version(session, project.id),
        "items": len(items),
        "overlap": project.overlap,
        "groups": dict(sorted(Counter(split for split in {g.id: g.split for _, g in items}.values() if split).items())),
        "shares_asked": {"validation": project.validation, "test": project.test},
        "raters": dict(sorted(trust.items())),
    }


def _by_rater(given: Sequence[tuple[Answer, Member]]) -> dict[str, list[int]]:
    return {member.pseudonym: answer.ranks for answer, member in given}


def _content(messages: list[Message]) -> str:
    return sha256_json([message.model_dump() for message in messages])
