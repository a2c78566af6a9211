"""Files on disk: read JSON lines with line numbers in the errors, write whole or not at all, hash."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from preferences.errors import BadInput


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) of a UTF-8 JSON-lines file; blank lines are skipped.

    Raises BadInput for a missing file, bytes that are not UTF-8, bad JSON, or a line that is not an object.
    """
    try:
        stream = open(path, "rb")  # noqa: SIM115, closed below; a failure to open has its own message
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    with stream:
        try:
            for number, raw in enumerate(stream, start=1):
                row = parse_json(raw, f"{path}, line {number}", "write one JSON object a line")
                if row is None:
                    continue
                if not isinstance(row, dict):
                    raise BadInput(f"{path}, line {number}: a {type(row).__name__}, not a JSON object like {{...}}")
                yield number, row
        except IsADirectoryError:
            raise BadInput(f"cannot read {path}: it is a folder, and a JSON-lines file is wanted") from None


def parse_json(raw: bytes, where: str, mend: str, *, finite: bool = False) -> Any:
    """The value that UTF-8 JSON says; None where it is blank. Raises BadInput that opens with `where`.

    Half a character (a lone surrogate) is refused, and so are, if all numbers are to be `finite`, NaN and infinity.
    """
    try:
        text = raw.decode("utf-8-sig").strip()
        if not text:
            return None
        value = _FINITE.decode(text) if finite else json.loads(text)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadInput(f"{where}: half a character (a lone surrogate like \\ud83d); write it whole") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{where}: not UTF-8 ({error.reason}); save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:  # ValueError: also a number of 5000 digits
        raise BadInput(f"{where}: not JSON ({error}); {mend}") from None
    if value is None:
        raise BadInput(f"{where}: null, not a JSON object like {{...}}")
    return value


def _finite(number: str) -> float:
    value = float(number)
    if value - value != 0:
        raise ValueError(f"{number[:40]} is no number that can be stored")
    return value


_FINITE = json.JSONDecoder(parse_float=_finite, parse_constant=_finite)


def read_json(path: str | Path) -> dict[str, Any]:
    """Read one JSON object from a file. Raises BadInput when it is missing or is something else."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON ({error})") from None
    if not isinstance(value, dict):
        raise BadInput(f"{path}: a {type(value).__name__}, not a JSON object like {{...}}")
    return value


def dump_json(value: Any) -> str:
    """One line of JSON with sorted keys, so that equal values are equal bytes. NaN and infinity are refused."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)


def write_text(path: str | Path, text: str) -> None:
    """Write a file whole or not at all: to a neighbour first, flushed to the disk, then renamed over `path`."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, data: bytes) -> None:
    """The same for bytes."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_jsonl(path: str | Path, rows: Iterable[Any]) -> None:
    """Write rows as JSON lines, whole or not at all."""
    write_text(path, "".join(dump_json(row) + "\n" for row in rows))


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """Give an empty neighbour of `path` to fill; it takes `path`'s name (and place) only if the block ends well."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        temporary.chmod(0o755)
        if path.exists():
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            try:
                os.replace(path, old / "old")
                os.replace(temporary, path)
            except BaseException:
                if (old / "old").exists():
                    os.replace(old / "old", path)
                old.rmdir()
                raise
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_json(value: Any) -> str:
    """Hex SHA-256 of a JSON value, independent of key order."""
    return hashlib.sha256(dump_json(value).encode()).hexdigest()
