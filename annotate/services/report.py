"""The facts about a project that its owner sees; never shown to raters. raters.py has what is said of each one."""

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from math import ceil
from typing import Any

from sqlalchemy import Text, cast, exists, func, or_, select
from sqlalchemy.orm import Session

from annotate.services.agreement import project_agreement
from annotate.services.answers import standing_answers
from annotate.services.counted import Counted, counted
from annotate.services.masks import count_masked
from annotate.services.projects import guideline_version
from annotate.services.raters import people_of, total_cost
from annotate.store.tables import Answer, Item, Member, Project, Skip, Slot

DAYS = 7  # with answers, that the forecast goes by
LONGEST_FORECAST = 3650  # days; what is further away is no forecast


def project_report(
    session: Session, project: Project, *, names: bool = True, now: float | None = None
) -> dict[str, Any]:
    """What `annotate report --json` prints, JSON-able; rates are floats, None where they are not defined.

    `answers` and everything from them leave surplus answers and checks out; a person's `paid` counts all that they
    answered here. `items` leaves gold items out, unless an import brought answers to them. `flags` counts answers and
    skips that say so. `slots` are what the web page hands out, `filled` those with an answer, `spared` those that no
    item wants any more since its answers are sure. `per_day` counts the
    answers given here by their day (UTC), and `finish` is `forecast`. `masked` counts where a name of the project's
    mask is hidden. `cost` is what the answers given here come to, None without pay. `people` are all members, raters
    first, each as `raters.people_of` says.

    `agreement` and the keys that `_agreement` adds are as preferences/stats/agreement.py says: in all, by dimension of
    ratings, by tag, over time, and of every two raters who share enough.

    Without `names` people appear under their pseudonyms only, and nothing is said of pay.
    """
    answers = counted(session, project.id)
    items, gold_items, slots, filled, surplus = (session.scalar(query) or 0 for query in _counts(project.id))
    per_day = _per_day(one for item in answers.values() for one in item)
    today = datetime.fromtimestamp(time.time() if now is None else now, UTC).date()
    agreed = project_agreement(session, project, answers)
    people = people_of(session, project, answers, agreed["raters"], names=names)
    return {
        "format": 1,
        "project": project.name,
        "simulated": project.simulated,
        "closed": project.closed_at is not None,
        "guideline": guideline_version(session, project.id),
        "items": items,
        "items_answered": len(answers),
        "gold_items": gold_items,
        "answers": sum(map(len, answers.values())),
        "surplus": surplus,
        "slots": {"all": slots, "filled": filled, "spared": _spared(session, project)},
        "flags": _flags(session, project.id),
        "raters": sum(person["answers"] > 0 for person in people),
        **_agreement(agreed),
        "per_day": [{"day": day.isoformat(), "answers": count} for day, count in per_day.items()],
        "finish": forecast(per_day, slots - filled, today, closed=project.closed_at is not None),
        "masked": _masked(session, project),
        "cost": total_cost(project, people) if names else None,
        "people": people,
    }


def agreement_report(session: Session, project: Project) -> dict[str, Any]:
    """The part of the report on how well raters agree."""
    answers = counted(session, project.id)
    return {
        "format": 1,
        "items": session.scalar(_counts(project.id)[0]) or 0,
        "answers": sum(map(len, answers.values())),
        "raters": len({one.member for item in answers.values() for one in item}),
        **_agreement(project_agreement(session, project, answers)),
    }


def _agreement(agreed: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "agreement": agreed["agreement"],
        "agreement_by_dimension": agreed["dimensions"],
        "agreement_by_tag": agreed["tags"],
        "agreement_over_time": agreed["over_time"],
        "rater_pairs": agreed["rater_pairs"],
    }


def forecast(per_day: Mapping[date, int], left: int, today: date, *, closed: bool = False) -> dict[str, Any]:
    """When the `left` slots will be filled if it goes on as it went: {"day": ISO date or None, "per_day", "left"}.

    `per_day` in the result is the mean number of answers a calendar day, from the first of the last seven days that
    had answers until today; so weekends count, and a project that lies idle slows down. None is the day of a project
    that is closed, has nothing left, has no answers yet, or would take more than ten years.
    """
    last = sorted(day for day, count in per_day.items() if count)[-DAYS:]
    rate = sum(per_day[day] for day in last) / max(1, (today - last[0]).days + 1) if last else 0.0  # clocks go back
    days = left / rate if rate > 0 else 0.0
    known = not closed and 0 < days <= LONGEST_FORECAST
    day = (today + timedelta(days=ceil(days))).isoformat() if known else None
    return {"day": day, "per_day": rate, "left": left}


def _per_day(answers: Iterable[Counted]) -> dict[date, int]:
    """{day: answers given here that count}, in the order of days, of those that have any."""
    moments = (one.submitted_at for one in answers if one.kind == "rated" and one.submitted_at is not None)
    days = Counter(int(moment // 86400) for moment in moments)
    return {date(1970, 1, 1) + timedelta(days=number): days[number] for number in sorted(days)}


def _masked(session: Session, project: Project) -> dict[str, int]:
    if not project.mask:
        return {"responses": 0, "items": 0}
    rows: Iterable[Sequence[dict[str, Any]]] = session.scalars(
        select(Item.responses).where(Item.project_id == project.id)
    )
    return count_masked(([response["messages"] for response in row] for row in rows), project.mask)


def _flags(session: Session, project_id: int) -> dict[str, int]:
    """{flag: how many answers that stand, and skips, give it as what is wrong with the item}, sorted."""
    answers = standing_answers().with_only_columns(Answer.flags).where(Member.project_id == project_id)
    answers = answers.where(cast(Answer.flags, Text) != "[]")  # nearly all are
    counts = Counter(flag for flags in session.scalars(answers) for flag in flags)
    skips = select(Skip.reason, func.count()).join(Item).where(Item.project_id == project_id).group_by(Skip.reason)
    counts.update({reason: count for reason, count in session.execute(skips)})
    return dict(sorted(counts.items()))


def _spared(session: Session, project: Project) -> int:
    """How many answers items don't want any more of those in their overlap, since it is sure what is better."""
    if project.sure is None:
        return 0
    slots = select(func.count()).where(Slot.item_id == Item.id).scalar_subquery()
    short = select(Item.overlap - slots).where(Item.project_id == project.id, Item.gold.is_(None), slots < Item.overlap)
    return sum(session.scalars(short))


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
