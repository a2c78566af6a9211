"""`align gate`: what rules mean, that what was not measured fails, and the exit codes that CI goes by."""

import json
from pathlib import Path
from typing import Any

import pytest

from align.report.gate import check, parse_rule
from preferences.files import sha256_file
from tests.align.conftest import align, done, refused


def pair(candidate: str, rate: float, low: float, high: float, n: int = 240, **more: Any) -> dict[str, Any]:
    names = {"candidate": candidate, "baseline": "base", "level": 0.95}
    return {**names, "n": n, "ties": 12, "win_rate": rate, "interval": [low, high], **more}


def mean(value: float, low: float, high: float) -> dict[str, Any]:
    return {"mean": value, "interval": [low, high], "n": 240, "standard_error": 1.0}


METRICS: dict[str, Any] = {
    "format": 1,
    "base": "base",
    "verdict_by": "gold",
    "judges": {"gold": {"kind": "reward model"}, "people": {"kind": "people"}},
    "models": {
        "base": {
            "judges": {},
            "length": mean(400, 390, 410),
            "kl": None,
            "measures": {"refusals": mean(0.1, 0.05, 0.2)},
        },
        "dpo": {
            "judges": {
                "gold": pair(
                    "dpo",
                    0.61,
                    0.55,
                    0.67,
                    length_controlled_win_rate=0.58,
                    length_controlled_standard_error=0.02,
                    anytime_interval=[0.5, 0.7],
                    p_value=0.001,
                ),
                "people": pair("dpo", 0.55, 0.45, 0.65, 60, anytime_interval=None, p_value=None),
            },
            "scores": {"gold": mean(1.5, 1.25, 1.75)},
            "length": mean(480, 460, 500),
            "kl": mean(12.5, 11, 14),
            "tokens": None,
            "finished": 0.975,
            "tags": {
                "safety": {"gold": pair("dpo", 0.5, 0.41, 0.59, 80)},
                "de.formal": {"gold": pair("dpo", 0.62, 0.38, 0.8, 20), "people": None},
            },
            "measures": {
                "refusals": {**mean(0.15, 0.1, 0.2), "difference": mean(0.05, -0.01, 0.11)},
                "length": {**mean(480, 460, 500), "difference": mean(80, 60, 100)},
                "distinct_2": {**mean(0.8, 0.7, 0.9), "difference": None},
            },
        },
        "best of 4": {"judges": {"gold": pair("best of 4", 0.7, 0.64, 0.76)}, "length": mean(400, 390, 410)},
        "v1": {"judges": {}},
        "v1.2": {"judges": {"gold": pair("v1.2", 0.4, 0.3, 0.5)}},
    },
    "challenge_sets": {
        "safety": {
            "prompts": 50,
            "models": {
                "base": {"length": mean(100, 90, 110)},
                "dpo": {"judges": {"gold": pair("dpo", 0.52, 0.46, 0.58, 50)}, "length": mean(90, 80, 100)},
            },
        }
    },
    "fairness": {
        "prompts": [{"model": "dpo", "judge": "gold", "group": "de.formal", "mean": 0.02}],
        "raters": [
            {"model": "dpo", "judge": "gold", "group": "nurse", "mean": -0.08},
            {"model": "dpo", "judge": "people", "group": "nurse", "mean": -0.5},
        ],
    },
    "harness": {"arc_easy": {"acc,none": {"dpo": {"value": 0.42, "standard_error": 0.01}}}},
}


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        ("dpo.win_rate > 0", 0.61),
        ("dpo.win_rate.low>0", 0.55),
        ("dpo.win_rate.high > 0", 0.67),
        ("dpo.win_rate > 0 by people", 0.55),
        ("dpo.n >= 60 by people", 60),
        ("dpo.ties > 0", 12),
        ("dpo.p_value < 0.05", 0.001),
        ("dpo.anytime.low >= 0.5", 0.5),
        ("dpo.length_controlled_win_rate > 0", 0.58),
        ("dpo.length_controlled_win_rate.low > 0.5", 0.58 - 1.959963984540054 * 0.02),
        ("dpo.slices > 0", 0.5),
        ("dpo.slices.low > 0", 0.38),
        ("dpo.slices.high > 0", 0.59),
        ("dpo.slice.de.formal.low > 0", 0.38),
        ("dpo.slice.safety > 0", 0.5),
        ("dpo.challenge.safety.win_rate.low > 0", 0.46),
        ("dpo.challenge.safety.length.ratio > 0", 0.9),
        ("dpo.score.low > 1", 1.25),
        ("dpo.length > 0", 480),
        ("dpo.length.high > 0", 500),
        ("dpo.length.difference.low > 0", 60),
        ("dpo.length.ratio < 1.3", 1.2),
        ("dpo.kl.high < 30", 14),
        ("dpo.finished > 0.9", 0.975),
        ("dpo.refusals < 1", 0.15),
        ("dpo.refusals.difference < 1", 0.05),
        ("dpo.refusals.difference.high < 1", 0.11),
        ("dpo.gap < 0.1", 0.08),
        ("dpo.harness.arc_easy.acc,none > 0.4", 0.42),
        ("best of 4.win_rate.low > 0.6", 0.64),
        ("v1.2.win_rate < 0.5", 0.4),
    ],
)
def test_what_a_rule_is_about(rule: str, value: float) -> None:
    (found,) = check(METRICS, [parse_rule(rule, "--rule")])
    assert found.value == pytest.approx(value, abs=1e-12) and found.passed, found


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ("ppo.win_rate > 0", "no model that 'ppo.win_rate' could begin with; it has base, dpo, best of 4, v1, v1.2."),
        ("base.win_rate > 0", "base is the base, which is compared with nothing."),
        ("dpo.win_rate > 0 by llm", "llm has not judged dpo there; who has: gold, people."),
        ("v1.win_rate > 0", "gold has not judged v1 there; who has: nobody."),
        ("dpo.distinct_2.difference > 0", "the difference in distinct_2 of dpo was not measured."),
        ("dpo.tokens < 100", "tokens of dpo was not measured."),
        ("best of 4.kl < 100", "kl of best of 4 was not measured."),
        ("base.kl < 100", "kl of base was not measured."),
        ("dpo.win_rates.low > 0", "'win_rates.low' was not measured of dpo; the nearest quantity is 'win_rate'."),
        ("dpo.win_rate.lower > 0", "win_rate of dpo has no part 'lower'"),
        ("dpo.p_value < 1 by people", "p_value of dpo was not measured."),
        ("dpo.anytime.low > 0 by people", "anytime of dpo has no interval."),
        ("dpo.anytime > 0", "anytime is an interval; write anytime.low or anytime.high."),
        ("dpo.n.low > 0", "n has no part 'low'."),
        ("best of 4.slices.low > 0", "gold has no slices of best of 4; prompts with tags make them."),
        ("dpo.slice.fr.low > 0", "'slice.fr.low' names no slice of the report; it has safety, de.formal."),
        ("dpo.challenge.maths.win_rate > 0", "names no challenge set of the report; it has safety."),
        ("best of 4.challenge.safety.win_rate > 0", "best of 4 was not measured on the challenge set safety."),
        ("dpo.finished.low > 0", "finished of dpo has no interval."),
        ("best of 4.gap < 1", "no gap between groups was measured for best of 4 by gold."),
        ("dpo.harness.hellaswag.acc > 0", "no task of the harness gives 'hellaswag.acc' for dpo; there are arc_easy."),
        ("dpo.length.ratio > 0 by people", ""),  # a judge does no harm where none is asked
    ],
)
def test_what_was_not_measured_fails_with_a_sentence(rule: str, words: str) -> None:
    (found,) = check(METRICS, [parse_rule(rule, "--rule")])
    if words:
        assert (found.passed, found.value) == (False, None) and words in found.words and found.words.endswith(".")
    else:
        assert found.passed


