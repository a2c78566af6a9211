"""Other tools' files, read as import lines and written from a preferences folder or from import lines.

One module a tool. Each has the same two functions, and its docstring says where the shape is documented:

    read(path, lost) -> Iterator[Item]         # what the file says, as the contract's items with answers
    write(records, name, lost) -> Files        # what the items and their answers say, as the tool's files by name

What has no place on the other side is counted in `lost`, never dropped in silence. Nothing heavy is imported here, so
that a command can list the names at once.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from preferences.contract import Item
    from preferences.formats.records import Record

FORMATS: dict[str, tuple[str, str]] = {  # name: (module, what it is)
    "trl": ("trl", "TRL: prompt, chosen, rejected as turns; reads any of TRL's preference shapes"),
    "trl-text": ("trl", "TRL: prompt, chosen, rejected as texts"),
    "trl-implicit": ("trl", "TRL: chosen and rejected as turns, which begin with the prompt"),
    "trl-implicit-text": ("trl", "TRL: the same as texts"),
    "trl-unpaired": ("trl", "TRL for KTO: prompt, completion as turns, and a label"),
    "trl-unpaired-text": ("trl", "TRL for KTO: the same as texts"),
    "hh-rlhf": ("hh_rlhf", "HH-RLHF: chosen and rejected as \\n\\nHuman: … \\n\\nAssistant: … strings"),
    "ultrafeedback": ("ultrafeedback", "UltraFeedback: completions with annotations by aspect and overall_score"),
    "ultrafeedback-binarized": (
        "ultrafeedback_binarized",
        "UltraFeedback binarized: chosen, rejected and their scores",
    ),
    "helpsteer": ("helpsteer", "HelpSteer 1 and 2: a response a row, rated on attributes"),
    "helpsteer-preference": (
        "helpsteer_preference",
        "HelpSteer 2 and 3: two responses, everyone's preference of -3 to 3",
    ),
    "shp": ("shp", "SHP: two comments on a post with their scores"),
    "llama-factory": ("llama_factory", "LLaMA-Factory: sharegpt preference data with dataset_info.json"),
    "llama-factory-alpaca": ("llama_factory", "LLaMA-Factory: alpaca preference data with dataset_info.json"),
    "llama-factory-kto": ("llama_factory", "LLaMA-Factory for KTO: sharegpt with kto_tag and dataset_info.json"),
    "axolotl": ("axolotl", "axolotl: chat_template.default for DPO; reads its chatml shapes too"),
    "axolotl-chatml": ("axolotl", "axolotl: chatml.prompt_pairs for DPO, as texts"),
    "axolotl-kto": ("axolotl", "axolotl for KTO: user_defined.default, as texts"),
    "openrlhf": ("openrlhf", "OpenRLHF: chosen and rejected as turns, with a margin"),
    "openrlhf-text": ("openrlhf", "OpenRLHF: prompt, chosen, rejected as texts, with a margin"),
    "argilla": ("argilla", "Argilla 2: records with fields, responses of users, metadata"),
    "label-studio": ("label_studio", "Label Studio: tasks with pairwise or ranker annotations"),
    "fastchat": ("fastchat", "FastChat: votes of an arena"),
}


def check_name(name: str | None) -> None:
    """Raise BadInput, with the nearest name, unless there is such a format; None is no format."""
    if name is None or name in FORMATS:
        return
    from difflib import get_close_matches

    from preferences.errors import BadInput

    near = get_close_matches(name, FORMATS, 1, 0.4)
    nearest = f"the nearest known one is {near[0]!r}, of " if near else "known are "
    raise BadInput(f"there is no format {name!r}; {nearest}{', '.join(FORMATS)}")


def read_as(path: str | Path, name: str | None) -> "tuple[list[Item], list[str]]":
    """The items of a file: import lines, or another tool's if `name` says so, and what of that has no place in them."""
    if name is not None:
        return read_format(path, name)
    from preferences.contract import read_items
    from preferences.errors import BadInput

    try:
        return read_items(path), []
    except BadInput as error:
        if not str(error).startswith(f"{path}, line 1:"):
            raise
        raise BadInput(f"{error}; if another tool wrote the file, name its format") from None


