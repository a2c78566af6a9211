"""A base in 4 and 8 bits: trained with LoRA from the recipe, on a CPU as on a GPU, by every verb that trains."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from align.evaluate.judges import RewardJudge
from align.evaluate.score import score_items
from align.models.load import find_model, load_causal_lm, load_reward_model, load_tokenizer
from align.models.logprobs import to_rows
from align.models.rewards import score_moments
from align.models.roles import Roles, load_roles
from align.models.scores import RewardModel, conversation_ids, load_scorer
from preferences.contract import Item
from preferences.shapes import Message, Response
from tests.align.conftest import PPO, TRAIN, done, write_recipe

PROMPTS = [[{"role": "user", "content": f"Say {word}."}] for word in ("red", "a cat and a dog", "sun", "soup")]
TEXTS = ["red", "cat dog fox", "", "soup soup soup soup soup soup"]


@pytest.fixture(scope="module", params=[4, 8], ids=["4-bit", "8-bit"])
def bits(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def runs(bits: int, tiny: Path, pairs_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reward, DPO, and PPO going on from DPO, each two steps on the quantised base."""
    home = tmp_path_factory.mktemp("quantised")
    keys: dict[str, Any] = {"dataset_name": str(pairs_file), f"load_in_{bits}bit": True, "learning_rate": 1e-3}
    folders = {verb: home / verb for verb in ("reward", "dpo", "ppo")}
    for verb, folder in folders.items():
        more: dict[str, Any] = {**TRAIN, "max_steps": 2, "model_name_or_path": str(tiny)}
        if verb == "ppo":
            more = {**PPO, "total_episodes": 8, "num_ppo_epochs": 2, "reward_model_path": str(folders["reward"])}
            more["model_name_or_path"] = str(folders["dpo"])
        said = done(verb, write_recipe(home / f"{verb}.yaml", **keys, **more), "--output_dir", folder)
        assert "MatMul" not in said.err
    return folders


def model_args(bits: int) -> Any:
    from trl import ModelConfig

    return ModelConfig(use_peft=True, lora_r=4, load_in_4bit=bits == 4, load_in_8bit=bits == 8)


def test_the_runs_are_finished_and_their_adapters_load(runs: dict[str, Path], bits: int) -> None:
    for verb, folder in runs.items():
        assert json.loads((folder / "manifest.json").read_text())["status"] == "finished"
        source = find_model(str(folder))
        load = load_reward_model if verb == "reward" else load_causal_lm
        model = load(source, model_args(bits))
        assert any(type(module).__name__.startswith("Linear") and "bit" in type(module).__name__
                   for module in model.modules())  # fmt: skip
        trained = [p for name, p in model.named_parameters() if "lora_B" in name]
        assert trained
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in trained)
        assert any((p != 0).any() for p in trained)


def test_the_first_step_of_dpo_is_the_reference(runs: dict[str, Path]) -> None:
    first = json.loads((runs["dpo"] / "metrics.jsonl").read_text().splitlines()[0])
    assert first["loss"] == pytest.approx(0.693147, abs=1e-4)


def test_the_score_head_is_whole(runs: dict[str, Path], bits: int) -> None:
    model = load_reward_model(find_model(str(runs["reward"])), model_args(bits))
    heads = [module for name, module in model.named_modules() if name.endswith("score.modules_to_save.default")]
    assert [type(head) for head in heads] == [torch.nn.Linear]
    assert heads[0].weight.dtype == torch.float32


def roles_of(runs: dict[str, Path], bits: int) -> tuple[Roles, list[RewardModel]]:
    source, reward = find_model(str(runs["dpo"])), find_model(str(runs["reward"]))
    keys: dict[str, Any] = {"shared_value": False, "use_reference": True}
    return load_roles(source, [reward], model_args(bits), None, torch.device("cpu"), **keys)


