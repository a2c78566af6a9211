"""What PPO says of itself while it runs: every sign on rows that show it, none on healthy ones; the picture."""

import math
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.ppo import watch
from align.run.plots import draw_ppo, series, smoothed

Row = dict[str, float]


def run(updates: int = 60, seed: int = 0, rollouts: int = 16, spread: float = 2.0, eval_every: int = 5) -> list[Row]:
    """A healthy run's rows: as noisy as means over `rollouts` responses are."""
    rng = np.random.default_rng(seed)
    rows = []
    for step in range(1, updates + 1):
        done = step / updates
        kl, score, tokens, ended = 8 * done**0.7, -1 + 3 * (1 - math.exp(-3 * done)), 40 + 8 * done, 0.7 + 0.25 * done
        entropy = 1.4 - 0.5 * done

        def noisy(mean: float, sd: float, of: int = rollouts) -> float:
            return float(mean + rng.normal(0, sd / math.sqrt(of)))

        row = {
            "step": step,
            "episode": step * rollouts,
            "objective/scores": noisy(score, spread),
            "objective/scores_std": abs(noisy(spread, spread / math.sqrt(2))),
            "objective/kl": noisy(kl, math.sqrt(2 * kl)),
            "objective/kl_coef": 0.05,
            "objective/rlhf_reward": score - 0.05 * kl,
            "objective/entropy": tokens * entropy,
            "response/tokens": noisy(tokens, 12),
            "response/ended": float(rng.binomial(rollouts, ended)) / rollouts,
            "response/distinct_2": noisy(0.75 - 0.1 * done, 0.1),
            "response/abstained": 0.0,
            "loss/policy_avg": noisy(-0.01, 0.01),
            "loss/value_avg": abs(noisy(0.5, 0.3)),
            "policy/approxkl_avg": 0.012 * math.exp(rng.normal(0, 0.5)) * (1 - done + 0.01) ** 2,
            "policy/clipfrac_avg": 0.12 * math.exp(rng.normal(0, 0.4)) * (1 - done + 0.01),
            "policy/entropy_avg": noisy(entropy, 0.2),
            "policy/grad_norm": abs(noisy(0.8, 0.5)),
            "val/explained_variance": 0.6 - 4 * math.exp(-step / 3) + rng.normal(0, 0.15),
            "val/clipfrac_avg": 0.2 * math.exp(rng.normal(0, 0.4)),
            "val/grad_norm": abs(noisy(2, 1)),
            "val/ratio": noisy(1, 0.05),
            "lr": 1e-5 * (1 - (step - 1) / updates),
            "seconds": 12.0,
        }
        if step % eval_every == 0:
            row |= {
                "eval/scores": noisy(score - 0.2, spread, 64),
                "eval/kl": noisy(kl, math.sqrt(2 * kl), 64),
                "eval/tokens": noisy(tokens, 12, 64),
                "eval/ended": ended,
                "eval/distinct_2": 0.75 - 0.1 * done,
            }
        rows.append(row)
    return rows


def changed(key: str, to: Callable[[float], float], rows: list[Row] | None = None) -> list[Row]:
    """The rows with a key's number given by how far the run is, from 0 to 1."""
    rows = run() if rows is None else rows
    return [row | {key: to(place / (len(rows) - 1))} if key in row else row for place, row in enumerate(rows)]


def found(rows: list[Row], **keys: float) -> dict[str, str]:
    return dict(watch.warnings(rows, response_length=128, **keys))


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_run_shows_no_sign_at_any_update(seed: int) -> None:
    rows = run(updates=40 + 4 * seed, seed=seed, spread=[0.3, 2.0, 30.0][seed % 3])
    for update in range(len(rows) + 1):
        assert found(rows[:update]) == {}, update


@pytest.mark.parametrize("seed", range(5))
def test_a_run_that_went_nowhere_yet_or_was_warming_up_is_not_blamed(seed: int) -> None:
    rows = changed("lr", lambda done: 1e-5 * done, run(60, seed))
    quiet = {"policy/approxkl_avg": 0.0, "policy/clipfrac_avg": 0.0, "objective/kl": 0.0, "objective/scores": 0.3}
    assert found([row | quiet for row in rows[:30]]) == {}


def test_one_step_an_update_has_no_step_to_measure_but_moves() -> None:
    """Even before the score shows it: then the KL to the reference is what tells."""
    flat = {"policy/approxkl_avg": 0.0, "policy/clipfrac_avg": 0.0, "lr": 1e-5, "objective/scores": 0.3}
    rows = [row | flat for row in run()]
    assert found(rows) == {}
    assert list(found([row | {"objective/kl": 0.0} for row in rows])) == ["standing-still"]


