"""A stage on top of another: what it stands on must be what its parent was trained with, compared by content.

A base, a tokenizer or a chat template that was changed between two stages raises no error in any library: the numbers
are only worse. So a run's manifest keeps what it was trained with (`stage_facts`), and whoever builds on the run looks
(`check_parent`).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align.models.load import ModelSource, load_tokenizer, model_facts
from align.run.manifest import hash_weights, run_of
from preferences.errors import BadInput
from preferences.files import read_json, sha256_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl import ModelConfig

# Keys of a recipe that say how a base is held while an adapter is trained on it.
HOW_HELD = ("load_in_4bit", "load_in_8bit", "bnb_4bit_quant_type", "use_bnb_nested_quant", "dtype", "use_peft")

_NAMED = ("eos_token", "bos_token", "pad_token", "unk_token")
# Keys of a config.json that say who wrote it, or how it is to be loaded, and not what the model computes.
_NOT_THE_MODEL = {"transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache", "architectures"}


def stage_facts(source: ModelSource, tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """What a run's manifest says of the model that it starts from, so that the next stage can tell a change."""
    facts = model_facts(source)
    return facts | {"config": _config(source.base), "tokenizer": tokenizer_facts(tokenizer)}


def tokenizer_facts(tokenizer: "PreTrainedTokenizerBase") -> dict[str, Any]:
    """What of a tokenizer decides which tokens a conversation becomes, short enough for a manifest."""
    return {
        "vocabulary": len(tokenizer),
        "vocabulary_sha256": sha256_json(tokenizer.get_vocab()),
        "special_tokens": {name: getattr(tokenizer, name) for name in _NAMED},
        "chat_template_sha256": sha256_json(tokenizer.chat_template),
    }


def check_parent(source: ModelSource) -> None:
    """Raise BadInput when a run's model no longer stands on what it was trained with: the base's weights or its
    config.json, the vocabulary, a special token, the chat template. Nothing is known of a model that no run made.
    """
    run = run_of(source.adapter or source.base)
    if run is None:
        return
    manifest = read_json(run / "manifest.json")
    trained_on = (manifest.get("inputs") or {}).get("model") or {}
    if source.adapter:
        _check_base(source, trained_on, manifest["verb"])
    known = trained_on.get("tokenizer")
    if known is not None:
        now = tokenizer_facts(load_tokenizer(source))
        if changed := _what_changed(known, now):
            raise BadInput(
                f"{source.name}: {changed}; put the tokenizer back that it was trained with, or train it again"
            )


def _check_base(source: ModelSource, trained_on: Mapping[str, Any], verb: str) -> None:
    base = str(trained_on.get("base"))
    what, mend = "a run for another base", "put it back, or train the run again"
    if verb == "reward":
        what, mend = "a reward run for another base", "train the reward model again"
    weights = (trained_on.get("sha256") or {}).get(base)
    if weights and Path(source.base).is_dir():
        if weights != hash_weights(source.base):
            raise BadInput(
                f"{source.name}: {what}: the weights in {source.base} have changed since it was trained; {mend}"
            )
        before, now = trained_on.get("config"), _config(source.base)
        if before is not None and before != now:
            key = next(key for key in {**before, **(now or {})} if before.get(key) != (now or {}).get(key))
            raise BadInput(
                f"{source.name}: {what}: {source.base}/config.json says `{key}`: {(now or {}).get(key)!r}, and said"
                f" {before.get(key)!r} when it was trained; {mend}"
            )
    elif not weights and base == source.base and source.revision and trained_on.get("revision") != source.revision:
        raise BadInput(
            f"{source.name}: {what}: it was trained on revision {trained_on.get('revision') or 'main'} of {base}, and"
            f" `model_revision` says {source.revision}; take the revision that it was trained on"
        )


def _what_changed(known: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """In words, or None: what of a tokenizer is other than a manifest knows it."""
    if known["vocabulary_sha256"] != now["vocabulary_sha256"]:
        more = "" if known["vocabulary"] == now["vocabulary"] else f" ({known['vocabulary']} tokens then)"
        return f"the vocabulary of its tokenizer has changed since it was trained: {now['vocabulary']} tokens{more}"
    for name, token in known["special_tokens"].items():
        if now["special_tokens"].get(name) != token:
            return (
                f"the {name} of its tokenizer has changed since it was trained:"
                f" {now['special_tokens'].get(name)!r}, which was {token!r}"
            )
    if known["chat_template_sha256"] != now["chat_template_sha256"]:
        return "its chat template has changed since it was trained"
    return None


def as_trained(name: str) -> "ModelConfig | None":
    """How the run that made a model held its base: in 4 or 8 bits, in which type. None for a model that no run made."""
    from trl import ModelConfig

    run = run_of(name)
    if run is None:
        return None
    recipe = read_json(run / "manifest.json").get("recipe") or {}
    return ModelConfig(**{key: recipe[key] for key in HOW_HELD if key in recipe})


def check_same_tokenizer(
    policy: ModelSource, tokenizer: "PreTrainedTokenizerBase", reward: ModelSource, its_own: "PreTrainedTokenizerBase"
) -> None:
    """Raise BadInput when a reward adapter on the policy's base reads texts in another way than the policy: by another
    vocabulary, special token or chat template. A reward run with a model of its own may.
    """
    difference = _difference(tokenizer, its_own)
    if difference is not None:
        raise BadInput(
            f"reward_model_path {reward.name}: stands on the policy's base, but {difference}, so it would score other"
            f" texts than {policy.name} writes; train both with one tokenizer and one chat template"
        )


def _difference(one: "PreTrainedTokenizerBase", other: "PreTrainedTokenizerBase") -> str | None:
    """In words, or None: in what the second tokenizer is not the first."""
    first, second = one.get_vocab(), other.get_vocab()
    if first != second:
        token = next(token for token in {**first, **second} if first.get(token) != second.get(token))
        return (
            f"its vocabulary is another: {len(second)} tokens against {len(first)}; {token!r} is"
            f" {_number(second.get(token))} in it, and {_number(first.get(token))} in the policy's"
        )
    for name in _NAMED:
        if getattr(one, name) != getattr(other, name):
            return f"its {name} is {getattr(other, name)!r}, and the policy's {getattr(one, name)!r}"
    if one.chat_template != other.chat_template:
        mine, its = str(one.chat_template), str(other.chat_template)
        place = next((n for n, (a, b) in enumerate(zip(mine, its, strict=False)) if a != b), min(len(mine), len(its)))
        return f"its chat template is another: {its[place : place + 40]!r} where the policy's has" + (
            f" {mine[place : place + 40]!r}"
        )
    return None


def _number(token: int | None) -> str:
    return "not" if token is None else f"number {token}"


def _config(base: str) -> dict[str, Any] | None:
    """A local base's config.json, less what does not change what it computes."""
    path = Path(base) / "config.json"
    if not path.is_file():
        return None
    return {key: value for key, value in read_json(path).items() if key not in _NOT_THE_MODEL and "drop" not in key}
