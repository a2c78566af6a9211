"""Files of other tools: hostile ones, folders with splits, what is replaced, real data."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from preferences.contract import Item, PreferencesFolder, write_preferences
from preferences.errors import BadInput
from preferences.formats import FORMATS, convert, list_of_formats, read_format, rows, write_format
from preferences.formats.records import Record, from_folder, from_items, read_folder

ROOT = Path(__file__).parents[2]
HARMLESS = ROOT.parent / "shared/data/hh-rlhf-harmless-base-test/harmless-base-test.jsonl.gz"
ROW = {"prompt": "Sky?", "chosen": "Blue.", "rejected": "Green."}


def item(key: str = "q1", **more: Any) -> Item:
    answers = [
        {"rater": "ann", "ranks": [2, 1], "strength": 2, "rationale": "Why not.", "seconds": 3.0},
        {"rater": "bob", "ranks": [2, 1]},
        {"rater": "cy", "ranks": [1, 1], "ratings": {"clear": [1, 2]}, "submitted_at": "2026-11-21T10:00:00Z"},
    ]
    value = {
        "id": key,
        "prompt": "Sky?",
        "responses": [{"text": "Green.", "model": "a"}, {"text": "Blue.", "model": "b"}],
    }
    return Item.model_validate({**value, "group": "colours", "tags": ["en"], "answers": answers, **more})


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "nothing in it to rank"),
        (b"\n \n", "nothing in it to rank"),
        (b"[]", "nothing in it to rank"),
        (b"\n [\n]", "nothing in it to rank"),
        (b"hello\n", "line 1: not JSON"),
        (b"3\n", "line 1: a int, not a JSON object"),
        (b"[1]", "row 1: a int, not a JSON object"),
        (b"null\n", "line 1: null, not a JSON object"),
        (b'[{"a": 1}', "not JSON"),
        (b'{"prompt": "a", "chosen": NaN}\n', "line 1: not JSON (NaN is no number that can be stored)"),
        (b'{"prompt": "a", "margin": 1e999}\n', "line 1: not JSON (1e999 is no number"),
        (b'{"prompt": ' + b"9" * 6000 + b"}\n", "line 1: not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a":' * 100_000, "line 1: not JSON"),
        (b'{"prompt": "\xe9"}\n', "line 1: not UTF-8"),
        (b'{"prompt": "\\ud800"}\n', "line 1: half a character"),
        (b"\x1f\x8b\x08nonsense", "a damaged gzip file"),
        (gzip.compress(json.dumps(ROW).encode(), mtime=0)[:-9], "a damaged gzip file"),
        (b"PAR1....", "a Parquet file, which Concord does not read; write it as JSON lines first"),
        (b'{"prompt": 3, "chosen": "a", "rejected": "b"}\n', "line 1: prompt"),
        (b'{"prompt": "a", "chosen": "b"}\n', "line 1: neither `chosen` and `rejected` nor"),
        (b'{"prompt": [], "chosen": "b", "rejected": "c"}\n', "line 1: prompt: has no turns"),
        (
            b'{"prompt": [{"role": "god", "content": ""}], "chosen": "b", "rejected": "c"}\n',
            "line 1: prompt[0]: role 'god'",
        ),
        (b'{"prompt": "a", "chosen": "b", "rejected": []}\n', "line 1: rejected: has no turns"),
        (
            b'{"chosen": "b", "rejected": [{"role": "user", "content": ""}]}\n',
            "one of `chosen` and `rejected` is a text",
        ),
    ],
)
def test_hostile_files_are_refused_in_one_sentence(tmp_path: Path, raw: bytes, says: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(raw)
    with pytest.raises(BadInput) as refusal:
        read_format(tmp_path / "x.jsonl", "trl")
    assert str(refusal.value).startswith(str(tmp_path / "x.jsonl"))
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_line_without_end_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LONGEST_LINE", 1 << 20)
    monkeypatch.setattr(rows, "LARGEST_ARRAY", 2 << 20)
    for file, start, says in (
        ("a.gz", b'{"a": "', "line 1: longer than 1 MB"),
        ("b.gz", b'["', "array of more than 2 MB"),
    ):
        with gzip.open(tmp_path / file, "wb") as stream:
            stream.write(start + b"x" * (8 << 20))
        with pytest.raises(BadInput, match=says):
            read_format(tmp_path / file, "trl")


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"cannot read .*nowhere"):
        read_format(tmp_path / "nowhere", "trl")
    with pytest.raises(BadInput, match=r"is a folder with none of train.jsonl, .*; name one file in it$"):
        read_format(tmp_path, "trl")
    (tmp_path / "mine.jsonl").write_text(json.dumps(ROW) + "\n")
    with pytest.raises(BadInput, match=r"name one file in it, such as .*mine\.jsonl$"):
        read_format(tmp_path, "trl")
    with pytest.raises(BadInput, match=r"no preferences folder; .* name its format with --from$"):
        convert(str(tmp_path), str(tmp_path / "x.jsonl"), None, None, overwrite=False)


@pytest.mark.parametrize("name", ["trl", "llama-factory", "axolotl"])
def test_a_folder_of_splits_reads_as_its_files(tmp_path: Path, name: str) -> None:
    [one] = from_items([item()])
    other = one._replace(split="test", pairs=[one.pairs[0].model_copy(update={"prompt": item(prompt="Sea?").prompt})])
    other = other._replace(item=item("q2", prompt="Sea?"))
    both = one._replace(split="test")  # held out, and trains
    write_format(tmp_path / "data", name, [one, other, both])
    items, said = read_format(tmp_path / "data", name)
    assert [one.prompt[0].content for one in items] == ["Sky?", "Sea?"]
    repeated = "repetitions: 1 rows say what an earlier row says, and are taken once"
    assert said == [repeated, "splits: 1 items are held out, for which an import line has no place"]
    assert convert(str(tmp_path / "data"), str(tmp_path / "x.jsonl"), name, None, overwrite=False) == said
    lost = convert(str(tmp_path / "data"), str(tmp_path / "axolotl"), name, "axolotl", overwrite=False)
    assert repeated in lost and not any("splits" in sentence for sentence in lost)
    files = {file.name: len(file.read_text().splitlines()) for file in (tmp_path / "axolotl").iterdir()}
    assert files == {"train.jsonl": 1, "test.jsonl": 1}
    with pytest.raises(BadInput, match=r"x.jsonl is one file, and this is several \(train.jsonl, test.jsonl\)"):
        convert(str(tmp_path / "data"), str(tmp_path / "x.jsonl"), name, "axolotl", overwrite=True)


def test_ultrafeedback_says_what_people_lose(tmp_path: Path) -> None:
    lost = write_format(tmp_path / "x.jsonl", "ultrafeedback", from_items([item()]))
    assert "raters: 3 answers become one annotator's, which reads back as gpt-4's" in lost
    assert "ids: 1 items have an id, for which this format has no place" in lost
    assert "tags: 1 items have tags, for which this format has no place" in lost
    back, _ = read_format(tmp_path / "x.jsonl", "ultrafeedback")
    assert write_format(tmp_path / "y.jsonl", "ultrafeedback", from_items(back)) == []


def test_one_id_with_two_contents_is_refused(tmp_path: Path) -> None:
    record = {"id": "r", "fields": {"prompt": "a", "response-1": "b", "response-2": "c"}}
    other = {**record, "fields": {**record["fields"], "response-2": "d"}}  # type: ignore[dict-item]
    (tmp_path / "x.json").write_text(json.dumps([record, other]))
    with pytest.raises(BadInput, match="id 'r' stands there twice with different content"):
        read_format(tmp_path / "x.json", "argilla")


def test_what_has_no_place_is_counted(tmp_path: Path) -> None:
    undecided = item("q2", answers=[{"rater": "ann", "ranks": [1, 1]}])
    lost = write_format(
        tmp_path / "x.jsonl", "trl", from_items([item(), undecided, item("q3", answers=[], gold=[2, 1])])
    )
    assert lost == [
        "unanswered: 1 items have no answer, and are left out",
        "gold: 1 items have known ranks, for which this format has no place",
        "ties: 1 pairs have no winner, and are left out",
        "probabilities: 1 pairs are not certain, and are written as if they were",
        "raters: 4 answers name their rater, for which this format has no place",
        "models: 3 items name their models, for which this format has no place",
        "tags: 3 items have tags, for which this format has no place",
        "groups: 3 items have a group, for which this format has no place",
        "strength: 1 answers have a strength, for which this format has no place",
        "ratings: 1 answers have ratings, for which this format has no place",
        "reasons: 1 answers give a reason, for which this format has no place",
        "seconds: 1 answers say how long they took, for which this format has no place",
        "times: 1 answers say when they were given, for which this format has no place",
    ]
    [row] = map(json.loads, (tmp_path / "x.jsonl").read_text().splitlines())
    turns = {"prompt": ("user", "Sky?"), "chosen": ("assistant", "Blue."), "rejected": ("assistant", "Green.")}
    assert row == {key: [{"role": role, "content": said}] for key, (role, said) in turns.items()}


def test_nothing_is_written_where_nothing_has_a_place(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"x was not written: hh-rlhf has a place for nothing here \(unanswered: 1"):
        write_format(tmp_path / "x", "hh-rlhf", from_items([item(answers=[])]))
    assert list(tmp_path.iterdir()) == []


def folder_of(path: Path) -> list[Record]:
    """A preferences folder whose rankings stand in two splits, one of them tied; written, and read back."""
    records = [
        one._replace(split=split)
        for one, split in zip(from_items([item(), item("q2")]), ("train", "test"), strict=True)
    ]
    rankings = [
        {
            "ranking": one.item.id,
            "split": one.split,
            "group": "colours",
            "prompt": [{"role": "user", "content": "Sky?"}],
            "responses": [[{"role": "assistant", "content": text}] for text in ("Green.", "Blue.")],
            "models": ["a", None],
            "ranks": [2, 1],
            "weight": 0.5,
            "tags": [],
            "answers": [
                {"rater": "rater-1", "ranks": [2, 1], "strength": 2, "flags": [], "guideline": 1}
                | {"ratings": {"clear": [1.0, 2.0]}, "edited": None, "shown": [1, 0], "seconds": 2.5}
            ],
        }
        for one in records
    ]
    from preferences.contract import Ranking

    pairs = {str(one.split): [pair.model_copy(update={"preference": 0.8}) for pair in one.pairs] for one in records}
    rows = PreferencesFolder(pairs, [], [Ranking.model_validate(one) for one in rankings], [], {"project": "p"})
    write_preferences(path, rows)
    assert read_folder(path) == from_folder(rows)
    return read_folder(path)


def test_each_split_of_a_preferences_folder_is_a_file(tmp_path: Path) -> None:
    records = folder_of(tmp_path / "preferences")
    assert records[0].item.answers[0].model_dump(exclude_none=True) == {
        "rater": "rater-1", "ranks": [2, 1], "strength": 2, "ratings": {"clear": [1.0, 2.0]}, "shown": [1, 0],
        "seconds": 2.5,
    }  # fmt: skip
    for name in FORMATS:
        if name in ("helpsteer", "fastchat"):  # nobody rated helpfulness; one model is unknown
            with pytest.raises(BadInput, match="was not written"):
                write_format(tmp_path / name, name, records)
            continue
        write_format(tmp_path / name, name, records)
        found = {file.name for file in (tmp_path / name).iterdir()}
        assert found - {"dataset_info.json", "labeling_config.xml"} in (
            {"train.jsonl", "test.jsonl"},
            {"records.json"},
            {"tasks.json"},
        )
    with pytest.raises(
        BadInput, match=r"x.jsonl is one file, and this is several \(train.jsonl, test.jsonl\); name a folder"
    ):
        write_format(tmp_path / "x.jsonl", "trl", records)
    assert not (tmp_path / "x.jsonl").exists()


def test_what_was_decided_is_in_pairs_and_not_among_answers(tmp_path: Path) -> None:
    [record] = from_items([item()])
    decided = [record._replace(decided=True, split=split) for split in ("train", "test")]
    said = "decisions: 2 items were decided by a reviewer, and only what raters said is written"
    assert said not in write_format(tmp_path / "pairs", "trl", decided)
    assert said in write_format(tmp_path / "records.json", "argilla", decided)
    lost = write_format(tmp_path / "votes.jsonl", "fastchat", decided)
    assert said in lost and "splits: 2 splits stand in one file of votes" in lost


def test_the_edited_row_of_a_folder_is_a_pair_too(tmp_path: Path) -> None:
    [record] = from_items([item()])
    better = [{"role": "assistant", "content": "Blue, mostly."}]
    edited = record.pairs[0].model_validate({**record.pairs[0].model_dump(), "chosen": better, "source": "edited"})
    write_format(tmp_path / "x.jsonl", "trl-text", [record._replace(pairs=[*record.pairs, edited])])
    rows = [json.loads(line)["chosen"] for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert rows == ["Blue.", "Blue, mostly."]


def test_only_an_earlier_export_is_replaced(tmp_path: Path) -> None:
    records = from_items([item()])
    for path in (tmp_path / "x.jsonl", tmp_path / "x"):
        write_format(path, "trl", records)
        with pytest.raises(BadInput, match="is there already; name something else, or say --overwrite"):
            write_format(path, "trl", records)
        write_format(path, "trl-text", records, overwrite=True)
    (tmp_path / "x/thesis.txt").write_text("years of work")
    with pytest.raises(
        BadInput, match=r"holds other things than an export \(thesis.txt\), so --overwrite leaves it alone"
    ):
        write_format(tmp_path / "x", "trl", records, overwrite=True)
    with pytest.raises(BadInput, match=r"what is written is JSON; name it \.jsonl"):
        write_format(tmp_path / "x.parquet", "trl", records)
    with pytest.raises(BadInput, match="is a folder; name something else"):
        (tmp_path / "y.jsonl").mkdir()
        write_format(tmp_path / "y.jsonl", "trl", records)


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.jsonl.gz", "b.jsonl.gz"):
        write_format(tmp_path / name, "argilla", from_items([item()]))
    assert (tmp_path / "a.jsonl.gz").read_bytes() == (tmp_path / "b.jsonl.gz").read_bytes()


def test_converting_keeps_raters_reasons_and_times(tmp_path: Path) -> None:
    (tmp_path / "items.jsonl").write_text(json.dumps(item().model_dump(mode="json")) + "\n")
    items = str(tmp_path / "items.jsonl")
    assert convert(items, str(tmp_path / "tasks"), None, "label-studio", overwrite=False) == [
        "ratings: 1 answers have ratings, for which this format has no place"
    ]
    assert "Bucket" in (tmp_path / "tasks/labeling_config.xml").read_text()
    convert(str(tmp_path / "tasks"), str(tmp_path / "back.jsonl"), "label-studio", None, overwrite=False)
    back = Item.model_validate(json.loads((tmp_path / "back.jsonl").read_text()))
    expected = item()
    expected.answers[2].ratings = None
    assert back == expected


def test_a_preferences_folder_becomes_import_lines(tmp_path: Path) -> None:
    folder_of(tmp_path / "preferences")
    convert(str(tmp_path / "preferences"), str(tmp_path / "items.jsonl"), None, None, overwrite=False)
    lines = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == ["q1", "q2"]
    assert lines[0]["responses"] == [{"text": "Green.", "model": "a"}, {"text": "Blue."}]
    with pytest.raises(BadInput, match="import lines are one file; name it"):
        convert(str(tmp_path / "preferences"), str(tmp_path / "items"), None, None, overwrite=False)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from align.cli import main

    monkeypatch.chdir(tmp_path)
    Path("pairs.jsonl").write_text(json.dumps({**ROW, "odd": 1}) + "\n")

    def align(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["align", "convert", *words])
        try:
            main()
            return 0, capsys.readouterr().out
        except SystemExit as exit_:
            return int(str(exit_.code)), capsys.readouterr().err

    said = "out.jsonl.gz\n  `odd`: 1 rows say it, and an import line has no place for it\n"
    assert align("pairs.jsonl", "out.jsonl.gz", "--from", "trl") == (0, said)
    code, out = align("out.jsonl.gz", "hh.jsonl", "--from", "trl", "--to", "hh-rlhf", "--json")
    assert code == 2 and "out.jsonl.gz, line 1: neither `chosen` and `rejected`" in out
    code, out = align("pairs.jsonl", "hh.jsonl", "--from", "trl", "--to", "hh-rlhf", "--json")
    assert json.loads(out) | {"lost": 2} == {"format": 1, "from": "pairs.jsonl", "to": "hh.jsonl", "lost": 2}
    assert align("pairs.jsonl", "hh.jsonl", "--from", "trl", "--to", "hh-rlhf") == (
        2, "error: hh.jsonl is there already; name something else, or say --overwrite to replace it\n",
    )  # fmt: skip
    code, said = align("pairs.jsonl", "x", "--to", "hh")
    assert code == 2 and "there is no format 'hh'; the nearest known one is 'hh-rlhf'" in said
    assert sorted(file.name for file in tmp_path.iterdir()) == ["hh.jsonl", "out.jsonl.gz", "pairs.jsonl"]


def test_every_format_has_a_line_in_the_help_and_a_row_in_the_docs() -> None:
    page = (ROOT / "docs/formats.md").read_text()
    for name, (module, what) in FORMATS.items():
        assert (ROOT / f"preferences/formats/{module}.py").is_file()
        assert f"  {name} " in list_of_formats()
        assert f"`{name}`" in page
        assert len(name) + len(what) < 110


@pytest.mark.skipif(not HARMLESS.is_file(), reason=f"no {HARMLESS}")
def test_real_dialogues_come_back_byte_for_byte(tmp_path: Path) -> None:
    items, lost = read_format(HARMLESS, "hh-rlhf")
    assert (len(items), lost) == (2312, [])
    early = [one for one in items if len(one.responses[0].messages) > 1 or len(one.responses[1].messages) > 1]
    assert len(early) == 5  # their prompts differ before the last turn
    write_format(tmp_path / "back.jsonl", "hh-rlhf", from_items(items))
    with gzip.open(HARMLESS, "rt", encoding="utf-8") as stream:
        real = [json.loads(line) for line in stream]
    assert [json.loads(line) for line in (tmp_path / "back.jsonl").read_text().splitlines()] == real
    write_format(tmp_path / "trl", "trl-implicit", from_items(items))
    again, _ = read_format(tmp_path / "trl/train.jsonl", "trl")
    assert [(one.prompt, one.responses) for one in again] == [(one.prompt, one.responses) for one in items]


def test_the_labeling_interface_names_each_control_once(tmp_path: Path) -> None:
    from xml.etree import ElementTree

    rated = item(answers=[{"rater": "ann", "ranks": [1, 2], "ratings": {"clear": [1, 2], '"odd" & <short>': [3, 4]}}])
    for name, items in (
        ("pairs", [rated]),
        ("ranks", [item("q2", prompt=[{"role": "system", "content": "a"}, {"role": "user", "content": "b"}])]),
    ):
        write_format(tmp_path / name, "label-studio", from_items(items))
        config = ElementTree.parse(tmp_path / name / "labeling_config.xml").getroot()
        names = [tag.get("name") for tag in config.iter() if tag.get("name")]
        assert len(names) == len(set(names))  # as Label Studio wants it
        [task] = json.loads((tmp_path / name / "tasks.json").read_text())
        shown = {str(tag.get("value")).removeprefix("$") for tag in config.iter() if tag.get("value")}
        assert shown <= set(task["data"])
        assert {one["from_name"] for said in task["annotations"] for one in said["result"]} <= set(names)