def read_format(path: str | Path, name: str) -> "tuple[list[Item], list[str]]":
    """The items of another tool's file, and a sentence about each kind of thing that has no place in them.

    `path` is a file, or a folder as `write_format` leaves it. An id that comes back with the same content is taken
    once. Raises BadInput with file, line and key.
    """
    records, said = _read_records(path, name)
    return [record.item for record in records], said + _splits_lost(records)


def write_format(path: str | Path, name: str, records: "Sequence[Record]", *, overwrite: bool = False) -> list[str]:
    """Write another tool's file or folder, whole or not at all. Returns sentences about what has no place in it.

    `path` is a file (.json or .jsonl, both also .gz) or else a folder. Raises BadInput for one that is in use, and for
    a file where the tool has several, as with several splits: test data would train.
    """
    from importlib import import_module

    from preferences.errors import BadInput
    from preferences.formats.records import sentences
    from preferences.formats.rows import check_free, save

    check_name(name)
    check_free(path, overwrite)
    lost: Counter[tuple[str, str]] = Counter()
    files = import_module(f"preferences.formats.{FORMATS[name][0]}").write(records, name, lost)
    if not any(files.values()):
        raise BadInput(f"{path} was not written: {name} has a place for nothing here{_because(sentences(lost))}")
    save(path, files)
    return sentences(lost)


def convert(source: str, target: str, read_name: str | None, write_name: str | None, *, overwrite: bool) -> list[str]:
    """Write what the file or folder `source` says to `target`. Returns sentences about what had no place.

    Without a name `source` is a preferences folder or import lines, and `target` import lines. Raises BadInput.
    """
    from preferences.contract import is_preferences_folder
    from preferences.errors import BadInput
    from preferences.formats.records import from_items, line_of, read_folder
    from preferences.formats.rows import check_free, is_file_name, save

    check_name(read_name)
    check_name(write_name)
    said: list[str] = []
    if read_name is None and Path(source).is_dir():
        if not is_preferences_folder(source):
            raise BadInput(f"{source} is no preferences folder; if it is another tool's, name its format with --from")
        records = read_folder(source)
    elif read_name is None:
        records = from_items(read_as(source, None)[0])
    else:
        records, said = _read_records(source, read_name)
    if write_name is not None:
        return said + write_format(target, write_name, records, overwrite=overwrite)
    if not is_file_name(target):
        raise BadInput(f"{target}: import lines are one file; name it {target}.jsonl, or say --to and another format")
    check_free(target, overwrite)
    save(target, {"items.jsonl": [line_of(record.item) for record in records]})
    return said + _splits_lost(records)


def _read_records(path: str | Path, name: str) -> "tuple[list[Record], list[str]]":
    """What `read_format` reads, as records that know the split of their file, where they come from a folder of several.

    What stands in several splits stays in the first of them, so that nothing held out is trained on.
    """
    from importlib import import_module

    from preferences.errors import BadInput
    from preferences.formats.records import from_items, sentences
    from preferences.formats.rows import files_to_read

    check_name(name)
    lost: Counter[tuple[str, str]] = Counter()
    items: dict[str, tuple[Item, str | None]] = {}
    for file, split in files_to_read(path):
        for item in import_module(f"preferences.formats.{FORMATS[name][0]}").read(file, lost):
            if item.id not in items:
                items[item.id] = item, split
            elif items[item.id][0].content_hash() == item.content_hash():
                lost["repetitions", "rows say what an earlier row says, and are taken once"] += 1
            else:
                raise BadInput(f"{file}: id {item.id!r} stands there twice with different content; give one another id")
    if not items:
        raise BadInput(f"{path}: nothing in it to rank{_because(sentences(lost))}")
    records = from_items(item for item, _ in items.values())
    splits = [split for _, split in items.values()]
    return [record._replace(split=split) for record, split in zip(records, splits, strict=True)], sentences(lost)


def _splits_lost(records: "Sequence[Record]") -> list[str]:
    """What import lines lose of the splits; a project chooses its own when it is exported."""
    count = sum(record.split not in (None, "train") for record in records)
    return [f"splits: {count} items are held out, for which an import line has no place"] if count else []


def list_of_formats() -> str:
    """The names with a line each, as a paragraph that click leaves as it is."""
    width = max(map(len, FORMATS))
    return "\b\nFormats:\n" + "\n".join(f"  {name:<{width}}  {what}" for name, (_, what) in FORMATS.items())


def _because(said: list[str]) -> str:
    return f" ({'; '.join(said)})" if said else ""
