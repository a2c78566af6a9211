"""The judgements file: what is said about pairs of models' outputs, by people, language models or anyone; read, write.

One line is one verdict on one prompt (docs/contract.md). `by_pair` makes of many lines what win rates are computed of.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator

from preferences.errors import BadInput
from preferences.formats.rows import read_values, save
from preferences.shapes import Id, Strict, validate
from preferences.stats.within import Cell, nested_means

Floats = NDArray[np.float64]
MOST = 2**53  # a number up to here is the same as a float; no text is longer
Length = Annotated[int | float, Field(ge=0, le=MOST)]


class Judgement(Strict):
    """One verdict: `preference` 1 = the candidate's response is better, 0 = the baseline's, 0.5 = a tie.

    `prompt` is an id or the text. Lengths are in Unicode characters. `judge` says which judge, `rater` which person.
    `order` 0: the candidate's response was shown first; 1: the baseline's. `sample` counts the responses (or verdicts)
    where there are several to a prompt. `difficulty` is any number that says how hard the prompt is.
    """

    model_config = ConfigDict(frozen=True)

    prompt: Id
    candidate: Id
    baseline: Id
    preference: Annotated[float, Field(ge=0, le=1)]
    candidate_length: Length | None = None
    baseline_length: Length | None = None
    judge: Id | None = None
    rater: Id | None = None
    rater_groups: list[str] = Field(default=[])
    order: Literal[0, 1] | None = None
    sample: Annotated[int, Field(ge=0, le=MOST)] | None = None
    tags: list[str] = Field(default=[])
    difficulty: float | None = None

    @model_validator(mode="after")
    def _two_models(self) -> "Judgement":
        if self.candidate == self.baseline:
            raise ValueError(f"candidate and baseline are both {self.candidate!r}; a verdict is on two models")
        return self

    def turned(self) -> "Judgement":
        """The same verdict with candidate and baseline in each other's place."""
        return self.model_copy(
            update={
                "candidate": self.baseline,
                "baseline": self.candidate,
                "preference": 1 - self.preference,
                "candidate_length": self.baseline_length,
                "baseline_length": self.candidate_length,
                "order": None if self.order is None else 1 - self.order,
            }
        )


def read_judgements(path: str | Path) -> list[Judgement]:
    """Read and check a judgements file: JSON lines or one array, gzipped or not. Raises BadInput with file and line."""
    rows = []
    for where, row in read_values(path):
        if isinstance(row, dict) and not {"candidate", "baseline"} & row.keys():
            raise BadInput(
                f"{where}: not a judgement, as it names no `candidate` and no `baseline`; "
                "`annotate export PROJECT --judgements FILE` writes such a file, docs/contract.md says what is in it"
            )
        rows.append(validate(Judgement, row, where))
    if not rows:
        raise BadInput(f"{path}: no judgements in it; write one JSON object a line")
    return rows


def write_judgements(path: str | Path, rows: Iterable[Judgement]) -> None:
    """Write a judgements file (.jsonl, or .jsonl.gz), whole or not at all; what is not known is left out."""
    save(path, {"judgements.jsonl": [row.model_dump(exclude_defaults=True) for row in rows]})


class Prompts(NamedTuple):
    """What is said of one candidate against one baseline, a value a prompt (n,), prompts in alphabetical order.

    `candidate_length` and `baseline_length` are None unless known of every prompt, and so is `difficulty`. `cells` are
    (prompt number, rater, mean preference) of each rater on each prompt where all verdicts are by people, else None.
    """

    prompts: list[str]
    preferences: Floats
    candidate_length: Floats | None
    baseline_length: Floats | None
    difficulty: Floats | None
    cells: list[Cell] | None
    tags: list[frozenset[str]]
    judges: list[str]


def by_prompt(rows: Iterable[Judgement], candidate: str, baseline: str) -> Prompts:
    """Means within prompts of the verdicts on one pair: orders first, then samples, then judges (or raters).

    Rows of (candidate, baseline) and of (baseline, candidate) are the same pair turned round; rows of other pairs are
    left out. Verdicts that nothing tells apart are averaged first. The order of rows changes nothing. Raises
    ValueError where no row is left.
    """
    kept = []
    for row in rows:
        if row.candidate == candidate and row.baseline == baseline:
            kept.append(row)
        elif row.candidate == baseline and row.baseline == candidate:
            kept.append(row.turned())
    if not kept:
        raise ValueError(f"no judgement compares {candidate} and {baseline}")
    prompts = sorted({row.prompt for row in kept})
    number = {prompt: place for place, prompt in enumerate(prompts)}
    index = [number[row.prompt] for row in kept]
    who = [(row.judge or "", row.rater or "") for row in kept]
    sample = [-1 if row.sample is None else row.sample for row in kept]
    order = [-1 if row.order is None else row.order for row in kept]

    def means(values: list[Any]) -> tuple[Floats, list[Cell]]:
        return nested_means(values, index, who, sample, order, len(prompts))

    def known(values: list[Any]) -> Floats | None:
        found = means([np.nan if value is None else value for value in values])[0]
        return None if np.isnan(found).any() else found

    preferences, cells = means([row.preference for row in kept])
    tags: list[set[str]] = [set() for _ in prompts]
    for place, row in zip(index, kept, strict=True):
        tags[place].update(row.tags)
    return Prompts(
        prompts,
        preferences,
        known([row.candidate_length for row in kept]),
        known([row.baseline_length for row in kept]),
        known([row.difficulty for row in kept]),
        [Cell(cell.prompt, cell.who[1], cell.value) for cell in cells] if all(rater for _, rater in who) else None,
        [frozenset(one) for one in tags],
        sorted({judge for judge, _ in who if judge}),
    )


def pairs_of(rows: Sequence[Judgement], baseline: str | None = None) -> dict[tuple[str, str], list[Judgement]]:
    """{(candidate, baseline): its rows, all in that direction}, sorted.

    A pair goes in the direction that most of its rows have (of as many either way, the alphabetical one); where
    `baseline` is one of the two, it is the baseline.
    """
    found: dict[tuple[str, str], list[Judgement]] = {}
    for row in rows:
        found.setdefault((row.candidate, row.baseline), []).append(row)
    made: dict[tuple[str, str], list[Judgement]] = {}
    for pair in sorted({tuple(sorted(pair)) for pair in found}):
        one, other = pair
        forth, back = found.get((one, other), []), found.get((other, one), [])
        turn = one == baseline if baseline in pair else len(back) > len(forth)
        if turn:
            made[other, one] = back + [row.turned() for row in forth]
        else:
            made[one, other] = forth + [row.turned() for row in back]
    return dict(sorted(made.items()))
