"""Is a small local model a judge? SmolLM2-135M-Instruct beside three people on PandaLM's pairs, by our own parts.

    python benchmarks/local_judge.py [--data FOLDER] [--model FOLDER] [--pairs 60]

One pair of responses an instruction (drawn by a fixed seed) from PandaLM's test set (arXiv 2306.05087; Apache-2.0),
shown in both orders under the template `helpful`. Of a judge that goes by the place the verdicts in both orders cancel
out, and nothing is left to agree with people by.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from align.evaluate.config import JudgeKeys
from align.evaluate.evidence import Evidence, Prompt, Said
from align.evaluate.judge_agreement import agreement, judge_facts
from align.evaluate.llm_judge import open_language_judge
from align.evaluate.people import open_people
from align.run.cache import Cache
from preferences.files import sha256_json
from preferences.judgements import Judgement, write_judgements

PREFERENCE = {1: 0.0, 2: 1.0, 0: 0.5}  # of the second response over the first


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/pandalm-testset-v1")
    parser.add_argument("--model", default=None)
    parser.add_argument("--pairs", type=int, default=60)
    options = parser.parse_args()
    sys.path.insert(0, "demo")
    from model import model_folder

    model = options.model or str(model_folder())
    rows = one_each(json.loads((Path(options.data) / "testset-v1.json").read_text(encoding="utf-8")))[: options.pairs]
    turns = [[{"role": "user", "content": (row["instruction"] + "\n\n" + row["input"]).strip()}] for row in rows]
    prompts = [Prompt(sha256_json(one)[:16], one) for one in turns]
    responses = {
        name: [Said(row[key]) for row in rows] for name, key in (("base", "response1"), ("other", "response2"))
    }
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "people.jsonl"
        write_judgements(file, people_of(rows, prompts))
        cache = Cache(Path(folder) / "cache")
        people = open_people("people", str(file), prompts, responses, "people")
        judge = open_language_judge("llm", JudgeKeys(language_model=model), turns, 400, 8, "judge")
        started = time.process_time()
        llm = judge.judge("base", prompts, responses, cache)
        seconds = time.process_time() - started
        judged = {"people": people.judge("base", prompts, responses, cache), "llm": llm}
    show(Evidence("base", prompts, responses, judged), seconds)


def one_each(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One pair for each instruction with its input, in a fixed random order."""
    random.Random(0).shuffle(rows)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in rows:
        found.setdefault((row["instruction"], row["input"]), row)
    return list(found.values())


def people_of(rows: list[dict[str, Any]], prompts: list[Prompt]) -> list[Judgement]:
    return [
        Judgement(
            prompt=prompt.id,
            candidate="other",
            baseline="base",
            preference=PREFERENCE[int(row[f"annotator{number}"])],
            candidate_length=len(row["response2"]),
            baseline_length=len(row["response1"]),
            rater=f"person {number}",
        )
        for row, prompt in zip(rows, prompts, strict=True)
        for number in (1, 2, 3)
    ]


def show(evidence: Evidence, seconds: float) -> None:
    facts = judge_facts(evidence)["llm"]
    position, length = facts["bias"]["position"], facts["bias"]["length"]
    beside = length["beside"]["people"]
    (row,) = agreement(evidence)
    print(
        f"{len(evidence.prompts)} pairs, {facts['questions']} questions, {facts['not_judged']} pairs not judged,"
        f" {facts['same_text']} of the same text; {seconds / max(facts['questions'], 1):.2f} CPU seconds a question\n"
    )
    print("| measure | value | 95% interval | n |\n|---|---|---|---|")
    for name, found in (
        ("verdicts for the response shown first", position["first_share"]),
        ("pairs with another verdict in the other order", position["flips"]),
        ("preference for the longer response", beside["judge"]),
        ("the same, by people", beside["people"]),
        ("the same verdict as people", row["same"]),
    ):
        low, high = found["interval"]
        print(f"| {name} | {found['mean']:.3f} | {low:.3f} to {high:.3f} | {found['n']} |")
    kappa, between = row["kappa"], row["kappa_interval"]
    words = f"{between[0]:.3f} to {between[1]:.3f}" if between else "none: one of the two always says the same"
    print(f"| Cohen's kappa with people | {kappa:.3f} | {words} | {row['n']} |")


if __name__ == "__main__":
    main()
