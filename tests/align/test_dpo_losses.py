"""`align dpo` with our losses: TRL's own loss and gradients on certain rows, and what soft rows change."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from scipy.special import expit

from tests.align.conftest import TRAIN, done, pair, refused, write_recipe, write_rows

STORIES = Path(__file__).parents[3] / "shared" / "data" / "stories260K"
ROWS = [
    pair("Say red.", "red", "red and a cat and a dog"),
    pair("Say sun.", "the sun is a star", "tea"),
    pair("Say tea, please.", "tea milk", "moon"),
]


class Caught(Exception):
    pass


def trainer_of(path: Path, trls: bool = False, **keys: Any) -> Any:
    """The trainer that `align dpo` would train with; or TRL's own on the same model and rows."""
    from align.train import dpo

    def catch(trainer: Any, job: Any, **facts: Any) -> None:
        raise Caught(trainer)

    recipe = {"output_dir": str(path / "out"), "per_device_train_batch_size": 3, **keys}
    classes = {"_trainer_class": lambda ours: __import__("trl").DPOTrainer} if trls else {}
    with mock.patch.multiple(dpo, train=catch, **classes), pytest.raises(Caught) as caught:
        dpo.run_dpo(recipe, "dpo.yaml", overwrite=True)
    return caught.value.args[0]


def moved(trainer: Any, seed: int = 0) -> Any:
    """The same with a policy that is no longer the reference."""
    chance = torch.Generator().manual_seed(seed)
    for parameter in (p for p in trainer.model.parameters() if p.requires_grad):
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=chance)
    return trainer


def loss_and_gradients(trainer: Any) -> tuple[float, dict[str, torch.Tensor]]:
    rows = [trainer.train_dataset[number] for number in range(len(trainer.train_dataset))]
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
    loss.backward()
    gradients = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    return loss.item(), gradients


@pytest.fixture()
def make(tiny: Path, tmp_path: Path) -> Callable[..., Any]:
    def make(rows: list[dict[str, Any]] | None = None, **keys: Any) -> Any:
        data = write_rows(tmp_path / "rows.jsonl", rows or ROWS)
        return moved(trainer_of(tmp_path, **{"model_name_or_path": str(tiny), "dataset_name": str(data), **keys}))

    return make


