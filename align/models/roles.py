"""PPO's roles and who plays them: policy, value, reference, and the reward runs.

With LoRA there is one frozen base in memory, quantised if the recipe asks, and the roles are adapters on it: `policy`
and `value` are trained; `reference` is a frozen copy of the adapter that PPO started from, or the bare base if it
started there; each reward run that stands on the same base is one more. Whole models are separate.
"""

import copy
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from align.models.load import ModelSource, has_score_head, load_causal_lm, load_reward_model, load_tokenizer, loading
from align.models.logprobs import Rows, check_head, last_states, response_logprobs, spread, states_before
from align.models.scores import RewardModel, load_scorer
from align.models.text import train_text_only
from preferences.errors import BadInput

if TYPE_CHECKING:
    from peft import LoraConfig
    from transformers import PreTrainedTokenizerBase
    from trl import ModelConfig


class Player(NamedTuple):
    """Who plays a role."""

    model: Any  # a model of transformers, as PEFT left it
    adapter: str | None  # the adapter that is active then, "" for none; None for a model without adapters


class Roles:
    """Everything runs in eval mode, so without dropout: the first probability ratio is 1."""

    def __init__(self, policy: Any, players: dict[str, Player], value_head: nn.Linear) -> None:
        """policy: the model as it is saved, a PeftModel or a whole one. players: by role; a reference is optional."""
        self.policy = policy.eval()
        self.players = players
        self.device = policy.device
        self.value_head = value_head.to(self.device).requires_grad_(True)
        self.shared = players["value"] == players["policy"]  # the value model is a head on the policy's trunk
        self.one_base = players["policy"].adapter is not None
        # whole models are trained in fp32, and computed with in bf16 where a GPU has it
        self.autocast = (
            not self.one_base
            and self.device.type == "cuda"
            and policy.dtype == torch.float32
            and torch.cuda.is_bf16_supported()
        )
        for player in players.values():
            player.model.eval()
        self._train_only_policy_and_value()

    @contextmanager
    def acting(self, role: str) -> Iterator[Any]:
        """The model with one role's adapter active. Finish a role's backward before the next role acts:
        activations that are recomputed in the backward pass would come from whichever adapter is active then.
        """
        model, adapter = self.players[role]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            if adapter == "":
                with self.policy.disable_adapter():
                    yield model
            else:
                if adapter is not None and adapter not in self.policy.active_adapters:
                    self.policy.set_adapter(adapter)
                    self._train_only_policy_and_value()  # set_adapter flips requires_grad
                yield model

    def _train_only_policy_and_value(self) -> None:
        if not self.one_base:
            return
        trained = {"policy"} if self.shared else {"policy", "value"}
        for adapter in self.policy.peft_config:
            self.policy.set_requires_grad(adapter, adapter in trained)

    def states(self, role: str, ids: torch.Tensor) -> torch.Tensor:
        """Last hidden states (b, n, h) of ids (b, n), padded on the right, under a role."""
        with self.acting(role) as model:
            return last_states(model, ids)

    def logprobs(
        self, role: str, states: torch.Tensor, rows: Rows, temperature: float, *, entropy: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(log-probabilities, entropies or None), both (b, t), of the response tokens, from a role's states."""
        with self.acting(role) as model:
            return response_logprobs(model, states, rows, temperature, entropy=entropy)

    def values(self, states: torch.Tensor, rows: Rows) -> torch.Tensor:
        """(b, t): what the value model expects of the rest, before each response token is said; from its states."""
        return spread(self.value_head(states_before(states, rows).float()).squeeze(-1), rows)

    def parameters_of(self, role: Literal["policy", "value"]) -> dict[str, nn.Parameter]:
        """The trained parameters of a role by name; the value model's head is among its own."""
        model = self.players[role].model
        if role == "value":
            model = getattr(model, model.base_model_prefix)  # its vocabulary or score head has no part in it
        own = {} if role == "value" and self.shared else dict(model.named_parameters())
        if self.one_base:
            # PEFT's own names: a model may call modules of its own "value"; embeddings' adapters end with the role
            adapter = re.compile(rf"\.(lora_\w+|modules_to_save)\.{role}(\.|$)")
            own = {name: p for name, p in own.items() if adapter.search(name)}
        else:
            own = {f"{role}.{name}": p for name, p in own.items() if p.requires_grad}
        return own | ({"value_head.weight": self.value_head.weight} if role == "value" else {})

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Activations of the trained models are recomputed in the backward pass instead of kept.

        transformers' own switch acts in train mode only, in which some layers (OPT's) would drop out.
        """
        from transformers.modeling_layers import GradientCheckpointingLayer

        models = {id(self.players[role].model): self.players[role].model for role in ("policy", "value")}.values()
        layers = [m for model in models for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
        own = [vars(layer).get("forward") for layer in layers]  # a hook's, where something has put one there
        for layer in layers:
            layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
        try:
            yield
        finally:
            for layer, forward in zip(layers, own, strict=True):
                del layer.forward
                if forward is not None:
                    layer.forward = forward

    def save_policy(self, folder: Path) -> None:
        """Write the policy as a model or adapter folder that PEFT, TRL and every verb here read."""
        if not self.one_base:
            self.policy.save_pretrained(str(folder))
            return
        self.policy.save_pretrained(str(folder), selected_adapters=["policy"])
        for path in (folder / "policy").iterdir():  # PEFT puts every adapter that is not "default" one folder down
            path.replace(folder / path.name)
        shutil.rmtree(folder / "policy")


def adapters_on_one_base(
    base: Any,
    policy: "LoraConfig | str",
    rewards: Sequence[str] = (),
    *,
    shared_value: bool = False,
) -> tuple[Roles, list[nn.Linear]]:
    """All roles on one base, and the score heads of `rewards`: reward runs, folders of adapters on that base.

    policy: a new adapter's configuration, or the folder of one to go on with. The value model starts as the first
    reward run, head included (N+ details, arXiv 2403.17031); without one as a copy of the policy with a head of zeros.
    """
    from peft import PeftModel, get_peft_model

    start = ""
    if isinstance(policy, str):
        model = PeftModel.from_pretrained(base, policy, adapter_name="policy", is_trainable=True)
        model.load_adapter(policy, start := "reference")
    else:
        model = get_peft_model(base, policy, adapter_name="policy")
    # Reward runs load without their score head, which a causal model has no place for. Heads stay outside PEFT's
    # wrappers anyway: a wrapped module silently falls back when an adapter lacks it.
    for number, reward in enumerate(rewards):
        model.load_adapter(reward, f"reward_{number}")
    inner = model.get_base_model()
    heads = [read_score_head(reward).to(model.device) for reward in rewards]
    players = {"policy": Player(inner, "policy"), "reference": Player(inner, start)}
    players |= {f"reward_{number}": Player(inner, f"reward_{number}") for number in range(len(rewards))}
    value_head = zero_head(inner)
    if shared_value:
        players["value"] = players["policy"]
    else:
        players["value"] = Player(inner, "value")
        if rewards:
            model.load_adapter(rewards[0], "value", is_trainable=True)
            value_head = read_score_head(rewards[0])
        elif isinstance(policy, str):
            model.load_adapter(policy, "value", is_trainable=True)
        else:
            model.add_adapter("value", policy)
    return Roles(model, players, value_head), heads


def whole_models(policy: Any, value: Any, reference: Any | None, value_head: nn.Linear) -> Roles:
    """Separate models; `value` None for a head on the policy's trunk, `reference` None for none."""
    players = {"policy": Player(policy.requires_grad_(True), None)}
    players["value"] = players["policy"] if value is None else Player(value.requires_grad_(True), None)
    for player in players.values():
        train_text_only(player.model)
    if reference is not None:
        players["reference"] = Player(reference.requires_grad_(False), None)
    return Roles(policy, players, value_head)


