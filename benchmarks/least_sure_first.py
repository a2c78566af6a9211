"""Are the pairs that reward models are least sure of worth more to them than others? UKPConvArg1, unseen topics.

    python benchmarks/least_sure_first.py [--data FOLDER] [--model MODEL] [--states FILE]

150 pairs with their raters' votes make an ensemble of five reward heads on a frozen base (each on a bootstrap of them;
benchmarks/what_raters_said.py says how heads are trained and judged). 150 more pairs are bought: at random, where the
ensemble differs most (what `align score` writes for several runs), or where one head, or the mean of all, would toss
a coin (what it writes for one). A new head on all 300 is judged on the debate left out, each of the 11 in turn.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from what_raters_said import Data, Labels, read, states_of, train_heads

from align.evaluate.calibration import log_losses
from preferences.stats.winrate import paired_difference

BOUGHT, HEADS = 150, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/ukpconvarg1", help="the folder with judgements.jsonl.gz")
    parser.add_argument("--model", help="any hub name or folder [default: the demo's SmolLM2-135M-Instruct]")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--states", help="keep the base's states here, or take them from here")
    options = parser.parse_args()
    source = Path(options.data) / "judgements.jsonl.gz"
    if not source.is_file():
        sys.exit(f"error: {source} is not there; give the folder of UKPConvArg1 with --data")
    torch.set_num_threads(1)
    data = read(source)
    model = (
        options.model
        or subprocess.run(
            [sys.executable, "demo/model.py"], check=True, text=True, stdout=subprocess.PIPE
        ).stdout.strip()
    )
    states = states_of(data.texts, model, options.states)
    found: dict[str, np.ndarray] = {}
    for debate in np.unique(data.debate):
        train, test = np.flatnonzero(data.debate != debate), np.flatnonzero(data.debate == debate)
        seen = states[np.unique(data.ends[train])]
        scaled = torch.tensor((states - seen.mean(0)) / (seen.std(0) + 1e-6) / states.shape[1] ** 0.5)
        told = [one for seed in range(options.seeds) for one in bought(scaled, data, train, seed).items()]
        scores = train_heads(scaled, data, [(0, labels(data, pairs)) for _, pairs in told], 1600)
        for number, (name, _) in enumerate(told):
            every = found.setdefault(name, np.full((options.seeds, len(data.rows)), np.nan))
            every[number // 5, test] = scores[data.ends[test, 0], number] - scores[data.ends[test, 1], number]
        print(debate, file=sys.stderr, flush=True)
    print(table(data, found))


def labels(data: Data, pairs: np.ndarray) -> Labels:
    votes = data.votes[pairs]
    return Labels(pairs, (votes[:, 0] + votes[:, 1] / 2) / votes.sum(axis=1), np.ones(len(pairs)))


def bought(states: torch.Tensor, data: Data, train: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Five sets of pairs: the first 150, and with 150 more by each way to choose."""
    draw = np.random.default_rng(seed)
    order = draw.permutation(train)
    first, rest = order[:BOUGHT], order[BOUGHT:]
    again = [(100 + head, labels(data, draw.choice(first, BOUGHT))) for head in range(HEADS)]
    scores = train_heads(states, data, again, 800)
    raw = scores[data.ends[rest, 0]] - scores[data.ends[rest, 1]]  # (pairs, heads)
    normal = raw / scores.std(axis=0)
    ways = {
        "random": np.arange(len(rest)),
        "where five heads differ most": np.argsort(-normal.std(axis=1), kind="stable"),
        "where one head would toss a coin": np.argsort(np.abs(raw[:, 0]), kind="stable"),
        "where their mean would toss a coin": np.argsort(np.abs(normal.mean(axis=1)), kind="stable"),
    }
    more = {name: np.concatenate([first, rest[way[:BOUGHT]]]) for name, way in ways.items()}
    return {"none": first, **more}


def table(data: Data, found: dict[str, np.ndarray]) -> str:
    """Accuracy and log loss on single answers, and what each is more than random, with intervals over debate-sides."""
    votes, counts = data.votes, data.votes.sum(axis=1)
    share = (votes[:, 0] + votes[:, 1] / 2) / counts
    right = np.repeat(data.side, votes[:, 0] + votes[:, 2]), np.repeat(data.side, counts)

    def measured(d: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(answers that take a side,), (all answers,)"""
        first = (1 + np.sign(d)) / 2
        taken = np.stack([first, 1 - first], axis=1).ravel()
        return np.repeat(taken, votes[:, [0, 2]].ravel()), np.repeat(log_losses(d, share), counts)

    means = {
        name: [np.mean(column, axis=0) for column in zip(*map(measured, seeds), strict=True)]
        for name, seeds in found.items()
    }
    lines = [
        "| 150 more pairs | accuracy | log loss | accuracy less random | log loss less random |",
        "|---|---|---|---|---|",
    ]
    for name, values in means.items():
        cells = [f"{value.mean():.4f}" for value in values]
        for value, base, sides in zip(values, means["random"], right, strict=True):
            less = paired_difference(value, base, sides)
            low, high = less["interval"]
            cells.append(f"{less['mean']:+.4f} ({low:+.4f} to {high:+.4f})" if name != "random" else "")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
