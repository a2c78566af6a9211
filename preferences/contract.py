"""The file contract between annotate and align: import lines, preferences folders; read, write, validate, hash.

An *import line* is what `annotate import` reads and `align sample --to-annotate` writes.
A *preferences folder* is what `annotate export` writes and `align` reads; docs/contract.md shows both.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, Field, model_validator

from preferences.card import SPLITS, dataset_card
from preferences.errors import BadInput
from preferences.files import read_json, read_jsonl, sha256_file, sha256_json, whole_folder, write_jsonl, write_text
from preferences.shapes import Edit, Id, Message, Prompt, Rank, Response, Span, Strict, Time, validate

FORMAT = 1


class Answer(Strict):
    """What one rater said of an item. `ranks` are 1 = best, equal = tie, in the order of the responses.

    `strength`, for a pair, is from -3 (the first is much better) over 0 (a tie) to 3 (the second is much better);
    for more responses it is from 0 to 3, the best over the second.
    """

    rater: Id
    ranks: list[Rank]
    strength: Annotated[int, Field(ge=-3, le=3)] | None = None
    ratings: dict[str, list[float]] | None = None
    flags: list[str] | None = None
    spans: list[Span] | None = None
    rationale: str | None = None
    edited: Edit | None = None
    shown: list[int] | None = None
    seconds: Annotated[float, Field(ge=0)] | None = None
    submitted_at: Time | None = None


class Item(Strict):
    """One line of an import: a prompt with two or more responses, and the answers given elsewhere.

    `overlap` is how many raters answer this item; the project says it where the item does not. `explanation` says
    why the ranks in `gold` are right, to raters in practice.
    """

    id: Id
    prompt: Prompt
    responses: list[Response]
    group: Id | None = None
    tags: list[str] = Field(default=[])
    gold: list[Rank] | None = None
    explanation: Annotated[str, Field(min_length=1)] | None = None
    priority: float = 0.0
    overlap: Annotated[int, Field(ge=1, le=1000)] | None = None
    answers: list[Answer] = Field(default=[])

    @model_validator(mode="after")
    def _fits_together(self) -> "Item":
        count = len(self.responses)
        if count < 2:
            raise ValueError(f"responses: {count} given, and at least two are needed to rank")
        if self.gold is not None and len(self.gold) != count:
            raise ValueError(f"gold: {len(self.gold)} ranks for {count} responses; give one rank a response")
        if self.explanation is not None and self.gold is None:
            raise ValueError("explanation: it explains gold ranks, and there are none; give `gold`, or leave it out")
        seen: set[str] = set()
        for number, answer in enumerate(self.answers):
            try:
                check_answer(answer, count)
            except ValueError as error:
                raise ValueError(f"answers[{number}] (rater {answer.rater}): {error}") from None
            if answer.rater in seen:
                raise ValueError(f"answers[{number}]: rater {answer.rater} answers twice; keep one of the answers")
            seen.add(answer.rater)
        return self

    def content_hash(self) -> str:
        """What decides whether the same id has come back with the same content."""
        content = self.model_dump(mode="json")
        if self.overlap is None:
            del content["overlap"]  # older databases hold hashes from before there was such a key
        if self.explanation is None:
            del content["explanation"]
        for answer in content["answers"]:
            if answer["spans"] is None:
                del answer["spans"]
        return sha256_json(content)


def check_answer(answer: Answer, count: int) -> None:
    """Check one answer against the number of responses that it ranks. Raises ValueError with one sentence.

    The one place for this rule: import and the annotation page both call it.
    """
    ranks, strength = answer.ranks, answer.strength
    if len(ranks) != count:
        raise ValueError(f"ranks: {len(ranks)} ranks for {count} responses; give one rank a response")
    if min(ranks) != 1:
        raise ValueError("ranks: the best response must have rank 1")
    if (
        strength is not None
        and count == 2
        and (strength > 0) - (strength < 0) != (ranks[0] > ranks[1]) - (ranks[0] < ranks[1])
    ):
        raise ValueError(f"strength {strength} does not fit ranks {ranks}: below 0 the first is better, 0 is a tie")
    if strength is not None and count > 2 and (strength < 0 or (strength > 0) != (ranks.count(1) == 1)):
        raise ValueError(f"strength {strength} does not fit ranks {ranks}: it is 0 to 3, best over second, 0 if tied")
    if answer.shown is not None and sorted(answer.shown) != list(range(count)):
        raise ValueError(f"shown: {answer.shown} is not an order of the response numbers 0 to {count - 1}")
    if answer.edited is not None and answer.edited.response >= count:
        raise ValueError(f"edited: there is no response number {answer.edited.response}; they count from 0")
    for name, values in (answer.ratings or {}).items():
        if len(values) != count:
            raise ValueError(f"ratings: {len(values)} values of {name!r} for {count} responses")
    for number, span in enumerate(answer.spans or []):
        if span.response >= count:
            raise ValueError(f"spans[{number}]: there is no response number {span.response}; they count from 0")
        if span.end - span.start != len(span.text):
            raise ValueError(f"spans[{number}]: from {span.start} to {span.end} are not {len(span.text)} characters")


def read_items(path: str | Path) -> list[Item]:
    """Read and check an import file. Raises BadInput with file, line, key; an id may come back only unchanged."""
    items: list[Item] = []
    first: dict[str, tuple[int, str]] = {}
    for line, row in read_jsonl(path):
        item = validate(Item, row, f"{path}, line {line}")
        content = item.content_hash()
        if item.id in first:
            if first[item.id][1] != content:
                raise BadInput(
                    f"{path}, line {line}: id {item.id!r} stands in line {first[item.id][0]} with other content;"
                    " give it another id"
                )
            continue
        first[item.id] = (line, content)
        items.append(item)
    if not items:
        raise BadInput(f"{path}: no items in it; write one JSON object a line")
    return items


# --- preferences folders ----------------------------------------------------------------------------------------


class Models(Strict):
    """Which model wrote which response of a pair."""

    chosen: str | None
    rejected: str | None


class Pair(Strict):
    """A preference. TRL reads the first three columns; the rest ride along.

    `source` is "edited" where `chosen` is what one rater made of `rejected`. Folders from before there were such pairs
    do not say it.
    """

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    preference: Annotated[float, Field(ge=0.5, le=1)]
    strength: Annotated[float, Field(ge=0, le=3)] | None
    weight: Annotated[float, Field(ge=0)]
    ranking: str
    group: str
    tags: list[str]
    raters: list[str]
    models: Models | None
    source: Literal["ranked", "edited"] = "ranked"


class Tie(Pair):
    """A pair without a winner: preference is exactly 0.5, and content hashes decide which side stands first."""

    split: Literal["train", "validation", "test"]


class ExportedAnswer(Strict):
    """One rater's answer under a pseudonym, ranks and strength in the order of the responses."""

    rater: str
    ranks: list[int]
    strength: int | None
    ratings: dict[str, list[float]] | None
    flags: list[str]
    spans: list[Span] = Field(default=[])
    edited: Edit | None
    shown: list[int] | None
    seconds: float | None
    guideline: int | None