def hump(done: float) -> float:
    """Up until the middle of the run, then down by 3."""
    return 6 * done if done < 0.5 else 3 - 6 * (done - 0.5)


CASES = {
    "not-finite": ({"loss/policy_avg": lambda done: math.nan if done > 0.99 else 0.1}, ["loss/policy_avg"]),
    "abstained": ({"response/abstained": lambda _: 0.8}, ["80%"]),
    "same-scores": (
        {"objective/scores_std": lambda _: 0.0, "objective/scores": lambda _: 0.5},
        ["standard deviation 0"],
    ),
    "negative-kl": ({"objective/kl": lambda done: -3 * done - 0.1}, ["-3.00 nats", "temperature"]),
    "large-kl": ({"objective/kl": lambda done: 60 * done}, ["25", "kl_coef"]),
    "large-steps": ({"policy/approxkl_avg": lambda _: 0.4}, ["0.4 nats", "learning_rate"]),
    "held-out-falls": (
        {"objective/scores": lambda done: 6 * done, "eval/scores": hump},
        ["training", "held-out", "update 35"],
    ),
    "longer": ({"objective/scores": lambda done: 6 * done, "response/tokens": lambda done: 40 + 60 * done}, ["tokens"]),
    "repetitive": (
        {"objective/scores": lambda done: 6 * done, "response/distinct_2": lambda done: 0.8 - 0.6 * done},
        ["bigrams", "78% to 22%"],
    ),
    "entropy-collapse": ({"policy/entropy_avg": lambda done: 1.5 * (1 - done) + 0.01}, ["nats a token"]),
    "truncated": ({"response/ended": lambda _: 0.02}, ["2%", "128", "missing_eos_penalty"]),
    "poor-value": ({"val/explained_variance": lambda _: -0.3}, ["-0.3", "vf_coef"]),
    "standing-still": (
        {
            "policy/approxkl_avg": lambda _: 1e-9,
            "policy/clipfrac_avg": lambda _: 0.0,
            "objective/kl": lambda _: 0.001,
            "objective/scores": lambda done: 0.1 * math.sin(60 * done),
            "lr": lambda _: 1e-9,
        },
        ["learning_rate", "1e-09"],
    ),
}


@pytest.mark.parametrize("sign", CASES)
@pytest.mark.parametrize("spread", [1, 1000])
def test_each_sign_is_seen_alone_and_says_its_numbers(sign: str, spread: int) -> None:
    rows = run()
    changes, words = CASES[sign]
    for key, to in changes.items():
        rows = changed(key, to, rows)
    if spread != 1:  # scores have no scale of their own
        scale = {"objective/scores", "objective/scores_std", "eval/scores"}
        rows = [{key: number * spread if key in scale else number for key, number in row.items()} for row in rows]
    signs = found(rows)
    assert list(signs) == [sign]
    assert all(word in signs[sign] for word in words), signs[sign]
    assert signs[sign].endswith(".") and "\n" not in signs[sign]


def test_a_sign_is_about_now() -> None:
    """It goes when its cause goes, and one odd update doesn't bring it."""
    ended = changed("response/ended", lambda done: 0.02 if done < 0.5 else 0.8)
    assert "truncated" in found(ended[:20])
    assert found(ended) == {}
    for odd in (
        {"objective/kl": -50.0},
        {"objective/kl": 500.0},
        {"policy/approxkl_avg": 9.0},
        {"response/tokens": 500.0},
    ):
        rows = run()
        assert found([*rows[:-1], rows[-1] | odd]) == {}


@pytest.mark.parametrize("sign", ["held-out-falls", "poor-value", "standing-still", None])
def test_evaluations_may_stand_in_rows_of_their_own(sign: str | None) -> None:
    """One before the first update among them."""
    rows = run()
    for key, to in CASES[sign][0].items() if sign else []:
        rows = changed(key, to, rows)
    apart: list[Row] = [{"step": 0, "eval/scores": -1.2, "eval/kl": 0.0}]
    for row in rows:
        apart.append({key: number for key, number in row.items() if not key.startswith("eval/")})
        if "eval/scores" in row:
            apart.append({key: number for key, number in row.items() if key == "step" or key.startswith("eval/")})
    assert list(found(apart)) == ([sign] if sign else [])


def test_where_nothing_is_scored_equal_scores_mean_nothing() -> None:
    nothing = {"response/abstained": 1.0, "objective/scores": 0.0, "objective/scores_std": 0.0}
    assert list(found([row | nothing for row in run()])) == ["abstained"]


