"""Does a reward model get better when it is told what raters said, rather than who won? UKPConvArg1, unseen topics.

    python benchmarks/what_raters_said.py [--data FOLDER] [--model MODEL] [--states FILE]
    python benchmarks/what_raters_said.py --full [--seeds 5] [--steps 24] [--out FOLDER]

11,957 pairs of arguments from 11 debates, judged by about five of 3,756 raters each (Habernal and Gurevych, ACL 2016,
CC-BY 4.0). (a) is trained as everybody does: the majority of the raters is a winner, ties are dropped, every pair
counts the same. (b) is trained on the consensus of `preferences.stats.consensus`: probability, weight, and ties. (The
data have no strength.) Same base, same pairs of the same debates, same number of steps, same seeds.

The fast size holds the base frozen, takes the state of the last token from it once (what a reward head reads), and
trains linear heads on it with the loss of `align reward`: each of the 11 debates is left out in turn, by five seeds.
The full size trains LoRA by `align reward`, seed s leaving out a third of the debates.

Labels come from the answers to the debates that are trained on, and nothing else. The others judge: by the published
consensus where it has a winner (MACE made it of the same answers), and by every single answer of their raters.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml

from align.evaluate.calibration import best_scale, log_losses, reliability
from align.evaluate.reward_numbers import human_ceiling
from align.train.losses import bradley_terry
from preferences.files import write_jsonl
from preferences.stats.consensus import Said, fit
from preferences.stats.winrate import accuracy, paired_difference

BIN = Path(sys.executable).parent
RANKS = {"a1": [1, 2], "a2": [2, 1], "equal": [1, 1]}
BATCH, RATE, DECAY = 64, 3e-3, 0.1  # pairs a step, AdamW; heads on frozen states


class Data(NamedTuple):
    """n pairs: numbers of their texts (n, 2), counts of answers for first, tie, second (n, 3), published winner."""

    rows: list[dict[str, Any]]
    texts: list[tuple[str, str]]  # (prompt, argument)
    ends: np.ndarray
    votes: np.ndarray
    gold: np.ndarray  # 1: the first, 0: the second, -1: none
    debate: np.ndarray
    side: np.ndarray


class Labels(NamedTuple):
    """What an arm is trained on: rows of pairs, the probability that the first is better, and a weight."""

    pairs: np.ndarray
    preference: np.ndarray
    weight: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/ukpconvarg1", help="the folder with judgements.jsonl.gz")
    parser.add_argument("--model", help="any hub name or folder [default: the demo's SmolLM2-135M-Instruct]")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--states", help="keep the base's states here, or take them from here")
    parser.add_argument("--full", action="store_true", help="LoRA by `align reward`, not heads on a frozen base")
    parser.add_argument("--steps", type=int, default=24, help="optimiser steps of a full run")
    parser.add_argument("--out", help="keep full runs here, and go on with those there [default: a temporary folder]")
    options = parser.parse_args()
    source = Path(options.data) / "judgements.jsonl.gz"
    if not source.is_file():
        sys.exit(f"error: {source} is not there; give the folder of UKPConvArg1 with --data")
    data = read(source)
    model = (
        options.model
        or subprocess.run(
            [sys.executable, "demo/model.py"], check=True, text=True, stdout=subprocess.PIPE
        ).stdout.strip()
    )
    full(data, model, options) if options.full else fast(data, model, options)


def read(source: Path) -> Data:
    with gzip.open(source, "rt", encoding="utf-8") as stream:
        rows = [json.loads(line) for line in stream]
    texts = sorted({(prompt(row), row[side]) for row in rows for side in ("a1", "a2")})
    number = {text: n for n, text in enumerate(texts)}
    choices = [[answer["choice"] for answer in row["annotations"]] for row in rows]
    return Data(
        rows,
        texts,
        np.array([[number[prompt(row), row[side]] for side in ("a1", "a2")] for row in rows]),
        np.array([[given.count(choice) for choice in ("a1", "equal", "a2")] for given in choices]),
        np.array([{"a1": 1, "a2": 0}.get(row["gold"], -1) for row in rows]),
        np.array([row["title"] for row in rows]),
        np.array([row["debate"] for row in rows]),
    )


def prompt(row: dict[str, Any]) -> str:
    return f"{row['title']}\nGive a convincing argument for: {row['stance']}"


# --- what an arm is told ----------------------------------------------------------------------------------------


def arms(data: Data, train: np.ndarray) -> dict[str, Labels]:
    """Labels of each arm for the pairs `train`, from their own answers only; from (a) to (b) one change a line."""
    votes = data.votes[train]
    share = (votes[:, 0] + votes[:, 1] / 2) / votes.sum(axis=1)
    heard = [[Said(a["worker"], RANKS[a["choice"]]) for a in data.rows[n]["annotations"]] for n in train]
    found = fit(heard).items
    model = np.array([item.preference[0, 1] for item in found])
    weight = np.array([item.weight for item in found])
    tied = np.array([item.ranks[0] == item.ranks[1] for item in found])
    ones, every, decided = np.ones(len(train)), np.full(len(train), True), share != 0.5

    def arm(preference: np.ndarray, kept: np.ndarray, weight: np.ndarray = ones) -> Labels:
        return Labels(train[kept], preference[kept], weight[kept])

    return {
        "(a) majority, hard": arm((share > 0.5).astype(float), decided),
        "votes, soft": arm(share, decided),
        "votes, soft, ties": arm(share, every),
        "consensus, hard": arm((model > 0.5).astype(float), ~tied),
        "consensus, soft": arm(model, ~tied),
        "consensus, soft, weight": arm(model, ~tied, weight),
        "(b) consensus, soft, weight, ties": arm(np.where(tied, 0.5, model), every, weight),
    }


FIRST, LAST = "(a) majority, hard", "(b) consensus, soft, weight, ties"


# --- heads on a frozen base -------------------------------------------------------------------------------------


def states_of(texts: list[tuple[str, str]], model: str, keep: str | None) -> np.ndarray:
    """(texts, h): the base's last state of each prompt with its argument, as `align reward` renders and reads it."""
    if keep and Path(keep).is_file():
        return np.load(keep)
    from align.models.load import find_model, load_causal_lm, load_tokenizer
    from align.models.logprobs import last_states
    from align.models.scores import conversation_ids

    source = find_model(model)
    tokenizer, base = load_tokenizer(source), load_causal_lm(source).eval()
    found = []
    with torch.no_grad():
        for number, (question, text) in enumerate(texts):
            ids = conversation_ids(tokenizer, [{"role": "user", "content": question}], text)
            found.append(last_states(base, torch.tensor([ids]))[0, -1].float().numpy())
            if number % 100 == 99:
                print(f"{number + 1} of {len(texts)} texts", file=sys.stderr, flush=True)
    if keep:
        np.save(keep, np.array(found))
    return np.array(found)


