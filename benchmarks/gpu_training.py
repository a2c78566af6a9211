"""What only a GPU can show: how fast the four stages train, in bf16 and on 4 bits, and what memory they take.

    python benchmarks/gpu_training.py                         all of it, on the GPU that is here
    python benchmarks/gpu_training.py --size 7b --stage dpo   a part; parts add up in the results
    python benchmarks/gpu_training.py --toy                   every path at toy size, on a CPU too; keeps nothing

The models have the published shapes of Llama 3.2 1B and Mistral 7B and random weights, since arithmetic does not care
what it computes; no hub is asked. Texts are of exactly PROMPT + RESPONSE tokens. Each case is a process of its own: the
verb itself with a recipe, or TRL's own trainer with the same settings. Counted are the steps after the first two, by
the clock after each step of the optimiser with the device waited for.

Share of the ceiling: the operations that a step needs (align/plan/time.py), over what a product of large bf16
matrices reached on this card just before. A shared prompt counts once where it is computed once.
"""

import argparse
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml
from gpu_training_inputs import ROWS, TOKENS, make_model, write_data

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "gpu_training.md"
STAGES = ("sft", "reward", "dpo", "ppo")
WARM_UP = 2  # steps, or updates of PPO
VERSIONS = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(child(json.loads(sys.argv[2]))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", nargs="+", choices=["1b", "7b"], default=["1b", "7b"])
    parser.add_argument("--stage", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--bits", nargs="+", type=int, choices=[16, 4], default=[16, 4])
    parser.add_argument("--steps", type=int, default=6, help="that are counted [default: 6]")
    parser.add_argument("--toy", action="store_true", help="every path at toy size, on any machine; keeps nothing")
    parser.add_argument("--home", default=str(Path(tempfile.gettempdir()) / "concord-gpu-training"), help="for models")
    parser.add_argument(
        "--keep", default=str(RESULTS.with_suffix(".jsonl")), help="the lines that the table is made of"
    )
    options = parser.parse_args()
    import torch

    if not (options.toy or torch.cuda.is_available()):
        sys.exit("error: there is no GPU here; --toy tries every path on a CPU")
    home = Path(options.home)
    home.mkdir(parents=True, exist_ok=True)
    ceiling = json.loads(run(sys.executable, __file__, "--child", json.dumps({"stage": "ceiling"})).splitlines()[-1])
    print(f"{ceiling['device']}: {ceiling['tflops']:.4g} TFLOP/s, a product of {ceiling['type']} matrices", flush=True)
    lines = []
    for size in ["toy"] if options.toy else options.size:
        model, data = make_model(home, size), write_data(home, size)
        for stage in options.stage:
            for bits in options.bits:
                for who in ("concord", "trl") if stage != "ppo" else ("concord",):
                    line = one_case(home, model, data, size, stage, bits, who, options.steps, options.toy)
                    lines.append({**line, **ceiling})
                    print(as_row(lines[-1]), flush=True)
    if options.toy:
        failed = [line for line in lines if "failed" in line]
        print(f"--toy: {len(lines) - len(failed)} of {len(lines)} cases ran; nothing was kept")
        sys.exit(1 if failed else 0)
    keep(Path(options.keep), lines)


def one_case(
    home: Path, model: Path, data: dict[str, Path], size: str, stage: str, bits: int, who: str, steps: int, toy: bool
) -> dict[str, Any]:
    """What one configuration takes, beside what the plan says; `failed` where it does not run."""
    recipe = recipe_of(home, model, data, size, stage, bits, steps, toy)
    path = home / f"{stage}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    about = {"size": size, "stage": stage, "bits": bits, "who": who, "rows": ROWS[size]}
    try:
        if stage == "ppo":
            make_reward_run(home, model, data, size, bits, toy)
        align = (sys.executable, "-m", "align.cli")
        words = ("--device", "cpu") if toy else ()
        plan = json.loads(run(*align, "plan", path, "--verb", stage, "--json", *words))
        said = run(sys.executable, __file__, "--child", json.dumps({**about, "recipe": str(path), "toy": toy}))
    except RuntimeError as error:
        return {**about, "failed": str(error)[-300:]}
    found = json.loads(said.splitlines()[-1])
    prompt, response = TOKENS[size]
    texts = {"sft": 1, "reward": 2, "dpo": 2}.get(stage, 1)
    per_step = recipe["batch_size"] if stage == "ppo" else ROWS[size]
    needed = operations(model, stage, recipe, size, shared=who == "concord")
    return {
        **about,
        "seconds": found["seconds"],
        "tokens_per_second": per_step * texts * (prompt + response) / found["seconds"],
        "tflops_reached": needed / found["seconds"] / 1e12,
        "peak": found["peak"],
        "reserved": found["reserved"],
        "planned": plan["total"] - plan["moments"]["libraries"],
        "versions": {name: importlib.metadata.version(name) for name in VERSIONS},
    }


def recipe_of(
    home: Path, model: Path, data: dict[str, Path], size: str, stage: str, bits: int, steps: int, toy: bool
) -> dict[str, Any]:
    """A recipe of so many steps, or updates of PPO, after the first ones."""
    prompt, response = TOKENS[size]
    keys: dict[str, Any] = {"model_name_or_path": str(model), "output_dir": str(home / "out"), "seed": 0}
    keys |= {"use_peft": True, "lora_r": 16, "lora_alpha": 32, "dtype": "auto", "learning_rate": 1e-6}
    if bits == 4:
        keys |= {"load_in_4bit": True, "use_bnb_nested_quant": True}
    keys |= {"use_cpu": True} if toy else {}
    if stage == "ppo":
        batch = 4 * ROWS[size]
        return keys | {
            "dataset_name": str(data["prompts"]),
            "reward_model_path": str(home / "reward"),
            "response_length": response,
            "batch_size": batch,
            "total_episodes": batch * (WARM_UP + steps),
            "num_ppo_epochs": 2,
            "per_device_train_batch_size": ROWS[size],
            "per_device_rollout_batch_size": batch,
            "activation_checkpointing": not toy,
        }
    keys |= {"max_steps": WARM_UP + steps, "per_device_train_batch_size": ROWS[size], "save_strategy": "no"}
    keys |= {"max_length": prompt + response, "gradient_accumulation_steps": 1, "logging_steps": 100}
    return keys | {"dataset_name": str(data["demonstrations" if stage == "sft" else "pairs"])}


def operations(model: Path, stage: str, recipe: dict[str, Any], size: str, *, shared: bool) -> float:
    """That a step (of PPO: an update) needs, by the plan's formulas."""
    import torch

    from align.models.load import find_model
    from align.plan import sizes
    from align.plan import time as plan_time

    prompt, response = TOKENS[size]
    empty = sizes.empty_model(find_model(str(model)), torch.bfloat16, score=stage == "reward")
    shape = plan_time.shape_of(empty)
    r = recipe["lora_r"]
    adapter = sum(r * (layer.in_features + layer.out_features) for layer in sizes._linear_layers(empty))
    shape = shape._replace(adapter=adapter)
    recompute = bool(recipe.get("activation_checkpointing", not recipe.get("use_cpu")))
    both = prompt + response

    def learn(tokens: float, scored: float, context: float) -> float:
        return plan_time.training(shape, tokens, scored, context, whole=False, recompute=recompute)

    rows = recipe["per_device_train_batch_size"]
    if stage == "sft":
        return learn(rows * both, rows * response, both / 2)
    if stage in ("reward", "dpo"):
        tokens = rows * (prompt + 2 * response if shared else 2 * both)
        scored = rows * 2 * response if stage == "dpo" else 0
        once = 0.0 if shared or stage == "reward" else plan_time.forward(shape, tokens, scored, both / 2)  # reference
        return learn(tokens, scored, both / 2) + once
    batch, epochs = recipe["batch_size"], recipe["num_ppo_epochs"]
    read = plan_time.forward(
        shape, 4 * batch * both, 2 * batch * response, both / 2
    )  # policy, reference, value, reward
    draw = plan_time.forward(shape, batch * both, batch * response, both / 2)
    return read + draw + epochs * (learn(batch * both, batch * response, both / 2) + learn(batch * both, 0, both / 2))


# --- one process a case -------------------------------------------------------------------------------------------


def child(about: dict[str, Any]) -> dict[str, Any]:
    """The seconds of a step and the peak of memory, of a process that does nothing else."""
    import torch
    from torch.optim.optimizer import register_optimizer_step_post_hook

    if about["stage"] == "ceiling":
        return ceiling(torch)
    recipe = yaml.safe_load(Path(about["recipe"]).read_text())
    cuda = torch.cuda.is_available() and not about["toy"]
    times: list[float] = []

    def after_step(*_: Any) -> None:
        if cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter())

    register_optimizer_step_post_hook(after_step)
    if about["who"] == "trl":
        train_by_trl(about["stage"], recipe)
    else:
        train_by_concord(about["stage"], recipe)
    each = recipe.get("num_ppo_epochs", 1)  # steps of the optimiser in an update
    ends = times[each - 1 :: each][WARM_UP - 1 :]
    seconds = (ends[-1] - ends[0]) / (len(ends) - 1)
    peak, reserved = (torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()) if cuda else (0, 0)
    return {"seconds": seconds, "peak": peak, "reserved": reserved}


def ceiling(torch: Any) -> dict[str, Any]:
    """What a product of large matrices reaches: the most that training could."""
    cuda = torch.cuda.is_available()
    size, kind, device = (8192, torch.bfloat16, "cuda") if cuda else (512, torch.float32, "cpu")
    one = torch.randn((size, size), device=device, dtype=kind)
    best = float("inf")
    for number in range(30):
        if cuda:
            torch.cuda.synchronize()
        started = time.perf_counter()
        one @ one
        if cuda:
            torch.cuda.synchronize()
        if number >= 5:
            best = min(best, time.perf_counter() - started)
    name = torch.cuda.get_device_name() if cuda else "a CPU"
    driver = f"CUDA {torch.version.cuda}" if cuda else "no CUDA"
    return {"device": name, "cuda": driver, "type": str(kind).split(".")[-1], "tflops": 2 * size**3 / best / 1e12}


def train_by_concord(stage: str, recipe: dict[str, Any]) -> None:
    from align.run.progress import quiet_libraries

    quiet_libraries()
    from align.ppo.trainer import run_ppo
    from align.train.dpo import run_dpo
    from align.train.reward import run_reward
    from align.train.sft import run_sft

    verb = {"sft": run_sft, "reward": run_reward, "dpo": run_dpo, "ppo": run_ppo}[stage]
    verb(recipe, f"{stage}.yaml", overwrite=True)


def train_by_trl(stage: str, recipe: dict[str, Any]) -> None:
    """TRL's own trainer, as its command line makes it: the model by name, LoRA and quantisation by their configs."""
    import torch
    import trl
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, BitsAndBytesConfig

    trainer_class, config_class = {
        "sft": (trl.SFTTrainer, trl.SFTConfig),
        "reward": (trl.RewardTrainer, trl.RewardConfig),
        "dpo": (trl.DPOTrainer, trl.DPOConfig),
    }[stage]
    cpu = bool(recipe.get("use_cpu"))
    dtype = torch.float32 if cpu else torch.bfloat16
    load: dict[str, Any] = {"dtype": dtype}
    if recipe.get("load_in_4bit"):
        load["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
            llm_int8_skip_modules=["lm_head", "score"],
        )
        load["device_map"] = {"": "cpu" if cpu else 0}
    names = ("output_dir", "seed", "learning_rate", "max_steps", "per_device_train_batch_size", "save_strategy")
    keys = {name: recipe[name] for name in (*names, "max_length", "gradient_accumulation_steps", "logging_steps")}
    keys |= {"report_to": "none", "model_init_kwargs": load, "use_cpu": cpu, "bf16": not cpu}
    checkpointing = "activation_checkpointing"
    if not any(field == checkpointing for field in config_class.__dataclass_fields__):
        checkpointing = "gradient_checkpointing"  # its name before transformers 5.20
    lora = LoraConfig(
        r=recipe["lora_r"],
        lora_alpha=recipe["lora_alpha"],
        target_modules="all-linear",
        task_type="SEQ_CLS" if stage == "reward" else "CAUSAL_LM",
        modules_to_save=["score"] if stage == "reward" else None,
    )
    trainer = trainer_class(
        model=recipe["model_name_or_path"],
        args=config_class(**keys, **{checkpointing: not cpu}),
        train_dataset=load_dataset("json", data_files=recipe["dataset_name"], split="train"),
        processing_class=AutoTokenizer.from_pretrained(recipe["model_name_or_path"]),
        peft_config=lora,
    )
    trainer.train()


# --- what the cases need ------------------------------------------------------------------------------------------


def make_reward_run(home: Path, model: Path, data: dict[str, Path], size: str, bits: int, toy: bool) -> None:
    """The reward run of a PPO case; what it learns does not matter here."""
    recipe = recipe_of(home, model, data, size, "reward", bits, 0, toy) | {"output_dir": str(home / "reward")}
    path = home / "reward-for-ppo.yaml"
    path.write_text(yaml.safe_dump({**recipe, "max_steps": 1}))
    run(sys.executable, "-m", "align.cli", "reward", path, "--overwrite")


def run(*command: Any) -> str:
    """A command's output. Raises RuntimeError with the last of what it said where it fails."""
    environment = {**os.environ, "CI": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(" ".join(done.stderr.split())[-1000:])
    return done.stdout


# --- results ------------------------------------------------------------------------------------------------------


def as_row(line: dict[str, Any]) -> str:
    name = f"| {line['size']} | {line['stage']} | {'4 bits' if line['bits'] == 4 else 'bf16'} | {line['who']} |"
    if "failed" in line:
        return f"{name} failed: {line['failed']} |"
    share = line["tflops_reached"] / line["tflops"]
    memory = f"{line['peak'] / 1e9:.2f} | {line['planned'] / 1e9:.2f} | "
    memory += f"{line['planned'] / line['peak']:.2f}" if line["peak"] and line["who"] == "concord" else ""
    return (
        f"{name} {line['rows']} | {line['seconds']:.3f} | {line['tokens_per_second']:,.0f} | {share:.0%} | {memory} |"
    )


def keep(path: Path, lines: list[dict[str, Any]]) -> None:
    """Lay new lines over those of earlier parts, and make the table anew of all."""
    key = ("device", "size", "stage", "bits", "who")
    before = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    known = {tuple(line[name] for name in key): line for line in [*before, *lines]}
    path.write_text("".join(json.dumps(line) + "\n" for line in known.values()))
    head = ["size", "stage", "weights", "who", "rows", "seconds a step", "tokens/s", "share of ceiling"]
    head += ["peak GB", "planned GB", "planned / peak"]
    text = ["# Training on a GPU", "", "`python benchmarks/gpu_training.py`; its head says what is counted.", ""]
    for device in dict.fromkeys(line["device"] for line in known.values()):
        mine = [line for line in known.values() if line["device"] == device]
        versions = next((line["versions"] for line in mine if "versions" in line), {})
        said = ", ".join(f"{name} {version}" for name, version in versions.items())
        best = max(line["tflops"] for line in mine)
        text += [f"## {device}", "", f"{mine[0]['cuda']}; {said}. Ceiling: {best:.0f} TFLOP/s in bf16.", ""]
        text += [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *map(as_row, mine), ""]
    path.with_suffix(".md").write_text("\n".join(text))


if __name__ == "__main__":
    main()
