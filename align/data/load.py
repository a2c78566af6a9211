"""Training data by name: a preferences folder, a JSON-lines file, or a dataset of the hub."""

import errno
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from preferences.errors import BadInput
from preferences.files import read_jsonl, sha256_file, sha256_json

if TYPE_CHECKING:
    from datasets import Dataset

T = TypeVar("T")
Messages = list[dict[str, str]]
_LAST_TURN = "\n\nAssistant:"  # of HH-RLHF's dialogues as one text
MOST = sys.float_info.max  # infinity is no number that anything can be learnt from


def load_pairs(name: str, split: str, config: str | None = None, *, ties: bool = False) -> "Dataset":
    """Pairs: columns `chosen`, `rejected`, and `prompt` unless both start with the prompt. Raises BadInput.

    ties: with those of a preferences folder, whose `preference` is 0.5, behind the pairs that have a winner.
    """
    files = (f"{split}.jsonl", "ties.jsonl") if ties else (f"{split}.jsonl",)
    return _load(name, split, config, files, ("chosen", "rejected"))


def load_pairs_or_labels(name: str, split: str, config: str | None = None) -> "Dataset":
    """Pairs, or single responses: columns `prompt` and `completion`; a `label` beside them is not looked at."""
    return _load(name, split, config, (f"{split}.jsonl",), ("prompt", "completion"), ("chosen", "rejected"))


def load_rankings(name: str, split: str) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """The rows of rankings.jsonl with every rater's answer, and the reliability of each rater. Raises BadInput."""
    from preferences.contract import check_preferences, is_preferences_folder

    path = Path(name).expanduser()
    if not is_preferences_folder(path):
        raise BadInput(
            f"{name}: no preferences folder, and only `annotate export` writes whole rankings; name one, or take pairs"
        )
    rows = _rows(path, split, "rankings.jsonl")
    return rows, {rater: float(trust) for rater, trust in check_preferences(path).get("raters", {}).items()}


def load_edits(name: str, split: str) -> list[dict[str, Any]]:
    """The pairs of a preferences folder whose `chosen` is what one rater made of `rejected`; often none."""
    rows = _rows(Path(name).expanduser(), split, f"{split}.jsonl", needed=False)
    return [row for row in rows if row["source"] == "edited"]


def mean_one(weights: Sequence[float], name: str) -> list[float]:
    """The weights of rows, scaled so that their mean is 1: then a loss has the same size whatever unit trust is in.

    Raises BadInput where all are 0.
    """
    most = max(weights, default=0.0)
    if most == 0:
        raise BadInput(f"{name}: every row has weight 0, so nothing would be learnt; give some rows a weight above 0")
    shares = [weight / most for weight in weights]  # whose sum is no more than their number, however large weights are
    mean = sum(shares) / len(shares)
    return [share / mean for share in shares]


def said_of(row: Mapping[str, Any], where: str) -> tuple[float, float, float]:
    """(preference, weight, strength) of a row of pairs; certain, 1 and 0 where it doesn't say. Raises BadInput."""
    found = []
    for column, default, most in (("preference", 1.0, 1.0), ("weight", 1.0, MOST), ("strength", 0.0, MOST)):
        value = row.get(column)
        if value is None:
            value = default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
            between = "from 0 to 1" if column == "preference" else "at least 0"
            raise BadInput(f"{where}: {column} {value!r}: it is a number {between}; mend it, or take the row out")
        found.append(float(value))
    return found[0], found[1], found[2]


def load_demonstrations(name: str, split: str, config: str | None = None) -> "Dataset":
    """Texts to imitate, as TRL's SFT takes them: `prompt` and `completion`, or `messages`, or `text`. Raises BadInput,
    for rows that `align kto` would take for bad ones, too.
    """
    shapes = (("prompt", "completion"), ("messages",), ("text",))
    rows = _load(name, split, config, ("sft.jsonl",), *shapes)
    bad = sum(label is False for label in rows["label"]) if "label" in rows.column_names else 0
    if bad:
        raise BadInput(
            f"{name}: {bad} of {len(rows)} rows are labelled bad (`label`: false), and would be imitated; take them"
            " out, or learn from both by `align kto`"
        )
    return rows


def load_prompts(name: str, split: str, config: str | None = None) -> list[Messages]:
    """Prompts as lists of turns, each once, in the data's order. Raises BadInput, for an empty prompt too."""
    return [row["prompt"] for row in load_prompt_rows(name, split, config)]


def load_prompt_rows(name: str, split: str, config: str | None = None) -> list[dict[str, Any]]:
    """The same with the data's other columns, for reward functions that want them."""
    return _each_prompt_once(_load(name, split, config, ("rankings.jsonl",), ("prompt",)))


