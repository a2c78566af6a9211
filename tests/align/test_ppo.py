"""PPO's invariants on a real (tiny) model, and the loop itself."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig

from align.models.load import find_model, load_causal_lm, load_reward_model, load_tokenizer
from align.models.roles import Roles
from align.models.sampling import until_end
from align.models.scores import conversation_ids, reward_scores
from align.ppo.advantages import gae, token_rewards
from align.ppo.config import PPOConfig
from align.ppo.rollout import make_rollouts
from align.ppo.scoring import score_texts
from align.ppo.trainer import _backward, batch_of_prompts, run_ppo

PROMPTS = [[{"role": "user", "content": f"Say {word}."}] for word in ("red", "a cat and a dog", "sun", "soup", "moon")]
TEXTS = ["red", "cat dog fox", "", "soup soup soup soup soup soup", "moon star"]


@pytest.fixture()
def roles(tiny: Path, reward_run: Path) -> Roles:
    torch.manual_seed(0)
    policy = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", lora_dropout=0.5)
    return Roles(load_causal_lm(find_model(str(tiny))), policy, str(reward_run))


@pytest.fixture()
def tokenizer(tiny: Path) -> Any:
    return load_tokenizer(find_model(str(tiny)))


def rollouts_of(roles: Roles, tokenizer: Any, batch_size: int = 2) -> Any:
    torch.manual_seed(1)
    return make_rollouts(
        roles,
        tokenizer,
        PROMPTS,
        response_length=8,
        temperature=0.9,
        missing_eos_penalty=None,
        batch_size=batch_size,
    )


def test_ppo_scores_a_text_as_the_reward_run_does(roles: Roles, tokenizer: Any, reward_run: Path) -> None:
    """Three ways to one number: PPO's reward role, our evaluation, and transformers' own forward pass, alone."""
    by_ppo = score_texts(roles, tokenizer, PROMPTS, TEXTS, batch_size=3)
    alone = load_reward_model(find_model(str(reward_run))).eval()
    by_evaluation = reward_scores(alone, tokenizer, list(zip(PROMPTS, TEXTS, strict=True)), batch_size=2)
    by_transformers = []
    for prompt, text in zip(PROMPTS, TEXTS, strict=True):
        ids = torch.tensor([conversation_ids(tokenizer, prompt, text)])
        with torch.no_grad():
            by_transformers.append(alone(input_ids=ids).logits.item())
    assert by_ppo.tolist() == pytest.approx(by_transformers, abs=1e-5)
    assert by_evaluation == pytest.approx(by_transformers, abs=1e-5)
    assert by_ppo.std() > 0.1, "a reward model that says the same of everything would pass, too"


def test_scores_do_not_depend_on_what_pads(roles: Roles, tokenizer: Any) -> None:
    """Pad = eos, as many tokenizers have it, moves transformers' pooling; a mask does not move."""
    scores = score_texts(roles, tokenizer, PROMPTS, TEXTS, batch_size=5)
    tokenizer.pad_token = tokenizer.eos_token
    assert score_texts(roles, tokenizer, PROMPTS, TEXTS, batch_size=5).tolist() == scores.tolist()


def test_the_template_ends_a_turn_with_a_line_break(tokenizer: Any) -> None:
    """The case that the invariant above is about: generation stops before the token that the reward run pools at."""
    ids = conversation_ids(tokenizer, PROMPTS[0], "red")
    assert ids[-2] == tokenizer.eos_token_id
    assert tokenizer.decode(ids[-1:]) == "\n"


def test_before_the_first_update_ratio_is_one_and_kl_zero(roles: Roles, tokenizer: Any) -> None:
    rollouts = rollouts_of(roles, tokenizer)
    assert torch.equal(rollouts.logprobs, rollouts.reference_logprobs)
    with torch.no_grad():
        again, _ = roles.logprobs("policy", rollouts.ids, rollouts.mask, rollouts.response_mask.shape[1], 0.9)
    ratio = (again - rollouts.logprobs).exp()[rollouts.response_mask]
    assert ratio.tolist() == pytest.approx([1.0] * len(ratio), abs=1e-5)


