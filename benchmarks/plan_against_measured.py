"""Does `align plan` say what runs take? Its sum against the peak of real runs, on a CPU.

    python benchmarks/plan_against_measured.py [--model MODEL] [--only WORD]

Each configuration is one update of `align ppo`, or two steps of `align sft`, `reward` or `dpo`, in a process of its own
or in two. Measured is the peak of its resident memory less what is resident after the imports; of a model in 4 bits,
whose file of whole weights stays mapped, only what is no file. glibc's malloc keeps much of what is freed, in
pieces; with MALLOC_MMAP_THRESHOLD_=65536 it gives back what is freed, as a GPU's allocator reuses it, so that is what
the plan is held against. What a process takes without it stands beside some.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import yaml

BIN = Path(sys.executable).parent
PROMPT, RESPONSE, ROWS = 96, 32, 8  # tokens, tokens, conversations
SUBJECTS = ["a storm", "a harbour", "a garden", "a library", "a railway", "an island", "a river", "an orchestra"]
LORA = {"use_peft": True, "lora_r": 16, "per_device_train_batch_size": 4}
CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "PPO, LoRA": ("ppo", LORA),
    "PPO, LoRA, micro-batch 8": ("ppo", {**LORA, "per_device_train_batch_size": 8}),
    "PPO, LoRA, value shared": ("ppo", {**LORA, "value": "shared"}),
    "PPO, LoRA, recomputed": ("ppo", {**LORA, "activation_checkpointing": True}),
    "PPO, LoRA, rank 128, two reward runs": ("ppo", {**LORA, "lora_r": 128, "reward_model_path": 2}),
    "PPO, LoRA on 4 bits": ("ppo", {**LORA, "load_in_4bit": True, "use_bnb_nested_quant": True}),
    "PPO, whole models": ("ppo", {"per_device_train_batch_size": 4}),
    "PPO, whole, value shared, recomputed": (
        "ppo",
        {"per_device_train_batch_size": 4, "value": "shared", "activation_checkpointing": True},
    ),
    "SFT, LoRA": ("sft", LORA),
    "SFT, whole model": ("sft", {"per_device_train_batch_size": 4}),
    "SFT, LoRA on 4 bits": ("sft", {**LORA, "load_in_4bit": True, "use_bnb_nested_quant": True}),
    "SFT, LoRA, two processes": ("sft", LORA),
    "SFT, whole model, two processes": ("sft", {"per_device_train_batch_size": 4}),
    "Reward, LoRA": ("reward", LORA),
    "DPO, LoRA": ("dpo", LORA),
    "DPO, LoRA on 4 bits": ("dpo", {**LORA, "load_in_4bit": True, "use_bnb_nested_quant": True}),
    "DPO, whole model": ("dpo", {"per_device_train_batch_size": 4}),
}
AS_MALLOC_LEAVES_IT = ("PPO, LoRA", "PPO, whole models", "SFT, LoRA")


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(measure(*sys.argv[2:])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="any hub name or folder [default: the demo's SmolLM2-135M-Instruct]")
    parser.add_argument("--only", default="", help="configurations that have this word in their name")
    parser.add_argument("--out", help="keep the runs here [default: a temporary folder]")
    options = parser.parse_args()
    home = Path(options.out or tempfile.mkdtemp(prefix="plan-"))
    home.mkdir(parents=True, exist_ok=True)
    model = options.model or demo_model()
    data = write_data(home, model)
    reward = reward_run(home, model, data["pairs"])
    head = "throughout | largest moment | plan | measured | plan / measured | CPU seconds: plan, measured"
    print(f"| configuration | {head} | as malloc leaves it |")
    print("|---|---|---|---|---|---|---|---|")
    for name, (verb, keys) in CONFIGURATIONS.items():
        if options.only not in name:
            continue
        recipe = write_recipe(home, verb, model, data, reward, keys)
        processes = 2 if "two processes" in name else 1
        launch = ("--accelerate_config", "cpu", "--num_processes", 2) if processes > 1 else ()
        one = {**os.environ, "OMP_NUM_THREADS": "1"}
        plan = json.loads(run(BIN / "align", "plan", recipe, "--verb", verb, "--json", *launch, environment=one))
        moments = plan["moments"]
        planned = (plan["total"] - moments["libraries"]) / 1e6
        found = peak_of(verb, recipe, returned=True, processes=processes)
        measured = found["anonymous_mb" if "4 bits" in name else "mb"]
        kept = f"{peak_of(verb, recipe, returned=False)['mb']:.0f} MB" if name in AS_MALLOC_LEAVES_IT else ""
        print(
            f"| {name} | {moments['throughout'] / 1e6:.0f} MB | {plan['largest']}, "
            f"{moments[plan['largest']] / 1e6:.0f} MB | {planned:.0f} MB | {measured:.0f} MB"
            f" | {planned / measured:.2f} | {plan['seconds']['total']:.0f}, {found['cpu_seconds']:.0f} | {kept} |",
            flush=True,
        )


def peak_of(verb: str, recipe: Path, *, returned: bool, processes: int = 1) -> dict[str, float]:
    """What `measure` says in a process of its own, or the most of two that train together; `returned`: with a malloc
    that gives back what is freed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    if returned:
        environment |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_MMAP_MAX_": "1000000"}
    launcher = ("-m", "torch.distributed.run", "--nproc_per_node", processes) if processes > 1 else ()
    command = (sys.executable, *launcher, Path(__file__), "--child", verb, recipe)
    lines = [line for line in run(*command, environment=environment).splitlines() if line.startswith('{"mb"')]
    return max((json.loads(line) for line in lines), key=lambda found: found["mb"])


