"""PPO's loop: it solves what has a known solution, says what it does, and stops when it is told to."""

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import ProgressCallback, TrainerCallback

import align.ppo.learn as learn
import align.ppo.record as record
from align.models.load import find_model, load_causal_lm, load_tokenizer
from align.ppo.config import PPOConfig
from align.ppo.rollout import make_rollouts, to_batch
from align.ppo.trainer import PPOTrainer, batch_of_prompts, run_ppo
from preferences.errors import BadInput
from tests.align.conftest import PROMPTS, SAY, ppo_gradients, ppo_trainer, write_rows


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """A picture takes longer than an update of the tiny model. The one of `ppo_run` is drawn before this."""
    monkeypatch.setattr(record, "draw_ppo", lambda *_, **__: None)


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def recipe_of(tiny: Path, reward_run: Path, folder: Path, prompts: Path, **keys: Any) -> dict[str, Any]:
    right = {
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
        "use_cpu": True,
    }
    return {**right, **keys}


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The five prompts, one of them twice, and one that is too long."""
    rows = [{"prompt": prompt} for prompt in [*PROMPTS, PROMPTS[2], [{"role": "user", "content": "soup " * 200}]]]
    return write_rows(tmp_path_factory.mktemp("prompts") / "prompts.jsonl", rows)


@pytest.fixture(scope="module")
def ppo_run(tiny: Path, reward_run: Path, prompts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "ppo"
    run_ppo(recipe_of(tiny, reward_run, folder, prompts), "ppo.yaml")
    return folder


# --- A run ---


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
    assert manifest(ppo_run)["status"] == "finished"
    assert [parent["verb"] for parent in manifest(ppo_run)["parents"]] == ["reward"]


def test_the_learning_rate_goes_to_zero_in_a_line(ppo_run: Path) -> None:
    """A function of the update; the rate after the last one would be 0."""
    assert [row["lr"] for row in metrics(ppo_run)] == pytest.approx([5e-3 * (12 - n) / 12 for n in range(12)])


def test_every_update_takes_the_steps_asked_for_and_says_what_happened(ppo_run: Path) -> None:
    for number, row in enumerate(metrics(ppo_run), start=1):
        assert (row["policy/steps"], row["episode"]) == (4, 16 * number)
        assert 0 < row["policy/approxkl_avg"] < 1
        assert row["val/ratio"] == pytest.approx(1.0, abs=0.3)
        assert row["policy/grad_norm"] > 0 and row["val/grad_norm"] > 0
        assert 0 <= row["policy/clipfrac_avg"] <= 1
        assert 0 < row["seconds_rollout"] < row["seconds"]
        assert row["peak_mb"] > 10


def test_prompts_come_once_and_those_too_long_are_counted(ppo_run: Path) -> None:
    assert (manifest(ppo_run)["prompts"], manifest(ppo_run)["prompts_dropped"]) == (5, 1)


def test_completions_and_curves_are_kept(ppo_run: Path) -> None:
    rows = [json.loads(line) for line in (ppo_run / "completions.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [n for n in range(1, 13) for _ in range(4)]
    assert {row["prompt"][0]["content"] for row in rows} == {f"Say {what}." for what in SAY}
    assert all(math.isfinite(row["score"]) and isinstance(row["completion"], str) for row in rows)
    assert all(row["kl"] == 0 for row in rows[:4])
    assert (ppo_run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_single_step_an_update_is_at_ratio_one(tiny: Path, reward_run: Path, tmp_path: Path) -> None:
    """In its second and third update, too: old log-probabilities are those of the policy that sampled."""
    ppo_trainer(tiny, reward_run, tmp_path / "run", total_episodes=12, batch_size=4, learning_rate=1e-2).train()
    for row in metrics(tmp_path / "run"):
        assert row["val/ratio"] == pytest.approx(1.0, abs=1e-5)
        assert row["policy/approxkl_avg"] < 1e-9
        assert row["policy/clipfrac_avg"] == 0
    assert metrics(tmp_path / "run")[2]["objective/kl"] != 0


@pytest.mark.parametrize("value", ["separate", "shared"])
def test_whole_models(value: str, tiny: Path, reward_run: Path, prompts: Path, tmp_path: Path) -> None:
    """The folder is a model, with no reference and no value model in it; rollouts are the policy's own."""
    keys = {"use_peft": False, "use_reference": False, "kl_coef": 0.0, "learning_rate": 1e-3, "value": value}
    keys |= {"total_episodes": 128, "save_steps": 3, "batch_size": 16}
    run_ppo(recipe_of(tiny, reward_run, tmp_path / "run", prompts, **keys), "ppo.yaml")
    rows = metrics(tmp_path / "run")
    assert rows[-1]["objective/scores"] > rows[0]["objective/scores"] + 0.5
    assert all(row["objective/kl"] == 0 for row in rows), "there is nobody to differ from"
    source = find_model(str(tmp_path / "run"))
    assert source.adapter is None
    trained, base = load_causal_lm(source), load_causal_lm(find_model(str(tiny)))
    assert trained.state_dict().keys() == base.state_dict().keys()
    moved = [n for n, p in trained.named_parameters() if not torch.equal(p, base.get_parameter(n))]
    assert len(moved) == len(list(base.named_parameters()))
    assert not list((tmp_path / "run").glob("*value*"))