def prompt_rows(rows: list[dict[str, Any]], where: str) -> list[dict[str, Any]]:
    """The same for rows in memory. Raises BadInput."""
    if not rows:
        raise BadInput(f"{where}: nothing in it; give rows with a `prompt`")
    columns_of(where, list(rows[0]), (("prompt",),))
    for number, row in enumerate(rows, start=1):
        check_row(row, ("prompt",), f"{where}, row {number}")
    return _each_prompt_once(rows)


def _each_prompt_once(rows: Any) -> list[dict[str, Any]]:
    prompts: dict[str, dict[str, Any]] = {}
    for row in rows:
        turns = as_turns(row["prompt"])
        prompts.setdefault(sha256_json(turns), {**row, "prompt": turns})
    return list(prompts.values())


def as_turns(text: Any, role: str = "user") -> Messages:
    """A text as a list of one turn; a list of turns as it is."""
    return [{"role": role, "content": text}] if isinstance(text, str) else text


def parted(row: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """(prompt, chosen, rejected) of a row of pairs, texts or turns, also where the prompt stands in both responses."""
    chosen, rejected = row["chosen"], row["rejected"]
    if row.get("prompt") is not None:
        return row["prompt"], chosen, rejected
    if isinstance(chosen, str):
        cut = _shared_text(chosen, rejected)
        return chosen[:cut].strip(), chosen[cut:], rejected[cut:]
    cut = _common(chosen[:-1], rejected[:-1])
    return chosen[:cut], chosen[cut:], rejected[cut:]


def _shared_text(one: str, other: str) -> int:
    """Where the responses begin in two texts with the prompt in them: after the last turn that they share."""
    common = _common(one, other)
    turn = one.rfind(_LAST_TURN, 0, common + 1)
    if turn >= 0 and turn + len(_LAST_TURN) <= common:
        return turn + len(_LAST_TURN)
    return one.rfind("\n", 0, common) + 1


def _common(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many first places are the same."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    return low


def _load(name: str, split: str, config: str | None, files: tuple[str, ...], *shapes: tuple[str, ...]) -> "Dataset":
    """The data, checked to have the columns of one of the `shapes` in every row. `files`: of a preferences folder."""
    path = Path(name).expanduser()
    if path.is_dir() and (path / "manifest.json").is_file():
        return _from_folder(path, split, files)
    if path.is_file():
        return _from_file(path, shapes)
    if not path.is_dir() and (name.startswith((".", "/", "~")) or path.suffix == ".jsonl"):
        raise BadInput(f"{name}: no such file or folder")
    return _from_hub(name, split, config, shapes)


def _from_folder(path: Path, split: str, files: tuple[str, ...]) -> "Dataset":
    """A preferences folder, whose rows the contract has checked. The first of the files must have something."""
    rows = _rows(path, split, files[0])
    for file in files[1:]:
        rows += [{key: row[key] for key in rows[0]} for row in _rows(path, split, file, needed=False)]
    return _table(str(path / files[0]), [{key: row[key] for key in row if key != "answers"} for row in rows])


def _rows(path: Path, split: str, file: str, *, needed: bool = True) -> list[dict[str, Any]]:
    """The rows of a split in one file of a preferences folder."""
    from preferences.contract import SPLITS, check_preferences, read_rows

    check_preferences(path)
    if split not in SPLITS:
        raise BadInput(f"{path}: a preferences folder has no split {split!r}, only {', '.join(SPLITS)}")
    rows = [row.model_dump() for row in read_rows(path, file)]
    rows = [row for row in rows if row.get("split", split) == split]
    if needed and not rows:
        raise BadInput(f"{path / file}: nothing in its {split} split; rank more items, or name another split")
    return rows


def _from_file(path: Path, shapes: tuple[tuple[str, ...], ...]) -> "Dataset":
    lines = list(read_jsonl(path))
    if not lines:
        raise BadInput(f"{path}: nothing in it; write one JSON object a line")
    names = list(dict.fromkeys(key for _, row in lines for key in row))
    columns = columns_of(str(path), names, shapes)
    for line, row in lines:
        check_row(row, columns, f"{path}, line {line}")
    # datasets would take the first row's columns for all that there are
    return _table(str(path), [{name: row.get(name) for name in names} for _, row in lines])


def _from_hub(name: str, split: str, config: str | None, shapes: tuple[tuple[str, ...], ...]) -> "Dataset":
    """A dataset of the hub, or a local folder that `load_dataset` takes."""
    dataset = load_any(name, config, split)
    if not len(dataset):
        raise BadInput(f"{name}: nothing in its {split} split; name another split")
    columns = columns_of(name, dataset.column_names, shapes)
    for number, row in enumerate(dataset, start=1):
        check_row(row, columns, f"{name}, row {number}")
    return dataset


class NoSplit(BadInput):
    """A data set of the hub that has other splits than the one that was asked for."""

    def __init__(self, name: str, split: str, has: list[str]) -> None:
        super().__init__(f"{name}: has no split {split!r}, only {', '.join(has)}")
        self.has = has


def check_test_split(train: str, test: str, where: str = "") -> None:
    """Raise BadInput where a run would look at the rows that it trains on."""
    if train == test:
        raise BadInput(f"{where}key `dataset_test_split`: {test!r} is what trains; name a split that is held out")


def looked_at(train: str, test: str, off: str, load: Callable[[str], T]) -> T:
    """What `load` makes of the split that a run looks at. Where the data lacks it, BadInput says what to write: another
    one, or `off`.
    """
    try:
        return load(test)
    except NoSplit as error:
        others = [split for split in error.has if split != train]
        mend = f"name `dataset_test_split: {others[0]}`, or set {off}" if others else f"set {off}"
        raise BadInput(f"{error}; {mend}") from None


def load_any(name: str, config: str | None = None, split: str | None = None) -> Any:
    """What `load_dataset` gives: a split, or without one {split: rows}. Raises BadInput."""
    from datasets import load_dataset

    try:
        return load_dataset(name, config, split=split)
    except Exception as error:  # datasets raises its own, huggingface_hub's, pyarrow's and plain ones
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise
        first = str(error).strip().split("\n")[0]
        if split is not None and (told := re.fullmatch(r"Unknown split \"(.*)\"\. Should be one of \[(.*)\]\.", first)):
            raise NoSplit(name, told[1], re.findall(r"'([^']*)'", told[2])) from None
        kind = "not a folder" if Path(name).is_dir() else "no such path on this machine, and no dataset of the hub"
        raise BadInput(f"{name}: {kind} that could be loaded ({first})") from None


def _table(name: str, rows: list[dict[str, Any]]) -> "Dataset":
    from datasets import Dataset

    try:
        return Dataset.from_list(rows)
    except Exception as error:  # pyarrow's own types; a mixed column is the usual cause
        raise BadInput(f"{name}: its rows do not fit together in one table ({error})") from None


def columns_of(name: str, names: list[str], shapes: tuple[tuple[str, ...], ...]) -> tuple[str, ...]:
    """The first of the shapes whose columns are all there. Raises BadInput when there is none."""
    for columns in shapes:
        if set(columns) <= set(names):
            return columns
    missing = " or ".join(", ".join(f"`{column}`" for column in columns if column not in names) for columns in shapes)
    raise BadInput(f"{name}: no column {missing}; its columns are {', '.join(names)}")


def check_row(row: dict[str, Any], columns: tuple[str, ...], where: str) -> None:
    """Raise BadInput unless each of the columns, and the prompt, is a text or a list of turns; no prompt is empty."""
    texts = [column for column in ("prompt", *columns) if column in columns or row.get(column) is not None]
    for column in dict.fromkeys(texts):
        value = row.get(column)
        if isinstance(value, str):
            empty = not value.strip()
        elif isinstance(value, list) and all(_is_turn(turn) for turn in value):
            empty = not value or not value[-1]["content"].strip()
        else:
            raise BadInput(f"{where}: `{column}` is neither a text nor a list of {{role, content}}; give one of them")
        if empty and column == "prompt":
            raise BadInput(f"{where}: the prompt is empty; take it out, or say something in it")
        if not value and column != "prompt" and isinstance(value, list):
            raise BadInput(f"{where}: `{column}` has no turns; give one, whose content may be empty")
    if len({type(row[column]) for column in texts}) > 1:
        raise BadInput(f"{where}: some of {', '.join(texts)} are texts and some are lists of turns; write all one way")


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)


def data_facts(name: str) -> dict[str, Any]:
    """What a run's manifest says about its data: where it was, and the hashes where it is local."""
    path = Path(name).expanduser()
    if path.is_dir() and not (path / "manifest.json").is_file():
        files = sorted(file for file in path.rglob("*") if file.is_file())
        return {"name": name, "sha256": {str(file.relative_to(path)): sha256_file(file) for file in files}}
    if path.is_dir():
        return {"name": name, "sha256": {"manifest.json": sha256_file(path / "manifest.json")}}
    if path.is_file():
        return {"name": name, "sha256": {path.name: sha256_file(path)}}
    return {"name": name, "sha256": {}}
