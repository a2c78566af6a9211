"""What a run of PPO keeps: the best policy within its budget, nothing that is not finite, and all it needs to go on."""

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback

import align.ppo.learn as learn
import align.ppo.record as record
import align.ppo.trainer as loop
from align.models.load import find_model, load_causal_lm, load_tokenizer, weights_of
from align.run.checkpoint import checkpoints
from align.run.stopping import stoppable
from preferences.errors import BadInput
from tests.align.conftest import ppo_trainer
from tests.align.test_ppo import manifest, metrics


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture takes longer than an update of the tiny model."""
    monkeypatch.setattr(record, "draw_ppo", lambda *_, **__: None)


def says_o(completions: list[Any], **_: Any) -> list[float]:
    return [float(completion[0]["content"].count("o")) for completion in completions]


def test_the_run_ends_with_the_best_policy_within_the_budget(tiny: Path, tmp_path: Path) -> None:
    """Which is neither the first nor the last, nor the best without a budget."""
    keys: dict[str, Any] = {"total_episodes": 96, "batch_size": 16, "learning_rate": 1e-2, "kl_coef": 0.0}
    keys |= {"eval_steps": 1, "kl_budget": 0.1, "num_ppo_epochs": 2, "response_length": 6, "save_steps": 4}
    trainer = ppo_trainer(tiny, says_o, tmp_path / "run", **keys)
    trainer.train()
    looks = [row for row in metrics(tmp_path / "run") if "eval/scores" in row]
    assert [row["step"] for row in looks] == list(range(7))
    within = [row for row in looks if row["eval/kl"] <= 0.1]
    best = max(within, key=lambda row: row["eval/scores"])
    assert 0 < best["step"] < 6
    assert best["eval/scores"] < max(row["eval/scores"] for row in looks)
    facts = {"step": best["step"], "scores": best["eval/scores"], "kl": best["eval/kl"]}
    assert manifest(tmp_path / "run")["best"] == facts
    kept = load_file(tmp_path / "run" / f"checkpoint-{best['step']}" / "parameters.safetensors")
    saved = load_file(tmp_path / "run" / "adapter_model.safetensors")
    for name, value in saved.items():
        assert torch.equal(value, kept[name.removeprefix("base_model.model.").replace(".weight", ".policy.weight")])


def test_patience_ends_a_run_without_a_new_best(tiny: Path, tmp_path: Path) -> None:
    """A reward that never changes: the start stays the best, and is what is kept."""
    trainer = ppo_trainer(
        tiny, lambda completions, **_: [1.0] * len(completions), tmp_path / "run", total_episodes=40, eval_steps=1,
        patience=2, kl_coef=0.0, learning_rate=1e-2,
    )  # fmt: skip
    trainer.train()
    assert [row["step"] for row in metrics(tmp_path / "run")] == [0, 1, 2]
    assert manifest(tmp_path / "run")["best"]["step"] == 0
    saved = load_file(tmp_path / "run" / "adapter_model.safetensors")
    assert all((value == 0).all() for name, value in saved.items() if "lora_B" in name)


def test_what_is_not_finite_stops_the_run_before_it_spoils_anything(
    tiny: Path, reward_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In update 2, epoch 2, mini-batch 1: the weights stay those of the step before, and the run can go on."""
    keys: dict[str, Any] = {"total_episodes": 12, "batch_size": 4, "num_ppo_epochs": 2, "num_mini_batches": 2}
    keys |= {"save_steps": 1, "learning_rate": 1e-3}
    before: list[dict[str, torch.Tensor]] = []  # the weights before each step
    policy_loss, accumulate = learn.policy_loss, learn.Learner._accumulate
    trainer = ppo_trainer(tiny, reward_run, tmp_path / "run", **keys)

    def count(*given: Any) -> Any:
        before.append({name: p.detach().clone() for name, p in trainer.learner.parameters.items()})
        return accumulate(*given)

    def poisoned(*given: Any) -> Any:
        found = policy_loss(*given)
        return found._replace(loss=found.loss * math.nan) if len(before) == 7 else found

    monkeypatch.setattr(learn.Learner, "_accumulate", count)
    monkeypatch.setattr(learn, "policy_loss", poisoned)
    sentence = r"run: update 2, epoch 2, mini-batch 1 \(2 responses, to 'Say .*: loss/policy_avg is not finite"
    with pytest.raises(BadInput, match=sentence):
        trainer.train()
    assert any(not torch.equal(before[-1][name], before[-2][name]) for name in before[-1])
    for name, p in trainer.learner.parameters.items():
        assert torch.equal(p, before[-1][name])
    monkeypatch.undo()
    assert manifest(tmp_path / "run")["status"] == "running"
    ppo_trainer(tiny, reward_run, tmp_path / "run", **keys).train(resume=True)
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1, 2, 3]


