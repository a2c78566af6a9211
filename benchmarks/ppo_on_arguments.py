"""Does PPO raise what people's judgements reward, on debates that nobody trained on? And does it beat best-of-n?

    python benchmarks/ppo_on_arguments.py --run FOLDER [--updates N] [--seed N]

FOLDER is what `benchmarks/convincing_arguments.py --out FOLDER` left: a reward run from real people's judgements of
arguments, and their preferences, whole debates held out. From there: SFT on the best-liked arguments of the training
debates, and PPO from it with that reward run, looking at prompts of the held-out debates while it runs. Beside it
best-of-n: of n arguments of the SFT policy the one that the reward model likes best, at KL = log n - (n - 1) / n
(Stiennon et al., arXiv 2009.01325, appendix G.3). Prints a table, draws a picture.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import yaml
from convincing_arguments import run

from preferences.contract import read_rows
from preferences.files import write_jsonl

ASK = (
    "{topic}\nGive a convincing argument for: {side}",
    "{topic}\nWhy would somebody say: {side}? Give one good reason.",
    "Topic: {topic}\nArgue for this side in a few sentences: {side}",
    "{topic}\nConvince me of this: {side}",
    "Debate: {topic}\nSpeak for {side}.",
    "{topic}\nWhat is the best reason for {side}?",
    "Some say: {side}. Why?\nThe question is: {topic}",
    "{topic}\nIn favour of {side}:",
)
LENGTH = 40  # tokens of a response


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="the --out folder of benchmarks/convincing_arguments.py")
    parser.add_argument("--updates", type=int, default=16, help="of 16 rollouts")
    parser.add_argument("--kl-budget", type=float, default=10.0, help="nats a response")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    out = Path(options.run)
    prompts = _prompts(out)
    for split, rows in prompts.items():
        write_jsonl(out / f"prompts-{split}.jsonl", rows)

    model = json.loads((out / "reward" / "manifest.json").read_text())["recipe"]["model_name_or_path"]
    lora = {"use_peft": True, "lora_r": 16, "lora_alpha": 32, "seed": options.seed}
    sft = {
        **lora,
        "model_name_or_path": model,
        "dataset_name": str(out / "preferences"),
        "output_dir": str(out / "sft"),
        "learning_rate": 5e-4,
        "max_steps": 16,
        "per_device_train_batch_size": 16,
        "max_length": 160,
        "save_strategy": "no",
    }
    ppo = {
        "model_name_or_path": str(out / "sft"),
        "reward_model_path": str(out / "reward"),
        "dataset_name": str(out / "prompts-train.jsonl"),
        "output_dir": str(out / "ppo"),
        "seed": options.seed,
        "total_episodes": 16 * options.updates,
        "batch_size": 16,
        "num_ppo_epochs": 1,
        "num_mini_batches": 4,
        "response_length": LENGTH,
        "temperature": 0.7,
        "learning_rate": 7e-4,
        "lr_scheduler_type": "constant",
        "kl_coef": 0.03,
        "vf_coef": 1.0,
        "missing_eos_penalty": 0.5,
        "save_steps": 8,
        "eval_steps": max(1, options.updates // 4),
        "eval_dataset_name": str(out / "prompts-held-out.jsonl"),
        "kl_budget": options.kl_budget,
    }
    for verb, recipe in (("sft", sft), ("ppo", ppo)):
        (out / f"{verb}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
        if not (out / verb / "manifest.json").is_file():
            run("align", verb, str(out / f"{verb}.yaml"))
    print(_table(out, options, prompts["held-out"]))


def _prompts(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Every debate-side in eight wordings; the held-out ones are those of the debates that are in the test split."""
    found: dict[str, dict[str, None]] = {"train": {}, "held-out": {}}
    for ranking in read_rows(out / "preferences", "rankings.jsonl"):
        topic, side = ranking.prompt[0].content.split("\nGive a convincing argument for: ")
        for ask in ASK:
            found["held-out" if ranking.split == "test" else "train"][ask.format(topic=topic, side=side)] = None
    return {split: [{"prompt": prompt} for prompt in texts] for split, texts in found.items()}


