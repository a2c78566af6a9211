"""What does a prompt cost that several responses share? Once encoded, against once for each response, on one CPU core.

    OMP_NUM_THREADS=1 python benchmarks/shared_prompts.py [--model MODEL] [--what scores] [--repeat 3] [--most TOKENS]

A micro-batch is k texts on one prompt, random tokens, through a model under LoRA (rank 16, all linear layers), forward
and backward: a reward model's scores, and the log-probabilities of the responses. "alone" are k full rows of equal
length, so nothing of them is padding, and transformers' attention needs no mask; its log-probabilities skip the head
outside the responses, as ours do. CPU seconds, the best of --repeat that take turns. "kept" is what the forward pass
keeps for the backward pass, in MB: its distinct storages that are not weights. The last rows are two pairs and a
tournament with lengths of their own, where rows alone are padded.
"""

import argparse
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

SHAPES = [(p, r, k) for p in (128, 256, 512) for r, k in ((p // 2, 2), (p // 4, 2), (p // 4, 4))]  # tokens, tokens, k


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or hub name [default: the demo's SmolLM2-135M-Instruct]")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--most", type=int, default=4096, help="tokens of a micro-batch alone; larger ones are left out"
    )
    whats = ("scores", "log-probabilities")
    parser.add_argument("--what", nargs="+", choices=whats, default=whats)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = options.model or str(Path("~/.cache/concord/SmolLM2-135M-Instruct").expanduser())
    print("| texts | what | tokens alone / shared | CPU s alone | shared | faster | kept alone, MB | shared | off by |")
    print("|---|---|---|---|---|---|---|---|---|")
    for what in options.what:
        one = classifier(model) if what == "scores" else policy(model)
        for name, texts, starts in batches():
            if len(texts) * max(map(len, texts)) <= options.most:
                print(row(name, what, one, texts, starts, options.repeat), flush=True)


def batches() -> list[tuple[str, list[list[int]], list[int]]]:
    """Names, texts of random tokens, and where their responses start."""
    chance = random.Random(0)

    def tokens(count: int) -> list[int]:
        return [chance.randrange(100, 40000) for _ in range(count)]

    found = []
    for prompt, response, k in SHAPES:
        common = tokens(prompt)
        texts = [common + tokens(response) for _ in range(k)]
        found.append((f"prompt {prompt}, {k} responses of {response}", texts, [prompt] * k))
    first, second = tokens(200), tokens(90)
    mixed = [first + tokens(40), first + tokens(110), second + tokens(25), second + tokens(60)]
    found.append(("two pairs: 200 + 40, 110; 90 + 25, 60", mixed, [200, 200, 90, 90]))
    head = tokens(12)
    lengths = (60, 75, 80, 110, 120, 160, 165, 240)
    found.append(("eight texts of 60 to 240, 12 in common", [head + tokens(n - 12) for n in lengths], [12] * 8))
    return found


def lora(model: Any, task: str, **more: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(task_type=task, r=16, target_modules="all-linear", **more)).train()


def classifier(name: str) -> Any:
    from align.models.load import find_model, load_reward_model

    model = load_reward_model(find_model(name), trainable=True)
    model.config.pad_token_id = 2
    return lora(model, "SEQ_CLS", modules_to_save=["score"])


def policy(name: str) -> Any:
    from align.models.load import find_model, load_causal_lm

    return lora(load_causal_lm(find_model(name)), "CAUSAL_LM")


def row(name: str, what: str, model: Any, texts: list[list[int]], starts: list[int], repeat: int) -> str:
    from align.models.shared_prompts import lay_out, take_shared

    ours = what == "scores"
    if "shared" not in model.get_base_model().config._attn_implementation:
        take_shared(model)
    shared = lay_out(texts, None if ours else starts)

    def together() -> torch.Tensor:
        found: torch.Tensor = model(shared=shared) if ours else model(shared=shared)[0].sum(1)
        return found

    forwards: Sequence[Callable[[], torch.Tensor]] = (lambda: alone(model, texts, starts, ours), together)
    best, results = [float("inf")] * 2, []
    for _ in range(repeat + 1):  # the first warms up
        for number, forward in enumerate(forwards):
            begin = time.process_time()
            result = forward()
            result.sum().backward()
            taken = time.process_time() - begin
            best[number] = min(best[number], taken) if len(results) >= 2 else best[number]
            results.append(result.detach())
    off = float((results[0] - results[1]).abs().max())
    kept = [kept_bytes(model, forward) / 2**20 for forward in forwards]
    separate, laid = sum(map(len, texts)), shared.ids.numel()
    return (
        f"| {name} | {what} | {separate} / {laid} = {separate / laid:.2f} | {best[0]:.2f} | {best[1]:.2f}"
        f" | {best[0] / best[1]:.2f} | {kept[0]:.0f} | {kept[1]:.0f} | {off:.0e} |"
    )


def alone(model: Any, texts: list[list[int]], starts: list[int], scores: bool) -> torch.Tensor:
    """Each text in a row of its own, padded on the right: (texts,)."""
    from align.models.logprobs import last_states, response_logprobs, to_rows

    if scores:
        rows = [torch.tensor(text) for text in texts]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=2)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in rows], batch_first=True)
        found: torch.Tensor = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 0]
        return found
    pairs = [(text[:start], text[start:]) for text, start in zip(texts, starts, strict=True)]
    laid = to_rows([prompt for prompt, _ in pairs], [response for _, response in pairs], "cpu")
    inner = model.get_base_model()
    return response_logprobs(inner, last_states(inner, laid.ids), laid, 1.0)[0].sum(1)


def kept_bytes(model: Any, forward: Callable[[], torch.Tensor]) -> int:
    """Bytes of the distinct storages that autograd keeps, weights left out."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
        total = sum(storage.nbytes() for storage in storages.values())
        del result
    return total


if __name__ == "__main__":
    main()
