"""Log-probabilities of responses: those of the model's own forward pass, and their gradients autograd's."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import align.models.logprobs as logprobs_of
from align.models.load import find_model, load_causal_lm
from align.models.logprobs import Head, Rows, _FrozenHead, check_head, last_states, response_logprobs, to_rows

PROMPTS = [[1, 17, 60, 9], [4, 5], [30, 31, 32, 33, 34, 35, 36], [7, 8, 9]]
RESPONSES = [[50, 51, 2], [40], [11, 12, 13, 14, 15], [60, 61, 62, 2]]
TEMPERATURE = 0.7


@pytest.fixture()
def model(tiny: Path) -> Any:
    return load_causal_lm(find_model(str(tiny))).eval()


def random_model(kind: str, **more: Any) -> Any:
    """A tiny model of another architecture, with random weights of such a size that its logits differ."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes: dict[str, Any] = {
        "vocab_size": 70,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "eos_token_id": None,
        "initializer_range": 0.5,
    }
    torch.manual_seed(5)
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**sizes, **more})).eval()


def plain(model: Any, temperature: float = TEMPERATURE) -> list[torch.Tensor]:
    """Each response's log-probabilities: one row at a time, no padding, log_softmax over all logits."""
    found = []
    for prompt, response in zip(PROMPTS, RESPONSES, strict=True):
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].float()
        table = (logits / temperature).log_softmax(-1)
        found.append(table.gather(-1, torch.tensor(response)[:, None]).squeeze(-1))
    return found


def ours(model: Any, *, entropy: bool = False) -> tuple[torch.Tensor, torch.Tensor | None, Rows]:
    rows = to_rows(PROMPTS, RESPONSES, "cpu")
    return *response_logprobs(model, last_states(model, rows.ids), rows, TEMPERATURE, entropy=entropy), rows


def assert_equal(found: torch.Tensor, expected: list[torch.Tensor], rows: Rows, atol: float = 1e-5) -> None:
    torch.testing.assert_close(found[rows.mask], torch.cat(expected), atol=atol, rtol=1e-5)
    assert (found[~rows.mask] == 0).all()


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def weighted(values: torch.Tensor) -> torch.Tensor:
    """A sum in which every value counts differently."""
    return (values * torch.linspace(-1, 1, len(values))).sum()


def test_rows_point_before_each_response_token() -> None:
    rows = to_rows([[5, 6, 7], [8]], [[1], [2, 3]], "cpu")
    assert rows.ids.tolist() == [[5, 6, 7, 1], [8, 2, 3, 0]]
    assert rows.mask.tolist() == [[True, False], [True, True]]
    assert rows.before.tolist() == [[2, 0], [0, 1]]
    assert rows.targets.tolist() == [[1, 0], [2, 3]]


@pytest.mark.parametrize("trained", [False, True], ids=["frozen head", "trained head"])
def test_log_probabilities_are_those_of_the_model_s_own_logits(model: Any, trained: bool) -> None:
    model.get_output_embeddings().weight.requires_grad_(trained)
    with torch.no_grad():
        found, _, rows = ours(model)
        assert_equal(found, plain(model), rows)
        assert not torch.allclose(found[rows.mask], torch.cat(plain(model, 1.0)), atol=0.1), "temperature counts"


@pytest.mark.parametrize("trained", [False, True], ids=["frozen head", "trained head"])
def test_gradients_are_those_of_the_plain_path(model: Any, trained: bool) -> None:
    """All of the model's, through the states; and through the head, too, where it is trained (and tied)."""
    model.requires_grad_(True)
    if not trained:
        frozen_copy(model)
    assert Head.of(model).frozen is not trained
    found, _, rows = ours(model)
    by_us = gradients(model, weighted(found[rows.mask]))
    by_autograd = gradients(model, weighted(torch.cat(plain(model))))
    assert by_us.keys() == by_autograd.keys()
    assert ("model.layers.0.mlp.up_proj.weight" in by_us) and ("lm_head.weight" not in by_us)
    for name in by_us:
        torch.testing.assert_close(by_us[name], by_autograd[name], atol=1e-4, rtol=1e-4)


def frozen_copy(model: Any) -> None:
    """Untie the head from the embeddings, and freeze it."""
    model.set_output_embeddings(copy.deepcopy(model.get_output_embeddings()).requires_grad_(False))


def test_entropy_has_a_gradient_under_both_heads(model: Any) -> None:
    model.requires_grad_(True)
    found = []
    for freeze in (False, True):
        if freeze:
            frozen_copy(model)
        _, entropy, rows = ours(model, entropy=True)
        assert entropy is not None
        gradient = gradients(model, weighted(entropy[rows.mask]))
        found.append(gradient["model.layers.0.self_attn.v_proj.weight"])
    logits = torch.cat(
        [
            model(input_ids=torch.tensor([p + r])).logits[0, len(p) - 1 : -1]
            for p, r in zip(PROMPTS, RESPONSES, strict=True)
        ]
    )
    by_torch = torch.distributions.Categorical(logits=logits / TEMPERATURE).entropy()
    torch.testing.assert_close(entropy[rows.mask], by_torch, atol=1e-5, rtol=1e-5)
    expected = gradients(model, weighted(by_torch))["model.layers.0.self_attn.v_proj.weight"]
    assert expected.abs().max() > 0.01
    for gradient in found:
        torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("bias", [False, True])
