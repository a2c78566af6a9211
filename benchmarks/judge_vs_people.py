"""How well do two LLM judges say what people say? PandaLM's 999 pairs, with three people each.

    python benchmarks/judge_vs_people.py [--data FOLDER]

PandaLM's test set (Wang et al. 2023, arXiv 2306.05087; Apache-2.0): pairs of responses of five 7B models to 170
instructions of self-instruct, ties allowed, with the verdicts of PandaLM-7B and of GPT-3.5. Everything is computed by
what `align evaluate` and `align winrate` use. Intervals draw whole instructions, since the pairs of one hang together.
"""

import argparse
import json
import tempfile
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from align.evaluate.judge_agreement import agreement_of
from align.evaluate.winrate import winrates
from preferences.judgements import Judgement, write_judgements
from preferences.stats.winrate import accuracy, paired_difference

SIDES = {"1": 1, "2": -1, "0": 0, "Tie": 0, "garbage": None}  # 1: the first response is better
PEOPLE = ["person 1", "person 2", "person 3"]
JUDGES = ["PandaLM-7B", "GPT-3.5"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/pandalm-testset-v1")
    rows, said = read(Path(parser.parse_args().data))
    prompts = [row["instruction"] + "\n" + row["input"] for row in rows]
    people = np.array([said[name] for name in PEOPLE])
    said["majority of people"] = [majority(column) for column in people.T]
    counted = Counter(said["majority of people"])
    print(f"{len(rows)} pairs of responses to {len(set(prompts))} instructions. The people's majority: first response")
    print(f"{counted[1]}, second {counted[-1]}, tie {counted[0]}, none {counted[None]} (published: 422, 472, 105).\n")
    agreements(said, prompts)
    among_people(people, said, prompts)
    length(rows, said, prompts)
    models(rows, said)


def read(data: Path) -> tuple[list[dict[str, Any]], dict[str, list[int | None]]]:
    """The pairs, and what each person and judge says of them."""
    rows = json.loads((data / "testset-v1.json").read_text(encoding="utf-8"))
    said: dict[str, list[int | None]] = {
        name: [SIDES[str(row[f"annotator{number}"])] for row in rows] for number, name in enumerate(PEOPLE, start=1)
    }
    for name, file, key in (("PandaLM-7B", "pandalm-7b", "pandalm_result"), ("GPT-3.5", "gpt-3.5-turbo", "gpt_result")):
        verdicts = json.loads((data / f"{file}-testset-v1.json").read_text(encoding="utf-8"))
        assert [int(verdict["idx"]) for verdict in verdicts] == [row["idx"] for row in rows]
        said[name] = [SIDES[str(verdict[key])] for verdict in verdicts]
    return rows, said


def majority(answers: Any) -> int | None:
    """What two of three say; None where all three differ."""
    value, times = Counter(answers.tolist()).most_common(1)[0]
    return value if times > 1 else None


def agreements(said: dict[str, list[int | None]], prompts: list[str]) -> None:
    print("| one | other | pairs | the same | 95% interval | Cohen's kappa | 95% interval |")
    print("|---|---|---|---|---|---|---|")
    two = [*((judge, other) for judge in JUDGES for other in ("majority of people", *PEOPLE))]
    for one, other in [*two, tuple(JUDGES), *combinations(PEOPLE, 2)]:
        both = [place for place in range(len(prompts)) if None not in (said[one][place], said[other][place])]
        sides = ([said[name][place] for place in both] for name in (one, other))
        found = agreement_of(*sides, [prompts[place] for place in both])  # type: ignore[arg-type]
        same, kappa = found["same"], found["kappa_interval"]
        print(
            f"| {one} | {other} | {found['n']} | {same['mean']:.3f} | {ends(same['interval'])} | {found['kappa']:.3f} |"
            f" {ends(kappa)} |"
        )
    print()


def among_people(people: Any, said: dict[str, list[int | None]], prompts: list[str]) -> None:
    """A judge in the place of each person, on the same pairs: against what the two others agree on."""
    print("Against the other two where these agree: each person, and a judge on the same pairs.\n")
    print("| left out | pairs | the person | 95% interval | judge | the judge | less the person | 95% interval |")
    print("|---|---|---|---|---|---|---|---|")
    for place, name in enumerate(PEOPLE):
        others = np.delete(people, place, axis=0)
        for judge in JUDGES:
            verdicts = np.array([np.nan if side is None else side for side in said[judge]], dtype=float)
            kept = (others[0] == others[1]) & ~np.isnan(verdicts)
            groups = np.array(prompts)[kept]
            person, machine = (one[kept] == others[0][kept] for one in (people[place], verdicts))
            own, less = accuracy(person, groups), paired_difference(machine, person, groups)
            print(
                f"| {name} | {own['n']} | {own['accuracy']:.3f} | {ends(own['interval'])} | {judge} |"
                f" {machine.mean():.3f} | {less['mean']:+.3f} | {ends(less['interval'])} |"
            )
    print()


def length(rows: list[dict[str, Any]], said: dict[str, list[int | None]], prompts: list[str]) -> None:
    print("How often the longer response is preferred, and the first (a tie counts half):\n")
    print("| who | the longer | 95% interval | the first | 95% interval |\n|---|---|---|---|---|")
    longer = np.array([np.sign(len(str(row["response1"])) - len(str(row["response2"]))) for row in rows])
    for name in [*PEOPLE, "majority of people", *JUDGES]:
        sides = np.array([np.nan if side is None else side for side in said[name]], dtype=float)
        cells = []
        for toward in (longer, np.ones(len(rows))):
            kept = ~np.isnan(sides) & (toward != 0)
            found = accuracy((sides[kept] * toward[kept] + 1) / 2, np.array(prompts)[kept])
            cells += [f"{found['accuracy']:.3f}", ends(found["interval"])]
        print(f"| {name} | {' | '.join(cells)} |")
    print()


def models(rows: list[dict[str, Any]], said: dict[str, list[int | None]]) -> None:
    """Whether a judge would have decided as people do: `align winrate` of their verdicts, pair by pair of models."""
    found = {"people": winrates_of(rows, {name: said[name] for name in PEOPLE}, raters=True)}
    found |= {judge: winrates_of(rows, {judge: said[judge]}, raters=False) for judge in JUDGES}
    print(
        "Win rates of each pair of models, with 95% intervals (over instructions; for people, over people, too), and at"
    )
    print("equal length:\n")
    print(f"| candidate | baseline | n | {' | '.join(f'{name} | equal length' for name in found)} |")
    print(f"|---|---|---|{'---|---|' * len(found)}")
    for number, pair in enumerate(found["people"]["pairs"]):
        cells = []
        for one in found.values():
            fields = one["pairs"][number]
            assert (fields["candidate"], fields["baseline"]) == (pair["candidate"], pair["baseline"])
            cells.append(f"{fields['win_rate']:.2f} ({ends(fields['interval'], 2)})")
            cells.append(f"{fields['length_controlled_win_rate']:.2f}")
        print(f"| {pair['candidate']} | {pair['baseline']} | {pair['n']} | {' | '.join(cells)} |")
    print("\nStrengths (Bradley-Terry, log-odds), with 95% intervals over instructions:\n")
    print(f"| model | {' | '.join(found)} |\n|---|{'---|' * len(found)}")
    for model in found["people"]["many_models"]:
        strengths = [one["many_models"][model] for one in found.values()]
        print(f"| {model} |", *(f"{one['strength']:+.2f} ({ends(one['interval'], 2)}) |" for one in strengths))


def winrates_of(rows: list[dict[str, Any]], said: dict[str, list[int | None]], raters: bool) -> dict[str, Any]:
    """What `align winrate` says of the verdicts."""
    judgements = []
    for place, row in enumerate(rows):
        candidate, baseline = row["cmp_key"].split("_")
        for name, sides in said.items():
            side = sides[place]
            if side is not None:
                judgements.append(
                    Judgement(
                        prompt=row["instruction"] + "\n" + row["input"],
                        candidate=candidate,
                        baseline=baseline,
                        preference=(side + 1) / 2,
                        candidate_length=len(str(row["response1"])),
                        baseline_length=len(str(row["response2"])),
                        **{"rater" if raters else "judge": name},
                    )
                )
    with tempfile.TemporaryDirectory() as folder:
        write_judgements(Path(folder) / "judgements.jsonl", judgements)
        return winrates(str(Path(folder) / "judgements.jsonl"))


def ends(interval: list[float] | None, digits: int = 3) -> str:
    return "" if interval is None else f"{interval[0]:.{digits}f} to {interval[1]:.{digits}f}"


if __name__ == "__main__":
    main()
