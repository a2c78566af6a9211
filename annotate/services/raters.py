"""What the report says of single raters: how much they did, how well, how fast, and what it comes to."""

from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from annotate.services.answers import standing_answers
from annotate.services.consensus import consensus_of
from annotate.services.counted import Counted
from annotate.services.decisions import decisions
from annotate.services.earnings import Done, done_in, earned
from annotate.services.gold import is_correct
from annotate.store.tables import Answer, Item, Member, Person, Project, Skip
from preferences.stats.coefficients import Floats
from preferences.stats.consensus import Fit, expected
from preferences.stats.raters import agreement_with_others, length_bias, position_bias, spammer, speeders

CHECKS_RIGHT = 0.6  # of the gold items, below which somebody is worth a look


def people_of(
    session: Session,
    project: Project,
    answers: Mapping[int, Sequence[Counted]],
    kappas: Mapping[str, Mapping[str, Any]],
    *,
    names: bool,
) -> list[dict[str, Any]]:
    """All members, raters first, JSON-able; what is not defined is None.

    `answers` counts those that count (rated or imported), `paid` all that were given here, and `active_seconds` is the
    time that the paid ones took; `cost` is what that comes to, for who may see names. From the answers that count:
    `reliability`, as exports weigh them, with an interval, None for who shares no item with anybody and answered none
    whose ranks are known, since it would be what was assumed; and, as in preferences/stats/raters.py, `agreement`, how
    far they side with the others, `spammer`, whether they answer without looking, `position_bias`, how often they
    prefer what stood first, `length_bias`, how often the longer one, and `speeder`, whether they are much faster than
    the others. `gold_accuracy` is the share of their answers to gold items that are correct, but for training. `kappa`
    is from `kappas`, {pseudonym: how far they agree with the others, beyond chance}.
    """
    ranks = [{one.pseudonym: one.ranks for one in item} for item in answers.values()]
    siding = agreement_with_others(ranks)
    fit = consensus_of(session, project.id, answers).fit
    longer = _length_bias(session, project.id, answers, fit)
    own: dict[int, list[Counted]] = {}
    for item in answers.values():
        for one in item:
            own.setdefault(one.member, []).append(one)
    timed = {member: [one.seconds for one in given if one.seconds is not None] for member, given in own.items()}
    haste = speeders({member: seconds for member, seconds in timed.items() if seconds})
    paid, skipped, gold = (
        done_in(session, project.id),
        _skipped(session, project.id),
        _gold_accuracy(session, project.id),
    )
    rows = session.execute(
        select(Member, Person)
        .outerjoin(Person)
        .where(Member.project_id == project.id)
        .order_by(Member.role != "rater", Member.role, Member.rater if names else Member.pseudonym)
    )
    compared = _compared(session, project.id, answers)
    people = []
    for member, person in rows:
        count, seconds = paid.get(member.id, Done(0, 0.0))
        pace = haste.get(member.id)
        trust = fit.raters.get(member.pseudonym) if member.id in compared or member.id in gold else None
        people.append(
            with_findings(
                {
                    "rater": member.rater if names else member.pseudonym,
                    "name": person.name if person and names else None,
                    "pseudonym": member.pseudonym,
                    "role": member.role,
                    "login": person is not None,
                    "answers": len(own.get(member.id, ())),
                    "paid": count,
                    "active_seconds": seconds,
                    "cost": earned(project, count, seconds) if names else None,
                    "gold_accuracy": gold.get(member.id),
                    "skipped": skipped[member.id],
                    "reliability": trust and trust.reliability,
                    "reliability_interval": trust and list(trust.interval),
                    "spammer": trust and spammer(trust),
                    "agreement": siding.get(member.pseudonym),
                    "kappa": _kappa(kappas.get(member.pseudonym)),
                    "position_bias": _position_bias(own.get(member.id, ())),
                    "length_bias": longer.get(member.pseudonym),
                    "median_seconds": pace and pace["median_seconds"],
                    "speeder": pace,
                }
            )
        )
    return people