def test_ppo_scores_as_the_reward_run_on_the_same_quantised_base(runs: dict[str, Path], bits: int) -> None:
    """Three ways to one number: PPO's reward role, the run loaded alone, and transformers' forward of one row.

    In 8 bits large activations are computed apart, in columns that are chosen over all rows together.
    """
    whole = load_reward_model(find_model(str(runs["reward"])), model_args(bits)).eval()
    tokenizer = load_tokenizer(find_model(str(runs["reward"])))
    by_transformers = []
    for prompt, text in zip(PROMPTS, TEXTS, strict=True):
        with torch.no_grad():
            ids = torch.tensor([conversation_ids(tokenizer, prompt, text)])
            by_transformers.append(whole(input_ids=ids).logits.item())
    roles, (by_ppo,) = roles_of(runs, bits)
    alone = load_scorer(str(runs["reward"]), "cpu", model_args(bits))
    assert "reward_0" in roles.players
    assert torch.tensor(by_transformers).std() > 0.01
    for model in (by_ppo, alone):
        assert model.scores(PROMPTS, TEXTS, 1) == pytest.approx(by_transformers, abs=1e-5)
        assert model.scores(PROMPTS, TEXTS, 2) == pytest.approx(by_transformers, abs=1e-5 if bits == 4 else 1e-2)


def test_items_are_scored_on_the_quantised_base(runs: dict[str, Path], bits: int) -> None:
    """The mean and the spread that the run keeps are those of scores on that base."""
    responses = [Response(messages=[Message(role="assistant", content=text)]) for text in ("red", "cat dog fox")]
    item = Item(id="q1", prompt=[Message(role="user", content="Say red.")], responses=responses)
    (scored,) = score_items([item], [str(runs["reward"])], "items")
    model = load_scorer(str(runs["reward"]), "cpu", model_args(bits))
    mean, std = score_moments(str(runs["reward"]))
    prompts = [[{"role": "user", "content": "Say red."}]] * 2
    expected = [(score - mean) / std for score in model.scores(prompts, ["red", "cat dog fox"], 2)]
    assert scored.scores[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_judge_is_loaded_as_it_was_trained(runs: dict[str, Path], bits: int) -> None:
    score = RewardJudge("reward", str(runs["reward"]), False, 2).score
    judged = score(list(zip(PROMPTS, TEXTS, strict=True)))
    expected, plain = (
        load_scorer(str(runs["reward"]), "cpu", how).scores(PROMPTS, TEXTS, 2) for how in (model_args(bits), None)
    )
    assert judged == pytest.approx(expected, abs=1e-6)
    assert judged != pytest.approx(plain, abs=1e-4), "the same in whole numbers would show nothing"


def test_ppo_starts_at_its_reference(runs: dict[str, Path]) -> None:
    first, second = [json.loads(line) for line in (runs["ppo"] / "metrics.jsonl").read_text().splitlines()]
    assert first["objective/kl"] == 0.0
    assert abs(second["objective/kl"]) > 0


def test_the_policy_learns_in_eval_mode_after_a_rollout(runs: dict[str, Path], bits: int) -> None:
    """PPO samples, then learns, all in eval mode: a layer that repacks its weights to sample must not lose gradients.

    A step along one matrix's gradient changes the log-probability by the step times the gradient's squared length,
    here by central differences. In 8 bits activations are rounded, too, so only the sign is sure.
    """
    roles, _ = roles_of(runs, bits)
    tokenizer = load_tokenizer(find_model(str(runs["reward"])))
    ids = tokenizer.apply_chat_template(PROMPTS[1], return_dict=True)["input_ids"]
    rows = to_rows([ids[:-5]], [ids[-5:]], "cpu")

    def total() -> torch.Tensor:
        return roles.logprobs("policy", roles.states("policy", rows.ids), rows, 1.0)[0].sum()

    with torch.no_grad():
        total()
    total().backward()
    for layer in (0, 1):
        matrix = roles.parameters_of("policy")[f"model.layers.{layer}.mlp.up_proj.lora_B.policy.weight"]
        assert matrix.grad is not None
        step = 0.02 * matrix.grad / matrix.grad.norm()
        with torch.no_grad():
            matrix += step
            up = total()
            matrix -= 2 * step
            change = (up - total()).item() / 0.04
            matrix += step
        assert change == pytest.approx(matrix.grad.norm().item(), rel=0.05 if bits == 4 else 0.9)
