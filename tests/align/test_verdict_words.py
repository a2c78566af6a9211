"""The verdict in a sentence: exact words for a win, a loss, what can't be told, too few prompts, and who judged."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.report import verdict as words
from align.report.changes import change_of, in_unit, p_words, sampling_words, warnings, worse_words
from align.report.html import verdicts_of
from align.report.judges import agreement_rows, bias_words, judges_of
from align.report.words import measured, percent, reward_words, spread
from preferences.stats.winrate import accuracy
from tests.align import report_example
from tests.align.report_example import mean, pair


def small(fields: dict[str, dict[str, Any]], kinds: dict[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    """metrics.json of one DPO model, `fields` by judge."""
    dpo = {"judges": fields, **more}
    return {"format": 1, "base": "base", "models": {"base": {"judges": {}}, "dpo": dpo}, "judges": kinds}


def said(metrics: dict[str, Any], model: str = "dpo") -> words.Verdict:
    return words.verdict(model, metrics, judges_of(metrics))


PEOPLE = {"people": {"kind": "people", "raters": 12}}
REWARD = {"reward": {"kind": "reward model", "gold": False}}
TRAINED = {"reward": {**REWARD["reward"], "trained": ["dpo"]}}


def test_the_sentence_of_a_win() -> None:
    assert said(report_example.metrics()).sentence == (
        "The DPO model is preferred to the base in 61% of prompts, 95% interval 55–67%, 240 prompts, 5 judges; "
        "it is 18% longer; safety set: no change detected; maths set: worse (38%); "
        "on none of 3 kinds of prompts detectably worse."
    )


def test_the_sentence_of_a_loss() -> None:
    found = said(small({"people": pair(0.38, 240)}, PEOPLE))
    assert found.outcome == "loss"
    assert found.sentence == (
        "The DPO model is worse than the base: it is preferred in only 38% of prompts, 95% interval 32–44%, "
        "240 prompts, judged by 12 people."
    )


def test_what_cant_be_told_says_how_many_prompts_are_missing() -> None:
    found = said(small({"people": pair(0.53, 240, more_prompts=827)}, PEOPLE))
    assert found.outcome == "unclear"
    assert found.sentence == (
        "It can't be told whether the DPO model is better than the base: it is preferred in 53% of prompts, "
        "95% interval 47–59%, 240 prompts, judged by 12 people."
    )
    assert "With about 827 more prompts like these it can probably be told, if the rate stays as it is." in found.notes
    crossed = {"raters": 12, "method": "over prompts and raters (two-way cluster-robust, exact at that error)"}
    people = words.missing(pair(0.53, 240, more_prompts=827, **crossed))
    assert people.startswith("With about 827 more prompts like these, and more raters in proportion, it can probably")
    endless = words.missing(pair(0.53, 240, more_prompts=4801))
    assert endless == "If there is a difference, it takes more than 20 times as many prompts to show it."
    few = said(small({"people": pair(0.6, 240, **{**crossed, "smallest_detectable": None, "raters": 3})}, PEOPLE))
    assert few.lead == "3 raters are too few to say anything about the DPO model"
    alone = said(small({"people": pair(0.6, 240, raters=1)}, PEOPLE))
    assert "The interval is about the taste of one person: what others would say is not known from it." in " ".join(
        alone.notes
    )
    even = said(small({"people": pair(0.5, 240)}, PEOPLE))
    assert (
        "So many prompts show only a true rate of at least 59% reliably (4 times in 5). At an even rate no number of "
        "prompts would tell."
    ) in even.notes


def test_too_few_prompts_carry_no_verdict() -> None:
    found = said(small({"people": pair(0.667, 3)}, PEOPLE))
    assert found.outcome == "unclear"
    assert found.sentence == (
        "3 prompts are too few to say anything about the DPO model: it is preferred to the base in 67%, "
        "95% interval 10–100%, 3 prompts, judged by 12 people."
    )
    assert found.notes[0] == (
        "At least 17 more prompts are needed before anything is said, and hundreds for a small difference."
    )


@pytest.mark.parametrize("kinds", ["people", "reward"])
def test_a_clean_sweep_of_a_few_prompts_is_no_verdict_either(kinds: str) -> None:
    sweep = pair(1.0, 12, interval=[0.74, 1.0])
    metrics = small({kinds: sweep}, TRAINED if kinds == "reward" else PEOPLE)
    found = said(metrics)
    assert words.outcome(sweep) == "win" and found.outcome == "unclear"
    assert found.lead == "12 prompts are too few to say anything about the DPO model"
    enough = said(small({"people": pair(1.0, 20, interval=[0.83, 1.0])}, PEOPLE))
    assert enough.outcome == "win"


def test_a_model_that_nobody_judged() -> None:
    found = said(small({}, {}))
    assert found.outcome == "none" and found.sentence == "No judge has compared the DPO model with the base."


def test_praise_of_the_judge_that_trained_it_is_said_to_be_no_evidence_at_once() -> None:
    metrics = small({"reward": pair(0.72, 240)}, TRAINED)
    found = said(metrics)
    assert found.outcome == "hint"
    assert found.sentence == (
        "The DPO model pleases the reward model that it was trained to please, which is no evidence that people prefer "
        "it: it is preferred to the base there in 72% of prompts, 95% interval 66–78%, 240 prompts, judged by the "
        "reward model."
    )
    assert found.notes[0].endswith("Let people compare the models before you decide.")
    picked = {"reward": {**REWARD["reward"], "picks": ["dpo"]}}
    assert (
        "pleases the reward model that picks its answers, which" in said(small({"reward": pair(0.7, 240)}, picked)).lead
    )
    assert "does not even please the reward model" in said(small({"reward": pair(0.3, 240)}, TRAINED)).lead
    assert "It can't be told whether" in said(small({"reward": pair(0.5, 240)}, TRAINED)).lead


def test_a_reward_model_that_is_not_gold_is_only_a_hint() -> None:
    assert said(small({"reward": pair(0.72, 240)}, REWARD)).notes[0].startswith("No person judged this.")
    rule = {"short": {"kind": "function"}}
    assert said(small({"short": pair(0.72, 240)}, rule)).notes[0] == (
        "No person judged this. The judge is a rule: it knows what it was written for and nothing else."
    )
    gold = {"gold": {"kind": "reward model", "gold": True}}
    assert not [note for note in said(small({"gold": pair(0.72, 240)}, gold)).notes if "No person" in note]


def test_whether_the_other_judges_agree() -> None:
    def others(first: float, *rest: float, reward: dict[str, Any] = REWARD) -> str:
        names = ["people", "reward", "llm"]
        kinds = {**PEOPLE, **reward, "llm": {"kind": "language model"}}
        rates = dict(zip(names, (first, *rest), strict=False))
        metrics = small({name: pair(rate, 240) for name, rate in rates.items()}, kinds)
        return words.others(said(metrics).opinions)

    assert others(0.61) == ""
    assert others(0.61, 0.7, 0.6) == "People decide; the language model (60%) and the reward model (70%) agree."
    assert (
        others(0.61, 0.7, 0.52) == "People decide; the reward model (70%) agrees; the language model (52%) can't tell."
    )
    assert others(0.61, 0.7, 0.4) == (
        "People decide; the reward model (70%) agrees; the language model (40%) sees a loss. The judges contradict "
        "each other: read the examples where they differ before you decide."
    )
    assert others(0.52, 0.7, 0.51) == (
        "People decide; the language model (51%) can't tell either; the reward model (70%) sees a win. "
        "It may have learnt to please the reward model."
    )
    assert others(0.43, 0.78, reward=TRAINED) == (
        "People decide. It was trained or picked to please the reward model, so the 78% there is no evidence."
    )


def test_who_decides_comes_first_whatever_the_order_of_the_file() -> None:
    metrics = small({"reward": pair(0.7, 240), "people": pair(0.6, 240)}, {**REWARD, **PEOPLE})
    assert said(metrics).opinions[0].judge == "people"
    assert said({**metrics, "verdict_by": "reward"}).opinions[0].judge == "reward"
    away = said({**small({"reward": pair(0.7, 240)}, {**REWARD, **PEOPLE}), "verdict_by": "people"})
    assert away.opinions[0].judge == "reward" and "People were to decide, and did not judge this model." in away.notes


def test_at_equal_length() -> None:
    def controlled(rate: float, n: int, at_equal: float) -> str:
        fields = pair(rate, n, length_controlled_win_rate=at_equal)
        return words.equal_length(fields, words.outcome(fields))

    start = "If both models' answers were equally long it would be preferred in "
    assert controlled(0.61, 240, 0.58) == start + "58% (52–64%): length does not explain it."
    assert controlled(0.61, 240, 0.52) == start + "52% (46–58%): length may be all that it wins by."
    assert controlled(0.52, 240, 0.6) == start + "60% (54–66%): its length hides that it is better."
    assert controlled(0.4, 240, 0.48) == start + "48% (42–54%): length may be all that it loses by."
    assert controlled(0.5, 240, 0.5) == start + "50% (44–56%)."
    assert words.equal_length(pair(0.6, 9, length_controlled_win_rate=None), "win") == ""
    unseen = pair(0.6, 240, length_controlled_standard_error=None)  # always longer
    assert words.equal_length(unseen, "win").startswith("These prompts can't tell what would be if both")
    few = pair(0.7, 19, length_controlled_win_rate=0.9, length_controlled_standard_error=0.05)
    assert words.equal_length(few, "unclear").startswith("These prompts can't tell"), "nothing is said of so few"


def test_a_judge_that_only_ties_is_seen() -> None:
    assert words.ties_words(pair(0.5, 40, ties=3)) == "3 of the 40 prompts are ties, which count half."
    assert words.ties_words(pair(0.5, 40, ties=40)) == (
        "All 40 prompts are ties, which count half: on none of them was either answer preferred."
    )
    metrics = small({"people": pair(0.5, 40, ties=40), "reward": pair(0.5, 40, ties=39)}, {**REWARD, **PEOPLE})
    judges = judges_of(metrics)
    assert judges["people"]["bias"][0] == (
        "All 40 comparisons are ties: people prefer nothing on the whole, and can't tell these models apart."
    )
    assert not any("are ties" in line for line in judges["reward"]["bias"])


def test_nothing_worse_says_of_how_many_measures_too_few_prompts_tell() -> None:
    def said_of(*changes: str) -> str:
        rows = [{"change": change} for change in changes]
        block = {"model": "dpo", "rows": rows, "names": {"worse": [], "better": []}}
        return worse_words({"models": {}, "base": "base"}, "dpo", [block])

    assert said_of("unclear", "unclear") == "Nothing that was measured got detectably worse."
    assert said_of("few", "few") == "So few prompts don't tell what got worse."
    assert said_of("few", "unclear", "few") == (
        "Nothing got detectably worse, but of 2 of 3 measures so few prompts don't tell."
    )


def test_answers_that_were_nearly_all_cut_off_are_said_though_the_base_s_were_too() -> None:
    def spoilers(base: float, dpo: float) -> list[str]:
        metrics = small({}, {}, finished=dpo)
        metrics["models"]["base"]["finished"] = base
        return warnings(metrics)

    assert spoilers(0.9, 0.85) == [] and spoilers(0.6, 0.5) == []
    assert spoilers(0.0, 0.1) == [
        "The DPO model ends 10% of its responses by itself, the base 0%: most were cut off at the length limit, so "
        "this compares beginnings. Allow longer ones."
    ]
    assert "the others were cut off" in spoilers(0.4, 0.1)[0]


def test_length_is_a_change_only_where_one_was_detected() -> None:
    base = {"length": mean(212, 6)}

    def change(after: float, half: float | None) -> str:
        difference = None if half is None else {"length": {"difference": mean(after - 212, half)}}
        return words.length_words({"length": mean(after, 6), "measures": difference}, base)

    assert change(250, 8) == "it is 18% longer" and change(170, 8) == "it is 20% shorter"
    assert change(215, 8) == "no change of length detected"
    assert change(215, None) == "it is about as long" and change(250, None) == "it is 18% longer"
    assert words.length_words({"length": None}, base) == ""


def test_slices_need_the_corrected_p_value() -> None:
    worse = pair(0.38, 240)
    assert words.slice_outcome({**worse, "p_adjusted": 0.01}) == "loss" == words.slice_outcome(worse)
    assert words.slice_outcome({**worse, "p_adjusted": 0.2}) == "maybe"
    assert words.slice_outcome({**worse, "few": True}) == "few" == words.slice_outcome(pair(0.1, 19))
    assert words.slice_words({**worse, "p_adjusted": 0.2}) == "perhaps worse (38%)"
    assert words.slice_words(pair(0.5, 4)) == "too few prompts to tell (4)"
    assert p_words({"p_adjusted": 0.0004}, "loss") == (", chance is as good as ruled out (p below 0.001, corrected)")
    assert p_words({"p_value": 0.03}, "loss") == ", unlikely to be chance (p 0.030)"
    assert p_words({"p_adjusted": 0.4}, "unclear") == " (p 0.40, corrected)"


def test_headlines() -> None:
    metrics = report_example.metrics()
    lines = words.headline(verdicts_of(metrics, judges_of(metrics)), metrics)
    assert [f"{lead}{rest}" for lead, rest in lines] == [
        "The DPO model is preferred to the base in 61% of prompts, 95% interval 55–67%.",
        "“best of 4” is preferred to the base in 58% of prompts, 95% interval 52–64%.",
        "It can't be told whether the SFT model is better than the base: it is preferred in 52% of prompts, "
        "95% interval 46–58%.",
        "The PPO model is worse than the base: it is preferred in only 43% of prompts, 95% interval 37–49%.",
    ]
    assert words.headline([], metrics) == [("No model was compared with the base.", "")]


@given(st.integers(1, 400), st.integers(0, 400), st.integers(0, 400))
def test_no_verdict_that_the_interval_does_not_carry(n: int, wins: int, ties: int) -> None:
    wins, ties = min(wins, n), min(ties, n - min(wins, n))
    rate = (wins + 0.5 * ties) / n
    low, high = max(0.0, rate - 0.98 / math.sqrt(n)), min(1.0, rate + 0.98 / math.sqrt(n))
    found = said(small({"people": pair(rate, n, interval=[low, high])}, PEOPLE))
    assert ("is preferred to the base in" in found.lead and "can't" not in found.lead) == (low > 0.5 and n >= 20)
    assert ("is worse than the base" in found.lead) == (high < 0.5 and n >= 20)


def test_measures_that_got_worse() -> None:
    def change(low: float, high: float, better: str | None) -> str | None:
        return change_of({"difference": {"mean": (low + high) / 2, "interval": [low, high]}, "better": better})

    assert change(0.1, 0.2, "lower") == "worse" == change(-0.2, -0.1, "higher")
    assert change(0.1, 0.2, "higher") == "better" == change(-0.2, -0.1, "lower")
    assert change(-0.1, 0.2, "higher") == "unclear" and change(0.1, 0.2, None) == "changed"
    assert change_of({"difference": None}) is None
    unsure = {"mean": 0.15, "interval": [0.1, 0.2], "p_value": 0.02, "p_adjusted": 0.3}
    assert change_of({"difference": unsure, "better": "lower"}) == "maybe"
    assert change_of({"difference": {**unsure, "n": 7}, "better": "lower"}) == "few"
    share = {"mean": 0.043, "interval": [0.03, 0.061]}
    assert in_unit(share, "share") == ("4.3%", "3.0 to 6.1")
    assert in_unit(share, "share", sign=True) == ("+4.3 points", "3.0 to 6.1")
    assert in_unit({"mean": -16, "interval": [-24, -8]}, "characters", sign=True) == ("−16", "−24 to −8")


def test_sampling_that_differs_is_said() -> None:
    assert sampling_words(report_example.metrics()) == (
        "Not all models answered under the same settings: “best of 4” with best of 4; the PPO model with temperature "
        "1.0 instead of 0.7. A part of their difference may come from that."
    )
    assert sampling_words({"sampling": {"settings": {"temperature": 1}, "differs": {}}}) == "" == sampling_words({})
    assert warnings(report_example.metrics())[0].startswith("Not all models")


def test_a_judge_that_leans() -> None:
    bias = report_example.metrics()["judges"]["llm"]["bias"]
    assert bias_words("the language model", bias) == [
        "The language model leans to the answer that it is shown first: it prefers the answer that it is shown first "
        "in 58% (53–63%) of 480 verdicts; 50% would be even.",
        "Shown the same two answers the other way round, it changes its mind in 22% (17–28%) of 240 pairs; both orders "
        "are averaged, so that this can't favour a model.",
        "The language model shows no leaning to the longer answer: it prefers the longer answer in 53% (46–60%) of 223 "
        "verdicts; 50% would be even.",
    ]
    both = {"judge": {"mean": 0.6}, "people": {"mean": 0.4}}
    assert bias_words("it", {"length": {"beside": {"crowd": both}}}, {"crowd": "people"}) == [
        "On the answers that both judged, it prefers the longer one in 60%, people in 40%."
    ]
    assert bias_words("the judge", {"position": {"first_share": None, "flips": None}, "length": None}) == []


def test_agreement_with_people_comes_first() -> None:
    metrics = report_example.metrics()
    rows = agreement_rows(metrics, judges_of(metrics))
    assert [row["label"] for row in rows][::3] == [
        "People and the language model",
        "The gold reward model and the reward model",
    ]
    assert rows[0]["words"] == "beyond what chance gives: moderate (kappa 0.43, 0.37 to 0.49)"


# --- numbers ----------------------------------------------------------------------------------------------------


def test_rounding_never_hides_the_side() -> None:
    assert percent(0.504) == "50.4%" and percent(0.496) == "49.6%" and percent(0.5) == "50%"
    assert spread([0.504, 0.71]) == "50.4–71%"


def test_means_have_the_digits_that_their_interval_deserves() -> None:
    assert measured({"mean": 208.31, "interval": [195.9, 220.6]}) == ("208", "196 to 221")
    assert measured({"mean": -0.0735, "interval": [-0.261, 0.0867]}) == ("−0.07", "−0.26 to 0.09")
    assert measured({"mean": -10, "interval": [-24, -0.2]}) == ("−10", "−24 to 0")
    assert measured({"mean": 64.0, "interval": [64.0, 64.0]}) == ("64", "")
    assert measured({"mean": 64.25, "interval": None}) == ("64.2", "")


@pytest.mark.parametrize(
    ("right", "longer", "end"),
    [
        (160, 110, "The reward model is better than that rule."),
        (120, 115, "No clear advantage over that rule could be shown."),
        (120, 170, "The reward model is worse than that rule."),
    ],
)
def test_the_reward_model_beside_the_simplest_rule(right: int, longer: int, end: str) -> None:
    made = [accuracy([1] * count + [0] * (200 - count), resamples=300) for count in (right, longer)]
    assert reward_words(made[0], made[1], None).endswith(end)
    if right == 120 and longer == 115:
        assert reward_words(made[0], made[1], {"mean": 0.025, "interval": [0.01, 0.04]}).endswith(
            "better than that rule."
        )


def test_a_reward_model_that_may_be_a_coin() -> None:
    made = [accuracy([1] * count + [0] * (200 - count), resamples=300) for count in (101, 100)]
    assert "not been shown to be better than a coin" in reward_words(made[0], made[1], None)
