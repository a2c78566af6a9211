"""Texts that share a prompt get the numbers and gradients that transformers' own forward gives each of them alone."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from align.models.load import find_model, load_causal_lm, load_reward_model
from align.models.shared_prompts import Shared, find_families, lay_out, take_shared, why_not
from align.train.sharing import hardest
from tests.align.conftest import TRAIN, done, write_recipe
from tests.align.test_logprobs import random_model
from tests.align.test_reward_training import losses_of, trainer_of

TEXTS = [
    [1, 5, 6, 7, 8, 9, 10, 11],
    [1, 5, 6, 7, 8, 20, 21],
    [2, 3, 4],
    [1, 5, 6, 7, 8, 20, 21, 30, 31, 32],
    [2, 3, 4, 5, 6, 7],
    [40, 12],
]
STARTS = [3, 6, 1, 2, 2, 1]  # within what is shared, at its end, and after it


# --- the layout


def test_families_are_the_cut_that_saves_most() -> None:
    assert find_families(TEXTS) == [([0, 1, 3], 5), ([2, 4], 3), ([5], 0)]
    near = [[1, 2, *range(30, 70)], [1, 2, *range(30, 70), 9], [1, 2, *range(70, 110)]]
    assert find_families(near) == [([0, 1], 42), ([2], 0)]  # all three would save 4, of 42
    assert find_families([[1, *range(10, 50)], [1, *range(50, 90)]]) == [
        ([0], 0),
        ([1], 0),
    ]  # one in 82 is not worth it
    assert find_families([[7, 8], [7, 8]]) == [([0, 1], 2)]
    assert find_families([[7]]) == [([0], 0)]


def test_the_stream_and_where_things_are_in_it() -> None:
    shared = lay_out([[5, 6, 7, 1], [8], [5, 6, 7, 2, 3], [5, 6, 7]], [3, 1, 1, 2])
    assert shared.families == ((3, 1, 2, 0), (0, 1))  # who begins the others has nothing of its own
    assert shared.ids.tolist() == [[5, 6, 7, 1, 2, 3, 8]]
    assert shared.positions.tolist() == [[0, 1, 2, 3, 3, 4, 0]]
    assert shared.last.tolist() == [3, 6, 5, 2]
    assert shared.rows is not None
    assert shared.rows.before.tolist() == [[2, 0, 0, 0], [0] * 4, [0, 1, 2, 4], [1, 0, 0, 0]]
    assert shared.rows.targets.tolist() == [[1, 0, 0, 0], [0] * 4, [6, 7, 2, 3], [7, 0, 0, 0]]
    assert shared.rows.mask.sum(1).tolist() == [1, 0, 4, 1]


def test_masks_of_windows() -> None:
    mask = lay_out([[1]]).mask(2, 2, 2, torch.zeros(()), False)
    assert mask[0, 0].int().tolist() == [[0, 1, 1, 0], [0, 0, 1, 1]]


texts = st.lists(
    st.tuples(st.integers(0, 2), st.lists(st.integers(3, 60), min_size=0, max_size=9)), min_size=1, max_size=7
)
PROMPTS = [[1, 9, 8, 7, 6, 5, 4, 3, 20, 21, 22], [2], [1, 9, 8, 7, 50]]


@settings(max_examples=40, deadline=None)
@given(texts)
def test_every_text_is_in_the_stream_once(drawn: list[tuple[int, list[int]]]) -> None:
    given_texts = [PROMPTS[prompt] + rest for prompt, rest in drawn]
    shared = lay_out(given_texts, [1] * len(given_texts))
    assert shared.ids.numel() == shared.positions.numel() == sum(map(sum, shared.families))
    assert shared.ids.numel() <= sum(map(len, given_texts))
    assert sorted(number for members, _ in find_families(given_texts) for number in members) == [
        *range(len(given_texts))
    ]
    assert shared.rows is not None
    for number, text in enumerate(given_texts):
        path = [*shared.rows.before[number][shared.rows.mask[number]].tolist(), int(shared.last[number])]
        assert shared.ids[0, path].tolist() == text
        assert shared.positions[0, path].tolist() == [*range(len(text))]


# --- numbers and gradients


def alone(model: Any, text: list[int], start: int | None) -> torch.Tensor:
    """A text's score, (1,), or its log-probabilities: transformers' forward, one row, no padding."""
    ids = torch.tensor([text])
    logits = model(input_ids=ids, use_cache=False).logits[0]
    if start is None:
        return logits.float()  # type: ignore[no-any-return]
    return logits[start - 1 : -1].float().log_softmax(-1).gather(-1, ids[0, start:, None])[:, 0]  # type: ignore[no-any-return]


def together(model: Any, shared: Shared) -> torch.Tensor:
    """The same of all texts, one after the other."""
    found: torch.Tensor = model(shared=shared) if shared.rows is None else model(shared=shared)[0][shared.rows.mask]
    return found


def assert_same(model: Any, starts: list[int] | None, *, atol: float = 1e-4, some: list[list[int]] = TEXTS) -> None:
    """Values, and the gradients of a sum in which each counts differently: of every parameter that is trained."""
    expected = torch.cat([alone(model, text, starts[n] if starts else None) for n, text in enumerate(some)])
    counts = torch.linspace(-1, 2, len(expected))
    (expected * counts).sum().backward()
    by_autograd = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    assert by_autograd
    model.zero_grad()
    take_shared(model)
    found = together(model, lay_out(some, starts))
    torch.testing.assert_close(found, expected, atol=atol, rtol=atol)
    (found * counts).sum().backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == (name not in by_autograd), name
        if parameter.grad is not None:
            scale = max(1.0, float(by_autograd[name].abs().max()))
            torch.testing.assert_close(parameter.grad / scale, by_autograd[name] / scale, atol=atol, rtol=0)
    model.zero_grad()


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": 3},
    "gemma3_text": {"sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]},
    "gemma2": {"sliding_window": 4},  # eager, with soft caps
    "gpt_oss": {"sliding_window": 4, "num_local_experts": 4},  # eager, with sinks
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "attn_pdrop": 0, "bos_token_id": None},
    "qwen3": {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_log_probabilities_and_gradients_of_every_architecture(kind: str) -> None:
    model = random_model(kind, **ARCHITECTURES[kind]).requires_grad_(True)
    assert_same(model, STARTS)
    assert torch.equal(model(torch.tensor([TEXTS[0]])).logits, copy.deepcopy(model)(torch.tensor([TEXTS[0]])).logits)


def test_eager_attention(tiny: Path) -> None:
    model = load_causal_lm(find_model(str(tiny)))
    model.set_attn_implementation("eager")
    assert_same(model.requires_grad_(True), STARTS)


def lora_model(tiny: Path, task: str, bits: int | None = None) -> Any:
    """Under LoRA, whose weights all count; the score head is PEFT's copy."""
    from peft import LoraConfig, get_peft_model
    from trl import ModelConfig

    args = ModelConfig(use_peft=True, load_in_4bit=bits == 4, load_in_8bit=bits == 8, dtype="float32")
    load = load_reward_model if task == "SEQ_CLS" else load_causal_lm
    torch.manual_seed(3)
    model: Any = load(find_model(str(tiny)), args, trainable=True)
    more = {"modules_to_save": ["score"]} if task == "SEQ_CLS" else {}
    model = get_peft_model(model, LoraConfig(task_type=task, r=4, target_modules="all-linear", **more))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("task", ["SEQ_CLS", "CAUSAL_LM"])