def _best_of_n(out: Path, prompts: list[dict[str, Any]], most: int, seed: int) -> dict[int, float]:
    """Mean over the prompts of the best reward among n samples of the SFT policy, expected over the choice of n."""
    kept = out / "best-of-n.json"
    if not kept.is_file():
        from align.models.load import device, find_model, load_causal_lm, load_tokenizer
        from align.models.sampling import sample, seed_of
        from align.models.scores import load_scorer

        source = find_model(str(out / "sft"))
        policy, tokenizer = load_causal_lm(source).to(device()).eval(), load_tokenizer(source)
        reward = load_scorer(str(out / "reward"), device())
        scores = []
        for number, row in enumerate(prompts):
            turns = [[{"role": "user", "content": row["prompt"]}]] * most
            seeds = [seed_of(seed, "best-of-n", number, n) for n in range(most)]
            said = sample(policy, tokenizer, turns, seeds, max_new_tokens=LENGTH, temperature=0.7)
            found = reward.scores(turns, said.texts, 8)
            # the same penalty as PPO's rewards have
            scores.append([score - 0.5 * (not ended) for score, ended in zip(found, said.ended, strict=True)])
        kept.write_text(json.dumps(scores))
    scores = json.loads(kept.read_text())
    return {n: sum(_expected_best(row, n) for row in scores) / len(scores) for n in _powers(most)}


def _expected_best(scores: list[float], n: int) -> float:
    """Expected maximum of n of the scores, drawn without replacement: an unbiased estimate of best-of-n."""
    ordered = sorted(scores)
    total = math.comb(len(ordered), n)
    return sum(score * math.comb(rank, n - 1) for rank, score in enumerate(ordered)) / total


def _powers(most: int) -> list[int]:
    return [n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n <= most]


def _table(out: Path, options: argparse.Namespace, prompts: list[dict[str, Any]]) -> str:
    rows = [json.loads(line) for line in (out / "ppo" / "metrics.jsonl").read_text().splitlines()]
    looks = [row for row in rows if "eval/scores" in row]
    manifest = json.loads((out / "ppo" / "manifest.json").read_text())
    drawn = manifest["recipe"]["total_episodes"]
    most = max(n for n in (1, 2, 4, 8, 16, 32) if n * len(prompts) <= 2 * drawn)
    best = _best_of_n(out, prompts, most, options.seed)
    lines = [
        f"\nHeld-out prompts: {len(prompts)}, of debates in neither reward training nor PPO. Score: the reward model's,"
        " less 0.5 for a response that does not end.",
        f"PPO: {drawn} rollouts of at most {LENGTH} tokens, KL budget {options.kl_budget:g} nats, seed {options.seed}.",
        "",
        "| policy | KL to SFT, nats | held-out score | tokens | ended |",
        "|---|---|---|---|---|",
    ]
    for look in looks:
        mark = ", kept" if look["step"] == manifest["best"]["step"] else ""
        lines.append(
            f"| PPO, update {look['step']}{mark} | {look['eval/kl']:.2f} | {look['eval/scores']:+.3f} |"
            f" {look['eval/tokens']:.0f} | {look['eval/ended']:.2f} |"
        )
    for n, score in best.items():
        note = f" ({n * len(prompts)} samples)"
        lines.append(f"| best of {n}{note} | {math.log(n) - (n - 1) / n:.2f} | {score:+.3f} | | |")
    _draw(out, looks, best, options.kl_budget)
    return "\n".join([*lines, "", f"Picture: {out / 'reward-against-kl.png'}"])


def _draw(out: Path, looks: list[dict[str, Any]], best: dict[int, float], budget: float) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot([look["eval/kl"] for look in looks], [look["eval/scores"] for look in looks], "o-", label="PPO")
    kl = [math.log(n) - (n - 1) / n for n in best]
    axes.plot(kl, list(best.values()), "s--", label="best of n")
    for n, x in zip(best, kl, strict=True):
        axes.annotate(str(n), (x, best[n]), textcoords="offset points", xytext=(4, -10), fontsize=8)
    axes.axvline(budget, color="grey", linewidth=1, linestyle=":")
    axes.set_xlabel("KL to the policy that PPO started from, nats a response")
    axes.set_ylabel("score on held-out debates")
    axes.legend()
    figure.savefig(out / "reward-against-kl.png", dpi=150)


if __name__ == "__main__":
    main()