class Ranking(Strict):
    """A whole ranking: the consensus `ranks` (1 = best, equal = tie) and every answer behind it.

    `decided`: the ranks are what a reviewer decided, not what the answers say together. Older folders have neither
    that nor `project`.
    """

    ranking: str
    project: str | None = None
    split: Literal["train", "validation", "test"]
    group: str
    prompt: list[Message]
    responses: list[list[Message]]
    models: list[str | None] | None
    ranks: list[int]
    decided: bool = False
    weight: float
    tags: list[str]
    answers: list[ExportedAnswer]


class Demonstration(Strict):
    """A best-liked or edited response, to imitate."""

    prompt: list[Message]
    completion: list[Message]
    split: Literal["train", "validation", "test"]
    group: str
    ranking: str
    source: Literal["best", "edited"]


class PreferencesFolder(NamedTuple):
    """The rows of a preferences folder. `manifest` holds the project's facts; writing adds counts and hashes."""

    pairs: dict[str, list[Pair]]  # split -> pairs with a winner
    ties: list[Tie]
    rankings: list[Ranking]
    demonstrations: list[Demonstration]
    manifest: dict[str, Any]

    def files(self) -> dict[str, Sequence[BaseModel]]:
        """The rows of each file, by its name without `.jsonl`."""
        splits = {split: self.pairs.get(split, []) for split in SPLITS}
        return {**splits, "ties": self.ties, "rankings": self.rankings, "sft": self.demonstrations}

    def counts(self) -> dict[str, int]:
        """How many rows each file has, as the manifest says it."""
        return {name: len(rows) for name, rows in self.files().items()}


_FILES: dict[str, type[BaseModel]] = {
    **{f"{split}.jsonl": Pair for split in SPLITS},
    "ties.jsonl": Tie,
    "rankings.jsonl": Ranking,
    "sft.jsonl": Demonstration,
}


def write_preferences(path: str | Path, folder: PreferencesFolder) -> dict[str, Any]:
    """Write a preferences folder whole or not at all (an existing one is replaced), and return its manifest.

    Equal rows make equal bytes: nothing of the time or the machine is written.
    """
    with whole_folder(path) as temporary:
        hashes = {}
        for name, rows in folder.files().items():
            file = temporary / f"{name}.jsonl"
            write_jsonl(file, [row.model_dump(mode="json") for row in rows])
            hashes[file.name] = sha256_file(file)
        manifest = {**folder.manifest, "format": FORMAT, "counts": folder.counts(), "sha256": hashes}
        write_text(temporary / "manifest.json", _pretty(manifest))
        write_text(temporary / "README.md", dataset_card(manifest))
    return manifest


def is_preferences_folder(path: str | Path) -> bool:
    """Whether `path` is a folder that says it is one of ours."""
    return (
        Path(path).is_dir() and (Path(path) / "manifest.json").is_file() and (Path(path) / "rankings.jsonl").is_file()
    )


def check_preferences(path: str | Path) -> dict[str, Any]:
    """Return the manifest of a preferences folder after checking every file's hash. Raises BadInput."""
    path = Path(path)
    if not path.is_dir():
        raise BadInput(f"{path}: no such folder; `annotate export PROJECT {path}` writes one")
    manifest = read_json(path / "manifest.json")
    hashes = manifest.get("sha256")
    if manifest.get("format") != FORMAT or not isinstance(hashes, dict):
        raise BadInput(f"{path / 'manifest.json'}: not a manifest of format {FORMAT}; export the project again")
    for name in _FILES:
        if not (path / name).is_file():
            raise BadInput(f"{path / name}: missing, though every preferences folder has it; export the project again")
        if sha256_file(path / name) != hashes.get(name):
            raise BadInput(
                f"{path / name}: its content does not match the hash in manifest.json, so it was changed or damaged"
                " after the export; export the project again"
            )
    return manifest


def read_rows(path: str | Path, name: str) -> list[Any]:
    """Read one file of a preferences folder, such as `train.jsonl`, as its records. Raises BadInput with the line."""
    file = Path(path) / name
    return [validate(_FILES[name], row, f"{file}, line {line}") for line, row in read_jsonl(file)]


def _pretty(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True, allow_nan=False) + "\n"
