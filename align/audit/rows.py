"""What an audit reads: any data that training takes, as plain texts with the place where each row stands."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from align.data.load import check_row, columns_of, load_any, parted
from preferences.errors import BadInput
from preferences.files import read_jsonl

Kind = Literal["pairs", "demonstrations", "prompts"]
SHAPES: dict[Kind, tuple[tuple[str, ...], ...]] = {
    "pairs": (("chosen", "rejected"),),
    "demonstrations": (("prompt", "completion"), ("messages",), ("text",)),
    "prompts": (("prompt",),),
}


class Row(NamedTuple):
    """One row as texts. `chosen` is the response that is preferred, also where a row's `preference` is below a half, or
    what a demonstration shows; rows of prompts have neither of the two responses.
    """

    line: int  # of the file, or of the split, from 1
    prompt: str
    asked: str  # the prompt without its system turns, which many rows share
    chosen: str | None
    rejected: str | None
    preference: float  # at least 0.5: a tie, of which nothing is asked that needs a winner
    group: str | None
    tags: tuple[str, ...]
    models: tuple[str | None, str | None]  # of chosen and rejected
    synthetic: tuple[bool | None, bool | None]  # of chosen and rejected; None: nobody says
    raw: dict[str, Any]


@dataclass
class Part:
    """The rows of one split, or of one set that is evaluated on."""

    name: str
    place: str  # what stands before a row's number: "train.jsonl, line " or "train, row "
    held_out: bool
    rows: list[Row]
    elsewhere: bool = False  # of other data, where the same name of a group may mean something else

    def at(self, number: int) -> str:
        """Where the row with this index stands, in words."""
        return f"{self.place}{self.rows[number].line}"


@dataclass
class Data:
    """All parts of one data set, and the answers that say where a response was shown."""

    name: str
    kind: Kind
    parts: list[Part]
    shown: list[tuple[str, list[int], list[int]]] = field(default_factory=list)  # (where, ranks, order shown)


def read_data(
    name: str,
    kind: Kind | None = None,
    config: str | None = None,
    train: str = "train",
    splits: Sequence[str] | None = None,
) -> Data:
    """Read a preferences folder, a JSON-lines file, or a data set of the hub. Raises BadInput.

    kind: what is trained on; None: what the data looks like, pairs before demonstrations before prompts. Of several
    splits `train` is what trains, and the others are held out. splits: of data of the hub those that a run reads, which
    may be slices; besides them those are read that a model may be judged by.
    """
    path = Path(name).expanduser()
    if path.is_dir() and (path / "manifest.json").is_file():
        return _from_folder(name, path, kind, train)
    if path.is_file():
        lines = list(read_jsonl(path))
        if not lines:
            raise BadInput(f"{path}: nothing in it; write one JSON object a line")
        names = list(dict.fromkeys(key for _, row in lines for key in row))
        kind, columns = _shape(name, kind, names)
        for line, row in lines:
            check_row(row, columns, f"{path}, line {line}")
        return Data(name, kind, [Part("train", f"{path.name}, line ", False, _rows(lines, kind))])
    parts: list[Part] = []
    loaded = load_any(name, config) if splits is None else {split: load_any(name, config, split) for split in splits}
    for split, rows in loaded.items():
        kind, part = _from_split(name, kind, split, rows)
        parts.append(part)
    if splits is not None:
        for split, rows in load_any(name, config).items():
            # a slice trains on rows of its split, and train_sft beside train_prefs is to be trained on, too
            if split in splits or split in re.sub(r"\[.*?\]", "", train).split("+") or split.startswith("train"):
                continue
            try:
                part = _from_split(name, kind, split, rows)[1]
            except BadInput:  # of another shape: no model of this kind is judged by it
                continue
            parts += [part] if part.rows else []
    return Data(name, kind or "pairs", _train_first(parts, train))


def _from_split(name: str, kind: Kind | None, split: str, rows: Any) -> tuple[Kind, Part]:
    """One split of a data set of the hub, and what kind of rows it has. Raises BadInput."""
    kind, columns = _shape(name, kind, rows.column_names)
    numbered = list(enumerate(rows, start=1))
    for number, row in numbered:
        check_row(row, columns, f"{name}, {split}, row {number}")
    return kind, Part(split, f"{split}, row ", False, _rows(numbered, kind))


def _from_folder(name: str, path: Path, kind: Kind | None, train: str) -> Data:
    """A preferences folder. Its hashes are checked, and with them what the contract promises of every row."""
    from preferences.contract import SPLITS, check_preferences

    check_preferences(path)
    shown: list[tuple[str, list[int], list[int]]] = []
    found: dict[str, dict[str, list[tuple[int, dict[str, Any]]]]] = {}

    def split_up(file: str) -> dict[str, list[tuple[int, dict[str, Any]]]]:
        rows: dict[str, list[tuple[int, dict[str, Any]]]] = {}
        for line, row in read_jsonl(path / file):
            rows.setdefault(row["split"], []).append((line, row))
        return rows

    if kind in (None, "pairs"):
        found = {f"{split}.jsonl": {split: list(read_jsonl(path / f"{split}.jsonl"))} for split in SPLITS}
        found["ties.jsonl"] = split_up("ties.jsonl")
        for line, row in read_jsonl(path / "rankings.jsonl"):
            for answer in row["answers"]:
                if answer["shown"] is not None:
                    shown.append((f"rankings.jsonl, line {line}", answer["ranks"], answer["shown"]))
        if kind is None and not any(rows for splits in found.values() for rows in splits.values()):
            kind = "demonstrations"
    if kind == "demonstrations":
        found = {"sft.jsonl": split_up("sft.jsonl")}
    elif kind == "prompts":
        found = {"rankings.jsonl": split_up("rankings.jsonl")}
    parts = [
        Part(split, f"{file}, line ", False, _rows(rows, kind or "pairs"))
        for file, splits in found.items()
        for split, rows in splits.items()
        if rows
    ]
    return Data(name, kind or "pairs", _train_first(parts, train), shown)


def _train_first(parts: list[Part], train: str) -> list[Part]:
    """The parts with those that train first; the others are held out, unless nothing trains."""
    if not any(part.rows for part in parts):
        raise BadInput("there is nothing in any split of the data; rank items and export again")
    some_train = any(part.name == train for part in parts)
    for part in parts:
        part.held_out = some_train and part.name != train
    return sorted(parts, key=lambda part: part.held_out)


def _shape(name: str, kind: Kind | None, names: list[str]) -> tuple[Kind, tuple[str, ...]]:
    if kind is not None:
        return kind, columns_of(name, names, SHAPES[kind])
    for each, shapes in SHAPES.items():
        for columns in shapes:
            if set(columns) <= set(names):
                return each, columns
    columns_of(name, names, tuple(shape for shapes in SHAPES.values() for shape in shapes))  # raises
    raise AssertionError


def _rows(lines: Iterable[tuple[int, dict[str, Any]]], kind: Kind) -> list[Row]:
    return list(_each(lines, kind))


def _each(lines: Iterable[tuple[int, dict[str, Any]]], kind: Kind) -> Iterator[Row]:
    for line, row in lines:
        prompt, chosen, rejected = _texts(row, kind)
        models = row.get("models")
        models = models if isinstance(models, dict) else {}
        wrote = (_text(models.get("chosen")), _text(models.get("rejected")))
        preference, tags = row.get("preference"), row.get("tags")
        probably = float(preference) if isinstance(preference, int | float) else 1.0
        synthetic = _synthetic(wrote, row.get("source"))
        if kind == "pairs" and probably < 0.5:
            chosen, rejected, wrote, synthetic, probably = rejected, chosen, wrote[::-1], synthetic[::-1], 1 - probably
        yield Row(
            line=line,
            prompt=said(prompt),
            asked=_asked(prompt),
            chosen=chosen,
            rejected=rejected,
            preference=probably,
            group=_text(row.get("group")),
            tags=tuple(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else (),
            models=wrote,
            synthetic=synthetic,
            raw=row,
        )


def _asked(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    return said([turn for turn in prompt if turn["role"] != "system"] or prompt)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _synthetic(models: tuple[str | None, str | None], source: Any) -> tuple[bool | None, bool | None]:
    """Whether a model wrote chosen and rejected: where models are named, they did, unless the name is "human"."""
    one, other = (None if name is None else "human" not in name.lower() for name in models)
    return (False if source == "edited" else one), other


def _texts(row: dict[str, Any], kind: Kind) -> tuple[Any, str | None, str | None]:
    """(prompt as text or turns, chosen, rejected) of a row in any of the shapes."""
    if kind == "pairs":
        prompt, chosen, rejected = parted(row)
        return prompt, said(chosen), said(rejected)
    if kind == "prompts":
        return row["prompt"], None, None
    if row.get("completion") is not None:
        shown = said(row["completion"])
        bad = row.get("label") is False  # of `align kto`: a response to be unlike
        return row.get("prompt") or "", None if bad else shown, shown if bad else None
    if row.get("messages") is not None:
        turns = row["messages"]
        last = len(turns) - 1 if turns and turns[-1]["role"] == "assistant" else len(turns)
        return turns[:last], said(turns[last:]), None
    return "", row["text"], None


def said(value: Any) -> str:
    """A text as it is; of turns the content, with the roles where there are several."""
    if isinstance(value, str):
        return value
    if len(value) == 1:
        return value[0]["content"]
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in value)
