"""Is our length-controlled win rate that of AlpacaEval 2? Their code and their judgements beside ours.

    pip install scikit-learn pandas patsy
    python benchmarks/alpaca_eval.py CLONE

CLONE is a copy of https://github.com/tatsu-lab/alpaca_eval (Apache-2.0), whose results/ holds the verdicts of GPT-4
Turbo on 805 prompts of each model against GPT-4. Of each model there are

* ours: `preferences.stats.length_controlled` (intercept and length, L2 penalty by five-fold cross-validation);
* theirs, L2 and L1: the functions of their glm_winrate.py on the same rows, "length_controlled_minimal" (the same two
  terms), with the penalty of their paper, L2, and with that of their code, L1;
* with difficulty: ours, where the difficulty of a prompt is the log-odds of its mean preference over all models here;
* published: the number on their leaderboard, whose model has the difficulty of each prompt as well, learnt from all
  models of the leaderboard, and is drawn to two gamed baselines.
"""

import argparse
import csv
import json
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from preferences.stats.length_controlled import length_controlled

JUDGE = "weighted_alpaca_eval_gpt4_turbo"
LEADERBOARD = f"src/alpaca_eval/leaderboards/data_AlpacaEval_2/{JUDGE}_leaderboard.csv"
FORMULA = "np.tanh(std_delta_len) + not_gamed_baseline.astype(float) - 1"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", metavar="CLONE")
    clone = Path(parser.parse_args().clone)
    theirs = their_functions(clone / "src/alpaca_eval/metrics/glm_winrate.py")
    with open(clone / LEADERBOARD, encoding="utf-8", newline="") as stream:
        published = {row[""]: row for row in csv.DictReader(stream)}
    models = {}
    for file in sorted(clone.glob(f"results/*/{JUDGE}/annotations.json")):
        said = read(file)
        if file.parts[-3] in published and len(said) >= 800 and any(length for _, length in said.values()):
            models[file.parts[-3]] = said  # all but GPT-4 against itself
    of_prompt: dict[str, list[float]] = {}
    for said in models.values():
        for prompt, (preference, _) in said.items():
            of_prompt.setdefault(prompt, []).append(preference)
    means = {prompt: (sum(values) + 0.5) / (len(values) + 1) for prompt, values in of_prompt.items()}
    rows = []
    for name, said in models.items():
        y, difference = np.array(list(said.values())).T
        hard = [np.log(means[prompt] / (1 - means[prompt])) for prompt in said]
        ours, fuller = length_controlled(y, difference), length_controlled(y, difference, hard)
        assert ours is not None and fuller is not None
        error = np.nan if ours[1] is None else ours[1]
        rates = [
            y.mean(),
            ours[0],
            error,
            fuller[0],
            *(their_rate(theirs, y, difference, penalty) for penalty in ("l2", "l1")),
        ]
        known = [float(published[name][key]) for key in ("win_rate", "length_controlled_winrate")]
        rows.append([*(100 * rate for rate in rates), *known])
        print(name, *(f"{value:.3f}" for value in rows[-1]), sep="\t", file=sys.stderr)
    print(summary(np.array(rows)))


def read(file: Path) -> dict[str, tuple[float, float]]:
    """{prompt: (preference for the model, from 0 to 1; length, the model's less GPT-4's)} where there is a verdict."""
    return {
        row["instruction"]: ((float(row["preference"]) or 1.5) - 1, float(len(row["output_2"]) - len(row["output_1"])))
        for row in json.loads(file.read_text(encoding="utf-8"))
        if row["preference"] is not None
    }


def their_functions(file: Path) -> Any:
    """Their file as a module, without the rest of their package, which these functions don't use."""
    for name in ("huggingface_hub", "alpaca_eval", "alpaca_eval.metrics", "alpaca_eval.metrics.winrate"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["huggingface_hub"].hf_hub_download = None  # type: ignore[attr-defined]
    for name in ("constants", "types", "utils"):
        setattr(sys.modules["alpaca_eval"], name, types.SimpleNamespace(AnyLoadableDF=object))
    sys.modules["alpaca_eval.metrics.winrate"].get_winrate = None  # type: ignore[attr-defined]
    module = types.ModuleType("alpaca_eval.metrics.glm_winrate")
    module.__package__, module.__file__ = "alpaca_eval.metrics", str(file)
    exec(compile(file.read_text(encoding="utf-8"), str(file), "exec"), module.__dict__)
    return module


def their_rate(theirs: Any, y: Any, difference: Any, penalty: str) -> float:
    """What get_length_controlled_winrate does with these rows under "length_controlled_minimal"."""
    train = pd.DataFrame({"preference": y, "std_delta_len": difference / difference.std(ddof=1)})
    train["not_gamed_baseline"] = True
    test = train[["not_gamed_baseline"]].copy()
    test["std_delta_len"] = 0
    design, even = theirs.make_dmatrix_for_model(train, test, formula=FORMULA)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = theirs.fit_LogisticRegressionCV(design, "preference", is_ytrue_proba=True, n_splits=5, penalty=penalty)
    return float(model.predict_proba(even)[:, 1].mean())


def summary(rows: Any) -> str:
    raw, ours, error, fuller, l2, l1, known, published = rows.T

    def apart(one: Any, other: Any) -> str:
        gap = np.abs(one - other)
        return f"{gap.mean():.2f} | {np.median(gap):.2f} | {gap.max():.2f} | {spearmanr(one, other).statistic:.4f}"

    return "\n".join(
        [
            "",
            f"{len(rows)} models; percentage points",
            "",
            "| what | mean gap | median gap | largest gap | rank correlation |",
            "|---|---|---|---|---|",
            f"| win rate, ours and published | {apart(raw, known)} |",
            f"| length-controlled, ours and their code with L2 | {apart(ours, l2)} |",
            f"| length-controlled, ours and their code with L1 | {apart(ours, l1)} |",
            f"| length-controlled, ours and published | {apart(ours, published)} |",
            f"| length-controlled, ours with difficulty and published | {apart(fuller, published)} |",
            f"| length-controlled, their code with L1 and published | {apart(l1, published)} |",
            f"| win rate, and published length-controlled | {apart(raw, published)} |",
            "",
            f"Our standard error of the length-controlled win rate: {np.nanmean(error):.2f} on average of"
            f" {(~np.isnan(error)).sum()} models; the others are longer, or shorter,"
            " than GPT-4 on more than 95% of prompts.",
        ]
    )


if __name__ == "__main__":
    main()
