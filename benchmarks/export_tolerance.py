"""How far is an exported model from the trained one, by the type of its weights, and how far is one merged wrongly?

    python benchmarks/export_tolerance.py MODEL [--data FOLDER] [--prompts 4] [--work FOLDER] [--rounding]

MODEL is SmolLM2-135M-Instruct (`python demo/model.py` prints its folder). It is trained by DPO for a few steps, large
enough to change it, on pairs that people chose (PandaLM's test set), on the whole base and on the base in 4 and in 8
bits; then each run is exported in every form, and compared with the trained model on Koala's prompts. The wrong merges
are those of other tools: the adapter of a 4-bit run on the base that was never quantised, and the sum put back into 4
bits, as PEFT's `merge_and_unload` does. First comes what rounding alone costs the untrained model, at the tokens of
prompts (`--rounding`: only that). Numbers depend on no other process: no time is measured.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from align.data.lengths import token_ids
from align.export.export import run_export
from align.export.proof import TOLERANCE, compare_policies
from align.models.chain import as_trained
from align.models.load import find_model, load_causal_lm, load_tokenizer
from align.run.progress import quiet_libraries, say
from align.train.dpo import run_dpo
from align.train.reward import run_reward

HELD: dict[str, dict[str, bool]] = {"whole": {}, "4 bits": {"load_in_4bit": True}, "8 bits": {"load_in_8bit": True}}
FORMS = {
    "whole": [("merge", "float32"), ("merge", "float16"), ("merge", "bfloat16"), ("gguf", "q8_0"), ("adapter", None)],
    "4 bits": [("merge", "float32"), ("merge", "bfloat16"), ("gguf", "q8_0"), ("adapter", None)],
    "8 bits": [("merge", "float32"), ("merge", "bfloat16")],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--data", default="../shared/data")
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--work", default="runs/export-tolerance")
    parser.add_argument("--rounding", action="store_true")
    asked = parser.parse_args()
    quiet_libraries()
    work = Path(asked.work)
    work.mkdir(parents=True, exist_ok=True)
    pairs, prompts = write_data(Path(asked.data), work, asked.prompts)
    rounding(asked.model, prompts)
    if asked.rounding:
        return
    head = [
        "trained on",
        "exported as",
        "mean nats",
        "largest",
        "largest of logits",
        "responses differ",
        "allowed",
    ]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for held, keys in HELD.items():
        run = work / f"dpo-{held.replace(' ', '-')}"
        train(run_dpo, run, asked.model, pairs, keys)
        for form, dtype in FORMS[held]:
            found, _ = run_export(str(run), form, prompts=str(prompts), dtype=dtype, overwrite=True)  # type: ignore[arg-type]
            show(held, f"{form}, {found['recipe']['dtype']}", found["proof"])
        if held == "4 bits":
            show(held, "PEFT's merge into 4 bits", merged_into_4_bits(run, prompts))
    head = ["reward run on", "exported as", "mean, in spreads", "largest", "pairs that change order", "allowed"]
    print("\n| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for held in ("whole", "4 bits"):
        run = work / f"reward-{held.replace(' ', '-')}"
        train(run_reward, run, asked.model, pairs, HELD[held])
        for dtype in ("float32", "float16", "bfloat16"):
            proof = run_export(str(run), "merge", prompts=str(pairs), dtype=dtype, overwrite=True)[0]["proof"]
            scores = proof["scores"]
            numbers = (scores[key] / scores["spread"] for key in ("mean_difference", "max_difference"))
            mean, largest = (f"{number:.1e}" for number in numbers)
            print(
                f"| {held} | {dtype} | {mean} | {largest} | {proof['orders']['differ']:.2%} | {scores['tolerance']:g} |"
            )


def rounding(model_name: str, prompts: Path) -> None:
    """What the types cost: weights are rounded, and everything is computed in fp32."""
    import gguf
    import torch

    source = find_model(model_name)
    tokenizer, model = load_tokenizer(source), load_causal_lm(source).float().eval()
    texts = [json.loads(line)["prompt"] for line in prompts.read_text(encoding="utf-8").splitlines()]
    rows = [token_ids(tokenizer, [{"role": "user", "content": text}])[:100] for text in texts]

    def logprobs() -> torch.Tensor:
        found = []
        for row in rows:
            logits = model(torch.tensor([row])).logits[0, :-1].log_softmax(-1)
            found.append(logits.gather(-1, torch.tensor(row[1:])[:, None])[:, 0])
        return torch.cat(found)

    def rounded(weight: torch.Tensor, name: str) -> torch.Tensor:
        if name != "q8_0":
            return weight.to(getattr(torch, name)).float()
        kind = gguf.GGMLQuantizationType.Q8_0
        if weight.dim() == 1:
            return weight
        return torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(weight.numpy(), kind), kind))

    print("| weights in | tokens | mean nats | largest | allowed |\n|---|---|---|---|---|")
    with torch.no_grad():
        expected = logprobs()
        weights = {name: weight.clone() for name, weight in model.state_dict().items()}
        for dtype in ("float16", "bfloat16", "q8_0"):
            for name, weight in model.state_dict().items():
                weight.copy_(rounded(weights[name], dtype))
            off = (logprobs() - expected).abs()
            print(f"| {dtype} | {len(off)} | {off.mean():.4f} | {off.max():.3f} | {TOLERANCE[dtype]:g} |", flush=True)
    print()


def write_data(data: Path, work: Path, count: int) -> tuple[Path, Path]:
    """(pairs that people chose, prompts), as files of lines."""
    rows = json.loads((data / "pandalm-testset-v1/testset-v1.json").read_text(encoding="utf-8"))
    pairs, prompts = work / "pairs.jsonl", work / "prompts.jsonl"
    pairs.write_text("".join(json.dumps(pair) + "\n" for pair in list(chosen(rows))[:12]))
    koala = (data / "chat-prompts/koala_test_set.jsonl").read_text(encoding="utf-8").splitlines()
    short = [line for line in koala if len(line) < 400][:count]
    prompts.write_text("".join(json.dumps({"prompt": json.loads(line)["prompt"]}) + "\n" for line in short))
    return pairs, prompts


def chosen(rows: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The pairs whose three people agree, short enough for a few quick steps."""
    for row in rows:
        said = {str(row[f"annotator{number}"]) for number in (1, 2, 3)}
        texts = [str(row["response1"]), str(row["response2"])]
        if said in ({"1"}, {"2"}) and all(texts) and sum(map(len, texts)) < 300:
            better, worse = texts if said == {"1"} else texts[::-1]
            yield {"prompt": row["instruction"] + "\n" + row["input"], "chosen": better, "rejected": worse}


