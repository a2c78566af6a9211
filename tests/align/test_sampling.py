"""Sampling draws from the model's own distribution, whatever else is in the batch, and ends where it should."""

from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare

from align.data.lengths import token_ids
from align.models.load import find_model, load_causal_lm, load_tokenizer
from align.models.sampling import Samples, _Draw, pad_left, sample, seed_of
from tests.align.test_logprobs import random_model

SAY = ["red", "a cat and a dog and one more fox", "sun", "soup, but only if there is tea or milk", "moon", "star"]
PROMPTS = [[{"role": "user", "content": f"Say {what}."}] for what in SAY]
SEEDS = [seed_of("test", number) for number in range(len(PROMPTS))]


@pytest.fixture()
def model(tiny: Path) -> Any:
    return load_causal_lm(find_model(str(tiny))).eval()


@pytest.fixture()
def tokenizer(tiny: Path) -> Any:
    return load_tokenizer(find_model(str(tiny)))


def one_by_one(model: Any, tokenizer: Any, **keys: Any) -> list[list[int]]:
    return [
        sample(model, tokenizer, [prompt], [seed], **keys).responses[0]
        for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
    ]


def test_padding_is_on_the_left() -> None:
    ids, mask = pad_left([[5, 6], [7]], 0)
    assert ids.tolist() == [[5, 6], [0, 7]]
    assert mask.tolist() == [[1, 1], [0, 1]]


# --- The distribution ---


def counts(tokens: list[int], size: int) -> torch.Tensor:
    return torch.bincount(torch.tensor(tokens), minlength=size).double()


def agrees(tokens: list[int], probabilities: torch.Tensor) -> float:
    """The p-value of Pearson's test that the tokens were drawn so; rare tokens are one class."""
    found, expected = counts(tokens, len(probabilities)), probabilities.double() * len(tokens)
    rare = expected < 5
    found = torch.cat([found[~rare], found[rare].sum()[None]])
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    keep = expected > 0
    assert (found[~keep] == 0).all(), "a token of probability 0 was drawn"
    found, expected = found[keep], expected[keep]
    return float(chisquare(found.numpy(), (expected / expected.sum() * found.sum()).numpy()).pvalue)


def next_probabilities(model: Any, ids: list[int], temperature: float) -> torch.Tensor:
    with torch.no_grad():
        return (model(input_ids=torch.tensor([ids])).logits[0, -1].double() / temperature).softmax(-1)


def draws(model: Any, tokenizer: Any, count: int, **keys: Any) -> Samples:
    seeds = [seed_of("draws", number) for number in range(count)]
    return sample(model, tokenizer, [PROMPTS[0]] * count, seeds, batch_size=500, **keys)


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_tokens_are_drawn_from_the_softmax(model: Any, tokenizer: Any, temperature: float) -> None:
    """2,000 draws; and the second token, after the likeliest first one, from numbers of its own."""
    prompt = token_ids(tokenizer, PROMPTS[0], generation=True)
    said = draws(model, tokenizer, 2000, max_new_tokens=2, temperature=temperature).responses
    first = [response[0] for response in said]
    expected = next_probabilities(model, prompt, temperature)
    assert agrees(first, expected) > 1e-3
    assert agrees(first, next_probabilities(model, prompt, 2 * temperature)) < 1e-6, "another temperature would show"
    likeliest = int(expected.argmax())
    second = [response[1] for response in said if response[0] == likeliest]
    assert len(second) > 100
    assert agrees(second, next_probabilities(model, [*prompt, likeliest], temperature)) > 1e-3


def test_nothing_is_cut_off(model: Any, tokenizer: Any) -> None:
    """At a temperature at which all tokens are about as likely, nearly every one of the vocabulary comes up."""
    first = [r[0] for r in draws(model, tokenizer, 3000, max_new_tokens=1, temperature=100.0).responses]
    expected = next_probabilities(model, token_ids(tokenizer, PROMPTS[0], generation=True), 100.0)
    assert agrees(first, expected) > 1e-3
    assert len(set(first)) > 0.99 * len(expected)


