"""Does PPO fit where supervised fine-tuning does? Peak memory of `align ppo` over that of `align sft`, both with LoRA.

    python benchmarks/ppo_memory.py [--model MODEL] [--pairs N] [--micro-batch N]

Both see the same token batches: rows of exactly 96 + 32 tokens, 8 at once, activations kept, the same rank, fp32 on a
CPU. PPO has a base, four roles on it (policy, value, reference, reward) and rollouts; SFT has a base and a policy.
Measured is the peak of a process's resident memory less what is resident after the imports, the median of pairs of
processes: with a malloc that gives back what is freed, as a GPU's allocator reuses it, and as malloc leaves it. The
goal is a ratio of at most 1.2. TRL's default for LoRA drops out 5% of each layer's inputs, and what is dropped is kept;
PPO never drops out, so it is held against SFT without dropout, too.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from plan_against_measured import LORA, PROMPT, RESPONSE, demo_model, peak_of, reward_run, write_data, write_recipe

PLAIN = "sft without dropout"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="any hub name or folder [default: the demo's SmolLM2-135M-Instruct]")
    parser.add_argument("--pairs", type=int, default=3, help="pairs of processes")
    parser.add_argument("--micro-batch", type=int, default=8, help="rows that go through the model at once")
    parser.add_argument("--out", help="keep the runs here [default: a temporary folder]")
    options = parser.parse_args()
    home = Path(options.out or tempfile.mkdtemp(prefix="memory-"))
    home.mkdir(parents=True, exist_ok=True)
    model = options.model or demo_model()
    data = write_data(home, model)
    reward = reward_run(home, model, data["pairs"])
    keys = {**LORA, "per_device_train_batch_size": options.micro_batch}
    kept = {**keys, "activation_checkpointing": False}
    recipes: dict[str, Path] = {}
    for name, verb, settings in (
        ("ppo", "ppo", keys),
        ("sft", "sft", kept),
        (PLAIN, "sft", {**kept, "lora_dropout": 0.0}),
    ):
        recipe = write_recipe(home, verb, model, data, reward, settings)
        recipes[name] = recipe.rename(home / f"{name.replace(' ', '-')}.yaml")
    print(
        f"\n{Path(model).name}, micro-batch {options.micro_batch} x {PROMPT + RESPONSE} tokens, {options.pairs} pairs\n"
    )
    print("| malloc | beside | it takes | align ppo | ratio | smallest and largest ratio |")
    print("|---|---|---|---|---|---|")
    for malloc, returned in (("gives back what is freed", True), ("as it is", False)):
        peaks: dict[str, list[float]] = {name: [] for name in recipes if returned or name != PLAIN}
        for _ in range(options.pairs):
            for name, found in peaks.items():
                found.append(peak_of(name.split()[0], recipes[name], returned=returned)["mb"])
        ppo = peaks.pop("ppo")
        for name, sft in peaks.items():
            ratios = sorted(p / s for p, s in zip(ppo, sft, strict=True))
            print(
                f"| {malloc} | align {name} | {statistics.median(sft):.0f} MB | {statistics.median(ppo):.0f} MB"
                f" | {statistics.median(ratios):.2f} | {ratios[0]:.2f} to {ratios[-1]:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
