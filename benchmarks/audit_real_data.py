"""What the audit says of data that people have published: is it true, and is it worth saying?

    python benchmarks/audit_real_data.py [--data FOLDER]

HH-RLHF's harmless-base test set (Bai et al. 2022, MIT), UKPConvArg1 (Habernal and Gurevych 2016, CC-BY 4.0) imported
and exported as benchmarks/convincing_arguments.py does it, PandaLM's test set by the majority of its raters
(Apache-2.0), MT-Bench's prompts against Vicuna's (Apache-2.0), and the demo's data. Prints what warns or stops, and the
verdicts on leakage, cycles and length.
"""

import argparse
import gzip
import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import convincing_arguments

from align.audit.audit import audit
from align.audit.rows import read_data
from preferences.files import read_jsonl, write_jsonl

BIN = Path(sys.executable).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", help="the folder with the data sets")
    shared = Path(parser.parse_args().data)
    if not shared.is_dir():
        sys.exit(f"error: {shared} is not there; give the folder with the data sets with --data")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        harmless = shared / "hh-rlhf-harmless-base-test" / "harmless-base-test.jsonl.gz"
        (out / "harmless-base-test.jsonl").write_bytes(gzip.decompress(harmless.read_bytes()))
        say("HH-RLHF, harmless-base test", out / "harmless-base-test.jsonl")
        with gzip.open(shared / "ukpconvarg1" / "judgements.jsonl.gz", "rt", encoding="utf-8") as stream:
            rows = [json.loads(line) for line in stream]
        items = [convincing_arguments._item(f"{row['debate']}/{row['pair_id']}", row) for row in rows]
        say("UKPConvArg1", exported(items, out, "ukp"))
        testset = json.loads((shared / "pandalm-testset-v1" / "testset-v1.json").read_text(encoding="utf-8"))
        write_jsonl(out / "pandalm.jsonl", [pair for row in testset if (pair := majority(row))])
        say("PandaLM's test set, majority of raters", out / "pandalm.jsonl")
        for name in ("mt_bench_question", "vicuna80_question"):
            lines = (shared / "chat-prompts" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
            asked = [row.get("text") or row["turns"][0] for row in map(json.loads, lines)]
            write_jsonl(out / f"{name}.jsonl", [{"prompt": text} for text in asked])
        say("MT-Bench's prompts against Vicuna's", out / "mt_bench_question.jsonl", out / "vicuna80_question.jsonl")
        ranked = out / "demo-ranked.jsonl"
        command = [sys.executable, "demo/raters.py", "demo/responses.jsonl", str(ranked)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        say("The demo", exported([row for _, row in read_jsonl(ranked)], out, "demo"))


def exported(items: list[dict[str, Any]], out: Path, name: str) -> Path:
    """A preferences folder of these items, by annotate."""
    where = ("--database", str(out / f"{name}.db"))
    write_jsonl(out / f"{name}-items.jsonl", items)
    for words in (
        ("project", "create", name, "--validation", "0", "--test", "0.3"),
        ("import", name, str(out / f"{name}-items.jsonl")),
        ("export", name, str(out / name)),
    ):
        subprocess.run([str(BIN / "annotate"), *words, *where], check=True, stdout=subprocess.DEVNULL)
    return out / name


def majority(row: dict[str, Any]) -> dict[str, str] | None:
    """The pair that most of the three raters say, or None for a tie, and where a response is missing."""
    said, count = Counter(row[f"annotator{n}"] for n in (1, 2, 3)).most_common(1)[0]
    texts = [row["response1"], row["response2"]]
    if said not in (1, 2) or count < 2 or not all(isinstance(text, str) for text in texts):
        return None
    prompt = f"{row['instruction']}\n{row['input']}".strip()
    return {"prompt": prompt, "chosen": texts[said - 1], "rejected": texts[2 - said]}


def say(title: str, data: Path, *evaluated_on: Path) -> None:
    found = audit(read_data(str(data)), [read_data(str(other)) for other in evaluated_on])
    rows = ", ".join(f"{part['rows']:,} {Path(part['part']).name}" for part in found["rows"])
    print(f"\n## {title}\n\n{rows} rows of {found['kind']}\n")
    for check in found["checks"]:
        if check["verdict"] in ("stop", "warn") or check["check"] in ("length_bias", "cycles", "leakage"):
            print(f"* {check['verdict']}, `{check['check']}`: {check['says']}")


if __name__ == "__main__":
    main()
