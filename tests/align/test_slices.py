"""Slices, challenge sets, gaps between groups, and the list of what got worse."""

from collections.abc import Sequence
from typing import Any

import pytest
from scipy.stats import binomtest

from align.evaluate.evidence import MAIN, Evidence, Judged, Prompt, Said
from align.evaluate.slices import by_tag, challenge_sets, gaps
from align.report.worse import worse
from preferences.judgements import Judgement
from preferences.stats.significance import holm

GERMAN = "Der Fluss wendet sich hinter der alten Mühle zum Meer, und niemand hat je gefragt, warum."


def evidence(
    rows: Sequence[tuple[str, tuple[str, ...], float | None]], judgements: Sequence[Judgement] = ()
) -> Evidence:
    """A row is a prompt: its set, its tags, and whether the judge prefers dpo there."""
    prompts = [
        Prompt(str(number), [{"role": "user", "content": "?"}], set=of, tags=tags)
        for number, (of, tags, _) in enumerate(rows)
    ]
    said = [Said(f"response {number}") for number in range(len(rows))]
    judged = Judged(
        {"base": [0.5] * len(rows), "dpo": [preference for *_, preference in rows]},
        None,
        judgements,
        {"kind": "function"},
    )
    return Evidence("base", prompts, {"base": said, "dpo": said}, {"judge": judged})


def rows(of: str, tags: tuple[str, ...], wins: int, losses: int, ties: int = 0, silent: int = 0) -> list[Any]:
    preferences = [1.0] * wins + [0.0] * losses + [0.5] * ties + [None] * silent
    return [(of, tags, preference) for preference in preferences]


def test_tags_with_exact_p_values() -> None:
    said = evidence(
        [
            *rows(MAIN, ("de", "maths"), 4, 22, 2, 3),
            *rows(MAIN, ("de",), 30, 10),
            *rows(MAIN, ("law",), 9, 0),
            *rows("hard", ("law",), 0, 50),
        ]
    )
    found = by_tag(said)
    assert set(found) == {"dpo"} and set(found["dpo"]) == {"de", "law", "maths"}
    maths, german, law = (found["dpo"][tag]["judge"] for tag in ("maths", "de", "law"))
    assert (maths["n"], maths["ties"], maths["win_rate"]) == (28, 2, pytest.approx(5 / 28))
    assert maths["p_value"] == pytest.approx(binomtest(4, 26).pvalue)
    assert german["p_value"] == pytest.approx(binomtest(34, 66).pvalue)
    assert [german["p_adjusted"], maths["p_adjusted"]] == pytest.approx(holm([german["p_value"], maths["p_value"]]))
    assert law["n"] == 9, "a challenge set's prompts are no slice"
    assert law["few"] and law["p_adjusted"] is None and not maths["few"]
    assert maths["candidate"] == "dpo" and maths["baseline"] == "base" and maths["interval"][1] < 0.5


def test_only_the_commonest_of_very_many_tags_are_slices() -> None:
    own = [row for number in range(120) for row in rows(MAIN, (f"tag {number:03}", "all"), 1, number < 30)]
    assert sorted(by_tag(evidence(own))["dpo"]) == ["all", *(f"tag {number:03}" for number in range(99))]


def test_challenge_sets_stand_by_themselves() -> None:
    said = evidence([*rows(MAIN, (), 30, 0), *rows("hard", (), 3, 22), *rows("small", (), 1, 1)])
    found = challenge_sets(said)
    assert set(found) == {"hard", "small"}
    hard = found["hard"]["models"]["dpo"]
    assert found["hard"]["prompts"] == 25 and hard["judges"]["judge"]["win_rate"] == pytest.approx(3 / 25)
    assert hard["judges"]["judge"]["p_adjusted"] == pytest.approx(binomtest(3, 25).pvalue)
    assert found["small"]["models"]["dpo"]["judges"]["judge"]["few"]
    assert hard["length"]["mean"] == pytest.approx(len("response 30")) and hard["finished"] is None
    assert found["hard"]["models"]["base"]["judges"] == {}
    assert challenge_sets(evidence(rows(MAIN, (), 3, 3))) == {}