def test_the_frozen_head_s_gradient_is_the_numerical_one(bias: bool) -> None:
    """torch's gradcheck. The head computes in fp32 whatever comes in, so steps are large."""
    torch.manual_seed(0)
    states, weight = torch.randn(5, 3, dtype=torch.float64), torch.randn(11, 3, dtype=torch.float64)
    shift = torch.randn(11, dtype=torch.float64) if bias else None
    targets = torch.tensor([0, 3, 10, 7, 3])

    def head(states: torch.Tensor) -> torch.Tensor:
        return _FrozenHead.apply(states, weight, shift, targets, 0.6, True)[0]

    assert torch.autograd.gradcheck(head, states.requires_grad_(True), eps=1e-2, atol=1e-3, rtol=1e-3)


def test_a_trained_head_and_its_frozen_copy_agree_to_the_last_bit(model: Any) -> None:
    """So policy and reference say the same before the first update, and old and new log-probabilities do."""
    with torch.no_grad():
        old, _, _ = ours(model)
        old_with_entropy, _, _ = ours(model, entropy=True)
    new, _, _ = ours(model.requires_grad_(True))
    frozen_copy(model)
    with torch.no_grad():
        reference, _, _ = ours(model)
    assert old.tolist() == old_with_entropy.tolist() == new.tolist() == reference.tolist()


@pytest.mark.parametrize("trained", [False, True], ids=["frozen head", "trained head"])
def test_chunks_change_nothing(model: Any, trained: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model.requires_grad_(True)
    if not trained:
        frozen_copy(model)
    found = []
    looks = []
    for at_once in (logprobs_of._LOGITS_AT_ONCE, 3 * len(model.get_output_embeddings().weight), 1):
        monkeypatch.setattr(logprobs_of, "_LOGITS_AT_ONCE", at_once)
        split = torch.Tensor.split
        monkeypatch.setattr(torch.Tensor, "split", lambda t, n, s=split: looks.append(len(s(t, n))) or s(t, n))
        logprobs, entropy, rows = ours(model, entropy=True)
        monkeypatch.setattr(torch.Tensor, "split", split)
        assert entropy is not None
        loss = weighted(logprobs[rows.mask]) + weighted(entropy[rows.mask])
        found.append((logprobs, entropy, gradients(model, loss)["model.layers.0.mlp.up_proj.weight"]))
    assert looks == [1, 1, 5, 5, 13, 13], "thirteen tokens, in chunks of all, of three, and one by one"
    for other in found[1:]:
        for first, second in zip(found[0], other, strict=True):
            torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)


HEADS: dict[str, dict[str, Any]] = {
    "llama": {},
    "gemma2": {"final_logit_softcapping": 3.0, "query_pre_attn_scalar": 8},
    "gemma3_text": {"final_logit_softcapping": 3.0},
    "granite": {"logits_scaling": 5.0},
    "cohere": {"logit_scale": 0.3},
    "cohere2": {"logit_scale": 0.3},
}


@pytest.mark.parametrize("trained", [False, True], ids=["frozen head", "trained head"])
@pytest.mark.parametrize("kind", HEADS)
def test_heads_that_scale_and_cap(kind: str, trained: bool) -> None:
    model = random_model(kind, **HEADS[kind]).requires_grad_(True)
    if not trained:
        frozen_copy(model)
    assert check_head(model)
    found, _, rows = ours(model)
    expected = plain(model)
    assert_equal(found, expected, rows)
    by_us = gradients(model, weighted(found[rows.mask]))
    by_autograd = gradients(model, weighted(torch.cat(plain(model))))
    for name in by_us:
        torch.testing.assert_close(by_us[name], by_autograd[name], atol=1e-3, rtol=1e-3)
    if HEADS[kind]:  # without its factor the head would give something else
        (key,) = HEADS[kind].keys() & {"final_logit_softcapping", "logits_scaling", "logit_scale"}
        setattr(model.config, key, None if "soft" in key else 1.0)
        without, _, rows = ours(model)
        assert not torch.allclose(without[rows.mask], torch.cat(expected), atol=0.1)


def test_a_bias_in_the_head_counts(model: Any) -> None:
    head = model.get_output_embeddings()
    model.set_output_embeddings(nn.Linear(*head.weight.T.shape))
    model.get_output_embeddings().weight.data.copy_(head.weight)
    model.get_output_embeddings().requires_grad_(False)
    with torch.no_grad():
        found, _, rows = ours(model)
        assert_equal(found, plain(model), rows)


def test_a_head_that_does_more_is_noticed(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_head(model)
    forward = type(model).forward

    def shifted(self: Any, *args: Any, **kwargs: Any) -> Any:
        out = forward(self, *args, **kwargs)
        out.logits = out.logits + 0.1 * torch.arange(out.logits.shape[-1])
        return out

    monkeypatch.setattr(type(model), "forward", shifted)
    assert not check_head(model)


def test_states_are_those_before_the_token_whatever_pads(model: Any) -> None:
    """Junk to the right of each row, and more columns of it, change nothing at all."""
    rows = to_rows(PROMPTS, RESPONSES, "cpu")
    ids = nn.functional.pad(rows.ids, (0, 3))
    lengths = torch.tensor([len(p) + len(r) for p, r in zip(PROMPTS, RESPONSES, strict=True)])
    beyond = torch.arange(ids.shape[1]) >= lengths[:, None]
    junk = rows._replace(ids=torch.where(beyond, torch.randint(3, 60, ids.shape), ids))
    with torch.no_grad():
        clean, dirty = (response_logprobs(model, last_states(model, r.ids), r, 1.0)[0] for r in (rows, junk))
    torch.testing.assert_close(clean, dirty, atol=1e-5, rtol=1e-5)