def test_reference_is_the_adapter_that_ppo_started_from(
    tiny: Path, reward_run: Path, tokenizer: Any, tmp_path: Path
) -> None:
    start = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear", init_lora_weights=False)
    first = Roles(load_causal_lm(find_model(str(tiny))), start, str(reward_run))
    first.save_policy(tmp_path)
    roles = Roles(load_causal_lm(find_model(str(tiny))), str(tmp_path), str(reward_run))
    rollouts = rollouts_of(roles, tokenizer)
    assert torch.equal(rollouts.logprobs, rollouts.reference_logprobs)
    with roles.model.disable_adapter(), torch.no_grad():
        from align.models.sampling import response_logprobs

        bare, _ = response_logprobs(roles.model, rollouts.ids, rollouts.mask, rollouts.response_mask.shape[1], 0.9)
    assert not torch.allclose(bare, rollouts.reference_logprobs, atol=1e-3)
    assert not [n for n, p in roles.model.named_parameters() if p.requires_grad and ".reference." in n]


def test_value_starts_as_the_reward_model_and_is_read_before_each_token(roles: Roles, tokenizer: Any) -> None:
    rollouts = rollouts_of(roles, tokenizer)
    length = rollouts.response_mask.shape[1]
    with torch.no_grad():
        states = roles.hidden("reward", rollouts.ids, rollouts.mask)
        expected = roles.score_head(states).squeeze(-1)[:, -length - 1 : -1]  # shifted by one: not yet said
    torch.testing.assert_close(rollouts.values, expected, atol=1e-5, rtol=1e-5)


def test_a_response_ends_with_its_first_end_token() -> None:
    tokens = torch.tensor([[5, 6, 2, 2, 7], [5, 6, 7, 8, 9], [3, 5, 2, 0, 0]])
    mask, ended = until_end(tokens, [2, 3])  # some models have several end tokens
    assert mask.tolist() == [[True, True, True, False, False], [True] * 5, [True, False, False, False, False]]
    assert ended.tolist() == [True, False, True]


def test_not_ending_costs_the_penalty(roles: Roles, tokenizer: Any) -> None:
    free, fined = (
        make_rollouts_of_two_tokens(roles, tokenizer, missing_eos_penalty=penalty) for penalty in (None, 3.0)
    )
    assert not free.ended.all()
    assert (free.scores - fined.scores).tolist() == pytest.approx([3.0 * (not ended) for ended in free.ended])


def make_rollouts_of_two_tokens(roles: Roles, tokenizer: Any, missing_eos_penalty: float | None) -> Any:
    torch.manual_seed(3)
    return make_rollouts(
        roles,
        tokenizer,
        PROMPTS,
        response_length=2,
        temperature=1.0,
        missing_eos_penalty=missing_eos_penalty,
        batch_size=5,
    )


def gradients(roles: Roles, rollouts: Any, splits: list[list[int]]) -> dict[str, torch.Tensor]:
    args = PPOConfig(output_dir="", reward_model_path="", dataset_name="", temperature=0.9)
    mask = rollouts.response_mask
    rewards = token_rewards(rollouts.scores, rollouts.logprobs, rollouts.reference_logprobs, mask, 0.05)
    advantages, returns = gae(rewards, rollouts.values, mask, 1.0, 0.95)
    everything = roles.parameters_of("policy") | roles.parameters_of("value")
    for rows in splits:
        _backward(roles, rollouts, advantages, returns, torch.tensor(rows), float(mask.sum()), args)
    found = {name: p.grad.clone() for name, p in everything.items() if p.grad is not None}
    for p in everything.values():
        p.grad = None
    return found


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=1e-5, rtol=1e-4)


def test_micro_batch_size_does_not_change_the_update(roles: Roles, tokenizer: Any) -> None:
    rollouts = rollouts_of(roles, tokenizer)
    whole = gradients(roles, rollouts, [[0, 1, 2, 3, 4]])
    assert_same(whole, gradients(roles, rollouts, [[0], [1], [2], [3], [4]]))
    assert_same(whole, gradients(roles, rollouts, [[3, 1], [4, 0, 2]]))
    # both roles have their own gradient, and nobody else has any
    assert any(".policy." in n and g.abs().max() > 0 for n, g in whole.items())
    assert any(".value." in n and g.abs().max() > 0 for n, g in whole.items())
    assert whole["value_head.weight"].abs().max() > 0
    assert [n for n, p in roles.model.named_parameters() if p.grad is not None] == []


