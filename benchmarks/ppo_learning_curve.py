"""Does PPO learn as well as TRL's PPOTrainer from the same samples? Reward against KL, over several seeds.

    python benchmarks/ppo_learning_curve.py [--seeds N] [--work FOLDER] [--peer-python PATH] [--prompts FOLDER]

The reward is known: ten times the share of a response's words that speak to the reader (known_rewards.py). Both sides
start from the same model and take the same prompts in the same order, the same number of samples, and the same
hyperparameters. Where TRL of itself does something else it is brought in line, so that the algorithms are compared and
not their surroundings: adapters on the value model, too, and `num_mini_batches` optimiser steps an epoch (see
trl_ppo_peer.py). A run that is in the work folder already is not run again.
"""

import argparse
import math
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from ppo_vs_trl import HERE, add_common_options, apart, demo_model, peer_python, run_ours, run_theirs, short_prompts

FUNCTION = f"{HERE / 'known_rewards.py'}:speaks_to_the_reader"
SETTINGS: dict[str, Any] = {
    "batch_size": 16,
    "num_mini_batches": 4,
    "num_ppo_epochs": 1,
    "response_length": 24,
    "temperature": 1.0,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "constant",
    "kl_coef": 0.05,
    "cliprange": 0.2,
    "cliprange_value": 0.2,
    "vf_coef": 0.1,
    "gamma": 1.0,
    "lam": 0.95,
    "lora_r": 16,
    "lora_alpha": 32,
}
MICRO_BATCH = 4
PROMPT_TOKENS = 44
POINTS = 10
SIDES = ("Concord", "TRL")

Series = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each side")
    parser.add_argument("--updates", type=int, default=16, help="updates a run, of 16 rollouts each")
    parser.add_argument("--work", help="keep the runs here, and go on with those that are there [default: temporary]")
    parser.add_argument("--results", default=str(HERE / "results"), help="where the table and the picture go")
    add_common_options(parser)
    options = parser.parse_args()
    work = Path(options.work or tempfile.mkdtemp(prefix="ppo-learning-")).resolve()
    python = peer_python(options.peer_python)
    model = options.model or demo_model()
    prompts = apart(short_prompts, options.prompts, model, PROMPT_TOKENS)

    runs: dict[str, list[Series]] = {side: [] for side in SIDES}
    for seed in range(1, options.seeds + 1):
        same = {**SETTINGS, "total_episodes": options.updates * SETTINGS["batch_size"], "seed": seed}
        ours = {
            **same,
            "use_peft": True,
            "per_device_train_batch_size": MICRO_BATCH,
            "reward_funcs": [FUNCTION],
        }
        theirs = {
            **same,
            "mode": "lora",
            "value_lora": True,
            "micro_batch_size": MICRO_BATCH,
            "rollout_batch_size": SETTINGS["batch_size"],
            "reward": {"function": FUNCTION},
        }
        runs["Concord"].append(run_ours(ours, model, prompts, work / f"ours-{seed}", 1))
        runs["TRL"].append(run_theirs(theirs, python, model, prompts, work / f"trl-{seed}", 1))

    title = (
        f"{Path(model).name}, LoRA r {SETTINGS['lora_r']}, {options.updates} updates of {SETTINGS['batch_size']}"
        f" rollouts of at most {SETTINGS['response_length']} tokens on {len(prompts)} prompts,"
        f" {SETTINGS['num_mini_batches']} steps an update, learning rate {SETTINGS['learning_rate']:g}, KL coefficient"
        f" {SETTINGS['kl_coef']:g}; {options.seeds} seeds."
    )
    points = at_equal_kl(runs)
    text = f"{title}\n\n{equal_samples(runs)}\n\n{equal_kl(points)}"
    print(f"\n{text}")
    results = Path(options.results)
    command = f"python benchmarks/ppo_learning_curve.py --seeds {options.seeds} --updates {options.updates}"
    (results / "ppo_learning_curve.md").write_text(
        f"# PPO on a known reward, beside TRL\n\n    {command}\n\n{text}\n\n"
        "![Reward against KL and against samples](ppo_learning_curve.png)\n",
        encoding="utf-8",
    )
    draw(runs, points, results / "ppo_learning_curve.png")
    print(f"\nkept in {results}", file=sys.stderr)


def at_equal_kl(runs: dict[str, list[Series]]) -> dict[str, Any]:
    """{"kl": (p,), side: (seeds, p)}: every run's reward at KL points spaced evenly over what all runs reached."""
    kls = [np.asarray(run["objective/kl"]) for side in SIDES for run in runs[side]]
    low, high = max(kl.min() for kl in kls), min(kl.max() for kl in kls)
    points = np.linspace(low, high, POINTS)
    width = (high - low) / POINTS
    return {"kl": points} | {
        side: np.array([_local_line(run["objective/kl"], run["objective/scores"], points, width) for run in runs[side]])
        for side in SIDES
    }


