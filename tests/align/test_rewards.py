"""What a response is worth: the reward run's own score, whoever computes it, and how sources become one number."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from align.models.load import find_model, load_tokenizer
from align.models.rewards import Rewards, combine, load_function, score_moments
from align.models.scores import RewardModel, conversation_ids, load_scorer
from preferences.errors import BadInput
from tests.align.conftest import PROMPTS, SAY, make_reward_run, ppo_trainer

TEXTS = ["red", "cat dog fox", "", "soup soup soup soup soup soup", "moon star"]


def score_alone(run: Path, rows: list[list[int]], left: int = 0, pad: int = 0) -> list[float]:
    """transformers' own forward of the reward run: one row at a time, or with `left` tokens of padding before each."""
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification

    source = find_model(str(run))
    model = AutoModelForSequenceClassification.from_pretrained(source.base, num_labels=1)
    if source.adapter:
        model = PeftModel.from_pretrained(model, source.adapter)
    model.eval()
    model.config.pad_token_id = pad if left else None  # without one it reads the last token
    scores = []
    for row in rows:
        ids, mask = torch.tensor([[pad] * left + row]), torch.tensor([[0] * left + [1] * len(row)])
        with torch.no_grad():
            scores.append(model(input_ids=ids, attention_mask=mask).logits.item())
    return scores


def rows_of(run: Path) -> list[list[int]]:
    tokenizer = load_tokenizer(find_model(str(run)))
    return [conversation_ids(tokenizer, prompt, text) for prompt, text in zip(PROMPTS, TEXTS, strict=True)]


def assert_score(rewards: Rewards, run: Path) -> None:
    expected = score_alone(run, rows_of(run))
    assert torch.tensor(expected).std() > 0.1, "a reward model that says the same of everything would pass, too"
    for batch_size in (1, 2, 8):
        rewards.batch_size = batch_size
        assert rewards(PROMPTS, TEXTS).total == pytest.approx(expected, abs=1e-5)


# --- A reward run in PPO is the reward run alone ---


