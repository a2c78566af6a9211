"""Training data by name: a preferences folder, a JSON-lines file, or a dataset of the hub."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from preferences.errors import BadInput
from preferences.files import read_jsonl, sha256_file, sha256_json

if TYPE_CHECKING:
    from datasets import Dataset

Messages = list[dict[str, str]]


def load_pairs(name: str, split: str, config: str | None = None) -> "Dataset":
    """Pairs: columns `chosen`, `rejected`, and `prompt` unless both start with the prompt. Raises BadInput."""
    return _load(name, split, config, f"{split}.jsonl", ("chosen", "rejected"))


def load_demonstrations(name: str, split: str, config: str | None = None) -> "Dataset":
    """Texts to imitate, as TRL's SFT takes them: `prompt` and `completion`, or `messages`, or `text`."""
    dataset = _load(name, split, config, "sft.jsonl", ())
    if not {"messages", "text", "completion"} & set(dataset.column_names):
        raise BadInput(f"{name}: no column `completion`, `messages` or `text` to learn from")
    return dataset


def load_prompts(name: str, split: str, config: str | None = None) -> list[Messages]:
    """Prompts as lists of turns, each once, in the data's order. Raises BadInput, for an empty prompt too."""
    rows = _load(name, split, config, "rankings.jsonl", ("prompt",))
    prompts: dict[str, Messages] = {}
    for number, prompt in enumerate(rows["prompt"], start=1):
        if isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        if not prompt or not prompt[-1]["content"].strip():
            raise BadInput(f"{name}, prompt {number}: is empty; take it out, or say something in it")
        prompts.setdefault(sha256_json(prompt), prompt)
    return list(prompts.values())


def _load(name: str, split: str, config: str | None, file: str, columns: tuple[str, ...]) -> "Dataset":
    from datasets import Dataset, load_dataset

    from preferences.contract import check_preferences, read_rows

    path = Path(name).expanduser()
    if path.is_dir() and (path / "manifest.json").is_file():
        check_preferences(path)
        if split not in ("train", "validation", "test"):
            raise BadInput(f"{name}: a preferences folder has no split {split!r}, only train, validation and test")
        rows = [row.model_dump() for row in read_rows(path, file)]
        if file in ("sft.jsonl", "rankings.jsonl"):
            rows = [row for row in rows if row["split"] == split]
        if not rows:
            raise BadInput(f"{path / file}: nothing in its {split} split; rank more items, or name another split")
        dataset = Dataset.from_list([{key: row[key] for key in row if key != "answers"} for row in rows])
    elif path.is_file():
        rows = [row for _, row in read_jsonl(path)]
        if not rows:
            raise BadInput(f"{name}: nothing in it; write one JSON object a line")
        dataset = _from_rows(name, rows)
    elif name.startswith((".", "/", "~")) or path.suffix == ".jsonl":
        raise BadInput(f"{name}: no such file or folder")
    else:
        try:
            dataset = load_dataset(name, config, split=split)
        except Exception as error:  # datasets raises its own, huggingface_hub's, pyarrow's and plain ones
            first = str(error).strip().split("\n")[0]
            raise BadInput(f"{name}: neither a local folder nor a dataset that could be loaded ({first})") from None
    missing = [column for column in columns if column not in dataset.column_names]
    if missing:
        raise BadInput(f"{name}: no column `{missing[0]}`; its columns are {', '.join(dataset.column_names)}")
    return dataset


def _from_rows(name: str, rows: list[dict[str, Any]]) -> "Dataset":
    from datasets import Dataset

    try:
        return Dataset.from_list(rows)
    except Exception as error:  # pyarrow's own types; a mixed column is the usual cause
        raise BadInput(f"{name}: its rows do not fit together in one table ({error})") from None


def data_facts(name: str) -> dict[str, Any]:
    """What a run's manifest says about its data: where it was, and the hashes where it is local."""
    path = Path(name).expanduser()
    if (path / "manifest.json").is_file():
        return {"name": name, "sha256": {"manifest.json": sha256_file(path / "manifest.json")}}
    if path.is_file():
        return {"name": name, "sha256": {path.name: sha256_file(path)}}
    return {"name": name, "sha256": {}}
