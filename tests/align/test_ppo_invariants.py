"""What must hold whatever the weights: ratio 1 and KL 0 at the start, and one gradient however the work is cut."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

from align.models.load import find_model, load_causal_lm, load_tokenizer
from align.models.logprobs import last_states, response_logprobs, to_rows
from align.ppo.advantages import gae, kl_estimate, token_rewards, whiten
from align.ppo.rollout import Batch, Rollout, make_rollouts, to_batch
from tests.align.conftest import PROMPTS, ppo_gradients, ppo_trainer
from tests.align.test_logprobs import random_model
from tests.align.test_rewards import length

KINDS = ["new adapter", "old adapter", "whole models", "4-bit base"]


@pytest.fixture(scope="module")
def dropping(tiny: Path, reward_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The tiny model and its reward run, with dropout in the base's attention and in the run's adapter."""
    home = tmp_path_factory.mktemp("dropping")
    for old, new, file, more in (
        (tiny, home / "base", "config.json", {"attention_dropout": 0.5}),
        (reward_run, home / "reward", "adapter_config.json", {"base_model_name_or_path": str(home / "base")}),
    ):
        shutil.copytree(old, new)
        config = json.loads((new / file).read_text())
        (new / file).write_text(json.dumps({**config, "lora_dropout": 0.5, **more}))
    return home / "base", home / "reward"


@pytest.fixture()
def make(dropping: tuple[Path, Path], tmp_path: Path) -> Any:
    """Makes trainers of each kind. Everything there is has a dropout of 0.5."""
    from trl import ModelConfig

    base, reward_run = dropping

    def make(kind: str, reward: Any = reward_run, **keys: Any) -> Any:
        if kind == "4-bit base":
            keys["model_args"] = ModelConfig(load_in_4bit=True, use_peft=True, dtype="float32")
        model = old_adapter(base, tmp_path / "old") if kind == "old adapter" else base
        return ppo_trainer(model, reward, tmp_path, whole=kind == "whole models", dropout=0.5, **keys)

    return make


def old_adapter(tiny: Path, folder: Path) -> Path:
    """An adapter that has moved away from its base."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, lora_dropout=0.5, target_modules="all-linear")
    model = get_peft_model(load_causal_lm(find_model(str(tiny))), lora)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)
    model.save_pretrained(str(folder))
    return folder


def move(trainer: Any) -> None:
    """Move policy and value, so that nothing is 0 by chance."""
    torch.manual_seed(4)
    with torch.no_grad():
        for name, p in trainer.learner.parameters.items():
            p += (0.1 if "lora_B" in name or "value_head" in name else 0.01) * torch.randn_like(p)


def learning(trainer: Any, rollouts: list[Rollout]) -> tuple[Batch, torch.Tensor, torch.Tensor]:
    """What the trainer makes of rollouts: their tensors, advantages and returns."""
    batch = to_batch(rollouts, "cpu")
    kl = kl_estimate(batch.logprobs, batch.reference, "k1")
    advantages, returns = gae(token_rewards(batch.scores, kl, batch.mask, 0.05), batch.values, batch.mask, 1.0, 0.95)
    return batch, whiten(advantages, batch.mask, shift_mean=True), returns


def gradients(trainer: Any, rollouts: list[Rollout], **keys: Any) -> dict[str, torch.Tensor]:
    for key, value in keys.items():
        setattr(trainer.args, key, value)
    return ppo_gradients(trainer, rollouts, *learning(trainer, rollouts), kl_coef=0.05)


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor], atol: float = 1e-6) -> None:
    assert first.keys() == second.keys()
    assert max(gradient.abs().max() for gradient in first.values()) > 0.01
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=atol, rtol=1e-4)


def logprobs_again(trainer: Any, rollouts: list[Rollout], role: str = "policy") -> list[torch.Tensor]:
    """Each rollout's log-probabilities, looked at alone."""
    found = []
    for rollout in rollouts:
        rows = to_rows([rollout.prompt], [rollout.response], "cpu")
        with torch.no_grad():
            states = trainer.roles.states(role, rows.ids)
            found.append(trainer.roles.logprobs(role, states, rows, trainer.args.temperature)[0][0])
    return found


