"""What a format can hold comes back equal, format by format, from items that hypothesis makes."""

import json
import tempfile
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from preferences.contract import Item
from preferences.errors import BadInput
from preferences.formats import FORMATS, read_format, write_format
from preferences.formats.records import from_items, ranks_of

Made = st.SearchStrategy[Any]
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SAYS = ANY.filter(str.strip)
WORD = st.text("abcdefgh", min_size=1, max_size=6)
NUMBER = st.floats(0, 10).map(lambda value: round(value, 3))
# Hypothesis draws texts from the code that it tests, too: what parts turns in a format's one text can't be in a turn.
NO_MARK = ANY.filter(lambda text: "Human:" not in text and "Assistant:" not in text)
NO_EXTRA = ANY.filter(lambda text: "<extra_id_1>" not in text)


def turn(roles: list[str], text: Made = ANY) -> Made:
    return st.builds(lambda role, content: {"role": role, "content": content}, st.sampled_from(roles), text)


def asks(text: Made = SAYS, roles: tuple[str, ...] = ("user",)) -> Made:
    """A prompt of one turn."""
    return turn(list(roles), text.filter(str.strip)).map(lambda one: [one])


def says(text: Made = ANY) -> Made:
    """A response of one turn."""
    return turn(["assistant"], text).map(lambda one: [one])


def dialogue(text: Made = ANY, first: tuple[str, ...] = ("user",), system: bool = True) -> Made:
    """A prompt that alternates: maybe a system prompt, questions with their replies, a last question."""
    start = st.lists(turn(["system"], text.filter(bool)), max_size=1) if system else st.just([])
    exchange = st.lists(st.tuples(turn(list(first), text), turn(["assistant"], text)), max_size=2)
    return st.builds(
        lambda start, before, last: [*start, *(one for both in before for one in both), *last],
        start,
        exchange,
        asks(text, first),
    )


def wild(roles: list[str], text: Made = ANY) -> Made:
    """A prompt with turns of these roles in any order, which ends with a question."""
    return st.builds(lambda before, last: before + last, st.lists(turn(roles, text), max_size=3), asks(text))


def many(roles: list[str], text: Made = ANY) -> Made:
    """A response of one turn or more."""
    return st.builds(lambda first, rest: first + rest, says(text), st.lists(turn(roles, text), max_size=2))


ROLES = ["system", "user", "assistant", "tool"]


@st.composite
def pairs(draw: Any, rater: str, prompt: Made, response: Made, strength: bool = False, ratings: str = "") -> Any:
    """Items of two responses, the first of which is better; prompts are distinct, responses differ from their start."""
    made = []
    for start in draw(st.lists(prompt, min_size=1, max_size=3, unique_by=str)):
        one, two = draw(response), draw(response)
        if one[0] == two[0]:
            two = [{**two[0], "content": two[0]["content"] + "x"}, *two[1:]]
        answer: dict[str, Any] = {"rater": rater, "ranks": [1, 2]}
        if strength:
            answer["strength"] = draw(st.sampled_from([None, -1, -2, -3]))
        if ratings:
            answer["ratings"] = {ratings: [draw(NUMBER), draw(NUMBER)]}
        made.append({"prompt": start, "responses": [{"messages": one}, {"messages": two}], "answers": [answer]})
    return made


@st.composite
def rated(draw: Any, rater: str, prompt: Made, names: Made, overall: str, model: Made) -> Any:
    """Items of two responses or more, ranked by one of their ratings."""
    made = []
    for start in draw(st.lists(prompt, min_size=1, max_size=3, unique_by=str)):
        count = draw(st.integers(2, 4))
        kept = [overall, *draw(st.lists(names.filter(lambda name: name != overall), unique=True, max_size=3))]
        values = {name: draw(st.lists(NUMBER, min_size=count, max_size=count)) for name in kept}
        responses = [{"messages": draw(says()), "model": draw(model)} for _ in range(count)]
        answer = {"rater": rater, "ranks": ranks_of(values[overall]), "ratings": values}
        made.append({"prompt": start, "responses": responses, "answers": [answer]})
    return made