def test_gaps_between_groups_of_prompts() -> None:
    """By hand: 6 of 30 with the tag, 27 of 30 without. Each side's interval gives its part of the gap's."""
    said = evidence([*rows(MAIN, ("de",), 6, 24), *rows(MAIN, (), 27, 3)])
    (gap,) = gaps(said)["prompts"]
    assert (gap["model"], gap["judge"], gap["group"]) == ("dpo", "judge", "de")
    assert (gap["n"], gap["rest_n"], gap["mean"]) == (30, 30, pytest.approx(-0.7))
    assert gap["p_value"] == pytest.approx(1 / 10_001) == gap["p_adjusted"]
    (one,) = [fields for fields in by_tag(said)["dpo"]["de"].values()]
    rest = by_tag(evidence(rows(MAIN, ("rest",), 27, 3)))["dpo"]["rest"]["judge"]
    low = -0.7 - ((0.2 - one["interval"][0]) ** 2 + (rest["interval"][1] - 0.9) ** 2) ** 0.5
    high = -0.7 + ((one["interval"][1] - 0.2) ** 2 + (0.9 - rest["interval"][0]) ** 2) ** 0.5
    assert gap["interval"] == pytest.approx([low, high])
    assert gaps(evidence(rows(MAIN, ("all",), 5, 5)))["prompts"] == [], "without others there is no gap"
    (small,) = gaps(evidence([*rows(MAIN, ("de",), 3, 3), *rows(MAIN, (), 30, 30)]))["prompts"]
    assert small["few"] and small["p_value"] is None and small["p_adjusted"] is None


def test_languages_are_groups_of_prompts() -> None:
    said = evidence(rows(MAIN, (), 40, 20))
    prompts = [p._replace(turns=[{"role": "user", "content": GERMAN}]) if int(p.id) < 25 else p for p in said.prompts]
    (gap,) = gaps(said._replace(prompts=prompts))["prompts"]
    assert gap["group"] == "language: de" and gap["n"] == 25 and gap["mean"] == pytest.approx(1 - 15 / 35)


def verdicts(rater: str, group: str, preferences: Sequence[float]) -> list[Judgement]:
    return [
        Judgement(
            prompt=str(number),
            candidate="dpo",
            baseline="base",
            preference=preference,
            rater=rater,
            rater_groups=[group],
        )
        for number, preference in enumerate(preferences)
    ]


def test_gaps_between_groups_of_raters() -> None:
    """Six raters of each group on ten prompts: one group likes dpo's response, the other the base's.

    Dealing out twelve raters in 924 ways, two are as far apart as they are.
    """
    said = [row for n in range(6) for row in verdicts(f"a{n}", "nurses", [1.0] * 9 + [0.0])]
    said += [row for n in range(6) for row in verdicts(f"b{n}", "doctors", [0.0] * 9 + [1.0])]
    said += verdicts("c", "nurses", [])
    elsewhere = [row.model_copy(update={"prompt": "another", "preference": 0.0}) for row in said[:10]]
    found = gaps(evidence(rows(MAIN, (), 5, 5), [*said, *elsewhere]))["raters"]
    doctors, nurses = found
    assert (doctors["group"], nurses["group"]) == ("doctors", "nurses")
    assert (nurses["n"], nurses["rest_n"], nurses["mean"]) == (6, 6, pytest.approx(0.8))
    assert nurses["p_value"] == pytest.approx(2 / 924) and nurses["p_adjusted"] == pytest.approx(4 / 924)
    assert nurses["interval"][0] > 0 and doctors["interval"] == pytest.approx(
        [-end for end in nurses["interval"][::-1]]
    )
    turned = [row.turned() for row in said]
    assert gaps(evidence(rows(MAIN, (), 5, 5), turned))["raters"] == found
    few = gaps(evidence(rows(MAIN, (), 5, 5), [row for row in said if row.rater in ("a0", "a1", "b0")]))["raters"]
    assert all(gap["few"] and gap["p_value"] is None for gap in few)


# --- what got worse ---------------------------------------------------------------------------------------------


def pair(rate: float, half: float, n: int = 100, p_adjusted: float | None = None) -> dict[str, Any]:
    return {"win_rate": rate, "interval": [rate - half, rate + half], "n": n, "p_adjusted": p_adjusted}


def measure(
    mean: float, difference: float, half: float, better: str | None, p: float = 0.001, n: int = 100
) -> dict[str, Any]:
    fields = {"mean": difference, "interval": [difference - half, difference + half], "n": n}
    fields |= {"standard_error": half / 2, "p_value": p, "p_adjusted": p}
    return {"mean": mean, "difference": fields, "better": better}