def train_heads(states: torch.Tensor, data: Data, told: list[tuple[int, Labels]], steps: int) -> np.ndarray:
    """Scores (texts, heads) by a linear head for each (seed, labels); states (texts, h) are standardised.

    All heads are rows of one matrix and step together, which changes nothing for any of them: the loss is the sum of
    theirs, and AdamW takes each number by itself.
    """
    heads = torch.nn.Linear(states.shape[1], len(told), bias=False)
    rows: dict[str, list[torch.Tensor]] = {"first": [], "second": [], "preference": [], "weight": []}
    for number, (seed, labels) in enumerate(told):
        draw = torch.Generator().manual_seed(seed)
        torch.nn.init.normal_(heads.weight.data[number], std=0.02, generator=draw)
        batches = torch.randint(len(labels.pairs), (steps, BATCH), generator=draw)
        ends = torch.tensor(data.ends[labels.pairs])[batches]
        rows["first"].append(ends[..., 0])
        rows["second"].append(ends[..., 1])
        rows["preference"].append(torch.tensor(labels.preference, dtype=torch.float32)[batches])
        rows["weight"].append(torch.tensor(labels.weight, dtype=torch.float32)[batches])
    first, second, preference, weight = (
        torch.stack(column, dim=-1) for column in rows.values()
    )  # (steps, BATCH, heads)
    optimizer = torch.optim.AdamW(heads.parameters(), lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    for step in range(steps):
        scores = heads(states)
        difference = scores.gather(0, first[step]) - scores.gather(0, second[step])
        losses = weight[step] * bradley_terry(difference, preference[step])
        (losses.sum(0) / weight[step].sum(0)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    with torch.no_grad():
        return heads(states).numpy()


def fast(data: Data, model: str, options: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    started = time.process_time()
    states = states_of(data.texts, model, options.states)
    settings = {  # steps, share of the training pairs
        "All pairs, 1,600 steps": (1600, 1.0),
        "All pairs, 400 steps": (400, 1.0),
        "A tenth of the pairs, 1,600 steps": (1600, 0.1),
        "One pair in fifty, 1,600 steps": (1600, 0.02),
    }
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in settings}
    for debate in np.unique(data.debate):
        train, test = np.flatnonzero(data.debate != debate), np.flatnonzero(data.debate == debate)
        seen = states[np.unique(data.ends[train])]
        scaled = torch.tensor((states - seen.mean(0)) / (seen.std(0) + 1e-6) / states.shape[1] ** 0.5)
        whole = arms(data, train)
        for name, (steps, share) in settings.items():
            told = []
            for seed in range(options.seeds):
                some = np.sort(np.random.default_rng(seed).permutation(train)[: round(share * len(train))])
                told += [(seed, arm, labels) for arm, labels in (whole if share == 1 else arms(data, some)).items()]
            scores = train_heads(scaled, data, [(seed, labels) for seed, _, labels in told], steps)
            for number, (seed, arm, _) in enumerate(told):
                every = found[name].setdefault(arm, np.full((options.seeds, len(data.rows)), np.nan))
                every[seed, test] = scores[data.ends[test, 0], number] - scores[data.ends[test, 1], number]
        print(f"{debate}: {time.process_time() - started:.0f} s", file=sys.stderr, flush=True)
    print(f"\n## The labels\n\n{labels_differ(data)}")
    for name, differences in found.items():
        print(f"\n## {name}\n\n{table(data, np.arange(len(data.rows)), differences)}")
    told_most = next(iter(found.values()))[LAST].mean(axis=0)
    print(f"\n## Beside people\n\n{beside_people(data, told_most)}")
    print(f"\n{(time.process_time() - started) / 60:.0f} minutes of one core.")


# --- LoRA by align reward ---------------------------------------------------------------------------------------


def full(data: Data, model: str, options: argparse.Namespace) -> None:
    from align.evaluate.judges import RewardJudge

    out = Path(options.out or tempfile.mkdtemp(prefix="what-raters-said-"))
    debates = np.unique(data.debate)
    found: dict[str, list[np.ndarray]] = {FIRST: [], LAST: []}
    for seed in range(options.seeds):
        test = np.isin(data.debate, debates[seed % 3 :: 3])
        told = arms(data, np.flatnonzero(~test))
        for arm in found:
            folder = out / f"seed-{seed}-{arm[1]}"
            if not (folder / "run" / "adapter_config.json").is_file():
                folder.mkdir(parents=True, exist_ok=True)
                write_jsonl(folder / "pairs.jsonl", pair_rows(data, told[arm]))
                keys = recipe(options, model, folder, seed)
                (folder / "reward.yaml").write_text(yaml.safe_dump(keys, sort_keys=False))
                subprocess.run([str(BIN / "align"), "reward", str(folder / "reward.yaml"), "--overwrite"], check=True)
            used = np.unique(data.ends[test])
            score = RewardJudge("reward", str(folder / "run"), False, 16).score
            asked = [([{"role": "user", "content": data.texts[n][0]}], data.texts[n][1]) for n in used]
            scores = dict(zip(used.tolist(), score(asked), strict=True))
            difference = np.full(len(data.rows), np.nan)
            difference[test] = [scores[first] - scores[second] for first, second in data.ends[test].tolist()]
            found[arm].append(difference)
        done = len(found[LAST])
        judged = np.flatnonzero(~np.isnan(np.array(found[LAST])).all(axis=0))
        print(f"\n## Full size, {done} seeds\n\n{table(data, judged, found)}", flush=True)


def pair_rows(data: Data, labels: Labels) -> list[dict[str, Any]]:
    rows = []
    for number, preference, weight in zip(*labels, strict=True):
        row, swap = data.rows[number], preference < 0.5
        sides = [[{"role": "assistant", "content": row[side]}] for side in (("a2", "a1") if swap else ("a1", "a2"))]
        facts = {"preference": float(1 - preference if swap else preference), "weight": float(weight)}
        question = [{"role": "user", "content": prompt(row)}]
        rows.append({"prompt": question, "chosen": sides[0], "rejected": sides[1], **facts})
    return rows


def recipe(options: argparse.Namespace, model: str, folder: Path, seed: int) -> dict[str, Any]:
    return {
        "model_name_or_path": model,
        "dataset_name": str(folder / "pairs.jsonl"),
        "output_dir": str(folder / "run"),
        "use_peft": True,
        "lora_r": 16,
        "lora_alpha": 32,
        "learning_rate": 5e-4,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 5,
        "max_steps": options.steps,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 4,
        "max_length": 256,
        "save_strategy": "no",
        "seed": seed,
    }


def labels_differ(data: Data) -> str:
    """How far the consensus is from the votes."""
    told = arms(data, np.arange(len(data.rows)))
    votes, model = told["votes, soft, ties"].preference, told[LAST]
    known = told["consensus, soft"]
    decided = np.intersect1d(known.pairs, told[FIRST].pairs)
    consensus = dict(zip(known.pairs.tolist(), known.preference.tolist(), strict=True))
    same = np.mean([(consensus[n] > 0.5) == (votes[n] > 0.5) for n in decided.tolist()])
    weights = np.quantile(model.weight, [0.05, 0.5, 0.95])
    off = np.abs(model.preference - votes).mean()
    return (
        f"Of {len(votes)} pairs {(votes == 0.5).sum()} are ties by votes and {(model.preference == 0.5).sum()} by the"
        f" consensus. Where neither ties, they have the same winner in {same:.1%}. Their probabilities are"
        f" {off:.3f} apart on average. Weights: {weights[0]:.2f}, {weights[1]:.2f}, {weights[2]:.2f} at 5, 50, 95%."
    )


def beside_people(data: Data, difference: np.ndarray) -> str:
    """(b), the mean over its seeds, against a single rater, on what most of the other raters say."""
    answers = [[RANKS[answer["choice"]] for answer in row["annotations"]] for row in data.rows]
    scores = np.stack([difference, np.zeros_like(difference)], axis=1)
    found = human_ceiling(answers, scores.tolist(), data.side.tolist())
    assert found is not None
    low, high = found["difference"]["interval"]
    return (
        f"Which side do most of the other raters take? One rater is right in {found['rater']['accuracy']:.4f}, (b) in"
        f" {found['model']['accuracy']:.4f}: {found['difference']['mean']:+.4f} ({low:+.4f} to {high:+.4f})."
    )


# --- how good it is ---------------------------------------------------------------------------------------------


def table(data: Data, judged: np.ndarray, found: dict[str, Any]) -> str:
    """One line an arm, the mean over seeds, and each arm's difference to (a), with intervals over debate-sides.

    found: differences of scores (seeds, pairs); where a seed has nan, the others' mean stands for the pair.
    """
    votes, gold, sides = data.votes[judged], data.gold[judged], data.side[judged]
    won = gold >= 0
    counts = votes.sum(axis=1)
    share = (votes[:, 0] + votes[:, 1] / 2) / counts

    def measures(difference: np.ndarray) -> dict[str, np.ndarray]:
        """Each (units,): pairs with a published winner, answers that take a side, all answers; nan where not judged."""
        d = difference[judged]
        first = np.where(np.isnan(d), np.nan, (1 + np.sign(d)) / 2)
        return {
            "gold": np.where(gold == 1, first, 1 - first)[won],
            "gold loss": log_losses(d, gold)[won],
            "answers": np.repeat(np.stack([first, 1 - first], 1).ravel(), votes[:, [0, 2]].ravel()),
            "answers loss": np.repeat(log_losses(d, share), counts),
        }

    of = {"gold": sides[won], "gold loss": sides[won], "answers loss": np.repeat(sides, counts)}
    of["answers"] = np.repeat(sides, votes[:, 0] + votes[:, 2])
    each = {arm: [measures(difference) for difference in seeds] for arm, seeds in found.items()}
    mean = {arm: {key: np.nanmean([one[key] for one in seeds], axis=0) for key in of} for arm, seeds in each.items()}
    lines = [
        "| trained on | accuracy, published winner | accuracy, single answers | log loss, single answers"
        " | … at the best scale | scale | ECE | log loss, published winner | … at the best scale |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for arm, seeds in found.items():
        pooled = np.concatenate([difference[judged] for difference in seeds])
        known = ~np.isnan(pooled)
        d, y, n = pooled[known], np.tile(share, len(seeds))[known], np.tile(counts, len(seeds))[known]
        d, y = np.repeat(d, n), np.repeat(y, n)
        scale = best_scale(d, y) or float("nan")
        certain = np.tile(won, len(seeds))[known].nonzero()[0]
        sure, winner = pooled[known][certain], np.tile(gold, len(seeds))[known][certain]
        sharp = best_scale(sure, winner) or float("nan")
        values = {key: mean[arm][key].mean() for key in of}
        spread = np.std([np.nanmean(one["gold"]) for one in each[arm]], ddof=1) if len(seeds) > 1 else float("nan")
        lines.append(
            f"| {arm} | {values['gold']:.4f} (sd {spread:.4f}) | {values['answers']:.4f} |"
            f" {values['answers loss']:.4f} | {log_losses(scale * d, y).mean():.4f} | {scale:.2f} |"
            f" {reliability(d, y)['ece']:.3f} | {values['gold loss']:.4f} |"
            f" {log_losses(sharp * sure, winner).mean():.4f} |"
        )
    lines.append("\nLess (a), 95% interval over debate-sides:\n")
    lines.append("| trained on | accuracy, published winner | accuracy, single answers | log loss, single answers |")
    lines.append("|---|---|---|---|")
    for arm in list(found)[1:]:
        cells = []
        for key in ("gold", "answers", "answers loss"):
            less = paired_difference(mean[arm][key], mean[FIRST][key], of[key])
            low, high = less["interval"]
            cells.append(f"{less['mean']:+.4f} ({low:+.4f} to {high:+.4f})")
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    length = np.array([len(text) for _, text in data.texts])[data.ends[judged]]
    longer = np.sign(length[:, 0] - length[:, 1])
    rules = accuracy(((1 + np.where(gold == 1, longer, -longer)) / 2)[won], sides[won])
    lines.append(
        f"\n{won.sum()} pairs with a published winner, {counts.sum()} answers, {len(np.unique(sides))} debate-sides;"
        f" “the longer one wins” has {rules['accuracy']:.4f} on the former. A constant ½ has a log loss of 0.6931."
    )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
