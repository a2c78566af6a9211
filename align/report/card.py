"""A model card for each compared model, with the report's verdict and numbers, in the hub's form: YAML, then Markdown.

Texts from outside (names, paths, titles) are hostile here, too: in the YAML they are quoted strings, in the Markdown
every mark is escaped, so that no name becomes a link, an image, a heading or a cell of a table.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from align.report.changes import CHANGES, SLICES, measure_blocks, p_words, sampling_words, worse_words
from align.report.judges import judges_of
from align.report.verdict import Verdict, slice_outcome, the_base, the_model, ties_words, verdict
from align.report.words import UNSEEN, capital, label_of, measured, percent, spread
from preferences.files import write_text

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")  # what the hub takes for a model or a data set
_MARKS = re.compile(r"[\\`*_{}\[\]|<>~$&@]|(?<=www)\.|:(?=//)")


def write_cards(folder: Path, metrics: Mapping[str, Any]) -> list[Path]:
    """Write `model-card-NAME.md` into `folder` for every model but the base, each whole or not at all; their paths."""
    judges = judges_of(metrics)
    paths: dict[Path, str] = {}
    for model in metrics["models"]:
        if model != metrics["base"]:
            path = Path(folder) / f"model-card-{_file_name(model)}.md"
            while path in paths:  # another name may differ from it only in what a file's name can't hold
                path = path.with_name(f"{path.stem}-.md")
            paths[path] = model
            write_text(path, model_card(model, metrics, judges))
    return list(paths)


def _file_name(model: str) -> str:
    """As much of the name as fits a file's name, which has 255 bytes, beside what stands around it."""
    plain_name = re.sub(r"[^\w.+-]+", "-", model).lstrip(".-")[:80]
    return plain_name.encode()[:160].decode("utf-8", "ignore") or "model"