def load_roles(
    source: ModelSource,
    rewards: list[ModelSource],
    model_args: "ModelConfig",
    policy_config: "LoraConfig | None",
    device: torch.device,
    *,
    shared_value: bool,
    use_reference: bool,
    model: Any = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
) -> tuple[Roles, list[RewardModel]]:
    """Load the roles and the reward models of a recipe; `policy_config` None (and no adapter) for whole models.

    `model`, `tokenizer`: in memory, to take instead of loading them. Raises BadInput for a reward run that is none, and
    for a model whose head does more than we know of.
    """
    for reward in rewards:
        if not has_score_head(reward):
            raise BadInput(
                f"reward_model_path {reward.name}: not a reward model (no score head); `align reward` makes one"
            )

    def placed(model: Any) -> Any:
        return model if getattr(model, "is_quantized", False) else model.to(device)  # that one is there already

    def another() -> Any:
        found = load_causal_lm(source._replace(adapter=None), model_args) if model is None else copy.deepcopy(model)
        return placed(found)

    base = another() if model is None else placed(model)
    if not check_head(base):
        raise BadInput(f"{source.name}: its vocabulary head does more than multiply, scale and cap; PPO can't take it")
    if policy_config is None and source.adapter is None:
        if base.dtype != torch.float32:
            raise BadInput(
                f"{source.name}: whole models are trained in fp32, and this one is in {str(base.dtype)[6:]}, which"
                " swallows small steps; say `dtype: float32`"
            )
        value, head = None, zero_head(base)
        if not shared_value:
            vocabulary = (tokenizer or load_tokenizer(source)).get_vocab()
            value, head = _whole_value(vocabulary, rewards, device) or (another(), head)
        roles = whole_models(base, value, another() if use_reference else None, head)
        return roles, [load_scorer(reward.name, device) for reward in rewards]

    # a model in memory may hold other weights than those of its name, which the reward runs were trained on
    here = [reward for reward in rewards if model is None and stands_on(reward, source)]
    with loading(source):
        adapters = [str(reward.adapter) for reward in here]
        roles, heads = adapters_on_one_base(base, source.adapter or policy_config, adapters, shared_value=shared_value)
    if not _starts_as_its_reference(roles):
        raise BadInput(
            f"{source.name}: the new adapter changes the model before any step (`init_lora_weights`), so its reference"
            " would be another model; take an initialisation that starts at zero"
        )
    scorers = []
    for reward in rewards:
        if reward in here:
            number = here.index(reward)
            scorers.append(RewardModel(reward, partial(roles.states, f"reward_{number}"), heads[number], device))
        else:
            scorers.append(load_scorer(reward.name, device))
    return roles, scorers