@st.composite
def answered(
    draw: Any,
    prompt: Made,
    raters: Made,
    sizes: tuple[int, ...] = (2, 3, 4),
    ties: tuple[int, ...] = (),
    ratings: Made | None = None,
    times: bool = False,
) -> Any:
    """Items with ids and several raters' answers, or none, as tools hold them; `ties`: the sizes that tie."""
    made = []
    for number, start in enumerate(draw(st.lists(prompt, min_size=1, max_size=3))):
        count = draw(st.sampled_from(sizes))
        answers = []
        for rater in draw(st.lists(raters, unique=True, max_size=3)):
            anyhow = st.lists(st.integers(0, 2), min_size=count, max_size=count)
            ranks = ranks_of(draw(anyhow if count in ties else st.permutations(range(count))))
            answer: dict[str, Any] = {"rater": rater, "ranks": ranks}
            tied = ranks.count(1) > 1
            sign = (1 if ranks[0] > 1 else -1) if count == 2 else 1
            strength = draw(st.sampled_from([None, 1, 2, 3]))
            answer["strength"] = (
                draw(st.sampled_from([None, 0] if count == 2 else [None])) if tied else strength and sign * strength
            )
            if draw(st.booleans()):
                answer["rationale"] = draw(SAYS)
            if ratings is not None and draw(st.booleans()):
                answer["ratings"] = {draw(WORD): draw(st.lists(ratings, min_size=count, max_size=count))}
            if times and draw(st.booleans()):
                answer["seconds"] = draw(NUMBER)
                answer["submitted_at"] = draw(st.datetimes(timezones=st.just(UTC))).isoformat()
            answers.append(answer)
        responses = [{"messages": draw(says()), "model": draw(st.none() | WORD)} for _ in range(count)]
        more = {"group": draw(st.none() | WORD), "tags": draw(st.lists(WORD, max_size=2))}
        made.append(
            {"id": f"{draw(WORD)}-{number}", "prompt": start, "responses": responses, "answers": answers, **more}
        )
    return made


@st.composite
def preferences(draw: Any) -> Any:
    """What HelpSteer 2 and 3 ask: how everybody compares two responses."""
    made = []
    for start in draw(st.lists(wild(ROLES), min_size=1, max_size=3, unique_by=str)):
        answers = []
        for number in range(draw(st.integers(1, 3))):
            strength = draw(st.integers(-3, 3))
            ranks = [1 + (strength > 0), 1 + (strength < 0)]
            answers.append(
                {"rater": str(number), "ranks": ranks, "strength": strength, "rationale": draw(st.none() | SAYS)}
            )
        responses = [{"messages": draw(says())} for _ in "12"]
        tags = draw(st.sampled_from([[], ["code", "python"]]))
        made.append({"prompt": start, "responses": responses, "tags": tags, "answers": answers})
    return made


@st.composite
def posts(draw: Any) -> Any:
    made = []
    for start in draw(st.lists(asks(), min_size=1, max_size=3, unique_by=str)):
        first = [draw(says()), draw(says())]
        responses = [{"messages": said, "id": draw(WORD) + str(place)} for place, said in enumerate(first)]
        answer = {
            "rater": "readers",
            "ranks": draw(st.sampled_from([[1, 2], [2, 1]])),
            "ratings": {"score": [3.0, draw(NUMBER)]},
        }
        tags = draw(st.lists(WORD, min_size=1, max_size=1))
        if responses[0]["messages"] == responses[1]["messages"]:
            responses[1]["messages"] = [{"role": "assistant", "content": "another"}]
        made.append({"prompt": start, "responses": responses, "group": draw(WORD), "tags": tags, "answers": [answer]})
    return made