@pytest.mark.parametrize("bits", [None, 4])
def test_lora(tiny: Path, task: str, bits: int | None) -> None:
    assert_same(lora_model(tiny, task, bits), STARTS if task == "CAUSAL_LM" else None)


def test_entropies_are_looked_at(tiny: Path) -> None:
    """They change no gradient: a frozen head has those of the log-probabilities ready."""
    model = lora_model(tiny, "CAUSAL_LM")
    assert_same(model, STARTS)
    shared = lay_out(TEXTS, STARTS)
    logprobs, entropies = model(shared=shared, entropy=True)
    assert shared.rows is not None
    expected = []
    for text, start in zip(TEXTS, STARTS, strict=True):
        table = model(input_ids=torch.tensor([text])).logits[0, start - 1 : -1].log_softmax(-1)
        expected.append(-(table.exp() * table).sum(-1))
    torch.testing.assert_close(entropies[shared.rows.mask], torch.cat(expected), atol=1e-4, rtol=0)
    assert logprobs.requires_grad and not entropies.requires_grad


def test_activations_that_are_computed_again(tiny: Path) -> None:
    """The backward pass runs every layer once more, after the forward is over."""
    model = lora_model(tiny, "SEQ_CLS")
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    assert_same(model.train(), None)


def test_eight_bits_and_bf16_are_as_near_as_they_get(tiny: Path) -> None:
    rough: list[Any] = [lora_model(tiny, "CAUSAL_LM", 8), load_causal_lm(find_model(str(tiny))).bfloat16()]
    for model in rough:
        take_shared(model)
        assert why_not(model, TEXTS, STARTS, exact=False) == ""


