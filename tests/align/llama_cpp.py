"""llama.cpp's own answers about a GGUF file, by the wheel xllamacpp, in a process of its own: its server logs a lot.

python -m tests.align.llama_cpp FILE < {"texts": [...], "rows": [[ids], ...]}
prints {"tokens": [[ids of each text], ...], "logprobs": [[of each token of the vocabulary], ...]}: of the next token.
"""

import json
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any


def ask(path: Path, texts: list[str], rows: list[list[int]]) -> dict[str, Any]:
    """The tokens of texts, in which special tokens are read as such, and the log-probabilities after rows of tokens."""
    command = [sys.executable, __file__, str(path)]
    question = json.dumps({"texts": texts, "rows": rows})
    said = subprocess.run(command, input=question, capture_output=True, text=True, timeout=300)
    assert said.returncode == 0, said.stderr[-3000:]
    found: dict[str, Any] = json.loads(said.stdout.splitlines()[-1])
    return found


def _main(path: str) -> None:
    import xllamacpp

    asked = json.load(sys.stdin)
    keys = xllamacpp.CommonParams()
    keys.model.path = path
    keys.n_ctx = keys.n_batch = 512
    keys.n_parallel, keys.warmup = 1, False
    keys.cpuparams.n_threads = 1
    keys.cache_type_k = keys.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    keys.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(keys)
    tokens = []
    for text in asked["texts"]:
        body = json.dumps({"content": text, "add_special": False, "parse_special": True}).encode()
        request = urllib.request.Request(
            f"{server.listening_address}/tokenize", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            tokens.append(json.load(answer)["tokens"])
    logprobs = []
    for row in asked["rows"]:
        question = {"prompt": row, "n_predict": 1, "n_probs": 10**6, "temperature": 1.0, "cache_prompt": False}
        for seed in range(100):  # where it draws the end it says no probabilities
            (choice,) = server.handle_completions({**question, "seed": seed})["choices"]
            if choice["logprobs"] is not None:
                break
        (first,) = choice["logprobs"]["content"]
        by_number = {one["id"]: one["logprob"] for one in first["top_logprobs"]}
        logprobs.append([by_number[number] for number in range(len(by_number))])
    print("\n" + json.dumps({"tokens": tokens, "logprobs": logprobs}), flush=True)


if __name__ == "__main__":
    _main(sys.argv[1])