# --- Before the first update ---


@pytest.mark.parametrize("kind", KINDS)
def test_before_the_first_update_ratio_is_one_and_kl_zero(kind: str, make: Any) -> None:
    """With a dropout of 0.5: one forward in train mode would show."""
    trainer = make(kind, per_device_train_batch_size=1)
    rollouts = trainer._roll_out(1)
    assert [rollout.reference for rollout in rollouts] == [rollout.logprobs for rollout in rollouts]
    for rollout, again in zip(rollouts, logprobs_again(trainer, rollouts), strict=True):
        assert again.tolist() == rollout.logprobs, "in the same layout exactly"
    first = told_of_first_step(trainer, rollouts)
    assert (first["val/ratio"], first["policy/approxkl_avg"], first["policy/clipfrac_avg"]) == (1.0, 0.0, 0.0)
    for size in (3, 8):
        trainer.args.per_device_train_batch_size = size
        assert told_of_first_step(trainer, rollouts)["val/ratio"] == pytest.approx(1.0, abs=1e-5)
    trainer.roles.policy.train()
    dropped = logprobs_again(trainer, rollouts)
    assert (dropped[1] - torch.tensor(rollouts[1].logprobs)).abs().max() > 0.01, "there is dropout to leave out"


def told_of_first_step(trainer: Any, rollouts: list[Rollout]) -> dict[str, float]:
    """What the learner says of an update of a single step, which is not taken."""
    trainer.learner.optimizer.step = lambda: None
    trainer.learner.scheduler.step = lambda: None
    told: dict[str, float] = trainer.learner.learn(1, rollouts, *learning(trainer, rollouts), 0.05)
    return told


def test_reference_is_the_adapter_that_ppo_started_from(make: Any, tiny: Path) -> None:
    """Not its base; and it stays so while the policy moves."""
    trainer = make("old adapter")
    rollouts = trainer._roll_out(1)
    reference = [torch.tensor(rollout.reference) for rollout in rollouts]
    base = load_causal_lm(find_model(str(tiny))).eval()
    for rollout, theirs in zip(rollouts, reference, strict=True):
        rows = to_rows([rollout.prompt], [rollout.response], "cpu")
        with torch.no_grad():
            bare, _ = response_logprobs(base, last_states(base, rows.ids), rows, trainer.args.temperature)
        assert (bare[0] - theirs).abs().max() > 0.01
    move(trainer)
    for role, same in (("reference", True), ("policy", False)):
        after = logprobs_again(trainer, rollouts, role)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(after, reference, strict=True)) is same
    for last in ("reference", "policy", "reward_0"):  # PEFT trains whichever adapter is active
        trainer.roles.states(last, torch.tensor([[1, 2]]))
        trained = {name for name, p in trainer.roles.policy.named_parameters() if p.requires_grad}
        assert trained and not [name for name in trained if ".reference." in name or ".reward_" in name]


def test_a_reference_in_memory_is_a_copy(tiny: Path, tmp_path: Path) -> None:
    """Of the weights in memory, not of those that were once read from a folder; and so is the value model."""
    model = load_causal_lm(find_model(str(tiny)))
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight += 0.1
    tokenizer = load_tokenizer(find_model(str(tiny)))
    from align.ppo.config import PPOConfig
    from align.ppo.trainer import PPOTrainer

    rows = [{"prompt": prompt} for prompt in PROMPTS]
    model.config._name_or_path = ""
    model.name_or_path = ""
    args = PPOConfig(output_dir=str(tmp_path), use_cpu=True, total_episodes=5, batch_size=5, response_length=8)
    trainer = PPOTrainer(model, length, args, rows, processing_class=tokenizer)
    assert all(rollout.logprobs == rollout.reference for rollout in trainer._roll_out(1))
    players = trainer.roles.players
    assert players["policy"].model is model
    for role in ("reference", "value"):
        theirs = players[role].model.model.layers[0].mlp.up_proj.weight
        assert torch.equal(theirs, model.model.layers[0].mlp.up_proj.weight)
        assert theirs is not model.model.layers[0].mlp.up_proj.weight


