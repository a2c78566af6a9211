"""Whose verdict counts, over which prompts, and what joins many models: by hand."""

from typing import Any

import pytest

from align.evaluate.evidence import MAIN, Evidence, Judged, Prompt, Said
from align.evaluate.verdicts import many_models, pair_of, pairs, verdict_by
from preferences.judgements import Judgement


def prompt(number: int, name: str = MAIN) -> Prompt:
    return Prompt(f"p{number}", [{"role": "user", "content": f"Say {number}."}], name)


def judged(kind: str, preferences: dict[str, Any], scores: Any = None, rows: Any = (), gold: bool = False) -> Judged:
    return Judged(preferences, scores, rows, {"kind": kind, "source": "x", "gold": gold})


def evidence(prompts: list[Prompt], models: list[str], **judges: Judged) -> Evidence:
    return Evidence("base", prompts, {model: [Said(f"{model} says")] * len(prompts) for model in models}, judges)


def test_the_weightiest_judge_that_said_something_decides() -> None:
    one = {"dpo": [1.0]}
    order = [
        ("truth", judged("known truth", one)),
        ("people", judged("people", one)),
        ("gold", judged("reward model", one, gold=True)),
        ("llm", judged("language model", one)),
        ("others", judged("judgements", one)),
        ("reward", judged("reward model", one)),
        ("brief", judged("function", one)),
    ]
    for place, (name, _) in enumerate(order):
        rest = dict(reversed(order[place:]))
        assert verdict_by(evidence([prompt(1)], ["base", "dpo"], **rest)) == name
    silent = {"people": judged("people", {"dpo": [None, 1.0]}), "brief": judged("function", {"dpo": [1.0, None]})}
    assert verdict_by(evidence([prompt(1), prompt(2, "hard")], ["base", "dpo"], **silent)) == "brief"
    assert verdict_by(evidence([prompt(1)], ["base", "dpo"], people=judged("people", {"dpo": [None]}))) is None


def test_a_pair_is_of_the_main_prompts_that_were_judged() -> None:
    prompts = [prompt(1), prompt(2), prompt(3), prompt(4), prompt(1, "hard"), prompt(5, "hard")]
    said = evidence(prompts, ["base", "dpo"], r=judged("function", {"dpo": [1.0, 0.5, None, 0.0, 1.0, 1.0]}))
    main = pairs(said, "dpo")["r"]
    assert (main["candidate"], main["baseline"]) == ("dpo", "base")
    assert (main["n"], main["ties"], main["win_rate"]) == (3, 1, 0.5)
    hard = pair_of(said, "r", "dpo", [4, 5])
    assert hard is not None and (hard["n"], hard["win_rate"]) == (2, 1.0)
    assert pair_of(said, "r", "dpo", [2]) is None
    assert "raters" not in main


def test_people_are_counted_as_people() -> None:
    rows = [
        Judgement(prompt=f"p{number}", candidate="dpo", baseline="base", preference=value, rater=rater)
        for number, rater, value in ((1, "a", 1.0), (1, "b", 0.0), (2, "a", 1.0), (2, "c", 1.0), (3, "b", 1.0))
    ]
    people = judged("people", {"dpo": [0.5, 1.0, 1.0]}, rows=rows)
    fields = pairs(evidence([prompt(n) for n in (1, 2, 3)], ["base", "dpo"], people=people), "dpo")["people"]
    assert (fields["n"], fields["raters"]) == (3, 3)
    assert fields["win_rate"] == pytest.approx(2.5 / 3)


def test_strengths_by_scores_join_all_models_and_by_verdicts_those_that_were_compared() -> None:
    models, prompts = ["base", "a", "b"], [prompt(n) for n in range(4)] + [prompt(9, "hard")]
    scores = {"base": [0.0] * 5, "a": [1.0] * 5, "b": [2.0, 2.0, 2.0, 0.5, -9.0]}
    by_scores = judged("reward model", {"a": [1.0] * 5, "b": [1.0] * 4 + [0.0]}, scores)
    star = judged("language model", {"a": [1.0, 1.0, 0.0, 0.0, 0.0], "b": [None] * 5})
    row = {"preference": 1.0, "prompt": "p0", "rater": "r"}
    chain = [
        Judgement(candidate="a", baseline="base", **row),
        Judgement(candidate="b", baseline="a", **row),
    ]
    joined = judged("people", {"a": [1.0] + [None] * 4, "b": [None] * 5}, rows=chain)
    found = many_models(evidence(prompts, models, scores=by_scores, star=star, joined=joined))
    assert set(found) == {"scores", "joined"}, "two models are a pair, not a scale"
    assert list(found["scores"]) == ["b", "a", "base"], "the challenge set does not count"
    assert sum(one["strength"] for one in found["scores"].values()) == pytest.approx(0, abs=1e-6)
    assert list(found["joined"]) == ["b", "a", "base"]
    assert found["scores"]["a"]["n"] == 4

    apart = judged(
        "people",
        {"a": [1.0] + [None] * 4, "b": [None] * 5, "c": [None] * 5},
        rows=[Judgement(candidate="c", baseline="b", **row)],
    )
    assert many_models(evidence(prompts, [*models, "c"], apart=apart)) == {}, "nothing joins b and c to the others"
