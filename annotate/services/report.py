"""The facts about a project that its owner sees; never shown to raters."""

from collections import Counter
from statistics import mean, median
from typing import Any

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import Session

from annotate.services.answers import counted_answers, standing_answers
from annotate.services.gold import is_correct
from annotate.services.projects import guideline_version
from annotate.store.tables import Answer, Item, Member, Person, Project, Skip, Slot
from preferences.stats.agreement import agreement
from preferences.stats.reliability import reliability


def project_report(session: Session, project: Project, *, names: bool = True) -> dict[str, Any]:
    """What `annotate report --json` prints, JSON-able; rates are floats, None where they are not defined.

    `answers` and everything from them leave surplus answers and checks out; a person's `paid` counts all that they
    answered here. `items` leaves gold items out, unless an import brought answers to them. `gold_accuracy` is the
    share of a person's answers to gold items that are correct, but for training; `flags` counts answers and skips that
    say so. `slots` are what the web page hands out, `filled` those with an answer. `people` are all members, raters
    first; `reliability` is None without an answer. Without `names` people appear under their pseudonyms only.
    """
    answers = counted_answers(session, project.id)
    given = [[one.answer.ranks for one in answers[item]] for item in sorted(answers)]
    trust = reliability([{one.member.pseudonym: one.answer.ranks for one in answers[item]} for item in sorted(answers)])
    counts = Counter(one.member.id for item in answers.values() for one in item)
    members = session.execute(
        select(Member, Person)
        .outerjoin(Person)
        .where(Member.project_id == project.id)
        .order_by(Member.role.desc(), Member.rater)
    ).all()
    paid, skipped, gold = _paid(session, project.id), _skipped(session, project.id), _gold_accuracy(session, project.id)
    items, gold_items, slots, filled, surplus = (session.scalar(query) or 0 for query in _counts(project.id))
    seconds: dict[int, list[float]] = {}
    for item in answers.values():
        for answer, _, member in item:
            if answer.seconds is not None:
                seconds.setdefault(member.id, []).append(answer.seconds)
    return {
        "format": 1,
        "project": project.name,
        "simulated": project.simulated,
        "guideline": guideline_version(session, project.id),
        "items": items,
        "items_answered": len(answers),
        "gold_items": gold_items,
        "answers": sum(counts.values()),
        "surplus": surplus,
        "slots": {"all": slots, "filled": filled},
        "flags": _flags(session, project.id),
        "raters": len(counts),
        "agreement": agreement(given),
        "people": [
            {
                "rater": member.rater if names else member.pseudonym,
                "name": person.name if person and names else None,
                "pseudonym": member.pseudonym,
                "role": member.role,
                "login": person is not None,
                "answers": counts[member.id],
                "paid": paid[member.id],
                "gold_accuracy": gold.get(member.id),
                "skipped": skipped[member.id],
                "reliability": trust.get(member.pseudonym),
                "median_seconds": median(seconds[member.id]) if member.id in seconds else None,
            }
            for member, person in members
        ],
    }


def _paid(session: Session, project_id: int) -> Counter[int]:
    """{member id: answers given here, whatever became of them}."""
    query = select(Answer.member_id, func.count()).join(Item)
    query = query.where(Item.project_id == project_id, Answer.kind != "imported", Answer.revision == 1)
    return Counter({member: count for member, count in session.execute(query.group_by(Answer.member_id))})


def _skipped(session: Session, project_id: int) -> Counter[int]:
    query = select(Skip.member_id, func.count()).join(Item).where(Item.project_id == project_id)
    return Counter({member: count for member, count in session.execute(query.group_by(Skip.member_id))})


def _gold_accuracy(session: Session, project_id: int) -> dict[int, float]:
    query = standing_answers().add_columns(Item.gold).join(Item, Item.id == Answer.item_id)
    results: dict[int, list[bool]] = {}
    for answer, _, member, gold in session.execute(query.where(Item.project_id == project_id, Answer.kind == "gold")):
        results.setdefault(member.id, []).append(is_correct(answer.ranks, gold))
    return {member: mean(right) for member, right in results.items()}


def _flags(session: Session, project_id: int) -> dict[str, int]:
    """{flag: how many answers that stand, and skips, give it as what is wrong with the item}, sorted."""
    answers = standing_answers().with_only_columns(Answer.flags).where(Member.project_id == project_id)
    counts = Counter(flag for flags in session.scalars(answers) for flag in flags)
    skips = select(Skip.reason, func.count()).join(Item).where(Item.project_id == project_id).group_by(Skip.reason)
    counts.update({reason: count for reason, count in session.execute(skips)})
    return dict(sorted(counts.items()))


def _counts(project_id: int) -> list[Any]:
    """Queries of how many items that want answers, gold items, slots, filled slots and surplus answers there are."""
    items = select(func.count()).select_from(Item).where(Item.project_id == project_id)
    answered = exists().where(Answer.item_id == Item.id, Answer.kind.in_(["rated", "imported"]))
    wanted = items.where(or_(Item.gold.is_(None), answered))
    slots = select(func.count()).select_from(Slot).join(Item).where(Item.project_id == project_id)
    answers = select(func.count()).select_from(Answer).join(Item).where(Item.project_id == project_id)
    gold = items.where(Item.gold.is_not(None))
    return [
        wanted,
        gold,
        slots,
        *(answers.where(Answer.kind == kind, Answer.revision == 1) for kind in ("rated", "surplus")),
    ]
