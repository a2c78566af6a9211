"""HelpSteer 2's and 3's preferences: two responses, and how everybody compares them, from -3 to 3.

Shape: the data sets nvidia/HelpSteer3 (config `preference`) and nvidia/HelpSteer2 (folder `preference`) on the hub,
READMEs of 2025. The sign is the contract's: below 0 the first response is better. Answers don't say whose they are, and
their places in the list are no persons, so each is a rater of its own. -100 says that neither response is valid.

    {"domain": "code", "language": "python", "context": [{"role": "user", …}], "response1": …, "response2": …,
     "overall_preference": -1, "individual_preference": [{"score": -1, "reasoning": …, "feedback1": …, "feedback2": …}]}
    {"prompt": …, "response_1": …, "response_2": …, "preference_strength": 1, "split": "train",
     "all_preferences_unprocessed": [{"strength": 1, "justification": …}]}

It writes HelpSteer3's shape.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from preferences.contract import Item
from preferences.errors import BadInput
from preferences.files import sha256_json
from preferences.formats.helpsteer import prompt_turns
from preferences.formats.records import Record, by_split, count_lost, left_out, make_item
from preferences.formats.rows import Files, Lost, Row, read_rows
from preferences.formats.turns import Turn, as_turns, dump, one_text

Score = Annotated[int, Field(ge=-100, le=3)]
INVALID = -100
SUMMARIES = "preference_statement", "preference_elaboration", "three_most_similar_preferences"  # of the answers


class _Individual(Row):
    score: Score | None = None
    reasoning: str | None = None
    feedback1: str | None = None
    feedback2: str | None = None
    strength: Score | None = None
    justification: str | None = None


class _Row(Row):
    domain: str | None = None
    language: str | None = None
    context: list[Turn] | None = None
    response1: str | None = None
    response2: str | None = None
    overall_preference: Score | None = None
    individual_preference: list[_Individual] | None = None
    prompt: str | None = None
    response_1: str | None = None
    response_2: str | None = None
    preference_strength: Score | None = None
    all_preferences_unprocessed: list[_Individual] | None = None


def read(path: str | Path, lost: Lost) -> Iterator[Item]:
    for where, row in read_rows(path, _Row, lost):
        if row.context is not None and row.response1 is not None and row.response2 is not None:
            prompt, texts = as_turns(row.context, "user", f"{where}: context"), [row.response1, row.response2]
        elif row.prompt is not None and row.response_1 is not None and row.response_2 is not None:
            prompt, texts = prompt_turns(row.prompt), [row.response_1, row.response_2]
        else:
            raise BadInput(
                f"{where}: neither `context`, `response1`, `response2` nor `prompt`, `response_1`, `response_2`"
            )
        responses = [{"messages": [{"role": "assistant", "content": text}]} for text in texts]
        key = "item-" + sha256_json(row.model_dump(mode="json"))[:20]
        item = make_item(
            where,
            lost,
            id=key,
            prompt=prompt,
            responses=responses,
            tags=[tag for tag in (row.domain, row.language) if tag] or None,
            answers=list(_answers(row, key, where, lost)) or None,
        )
        if item:
            yield item


def _answers(row: _Row, key: str, where: str, lost: Lost) -> Iterator[dict[str, Any]]:
    said = row.individual_preference or row.all_preferences_unprocessed or []
    overall = row.overall_preference if row.overall_preference is not None else row.preference_strength
    if not said and overall is not None:
        said = [_Individual(score=overall)]
    elif overall is not None:
        lost["overall", "preferences of all together are left out, since everybody's are kept"] += 1
    for number, one in enumerate(said, start=1):
        score = one.score if one.score is not None else one.strength
        if score is None or score == INVALID:
            left_out(lost, "invalid", "answers take neither response")
            continue
        if score < -3:
            raise BadInput(f"{where}: a preference of {score}; it is -3 to 3, or {INVALID}")
        notes = [one.reasoning or one.justification, one.feedback1 and f"Response 1: {one.feedback1}"]
        notes.append(one.feedback2 and f"Response 2: {one.feedback2}")
        reason = "\n".join(note for note in notes if note)
        answer = {"rater": f"{key}/{number}", "ranks": [1 + (score > 0), 1 + (score < 0)], "strength": score}
        yield {**answer, "rationale": reason} if reason else answer


def write(records: Sequence[Record], name: str, lost: Lost) -> Files:
    files: Files = {}
    for file, part in by_split(records).items():
        if rows := [row for record in part if (row := _row(record, lost)) is not None]:
            files[file] = rows
    count_lost(records, ("ties", "probabilities", "weights", "strength", "reasons", "tags"), lost)
    return files


def _row(record: Record, lost: Lost) -> dict[str, Any] | None:
    item = record.item
    texts = [one_text(response.messages, "assistant") for response in item.responses]
    if len(texts) != 2 or None in texts:
        left_out(lost, "rankings", "items have three responses or more, or a response of several turns")
        return None
    pair = next((pair for pair in record.pairs if pair.source == "ranked"), None)
    if pair is None:
        left_out(lost, "unrated", "items have no answer")
        return None
    unsized = sum(answer.strength is None for answer in item.answers)
    lost["strength", "answers say no strength, and are written as 1, slightly"] += unsized
    lost["tags", "tags beyond the second are left out"] += max(len(item.tags) - 2, 0)
    size = round(pair.strength) if pair.strength is not None else 1
    overall = 0 if pair.preference == 0.5 else max(size, 1) * (-1 if pair.chosen == item.responses[0].messages else 1)
    individual = []
    for answer in item.answers:
        sign = (answer.ranks[0] > answer.ranks[1]) - (answer.ranks[0] < answer.ranks[1])
        score = answer.strength if answer.strength is not None else sign
        individual.append({"score": score, "reasoning": answer.rationale or ""})
    domain, language = [*item.tags, "", ""][:2]
    return {
        "domain": domain,
        "language": language,
        "context": dump(item.prompt),
        "response1": texts[0],
        "response2": texts[1],
        "overall_preference": overall,
        "individual_preference": individual,
    }
