"""`align chat`: talk to a model in the terminal."""

import random

from align.data.lengths import context_length, token_ids
from align.models.load import find_model, load_causal_lm, load_config, load_tokenizer
from align.models.sampling import sample


def run_chat(name: str, max_new_tokens: int, temperature: float) -> None:
    """Read turns from standard input until its end. The oldest turns are forgotten when the context is full."""
    import torch

    source = find_model(name)
    tokenizer = load_tokenizer(source)
    context = context_length(load_config(source)) or 1 << 30
    model = load_causal_lm(source)
    if torch.cuda.is_available():
        model.to("cuda")
    model.eval()
    print(f"{name}. Your turn; an empty line starts anew, Ctrl-D ends.")
    turns: list[dict[str, str]] = []
    while True:
        try:
            text = input("\nyou: ").strip()
        except EOFError:
            print()
            return
        if not text:
            turns = []
            print("(a new conversation)")
            continue
        turns.append({"role": "user", "content": text})
        while turns and len(token_ids(tokenizer, turns, generation=True)) + max_new_tokens > context:
            turns = turns[2:]
        if not turns:
            print(f"(too long: that and {max_new_tokens} new tokens do not fit the model's context of {context})")
            continue
        seed = random.getrandbits(48)
        said = sample(model, tokenizer, [turns], [seed], max_new_tokens=max_new_tokens, temperature=temperature)
        reply = said.texts[0]
        turns.append({"role": "assistant", "content": reply})
        print(f"\nmodel: {reply.strip()}")