def test_a_model_in_memory_leaves_the_reward_run_its_own_base(tiny: Path, reward_run: Path, tmp_path: Path) -> None:
    """Weights in memory need not be those of their name, on which the reward run stands."""
    model = load_causal_lm(find_model(str(tiny)))
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight += 0.1
    texts = ["red", "cat dog fox", "", "soup soup", "moon star"]
    expected = ppo_trainer(tiny, reward_run, tmp_path).setup.rewards(PROMPTS, texts).total
    found = ppo_trainer(model, reward_run, tmp_path).setup.rewards(PROMPTS, texts).total
    assert found == pytest.approx(expected, abs=1e-5)


# --- Values ---


@pytest.mark.parametrize("kind", ["new adapter", "whole models"])
def test_value_starts_as_the_reward_model_and_is_read_before_each_token(
    kind: str, make: Any, dropping: tuple[Path, Path]
) -> None:
    """The reward run's own head on the state before each token: what it would score the text that far."""
    from align.models.scores import load_scorer

    trainer = make(kind)
    model = load_scorer(str(dropping[1]), "cpu")
    for rollout in trainer._roll_out(1):
        with torch.no_grad():
            states = model.states(torch.tensor([rollout.prompt + rollout.response]))
            scores = model.head(states)[0, :, 0]
        before = len(rollout.prompt) - 1
        expected = scores[before : before + len(rollout.response)].tolist()
        assert rollout.values == pytest.approx(expected, abs=1e-5)
        assert len(rollout.response) == 1 or rollout.values != pytest.approx(expected[1:] + expected[:1], abs=1e-3)


def test_a_value_without_a_reward_run_starts_at_zero(make: Any) -> None:
    for kind in ("new adapter", "old adapter", "whole models"):
        for value in ("separate", "shared"):
            rollouts = make(kind, length, value=value)._roll_out(1)
            assert all(set(rollout.values) == {0.0} for rollout in rollouts)


def test_a_shared_value_is_read_from_the_policy_s_states(make: Any) -> None:
    trainer = make("old adapter", value="shared")
    move(trainer)
    assert trainer.learner.value.keys() == {"value_head.weight"}
    for rollout in trainer._roll_out(1):
        rows = to_rows([rollout.prompt], [rollout.response], "cpu")
        with torch.no_grad():
            states = trainer.roles.states("policy", rows.ids)[0, len(rollout.prompt) - 1 : -1]
            expected = trainer.roles.value_head(states).squeeze(-1)
        assert rollout.values == pytest.approx(expected.tolist(), abs=1e-5)


# --- However the work is cut ---


@pytest.mark.parametrize("value", ["separate", "shared"])
@pytest.mark.parametrize("kind", KINDS)
def test_micro_batch_size_does_not_change_the_update(kind: str, value: str, make: Any) -> None:
    trainer = make(kind, value=value, per_device_train_batch_size=8, entropy_coef=0.01)
    move(trainer)
    rollouts = trainer._roll_out(1)
    whole = gradients(trainer, rollouts)
    for size in (1, 2):
        assert_same(whole, gradients(trainer, rollouts, per_device_train_batch_size=size), atol=1e-5)
    assert_same(whole, gradients(trainer, rollouts[::-1], per_device_train_batch_size=3), atol=1e-5)
    # each role has its own gradient, and nobody else has any
    assert all(gradient.abs().max() > 0 for gradient in whole.values())
    trained = {id(p) for p in trainer.learner.parameters.values()}
    for player in trainer.roles.players.values():
        assert all(p.grad is None for p in player.model.parameters() if id(p) not in trained)
    assert roles_in(whole) == ({"policy", "value", "value_head"} if value == "separate" else {"policy", "value_head"})
    assert whole.keys() == trainer.learner.parameters.keys()


def roles_in(names: Any) -> set[str]:
    return {"value_head" if "value_head" in name else "policy" if "policy." in name else "value" for name in names}