def test_a_huge_learning_rate_is_one_sentence(tiny: Path, tmp_path: Path) -> None:
    trainer = ppo_trainer(tiny, says_o, tmp_path / "run", total_episodes=15, learning_rate=1e30)
    with pytest.raises(BadInput, match=r"update [23], epoch 1, mini-batch 1 .* is not finite; .* lower learning_rate"):
        trainer.train()


@pytest.mark.parametrize("whole", [False, True], ids=["lora", "whole"])
def test_every_checkpoint_is_kept_when_asked_and_is_a_model(
    whole: bool, tiny: Path, reward_run: Path, whole_reward_run: Path, tmp_path: Path
) -> None:
    """Each says what the policy said when it was written: its own parameters, whatever else lies in the folder."""
    keys: dict[str, Any] = {"total_episodes": 15, "save_steps": 1, "save_total_limit": None, "learning_rate": 1e-2}
    reward = whole_reward_run if whole else reward_run
    trainer = ppo_trainer(tiny, reward, tmp_path / "run", whole=whole, eval_steps=1, **keys)
    ids = torch.tensor([[5, 6, 7, 8]])
    said: dict[int, torch.Tensor] = {}

    def remember(*_: Any, **__: Any) -> None:  # on_save comes as soon as a checkpoint is written
        with torch.no_grad(), trainer.roles.acting("policy") as model:
            said[trainer.state.global_step] = model(input_ids=ids).logits

    class Remember(TrainerCallback):
        on_save = remember

    trainer.callbacks.append(Remember())
    trainer.train()
    found = checkpoints(tmp_path / "run")
    assert sorted(step for step, _ in found) == sorted(said)
    assert len(said) >= 3
    assert len({float(logits.sum()) for logits in said.values()}) == len(said), "nothing was learnt"
    for step, folder in found:
        source = find_model(str(folder))
        assert (source.adapter is None) == whole
        with torch.no_grad():
            logits = load_causal_lm(source).eval()(input_ids=ids).logits
        torch.testing.assert_close(logits, said[step], rtol=1e-5, atol=1e-5)
        assert load_tokenizer(source).chat_template == trainer.tokenizer.chat_template
        same = weights_of(source) == weights_of(find_model(str(tmp_path / "run")))
        assert same == (step == trainer.best["step"]), "the run's model is the best of them, and known as that"


# --- Killed and resumed ---


KEYS: dict[str, Any] = {"total_episodes": 36, "batch_size": 6, "num_mini_batches": 2, "num_ppo_epochs": 2}
KEYS |= {"learning_rate": 5e-3, "kl_target": 0.3, "kl_horizon": 30, "eval_steps": 3, "save_steps": 2}
KEYS |= {"warmup_steps": 2, "response_length": 6, "eval_prompts": 3}
TAKES_TIME = {"seconds", "seconds_rollout", "cpu_seconds", "peak_mb"}


def end_of(trainer: Any) -> dict[str, Any]:
    """All that a run has at its end, but for how long it took."""
    folder = Path(trainer.args.output_dir)
    optimizer = trainer.learner.optimizer.state_dict()
    return {
        "saved": load_file(folder / "adapter_model.safetensors"),
        "parameters": {name: p.detach() for name, p in trainer.learner.parameters.items()},
        "optimizer": {f"{n} {name}": value for n, s in optimizer["state"].items() for name, value in s.items()},
        "lr": [group["lr"] for group in optimizer["param_groups"]],
        "loop": (trainer.kl_coef, trainer.best, trainer.looks_since_best, trainer.state.global_step),
        "metrics": [{k: v for k, v in row.items() if k not in TAKES_TIME} for row in metrics(folder)],
        "completions": (folder / "completions.jsonl").read_text(),
        "checkpoints": sorted(path.name for path in folder.glob("checkpoint-*")),
        "warnings": manifest(folder)["warnings"],
    }


def assert_same_to_the_last_bit(first: dict[str, Any], second: dict[str, Any]) -> None:
    for part, one in first.items():
        other = second[part]
        if part in ("saved", "parameters", "optimizer"):
            assert one.keys() == other.keys()
            assert all(torch.equal(one[name], other[name]) for name in one), part
        else:
            assert one == other, part