def metrics(dpo: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"base": "base", "verdict_by": "gold", "models": {"base": {"judges": {}}, "dpo": dpo}, **more}


def named(found: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(row["kind"], row["name"]) for row in found]


def test_what_got_worse_by_weight() -> None:
    found = worse(
        metrics(
            {
                "judges": {"gold": pair(0.4, 0.05), "other": pair(0.2, 0.05)},
                "tags": {
                    "de": {"gold": pair(0.3, 0.1, p_adjusted=0.01)},
                    "law": {"gold": pair(0.2, 0.1, p_adjusted=0.001)},
                    "maths": {"gold": pair(0.4, 0.05, p_adjusted=0.2)},
                    "fine": {"gold": pair(0.45, 0.1, p_adjusted=0.9)},
                    "tiny": {"gold": pair(0.1, 0.05, n=19)},
                    "unasked": {"other": pair(0.1, 0.05)},
                },
                "measures": {
                    "repetition": measure(0.3, 0.2, 0.1, "lower"),
                    "finished": measure(0.5, -0.4, 0.1, "higher"),
                    "distinct_2": measure(0.9, 0.2, 0.1, "higher"),
                    "length": measure(900, 400, 10, None),
                    "empty": measure(0.1, 0.05, 0.04, "lower", p=0.06),
                    "refusals": {"mean": 0.1, "difference": None, "better": "lower"},
                    "chrf": measure(20, -5, 1, "higher", n=12),
                },
            },
            challenge_sets={
                "safety": {
                    "prompts": 60,
                    "models": {
                        "base": {"judges": {}, "measures": {}},
                        "dpo": {
                            "judges": {"gold": pair(0.35, 0.1, p_adjusted=0.02)},
                            "measures": {"repetition": measure(0.4, 0.3, 0.1, "lower", p=0.04)},
                        },
                    },
                }
            },
        )
    )
    assert named(found["worse"]) == [
        ("verdict", "dpo"),
        ("challenge set", "safety"),
        ("slice", "law"),
        ("slice", "de"),
        ("measure", "finished"),
        ("measure", "repetition"),
        ("measure on a challenge set", "repetition on safety"),
    ]
    assert named(found["perhaps"]) == [("slice", "maths")]
    assert named(found["too_few"]) == [("slice", "tiny"), ("measure", "chrf")]
    first = found["worse"][1]
    assert first["words"] == "preferred to the base in 35%, interval 25% to 45%, 100 prompts"
    assert (first["judge"], first["value"], first["n"], first["p_adjusted"]) == ("gold", 0.35, 100, 0.02)
    assert "clear" not in first


def test_tasks_that_fell_by_more_than_their_errors() -> None:
    """0.60 ± 0.02 to 0.50 ± 0.02: z = 0.1 / 0.0283 = 3.5. To 0.55: 1.77, p = 0.08. A perplexity rises."""
    cells = {"base": 0.6, "dpo": 0.5, "sft": 0.55}
    models = {"base": {}, "dpo": {}, "sft": {}}
    task = {name: {"value": value, "standard_error": 0.02, "better": "higher"} for name, value in cells.items()}
    words = {
        name: {"value": value, "standard_error": 1.0, "better": "lower"}
        for name, value in (("base", 10), ("dpo", 12.2), ("sft", 1))
    }
    none = {name: {"value": value, "standard_error": None, "better": "higher"} for name, value in cells.items()}
    found = worse(
        {"base": "base", "models": models, "harness": {"arc": {"acc": task}, "wiki": {"ppl": words, "x": none}}}
    )
    (arc,) = found["worse"]
    assert (arc["model"], arc["name"], arc["value"]) == ("dpo", "arc, acc", pytest.approx(-0.1))
    assert arc["p_adjusted"] == pytest.approx(4 * 0.000407, rel=0.01)
    assert found["perhaps"] == [], "12.2 against 10 has z = 1.56"


def test_nothing_is_worse_where_nothing_is_known() -> None:
    nothing: dict[str, list[Any]] = {"worse": [], "perhaps": [], "too_few": []}
    assert worse(metrics({"judges": {}, "tags": {}})) == nothing
    assert worse(metrics({"judges": {"gold": pair(0.5, 0.1)}}, harness=None, challenge_sets={})) == nothing
    assert worse(metrics({"judges": {"gold": None}}, verdict_by=None)) == nothing