@pytest.mark.parametrize("kind", ["reward_run", "whole_reward_run", "other_reward_run"])
@pytest.mark.parametrize("whole", [False, True], ids=["adapters", "whole models"])
def test_ppo_scores_a_text_as_the_reward_run_does(
    kind: str, whole: bool, tiny: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """An adapter on the policy's base, a whole model, and an adapter on another base with another tokenizer."""
    run = request.getfixturevalue(kind)
    trainer = ppo_trainer(tiny, run, tmp_path, whole=whole)
    shares = kind == "reward_run" and not whole
    assert ("reward_0" in trainer.roles.players) == shares
    assert_score(trainer.setup.rewards, run)
    if kind == "other_reward_run":
        assert rows_of(run) != rows_of(tiny)
        assert len(trainer.tokenizer) != len(trainer.setup.rewards.models[0].tokenizer)
    trainer._roll_out(1)  # whoever has acted in between
    trainer.learner.roles.states("value", torch.tensor([[1, 2]]))
    assert_score(trainer.setup.rewards, run)


def test_ppo_scores_as_the_reward_run_from_a_base_with_an_adapter_of_its_own(
    tiny: Path, reward_run: Path, tmp_path: Path
) -> None:
    """The policy goes on with an adapter; the reward run's stands on the bare base."""
    start = ppo_trainer(tiny, reward_run, tmp_path)
    with torch.no_grad():
        for p in start.roles.parameters_of("policy").values():
            p += 0.1 * torch.randn_like(p)
    start.save_model(str(tmp_path / "adapter"))
    assert_score(ppo_trainer(tmp_path / "adapter", reward_run, tmp_path).setup.rewards, reward_run)


def test_the_template_ends_a_turn_with_a_line_break(reward_run: Path) -> None:
    """The case that the tests above are about: generation stops before the token that the reward run is read at."""
    tokenizer = load_tokenizer(find_model(str(reward_run)))
    for row in rows_of(reward_run):
        assert row[-2] == tokenizer.eos_token_id
        assert tokenizer.decode(row[-1:]) == "\n"


def test_a_template_that_ends_with_the_end_token(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    """And pad = eos, which moves transformers' own pooling of a padded row one token to the left."""
    base = tmp_path / "base"
    shutil.copytree(tiny, base)
    template = (base / "chat_template.jinja").read_text()
    (base / "chat_template.jinja").write_text(template.replace("<|im_end|>\n", "<|im_end|>"))
    run = make_reward_run(tmp_path / "reward", base, pairs_file, num_train_epochs=1)
    rows = rows_of(run)
    tokenizer = load_tokenizer(find_model(str(run)))
    assert all(row[-1] == tokenizer.eos_token_id for row in rows)
    assert_score(ppo_trainer(base, run, tmp_path).setup.rewards, run)
    moved = score_alone(run, rows, left=3, pad=tokenizer.eos_token_id)
    assert moved != pytest.approx(score_alone(run, rows), abs=1e-2)


def test_scores_do_not_depend_on_what_pads(reward_run: Path, tiny: Path, tmp_path: Path) -> None:
    """Ours is padded on the right, here with junk and more of it; transformers' own forward on the left, with a mask
    and pad = eos, as the tokenizer of the run has it.
    """
    (model,) = ppo_trainer(tiny, reward_run, tmp_path).setup.rewards.models
    rows = rows_of(reward_run)
    expected = score_alone(reward_run, rows)
    eos = model.tokenizer.eos_token_id
    assert json.loads((tiny / "config.json").read_text())["pad_token_id"] == eos
    assert score_alone(reward_run, rows, left=5, pad=eos) == pytest.approx(expected, abs=1e-5)
    states = model.states
    assert all(0 not in row for row in rows)
    for junk in (7, eos):

        def with_junk(ids: torch.Tensor, junk: int = junk) -> torch.Tensor:
            wider = torch.nn.functional.pad(ids, (0, 4))
            return states(torch.where(wider == 0, junk, wider))

        model.states = with_junk
        assert model.scores(PROMPTS, TEXTS, 5) == pytest.approx(expected, abs=1e-5)


def test_each_text_is_scored_once(reward_run: Path) -> None:
    model = load_scorer(str(reward_run), "cpu")
    states, seen = model.states, []
    model.states = lambda ids: seen.append(len(ids)) or states(ids)
    scores = model.scores(PROMPTS[:2] * 3, TEXTS[:2] * 3, 8)
    assert sum(seen) == 2
    assert scores == scores[:2] * 3


def test_a_conversation_longer_than_the_reward_model_reads(reward_run: Path) -> None:
    with pytest.raises(BadInput, match=r"has \d+ tokens, and the reward model's context is 128"):
        load_scorer(str(reward_run), "cpu").scores(PROMPTS[:1], ["soup " * 150], 8)


# --- Several reward runs ---


@pytest.fixture(scope="module")
def second_run(tiny: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "second"
    return make_reward_run(folder, tiny, pairs_file, learning_rate=2e-2, seed=7)


@pytest.mark.parametrize("ensemble", ["mean", "min", "mean_minus_std"])
def test_an_ensemble_of_reward_runs(
    ensemble: str, tiny: Path, reward_run: Path, second_run: Path, other_reward_run: Path, tmp_path: Path
) -> None:
    """Two adapters on the policy's base and one on another: each on the scale that its manifest keeps."""
    runs = [reward_run, second_run, other_reward_run]
    trainer = ppo_trainer(tiny, list(map(str, runs)), tmp_path, ensemble=ensemble, ensemble_std_coef=0.5)
    assert {"reward_0", "reward_1"} <= trainer.roles.players.keys()
    each = torch.tensor([score_alone(run, rows_of(run)) for run in runs])
    kept = [json.loads((run / "manifest.json").read_text())["scores"] for run in runs]
    each = (each - torch.tensor([[k["mean"]] for k in kept])) / torch.tensor([[k["std"]] for k in kept])
    mean, std = each.mean(0), each.std(0, correction=0)
    expected = {"mean": mean, "min": each.min(0).values, "mean_minus_std": mean - 0.5 * std}[ensemble]
    assert not torch.allclose(expected, each[0], atol=1e-2)
    found = trainer.setup.rewards(PROMPTS, TEXTS)
    assert found.total == found.parts["reward_model"] == pytest.approx(expected.tolist(), abs=1e-4)
    assert found.parts["spread"] == pytest.approx(std.tolist(), abs=1e-4)
    trainer.setup.rewards.moments = [(0.0, 1.0)] * 3
    assert trainer.setup.rewards(PROMPTS, TEXTS).total != pytest.approx(expected.tolist(), abs=1e-2)


def test_combining_by_hand() -> None:
    """1, 2, 6: mean 3, deviations -2 -1 3, variance 14 / 3."""
    assert combine([1.0, 2.0, 6.0], "mean", 1.0) == 3.0
    assert combine([1.0, 2.0, 6.0], "min", 1.0) == 1.0
    assert combine([1.0, 2.0, 6.0], "mean_minus_std", 0.5) == pytest.approx(3 - 0.5 * math.sqrt(14 / 3))


def test_one_reward_run_is_normalised_only_if_asked_for(tiny: Path, reward_run: Path, tmp_path: Path) -> None:
    mean, std = score_moments(str(reward_run))
    plain = ppo_trainer(tiny, reward_run, tmp_path).setup.rewards(PROMPTS, TEXTS).total
    scaled = ppo_trainer(tiny, reward_run, tmp_path, normalize_scores=True).setup.rewards(PROMPTS, TEXTS).total
    assert scaled == pytest.approx([(score - mean) / std for score in plain], abs=1e-5)
    assert abs(mean) + abs(std - 1) > 0.1


def test_the_moments_that_a_reward_run_keeps_are_its_scores_own(reward_run: Path, pairs_file: Path) -> None:
    rows = [json.loads(line) for line in pairs_file.read_text().splitlines()]
    texts = sorted({(row["prompt"][0]["content"], row[side][0]["content"]) for row in rows for side in TWO})
    prompts = [[{"role": "user", "content": prompt}] for prompt, _ in texts]
    scores = torch.tensor(load_scorer(str(reward_run), "cpu").scores(prompts, [text for _, text in texts], 8))
    assert score_moments(str(reward_run)) == pytest.approx(
        (scores.mean().item(), scores.std(correction=0).item()), abs=1e-4
    )


TWO = ("chosen", "rejected")


def test_a_reward_run_that_keeps_no_moments(reward_run: Path, tmp_path: Path) -> None:
    shutil.copytree(reward_run, tmp_path / "old")
    manifest = json.loads((tmp_path / "old" / "manifest.json").read_text())
    (tmp_path / "old" / "manifest.json").write_text(json.dumps({k: v for k, v in manifest.items() if k != "scores"}))
    with pytest.raises(BadInput, match="keeps no mean and spread of its scores"):
        Rewards([load_scorer(str(tmp_path / "old"), "cpu")], [], normalize=True)


# --- Functions ---


def length(completions: list[Any], **_: Any) -> list[float]:
    return [float(len(completion[0]["content"])) for completion in completions]


async def named(completions: list[Any], what: list[str], **_: Any) -> list[float | None]:
    """1 where the response says what was asked for, and nothing of an empty one."""
    texts = [completion[0]["content"] for completion in completions]
    return [None if not text else float(asked in text) for text, asked in zip(texts, what, strict=True)]


def silent(completions: list[Any], **_: Any) -> list[None]:
    return [None] * len(completions)


COLUMNS = {"what": SAY}


def test_functions_sync_and_async_and_their_weights() -> None:
    rewards = Rewards([], [length, named, silent], weights=[0.5, -2.0, 100.0])
    found = rewards(PROMPTS, TEXTS, COLUMNS)
    assert found.parts == {"length": [3, 11, 0, 29, 9], "named": [1, 0, None, 0, 1], "silent": [None] * 5}
    assert found.total == [1.5 - 2, 5.5, 0.0, 14.5, 4.5 - 2]


def test_nobody_says_anything_of_some() -> None:
    assert Rewards([], [named, silent])(PROMPTS, TEXTS, COLUMNS).total == [1, 0, None, 0, 1]


def test_async_functions_run_all_at_once_and_in_a_notebook_too() -> None:
    """Each waits until the other has started; and an event loop is running already."""
    import asyncio

    def pair() -> list[Callable[..., Any]]:
        started = [0]

        async def first(completions: list[Any], **_: Any) -> list[float]:
            started[0] += 1
            for _ in range(1000):
                if started[0] == 2:
                    return [1.0] * len(completions)
                await asyncio.sleep(0.001)
            return [math.inf]

        return [first, first]

    async def notebook() -> list[float | None]:
        return Rewards([], pair())(PROMPTS, TEXTS).total

    assert asyncio.run(notebook()) == [2.0] * 5


def test_a_function_is_called_as_trl_calls_it() -> None:
    seen: dict[str, Any] = {}

    def look(**given: Any) -> list[float]:
        seen.update(given)
        return [0.0] * 5

    Rewards([], [look])(PROMPTS, TEXTS, COLUMNS)
    assert seen == {
        "prompts": PROMPTS,
        "completions": [[{"role": "assistant", "content": text}] for text in TEXTS],
        "what": SAY,
    }


def test_a_reward_run_and_functions_add_up(tiny: Path, reward_run: Path, tmp_path: Path) -> None:
    """The function from a file, as a recipe names it."""
    (tmp_path / "own.py").write_text(
        "def vowels(completions, **_):\n    return [c[0]['content'].count('o') for c in completions]\n"
    )
    sources = [str(reward_run), f"{tmp_path / 'own.py'}:vowels", length]
    trainer = ppo_trainer(tiny, sources, tmp_path, reward_weights=[1.0, 0.1, -0.2])
    found = trainer.setup.rewards(PROMPTS, TEXTS)
    scores = score_alone(reward_run, rows_of(reward_run))
    expected = [s + 0.1 * t.count("o") - 0.2 * len(t) for s, t in zip(scores, TEXTS, strict=True)]
    assert found.total == pytest.approx(expected, abs=1e-5)
    assert list(found.parts) == ["reward_model", "vowels", "length"]


def returns(value: Any) -> Callable[..., Any]:
    def reward(**_: Any) -> Any:
        return value

    return reward


def fails(**_: Any) -> Any:
    raise KeyError("nothing there")


async def fails_later(**_: Any) -> Any:
    raise KeyError("nothing there")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (returns([1.0, 2.0]), "reward function reward: returned 2 scores for 5 responses"),
        (returns(1.0), "returned 1.0, and not a list of 5 scores"),
        (returns([1.0, math.nan, 1.0, 1.0, 1.0]), "gave nan for response 2 of 5; give a number, or None to abstain"),
        (returns([1.0, 1.0, -math.inf, 1.0, 1.0]), "gave -inf for response 3 of 5"),
        (returns(["good"] * 5), "gave 'good' for response 1 of 5"),
        (fails, r"reward function fails: KeyError: 'nothing there' \(test_rewards.py, line \d+\)"),
        (fails_later, r"reward function fails_later: KeyError: 'nothing there' \(test_rewards.py, line \d+\)"),
    ],
    ids=["wrong count", "no list", "nan", "infinite", "text", "raises", "raises later"],
)
def test_functions_that_are_wrong(function: Callable[..., Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Rewards([], [function])(PROMPTS, TEXTS)


def test_sources_that_are_wrong(tiny: Path, reward_run: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no reward: name a reward run"):
        Rewards([], [])
    with pytest.raises(BadInput, match=r"1 weights for 2 sources \(length, silent\)"):
        Rewards([], [length, silent], weights=[1.0])
    with pytest.raises(BadInput, match="no such file"):
        load_function("nowhere.py:f")
    (tmp_path / "own.py").write_text("def f(**_): return [0, 1]")
    with pytest.raises(BadInput, match="has no function 'g'"):
        load_function(f"{tmp_path / 'own.py'}:g")
    with pytest.raises(BadInput, match="reward function fails: KeyError"):
        ppo_trainer(tiny, [str(reward_run), fails], tmp_path / "run")
    assert not (tmp_path / "run").exists(), "it fails before anything is written"


def test_not_ending_costs_the_penalty(tiny: Path, reward_run: Path, tmp_path: Path) -> None:
    """And a response that stops at a stop token has ended, and is scored without it."""
    plain = ppo_trainer(tiny, reward_run, tmp_path, response_length=3)
    keys: dict[str, Any] = {"score_clip": 0.3, "missing_eos_penalty": 2.0, "response_length": 3}
    fined = ppo_trainer(tiny, reward_run, tmp_path, **keys)
    first, second = plain._roll_out(1), fined._roll_out(1)
    assert {rollout.ended for rollout in first} == {True, False}
    assert max(abs(rollout.score) for rollout in first) > 0.3
    for free, rollout in zip(first, second, strict=True):
        assert rollout.response == free.response
        clipped = min(max(free.score, -0.3), 0.3)
        assert rollout.score == pytest.approx(clipped - (0.0 if free.ended else 2.0), abs=1e-6)
    unended = next(rollout for rollout in first if not rollout.ended)
    stop = plain.tokenizer.decode(unended.response[1:2])
    stopping = ppo_trainer(tiny, reward_run, tmp_path, **keys, stop_tokens=[stop])._roll_out(1)
    stopped = stopping[first.index(unended)]
    assert (stopped.ended, stopped.response, stopped.text) == (True, unended.response[:2], unended.text.split(stop)[0])
    (alone,) = plain.setup.rewards([stopped.turns], [stopped.text]).total
    assert stopped.score == pytest.approx(min(max(alone, -0.3), 0.3), abs=1e-6)


def test_a_reward_model_by_hand() -> None:
    """The head on the state of the last token, whatever comes after it in its row."""

    class Tokenizer:
        def apply_chat_template(self, turns: Any, **_: Any) -> dict[str, list[int]]:
            return {"input_ids": [int(word) for turn in turns for word in turn["content"].split()]}

    model = RewardModel.__new__(RewardModel)
    model.name, model.tokenizer, model.device, model.context = "by hand", Tokenizer(), "cpu", None  # type: ignore
    model.states = lambda ids: torch.stack([ids.cumsum(1).float(), ids.float()], dim=-1)
    model.head = torch.nn.Linear(2, 1, bias=False)
    model.head.weight.data = torch.tensor([[10.0, 1.0]])
    prompts = [[{"role": "user", "content": "1 2"}], [{"role": "user", "content": "3"}]]
    assert model.scores(prompts, ["4", "5 6 7"], 2) == [10 * 7 + 4, 10 * 21 + 7]