@pytest.fixture(scope="module")
def an_adapter(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that was trained already: an adapter, of which TRL keeps a frozen copy as the reference."""
    home = tmp_path_factory.mktemp("adapter")
    data = write_rows(home / "rows.jsonl", ROWS)
    keys = {**TRAIN, "model_name_or_path": str(tiny), "dataset_name": str(data), "learning_rate": 1e-2, "max_steps": 3}
    done("dpo", write_recipe(home / "dpo.yaml", **keys), "--output_dir", home / "run")
    return home / "run"


WAYS: dict[str, dict[str, Any]] = {
    "a model": {},
    "a new adapter": {"use_peft": True, "lora_r": 4},
    "an adapter": {"use_peft": True, "model_name_or_path": "an_adapter"},
    "computed before": {"precompute_ref_log_probs": True},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("loss_type", ["sigmoid", "ipo", "hinge", ["sigmoid", "ipo", "hinge"]])
def test_on_certain_rows_it_is_trls(way: str, loss_type: Any, make: Callable[..., Any], an_adapter: Path) -> None:
    keys = {**WAYS[way], "loss_type": loss_type, "beta": 0.3}
    if "model_name_or_path" in keys:
        keys["model_name_or_path"] = str(an_adapter)
    if isinstance(loss_type, list):
        keys["loss_weights"] = [1.0, 0.5, 0.25]
    assert_same(*(loss_and_gradients(make(trls=trls, **keys)) for trls in (False, True)), within=SHARED)


LAID_OUT_ALIKE = 1e-6
SHARED = 1e-5  # a prompt that is encoded once, not twice: fp32 adds the same numbers up in another order


def assert_same(
    one: tuple[float, dict[str, torch.Tensor]], other: tuple[float, dict[str, torch.Tensor]], *, within: float
) -> None:
    assert one[0] == pytest.approx(other[0], abs=within, rel=within)
    assert one[1].keys() == other[1].keys()
    assert any(gradient.abs().max() > 1e-3 for gradient in one[1].values())
    for name, gradient in one[1].items():
        assert (gradient - other[1][name]).abs().max() <= within * max(1, gradient.abs().max()), name


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs ../shared/data/stories260K")
def test_on_real_weights_it_is_trls(make: Callable[..., Any]) -> None:
    keys = {"model_name_or_path": str(STORIES), "loss_type": ["sigmoid", "ipo", "hinge"], "loss_weights": [1, 0.1, 1]}
    assert_same(*(loss_and_gradients(make(trls=trls, **keys)) for trls in (False, True)), within=SHARED)


def test_a_mixture_of_experts_keeps_its_balance(tiny: Path, make: Callable[..., Any], tmp_path: Path) -> None:
    from transformers import AutoTokenizer, MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = MixtralConfig(
        vocab_size=400, num_key_value_heads=1, num_local_experts=4, router_aux_loss_coef=0.5, **sizes
    )
    MixtralForCausalLM(config).save_pretrained(tmp_path / "experts")
    AutoTokenizer.from_pretrained(tiny).save_pretrained(tmp_path / "experts")
    keys = {"model_name_or_path": str(tmp_path / "experts")}
    ours = loss_and_gradients(make(**keys))
    assert_same(ours, loss_and_gradients(make(trls=True, **keys)), within=LAID_OUT_ALIKE)
    assert ours[0] != pytest.approx(loss_and_gradients(make(router_aux_loss_coef=0.0, **keys))[0], abs=1e-2)


def test_label_smoothing_is_conservative_dpos(make: Callable[..., Any]) -> None:
    """TRL's sigmoid takes no heed of it any more; its `aot` on one row is the formula that sigmoid had."""
    one = {"rows": ROWS[:1], "label_smoothing": 0.2, "beta": 0.3}
    ours = loss_and_gradients(make(loss_type="sigmoid", **one))
    assert_same(ours, loss_and_gradients(make(loss_type="aot", trls=True, **one)), within=SHARED)
    assert ours[0] != pytest.approx(loss_and_gradients(make(**{**one, "label_smoothing": 0.0}))[0], abs=1e-3)


def test_soft_rows_by_hand(make: Callable[..., Any]) -> None:
    """Each row alone at TRL, both ways round, and then as the rows say: probability, weight, a tie."""
    rows = [
        {**ROWS[0], "preference": 0.8, "weight": 0.5, "strength": 1.0},
        {**ROWS[1], "preference": 0.5, "weight": 1.5, "strength": None},
        {**ROWS[2], "preference": 1.0, "weight": 0.0, "strength": 3.0},
    ]
    turned = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in ROWS]
    for loss_type in ("sigmoid", "hinge"):
        one, other = (
            [loss_and_gradients(make([row], loss_type=loss_type, trls=True))[0] for row in some]
            for some in (ROWS, turned)
        )
        mean = (0.5 + 1.5) / 3  # weights count beside the others
        expected = (0.5 * (0.8 * one[0] + 0.2 * other[0]) + 1.5 * (one[1] + other[1]) / 2) / mean / 3
        assert loss_and_gradients(make(rows, loss_type=loss_type))[0] == pytest.approx(expected, rel=1e-5)


def test_strength_by_hand(make: Callable[..., Any]) -> None:
    rows = [{**ROWS[0], "strength": 2.0}]
    trainer = make(rows, strength_margin=0.5, beta=0.3)
    loss, _ = loss_and_gradients(trainer)
    plain, _ = loss_and_gradients(make(rows, beta=0.3))
    difference = -torch.log(torch.expm1(torch.tensor(plain, dtype=torch.float64))).item()  # -log s(d) turned around
    assert loss == pytest.approx(-torch.log(torch.tensor(expit(difference - 1.0))).item(), rel=1e-4)
    assert trainer.means.take(trainer)["rewards/margins"] == pytest.approx(difference, rel=1e-4)


def test_weights_count_in_batches_of_one(make: Callable[..., Any]) -> None:
    rows = [{**ROWS[0], "weight": 3.0}, {**ROWS[1], "weight": 1.0}]
    trainer = make(rows)
    losses = [trainer.compute_loss(trainer.model, trainer.data_collator([row])).item() for row in trainer.train_dataset]
    plain = make(ROWS[:2], trls=True)
    each = [plain.compute_loss(plain.model, plain.data_collator([row])).item() for row in plain.train_dataset]
    assert losses == pytest.approx([1.5 * each[0], 0.5 * each[1]], rel=1e-5)


