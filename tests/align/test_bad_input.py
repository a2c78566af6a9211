"""A user's mistake: one clear sentence on stderr, exit code 2, and nothing left behind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.align.conftest import done, pair, refused, write_recipe, write_rows


@pytest.fixture(autouse=True)
def nothing_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    yield
    if (tmp_path / "home").is_dir():
        assert list((tmp_path / "home").iterdir()) == []


# --- recipes ------------------------------------------------------------------------------------------------------


def test_a_missing_recipe(tmp_path: Path) -> None:
    assert "cannot read the recipe" in refused("dpo", tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("beta: 0.1\nlearning_rate: [1\n", "line 3: not YAML"),
        ("beta: 0.1\nbeta: 0.2\n", "line 2: not YAML (the key `beta` is given twice)"),
        ("- beta\n", "a recipe is a list of `key: value` lines, and this is a list"),
        ("beta: 0.1\n", "`output_dir` is missing"),
        ("output_dir: x\n", "`dataset_name` is missing"),
        ("output_dir: x\ndataset_name: y\n", "`model_name_or_path` is missing"),
    ],
)
def test_a_malformed_recipe(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(text)
    assert said in refused("dpo", tmp_path / "r.yaml")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--betta", "0.1"], "unknown key `betta`; the nearest known one is `beta`"),
        (["--learning-rate", "0.1"], "the nearest known one is `learning_rate`"),
        (["--beta", "much"], "key `beta`: 'much' is not a number"),
        (["--use_peft", "3"], "key `use_peft`: 3 is not true or false"),
        (["--max_steps", "1.5"], "key `max_steps`: 1.5 is not a whole number"),
        (["--trust_remote_code"], "never runs code"),
        (["--push_to_hub"], "never uploads"),
        (["--hub_token", "hf_x"], "a recipe is kept and shown, and no place for a key"),
        (["--resume_from_checkpoint", "x"], "use --resume"),
        (["extra"], "is not an option"),
        (["--loss_type", "nonsense"], "Unknown loss type"),
        (["--lora_target_modules", "nonsense"], "Target modules"),
        (["--per_device_train_batch_size", "0"], "less than 1"),
        (["--dtype", "float3"], "none of float32, bfloat16, float16"),
        (["--load_in_4bit", "--use_peft", "false"], "add `use_peft: true`"),
        (["--report_to", "wandb"], "pip install wandb"),
        (["--accelerate_config", "nope"], "known names are cpu, deepspeed_zero2, deepspeed_zero3, fsdp2"),
        (["--accelerate_config", "fsdp2"], "shards a model over GPUs"),
        (["--resume", "--overwrite"], "contradict each other"),
        (["--resume"], "no run to resume there"),
    ],
)
def test_keys_and_options(words: list[str], said: str, recipe: Callable[..., Path]) -> None:
    import importlib.util

    import torch

    if "wandb" in words and importlib.util.find_spec("wandb"):
        pytest.skip("wandb is installed")
    if "fsdp2" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert said in refused("dpo", recipe(), *words)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"batch_size": 0}, "less than 1"),
        ({"learning_rate": float("nan")}, "is not a number above 0"),
        ({"num_mini_batches": 3}, "does not divide into 3"),
        ({"load_in_4bit": True, "use_peft": False}, "add `use_peft: true`"),
        ({"cliprang": 0.1}, "the nearest known one is `cliprange`"),
        ({"gamma": 1.5}, "key `gamma`: 1.5 is not between 0 and 1"),
        ({"max_grad_norm": 0}, "key `max_grad_norm`: 0.0 is not a number above 0"),
        ({"kl_target": -1.0}, "key `kl_target`: -1.0 is not a number above 0"),
        ({"kl_in": "loss"}, "k1 in the loss has a gradient of mean zero"),
        ({"use_peft": False, "use_reference": False}, "without a reference there is no KL"),
        ({"use_reference": False, "kl_coef": 0}, "with adapters the reference costs no memory"),
        ({"patience": 2}, "key `eval_steps`: is needed for `kl_budget` and `patience`"),
        ({"eval_steps": 1}, "is one file without a held-out split; name another in `eval_dataset_name`"),
        ({"ensemble": "most"}, "key `ensemble`"),
        ({"lr_scheduler_type": "upwards"}, "key `lr_scheduler_type`"),
        ({"report_to": "nobody"}, "key `report_to`"),
        ({"stop_tokens": "red cat"}, "key `stop_tokens`: 'red cat' is not one token"),
        ({"reward_model_path": None}, "no reward: name a reward run in `reward_model_path`"),
        ({"reward_weights": [1, 2]}, "2 weights for 1 sources (reward_model)"),
        ({"reward_funcs": "nowhere.py:f"}, "nowhere.py:f: no such file"),
        ({"dataset_name": None}, "no prompts: the key `dataset_name` is missing"),
    ],
)
def test_keys_of_ppo(keys: dict[str, Any], said: str, ppo_recipe: Callable[..., Path]) -> None:
    assert said in refused("ppo", ppo_recipe(**keys))


def test_a_reward_function_that_fails(ppo_recipe: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("def f(completions, **_):\n    return [1 / len(c) - 1 / 0 for c in completions]\n")
    said = refused("ppo", ppo_recipe(reward_funcs=f"{tmp_path / 'own.py'}:f"))
    assert "reward function f: ZeroDivisionError: division by zero (own.py, line 2)" in said


# --- models -------------------------------------------------------------------------------------------------------


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def with_pickles(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_short(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def with_a_layer_missing(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def of_another_shape(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))


def of_no_known_kind(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "nonsense"}')


def without_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def not_a_model(folder: Path) -> None:
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without_weights, "no weights there"),
        (with_pickles, "pickles are not read"),
        (cut_short, "its weights are damaged"),
        (with_a_layer_missing, "not whole: there is no model.layers.1.mlp.up_proj.weight"),
        (of_another_shape, "other shapes than its config.json says"),
        (of_no_known_kind, "`nonsense`"),
        (without_tokenizer, "its tokenizer could not be loaded"),
        (not_a_model, "not a model folder"),
    ],
)
def test_a_model_folder_that_is_not_right(
    damage: Callable[[Path], None], said: str, tiny: Path, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    damage(tmp_path / "model")
    assert said in refused("dpo", recipe(model_name_or_path=str(tmp_path / "model")))


def test_models_that_are_nowhere(recipe: Callable[..., Path]) -> None:
    assert "no such folder" in refused("dpo", recipe(model_name_or_path="./nowhere"))
    said = refused("reward", recipe(model_name_or_path="nobody/nothing"))
    assert "could not be loaded (no folder here has this name, and as a name on the hub: " in said
    assert "no such folder" in refused("chat", "/nowhere/at/all")


def test_a_reward_model_is_not_a_policy_and_a_policy_no_reward_model(
    reward_run: Path,
    tiny: Path,
    recipe: Callable[..., Path],
    ppo_recipe: Callable[..., Path],
    evaluate_recipe: Callable[..., Path],
) -> None:
    assert "is a reward model" in refused("dpo", recipe(model_name_or_path=str(reward_run)))
    assert "not a reward model" in refused("ppo", ppo_recipe(reward_model_path=str(tiny)))
    assert "not a reward model" in refused("evaluate", evaluate_recipe(judges={"reward": str(tiny)}))
    assert "is a reward model" in refused("chat", reward_run)


def test_a_reward_run_whose_base_has_changed(
    tiny: Path, reward_run: Path, tmp_path: Path, ppo_recipe: Callable[..., Path]
) -> None:
    """An adapter means something only on the weights that it was trained on."""
    from safetensors.torch import load_file, save_file

    base, run = tmp_path / "base", tmp_path / "reward"
    shutil.copytree(tiny, base)
    shutil.copytree(reward_run, run)
    for file in ("adapter_config.json", "manifest.json"):
        (run / file).write_text((run / file).read_text().replace(str(tiny), str(base)))
    keys = {"model_name_or_path": str(base), "reward_model_path": str(run)}
    done("ppo", ppo_recipe(**keys, output_dir=str(tmp_path / "elsewhere")))
    weights = load_file(base / "model.safetensors")
    save_file({name: value + 0.01 for name, value in weights.items()}, base / "model.safetensors", {"format": "pt"})
    assert f"the weights in {base} have changed since it was trained" in refused("ppo", ppo_recipe(**keys))


def test_a_reward_run_on_another_base_is_a_model_of_its_own(
    other_reward_run: Path, tmp_path: Path, ppo_recipe: Callable[..., Path]
) -> None:
    keys = {"reward_model_path": str(other_reward_run), "output_dir": str(tmp_path / "elsewhere")}
    assert "it is loaded as a model of its own" in done("ppo", ppo_recipe(**keys)).err


def test_a_base_is_the_same_however_its_path_is_written(
    tiny: Path, tmp_path: Path, ppo_recipe: Callable[..., Path]
) -> None:
    (tmp_path / "link").symlink_to(tiny)
    recipe = ppo_recipe(model_name_or_path=str(tmp_path / "link"), output_dir=str(tmp_path / "elsewhere"))
    assert "a model of its own" not in done("ppo", recipe).err


# --- data ---------------------------------------------------------------------------------------------------------

GOOD = pair("Say red.", "red", "red red red")
CASES = [
    ([GOOD, pair(" ", "red", "cat")], "line 2: the prompt is empty"),
    ([GOOD, {**GOOD, "prompt": []}], "line 2: the prompt is empty"),
    ([{key: value for key, value in GOOD.items() if key != "rejected"}], "no column `rejected`"),
    ([GOOD, {key: value for key, value in GOOD.items() if key != "rejected"}], "line 2: `rejected` is neither"),
    ([GOOD, {**GOOD, "chosen": "red"}], "line 2: some of prompt, chosen, rejected are texts"),
    ([GOOD, {**GOOD, "chosen": 3}], "line 2: `chosen` is neither"),
    ([GOOD, {**GOOD, "chosen": [{"role": "assistant"}]}], "line 2: `chosen` is neither"),
    ([GOOD, pair("soup " * 200, "red", "cat")], "row 2: 206 tokens do not fit the model's context of 128"),
    ([GOOD, pair("Say red.", "soup " * 200, "cat")], "row 2: 212 tokens do not fit the model's context of 128"),
]


@pytest.mark.parametrize(("rows", "said"), CASES)
@pytest.mark.parametrize("verb", ["dpo", "reward"])
def test_rows_of_pairs(
    verb: str, rows: list[dict[str, Any]], said: str, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "rows.jsonl", rows)
    told = refused(verb, recipe(dataset_name=str(data)))
    assert said.split(": ")[0] in told
    assert "fit the model's context" in told if "fit" in said else said in told


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps(GOOD) + "\n{oops\n", "line 2: not JSON"),
        (json.dumps(GOOD) + "\n[1]\n", "line 2: a list, not a JSON object"),
        ("", "nothing in it"),
    ],
)
def test_malformed_data(text: str, said: str, recipe: Callable[..., Path], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(text)
    assert said in refused("dpo", recipe(dataset_name=str(tmp_path / "rows.jsonl")))


def test_data_that_are_nowhere(recipe: Callable[..., Path], tmp_path: Path) -> None:
    assert "no such file or folder" in refused("dpo", recipe(dataset_name="./nowhere"))
    assert "no such file or folder" in refused("dpo", recipe(dataset_name="nowhere.jsonl"))
    assert "no such path on this machine, and no dataset of the hub" in refused(
        "dpo", recipe(dataset_name="nobody/nothing")
    )
    (tmp_path / "empty").mkdir()
    assert "not a folder that could be loaded" in refused("dpo", recipe(dataset_name=str(tmp_path / "empty")))


def test_demonstrations(recipe: Callable[..., Path], tmp_path: Path) -> None:
    assert "no column `completion` or `messages` or `text`" in refused("sft", recipe())
    rows = [{"text": "red"}, {"text": "soup " * 200}]
    said = refused("sft", recipe(dataset_name=str(write_rows(tmp_path / "texts.jsonl", rows))))
    assert "row 2" in said
    assert "set max_length to 128 or less" in said


def test_a_preferences_folder_that_was_changed(preferences: Path, recipe: Callable[..., Path], tmp_path: Path) -> None:
    shutil.copytree(preferences, tmp_path / "changed")
    with open(tmp_path / "changed" / "test.jsonl", "a") as stream:
        stream.write("\n")
    assert "does not match the hash" in refused("dpo", recipe(dataset_name=str(tmp_path / "changed")))


def test_a_split_with_nothing_in_it(preferences: Path, recipe: Callable[..., Path]) -> None:
    for words in (["--dataset_train_split", "validation"], ["--eval_strategy", "epoch"]):
        assert "nothing in its validation split" in refused("dpo", recipe(dataset_name=str(preferences)), *words)
    assert "no split 'tain'" in refused("dpo", recipe(dataset_name=str(preferences)), "--dataset_train_split", "tain")


@pytest.mark.parametrize("verb", ["dpo", "reward", "kto"])
def test_a_file_has_nothing_held_out(verb: str, pairs_file: Path, recipe: Callable[..., Path]) -> None:
    """Its only rows are those that train: an accuracy on them would not be one on held-out data."""
    said = refused(verb, recipe(eval_strategy="epoch"))
    assert f"key `eval_strategy`: {pairs_file} is one file without a held-out split" in said


@pytest.mark.parametrize("verb", ["dpo", "reward"])
def test_pairs_that_are_all_too_long(verb: str, recipe: Callable[..., Path]) -> None:
    said = refused(verb, recipe(), "--max_length", "4")
    assert "every one of its 40 rows is longer than max_length 4" in said


def test_prompts_that_are_all_too_long_for_ppo(ppo_recipe: Callable[..., Path], tmp_path: Path) -> None:
    """Some are left out and counted; see test_ppo.py."""
    data = str(write_rows(tmp_path / "long.jsonl", [pair(f"soup {n} " * 200, "red", "cat") for n in range(3)]))
    said = refused("ppo", ppo_recipe(dataset_name=data))
    assert "every one of its 3 prompts is too long" in said
    assert "120 are allowed (max_prompt_length None, and the model's context of 128 less 8 new tokens)" in said
    assert "prompts is too long; the shortest has 22 tokens, and 3 are allowed" in refused(
        "ppo", ppo_recipe(max_prompt_length=3)
    )


def test_prompts_longer_than_the_context(tiny: Path, evaluate_recipe: Callable[..., Path], tmp_path: Path) -> None:
    data = str(write_rows(tmp_path / "long.jsonl", [GOOD, pair("soup " * 200, "red", "cat")]))
    keys: dict[str, Any] = {"model_name_or_path": [str(tiny)], "dataset_name": data, "max_new_tokens": 8}
    sample = write_recipe(tmp_path / "sample.yaml", **keys)
    items = tmp_path / "items.jsonl"
    for words in (
        ["evaluate", evaluate_recipe(dataset_name=data)],
        ["sample", sample, "--to-annotate", items],
    ):
        said = refused(*words)
        assert "prompt 2" in said
        assert "do not fit the model's context of 128" in said
    assert not items.exists()
    keys |= {"dataset_name": str(write_rows(tmp_path / "short.jsonl", [GOOD])), "system": ["soup " * 150]}
    assert "do not fit" in refused("sample", write_recipe(tmp_path / "sample.yaml", **keys))


def test_a_template_that_refuses_a_turn(tiny: Path, recipe: Callable[..., Path], tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "model")
    template = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system turns') }}{% endif %}hello"
    (tmp_path / "model" / "chat_template.jinja").write_text(template)
    row = {**GOOD, "prompt": [{"role": "system", "content": "Be brief."}, *GOOD["prompt"]]}
    data = write_rows(tmp_path / "rows.jsonl", [row])
    said = refused("dpo", recipe(model_name_or_path=str(tmp_path / "model"), dataset_name=str(data)))
    assert "row 1: the model's chat template refuses a conversation of system, user" in said


# --- evaluate, sample ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"base": "nobody"}, "no model 'nobody' among the models base, copy"),
        ({"judges": {}}, "no judge; add `judges: {reward: runs/reward}`"),
        ({"judges": "runs/reward"}, "key `judges`: give each a name, as in `judges: {reward: runs/reward}`"),
        ({"judges": {"a": {"gold": True}}}, "key `judges.a`: no judge: give one of `reward_model`, `function`"),
        ({"judges": {"a": {"truth": "t.py:f", "function": "t.py:f"}}}, "key `judges.a`: function and truth: give one"),
        ({"judges": {"a": {"function": "t.py:f", "gold": True}}}, "key `judges.a.gold`: is for a `reward_model`"),
        ({"judges": {"a": {"rewardmodel": "r"}}}, "unknown key `judges.a.rewardmodel`; the nearest known one is `rew"),
        (
            {"reward_model_path": "runs/reward"},
            "unknown key `reward_model_path`; write `judges: {reward: runs/reward}`",
        ),
        ({"truth": "t.py:f"}, "unknown key `truth`; write `judges: {truth: {truth: t.py:f}}`"),
        ({"models": {"base": 3}}, "key `models.base`: 3 is not a mapping"),
        ({"models": {"base": {}}}, "the key `models.base.model` is missing"),
        (
            {"models": {"base": {"model": "x", "endpont": "y"}}},
            "`models.base.endpont`; the nearest known one is `endpo",
        ),
        ({"models": {"base": {"model": "x", "temperature": 0}}}, "key `models.base.temperature`: 0.0 is not above 0"),
        (
            {"models": {"base": {"model": "x", "temperature": "hot"}}},
            "key `models.base.temperature`: 'hot' is not a num",
        ),
        (
            {"models": {"base": {"model": "x", "api_key_env": "K"}}},
            "key `models.base.api_key_env`: is for an `endpoint`",
        ),
        (
            {"models": {"base": {"model": "x", "endpoint": "http://h", "api_key_env": "sk-1"}}},
            "key `models.base.api_key_env`: is the name of an environment variable, as MY_KEY, and not the key itself",
        ),
        (
            {"models": {"base": {"model": "x", "endpoint": "http://a:b@h"}}},
            "key `models.base.endpoint`: has a name or a",
        ),
        ({"models": {"base": {"model": "x", "endpoint": "h"}}}, "key `models.base.endpoint`: 'h' is no address"),
        ({"models": {"base": "x", "b": {"model": "x", "best_of": 4}}}, "key `models.b.reward_model`: missing"),
        ({"models": {"base": "x", "b": {"model": "x", "reward_model": "r"}}}, "key `models.b.best_of`: missing"),
        ({"models": {"base": "x", "b": {"model": "x", "best_of": 1}}}, "key `models.b.best_of`: 1 is less than 2"),
        ({"models": {"base": {"model": "x", "best_of": 2, "reward_model": "r"}}}, "'base' is a best of n"),
        ({"challenge_sets": {"../up": "x.jsonl"}}, "key `challenge_sets`: '../up' is not a plain name"),
        ({"challenge_sets": {"名" * 51: "x.jsonl"}}, "… is too long for a name; 150 bytes are the most"),
        (
            {"frontier": {"run": "x", "gold": "g"}},
            "key `frontier.gold`: there is no judge 'g' among the judges (reward)",
        ),
        ({"frontier": {"run": "x", "gold": "reward", "best_of": 1}}, "key `frontier.best_of`: 1 is less than 2"),
        ({"temperature": 0}, "not above 0"),
        ({"num_prompts": 0}, "less than 1"),
        ({"judges": {"truth": {"truth": "nowhere.py:utility"}}}, "no such file"),
        ({"dataset_name": "./nowhere"}, "no such file or folder"),
    ],
)
def test_keys_of_evaluate(keys: dict[str, Any], said: str, evaluate_recipe: Callable[..., Path]) -> None:
    assert said in refused("evaluate", evaluate_recipe(**keys))


def test_names_that_would_leave_the_folder(tiny: Path, evaluate_recipe: Callable[..., Path]) -> None:
    recipe = evaluate_recipe(models={"base": str(tiny), "../up": str(tiny)})
    assert "not a plain name" in refused("evaluate", recipe)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("def other(prompt, text): return 1.0", "has no function 'utility'"),
        ("oops(", "could not be run (SyntaxError"),
        ("def utility(prompt, text): return 'good'", "gave 'good' for a response"),
        ("def utility(prompt, text): return 1.0", "tells nothing apart"),
    ],
)
def test_truths_that_are_none(
    code: str, said: str, evaluate_recipe: Callable[..., Path], reward_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "truth.py").write_text(code)
    judges = {"reward": str(reward_run), "truth": {"truth": f"{tmp_path / 'truth.py'}:utility"}}
    assert said in refused("evaluate", evaluate_recipe(judges=judges))


def test_held_out_pairs_longer_than_the_reward_model_reads(
    evaluate_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "rows.jsonl", [GOOD, pair("Say red.", "soup " * 200, "cat")])
    assert "reward model's context is 128" in refused("evaluate", evaluate_recipe(dataset_name=str(data)))


def test_one_response_is_nothing_to_rank(tiny: Path, pairs_file: Path, tmp_path: Path) -> None:
    keys = {"model_name_or_path": [str(tiny)], "dataset_name": str(pairs_file), "num_responses": 1}
    said = refused("sample", write_recipe(tmp_path / "s.yaml", **keys), "--to-annotate", tmp_path / "items.jsonl")
    assert "needs two responses" in said
    keys["num_responses"] = 2
    said = refused("sample", write_recipe(tmp_path / "s.yaml", **keys), "--to-annotate", tmp_path / "no/items.jsonl")
    assert "make it first" in said
