"""Are the numbers of agreement those of other programs, and how long do they take?

    python benchmarks/agreement.py [--data FOLDER]

PandaLM's test set (999 pairs of responses, three annotators, ties allowed; Apache-2.0): our coefficients beside those
of the krippendorff package, statsmodels and scipy, and beside the pairwise kappas that are known of it. SQuALITY's
human evaluation (100 questions with three summaries, ranked by about three reviewers; CC-BY 4.0): Kendall's W and
tau-b beside scipy's. Then the processor time of everything at once for 10,000 items with three answers each.
"""

import argparse
import json
import time
from collections import defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import krippendorff
import numpy as np
from scipy.stats import friedmanchisquare, kendalltau
from statsmodels.stats.inter_rater import cohens_kappa, fleiss_kappa

from preferences.stats.agreement import agreement, agreement_in_parts

RANKS = {1: [1, 2], 2: [2, 1], 0: [1, 1]}
NAMES = ["annotator1", "annotator2", "annotator3"]
KNOWN = {
    ("annotator1", "annotator2"): 0.852,
    ("annotator1", "annotator3"): 0.879,
    ("annotator2", "annotator3"): 0.862,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", help="where pandalm-testset-v1 and squality-human-eval lie")
    data = Path(parser.parse_args().data)
    print("| number | ours | 95% interval | theirs | difference | known |\n|---|---|---|---|---|---|")
    pandalm(data / "pandalm-testset-v1" / "testset-v1.json")
    squality(data / "squality-human-eval" / "reviews_flat.jsonl")
    print()
    speed()


def pandalm(file: Path) -> None:
    rows = json.loads(file.read_text(encoding="utf-8"))
    found = agreement_in_parts([[RANKS[row[name]] for name in NAMES] for row in rows], [NAMES] * len(rows))
    for pair in sorted(found["rater_pairs"], key=lambda pair: pair["raters"]):
        one, other = pair["raters"]
        table = np.array([[sum(row[one] == a and row[other] == b for row in rows) for b in RANKS] for a in RANKS])
        theirs = cohens_kappa(table, return_results=False)
        line(f"PandaLM, Cohen's kappa of {one} and {other}", pair, "kappa", theirs, KNOWN[one, other])
    counts = np.array([[[row[name] for name in NAMES].count(value) for value in (2, 0, 1)] for row in rows])
    for level in ("nominal", "ordinal", "interval"):
        theirs = krippendorff.alpha(value_counts=counts, value_domain=[-1, 0, 1], level_of_measurement=level)
        line(f"PandaLM, alpha, {level}", found["agreement"], f"krippendorff_alpha_{level}", theirs)
    line("PandaLM, Fleiss' kappa", found["agreement"], "fleiss_kappa", fleiss_kappa(counts))


def squality(file: Path) -> None:
    reviews = [json.loads(one) for one in file.read_text(encoding="utf-8").splitlines()]
    questions: dict[Any, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for one in reviews:
        question = one["passage_id"], one["question_index"]
        questions[question][one["worker"]][one["system"]] = int(one["overall-rank"])
    items = [
        [[ranks[system] for system in sorted(ranks)] for ranks in people.values() if len(ranks) == 3]
        for people in questions.values()
    ]
    found = agreement(items)
    several = [item for item in items if len(item) >= 2]
    taus = [kendalltau(*two).statistic for item in several for two in combinations(item, 2)]
    line("SQuALITY, Kendall's tau-b", found, "tau_b", float(np.nanmean(taus)))
    concordant = [_w(np.array(item)) for item in several]
    line("SQuALITY, Kendall's W", found, "kendall_w", float(np.nanmean(concordant)))


def _w(ranks: Any) -> float:
    """From scipy's Friedman statistic, which needs three raters; of two without ties W = (tau + 1) / 2 by Spearman."""
    if len(ranks) >= 3:
        return float(friedmanchisquare(*ranks.T).statistic / (len(ranks) * (ranks.shape[1] - 1)))
    rho = np.corrcoef(ranks)[0, 1]
    return float((rho + 1) / 2)


def line(name: str, found: dict[str, Any], key: str, theirs: float, known: float | None = None) -> None:
    low, high = found[f"{key}_interval"]
    cells = [f"{found[key]:.4f}", f"{low:.3f} to {high:.3f}", f"{theirs:.4f}", f"{abs(found[key] - theirs):.0e}"]
    print(f"| {name} | {' | '.join(cells)} | {'' if known is None else f'{known:.3f}'} |")


def speed() -> None:
    dice = np.random.default_rng(0)
    items = dice.choice([[1, 2], [2, 1], [1, 1]], size=(10_000, 3)).tolist()
    raters = [[f"r{number}" for number in dice.choice(40, 3, replace=False)] for _ in items]
    tags = [[f"t{number % 20}"] for number in range(10_000)]
    ratings = {"helpful": dice.integers(1, 6, size=(10_000, 3, 2)).tolist()}
    agreement(items[:10])  # imports
    for name, more in (
        ("in all", {}),
        ("and by 40 raters, 20 tags, ten stretches, one dimension", {"tags": tags, "ratings": ratings}),
    ):
        begun = time.process_time()
        moments = [float(number) for number in range(10_000)] if more else []
        agreement_in_parts(items, raters if more else None, moments=moments, **more)
        print(f"10,000 items × 3 answers, 1,000 resamples, {name}: {time.process_time() - begun:.2f} s")


if __name__ == "__main__":
    main()
