"""The facts about a project that its owner sees; never shown to raters."""

from collections import Counter
from statistics import median
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from annotate.services.answers import counted_answers
from annotate.services.projects import guideline_version
from annotate.store.tables import Answer, Item, Member, Person, Project, Slot
from preferences.stats.agreement import agreement
from preferences.stats.reliability import reliability


def project_report(session: Session, project: Project) -> dict[str, Any]:
    """What `annotate report --json` prints, JSON-able; rates are floats, None where they are not defined.

    `answers` and everything from them leave surplus answers out. `slots` are what the web page hands out, `filled`
    those with an answer. `people` are all members, raters first; `reliability` is None without an answer.
    """
    answers = counted_answers(session, project.id)
    given = [[answer.ranks for answer, _ in answers[item]] for item in sorted(answers)]
    trust = reliability([{m.rater: answer.ranks for answer, m in answers[item]} for item in sorted(answers)])
    counts = Counter(member.id for item in answers.values() for _, member in item)
    members = session.execute(
        select(Member, Person)
        .outerjoin(Person)
        .where(Member.project_id == project.id)
        .order_by(Member.role.desc(), Member.rater)
    ).all()
    items, slots, filled, surplus = (session.scalar(query) or 0 for query in _counts(project.id))
    seconds: dict[int, list[float]] = {}
    for item in answers.values():
        for answer, member in item:
            if answer.seconds is not None:
                seconds.setdefault(member.id, []).append(answer.seconds)
    return {
        "format": 1,
        "project": project.name,
        "simulated": project.simulated,
        "guideline": guideline_version(session, project.id),
        "items": items,
        "items_answered": len(answers),
        "answers": sum(counts.values()),
        "surplus": surplus,
        "slots": {"all": slots, "filled": filled},
        "raters": len(counts),
        "agreement": agreement(given),
        "people": [
            {
                "rater": member.rater,
                "name": person.name if person else None,
                "pseudonym": member.pseudonym,
                "role": member.role,
                "login": person is not None,
                "answers": counts[member.id],
                "reliability": trust.get(member.rater),
                "median_seconds": median(seconds[member.id]) if member.id in seconds else None,
            }
            for member, person in members
        ],
    }


def _counts(project_id: int) -> list[Any]:
    """Queries of how many items, slots, filled slots and surplus answers a project has."""
    items = select(func.count()).select_from(Item).where(Item.project_id == project_id)
    slots = select(func.count()).select_from(Slot).join(Item).where(Item.project_id == project_id)
    answers = select(func.count()).select_from(Answer).join(Item).where(Item.project_id == project_id)
    return [items, slots, answers.where(Answer.kind == "rated"), answers.where(Answer.kind == "surplus")]