@settings(max_examples=25, deadline=None)
@given(texts)
def test_any_texts(models: tuple[Any, Any], drawn: list[tuple[int, list[int]]]) -> None:
    """Scores and log-probabilities, whatever is shared with whom; texts may be equal, or begin one another."""
    classifier, policy = models
    some = [PROMPTS[prompt] + rest for prompt, rest in drawn]
    with torch.no_grad():
        expected = torch.cat([alone(classifier, text, None) for text in some])
        torch.testing.assert_close(together(classifier, lay_out(some)), expected, atol=1e-4, rtol=0)
        some = [text for text in some if len(text) > 1]
        if some:
            expected = torch.cat([alone(policy, text, 1) for text in some])
            found = together(policy, lay_out(some, [1] * len(some)))
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def models(tiny: Path) -> tuple[Any, Any]:
    pair_of_models = lora_model(tiny, "SEQ_CLS").eval(), load_causal_lm(find_model(str(tiny))).eval()
    for model in pair_of_models:
        take_shared(model)
    return pair_of_models


@pytest.fixture()
def one_process_group() -> Iterator[None]:
    import torch.distributed as dist

    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_through_ddp(tiny: Path, one_process_group: None) -> None:
    """The scores come out of the wrapped model's own forward, so its gradients are averaged over the processes."""
    model = lora_model(tiny, "SEQ_CLS")
    assert_same(model, None)
    wrapped = torch.nn.parallel.DistributedDataParallel(model)
    assert why_not(wrapped, TEXTS, exact=True) == ""
    wrapped(shared=lay_out(TEXTS)).sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


# --- what can't

# layers of attention, and layers with a state that runs on from text to text
JAMBA = {
    "intermediate_size": 16,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "num_experts": 2,
    "mamba_d_state": 4,
    "mamba_dt_rank": 2,
}


def test_a_recurrent_model_is_found_out() -> None:
    model = random_model("jamba", **JAMBA)
    take_shared(model)
    assert "off by" in why_not(model, TEXTS, STARTS, exact=True)
    assert not model.training


def test_a_trace_of_another_text_is_found_where_numbers_are_rough() -> None:
    """Smaller than bf16's own errors are: but what those are does not hang on another text's tokens."""
    model = random_model("jamba", **JAMBA, initializer_range=0.1).bfloat16()
    take_shared(model)
    assert "sees the one before it" in why_not(model, TEXTS, STARTS, exact=False)


def test_flash_attention_takes_none(tiny: Path) -> None:
    model = load_causal_lm(find_model(str(tiny)))
    model.config._attn_implementation = "flash_attention_2"
    with pytest.raises(NotImplementedError, match="flash_attention_2"):
        take_shared(model)


def test_a_model_is_tried_on_the_longest_text_and_on_who_shares_with_it() -> None:
    assert hardest(TEXTS) == [TEXTS[3], TEXTS[0], TEXTS[1], TEXTS[5]]
    assert hardest([[3, 4]]) == [[3, 4]]


# --- in a reward run


@pytest.mark.parametrize("loss_type", ["bradley_terry", "plackett_luce"])
def test_a_reward_run_has_the_plain_path_s_losses_and_metrics(loss_type: str, preferences: Path, tiny: Path,
                                                              tmp_path: Path) -> None:  # fmt: skip
    keys = {**TRAIN, "loss_type": loss_type, "center_rewards_coefficient": 0.1, "per_device_train_batch_size": 4}
    trainer = trainer_of(tmp_path, tiny, preferences, **keys)
    shared = losses_of(trainer), trainer.means.take(trainer)
    assert trainer.sharing.why == ""
    trainer.sharing.why = "to see what the plain path says"
    plain = losses_of(trainer), trainer.means.take(trainer)
    assert len(plain[0]) > 2
    for one, other in zip(shared[0], plain[0], strict=True):
        assert one.item() == pytest.approx(other.item(), abs=1e-4)
    assert shared[1] == pytest.approx(plain[1], abs=1e-4)


def test_a_run_says_when_it_takes_the_plain_path(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    random_model("jamba", vocab_size=len(tokenizer), **JAMBA).save_pretrained(tmp_path / "jamba")
    tokenizer.save_pretrained(tmp_path / "jamba")
    keys = {**TRAIN, "model_name_or_path": str(tmp_path / "jamba"), "dataset_name": str(pairs_file)}
    said = done("reward", write_recipe(tmp_path / "r.yaml", **keys), "--output_dir", tmp_path / "run")
    assert said.err.count("prompts are encoded anew for each response") == 1
    keys["model_name_or_path"] = str(tiny)
    said = done("reward", write_recipe(tmp_path / "r.yaml", **keys), "--output_dir", tmp_path / "tiny-run")
    assert "encoded anew" not in said.err
