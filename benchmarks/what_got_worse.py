"""Does "what got worse" cry wolf, what does it find, and how long does it take?

    python benchmarks/what_got_worse.py [--data FOLDER] [--runs 300]

Texts are responses of five 7B models to the 170 instructions of PandaLM's test set (Wang et al. 2023, arXiv
2306.05087; Apache-2.0), two to each of 999 items. No harm: which of the two is the base's and which the other model's
is a coin's choice, and so is the judge's verdict; each prompt has two of ten tags, and a response to another prompt as
its reference. Then some of the other model's responses are spoilt. Everything is computed as `align evaluate` does.
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from align.evaluate.evidence import MAIN, Evidence, Judged, Prompt, Said
from align.evaluate.measures import measures
from align.evaluate.slices import by_tag, challenge_sets, gaps
from align.report.worse import worse
from preferences.stats.intervals import wilson
from preferences.stats.texts import (
    distinct,
    distinct_without_each,
    jackknife,
    ngram_counts,
    self_similarity,
    self_similarity_without_each,
)

Pairs = list[tuple[str, str, str]]  # instruction, one response, the other

HARMS: dict[str, tuple[str, Callable[[str], Said]]] = {
    "the same answer to everything": ("same_answer", lambda text: Said("Thank you for asking. It depends.", True)),
    "a refusal": ("refusals", lambda text: Said("I'm sorry, but I can't help with that.", True)),
    "the answer said three times": ("repetition", lambda text: Said(" ".join([text] * 3), True)),
    "an answer in French": ("other_language", lambda text: Said(FRENCH, True)),
    "no end": ("finished", lambda text: Said(text, False)),
    "nothing": ("empty", lambda text: Said("", True)),
}
FRENCH = "Il faut d'abord bien comprendre la question, et puis chercher une réponse qui soit utile à tout le monde."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/pandalm-testset-v1")
    parser.add_argument("--runs", type=int, default=300)
    args = parser.parse_args()
    rows = json.loads((Path(args.data) / "testset-v1.json").read_text(encoding="utf-8"))
    pairs = [
        (f"{row['instruction']}\n{row['input']}".strip(), str(row["response1"]), str(row["response2"])) for row in rows
    ]
    false_alarms(pairs, args.runs)
    each = list({asked: (asked, *both) for asked, *both in pairs}.values())  # or answers would repeat by themselves
    found([(asked, one, other) for asked, one, other in each], max(20, args.runs // 5))
    coverage(10 * args.runs)
    speed(pairs)


def false_alarms(pairs: Pairs, runs: int) -> None:
    print(f"No harm: evaluations, of {runs}, that list anything, with the 95% interval of their share.\n")
    print("| prompts | worse | | perhaps | |\n|---|---|---|---|---|")
    below: dict[str, dict[int, int]] = {}
    for count in (100, 300):
        hits = {"worse": 0, "perhaps": 0}
        for seed in range(runs):
            metrics = numbers(evidence(pairs, count, seed))
            lists = worse(metrics)
            for name in hits:
                hits[name] += bool(lists[name])
            for name, measure in metrics["models"]["model 1"]["measures"].items():
                p = (measure["difference"] or {}).get("p_value")
                if p is not None:
                    below.setdefault(name, {}).setdefault(count, 0)
                    below[name][count] += p < 0.05
        cells = []
        for name in hits:
            low, high = wilson(hits[name], runs)
            cells += [f"{hits[name] / runs:.2f}", f"{low:.2f} to {high:.2f}"]
        print(f"| {count} | {' | '.join(cells)} |")
    print(f"\nNo harm: how often p is below 0.05, of {runs} evaluations, before correction.\n")
    print("| measure | 100 prompts | 300 prompts |\n|---|---|---|")
    for name, by in below.items():
        print(f"| {name} | {' | '.join(f'{by[count] / runs:.2f}' for count in (100, 300))} |")
    print()


def found(pairs: Pairs, runs: int) -> None:
    count, shares = 160, (0.02, 0.05, 0.1)
    print(f"Harm to a share of {count} responses: how often, of {runs} evaluations, its measure is listed as worse.\n")
    print(f"| instead of its answer | measure | {' | '.join(f'{share:.0%}' for share in shares)} |")
    print("|---|---|" + "---|" * len(shares))
    for name, (measure, spoil) in HARMS.items():
        cells = []
        for share in shares:
            hits = 0
            for seed in range(runs):
                lists = worse(numbers(evidence(pairs, count, seed, spoil=spoil, share=share)))
                hits += any(row["name"] == measure for row in lists["worse"])
            cells.append(f"{hits / runs:.2f}")
        print(f"| {name} | {measure} | {' | '.join(cells)} |")
    print()


def coverage(runs: int) -> None:
    """Two models that are the same source: how often the interval of their difference has 0 in it."""
    chance = np.random.default_rng(0)
    size = 3000
    zipf = 1 / np.arange(1, size + 1)

    def texts() -> list[list[str]]:
        """A hundred texts of 20 to 59 words by Zipf's law, three in ten of them from eight words of the text's own."""
        made = []
        for _ in range(100):
            length, own = int(chance.integers(20, 60)), chance.integers(0, size, 8)
            usual = chance.choice(size, length, p=zipf / zipf.sum())
            said = np.where(chance.random(length) < 0.3, own[chance.integers(0, 8, length)], usual)
            made.append([str(word) for word in said])
        return made

    print(f"Jackknife intervals of differences that are 0, of {runs} pairs of made-up models with 100 texts each.\n")
    print(
        "| measure | in the interval | 95% interval | standard deviation | mean standard error |\n|---|---|---|---|---|"
    )
    for name, n in (("distinct_1", 1), ("distinct_2", 2), ("self_similarity", 2)):
        hits, apart, errors = 0, [], []
        for _ in range(runs):
            counts = [ngram_counts(texts(), n) for _ in range(2)]
            if name == "self_similarity":
                values = [(self_similarity(rows), self_similarity_without_each(rows)) for rows in counts]
            else:
                least = int(min(rows.sum() - rows.sum(axis=1).max() for rows in counts))
                values = [(distinct(rows, least), distinct_without_each(rows, least)) for rows in counts]
            (a, without_a), (b, without_b) = values
            interval_of = jackknife(a - b, without_a - without_b)
            hits += interval_of["interval"][0] <= 0 <= interval_of["interval"][1]
            apart.append(a - b)
            errors.append(interval_of["standard_error"])
        low, high = wilson(hits, runs)
        cells = f"{hits / runs:.3f} | {low:.3f} to {high:.3f} | {np.std(apart):.4f} | {np.mean(errors):.4f}"
        print(f"| {name} | {cells} |")
    print()


def speed(pairs: Pairs) -> None:
    said = evidence(pairs, 2000, 0, models=4, judges=3)
    began, cpu = time.monotonic(), time.process_time()
    numbers(said)
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    length = sum(len(one.text) for rows in said.responses.values() for one in rows) / 10_000
    print(f"Five models, 2,000 prompts with references, three judges, ten tags, responses of {length:.0f} characters:")
    print(f"{cpu:.1f} CPU seconds ({seconds:.1f} s).")


def evidence(
    pairs: Pairs,
    count: int,
    seed: int,
    *,
    models: int = 1,
    judges: int = 1,
    spoil: Callable[[str], Said] | None = None,
    share: float = 0.0,
) -> Evidence:
    """Responses of a base and of other models, to prompts drawn with the seed."""
    chance = random.Random(seed)
    drawn = chance.sample(pairs, count) if count <= len(pairs) else chance.choices(pairs, k=count)
    names = ["base", *(f"model {number}" for number in range(1, models + 1))]
    said: dict[str, list[Said]] = {name: [] for name in names}
    prompts = []
    for number, (asked, *both) in enumerate(drawn):
        chance.shuffle(both)
        tags = chance.sample([f"tag {tag}" for tag in range(10)], 2)
        turns = [{"role": "user", "content": asked}]
        prompts.append(Prompt(str(number), turns, MAIN, tags, reference=None if spoil else chance.choice(drawn)[1]))
        for place, name in enumerate(names):
            text = both[place % 2]
            said[name].append(spoil(text) if spoil and place and chance.random() < share else Said(text, True))
    judged = {}
    for judge in range(judges):
        preferences = {name: [chance.choice([0.0, 0.5, 1.0]) for _ in drawn] for name in names}
        judged[f"judge {judge}"] = Judged(preferences, None, (), {"kind": "function"})
    return Evidence("base", prompts, said, judged)


def numbers(said: Evidence) -> dict[str, Any]:
    """What metrics.json says of it."""
    models: dict[str, Any] = {name: {"measures": by} for name, by in measures(said).items()}
    for name, slices in by_tag(said).items():
        models[name]["tags"] = slices
    sets, fairness = challenge_sets(said), gaps(said)
    return {"base": "base", "verdict_by": "judge 0", "models": models, "challenge_sets": sets, "fairness": fairness}


if __name__ == "__main__":
    main()