def _starts_as_its_reference(roles: Roles) -> bool:
    """Whether policy and reference say the same; PiSSA and its kind take a part of the base into the adapter."""
    ids = torch.tensor([[1, 2, 3]], device=roles.device)
    with torch.no_grad():
        policy, reference = roles.states("policy", ids).float(), roles.states("reference", ids).float()
    return torch.allclose(policy, reference, rtol=1e-2, atol=1e-2 * float(reference.abs().max()))


def stands_on(reward: ModelSource, source: ModelSource) -> bool:
    """Whether a reward run is an adapter on the same base as the policy, and so needs no model of its own."""
    return reward.adapter is not None and _same_model(reward.base, source.base)


def _same_model(first: str, second: str) -> bool:
    return first == second or (Path(first).is_dir() and Path(first).resolve() == Path(second).resolve())


def _whole_value(
    vocabulary: dict[str, int], rewards: list[ModelSource], device: torch.device
) -> tuple[Any, nn.Linear] | None:
    """The first reward run as a whole value model, if it reads the policy's tokens; its adapter is merged."""
    if not rewards or load_tokenizer(rewards[0]).get_vocab() != vocabulary:
        return None
    model: Any = load_reward_model(rewards[0], trainable=True).to(device).float()
    if rewards[0].adapter:
        model = model.merge_and_unload()
    head = nn.Linear(model.score.in_features, 1, bias=False)
    head.weight.data.copy_(model.score.weight)
    return model, head


def zero_head(model: Any) -> nn.Linear:
    """A value head that expects nothing: zeros, fp32."""
    head = nn.Linear(model.config.get_text_config().hidden_size, 1, bias=False)
    nn.init.zeros_(head.weight)
    return head


def read_score_head(folder: str) -> nn.Linear:
    """The frozen score head of a reward run's adapter folder, in fp32. Raises BadInput when there is none."""
    from safetensors import safe_open

    with safe_open(Path(folder) / "adapter_model.safetensors", framework="pt") as weights:
        for key in weights.keys():  # noqa: SIM118
            if key.split(".")[-2:] == ["score", "weight"]:
                weight = weights.get_tensor(key).float()
                head = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
                head.weight.data.copy_(weight)
                return head.requires_grad_(False)
    raise BadInput(f"{folder}: its adapter holds no score head; make it with `align reward`")