def test_the_budget_says_what_a_large_kl_is() -> None:
    rows = run()
    assert "budget" in found(rows, kl_budget=4.0)["large-kl"]
    far = changed("objective/kl", lambda done: 40 * done)
    assert found(far, kl_budget=100.0) == {}


def test_large_steps_name_only_what_is_known() -> None:
    rows = [{"step": step, "policy/clipfrac_avg": 0.5} for step in range(1, 9)]
    assert "50% of the tokens clipped" in found(rows)["large-steps"]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(sorted(run(5)[-1])), st.one_of(st.none(), st.floats(width=32), st.integers(-5, 5))
        ),
        max_size=30,
    ),
    st.one_of(st.none(), st.floats(0.1, 100)),
)
def test_any_rows_are_judged_without_falling_over(rows: list[Row], budget: float | None) -> None:
    rows = [row | {"step": step} for step, row in enumerate(rows, start=1)]
    signs = watch.warnings(rows, response_length=8, kl_budget=budget)
    assert len({sign.sign for sign in signs}) == len(signs)


def test_distinct_ngrams_by_hand() -> None:
    assert watch.distinct_ngrams([[1, 2, 1, 2]], 2) == pytest.approx(2 / 3)  # 12 21 12
    assert watch.distinct_ngrams([[1, 2], [1, 2], [3, 1]], 2) == pytest.approx(2 / 3)  # over all responses
    assert watch.distinct_ngrams([[5, 5, 5, 5]], 1) == 0.25
    assert watch.distinct_ngrams([], 2) == watch.distinct_ngrams([[1], []], 2) == 1.0  # no bigram is no repetition


@given(st.lists(st.lists(st.integers(0, 3), max_size=8), max_size=5), st.integers(1, 4))
def test_distinct_ngrams_is_a_share_that_repeating_lowers(responses: list[list[int]], n: int) -> None:
    share = watch.distinct_ngrams(responses, n)
    assert 0 < share <= 1
    if any(len(response) >= n for response in responses):
        assert watch.distinct_ngrams([*responses, *responses], n) == pytest.approx(share / 2)


def png_size(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data.rstrip().endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def test_the_picture_is_whole_and_of_a_size_to_look_at(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"
    path.write_bytes(b"an older picture")
    draw_ppo(run(), path, best_step=45, kl_budget=10.0)
    width, height = png_size(path)
    assert 1200 <= width <= 2400 and 600 <= height <= 1400
    assert path.stat().st_size < 500_000
    assert os.listdir(tmp_path) == ["curves.png"]


def test_the_picture_comes_quickly(tmp_path: Path) -> None:
    rows = run(1000)
    draw_ppo(rows, tmp_path / "curves.png")  # imports and fonts
    seconds = []
    for _ in range(3):
        started = time.process_time()
        draw_ppo(rows, tmp_path / "curves.png", best_step=500)
        seconds.append(time.process_time() - started)
    assert min(seconds) < 1.5


@pytest.mark.parametrize(
    "rows",
    [
        [{"step": 1}],
        [{"step": 1, "objective/scores": 0.5, "objective/kl": 0.0}],
        [{"step": step, "objective/scores": math.nan, "objective/kl": math.inf} for step in range(1, 40)],
        [{"step": 1, "val/explained_variance": -1e9}, {"step": 2, "val/explained_variance": None}],
        [row | {"objective/kl_coef": 0.05 + 0.001 * row["step"]} for row in run(30)],
    ],
    ids=["bare", "first", "nan", "deep", "adaptive"],
)
def test_a_picture_of_any_run(tmp_path: Path, rows: list[Row]) -> None:
    draw_ppo(rows, tmp_path / "curves.png", best_step=1)
    png_size(tmp_path / "curves.png")


def test_a_picture_that_fails_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "curves.png"
    draw_ppo(run(10), path)
    before = path.read_bytes()
    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError):
        draw_ppo(run(20), path)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["curves.png"]


def test_no_rows_no_picture(tmp_path: Path) -> None:
    draw_ppo([], tmp_path / "curves.png")
    assert os.listdir(tmp_path) == []


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=200))
def test_smoothing_keeps_the_range_and_the_count(numbers: list[float]) -> None:
    smooth = smoothed(numbers)
    assert len(smooth) == len(numbers)
    assert min(numbers) - 1e-3 <= min(smooth) and max(smooth) <= max(numbers) + 1e-3


def test_series_takes_rows_with_both_numbers() -> None:
    rows = [{"a": 1.0, "b": 2.0}, {"a": 2.0}, {"a": 3.0, "b": math.nan}, {"a": 4.0, "b": 5.0}]
    assert series(rows, "a", "b") == ([1.0, 4.0], [2.0, 5.0])