def test_an_end_that_is_no_number_passes_nothing() -> None:
    broken = {**METRICS, "models": {**METRICS["models"], "dpo": {"kl": {"mean": float("nan"), "interval": None}}}}
    for rule in ("dpo.kl < 30", "dpo.kl > 30", "dpo.kl.low > 0"):
        assert not check(broken, [parse_rule(rule, "")])[0].passed


@pytest.fixture
def report(tmp_path: Path) -> Path:
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    return tmp_path


def test_exit_codes(report: Path) -> None:
    rules = report / "rules.txt"
    rules.write_text("# before a release\ndpo.win_rate.low > 0.5\n\ndpo.kl < 30  # nats\n")
    said = done("gate", report, "--rules", rules, "--rule", "dpo.length.ratio < 1.3")
    assert said.out.splitlines() == [
        "pass  dpo.length.ratio < 1.3  1.2 (to the base)",
        "pass  dpo.win_rate.low > 0.5  0.55 (by gold, 240 prompts)",
        "pass  dpo.kl < 30             12.5",
        "3 of 3 rules pass",
    ]
    said = align("gate", report / "metrics.json", "--rule", "dpo.win_rate.low > 0.55", "--rule", "dpo.frobs > 1")
    assert (said.code, said.err) == (1, "")
    assert said.out.startswith("FAIL  dpo.win_rate.low > 0.55  0.55 (by gold") and "0 of 2 rules pass" in said.out
    said = align("gate", report, "--rule", "dpo.win_rate.low >= 0.55", "--rule", "dpo.tokens > 1", "--json")
    facts = json.loads(said.out)
    assert (said.code, facts["format"], facts["passed"]) == (1, 1, False)
    assert [(one["passed"], one["value"], one["threshold"]) for one in facts["rules"]] == [
        (True, 0.55, 0.55),
        (False, None, 1.0),
    ]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "no rule; give one"),
        (("--rule", "dpo.win_rate"), "'dpo.win_rate' is not a rule; write MODEL.QUANTITY"),
        (("--rule", "dpo > 3"), "is not a rule"),
        (("--rule", "dpo.win_rate. > 0.5"), "is not a rule"),
        (("--rule", "dpo.win_rate == 3"), "is not a rule"),
        (("--rule", "dpo.win_rate > 50%"), "'50%' is not a number; write a rate as 0.5"),
        (("--rule", "dpo.win_rate > nan"), "'nan' is not a number"),
        (("--rule", "a.b < 1 < 2"), "is not a rule"),
        (("--rules", "nowhere.txt"), "cannot read nowhere.txt"),
    ],
)
def test_bad_rules_are_refused(report: Path, words: tuple[str, ...], sentence: str) -> None:
    assert sentence in refused("gate", report, *words)


