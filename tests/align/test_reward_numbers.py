"""The numbers of the report on a reward model by hand, and the words for what PPO would learn."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.evaluate import calibration, reward_numbers
from align.report import reward_words

LOG2 = math.log(2)
LOGIT = {0.6: math.log(1.5), 0.75: math.log(3), 0.9: math.log(9)}
pairs_of = st.lists(st.tuples(st.floats(-20, 20), st.floats(0, 1)), min_size=1, max_size=30)


# --- calibration ---


def test_log_losses_by_hand() -> None:
    """-log 0.75; -log 0.25; -(0.8 log 0.9 + 0.2 log 0.1); a coin, whatever was said; no overflow far out."""
    d = [LOGIT[0.75], -LOGIT[0.75], LOGIT[0.9], 0.0, 800.0]
    found = calibration.log_losses(d, [1.0, 1.0, 0.8, 0.3, 1.0])
    by_hand = [-math.log(0.75), -math.log(0.25), -(0.8 * math.log(0.9) + 0.2 * math.log(0.1)), LOG2, 0.0]
    assert found.tolist() == pytest.approx(by_hand, abs=1e-12)
    assert calibration.entropies([0.5, 1.0, 0.0, 0.2]).tolist() == pytest.approx([LOG2, 0, 0, 0.5004024235])


def test_ece_by_hand() -> None:
    """Ten pairs at 0.75, of which the raters take that side in 6; four at 0.9, all right; read from either side.

    |0.6 - 0.75| and |1 - 0.9|, weighted 10 and 4 of 14: (1.5 + 0.4) / 14, with ten bins of width 0.05 over [½, 1].
    """
    d = [LOGIT[0.75]] * 5 + [-LOGIT[0.75]] * 5 + [LOGIT[0.9]] * 4
    y = [1, 1, 1, 0, 0] + [0, 0, 0, 1, 1] + [1] * 4
    found = calibration.reliability(d, y)
    assert found["ece"] == pytest.approx((10 * 0.15 + 4 * 0.1) / 14)
    first, second = found["bins"]
    assert first == {
        "low": pytest.approx(0.7),
        "high": pytest.approx(0.75),
        "n": 10,
        "said": pytest.approx(0.75),
        "seen": pytest.approx(0.6),
    }
    assert (second["n"], second["said"], second["seen"]) == (4, pytest.approx(0.9), pytest.approx(1.0))


def test_ece_of_soft_labels_and_of_no_difference() -> None:
    """Where the raters' shares are the model's probabilities, nothing is off; d = 0 says ½ and sees ½."""
    assert calibration.reliability([LOGIT[0.9], LOGIT[0.6], 0.0], [0.9, 0.6, 1.0])["ece"] == pytest.approx(0)
    assert calibration.reliability([LOGIT[0.9]], [0.4])["ece"] == pytest.approx(0.5)


@given(pairs_of)
def test_which_response_stands_first_changes_nothing(pairs: list[tuple[float, float]]) -> None:
    d, y = (np.array(column) for column in zip(*pairs, strict=True))
    assert calibration.log_losses(d, y) == pytest.approx(calibration.log_losses(-d, 1 - y))
    assert (calibration.log_losses(d, y) >= calibration.entropies(y) - 1e-9).all()
    there, back = calibration.reliability(d, y), calibration.reliability(-d, 1 - y)
    assert there["ece"] == pytest.approx(back["ece"]) and 0 <= there["ece"] <= 1


def test_best_scale_by_hand() -> None:
    """Right in 3 of 4 at |d| = 2: sigmoid(2 k) = 0.75 gives k = log 3 / 2. All right, or half of them: none is best."""
    assert calibration.best_scale([2, 2, -2, 2], [1, 1, 0, 0]) == pytest.approx(math.log(3) / 2, rel=1e-4)
    assert calibration.best_scale([2, 1], [1, 1]) is None
    assert calibration.best_scale([1, 1], [1, 0]) is None


def test_correlations_are_pearsons_over_both_orders() -> None:
    chance = np.random.default_rng(0)
    x, z = chance.normal(size=(2, 50))
    y = x + z

    def both(values: Any) -> Any:
        return np.concatenate([values, -values])

    assert calibration.correlation(x, y) == pytest.approx(np.corrcoef(both(x), both(y))[0, 1])
    left = [both(v) - both(z) * (both(v) @ both(z)) / (both(z) @ both(z)) for v in (x, y)]  # residuals on z
    assert calibration.partial_correlation(x, y, z) == pytest.approx(np.corrcoef(*left)[0, 1])
    assert calibration.correlation(x, 0 * x) is None
    assert calibration.partial_correlation(x, y, 0 * x) == pytest.approx(calibration.correlation(x, y))
    assert calibration.partial_correlation(x, x, x) is None


# --- accuracy, length, people ---


def test_one_rater_against_the_others_by_hand() -> None:
    """Three raters say first, first, second. Without one of the first two the others take no side; without the third
    they say first, so that rater is wrong, and a model that prefers the first is right. Where the third one ties, all
    three are asked: right, right (first and a tie lean to the first), and ½.
    """
    pair = [[[1, 2], [1, 2], [2, 1]]]
    found = reward_numbers.human_ceiling(pair, [[3.0, 1.0]], ["g"])
    assert found is not None
    assert (found["rater"]["accuracy"], found["model"]["accuracy"], found["rater"]["n"]) == (0.0, 1.0, 1)
    tied = reward_numbers.human_ceiling([[[1, 2], [1, 2], [1, 1]]], [[1.0, 3.0]], ["g"])
    assert tied is not None
    assert (tied["rater"]["accuracy"], tied["model"]["accuracy"]) == (pytest.approx(2.5 / 3), 0.0)
    assert reward_numbers.human_ceiling([[[1, 2]], [[1, 1], [1, 1]]], [[0.0, 1.0]] * 2, ["g", "h"]) is None


def arrays(*rows: tuple[float, float, float]) -> tuple[Any, Any, Any, Any]:
    """Rows of (score difference, preference, log ratio of lengths) as the arrays that reward_numbers takes."""
    d, y, longer = np.array(rows, dtype=float).T
    return d, y, longer, np.array([f"g{number}" for number in range(len(rows))])


def test_longer_wins_is_a_coin_once_length_is_balanced() -> None:
    """Six pairs whose longer response won, two whose shorter one did. The model is "longer wins" itself."""
    rows = [(1.0, 1.0, 0.5)] * 3 + [(-1.0, 0.0, -0.5)] * 3 + [(1.0, 0.0, 0.5), (-1.0, 1.0, -0.5)]
    found = reward_numbers.length_facts(*arrays(*rows))
    assert found is not None
    assert found["where_longer_won"]["accuracy"] == 1 and found["where_shorter_won"]["accuracy"] == 0
    assert found["balanced"]["accuracy"] == 0.5
    assert found["favours_longer"]["model"]["accuracy"] == 1
    assert found["favours_longer"]["raters"]["accuracy"] == 0.75
    assert found["correlation"]["model"] == pytest.approx(1)
    assert found["correlation"]["partial"] is None  # nothing of its scores is left once length is taken out
    words = reward_words.length_verdict(found)
    assert words is not None and words.startswith("What it knows is length. It prefers the longer response in 100%")
    assert "PPO would learn to write longer and longer responses" in words


def test_a_model_that_shares_the_raters_taste_is_not_warned_of() -> None:
    chance = np.random.default_rng(1)
    longer = chance.normal(size=300)
    merit = 0.5 * longer + chance.normal(size=300)
    y = (merit + 0.3 * chance.normal(size=300) > 0).astype(float)
    groups = np.array([f"g{number % 60}" for number in range(300)])
    found = reward_numbers.length_facts(merit, y, longer, groups)
    assert found is not None and reward_words.length_verdict(found) is None
    assert found["correlation"]["partial"] > 0.5 and found["balanced"]["interval"][0] > 0.5
    exaggerated = reward_numbers.length_facts(merit + 1.5 * longer, y, longer, groups)
    words = reward_words.length_verdict(exaggerated)
    assert words is not None and words.startswith("It makes more of length than the raters did: it prefers the longer")
    shorter = reward_words.length_verdict(reward_numbers.length_facts(merit - 1.5 * longer, y, longer, groups))
    assert shorter is not None and "shorter" in shorter


def test_tags_lengths_strengths_by_hand() -> None:
    right = np.array([1.0, 0.0, 1.0, 1.0])
    groups = np.array(["a", "a", "b", "c"])
    tags = reward_numbers.by_tag(right, [["x"], ["x", "y", "x"], ["y"], []], groups)
    assert {tag: (found["accuracy"], found["n"]) for tag, found in tags.items()} == {"x": (0.5, 2), "y": (0.5, 2)}
    parts = reward_numbers.by_length(right, [[1, 1], [2, 4], [10, 10], [100, 0]], np.zeros(4), groups)
    assert [(part["low"], part["high"], part["model"]["accuracy"]) for part in parts] == [
        (1, 1, 1.0), (3, 3, 0.0), (10, 10, 1.0), (50, 50, 1.0)
    ]  # fmt: skip
    d, y = np.array([1.0, -1.0, 2.0, 0.5]), np.array([1.0, 1.0, 0.0, 0.5])
    found = reward_numbers.by_strength(d, y, [1.0, 3.0, 2.0, 0.0], np.array(list("abcd")))
    assert found is not None and found["n"] == 4
    assert [(row["strength"], row["n"], row["accuracy"], row["difference"]) for row in found["rows"]] == [
        ("slightly", 1, 1.0, 1.0),
        ("clearly", 1, 0.0, -2.0),
        ("much", 1, 0.0, -1.0),
    ]
    assert reward_numbers.by_strength(d, y, [None] * 4, np.array(list("abcd"))) is None
    sure = reward_numbers.by_sureness(d[:3], np.array([0.6, 1.0, 0.2]), np.array(list("abc")))
    assert [(row["low"], row["n"], row["accuracy"]) for row in sure] == [(0.5, 1, 1.0), (0.65, 1, 0.0), (0.95, 1, 0.0)]
