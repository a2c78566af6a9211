"""docs/ppo-details.md names code and tests that exist, and details that no other test asserts."""

import ast
import json
import re
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from align.models.engines import continuous_batching
from align.models.load import completed, find_model, load_causal_lm, load_tokenizer
from align.models.sampling import sample
from align.ppo.config import PPOConfig
from align.ppo.learn import _schedule
from align.ppo.record import Record, _kl
from align.ppo.rollout import Rollout, to_batch
from align.ppo.trainer import batch_of_prompts
from preferences.errors import BadInput
from tests.align.conftest import PROMPTS, ppo_trainer
from tests.align.test_rewards import length

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/ppo-details.md").read_text(encoding="utf-8")
CODE = re.compile(r"`([\w/]+\.py):([\w.]+)`")


def names_in(path: Path) -> set[str]:
    """Functions, classes, their methods and their fields, as `Class.name`."""
    names: set[str] = set()

    def add(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names.add(prefix + node.name)
                if isinstance(node, ast.ClassDef):
                    add(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                names.add(prefix + node.target.id)

    add(ast.parse(path.read_text(encoding="utf-8")).body, "")
    return names


@pytest.mark.parametrize("file", sorted({file for file, _ in CODE.findall(PAGE)}))
def test_the_code_that_is_named_exists(file: str) -> None:
    known = names_in(ROOT / "align" / file)
    assert {name for where, name in CODE.findall(PAGE) if where == file} <= known


def test_the_tests_that_are_named_exist() -> None:
    tests = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("tests/**/test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert named
    assert not {name for name in named if f"def {name}(" not in tests}


def test_every_row_is_whole() -> None:
    """As many cells as its table's head; every detail has a source, and every report something that it says of us."""
    width = 0
    for line in PAGE.splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        cells = [cell.strip() for cell in line[1:-1].split("|")]
        width = width or len(cells)
        if set(line) <= set("|-"):
            continue
        assert len(cells) == width, line
        assert all(cells), line


def test_every_key_of_ppo_is_read() -> None:
    """trl #18 was an option that nothing looked at."""
    code = [path.read_text(encoding="utf-8") for path in ROOT.glob("align/**/*.py") if path.name != "config.py"]
    text = "\n".join(code)
    assert not [field.name for field in fields(PPOConfig) if not re.search(rf"\bargs\.{field.name}\b", text)]


# --- learning ---


@pytest.fixture()
def trainer(tiny: Path, tmp_path: Path) -> Any:
    return ppo_trainer(tiny, length, tmp_path, batch_size=4)


def learn(trainer: Any, rollouts: list[Rollout]) -> dict[str, float]:
    """An update in which half of four rollouts were good and half bad."""
    batch = to_batch(rollouts, "cpu")
    advantages = torch.where(batch.mask, torch.tensor([1.0, -1.0] * 2)[:, None], 0.0)
    told: dict[str, float] = trainer.learner.learn(1, rollouts, batch, advantages, batch.values + 1, 0.0)
    return told


def test_adam_as_in_openai_s_code(trainer: Any) -> None:
    (group,) = trainer.learner.optimizer.param_groups
    assert (group["eps"], group["weight_decay"], group["betas"]) == (1e-5, 0.0, (0.9, 0.999))
    assert all(p.dtype == torch.float32 for p in group["params"])


def test_the_value_coefficient_scales_the_value_model_s_gradient_alone(
    trainer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer.learner.optimizer, "step", lambda: None)
    rollouts = trainer._roll_out(1)
    first = learn(trainer, rollouts)
    trainer.args.vf_coef *= 3
    second = learn(trainer, rollouts)
    assert second["val/grad_norm"] == pytest.approx(3 * first["val/grad_norm"], rel=1e-4)
    assert second["policy/grad_norm"] == pytest.approx(first["policy/grad_norm"], rel=1e-4)


def test_adapters_and_heads_on_a_base_in_bf16_are_trained_in_fp32(tiny: Path, tmp_path: Path) -> None:
    model = load_causal_lm(find_model(str(tiny))).to(torch.bfloat16)
    trainer = ppo_trainer(model, length, tmp_path, learning_rate=3e-6)
    before = {name: p.detach().clone() for name, p in trainer.learner.parameters.items()}
    assert {p.dtype for p in before.values()} == {torch.float32}
    learn(trainer, trainer._roll_out(1)[:4])
    moved = {name.split(".")[-2] for name, p in trainer.learner.parameters.items() if not torch.equal(p, before[name])}
    assert moved >= {"policy", "value_head"}


@pytest.mark.parametrize("whiten_rewards", [False, True])
def test_the_loop_teaches_what_the_paper_says(whiten_rewards: bool, tiny: Path, tmp_path: Path) -> None:
    """From rollouts to advantages and returns, in plain Python: penalties and score, GAE, and what is whitened when."""
    keys: dict[str, Any] = {"gamma": 0.9, "lam": 0.8, "kl_coef": 0.3, "whiten_rewards": whiten_rewards}
    trainer = ppo_trainer(tiny, length, tmp_path / "run", total_episodes=10, learning_rate=1e-2, **keys)
    given: list[Any] = []
    learn = trainer.learner.learn

    def look(*those: Any) -> Any:
        given.append(those)
        return learn(*those)

    trainer.learner.learn = look
    trainer.train()
    _, rollouts, _, advantages, returns, kl_coef = given[1]
    assert kl_coef == 0.3

    rewards = [[-0.3 * (own - theirs) for own, theirs in zip(r.logprobs, r.reference, strict=True)] for r in rollouts]
    assert max(abs(reward) for row in rewards for reward in row) > 0.01
    for row, rollout in zip(rewards, rollouts, strict=True):
        row[-1] += rollout.score
    if whiten_rewards:
        mean, std = moments(rewards)
        rewards = [[(reward - mean) / std + mean for reward in row] for row in rewards]
    expected = []
    for row, rollout in zip(rewards, rollouts, strict=True):
        found: list[float] = []
        values, last = [*rollout.values, 0.0], 0.0
        for step in reversed(range(len(row))):
            last = row[step] + 0.9 * values[step + 1] - values[step] + 0.9 * 0.8 * last
            found.insert(0, last)
        expected.append(found)
    mean, std = moments(expected)
    for number, (row, rollout) in enumerate(zip(expected, rollouts, strict=True)):
        tokens = len(row)
        plain = [advantage + value for advantage, value in zip(row, rollout.values, strict=True)]
        white = [(advantage - mean) / std for advantage in row]
        assert returns[number, :tokens].tolist() == pytest.approx(plain, abs=1e-4)
        assert advantages[number, :tokens].tolist() == pytest.approx(white, abs=1e-4)
        assert not advantages[number, tokens:].any() and not returns[number, tokens:].any()


def moments(rows: list[list[float]]) -> tuple[float, float]:
    """Mean and population standard deviation of all tokens."""
    numbers = [number for row in rows for number in row]
    mean = sum(numbers) / len(numbers)
    return mean, (sum((number - mean) ** 2 for number in numbers) / len(numbers)) ** 0.5


@pytest.mark.parametrize(
    ("kind", "warmup", "rates"),
    [("linear", 0, [1.0, 0.75, 0.5, 0.25]), ("linear", 2, [0.5, 1.0, 2 / 3, 1 / 3]), ("constant", 0, [1.0] * 4)],
)
def test_the_rate_is_a_function_of_the_update(kind: str, warmup: int, rates: list[float]) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    args = PPOConfig(output_dir="", lr_scheduler_type=kind, warmup_steps=warmup)
    schedule, found = _schedule(args, optimizer, 4), []
    for _ in range(4):
        found.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert found == pytest.approx(rates)


# --- keys and prompts ---


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"kl_in": "loss"}, "holds nothing back; take k2"),
        ({"use_reference": False}, "without a reference there is no KL"),
        ({"use_reference": False, "kl_coef": 0.0, "kl_target": 1.0}, "without a reference there is no KL"),
        ({"kl_budget": 1.0}, "is needed for `kl_budget`"),
        ({"kl_horizon": 0}, "is less than 1"),
        ({"kl_target": 6.0, "kl_coef": 0.0}, "would stay at 0"),
        ({"kl_target": 6.0, "kl_horizon": 10}, "jump below"),
        ({"missing_eos_penalty": -1.0}, "is less than 0"),
        ({"missing_eos_penalty": float("nan")}, "no number"),
        ({"max_grad_norm": 0.0}, "is not a number above 0"),
        ({"gamma": 1.1}, "is not between 0 and 1"),
        ({"num_mini_batches": 3}, "does not divide into 3"),
    ],
)
def test_settings_that_would_do_nothing_or_harm_are_refused(keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        PPOConfig(output_dir="", **keys)


def test_defaults_are_those_of_the_studies() -> None:
    args = PPOConfig(output_dir="")
    assert (args.gamma, args.lam, args.cliprange, args.cliprange_value, args.vf_coef) == (1.0, 0.95, 0.2, 0.2, 0.1)
    assert (args.kl_coef, args.kl_estimator, args.kl_in, args.num_ppo_epochs) == (0.05, "k1", "reward", 4)
    assert (args.temperature, args.entropy_coef, args.whiten_rewards) == (0.7, 0.0, False)


def test_a_seed_s_second_epoch_is_not_the_next_seed_s_first() -> None:
    first, second = (tuple(batch_of_prompts(7, update, 7, seed=1)) for update in (1, 2))
    assert len({first, second, tuple(batch_of_prompts(7, 1, 7, seed=2))}) == 3


def test_a_tokenizer_without_an_end_is_refused(tiny: Path) -> None:
    tokenizer = load_tokenizer(find_model(str(tiny)))
    tokenizer.eos_token = None
    with pytest.raises(BadInput, match="no response would ever end"):
        completed(tokenizer, "tiny")


def test_looks_at_held_out_prompts_draw_the_same(tiny: Path, tmp_path: Path) -> None:
    trainer = ppo_trainer(tiny, length, tmp_path, eval_steps=1)
    first, second = (trainer._look_at_held_out(update, Record(None, trainer.args)) for update in (1, 2))  # type: ignore[arg-type]
    assert first == second


def test_a_score_of_zero_is_a_score() -> None:
    rollout = Rollout(0, [], [1], [2, 3], "", True, 0.0, {}, *([[0.0, 0.0]] * 4))
    batch = to_batch([rollout, rollout._replace(score=None)], "cpu")
    assert batch.mask.tolist() == [[True, True], [False, False]]


def test_continuous_batching_takes_nothing_from_the_model_s_own_settings(tiny: Path) -> None:
    model, tokenizer = load_causal_lm(find_model(str(tiny))).eval(), load_tokenizer(find_model(str(tiny)))

    def responses() -> list[list[int]]:
        return sample(
            model, tokenizer, PROMPTS * 4, range(20), max_new_tokens=8, temperature=1.0, engine=continuous_batching
        ).responses

    plain = responses()
    assert len(set(map(tuple, plain))) > 5
    own = {"repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "min_new_tokens": 8, "top_k": 1}
    for name, value in {**own, "suppress_tokens": list(range(3, 200))}.items():
        before = getattr(model.generation_config, name)
        setattr(model.generation_config, name, value)
        assert responses() == plain, name
        setattr(model.generation_config, name, before)


# --- what is logged ---


def test_the_kl_of_a_policy_that_says_what_the_reference_would_not_is_positive() -> None:
    rollout = Rollout(0, [], [1], [2, 3], "", True, 0.0, {}, [-1.0, -0.5], [-3.0, -1.0], [0.0] * 2, [0.0] * 2)
    assert _kl(rollout) == 2.5


@pytest.mark.parametrize("kl_in", ["reward", "loss"])
def test_the_kl_is_a_sum_over_the_response_and_counted_once(kl_in: Any, tiny: Path, tmp_path: Path) -> None:
    keys: dict[str, Any] = {"kl_in": kl_in, "kl_estimator": "k1" if kl_in == "reward" else "k2", "kl_coef": 0.5}
    keys |= {"batch_size": 8, "total_episodes": 24, "learning_rate": 1e-2, "num_ppo_epochs": 4}
    ppo_trainer(tiny, length, tmp_path / "run", **keys).train()
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert rows[0]["objective/kl"] == pytest.approx(0, abs=1e-5)
    last = rows[-1]
    assert abs(last["objective/kl"]) > 0.05
    penalty = 0.5 * last["objective/kl"] if kl_in == "reward" else 0.0
    assert last["objective/rlhf_reward"] == pytest.approx(last["objective/scores"] - penalty, abs=1e-4)
    shown = [json.loads(line) for line in (tmp_path / "run/completions.jsonl").read_text().splitlines()]
    assert [row["step"] for row in shown] == [1] * 4 + [2] * 4 + [3] * 4
    for row in shown:
        assert row["score"] == row["scores"]["length"] == length([[{"content": row["completion"]}]])[0]
    watched = {"policy/approxkl_avg", "policy/clipfrac_avg", "val/clipfrac_avg", "val/ratio", "policy/entropy_avg"}
    watched |= {"val/explained_variance", "lr", "objective/kl_coef", "policy/grad_norm", "val/grad_norm", "seconds"}
    watched |= {"seconds_rollout", "response/tokens", "response/ended", "response/distinct_2", "policy/steps"}
    assert watched <= last.keys()


# --- the guide ---


def example(after: str) -> str:
    """The first indented block of Python in docs/engineer.md after some words."""
    lines = (ROOT / "docs/engineer.md").read_text(encoding="utf-8").partition(after)[2].splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith(("    def", "    from")))
    past = (n for n in range(first, len(lines)) if lines[n] and not lines[n].startswith("    "))
    return "\n".join(line[4:] for line in lines[first : next(past)])


def test_the_reward_function_of_the_guide() -> None:
    names: dict[str, Any] = {}
    exec(example("### Rewards"), names)
    completions = [[{"role": "assistant", "content": text}] for text in ("one two", "one two three", "one " * 51)]
    assert names["concise"](prompts=PROMPTS[:3], completions=completions, what=["a"] * 3) == [1.0, 1.0, -1.0]
    assert names["concise"](prompts=PROMPTS[:3], completions=completions, max_words=[2, 2, 60]) == [1.0, -1.0, 1.0]


def test_the_python_of_the_guide_trains(
    tiny: Path, reward_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = example("### From Python")
    here = {"HuggingFaceTB/SmolLM2-135M-Instruct": tiny, "runs/reward": reward_run, "runs/ppo": tmp_path / "run"}
    for name, path in here.items():
        assert code.count(f'"{name}"') == 1
        code = code.replace(name, str(path))
    exec(code.replace("total_episodes=2000", "total_episodes=1, batch_size=4"), {})
    assert (tmp_path / "run/adapter_model.safetensors").is_file()
    assert json.loads((tmp_path / "run/manifest.json").read_text())["status"] == "finished"