def test_in_memory(tiny: Path, tmp_path: Path) -> None:
    """The Python interface: a model, an async function that sees the data's columns, LoRA, held-out prompts."""
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    async def says_it(completions: list[Any], what: list[str], **_: Any) -> list[float]:
        return [float(what_.split()[0] in c[0]["content"]) for c, what_ in zip(completions, what, strict=True)]

    args = PPOConfig(output_dir=str(tmp_path / "run"), use_cpu=True, learning_rate=5e-3, eval_steps=1)
    args.total_episodes, args.batch_size, args.response_length = 8, 4, 6
    rows = [{"prompt": f"Say {what}.", "what": what} for what in SAY]
    lora = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules="all-linear")
    run = PPOTrainer(model, says_it, args, rows, rows[:2], load_tokenizer(find_model(str(tiny))), lora).train()
    assert run.manifest["status"] == "finished"
    assert find_model(str(tmp_path / "run")).base == str(tiny)
    assert [row["step"] for row in metrics(tmp_path / "run")] == [0, 1, 2]
    for name, p in load_causal_lm(find_model(str(tiny))).named_parameters():
        assert torch.equal(p, before[name])
    with pytest.raises(BadInput, match="already holds a run"):
        PPOTrainer(str(tiny), says_it, args, rows, rows[:2], peft_config=lora).train()


# --- A known optimum ---


GOOD = {"cat", "dog", "fox"}


def one_of_the_good(completions: list[Any], **_: Any) -> list[float]:
    return [float(completion[0]["content"] in GOOD) for completion in completions]


@pytest.mark.parametrize("whole", [True, False], ids=["whole models", "adapters"])
def test_a_bandit_is_solved(whole: bool, tiny: Path, tmp_path: Path) -> None:
    """One prompt, one token, reward 1 for three words: the best policy is pi_ref exp(r / beta) / Z, in closed form.

    Adapters cannot get there, as they leave the vocabulary head alone; there PPO finds what exact gradients of the
    expected reward less beta KL find.
    """
    from peft import LoraConfig

    beta = 0.5
    args = PPOConfig(output_dir=str(tmp_path / "run"), use_cpu=True, response_length=1, temperature=0.9, kl_coef=beta)
    args.num_ppo_epochs = args.num_mini_batches = 2
    args.learning_rate, args.total_episodes = (3e-3, 20 * 64) if whole else (5e-3, 12 * 64)
    args.per_device_train_batch_size, args.save_steps, args.value = 64, 100, "shared"
    lora = None if whole else LoraConfig(task_type="CAUSAL_LM", r=8, target_modules="all-linear")
    trainer = PPOTrainer(str(tiny), one_of_the_good, args, [{"prompt": PROMPTS[0]}], peft_config=lora)
    template = trainer.tokenizer.apply_chat_template
    ids = torch.tensor([template(PROMPTS[0], add_generation_prompt=True, return_dict=True)["input_ids"]])

    def log_policy() -> torch.Tensor:
        with trainer.roles.acting("policy") as model:
            distribution: torch.Tensor = (model(input_ids=ids).logits[0, -1].double() / 0.9).log_softmax(-1)
            return distribution

    start = log_policy().detach()
    reward = torch.tensor([float(trainer.tokenizer.decode([token]) in GOOD) for token in range(len(start))])

    def worth(policy: torch.Tensor) -> torch.Tensor:
        return (policy.exp() * (reward - beta * (policy - start))).sum()

    trainer.train()
    found = log_policy().detach()
    if whole:
        best = (start + reward / beta).log_softmax(-1)
        assert 0.5 * (start.exp() - best.exp()).abs().sum() > 0.4
        assert 0.5 * (found.exp() - best.exp()).abs().sum() < 0.04
        assert worth(found) > worth(best) - 0.005
        return
    parameters = list(trainer.learner.policy.values())
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        (-worth(log_policy())).backward()
        optimizer.step()
    most = worth(log_policy().detach())
    assert most > worth(start) + 0.06
    assert worth(found) > most - 0.006