def test_top_p_draws_from_the_nucleus(model: Any, tokenizer: Any) -> None:
    """The fewest tokens whose probability reaches 0.8, in their own proportions."""
    first = [r[0] for r in draws(model, tokenizer, 2000, max_new_tokens=1, temperature=1.0, top_p=0.8).responses]
    expected = next_probabilities(model, token_ids(tokenizer, PROMPTS[0], generation=True), 1.0)
    ranked, order = expected.sort(descending=True)
    nucleus = order[: int((ranked.cumsum(0) < 0.8).sum()) + 1]
    kept = torch.zeros_like(expected).scatter(0, nucleus, expected[nucleus])
    assert set(first) <= set(nucleus.tolist())
    assert agrees(first, kept / kept.sum()) > 1e-3


def test_the_ends_of_the_unit_interval_draw_what_can_be_drawn() -> None:
    scores = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf]])
    drawn = []
    for number in (0.0, 1 - 2**-53):
        chosen = _Draw(torch.tensor([[number]], dtype=torch.float64), 1.0, 1.0)(torch.zeros(1, 1), scores)
        drawn.append(int(chosen.argmax()))
    assert drawn == [1, 2]


def test_the_model_s_own_settings_have_no_influence(model: Any, tokenizer: Any) -> None:
    """generation_config is for people who chat. What it changes would not be in the log-probabilities."""
    keys: dict[str, Any] = {"max_new_tokens": 20, "temperature": 1.2}
    before = sample(model, tokenizer, PROMPTS, SEEDS, **keys)
    own = model.generation_config
    own.do_sample = True
    own.repetition_penalty, own.top_k, own.top_p, own.temperature = 5.0, 1, 0.1, 0.1
    own.min_new_tokens, own.max_new_tokens, own.no_repeat_ngram_size = 18, 3, 1
    own.bad_words_ids, own.suppress_tokens = [[before.responses[0][0]]], [before.responses[1][0]]
    assert sample(model, tokenizer, PROMPTS, SEEDS, **keys).responses == before.responses
    assert model.generation_config is own, "and it is there again afterwards"
    ids = torch.tensor([token_ids(tokenizer, PROMPTS[0], generation=True)])
    by_itself = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=20)[0, ids.shape[1] :].tolist()
    assert before.responses[0][0] not in by_itself, "settings without any effect would pass, too"


# --- Batches ---


def test_a_response_is_the_same_alone_and_in_any_batch(model: Any, tokenizer: Any) -> None:
    """Prompts of mixed lengths, so padded; some rows end early and leave the batch, others go through three stages."""
    keys: dict[str, Any] = {"max_new_tokens": 40, "temperature": 1.6}
    alone = one_by_one(model, tokenizer, **keys)
    lengths = sorted(map(len, alone))
    assert lengths[0] < 16, "one row leaves in the first stage"
    assert lengths[-1] > 32, "another is there in the third"
    for batch_size in (2, 4, 64):
        assert sample(model, tokenizer, PROMPTS, SEEDS, batch_size=batch_size, **keys).responses == alone
    turned = sample(model, tokenizer, PROMPTS[::-1], SEEDS[::-1], **keys)
    assert turned.responses[::-1] == alone
    other = sample(model, tokenizer, PROMPTS, [seed + 1 for seed in SEEDS], **keys).responses
    assert all(one != two for one, two in zip(alone, other, strict=True)), "and another seed says something else"


KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gemma2": {"sliding_window": 6, "query_pre_attn_scalar": 8},
    "gemma3_text": {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]},
    "qwen3": {},
    "gpt2": {"n_positions": 64, "n_embd": 16, "n_head": 2, "n_layer": 2},
    "mamba": {"state_size": 4},
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": 16},
}


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_is_transformers_own(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row as generate gives it alone and unpadded; also where the cache slides, and with learnt positions.

    Some rows end early: the end token is one that greedy decoding meets.
    """
    import align.models.sampling as sampling

    model = random_model(kind, vocab_size=40, **KINDS[kind])
    prompts = [[7, 8, 9, 10, 11, 12, 13], [5, 6], [30, 31, 32, 33, 34], [9], [21, 3, 21, 4, 21, 5, 21, 6, 21]]

    def expected(prompt: list[int], end: int | None) -> list[int]:
        from transformers import GenerationConfig

        ids = torch.tensor([prompt])
        config = GenerationConfig(max_new_tokens=36, do_sample=False, eos_token_id=end, pad_token_id=0)
        out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
        return out[0, len(prompt) :].tolist()

    free = [expected(prompt, None) for prompt in prompts]
    end = next(token for row in free for token in row[:16] if sum(token in other for other in free) in (1, 2, 3))
    model.generation_config.eos_token_id = end
    monkeypatch.setattr(sampling, "token_ids", lambda tokenizer, prompt, generation: prompt)

    class Tokenizer:
        eos_token_id = end
        pad_token_id = 0

        def decode(self, ids: list[int], **_: Any) -> str:
            return " ".join(map(str, ids))

    said = sample(model, Tokenizer(), prompts, [0] * 5, max_new_tokens=36, temperature=0)  # type: ignore[arg-type]
    assert said.responses == [expected(prompt, end) for prompt in prompts]
    assert any(said.ended) and not all(said.ended)
    assert said.prompts == prompts


# --- The end ---


def test_a_response_has_the_length_asked_for_at_most(model: Any, tokenizer: Any) -> None:
    for length in (1, 15, 16, 17, 33):
        said = sample(model, tokenizer, PROMPTS, SEEDS, max_new_tokens=length, temperature=2.0)
        assert max(map(len, said.responses)) == length
        for response, ended in zip(said.responses, said.ended, strict=True):
            assert ended == (response[-1] == tokenizer.eos_token_id)
            assert ended or len(response) == length


def test_a_response_ends_with_its_first_end_token(model: Any, tokenizer: Any) -> None:
    """The tokenizer's, and all that the model's generation config names. What comes after is not a response's."""
    keys: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0}
    before = sample(model, tokenizer, PROMPTS, SEEDS, **keys)
    second = before.responses[1][1]
    assert second != tokenizer.eos_token_id
    model.generation_config.eos_token_id = [second, 1]
    after = sample(model, tokenizer, PROMPTS, SEEDS, **keys)
    ends = {second, 1, tokenizer.eos_token_id}
    for long, short, ended, text in zip(before.responses, after.responses, after.ended, after.texts, strict=True):
        place = next((n for n, token in enumerate(long) if token in ends), None)
        assert short == (long if place is None else long[: place + 1])
        assert ended == (place is not None)
        assert text == tokenizer.decode(short[:-1] if ended else short, skip_special_tokens=True)
    assert {r[-1] for r, e in zip(after.responses, after.ended, strict=True) if e} >= {second, tokenizer.eos_token_id}


def test_stop_tokens_end_a_response_and_are_no_part_of_its_text(model: Any, tokenizer: Any) -> None:
    keys: dict[str, Any] = {"max_new_tokens": 12, "temperature": 1.0}
    before = sample(model, tokenizer, PROMPTS, SEEDS, **keys)
    stop = tokenizer.decode(before.responses[1][1:2])
    after = sample(model, tokenizer, PROMPTS, SEEDS, stop_tokens=[stop], **keys)
    assert any(stop in text for text in before.texts)
    for long, short, ended in zip(before.texts, after.texts, after.ended, strict=True):
        assert short == long.split(stop)[0]
        assert ended or stop not in long
    assert after.responses[1] == before.responses[1][:2]


def test_seeds_are_numbers_of_what_draws() -> None:
    seeds = [seed_of(1, "rollout", number) for number in range(1000)]
    assert len(set(seeds)) == 1000
    assert seed_of(1, "rollout", 11) != seed_of(1, "rollout1", 1)
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(42, "rollout", 7) == 32427366951517008, "in every process"