def measure(verb: str, recipe: str) -> dict[str, float]:
    """Run a recipe in this process: the peak of its resident memory over what the imports take, in MB, and seconds."""
    import importlib
    import time

    from align.run.progress import quiet_libraries

    quiet_libraries()
    needed = "trl peft datasets bitsandbytes matplotlib.pyplot scipy.stats torch._dynamo transformers.generation.utils"
    verbs = ("align.ppo.trainer", "align.train.sft", "align.train.reward", "align.train.dpo", "align.run.plots")
    for module in (*needed.split(), *verbs):
        importlib.import_module(module)
    from trl import DPOTrainer, RewardTrainer, SFTTrainer  # noqa: F401  (they are imported when asked for)

    from align.config import read_recipe
    from align.ppo.trainer import run_ppo
    from align.train.dpo import run_dpo
    from align.train.reward import run_reward
    from align.train.sft import run_sft

    verbs_by_name = {"ppo": run_ppo, "sft": run_sft, "reward": run_reward, "dpo": run_dpo}
    before, anonymous, started = resident("VmRSS"), resident("RssAnon"), time.process_time()
    most, over = anonymous, threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.005):
            most = max(most, resident("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    verbs_by_name[verb](read_recipe(recipe, []), recipe, overwrite=True)
    over.set()
    watcher.join()
    seconds = time.process_time() - started
    return {"mb": resident("VmHWM") - before, "anonymous_mb": most - anonymous, "cpu_seconds": seconds}


def resident(what: str) -> float:
    """Resident memory of this process, now (VmRSS), at its peak (VmHWM), or what of it is no file (RssAnon), in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(what + ":"):
            return int(line.split()[1]) * 1024 / 1e6
    raise KeyError(what)


def write_data(home: Path, model: str) -> dict[str, Path]:
    """Prompts of PROMPT tokens that ask for more than RESPONSE tokens; pairs; demonstrations of exactly both."""
    from align.data.lengths import token_ids
    from align.models.load import find_model, load_tokenizer

    tokenizer = load_tokenizer(find_model(model))
    rows: dict[str, list[dict[str, Any]]] = {"prompts": [], "pairs": [], "demonstrations": []}
    for subject in SUBJECTS:
        text = f"Write a long and detailed story about {subject}, in many chapters."
        while len(token_ids(tokenizer, turns := [{"role": "user", "content": text}], generation=True)) < PROMPT:
            text += " More"
        answer = "Once upon a time"
        while len(token_ids(tokenizer, [*turns, said := {"role": "assistant", "content": answer}])) < PROMPT + RESPONSE:
            answer += " more"
        short = {"role": "assistant", "content": "No."}
        rows["prompts"].append({"prompt": turns})
        rows["pairs"].append({"prompt": turns, "chosen": [said], "rejected": [short]})
        rows["demonstrations"].append({"prompt": turns, "completion": [said]})
    files = {name: home / f"{name}.jsonl" for name in rows}
    for name, path in files.items():
        path.write_text("".join(json.dumps(row) + "\n" for row in rows[name]))
    return files


def reward_run(home: Path, model: str, pairs: Path) -> Path:
    """One step of `align reward`: what it learns does not matter here."""
    keys = {"model_name_or_path": model, "dataset_name": str(pairs), "output_dir": str(home / "reward"), "max_steps": 1}
    keys |= {"use_peft": True, "lora_r": 16, "per_device_train_batch_size": 2, "save_strategy": "no", "max_length": 128}
    (home / "reward.yaml").write_text(yaml.safe_dump(keys))
    run(BIN / "align", "reward", home / "reward.yaml", "--overwrite")
    return home / "reward"


def write_recipe(home: Path, verb: str, model: str, data: dict[str, Path], reward: Path, keys: dict[str, Any]) -> Path:
    """A recipe of one update of ROWS rollouts and two epochs, or of two steps of SFT over as many rows."""
    recipe: dict[str, Any] = {"model_name_or_path": model, "output_dir": str(home / "out"), "use_cpu": True, **keys}
    recipe |= {"dtype": "auto", "learning_rate": 1e-6}
    if verb == "ppo":
        recipe |= {
            "dataset_name": str(data["prompts"]),
            "reward_model_path": [str(reward)] * keys.get("reward_model_path", 1),
        }
        recipe |= {"batch_size": ROWS, "total_episodes": ROWS, "num_ppo_epochs": 2, "response_length": RESPONSE}
        recipe |= {"per_device_rollout_batch_size": ROWS}
    else:
        rows = data["demonstrations" if verb == "sft" else "pairs"]
        recipe |= {"dataset_name": str(rows), "max_length": PROMPT + RESPONSE, "max_steps": 2}
        recipe |= {"gradient_accumulation_steps": 2, "save_strategy": "no"}
    path = home / f"{verb}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def demo_model() -> str:
    return run(sys.executable, Path(__file__).parent.parent / "demo" / "model.py").strip()


def run(*command: Any, environment: dict[str, str] | None = None) -> str:
    """A command's output; where it fails, what it said."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"error: {' '.join(str(word) for word in command)}\n{done.stderr[-2000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