def _local_line(x: list[float], y: list[float], points: np.ndarray, width: float) -> np.ndarray:
    """y at the points: at each a straight line through the data, weighted by a Gaussian of that width around it.

    A batch of rollouts is a noisy look at a policy; this borrows from batches of about the same KL.
    """
    found = []
    for point in points:
        # polyfit squares its weights; the floor keeps a lonely point's line from resting on one batch alone
        weights = np.sqrt(np.exp(-0.5 * ((np.asarray(x) - point) / width) ** 2) + 1e-4)
        _, level = np.polyfit(np.asarray(x) - point, y, 1, w=weights)
        found.append(level)
    return np.array(found)


def difference(first: list[float], second: list[float]) -> tuple[float, float]:
    """(difference of means, its standard error from the pooled variance); nan with fewer than two runs a side."""
    gap = statistics.fmean(first) - statistics.fmean(second)
    n, m = len(first), len(second)
    if min(n, m) < 2:
        return gap, math.nan
    pooled = ((n - 1) * statistics.variance(first) + (m - 1) * statistics.variance(second)) / (n + m - 2)
    return gap, math.sqrt(pooled * (1 / n + 1 / m))


def equal_samples(runs: dict[str, list[Series]]) -> str:
    """A table of what the runs reached with the same samples."""
    lines = [
        f"| after equal samples | {SIDES[0]} | {SIDES[1]} | difference | its standard error |",
        "|---|---|---|---|---|",
    ]
    rows = {
        "reward, first update": lambda run: run["objective/scores"][0],
        "reward, mean of all updates": lambda run: statistics.fmean(run["objective/scores"]),
        "reward, last 4 updates": lambda run: statistics.fmean(run["objective/scores"][-4:]),
        "KL, last 4 updates": lambda run: statistics.fmean(run["objective/kl"][-4:]),
        "tokens a response, last 4 updates": lambda run: statistics.fmean(run["response/tokens"][-4:]),
        "CPU seconds an update": lambda run: statistics.median(run["cpu_seconds"][1:]),
    }
    for name, measure in rows.items():
        first, second = ([measure(run) for run in runs[side]] for side in SIDES)
        gap, error = difference(first, second)
        lines.append(
            f"| {name} | {statistics.fmean(first):.2f} | {statistics.fmean(second):.2f} | {gap:+.2f}"
            f" | {_or_dash(error, '.2f')} |"
        )
    return "\n".join(lines)


def equal_kl(points: dict[str, Any]) -> str:
    """A table of the rewards at equal KL."""
    lines = [
        f"| at KL, nats | {SIDES[0]} | {SIDES[1]} | difference | its standard error | in standard errors |",
        "|---|---|---|---|---|---|",
    ]
    for number, kl in enumerate(points["kl"]):
        first, second = (list(map(float, points[side][:, number])) for side in SIDES)
        gap, error = difference(first, second)
        lines.append(
            f"| {kl:.1f} | {statistics.fmean(first):.2f} | {statistics.fmean(second):.2f} | {gap:+.2f}"
            f" | {_or_dash(error, '.2f')} | {_or_dash(gap / error if error else math.nan, '+.1f')} |"
        )
    return "\n".join(lines)


def _or_dash(number: float, form: str) -> str:
    return "–" if math.isnan(number) else format(number, form)


def draw(runs: dict[str, list[Series]], points: dict[str, Any], path: Path) -> None:
    """Reward against KL, and against samples: the mean over seeds in a band of one standard deviation."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    against_kl, against_samples = figure.subplots(1, 2, sharey=True)
    for side, colour in zip(SIDES, ("#0067a5", "#b86e00"), strict=True):
        for run in runs[side]:
            against_kl.plot(run["objective/kl"], run["objective/scores"], ".", color=colour, alpha=0.3, markersize=4)
        _band(against_kl, points["kl"], points[side], side, colour)
        scores = np.array([run["objective/scores"] for run in runs[side]])
        _band(against_samples, SETTINGS["batch_size"] * np.arange(1, scores.shape[1] + 1), scores, side, colour)
    against_kl.set(xlabel="KL to the reference, nats a response", ylabel="reward")
    against_samples.set(xlabel="rollouts")
    against_kl.legend(frameon=False, loc="upper left")
    for axes in (against_kl, against_samples):
        axes.grid(color="#e2dfd8")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _band(axes: Any, x: np.ndarray, rows: np.ndarray, name: str, colour: str) -> None:
    """rows: (seeds, len(x))."""
    mean = rows.mean(0)
    axes.plot(x, mean, color=colour, label=name)
    if len(rows) > 1:
        spread = rows.std(0, ddof=1)
        axes.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0)


if __name__ == "__main__":
    main()
