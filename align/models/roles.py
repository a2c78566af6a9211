"""PPO's four roles as adapters on one frozen base: policy, value, reward, reference.

The base is in memory once, quantised if the recipe asks. `policy` and `value` are trained; `reward` is a reward run's
adapter; `reference` is a frozen copy of the adapter that PPO started from, or the bare base if it started there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from align.models.load import ModelSource, has_score_head, load_causal_lm, loading
from align.models.sampling import positions, response_logprobs
from preferences.errors import BadInput

if TYPE_CHECKING:
    from peft import LoraConfig
    from trl import ModelConfig

Role = Literal["policy", "value", "reward", "reference"]


class Roles:
    """One base, four roles. Everything runs in eval mode: PPO without dropout, so that the first ratio is 1."""

    def __init__(self, base: Any, policy: "LoraConfig | str", reward: str) -> None:
        """`policy`: a new adapter's configuration, or the folder of one to go on with; `reward`: a reward run."""
        from peft import PeftModel, get_peft_model

        if isinstance(policy, str):
            self.model = PeftModel.from_pretrained(base, policy, adapter_name="policy", is_trainable=True)
            self.model.load_adapter(policy, "reference")
        else:
            self.model = get_peft_model(base, policy, adapter_name="policy")
        self.started_from_adapter = isinstance(policy, str)
        # Both load without their score head, which a causal model has no place for: it is put beside PEFT, below.
        self.model.load_adapter(reward, "reward")
        self.model.load_adapter(reward, "value", is_trainable=True)
        self.model.eval()
        self.device = self.model.device
        # Heads stay outside PEFT's wrappers: a wrapped module silently falls back when an adapter lacks it.
        self.score_head = read_score_head(reward).to(self.device)
        self.value_head = read_score_head(reward).to(self.device).requires_grad_(True)  # value starts as the reward
        self._train_only_policy_and_value()

    @contextmanager
    def acting(self, role: Role) -> Iterator[Any]:
        """The model with one role's adapter active. Finish a role's backward before the next role acts:
        activations that are recomputed in the backward pass would come from whichever adapter is active then.
        """
        if role == "reference" and not self.started_from_adapter:
            with self.model.disable_adapter():
                yield self.model
        else:
            self.model.set_adapter(role)
            self._train_only_policy_and_value()  # set_adapter flips requires_grad
            yield self.model

    def _train_only_policy_and_value(self) -> None:
        frozen = ["reward", "reference"] if self.started_from_adapter else ["reward"]
        self.model.set_requires_grad(["policy", "value"], True)
        self.model.set_requires_grad(frozen, False)

    def hidden(self, role: Role, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last hidden states (b, n, h) of ids, mask (b, n) under a role, without the vocabulary head."""
        with self.acting(role) as model:
            base = model.get_base_model()
            trunk = getattr(base, base.base_model_prefix)
            states: torch.Tensor = trunk(
                input_ids=ids, attention_mask=mask, position_ids=positions(mask), use_cache=False
            ).last_hidden_state
            return states

    def logprobs(
        self, role: Role, ids: torch.Tensor, mask: torch.Tensor, length: int, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(log-probabilities, entropies), both (b, length), of the last `length` tokens under a role."""
        with self.acting(role) as model:
            return response_logprobs(model, ids, mask, length, temperature)

    def values(self, ids: torch.Tensor, mask: torch.Tensor, length: int) -> torch.Tensor:
        """(b, length): what the value model expects of the rest, before each of the last `length` tokens is said."""
        states = self.hidden("value", ids, mask)[:, -length - 1 : -1]
        return self.value_head(states.to(self.value_head.weight.dtype)).squeeze(-1).float()

    def parameters_of(self, role: Literal["policy", "value"]) -> dict[str, nn.Parameter]:
        """The trainable parameters of a role by name; the value model's head is among its own."""
        own = {name: p for name, p in self.model.named_parameters() if f".{role}." in name}
        return own | ({"value_head.weight": self.value_head.weight} if role == "value" else {})

    def save_policy(self, folder: Path) -> None:
        """Write the policy as an adapter folder that PEFT, TRL and every verb here read."""
        import shutil

        self.model.save_pretrained(str(folder), selected_adapters=["policy"])
        for path in (folder / "policy").iterdir():  # PEFT puts every adapter that is not "default" one folder down
            path.replace(folder / path.name)
        shutil.rmtree(folder / "policy")


def load_roles(
    source: ModelSource, reward: ModelSource, model_args: "ModelConfig", policy_config: "LoraConfig"
) -> Roles:
    """Load the base once and put the roles on it. Raises BadInput when the reward run has no adapter on that base."""
    if not has_score_head(reward):
        raise BadInput(f"reward_model_path {reward.name}: not a reward model (no score head); `align reward` makes one")
    if reward.adapter is None:
        raise BadInput(
            f"reward_model_path {reward.name}: a whole model; PPO on one base takes a reward run made with"
            " `use_peft: true` on the policy's base"
        )
    if not _same_model(reward.base, source.base):
        raise BadInput(
            f"reward_model_path {reward.name}: an adapter on {reward.base}, and the policy's base is {source.base};"
            " train the reward model on the policy's base"
        )
    base = load_causal_lm(ModelSource(source.name, source.base, None, source.revision), model_args)
    if torch.cuda.is_available() and not (model_args.load_in_4bit or model_args.load_in_8bit):
        base.to("cuda")
    with loading(reward):
        return Roles(base, source.adapter or policy_config, reward.adapter)


def _same_model(first: str, second: str) -> bool:
    return first == second or (Path(first).is_dir() and Path(first).resolve() == Path(second).resolve())


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