# --- When it stops, and what moves ---


class Watch(TrainerCallback):
    """Writes down what it is told, and stops the run at an update."""

    def __init__(self, stop_at: int) -> None:
        self.stop_at = stop_at
        self.events: list[str] = []
        self.logs: list[dict[str, float]] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:
        assert state.max_steps == 4 and more.keys() >= {"model", "processing_class", "optimizer", "lr_scheduler"}
        self.events.append("begin")

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        self.logs.append(dict(logs))

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        self.events.append(f"look {metrics.keys() >= {'eval/scores', 'eval/kl'}}")

    def on_save(self, *_: Any, **__: Any) -> None:
        self.events.append("save")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        self.events.append(f"step {state.global_step}")
        control.should_training_stop = state.global_step == self.stop_at
        return control

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self.events.append("end")


def test_callbacks_are_told_and_can_stop_the_run(tiny: Path, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"total_episodes": 16, "batch_size": 4, "save_steps": 1, "eval_steps": 3}
    watch = Watch(stop_at=2)
    trainer = ppo_trainer(tiny, one_of_the_good, tmp_path / "run", **keys, callbacks=[watch, ProgressCallback()])
    assert trainer.train().manifest["status"] == "finished"
    assert watch.events == ["begin", "look True", "save", "step 1", "save", "step 2", "end"]
    assert [logs["episode"] for logs in watch.logs] == [4, 8]
    assert [row["step"] for row in metrics(tmp_path / "run")] == [0, 1, 2]


def test_an_update_that_went_too_far_takes_no_more_steps(tiny: Path, reward_run: Path, tmp_path: Path) -> None:
    """The first step of an update is at the old policy, so it is always taken."""
    keys: dict[str, Any] = {"num_ppo_epochs": 3, "num_mini_batches": 2, "batch_size": 6, "learning_rate": 1e-2}
    for name, target, steps, stopped in (("strict", 1e-6, 1, 1), ("lax", 1e6, 6, 0)):
        ppo_trainer(tiny, reward_run, tmp_path / name, **keys, target_kl=target).train()
        (row,) = metrics(tmp_path / name)
        assert (row["policy/steps"], row["policy/early_stop"]) == (steps, stopped)


def test_the_kl_coefficient_adapts(tiny: Path, reward_run: Path, tmp_path: Path) -> None:
    """coefficient (1 + clip(KL / target - 1, -0.2, 0.2) episodes / horizon) from one update to the next."""
    keys: dict[str, Any] = {"total_episodes": 48, "batch_size": 8, "learning_rate": 1e-2, "kl_coef": 0.1}
    ppo_trainer(tiny, reward_run, tmp_path / "run", **keys, kl_target=0.5, kl_horizon=16).train()
    rows = metrics(tmp_path / "run")
    coefficients = [row["objective/kl_coef"] for row in rows]
    assert coefficients[:2] == pytest.approx([0.1, 0.1 * (1 - 0.2 * 8 / 16)])
    for now, after in pairwise(rows):
        error = min(max(now["objective/kl"] / 0.5 - 1, -0.2), 0.2)
        assert after["objective/kl_coef"] == pytest.approx(now["objective/kl_coef"] * (1 + error * 8 / 16))
    assert any(after > now for now, after in pairwise(coefficients)), "and up again"