def test_what_is_no_report_is_refused(tmp_path: Path) -> None:
    rule = ("--rule", "dpo.win_rate > 0.5")
    assert "cannot read" in refused("gate", tmp_path / "nowhere", *rule)
    (tmp_path / "metrics.json").write_text("[1]")
    assert "a list, not a JSON object" in refused("gate", tmp_path, *rule)
    (tmp_path / "metrics.json").write_text('{"format": 1}')
    assert "not what `align evaluate` writes" in refused("gate", tmp_path, *rule)
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS))
    (tmp_path / "manifest.json").write_text('{"verb": "dpo", "status": "finished"}')
    assert "a run of `align dpo`; name the folder of an evaluation" in refused("gate", tmp_path, *rule)
    (tmp_path / "manifest.json").write_text('{"verb": "evaluate", "status": "running"}')
    assert "not finished (running)" in refused("gate", tmp_path, *rule)
    hashes = {"metrics.json": sha256_file(tmp_path / "metrics.json")}
    (tmp_path / "manifest.json").write_text(json.dumps({"status": "finished", "results_sha256": hashes}))
    assert done("gate", tmp_path, *rule).code == 0
    (tmp_path / "metrics.json").write_text(json.dumps({**METRICS, "title": "Another one"}))
    assert "metrics.json: is not what the evaluation wrote" in refused("gate", tmp_path, *rule)


def test_what_got_worse_is_counted() -> None:
    rows = [{"model": "dpo", "kind": "slice", "name": "law"}, {"model": "v1.2", "kind": "measure", "name": "empty"}]
    known = {**METRICS, "worse": {"worse": rows, "perhaps": rows, "too_few": []}}
    fails, holds = check(known, [parse_rule("dpo.worse < 1", "-"), parse_rule("v1.worse < 1", "-")])
    assert (fails.passed, fails.value, fails.words) == (False, 1.0, "slice law")
    assert (holds.passed, holds.value, holds.words) == (True, 0.0, "nothing that was measured")
    known["worse"]["too_few"] = [{"model": "v1", "kind": "measure", "name": name} for name in ("empty", "refusals")]
    (holds,) = check(known, [parse_rule("v1.worse < 1", "-")])
    assert (holds.passed, holds.words) == (True, "nothing that was measured; of 2 things too few prompts to tell")
    few = {**known, "prompts": 19}
    for rule, facts, why in (
        ("dpo.worse < 1", METRICS, "no list of what got worse"),
        ("base.worse < 1", known, "the base"),
        ("v1.worse < 1", few, "19 prompts are too few to say of v1 that nothing got worse; judge at least 20"),
    ):
        (result,) = check(facts, [parse_rule(rule, "-")])
        assert not result.passed and why in result.words


