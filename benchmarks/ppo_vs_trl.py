"""What does PPO cost on one base, beside TRL's PPOTrainer? CPU seconds an update, and memory, pair by pair.

    python benchmarks/ppo_vs_trl.py [--mode lora full] [--pairs N] [--peer-python PATH] [--prompts FOLDER]

TRL 1.12.0 is the last release with a PPOTrainer; it runs in an environment of its own (trl_ppo_peer.py), made on first
use. Both sides are separate processes, one after the other, and train the same model on the same prompts in the same
order, with the same lengths, batches, epochs and threads, from the same reward model. A pair is a run of ours and then
one of TRL's; the ratio is taken within a pair. The first update of a run, which warms up, is left out.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import yaml

MODES = ("lora", "lora-shared", "full")  # lora-shared: the value model is a head on the policy's trunk, TRL as in lora
HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--pairs", type=int, default=5, help="runs of each side")
    parser.add_argument("--updates", type=int, default=4, help="updates a run, the first of which is not counted")
    parser.add_argument("--batch", type=int, default=16, help="rollouts an update")
    parser.add_argument("--micro-batch", type=int, default=4, help="sequences in a forward and backward")
    parser.add_argument("--epochs", type=int, default=1, help="PPO epochs an update")
    parser.add_argument("--prompt-length", type=int, default=128, help="tokens of a prompt at most, template included")
    parser.add_argument("--response-length", type=int, default=32, help="new tokens at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--work", help="keep the runs here, and go on with those that are there [default: temporary]")
    add_common_options(parser)
    options = parser.parse_args()
    work = Path(options.work or tempfile.mkdtemp(prefix="ppo-vs-trl-")).resolve()
    work.mkdir(parents=True, exist_ok=True)
    python = peer_python(options.peer_python)
    model = options.model or demo_model()
    prompts = apart(short_prompts, options.prompts, model, options.prompt_length)
    needed = options.updates * options.batch
    if len(prompts) < needed:
        sys.exit(f"error: {len(prompts)} prompts are short enough, and {needed} are needed: take fewer updates")
    adapter, whole = reward_models(model, prompts, work)

    results: dict[str, list[tuple[dict[str, Any], dict[str, Any]]]] = {}
    for mode in options.mode:
        for pair in range(1, options.pairs + 1):
            folder = work / f"{mode}-{pair}"
            same = {
                "batch_size": options.batch,
                "num_mini_batches": 1,
                "num_ppo_epochs": options.epochs,
                "total_episodes": needed,
                "response_length": options.response_length,
                "temperature": 1.0,
                "missing_eos_penalty": 1.0,
                "learning_rate": 1e-5,
                "lora_r": 16,
                "lora_alpha": 32,
                "seed": pair,
            }
            ours = {
                **same,
                "per_device_train_batch_size": options.micro_batch,
                "use_peft": mode != "full",
                "value": "shared" if mode == "lora-shared" else "separate",
                "reward_model_path": str(whole if mode == "full" else adapter),
                **({"lora_r": None, "lora_alpha": None} if mode == "full" else {}),
            }
            theirs = {
                **same,
                "mode": mode.removesuffix("-shared"),
                "micro_batch_size": options.micro_batch,
                "rollout_batch_size": options.batch,
                "reward": {"model": str(whole)},
            }
            one = run_ours(ours, model, prompts, folder / "ours", options.threads)
            two = run_theirs(
                theirs, python, model, prompts, work / f"{mode.removesuffix('-shared')}-{pair}" / "trl", options.threads
            )
            results.setdefault(mode, []).append((one, two))
    print(_table(options, model, len(prompts), results))


def add_common_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="a model folder [default: the demo's SmolLM2-135M-Instruct]")
    parser.add_argument("--prompts", default="../shared/data/chat-prompts", help="the folder with the prompt sets")
    parser.add_argument("--peer-python", help="the Python of TRL's environment [default: one in the cache, made once]")


def _table(
    options: argparse.Namespace, model: str, prompts: int, results: dict[str, list[tuple[dict[str, Any], ...]]]
) -> str:
    lines = [
        f"\n{Path(model).name}, fp32, threads: {options.threads}. {options.pairs} pairs of runs of {options.updates}"
        f" updates, the first not counted. An update: {options.batch} rollouts of at most {options.prompt_length} +"
        f" {options.response_length} tokens from {prompts} prompts; {options.epochs} epoch(s) of one optimiser step, in"
        f" micro-batches of {options.micro_batch}.",
        "",
        "| mode | CPU s an update, Concord | TRL | ratio in each pair | median | peak MB, Concord | TRL | ratio |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for mode, pairs in results.items():
        seconds = [[statistics.median(run["cpu_seconds"][1:]) for run in pair] for pair in pairs]
        peaks = [[run["peak_mb"] for run in pair] for pair in pairs]
        ratios = [ours / theirs for ours, theirs in seconds]
        middle = statistics.median
        lines.append(
            f"| {mode} | {middle(s[0] for s in seconds):.1f} | {middle(s[1] for s in seconds):.1f}"
            f" | {', '.join(f'{ratio:.2f}' for ratio in ratios)} | **{middle(ratios):.2f}**"
            f" | {middle(p[0] for p in peaks):.0f} | {middle(p[1] for p in peaks):.0f}"
            f" | **{middle(p[0] / p[1] for p in peaks):.2f}** |"
        )
    lines.append("")
    for mode, pairs in results.items():
        lines.append(
            f"{mode}: {_mean(pairs, 0, 'response/tokens'):.1f} tokens a response here and"
            f" {_mean(pairs, 1, 'response/tokens'):.1f} there; a rollout takes"
            f" {_share(pairs, 0):.0%} of an update here and {_share(pairs, 1):.0%} there."
        )
    return "\n".join(lines)


def _mean(pairs: list[tuple[dict[str, Any], ...]], side: int, name: str) -> float:
    return statistics.fmean(number for pair in pairs for number in pair[side][name])


def _share(pairs: list[tuple[dict[str, Any], ...]], side: int) -> float:
    """The share of an update's time before anything is learnt: sampling, scoring, and the roles' looks at it."""
    if side == 0:
        return _mean(pairs, 0, "seconds_rollout") / _mean(pairs, 0, "seconds")
    return 1 - _mean(pairs, 1, "cpu_seconds_update") / _mean(pairs, 1, "cpu_seconds")


# Below: what ppo_learning_curve.py uses, too.


def run_ours(
    recipe: dict[str, Any], model: str, prompts: list[str], folder: Path, threads: int
) -> dict[str, list[float]]:
    """`align ppo` in a process of its own; a list over updates for each metric, and peak_mb. Kept in the folder."""

    def run() -> dict[str, Any]:
        write_prompts(folder / "prompts.jsonl", prompts)
        # a value of None takes a key out
        keys = {
            "model_name_or_path": model,
            "dataset_name": str(folder / "prompts.jsonl"),
            "output_dir": str(folder / "run"),
            "use_cpu": True,
            "dtype": "float32",
            **recipe,
        }
        text = yaml.safe_dump({key: value for key, value in keys.items() if value is not None}, sort_keys=False)
        (folder / "recipe.yaml").write_text(text)
        peak = spend([str(BIN / "align"), "ppo", str(folder / "recipe.yaml"), "--overwrite"], folder / "log", threads)
        rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
        return by_metric([row for row in rows if "cpu_seconds" in row], peak)

    return kept(folder, recipe, run)


def run_theirs(
    settings: dict[str, Any], python: Path, model: str, prompts: list[str], folder: Path, threads: int
) -> dict[str, list[float]]:
    """The same of TRL, on the prompts in the order that `align ppo` takes them in."""

    def run() -> dict[str, Any]:
        order = apart(order_of_prompts, len(prompts), settings)
        write_prompts(folder / "prompts.jsonl", [prompts[number] for number in order])
        given = {
            "model": model,
            "prompts": str(folder / "prompts.jsonl"),
            "out": str(folder / "out.json"),
            "shuffle": False,
            "fix_accumulation": True,
            "threads": threads,
            **settings,
        }
        (folder / "settings.json").write_text(json.dumps(given, indent=1))
        script = str(HERE / "trl_ppo_peer.py")
        peak = spend([str(python), script, str(folder / "settings.json")], folder / "log", threads)
        return by_metric(json.loads((folder / "out.json").read_text())["updates"], peak)

    return kept(folder, settings, run)


def order_of_prompts(count: int, settings: dict[str, Any]) -> list[int]:
    """The prompt numbers of a whole run, update by update, as `align ppo` draws them."""
    from align.ppo.trainer import batch_of_prompts

    batch = settings["batch_size"]
    updates = -(-settings["total_episodes"] // batch)
    return [n for update in range(1, updates + 1) for n in batch_of_prompts(count, update, batch, settings["seed"])]


def by_metric(rows: list[dict[str, Any]], peak_mb: float) -> dict[str, Any]:
    names = [name for name, value in rows[0].items() if isinstance(value, int | float)]
    return {**{name: [row.get(name) for row in rows] for name in names}, "peak_mb": peak_mb}


def kept(folder: Path, settings: dict[str, Any], run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the run says; what it said last time, if it was whole and had the same settings."""
    file = folder / "result.json"
    if file.is_file():
        before: dict[str, Any] = json.loads(file.read_text())
        if before["settings"] == settings:
            return before["result"]
    folder.mkdir(parents=True, exist_ok=True)
    result = run()
    file.write_text(json.dumps({"settings": settings, "result": result}))
    return result