def test_every_trainable_part_of_an_adapter_is_trained(tiny: Path, reward_run: Path, tmp_path: Path) -> None:
    """Those of embeddings and heads, too, and modules that are trained whole; each belongs to one role."""
    trainer = ppo_trainer(
        tiny, length, tmp_path, target_modules=["embed_tokens", "v_proj"], modules_to_save=["lm_head"]
    )
    move(trainer)
    found = gradients(trainer, trainer._roll_out(1))
    for role in ("policy", "value"):
        kinds = {name.split(f".{role}")[0].split(".")[-1] for name in found if f".{role}" in name}
        assert kinds >= {"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B"}
        assert ("modules_to_save" in kinds) == (role == "policy")
    assert not trainer.learner.policy.keys() & trainer.learner.value.keys()
    trained = {id(p) for p in trainer.learner.parameters.values()}
    left = {name for name, p in trainer.roles.policy.named_parameters() if p.requires_grad and id(p) not in trained}
    assert left == {"base_model.model.lm_head.modules_to_save.value.weight"}, "the value model says no words"


@pytest.mark.parametrize("kind", ["new adapter", "whole models"])
def test_padding_does_not_change_the_update(kind: str, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rollouts with junk ids to the right of every row, and NaN in every quantity outside the mask."""
    import align.ppo.learn as learn

    trainer = make(kind, entropy_coef=0.01, kl_in="loss", kl_estimator="k3")
    move(trainer)
    rollouts = trainer._roll_out(1)
    assert len({len(rollout.response) for rollout in rollouts}) > 1
    batch, advantages, returns = learning(trainer, rollouts)
    plain = ppo_gradients(trainer, rollouts, batch, advantages, returns, kl_coef=0.05)

    def with_junk(prompts: Any, responses: Any, device: Any) -> Any:
        rows = to_rows(prompts, responses, device)
        ids = torch.nn.functional.pad(rows.ids, (0, 5))
        lengths = torch.tensor([len(p) + len(r) for p, r in zip(prompts, responses, strict=True)])
        beyond = torch.arange(ids.shape[1]) >= lengths[:, None]
        assert beyond.any()
        return rows._replace(ids=torch.where(beyond, torch.randint(3, 300, ids.shape), ids))

    monkeypatch.setattr(learn, "to_rows", with_junk)
    tensors = (batch.logprobs, batch.reference, batch.values, advantages, returns)
    logprobs, reference, values, advantages, returns = (torch.where(batch.mask, t, torch.nan) for t in tensors)
    dirty = batch._replace(logprobs=logprobs, reference=reference, values=values)
    assert_same(plain, ppo_gradients(trainer, rollouts, dirty, advantages, returns, kl_coef=0.05), atol=1e-5)


@pytest.mark.parametrize("kind", ["new adapter", "whole models"])
def test_a_rollout_is_the_same_in_any_batch(kind: str, make: Any) -> None:
    """Alone, with the others, in another order, and however many are sampled and looked at together."""
    trainer = make(kind, response_length=20, temperature=1.3)
    move(trainer)

    def roll_out(numbers: list[int], **keys: Any) -> list[Rollout]:
        args = dataclasses.replace(trainer.args, **keys)
        prompts = trainer.setup.prompts.take(numbers)
        roles = (trainer.roles, trainer.tokenizer, trainer.setup.rewards)
        return make_rollouts(*roles, prompts, numbers, [100 + n for n in numbers], args)

    alone = [roll_out([number])[0] for number in range(5)]
    assert len({len(rollout.response) for rollout in alone}) > 2
    for numbers, rolled, learnt in (([0, 1, 2, 3, 4], 64, 8), ([3, 0, 4, 1], 2, 2), ([4, 3, 2, 1, 0], 3, 1)):
        together = roll_out(numbers, per_device_rollout_batch_size=rolled, per_device_train_batch_size=learnt)
        for number, rollout in zip(numbers, together, strict=True):
            one = alone[number]
            assert (rollout.number, rollout.turns, rollout.prompt) == (one.number, one.turns, one.prompt)
            assert (rollout.response, rollout.text, rollout.ended) == (one.response, one.text, one.ended)
            assert rollout.score == pytest.approx(one.score, abs=1e-5)
            for name in ("logprobs", "reference", "values", "entropy"):
                assert getattr(rollout, name) == pytest.approx(getattr(one, name), abs=2e-5)
            assert rollout.logprobs != pytest.approx(rollout.reference, abs=1e-3)


@pytest.mark.parametrize("value", ["separate", "shared"])
@pytest.mark.parametrize("kind", KINDS)
def test_activation_checkpointing_changes_no_gradient(kind: str, value: str, make: Any) -> None:
    """It really recomputes: layers run twice a step, not once."""
    trainer = make(kind, value=value)
    move(trainer)
    rollouts = trainer._roll_out(1)
    runs = []
    layers = [m for m in trainer.roles.policy.modules() if isinstance(m, GradientCheckpointingLayer)]
    layers[0].input_layernorm.register_forward_hook(lambda *_: runs.append(1))
    kept = gradients(trainer, rollouts)
    once = len(runs)
    assert_same(kept, gradients(trainer, rollouts, activation_checkpointing=True), atol=1e-6)
    assert once > 0
    assert len(runs) == 3 * once
    gradients(trainer, rollouts, activation_checkpointing=False)
    assert len(runs) == 4 * once, "and it is over when it is over"


def test_activation_checkpointing_lets_no_layer_drop_out(tiny: Path, tmp_path: Path) -> None:
    """OPT's layers drop out by themselves, not by modules in them: transformers' own checkpointing would wake that."""
    from align.ppo.config import PPOConfig
    from align.ppo.trainer import PPOTrainer

    sizes: dict[str, Any] = {"vocab_size": 400, "ffn_dim": 32, "word_embed_proj_dim": 16, "dropout": 0.5}
    model = random_model("opt", **sizes, initializer_range=0.05)
    tokenizer = load_tokenizer(find_model(str(tiny)))
    args = PPOConfig(output_dir=str(tmp_path), use_cpu=True, total_episodes=5, batch_size=5, response_length=8)
    args.num_ppo_epochs = 1
    trainer = PPOTrainer(model, length, args, [{"prompt": p} for p in PROMPTS], processing_class=tokenizer)
    rollouts = trainer._roll_out(1)
    assert_same(gradients(trainer, rollouts), gradients(trainer, rollouts, activation_checkpointing=True))


def test_one_update_is_the_same_however_the_work_is_cut(tiny: Path, reward_run: Path, tmp_path: Path) -> None:
    """Two whole updates: sampling, scoring, four steps each."""
    ends = []
    for sampled, learnt, recompute in ((64, 8, False), (1, 1, False), (3, 2, True)):
        keys: dict[str, Any] = {"per_device_rollout_batch_size": sampled, "per_device_train_batch_size": learnt}
        keys |= {"activation_checkpointing": recompute, "num_mini_batches": 2, "num_ppo_epochs": 2, "batch_size": 6}
        keys |= {"total_episodes": 12, "learning_rate": 3e-3, "target_kl": 10.0, "report_to": "none"}
        trainer = ppo_trainer(tiny, reward_run, tmp_path / f"{sampled}", **keys)
        trainer.train()
        ends.append({name: p.detach().clone() for name, p in trainer.learner.parameters.items()})
    start = ppo_trainer(tiny, reward_run, tmp_path).learner.parameters
    assert max((ends[0][name] - p).abs().max() for name, p in start.items()) > 5e-3
    for other in ends[1:]:
        for name in ends[0]:
            torch.testing.assert_close(ends[0][name], other[name], atol=2e-5, rtol=1e-3)


def test_log_probabilities_are_at_the_temperature_of_sampling(make: Any) -> None:
    trainer = make("new adapter", temperature=0.6)
    inner = trainer.roles.policy.get_base_model()
    for rollout in trainer._roll_out(1):
        rows = to_rows([rollout.prompt], [rollout.response], "cpu")
        with torch.no_grad(), trainer.roles.acting("policy"):
            expected, entropy = response_logprobs(inner, last_states(inner, rows.ids), rows, 0.6, entropy=True)
        assert entropy is not None
        assert rollout.logprobs == pytest.approx(expected[0].tolist(), abs=1e-6)
        assert rollout.entropy == pytest.approx(entropy[0].tolist(), abs=1e-5)
