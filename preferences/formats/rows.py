"""Other tools' files on disk: JSON lines or one JSON array, gzipped or not; written whole or not at all."""

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict

from preferences.card import SPLITS
from preferences.errors import BadInput
from preferences.files import parse_json, whole_folder, write_bytes
from preferences.shapes import validate

LONGEST_LINE = 32 << 20  # bytes
LARGEST_ARRAY = 1 << 30  # bytes, unzipped; an array is read whole
FILES = (".json", ".jsonl", ".ndjson", ".gz")
OTHER_FILES = (".parquet", ".arrow", ".csv", ".tsv", ".txt", ".xlsx", ".zip", ".bz2", ".xz", ".zst")
ROWS = (*(f"{split}.jsonl" for split in SPLITS), "votes.jsonl", "records.json", "tasks.json")
EXPLAIN = ("dataset_info.json", "labeling_config.xml")
OURS = {*ROWS, *EXPLAIN}  # what a writer may have left in a folder, which --overwrite replaces

Lost = Counter[tuple[str, str]]  # (kind, what became of it) -> how many
Files = dict[str, Any]  # name of a file -> its rows (a list), its JSON (a dict) or its text


class Row(BaseModel):
    """A row of another tool: known keys are checked as strictly as the contract's, others are allowed."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


R = TypeVar("R", bound=Row)


def read_rows(
    path: str | Path, model: type[R], lost: Lost, usual: Callable[[dict[str, Any]], dict[str, Any]] = dict
) -> Iterator[tuple[str, R]]:
    """(where, row) of a file, whose rows `usual` may bring into the usual form first.

    Keys that the model does not know are counted. Raises BadInput with the line and key.
    """
    for where, value in read_values(path):
        row = validate(model, usual(value), where)
        for key in row.model_extra or ():
            lost[f"`{_short(key)}`", "rows say it, and an import line has no place for it"] += 1
        yield where, row


def files_to_read(path: str | Path) -> list[tuple[Path, str | None]]:
    """(file, its split) of each file of rows in a folder as a writer leaves it; of a file itself, without a split.

    Raises BadInput for another folder, with a file of it to give instead.
    """
    path = Path(path)
    if not path.is_dir():
        return [(path, None)]
    found = [path / name for name in ROWS if (path / name).is_file()]
    if not found:
        others = sorted(
            one for one in path.iterdir() if one.is_file() and is_file_name(one) and one.name not in EXPLAIN
        )
        raise BadInput(
            f"{path} is a folder with none of {', '.join(ROWS)}; name one file in it"
            + (f", such as {others[0]}" if others else "")
        )
    return [(file, file.stem if file.stem in SPLITS else None) for file in found]


def read_values(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, object) of a file of JSON lines or of one JSON array, gzipped or not. Raises BadInput."""
    try:
        with open(path, "rb") as raw:
            start = raw.read(4)
            raw.seek(0)
            if start == b"PAR1":
                raise BadInput(
                    f"{path}: a Parquet file, which Concord does not read; write it as JSON lines first:"
                    f" python -c \"import pandas; pandas.read_parquet({str(path)!r}).to_json('rows.jsonl',"
                    " orient='records', lines=True)\""
                )
            stream: Any = gzip.GzipFile(fileobj=raw) if start[:2] == b"\x1f\x8b" else raw
            yield from _values(path, stream)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadInput(f"{path}: a damaged gzip file ({error}); fetch it again") from None
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None


def _values(path: str | Path, stream: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    number, begun = 0, False
    while raw := stream.readline(LONGEST_LINE + 1):
        number += 1
        first = raw.removeprefix(b"\xef\xbb\xbf").lstrip()
        if not begun and first[:1] == b"[":
            rest = stream.read(LARGEST_ARRAY + 1 - len(raw))
            if len(raw) + len(rest) > LARGEST_ARRAY:
                raise BadInput(f"{path}: a JSON array of more than {LARGEST_ARRAY >> 20} MB; write JSON lines instead")
            rows = parse_json(raw + rest, str(path), "write one JSON array, or one JSON object a line", finite=True)
            for place, row in enumerate(rows, start=1):
                yield f"{path}, row {place}", _object(row, f"{path}, row {place}")
            return
        if len(raw) > LONGEST_LINE:
            raise BadInput(f"{path}, line {number}: longer than {LONGEST_LINE >> 20} MB; write one JSON object a line")
        where = f"{path}, line {number}"
        row = parse_json(raw, where, "write one JSON object a line, or one JSON array", finite=True)
        begun = begun or bool(first)
        if row is not None:
            yield where, _object(row, where)


def _object(row: Any, where: str) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise BadInput(f"{where}: a {type(row).__name__}, not a JSON object like {{...}}")
    return row


def _short(key: str) -> str:
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in key)
    return shown if len(shown) <= 40 else shown[:39] + "…"


def is_file_name(path: str | Path) -> bool:
    """Whether `path` names a file to write; else it names a folder."""
    return Path(path).suffix in FILES


def check_free(path: str | Path, overwrite: bool) -> None:
    """Raise BadInput unless `path` may be written: not there, an empty folder, or replaced on request."""
    path = Path(path)
    if path.suffix in OTHER_FILES:
        raise BadInput(
            f"{path}: what is written is JSON; name it .jsonl or .json, with or without .gz, or name a folder"
        )
    if path.is_dir() == is_file_name(path) and path.exists():
        raise BadInput(f"{path} is a {'folder' if path.is_dir() else 'file'}; name something else to write to")
    inside = {one.name for one in path.iterdir()} if path.is_dir() else set()
    if not overwrite and (path.is_file() or inside):
        raise BadInput(f"{path} is there already; name something else, or say --overwrite to replace it")
    if others := sorted(inside - OURS):
        raise BadInput(
            f"{path} holds other things than an export ({_short(others[0])}), so --overwrite leaves it alone"
        )


def save(path: str | Path, files: Files) -> None:
    """Write the files into the folder `path`, or the only one as the file `path`. Raises BadInput."""
    path = Path(path)
    try:
        if not is_file_name(path):
            with whole_folder(path) as temporary:
                for name, content in files.items():
                    write_bytes(temporary / name, _bytes(Path(name), content))
            return
        if len(files) > 1:
            raise BadInput(
                f"{path} is one file, and this is several ({', '.join(files)}); name a folder, such as {path.stem}"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, _bytes(path, next(iter(files.values()))))
    except OSError as error:
        if error.strerror is None or error.errno == 28:  # ENOSPC has a sentence of its own
            raise
        raise BadInput(f"cannot write to {path}: {error.strerror}") from None


def _bytes(path: Path, content: Any) -> bytes:
    if path.suffix == ".gz":
        return gzip.compress(_bytes(path.with_suffix(""), content), mtime=0)
    if isinstance(content, str):
        return content.encode()
    if path.suffix == ".json":
        return (json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False) + "\n").encode()
    return "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in content).encode()