def spend(command: list[str], log: Path, threads: int) -> float:
    """Run a command, its output in a file; its peak memory in MB of 2^20 bytes, as the kernel counted it."""
    print("$", " ".join(command), file=sys.stderr, flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_DISABLE_TELEMETRY": "1"}
    with log.open("w") as output:
        child = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)  # it has been waited for
    if child.returncode:
        sys.exit(f"error: exit status {child.returncode}; the end of {log}:\n{log.read_text()[-2000:]}")
    return usage.ru_maxrss / 1024


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call it in a fresh process, so that this one stays small and imports no torch."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def short_prompts(folder: str, model: str, most: int) -> list[str]:
    """First turns of MT-Bench, Vicuna and Koala questions of at most so many tokens under the model's template."""
    from transformers import AutoTokenizer

    sets = {"mt_bench_question.jsonl": "turns", "vicuna80_question.jsonl": "text", "koala_test_set.jsonl": "prompt"}
    if missing := [name for name in sets if not (Path(folder) / name).is_file()]:
        raise SystemExit(f"error: {folder} has no {missing[0]}; give the folder of the prompt sets with --prompts")
    texts = []
    for name, column in sets.items():
        for line in (Path(folder) / name).read_text(encoding="utf-8").splitlines():
            text = json.loads(line)[column]
            texts.append(text[0] if isinstance(text, list) else text)
    tokenizer = AutoTokenizer.from_pretrained(model)

    def length(text: str) -> int:
        turns = [{"role": "user", "content": text}]
        rendered = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return len(tokenizer(rendered, add_special_tokens=False).input_ids)

    # in an order that mixes the sets, and is the same everywhere
    fitting = [text for text in dict.fromkeys(texts) if length(text) <= most]
    return sorted(fitting, key=lambda text: hashlib.sha256(text.encode()).digest())