def _compared(session: Session, project_id: int, answers: Mapping[int, Sequence[Counted]]) -> set[int]:
    """The members of whom an answer stands beside another one, or beside ranks that are known."""
    gold = select(Item.id).where(Item.project_id == project_id, Item.gold.is_not(None))
    known = {*decisions(session, project_id), *session.scalars(gold)}
    return {one.member for item, given in answers.items() if len(given) > 1 or item in known for one in given}


def with_findings(person: dict[str, Any]) -> dict[str, Any]:
    """The person with `findings`: what about them is worth a look, as names; the evidence is in their other facts.

    speed, spam, position, length: `speeder`, `spammer`, `position_bias`, `length_bias` say so. others: the whole
    interval of `agreement` is below what a coin gets. checks: less than 60% of the gold items right.
    """
    told = {
        "speed": person["speeder"] is not None and person["speeder"]["is"],
        "position": person["position_bias"] is not None and person["position_bias"]["biased"],
        "spam": person["spammer"] is not None and person["spammer"]["is"],
        "length": person["length_bias"] is not None and person["length_bias"]["biased"],
        "others": person["agreement"] is not None and person["agreement"]["interval"][1] < 0.5,
        "checks": person["gold_accuracy"] is not None and person["gold_accuracy"] < CHECKS_RIGHT,
    }
    return {**person, "findings": [name for name, found in told.items() if found]}


def total_cost(project: Project, people: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What the answers given here come to: {answers, active_seconds, amount, currency}; None without pay."""
    if project.pay is None:
        return None
    count, seconds = sum(one["paid"] for one in people), sum(one["active_seconds"] for one in people)
    amount = sum(one["cost"] or 0.0 for one in people)
    return {"answers": count, "active_seconds": seconds, "amount": amount, "currency": project.pay["currency"]}


def _kappa(found: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """{value, interval, n: how many units they share with others}; None where it is not defined."""
    if found is None or found["kappa"] is None:
        return None
    return {"value": found["kappa"], "interval": found["kappa_interval"], "n": found["units"]}


def _position_bias(answers: Sequence[Counted]) -> dict[str, Any] | None:
    return position_bias((one.ranks, one.shown) for one in answers if one.shown is not None)


def _length_bias(
    session: Session, project_id: int, answers: Mapping[int, Sequence[Counted]], fit: Fit
) -> dict[str, dict[str, Any] | None]:
    """{pseudonym: preferences.stats.raters.length_bias of their answers}."""
    responses = session.execute(select(Item.id, Item.responses).where(Item.project_id == project_id))
    lengths = {
        item: [sum(len(message["content"]) for message in one["messages"]) for one in given]
        for item, given in responses
        if item in answers
    }
    own: dict[str, list[tuple[Sequence[int], Sequence[int], Floats]]] = {}
    said = [[one.said() for one in given] for given in answers.values()]
    for (item, given), likely in zip(answers.items(), expected(said, fit), strict=True):
        for one, told in zip(given, likely, strict=True):
            own.setdefault(one.pseudonym, []).append((one.ranks, lengths[item], told))
    return length_bias(own)


def _skipped(session: Session, project_id: int) -> Counter[int]:
    query = select(Skip.member_id, func.count()).join(Item).where(Item.project_id == project_id)
    return Counter({member: count for member, count in session.execute(query.group_by(Skip.member_id))})


def _gold_accuracy(session: Session, project_id: int) -> dict[int, float]:
    query = standing_answers().with_only_columns(Answer.member_id, Answer.ranks, Item.gold)
    query = query.join(Item, Item.id == Answer.item_id).where(Item.project_id == project_id, Answer.kind == "gold")
    results: dict[int, list[bool]] = {}
    for member, ranks, gold in session.execute(query):
        results.setdefault(member, []).append(is_correct(ranks, gold))
    return {member: mean(right) for member, right in results.items()}