# --- Batches and steps ---


def test_every_prompt_comes_once_an_epoch() -> None:
    numbers = [n for update in range(1, 7) for n in batch_of_prompts(9, update, 3, seed=5)]
    assert sorted(numbers[:9]) == sorted(numbers[9:]) == list(range(9))
    assert numbers[:9] != numbers[9:]
    long = [n for update in (1, 2) for n in batch_of_prompts(4, update, 6, seed=5)]
    assert sorted(long[:4]) == sorted(long[4:8]) == sorted(long[8:]) == list(range(4))


def test_every_rollout_is_learnt_from_once_an_epoch_in_a_new_order(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And 9 episodes are two updates of 6: what was asked for is rounded up."""
    seen: list[list[int]] = []
    accumulate = learn.Learner._accumulate
    monkeypatch.setattr(learn.Learner, "_accumulate", lambda *a: seen.append(a[5]) or accumulate(*a))
    keys: dict[str, Any] = {"total_episodes": 9, "batch_size": 6, "num_ppo_epochs": 2, "num_mini_batches": 3}
    ppo_trainer(tiny, one_of_the_good, tmp_path / "run", **keys).train()
    assert [len(rows) for rows in seen] == [2] * 12
    epochs = [[*seen[n], *seen[n + 1], *seen[n + 2]] for n in (0, 3, 6, 9)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len(set(map(tuple, epochs))) == 4


def test_policy_and_value_are_clipped_apart(tiny: Path, reward_run: Path, tmp_path: Path) -> None:
    trainer = ppo_trainer(tiny, reward_run, tmp_path / "run", max_grad_norm=1e-3)
    norms: list[float] = []

    def look() -> None:
        for parameters in (trainer.learner.policy, trainer.learner.value):
            norms.append(float(torch.stack([p.grad.norm() for p in parameters.values() if p.grad is not None]).norm()))

    trainer.learner.optimizer.step = look
    trainer.learner.scheduler.step = lambda: None
    trainer.train()
    assert norms == pytest.approx([1e-3, 1e-3], rel=1e-2)
    (row,) = metrics(tmp_path / "run")
    assert min(row["policy/grad_norm"], row["val/grad_norm"]) > 1e-2, "what is logged is the norm before"


def test_a_response_that_nobody_scores_teaches_nothing(tiny: Path, reward_run: Path, tmp_path: Path) -> None:
    """Its gradient is none: the others' gradient is what it is without it."""

    def not_of_soup(prompts: list[Any], **_: Any) -> list[float | None]:
        return [None if "soup" in prompt[-1]["content"] else float(number) for number, prompt in enumerate(prompts)]

    trainer = ppo_trainer(tiny, not_of_soup, tmp_path, missing_eos_penalty=1.0)
    args = (trainer.roles, trainer.tokenizer, trainer.setup.rewards)
    rollouts = make_rollouts(*args, trainer.setup.prompts, range(5), range(5), trainer.args)
    assert [rollout.score is None for rollout in rollouts] == [False, False, False, True, False]
    batch = to_batch(rollouts, "cpu")
    assert batch.mask.any(-1).tolist() == [True, True, True, False, True]
    gradients = []
    for kept in ([0, 1, 2, 3, 4], [0, 1, 2, 4]):
        chosen = [rollouts[n] for n in kept]
        part = to_batch(chosen, "cpu")
        advantages = torch.where(part.mask, torch.arange(len(kept))[:, None] - 1.5, 9.0)
        advantages[-1] = 1.0
        gradients.append(ppo_gradients(trainer, chosen, part, advantages, part.values + 1))
    assert max(gradient.abs().max() for gradient in gradients[0].values()) > 0
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], atol=1e-7, rtol=1e-5)


def test_an_update_that_nobody_scores_is_one_sentence(tiny: Path, tmp_path: Path) -> None:
    trainer = ppo_trainer(tiny, lambda completions, **_: [None] * len(completions), tmp_path / "run")
    with pytest.raises(BadInput, match="update 1: every reward source abstained on all 5 responses"):
        trainer.train()
