"""What do SFT, reward models and DPO cost, beside `trl`'s own command line? Seconds, memory and losses, in one run.

    python benchmarks/train_vs_trl.py [--stage sft reward dpo] [--data 1 2 4 real] [--pairs N] [--gpu]

Each pair is one `align VERB RECIPE` and one `trl VERB --config FILE` of the installed TRL, one after the other, the
order turned round each time: the same model, rows, order of rows, batches, seed, LoRA and threads. What is counted is
the whole command with all its processes, in CPU seconds (user and system), and its training alone: all steps, at the
mean of those after the first, and what DPO's reference takes before them. On a GPU (--gpu) it is training alone, by the
clock. `--data N` makes prompts N times as long as the responses, template included; `real` takes
dialogues of HH-RLHF. Losses are compared step by step.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))
from ppo_vs_trl import BIN, apart, demo_model, kept

STAGES = ("sft", "reward", "dpo")
_SIDES = ("chosen", "rejected")
_TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--data", nargs="+", default=["1", "2", "4", "real"], help="prompt over response, or `real`")
    parser.add_argument("--pairs", type=int, default=3, help="runs of each side")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, default=8, help="rows a step")
    parser.add_argument("--micro-batch", type=int, default=4, help="rows in a forward and backward")
    parser.add_argument("--response", type=int, default=48, help="tokens of a response, template included")
    parser.add_argument("--epochs", type=int, default=1, help="times that the rows are trained on")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--full", action="store_true", help="train all weights, not LoRA")
    parser.add_argument("--gpu", action="store_true", help="train on the GPU, in bf16")
    parser.add_argument("--model", help="a model folder [default: the demo's SmolLM2-135M-Instruct]")
    parser.add_argument("--dialogues", default="../shared/data/hh-rlhf-harmless-base-test", help="of `--data real`")
    parser.add_argument("--work", help="keep the runs here, and go on with those that are there [default: temporary]")
    options = parser.parse_args()
    work = Path(options.work or tempfile.mkdtemp(prefix="train-vs-trl-")).resolve()
    model = options.model or demo_model()

    results: dict[tuple[str, str], list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for stage in options.stage:
        for data in options.data:
            rows = apart(_rows, data, options.steps * options.batch, options.response, model, options.dialogues)
            if stage == "sft":
                rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows]
            for number in range(1, options.pairs + 1):
                folder = work / f"{stage}-{data}-{number}"
                keys = _keys(stage, model, number, options)
                sides = {
                    "align": lambda f=folder, r=rows, k=keys, s=stage: _ours(s, k, r, f / "align", options),
                    "trl": lambda f=folder, r=rows, k=keys, s=stage: _trls(s, k, r, f / "trl", options),
                }
                order = list(sides) if number % 2 else list(sides)[::-1]
                ran = {side: sides[side]() for side in order}
                results.setdefault((stage, data), []).append((ran["align"], ran["trl"]))
    print(_table(options, model, results))


def _keys(stage: str, model: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """What both sides are told, under TRL's names."""
    lora = {"use_peft": True, "lora_r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "lora_target_modules": "all-linear"}
    task = {"lora_task_type": "SEQ_CLS", "lora_modules_to_save": ["score"]} if stage == "reward" else {}
    machine = {"bf16": True} if options.gpu else {"use_cpu": True, "bf16": False, "dataloader_pin_memory": False}
    return {
        "model_name_or_path": model,
        "dtype": "bfloat16" if options.gpu else "float32",
        **machine,
        "activation_checkpointing": False,
        "num_train_epochs": options.epochs,
        "per_device_train_batch_size": options.micro_batch,
        "gradient_accumulation_steps": options.batch // options.micro_batch,
        "learning_rate": 1e-6 if options.full else 1e-4,
        "max_length": 1024,
        "pad_token": "<|endoftext|>",  # SmolLM2 pads with its end token, which a reward model can't be pooled by
        "logging_steps": 1,
        "train_sampling_strategy": "sequential",
        "report_to": "none",
        "seed": seed,
        **({} if options.full else {**lora, **task}),
    }


def _ours(
    stage: str, keys: dict[str, Any], rows: list[dict[str, Any]], folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    def run() -> dict[str, Any]:
        _write(folder / "data", rows)
        recipe = {**keys, "dataset_name": str(folder / "data" / "train.jsonl"), "output_dir": str(folder / "run")}
        for key in ("lora_task_type", "lora_modules_to_save"):
            recipe.pop(key, None)  # `align` knows
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        spent = _spend([BIN / "align", stage, folder / "recipe.yaml", "--overwrite"], folder, options.threads)
        lines = (folder / "run" / "metrics.jsonl").read_text().splitlines()
        losses = [row["loss"] for row in map(json.loads, lines) if "loss" in row]
        return {**spent, "losses": losses}

    return kept(folder, {**keys, "rows": rows, "threads": options.threads}, run)


def _trls(
    stage: str, keys: dict[str, Any], rows: list[dict[str, Any]], folder: Path, options: argparse.Namespace
) -> dict[str, Any]:
    def run() -> dict[str, Any]:
        order = apart(_order_of_packs, keys, rows) if stage == "reward" else range(len(rows))
        _write(folder / "data", [rows[number] for number in order])
        config = {**keys, "dataset_name": str(folder / "data"), "output_dir": str(folder / "run")}
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        spent = _spend([BIN / "trl", stage, "--config", folder / "config.yaml"], folder, options.threads)
        (state,) = (folder / "run").glob("checkpoint-*/trainer_state.json")  # what it prints is rounded
        losses = [row["loss"] for row in json.loads(state.read_text())["log_history"] if "loss" in row]
        return {**spent, "losses": losses}

    return kept(folder, {**keys, "rows": rows, "threads": options.threads}, run)


def _write(folder: Path, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _rows(data: str, count: int, response: int, model: str, dialogues: str) -> list[dict[str, Any]]:
    """Preference pairs of so many tokens, or real ones: `prompt`, `chosen`, `rejected`."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    if data == "real":
        return _dialogues(Path(dialogues), count, tokenizer)
    words = [word for word in tokenizer.get_vocab() if word[0] == "Ġ" and word[1:].isascii() and word[1:].islower()]
    words = [word[1:] for word in sorted(words) if len(tokenizer(word[1:]).input_ids) == 1]
    chance = random.Random(0)

    def turn(role: str, tokens: int) -> list[dict[str, str]]:
        return [{"role": role, "content": " ".join(chance.choices(words, k=tokens))}]

    def length(turns: list[dict[str, str]], generation: bool) -> int:
        return len(tokenizer.apply_chat_template(turns, add_generation_prompt=generation, return_dict=True).input_ids)

    probe = turn("user", 1)
    of_prompt = length(probe, True) - 1  # what the template adds
    of_response = length([*probe, *turn("assistant", 1)], False) - length(probe, True) - 1
    prompt = int(data) * response - of_prompt
    if prompt < 1:
        raise SystemExit(f"error: {int(data) * response} tokens hold no prompt, of which {of_prompt} are template")
    return [
        {
            "prompt": turn("user", prompt),
            "chosen": turn("assistant", response - of_response),
            "rejected": turn("assistant", response - of_response),
        }
        for _ in range(count)
    ]


def _dialogues(folder: Path, count: int, tokenizer: Any) -> list[dict[str, Any]]:
    """The first dialogues of at most 400 tokens whose prompts are one and whose responses are two."""
    import gzip

    rows: list[dict[str, Any]] = []
    with gzip.open(folder / "harmless-base-test.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            (prompt, chosen), (other, rejected) = (
                json.loads(line)[side].rsplit("\n\nAssistant:", 1) for side in _SIDES
            )
            turns = [part for part in prompt.split("\n\n") if part.startswith(("Human: ", "Assistant: "))]
            roles = ["user" if turn.startswith("Human") else "assistant" for turn in turns]
            regular = "\n\n" + "\n\n".join(turns) == prompt and roles == ["user", "assistant"] * (len(turns) // 2) + [
                "user"
            ]
            if (
                prompt != other
                or chosen.strip() == rejected.strip()
                or not regular
                or not chosen.strip()
                or not rejected.strip()
            ):
                continue
            contents = [turn.partition(": ")[2].strip() for turn in turns]
            messages = [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]
            row = {
                "prompt": messages,
                "chosen": [{"role": "assistant", "content": chosen.strip()}],
                "rejected": [{"role": "assistant", "content": rejected.strip()}],
            }
            longest = max((row[side] for side in _SIDES), key=lambda response: len(response[0]["content"]))
            if len(tokenizer.apply_chat_template(messages + longest, return_dict=True).input_ids) <= 400:
                rows.append(row)
            if len(rows) == count:
                return rows
    raise SystemExit(f"error: {folder} has {len(rows)} dialogues that fit, and {count} are needed")


def _order_of_packs(keys: dict[str, Any], rows: list[dict[str, Any]]) -> list[int]:
    """The numbers of the pairs as `align reward` trains on them: its packs are mixed, and then in order."""
    from align.data.packs import PairRow, pack_pairs

    numbered = [PairRow([2 * number], [2 * number + 1], 1.0, 1.0) for number in range(len(rows))]
    packs = pack_pairs(numbered, 2 * keys["per_device_train_batch_size"], keys["seed"])
    return [pack.texts[chosen][0] // 2 for pack in packs for chosen, _ in pack.pairs]


def _spend(command: list[Any], folder: Path, threads: int) -> dict[str, Any]:
    """Run a command, its output in a file. CPU seconds and peak MB (2^20 bytes) of all its processes; what a step takes
    from one line about a step to the next, and what our look at the reference before the steps takes.
    """
    words = [str(word) for word in command]
    print("$", " ".join(words), file=sys.stderr, flush=True)
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
    cache = {"HF_DATASETS_CACHE": str(folder / "datasets"), "XDG_CACHE_HOME": str(folder / "cache")}
    environment = {**os.environ, **quiet, **cache, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True)
    marks: list[tuple[float, float]] = []  # CPU seconds and the clock, at each line about a step
    before: list[tuple[float, float]] = []  # and at the lines in front, from that about the reference on

    def read() -> None:
        with (folder / "log").open("w", encoding="utf-8") as log:
            for line in child.stdout or ():
                log.write(line)
                now = (_cpu_seconds(child.pid), time.monotonic())
                if line.startswith(("{'loss'", "step ")):
                    marks.append(now)
                elif line.startswith("what the reference") or before:
                    before.append(now)

    reader = threading.Thread(target=read)
    reader.start()
    reader.join()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        said = (folder / "log").read_text()[-2000:]
        sys.exit(f"error: exit status {child.returncode}; the end of {folder / 'log'}:\n{said}")
    spent = usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024
    a_step = [statistics.mean(later[n] - earlier[n] for earlier, later in pairwise(marks)) for n in (0, 1)]
    reference = [before[1][n] - before[0][n] if before[1:] else 0.0 for n in (0, 1)]
    return {
        "cpu_seconds": spent[0],
        "peak_mb": spent[1],
        "training_cpu_seconds": a_step[0] * len(marks) + reference[0],
        "training_seconds": a_step[1] * len(marks) + reference[1],
    }


def _cpu_seconds(pid: int) -> float:
    """CPU seconds of a running process and of those that it started, so far."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / _TICKS + sum(_cpu_seconds(int(each)) for each in children)


def _table(
    options: argparse.Namespace, model: str, results: dict[tuple[str, str], list[tuple[dict[str, Any], ...]]]
) -> str:
    import importlib.metadata as installed

    versions = ", ".join(f"{name} {installed.version(name)}" for name in ("trl", "transformers", "torch", "peft"))
    kind, machine = "full" if options.full else "LoRA", "bf16 on a GPU" if options.gpu else "fp32"
    whole, training = ("training_seconds",) * 2 if options.gpu else ("cpu_seconds", "training_cpu_seconds")
    unit = "training, s" if options.gpu else "CPU s"
    lines = [
        f"{Path(model).name}, {kind}, {machine}, threads: {options.threads}; {versions}. {options.pairs} pair(s) of"
        f" runs of {options.steps * options.epochs} steps of {options.batch} rows, {options.micro_batch} at once;"
        f" responses of {options.response} tokens.",
        "",
        f"| stage | prompt : response | {unit}, Concord | TRL | TRL / Concord | training alone | peak MB, Concord | TRL"
        " | losses differ by at most |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    middle = statistics.median
    for (stage, data), pairs in results.items():
        ratios, alone = ([trl[what] / ours[what] for ours, trl in pairs] for what in (whole, training))
        apart_by = max(
            abs(one - other) for ours, trl in pairs for one, other in zip(ours["losses"], trl["losses"], strict=True)
        )
        lines.append(
            f"| {stage} | {data if data == 'real' else data + ' : 1'} | {middle(o[whole] for o, _ in pairs):.1f}"
            f" | {middle(t[whole] for _, t in pairs):.1f} | {_spread(ratios)} | {_spread(alone)}"
            f" | {middle(o['peak_mb'] for o, _ in pairs):.0f} | {middle(t['peak_mb'] for _, t in pairs):.0f}"
            f" | {apart_by:.1e} |"
        )
    return "\n".join(lines)


def _spread(ratios: list[float]) -> str:
    """The median, and the least and the most where there are several."""
    around = f" ({min(ratios):.2f} to {max(ratios):.2f})" if len(ratios) > 1 else ""
    return f"**{statistics.median(ratios):.2f}**{around}"


if __name__ == "__main__":
    main()