def train(verb: Any, run: Path, model: str, pairs: Path, keys: dict[str, bool]) -> None:
    """A few large steps: an adapter that says something."""
    if (run / "manifest.json").is_file():
        say(f"{run} is there already")
        return
    recipe = {"model_name_or_path": model, "dataset_name": str(pairs), "output_dir": str(run), "max_steps": 3}
    recipe |= {
        "use_peft": True,
        "lora_r": 8,
        "learning_rate": 5e-4,
        "save_strategy": "no",
        "max_length": 256,
        "seed": 1,
    }
    verb({**recipe, "per_device_train_batch_size": 2, "lr_scheduler_type": "constant", **keys}, "the benchmark")


def merged_into_4_bits(run: Path, prompts: Path) -> dict[str, Any]:
    """What PEFT's own merge makes of a 4-bit run: the sum is quantised once more."""
    source, held = find_model(str(run)), as_trained(str(run))
    turns = [[{"role": "user", "content": json.loads(line)["prompt"]}] for line in prompts.read_text().splitlines()]
    trained, other = (load_causal_lm(source, held).eval() for _ in range(2))
    return compare_policies(trained, other.merge_and_unload(), load_tokenizer(source), turns, TOLERANCE["float32"])


def show(held: str, form: str, proof: dict[str, Any]) -> None:
    of = proof["log_probabilities"]
    numbers = [
        f"{of['mean_difference']:.1e}",
        f"{of['max_difference']:.1e}",
        f"{proof['logits']['max_difference']:.1e}",
    ]
    allowed = f"{of['tolerance']:g}" + ("" if proof["within_tolerance"] else ": above")
    print("| " + " | ".join([held, form, *numbers, f"{proof['responses']['differ']:.0%}", allowed]) + " |", flush=True)


if __name__ == "__main__":
    main()