def model_card(model: str, metrics: Mapping[str, Any], judges: Mapping[str, Any]) -> str:
    """The card of one model, all of it from metrics.json."""
    one = verdict(model, metrics, judges)
    ties = ties_words(one.opinions[0].fields) if one.opinions else ""
    notes = [*one.notes, worse_words(metrics, model, measure_blocks(metrics, [model])), ties]
    parts = [
        f"---\n{_front_matter(one, metrics, judges)}---",
        f"# {plain(capital(the_model(model)))}",
        f"> **{plain(one.sentence)}**",
        "\n".join(f"> {plain(note)}\n>" for note in notes if note).rstrip("\n>"),
        "The raters are simulated: programs, not people. Nothing here says what people like."
        if metrics.get("simulated")
        else "",
        _judges_part(one, metrics),
        _slices_part(one, metrics),
        _measures_part(one, metrics),
        _use_part(metrics),
        _lineage_part(model, metrics),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def plain(text: Any) -> str:
    """A text as Markdown that shows it as it is, on one line; it must not open the line. No address becomes a link."""
    return _MARKS.sub(r"\\\g<0>", UNSEEN.sub(" ", str(text)))


def code(text: Any) -> str:
    """The same in the type of a program; a run of backticks can't end it."""
    return f"`{UNSEEN.sub(' ', str(text)).replace('`', 'ˋ').replace('|', '¦')}`"


# --- the parts --------------------------------------------------------------------------------------------------


def _front_matter(one: Verdict, metrics: Mapping[str, Any], judges: Mapping[str, Any]) -> str:
    import yaml

    facts = metrics["models"][metrics["base"]]
    base = facts.get("source") or (metrics.get("provenance") or {}).get(f"model {metrics['base']}")
    data = (metrics.get("provenance") or {}).get("data")
    header: dict[str, Any] = {"tags": ["concord", "preference-alignment"], "metrics": ["win_rate"]}
    if _on_hub(base):
        header["base_model"] = str(base)
    if _on_hub(data):
        header["datasets"] = [str(data)]
    found = [
        {
            "type": "win_rate",
            "name": f"win rate against the base, by {judge.about['words']}",
            "value": judge.fields["win_rate"],
            "args": {"interval": judge.fields.get("interval"), "prompts": judge.fields["n"]},
        }
        for judge in one.opinions
    ]
    if found:
        dataset = {"type": "preference", "name": _clean(data or "held-out prompts")}
        result = {"task": {"type": "text-generation"}, "dataset": dataset, "metrics": found}
        header["model-index"] = [{"name": _clean(one.model), "results": [result]}]
    return str(yaml.safe_dump(_clean(header), sort_keys=False, allow_unicode=True))


def _on_hub(name: Any) -> bool:
    """Whether the hub would know the name: not a folder here, nor anything else that only looks like one."""
    return isinstance(name, str) and bool(HUB_ID.fullmatch(name)) and not Path(name).exists()


def _clean(value: Any) -> Any:
    """Texts without what can't be seen, in whatever they stand."""
    if isinstance(value, dict):
        return {key: _clean(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_clean(part) for part in value]
    return UNSEEN.sub(" ", value) if isinstance(value, str) else value


def _judges_part(one: Verdict, metrics: Mapping[str, Any]) -> str:
    if not one.opinions:
        return ""
    rows = []
    for judge in one.opinions:
        fields, name = judge.fields, judge.about["words"]
        name = plain(name) + (" (it was trained or picked to please it: no evidence)" if judge.trained else "")
        known = fields.get("length_controlled_standard_error") is not None
        equal = fields.get("length_controlled_win_rate") if known else None
        rows.append(
            [
                name,
                percent(fields["win_rate"]),
                spread(fields["interval"]) if fields.get("interval") else "–",
                str(fields["n"]),
                str(fields.get("ties", "–")),
                "–" if equal is None else percent(equal),
            ]
        )
    head = ["Judge", "Win rate", "95% interval", "Prompts", "Ties", "At equal length"]
    return (
        f"## Win rates against {plain(the_base(metrics))}\n\n"
        "The share of held-out prompts on which the judge prefers this model's answer; a tie counts half, 50% is no "
        f"difference. The first judge decides.\n\n{_table(head, rows)}"
    )


def _slices_part(one: Verdict, metrics: Mapping[str, Any]) -> str:
    if not one.opinions:
        return ""
    judge, rows = one.opinions[0].judge, []
    for name, about in (metrics.get("challenge_sets") or {}).items():
        facts = ((about.get("models") or {}).get(one.model) or {}).get("judges") or {}
        rows.append((f"{plain(name)} (challenge set)", facts.get(judge)))
    for tag, facts in (metrics["models"][one.model].get("tags") or {}).items():
        rows.append((plain(tag), facts.get(judge)))
    cells = []
    for name, fields in rows:
        if fields:
            result = slice_outcome(fields)
            words = plain(SLICES[result] + p_words(fields, result))
            cells.append([name, percent(fields["win_rate"]), spread(fields["interval"]), str(fields["n"]), words])
    if not cells:
        return ""
    table = _table(["Prompts", "Win rate", "95% interval", "Number", "In a word"], cells)
    return f"## By kind of prompt\n\nBy {plain(one.opinions[0].about['words'])}.\n\n{table}"


def _measures_part(one: Verdict, metrics: Mapping[str, Any]) -> str:
    facts, base = metrics["models"][one.model], metrics["models"][metrics["base"]]
    rows = []
    for key, words in (("length", "Characters of an answer"), ("kl", "KL to the base, nats per answer")):
        if facts.get(key):
            rows.append([words, _mean(base.get(key)), _mean(facts[key]), "–", "–"])
    for block in measure_blocks(metrics, [one.model]):
        for row in block["rows"]:
            rows.append(
                [
                    plain(capital(row["name"]) + (f": {row['words']}" if row["words"] else "")),
                    _with(row["base"]),
                    _with(row["value"]),
                    _with(row["difference"]),
                    CHANGES[row["change"]],
                ]
            )
    if not rows:
        return ""
    table = _table(["Measure", "Base", "This model", "Change", "In a word"], rows)
    return f"## What else changed\n\nMeans over the held-out prompts, with 95% intervals.\n\n{table}"


def _use_part(metrics: Mapping[str, Any]) -> str:
    settings = (metrics.get("sampling") or {}).get("settings") or {}
    sampled = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in settings.items())
    lines = [
        "The verdict is about prompts like the held-out ones. It says how often an answer is preferred, not by how "
        "much, and nothing of harm that the judges don't see.",
        "“It can't be told” is not “no difference”: a difference too small for so many prompts may be there.",
        f"Sampled with {sampled}." if sampled else "",
        sampling_words(metrics),
    ]
    return "## Limits\n\n" + "\n".join(f"* {plain(line)}" for line in lines if line)


def _lineage_part(model: str, metrics: Mapping[str, Any]) -> str:
    source = metrics["models"][model].get("source")
    rows = [["model", code(source)]] if source else []
    rows += [[plain(label_of(key)), code(value)] for key, value in (metrics.get("provenance") or {}).items()]
    if not rows:
        return ""
    return f"## How it was evaluated\n\n{_table(['What', 'Which'], rows)}\n\nAll numbers are those of `metrics.json`."


def _mean(fields: Mapping[str, Any] | None) -> str:
    if not fields:
        return "–"
    return ("at most " if fields.get("bound") else "") + _with(measured(fields))


def _with(words: tuple[str, str]) -> str:
    """A mean with its interval in brackets."""
    return f"{words[0]} ({words[1]})" if words[1] else words[0]


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)