def write_prompts(path: Path, prompts: list[str]) -> None:
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts), encoding="utf-8")


def reward_models(model: str, prompts: list[str], work: Path) -> tuple[Path, Path]:
    """One reward model, as `align reward` makes it (an adapter and its head), and merged into a whole model.

    A single step on made-up pairs: what it likes does not matter here, only that it costs what a reward model costs.
    """
    adapter, whole = work / "reward", work / "reward-whole"
    if not (adapter / "adapter_config.json").is_file():
        pairs = [{"prompt": p, "chosen": "Here is a short answer.", "rejected": "No."} for p in prompts[:8]]
        (work / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
        recipe = {
            "model_name_or_path": model,
            "dataset_name": str(work / "pairs.jsonl"),
            "output_dir": str(adapter),
            "use_peft": True,
            "lora_r": 16,
            "lora_alpha": 32,
            "max_steps": 1,
            "per_device_train_batch_size": 4,
            "save_strategy": "no",
            "use_cpu": True,
        }
        (work / "reward.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        spend([str(BIN / "align"), "reward", str(work / "reward.yaml"), "--overwrite"], work / "reward.log", 1)
    if not (whole / "config.json").is_file():
        apart(_merge, str(adapter), model, str(whole))
    return adapter, whole


def _merge(adapter: str, model: str, whole: str) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    base.config.pad_token_id = tokenizer.pad_token_id
    tokenizer.save_pretrained(whole)
    PeftModel.from_pretrained(base, adapter).merge_and_unload().save_pretrained(whole)


def peer_python(given: str | None) -> Path:
    """The Python of TRL's environment. Without one it is made in the cache, for as long as the pins stay the same."""
    if given:
        return Path(given)
    pins = HERE / "trl-peer-requirements.txt"
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "concord" / "trl-peer"
    installed = folder / "installed.txt"
    if not installed.is_file() or installed.read_bytes() != pins.read_bytes():
        print(f"installing TRL's environment in {folder}, once", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", "-r", str(pins)], check=True)
        installed.write_bytes(pins.read_bytes())
    return folder / "bin" / "python"


def demo_model() -> str:
    command = [sys.executable, str(HERE.parent / "demo" / "model.py")]
    return subprocess.run(command, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()


if __name__ == "__main__":
    main()