def test_padding_does_not_change_the_update(roles: Roles, tokenizer: Any) -> None:
    """The same rollouts with junk tokens of padding on both sides, and junk in every quantity over them."""
    rollouts = rollouts_of(roles, tokenizer)
    rows = len(PROMPTS)

    def widen(tensor: torch.Tensor, left: int, right: int, fill: float) -> torch.Tensor:
        return torch.nn.functional.pad(tensor, (left, right), value=fill)

    wider = rollouts._replace(
        ids=widen(rollouts.ids, 3, 4, 7),
        mask=widen(rollouts.mask, 3, 4, 0),
        response_mask=widen(rollouts.response_mask, 0, 4, False),
        logprobs=widen(rollouts.logprobs, 0, 4, -9.0),
        reference_logprobs=widen(rollouts.reference_logprobs, 0, 4, -1.0),
        values=widen(rollouts.values, 0, 4, 5.0),
    )
    plain, padded = gradients(roles, rollouts, [list(range(rows))]), gradients(roles, wider, [list(range(rows))])
    assert_same(plain, padded)


def test_every_prompt_comes_once_an_epoch() -> None:
    numbers = [n for update in range(1, 7) for n in batch_of_prompts(9, update, 3, seed=5)]
    assert sorted(numbers[:9]) == sorted(numbers[9:]) == list(range(9))
    assert numbers[:9] != numbers[9:]


def ppo_recipe(tiny: Path, reward_run: Path, folder: Path, prompts: Path) -> dict[str, Any]:
    return {
        "model_name_or_path": str(tiny),
        "reward_model_path": str(reward_run),
        "dataset_name": str(prompts),
        "output_dir": str(folder),
        "use_peft": True,
        "lora_r": 4,
        "total_episodes": 192,
        "batch_size": 16,
        "num_mini_batches": 2,
        "num_ppo_epochs": 2,
        "response_length": 12,
        "temperature": 1.0,
        "learning_rate": 5e-3,
        "kl_coef": 0.01,
        "save_steps": 2,
        "use_cpu": True,
    }


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    return path


@pytest.fixture(scope="module")
def ppo_run(tiny: Path, reward_run: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "ppo"
    run_ppo(ppo_recipe(tiny, reward_run, folder, prompts), "ppo.yaml")
    return folder


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_ppo_raises_the_score(ppo_run: Path) -> None:
    rows = metrics(ppo_run)
    assert [row["step"] for row in rows] == list(range(1, 13))
    scores = [row["objective/scores"] for row in rows]
    assert sum(scores[-3:]) / 3 > sum(scores[:3]) / 3 + 0.5
    assert rows[0]["objective/kl"] == 0.0
    assert rows[-1]["objective/kl"] > 0.0


def test_the_policy_is_an_adapter_that_everything_reads(ppo_run: Path, tiny: Path) -> None:
    source = find_model(str(ppo_run))
    assert (source.adapter, source.base) == (str(ppo_run), str(tiny))
    model = load_causal_lm(source)
    assert [name for name, _ in model.named_parameters() if "lora_B.default" in name]
    manifest = json.loads((ppo_run / "manifest.json").read_text())
    assert manifest["status"] == "finished"
    assert [parent["verb"] for parent in manifest["parents"]] == ["reward"]


def test_a_killed_run_resumes_to_the_same_weights(
    ppo_run: Path, tiny: Path, reward_run: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load_file

    import align.ppo.trainer as trainer

    recipe = ppo_recipe(tiny, reward_run, tmp_path / "ppo", prompts)
    make = trainer.make_rollouts
    calls = []

    def die_in_the_sixth(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return make(*args, **kwargs)

    monkeypatch.setattr(trainer, "make_rollouts", die_in_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        run_ppo(recipe, "ppo.yaml")
    assert len(metrics(tmp_path / "ppo")) == 5  # the last checkpoint is of update 4
    monkeypatch.undo()
    run_ppo(recipe, "ppo.yaml", resume=True)
    assert [row["step"] for row in metrics(tmp_path / "ppo")] == list(range(1, 13))
    unbroken, resumed = (load_file(f / "adapter_model.safetensors") for f in (ppo_run, tmp_path / "ppo"))
    for name in unbroken:
        torch.testing.assert_close(unbroken[name], resumed[name], atol=1e-6, rtol=1e-5)