def test_a_win_rate_of_so_few_prompts_passes_nothing() -> None:
    few = pair("dpo", 1.0, 0.82, 1.0, 19, length_controlled_win_rate=0.9, length_controlled_standard_error=0.01)
    few |= {"p_value": 0.001, "anytime_interval": [0.6, 1.0]}
    facts = {
        "judges": {"gold": few, "people": few | {"n": 25, "smallest_detectable": None}},
        "tags": {"t": {"gold": few}},
    }
    report = {**METRICS, "models": {**METRICS["models"], "dpo": facts}}
    win_rates = ["win_rate > 0.5", "win_rate.low > 0.5", "win_rate < 2", "length_controlled_win_rate.low > 0.5"]
    for rule in [*win_rates, "anytime.low > 0.5", "p_value < 0.05", "slice.t > 0.5"]:
        (found,) = check(report, [parse_rule(f"dpo.{rule}", "")])
        assert not found.passed and found.words.startswith("19 prompts are too few to say anything about "), rule
        assert found.words.endswith("judge at least 20.")
    (found,) = check(report, [parse_rule("dpo.win_rate.low > 0.5 by people", "")])
    assert not found.passed and found.words.startswith("25 prompts are too few to show any difference")
    (found,) = check(report, [parse_rule("dpo.slices > 0.5", "")])
    assert not found.passed and "no slice of dpo has prompts enough" in found.words
    assert all(one.passed for one in check(report, [parse_rule("dpo.n < 20", ""), parse_rule("dpo.ties < 20", "")]))
    # beside a larger slice a small one counts, which makes the rule no easier
    facts["tags"] = {"t": {"gold": few | {"win_rate": 0.3}}, "large": {"gold": pair("dpo", 0.6, 0.5, 0.7)}}
    assert not check(report, [parse_rule("dpo.slices > 0.5", "")])[0].passed


@pytest.mark.parametrize(
    "damage", [3, "x", [1], {"gold": 3}, {"gold": {"n": "x"}}, {"gold": {"n": 240, "interval": 3}}]
)
def test_a_damaged_report_fails_in_a_sentence(report: Path, damage: Any) -> None:
    facts = {"judges": damage, "tags": damage, "measures": damage, "kl": damage, "length": damage}
    rest = {"worse": damage, "fairness": damage, "harness": damage, "challenge_sets": damage}
    (report / "metrics.json").write_text(json.dumps({**METRICS, "models": {"base": {}, "dpo": facts}, **rest}))
    quantities = (
        "win_rate.low",
        "slices",
        "slice.gold",
        "kl",
        "length.ratio",
        "gold.difference",
        "worse",
        "gap",
        "harness.gold.n",
    )
    for what in (*quantities, "challenge.gold.win_rate"):
        said = align("gate", report, "--rule", f"dpo.{what} > 0")
        assert (said.code, said.err) == (1, "") and said.out.startswith("FAIL"), what


def test_a_report_s_words_do_nothing_to_the_terminal(report: Path) -> None:
    evil = "\x1b[31mevil\u202e\n1 of 1 rules pass"
    tags = {evil: {"gold": pair("dpo", 0.6, 0.5, 0.7)}}
    models = {"base": {}, evil: {}, "dpo": {"tags": tags, "judges": {}}}
    (report / "metrics.json").write_text(json.dumps({**METRICS, "models": models}))
    for rule, code in (("dpo.slices > 0.5", 0), ("ppo.win_rate > 0.5", 1)):
        said = align("gate", report, "--rule", rule)
        assert (said.code, len(said.out.splitlines())) == (code, 2)
        assert "evil" in said.out and not {"\x1b", "\u202e"} & set(said.out)


def test_numbers_that_the_evaluation_did_not_write_are_refused_by_the_file_s_name_too(report: Path) -> None:
    (report / "manifest.json").write_text(
        json.dumps({"status": "finished", "results_sha256": {"metrics.json": "0" * 64}})
    )
    for name in (report, report / "metrics.json"):
        assert "is not what the evaluation wrote" in refused("gate", name, "--rule", "dpo.kl < 30")