@st.composite
def votes(draw: Any) -> Any:
    made = []
    for number, start in enumerate(draw(st.lists(wild(ROLES), min_size=1, max_size=3, unique_by=str))):
        one, two = draw(many(ROLES)), draw(many(ROLES))
        if one[0] == two[0]:
            two = [{**two[0], "content": two[0]["content"] + "x"}, *two[1:]]
        answers: list[dict[str, Any]] = []
        for rater in draw(st.lists(WORD, min_size=1, max_size=3, unique=True)):
            ranks = draw(st.sampled_from([[1, 2], [2, 1], [1, 1]]))
            shown = draw(st.sampled_from([[0, 1], [1, 0]])) if answers else [0, 1]
            answer: dict[str, Any] = {"rater": rater, "ranks": ranks, "shown": shown}
            if ranks == [1, 1] and draw(st.booleans()):
                answer["flags"] = ["all-bad"]
            if draw(st.booleans()):
                moment = draw(
                    st.datetimes(min_value=datetime(1971, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(UTC))
                )
                answer["submitted_at"] = moment.isoformat()
            answers.append(answer)
        responses = [{"messages": one, "model": "a"}, {"messages": two, "model": "b"}]
        made.append({"id": str(number), "prompt": start, "responses": responses, "answers": answers})
    return made


WORDS = st.lists(WORD, min_size=1, max_size=3).map(" ".join)
ASPECTS = st.sampled_from(["correctness", "coherence", "complexity", "verbosity"])
UUIDS = st.uuids().map(str)
PEOPLE = st.integers(0, 99).map(str) | WORD.map(lambda name: f"{name}@example.org")
STEPS = st.integers(1, 10).map(float)
HELD: dict[str, Made] = {
    "trl": pairs("trl", wild(ROLES), many(ROLES)),
    "trl-text": pairs("trl", asks(), says()),
    "trl-implicit": pairs("trl", wild(ROLES), many(ROLES)),
    "trl-implicit-text": st.builds(
        lambda prompt, one, two: [
            {
                "prompt": [{"role": "user", "content": prompt}],
                "responses": [
                    {"messages": [{"role": "assistant", "content": " " + text}]} for text in ("i" + one, "j" + two)
                ],
                "answers": [{"rater": "trl", "ranks": [1, 2]}],
            }
        ],
        *(WORDS, WORDS, WORDS),
    ),
    "trl-unpaired": pairs("trl", wild(ROLES), many(ROLES)),
    "trl-unpaired-text": pairs("trl", asks(), says()),
    "hh-rlhf": pairs("hh-rlhf", wild(["user", "assistant"], NO_MARK), many(["user", "assistant"], NO_MARK)),
    "ultrafeedback": rated("gpt-4", asks(), SAYS, "overall_score", st.none() | WORD),
    "ultrafeedback-binarized": pairs("gpt-4", wild(ROLES), many(ROLES), ratings="overall_score"),
    "helpsteer": rated("helpsteer", dialogue(NO_EXTRA, system=False), ASPECTS, "helpfulness", st.none()),
    "helpsteer-preference": preferences(),
    "shp": posts(),
    "llama-factory": pairs("llama-factory", dialogue(first=("user", "tool")), says()),
    "llama-factory-alpaca": pairs("llama-factory", dialogue(), says()),
    "llama-factory-kto": pairs("llama-factory", dialogue(first=("user", "tool")), says()),
    "axolotl": pairs("axolotl", wild(ROLES), says()),
    "axolotl-chatml": pairs("axolotl", asks(), says()),
    "axolotl-kto": pairs("axolotl", asks(), says()),
    "openrlhf": pairs("openrlhf", wild(ROLES), says(), strength=True),
    "openrlhf-text": pairs("openrlhf", asks(), says(), strength=True),
    "argilla": answered(wild(ROLES) | asks(), UUIDS, ties=(2,), ratings=STEPS),
    "label-studio": answered(wild(ROLES) | asks(), PEOPLE, ties=(2, 3, 4), times=True),
    "fastchat": votes(),
}
NO_IDS = [name for name in FORMATS if name not in ("argilla", "label-studio", "fastchat")]


def test_every_format_is_tried() -> None:
    assert list(HELD) == list(FORMATS)


def comparable(item: Item, name: str) -> dict[str, Any]:
    said = item.model_dump(exclude={"id"} if name in NO_IDS else set())
    said["answers"].sort(key=lambda answer: answer["rater"] if name == "argilla" else 0)  # it goes by questions
    if name == "helpsteer-preference":
        for answer in said["answers"]:
            answer["rater"] = None  # the format knows no raters
    return said


def check(name: str, made: list[dict[str, Any]], path: str) -> None:
    items = [Item.model_validate({"id": str(number), **value}) for number, value in enumerate(made)]
    with tempfile.TemporaryDirectory() as folder:
        several = name.startswith(("llama-factory", "label-studio"))
        target = Path(folder) / ("data" if several else path)
        lost = write_format(target, name, from_items(items))
        assert not [
            said for said in lost if not said.startswith(("raters:", "overall:", "strength:", "order:", "ids:"))
        ], lost
        back, _ = read_format(target, name)
    assert [comparable(item, name) for item in back] == [comparable(item, name) for item in items]


@pytest.mark.parametrize("name", FORMATS)
def test_what_a_format_holds_comes_back(name: str) -> None:
    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(made=HELD[name], path=st.sampled_from(["x.jsonl", "x.json", "x.jsonl.gz", "x.json.gz", "folder"]))
    def holds(made: list[dict[str, Any]], path: str) -> None:
        check(name, made, path)

    holds()


def test_pairwise_tasks_of_label_studio_hold_ratings_too() -> None:
    @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(made=answered(asks(), PEOPLE, sizes=(2,), ratings=STEPS, times=True))
    def holds(made: list[dict[str, Any]]) -> None:
        check("label-studio", made, "x.json")

    holds()


WRONG = st.sampled_from(
    [None, True, -1, 10**30, 1e300, "", "x", "\x00", [], {}, [None], [[]], ["x"], [{}], {"": 0}, {"role": 1}, [1, "x"]]
)


def spoil(draw: Any, value: Any) -> Any:
    """The same JSON with something wrong somewhere in it: another value, a missing key, one thing twice."""
    if isinstance(value, dict) and value and draw(st.integers(0, 4)):
        key = draw(st.sampled_from(sorted(value)))
        if not draw(st.integers(0, 5)):
            return {other: one for other, one in value.items() if other != key}
        return {**value, key: spoil(draw, value[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        place = draw(st.integers(0, len(value) - 1))
        if not draw(st.integers(0, 5)):
            return value + value[place:]
        return [*value[:place], spoil(draw, value[place]), *value[place + 1 :]]
    return draw(WRONG)


@pytest.mark.parametrize("name", FORMATS)
def test_a_spoilt_file_is_read_or_refused_in_one_sentence(name: str) -> None:
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(made=HELD[name], data=st.data())
    def holds(made: list[dict[str, Any]], data: st.DataObject) -> None:
        items = [Item.model_validate({"id": str(number), **value}) for number, value in enumerate(made)]
        files = import_module(f"preferences.formats.{FORMATS[name][0]}").write(from_items(items), name, Counter())
        rows = spoil(data.draw, next(iter(files.values())))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "x.json"
            path.write_text(json.dumps(rows if isinstance(rows, list) else [rows]))
            try:
                back, _ = read_format(path, name)
            except BadInput as error:
                assert "\n" not in str(error)
                assert str(error).startswith(str(path))
                return
        with tempfile.TemporaryDirectory() as folder, suppress(BadInput):  # whatever was read can be written again
            write_format(Path(folder) / "y", name, from_items(back))

    holds()
