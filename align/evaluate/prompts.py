"""The prompts that an evaluation asks: held-out ones and challenge sets, with what the data says about them."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.data.load import load_prompt_rows
from align.evaluate.evidence import MAIN, Prompt
from preferences.contract import is_preferences_folder, read_rows
from preferences.errors import BadInput
from preferences.files import sha256_json

if TYPE_CHECKING:
    from align.evaluate.config import EvaluateConfig


def load_evaluation_prompts(args: "EvaluateConfig") -> list[Prompt]:
    """The held-out prompts, the first `num_prompts` of them, and behind them those of each challenge set.

    Each prompt stands once in a set. Rows may say `tags`, `group`, and a `reference`, a good response to compare with;
    `completion` that is not labelled bad is taken for one, too. Of a preferences folder it is the demonstration in
    sft.jsonl. Raises BadInput.
    """
    prompts = _prompts(args.dataset_name, args.dataset_split, args.dataset_config, MAIN)[: args.num_prompts]
    for name, source in (args.challenge_sets or {}).items():
        prompts += _prompts(source, args.dataset_split, None, name)
    return prompts


def _prompts(source: str, split: str, config: str | None, name: str) -> list[Prompt]:
    rows = load_prompt_rows(source, split, config)
    folder = Path(source).expanduser()
    shown = _demonstrations(folder, split) if is_preferences_folder(folder) else {}
    found = []
    for number, row in enumerate(rows, start=1):
        where = f"{source}, prompt {number}"
        key = sha256_json(row["prompt"])
        said = _text(row, "reference", where)
        if said is None and row.get("label") is not False:
            said = _text(row, "completion", where)
        group = row.get("group")
        found.append(
            Prompt(
                id=key[:16],
                turns=row["prompt"],
                set=name,
                tags=_tags(row, where),
                group=None if group is None else str(group),
                reference=said or shown.get(key),
            )
        )
    return found


def _demonstrations(folder: Path, split: str) -> dict[str, str]:
    """By prompt: what a rater wrote, or else the response that they liked best."""
    best: dict[str, str] = {}
    edited: dict[str, str] = {}
    for row in read_rows(folder, "sft.jsonl"):
        if row.split == split and row.completion:
            key = sha256_json([turn.model_dump() for turn in row.prompt])
            (edited if row.source == "edited" else best).setdefault(key, row.completion[-1].content)
    return {**best, **edited}


def _text(row: Mapping[str, Any], column: str, where: str) -> str | None:
    """A text, or the last of a list of turns; None where the row has none, or an empty one."""
    value = row.get(column)
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        value = value[-1].get("content")
    if value is None or value == []:
        return None
    if not isinstance(value, str):
        raise BadInput(f"{where}: `{column}` is neither a text nor a list of {{role, content}}; give one of them")
    return value.strip() or None


def _tags(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    value = row.get("tags")
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        raise BadInput(f'{where}: `tags` is no list of texts; write it like ["medical", "de"]')
    return tuple(dict.fromkeys(value))