def test_ties_of_a_folder_train_and_count_as_nobodys(tiny: Path, preferences: Path, tmp_path: Path) -> None:
    recipe = write_recipe(
        tmp_path / "dpo.yaml", **TRAIN, model_name_or_path=str(tiny), dataset_name=str(preferences), output_dir="?"
    )
    done("dpo", recipe, "--output_dir", tmp_path / "soft", "--per_device_train_batch_size", 19)
    manifest = json.loads((tmp_path / "soft" / "manifest.json").read_text())
    assert (manifest["pairs"], manifest["ties"]) == (19, 1)
    (row, *_) = map(json.loads, (tmp_path / "soft" / "metrics.jsonl").read_text().splitlines())
    assert row["loss"] == pytest.approx(0.693147, abs=1e-4)  # the policy is the reference
    assert {"rewards/accuracies", "rewards/margins", "rewards/chosen", "logps/rejected", "entropy"} <= row.keys()
    said = refused("dpo", recipe, "--output_dir", tmp_path / "hard", "--loss_type", "apo_zero")
    assert "row 1: preference 0.9" in said
    assert f"`align convert {preferences} certain --to trl`" in said
    assert not (tmp_path / "hard").exists()
    done("convert", preferences, tmp_path / "certain", "--to", "trl")
    hard = ("--loss_type", "apo_zero", "--dataset_name", tmp_path / "certain")
    done("dpo", recipe, "--output_dir", tmp_path / "hard", *hard)


def test_trls_other_losses_pass_through(make: Callable[..., Any]) -> None:
    """All that TRL has today; docs/losses.md names them, too."""
    from trl import DPOConfig, DPOTrainer

    named = DPOConfig.__dataclass_fields__["loss_type"].metadata["help"].split("If multiple")[0]
    others = set(re.findall(r"'(\w+)'", named)) - {"sigmoid", "ipo", "hinge"}
    assert len(others) == 12
    docs = (Path(__file__).parents[2] / "docs" / "losses.md").read_text()
    assert not [name for name in others if f"`{name}`" not in docs]
    keys: Any
    for keys in (
        *({"loss_type": name, "label_smoothing": 0.1} for name in sorted(others)),
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5]},
        {"ld_alpha": 0.5},
        {"use_weighting": True},
        {"f_divergence_type": "js_divergence"},
    ):
        trainer = make(**keys)
        assert type(trainer) is DPOTrainer
        assert math.isfinite(loss_and_gradients(trainer)[0])


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (
            {"strength_margin": 1.0, "loss_type": ["sigmoid", "sft"]},
            "`strength_margin` does nothing with `loss_type: sft`",
        ),
        ({"strength_margin": 1.0, "ld_alpha": 0.5}, "`strength_margin` does nothing with `ld_alpha: 0.5`"),
        ({"strength_margin": -1.0}, "`strength_margin`: -1.0 is not a number of 0 or more"),
        ({"label_smoothing": 0.5}, "`label_smoothing`: 0.5 is not in [0, 0.5)"),
    ],
)
def test_what_does_not_fit(keys: dict[str, Any], said: str, recipe: Callable[..., Path]) -> None:
    assert said in refused("dpo", recipe(**keys))


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"preference": 1.2}, "row 1: preference 1.2: it is a number from 0 to 1"),
        ({"weight": -1}, "row 1: weight -1: it is a number at least 0"),
        ({"strength": "much"}, "row 1: strength 'much': it is a number"),
        ({"weight": float("inf")}, "row 1: weight inf: it is a number at least 0"),
        ({"strength": float("nan")}, "row 1: strength nan: it is a number"),
        ({"weight": 0.0}, "every row has weight 0"),
    ],
)
@pytest.mark.parametrize("verb", ["dpo", "reward"])
def test_rows_that_are_wrong(
    verb: str, facts: dict[str, Any], said: str, recipe: Callable[..., Path], tmp_path: Path
) -> None:
    data = write_rows(tmp_path / "wrong.jsonl", [{**ROWS[0], **facts}])
    assert said in refused(verb, recipe(dataset_name=str(data)))