@pytest.fixture(scope="module")
def unbroken(tiny: Path, reward_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    trainer = ppo_trainer(tiny, reward_run, tmp_path_factory.mktemp("unbroken") / "run", **KEYS)
    trainer.train()
    return end_of(trainer)


def test_the_unbroken_run_moves_everything_that_a_resumed_one_must_find_again(unbroken: dict[str, Any]) -> None:
    rows = [row for row in unbroken["metrics"] if "lr" in row]
    assert [row["step"] for row in rows] == list(range(1, 7))
    for key in ("lr", "objective/kl_coef", "objective/scores"):
        assert len({row[key] for row in rows[2:]}) == 4, key
    assert [row["step"] for row in unbroken["metrics"] if "eval/scores" in row] == [0, 3, 6]
    assert unbroken["loop"][1]["step"] > 0


DEATHS = {
    "in the first look": (loop, "make_rollouts", 1),
    "in update 1, after the first look": (loop, "make_rollouts", 2),
    "rolling out for update 6": (loop, "make_rollouts", 8),
    "learning in update 5": (learn.Learner, "learn", 5),
    "half-way through a step": (learn.Learner, "_backward", 20),
    "before its checkpoint": (loop, "save_checkpoint", 3),
    "while it logs": (record.Record, "log", 5),
    "drawing, after its checkpoint": (record, "draw_ppo", 2),
    "when all is done but the model": (loop.PPOTrainer, "save_model", 1),
}


@pytest.mark.parametrize("moment", DEATHS)
def test_a_killed_run_resumes_to_the_same_weights(
    moment: str,
    unbroken: dict[str, Any],
    tiny: Path,
    reward_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Weights, optimiser, KL coefficient, held-out looks, data, rate and the log: as if nothing had happened."""
    where, name, nth = DEATHS[moment]
    original, calls = getattr(where, name), []

    def die(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == nth:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(where, name, die)
        with pytest.raises(KeyboardInterrupt):
            ppo_trainer(tiny, reward_run, tmp_path / "run", **KEYS).train()
    assert manifest(tmp_path / "run")["status"] == "running"
    torch.manual_seed(999)  # nothing may hang on torch's own generator
    resumed = ppo_trainer(tiny, reward_run, tmp_path / "run", **KEYS)
    resumed.train(resume=True)
    assert_same_to_the_last_bit(unbroken, end_of(resumed))
    assert len(manifest(tmp_path / "run")["resumed_at"]) == 1


# where a signal comes, and after which update the run stops then; None: it ends
SIGNALS = {
    "in the first look": (loop, "make_rollouts", 1, -1),
    "rolling out for update 1": (loop, "make_rollouts", 2, 0),
    "learning in update 2": (learn.Learner, "learn", 2, 2),
    "in a later look": (loop, "make_rollouts", 5, 3),
    "rolling out for update 4": (loop, "make_rollouts", 6, 3),
    "in the last look": (loop, "make_rollouts", 9, None),
    "when all is done but the model": (loop.PPOTrainer, "save_model", 1, None),
}


@pytest.mark.parametrize(
    "moment", [pytest.param(m, marks=() if m == "rolling out for update 4" else pytest.mark.slow) for m in SIGNALS]
)
def test_a_stopped_run_resumes_to_the_same_weights(
    moment: str,
    unbroken: dict[str, Any],
    tiny: Path,
    reward_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """SIGTERM breaks rollouts off, from which nothing has been learnt, and lets everything else be ended."""
    where, name, nth, stops_after = SIGNALS[moment]
    original, calls = getattr(where, name), []

    def signalled(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == nth:
            signal.raise_signal(signal.SIGTERM)
        return original(*args, **kwargs)

    trainer = ppo_trainer(tiny, reward_run, tmp_path / "run", **KEYS)
    with monkeypatch.context() as patch:
        patch.setattr(where, name, signalled)
        if stops_after is None:
            with stoppable():
                trainer.train()
        else:
            with pytest.raises(SystemExit) as end, stoppable():
                trainer.train()
            assert end.value.code == 0
            assert manifest(tmp_path / "run")["status"] == "stopped"
            assert max((step for step, _ in checkpoints(tmp_path / "run")), default=-1) == stops_after
            torch.manual_seed(999)
            trainer = ppo_trainer(tiny, reward_run, tmp_path / "run", **KEYS)
    if stops_after is not None:
        trainer.train(resume=True)
    ended = end_of(trainer)
    assert set(ended["checkpoints"]) >= set(unbroken["checkpoints"])  # the one of the signal may be the best, too
    assert_same_to_the_last_bit(unbroken, {**ended, "checkpoints": unbroken["checkpoints"]})


def test_a_run_is_resumed_with_the_recipe_it_was_started_with(
    tiny: Path, reward_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.PPOTrainer, "save_model", die)
    with pytest.raises(KeyboardInterrupt):
        ppo_trainer(tiny, reward_run, tmp_path / "run").train()
    with pytest.raises(BadInput, match="has another `kl_coef` in its recipe"):
        ppo_trainer(tiny, reward_run, tmp_path / "run", kl_coef=0.2).train(resume=True)
    with pytest.raises(BadInput, match="no run to resume there"):
        ppo_trainer(tiny, reward_run, tmp_path / "nowhere").train(resume=True)
