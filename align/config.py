"""A recipe: a YAML file that fully says a run, checked against the dataclasses that the verb passes in.

The keys are those dataclasses' fields: TRL's and transformers' own names, and a few of ours. `--key value` on the
command line wins over the file, and the file over the one that it names under `defaults`.
"""

import dataclasses
import difflib
import os
import types
import typing
from pathlib import Path
from typing import Any

import yaml

from preferences.errors import BadInput

# Keys of TRL and transformers that Concord refuses, with the reason.
_REFUSED = {
    "trust_remote_code": "Concord never runs code that comes with a model; use a model that transformers knows",
    "hub_token": "a recipe is kept and shown, and no place for a key; log in by `hf auth login`",
    "push_to_hub_token": "a recipe is kept and shown, and no place for a key; log in by `hf auth login`",
    "push_to_hub": "Concord never uploads; push the finished run folder yourself with `hf upload`",
    "resume_from_checkpoint": "use --resume, which continues from the run folder's last whole checkpoint",
    "overwrite_output_dir": "use --overwrite",
}


def read_recipe(path: str | Path, overrides: list[str]) -> dict[str, Any]:
    """Read a recipe, lay it over the file that it names under `defaults`, and `--key value` pairs over both. Keys and
    types are not checked yet. Raises BadInput.
    """
    given = _parse_overrides(overrides)
    if "defaults" in given:
        raise BadInput("--defaults: a recipe's file says what it stands on; name another recipe instead")
    own, defaults, _ = _read_files(Path(path))
    return {**defaults, **own, **given}


def _read_files(path: Path) -> tuple[dict[str, Any], dict[str, Any], Path | None]:
    """(a recipe's own keys, those of its defaults, the file that these stand in). Raises BadInput."""
    own = _read_yaml(path)
    if "defaults" not in own:
        return own, {}, None
    named = own.pop("defaults")
    if not isinstance(named, str) or not named:
        raise BadInput(f"{path}: key `defaults`: {named!r} is not the name of a file")
    file = Path(os.path.normpath(path.parent / Path(named).expanduser()))
    if not file.is_file():
        raise BadInput(f"{path}: key `defaults`: there is no file {file}; a name is relative to the recipe's folder")
    defaults = _read_yaml(file)
    if "defaults" in defaults:
        raise BadInput(f"{file}: names `defaults` of its own, and {path} stands on it; take one of the two out")
    return own, defaults, file


def _read_yaml(path: Path) -> dict[str, Any]:
    """The keys of one file. Raises BadInput."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise BadInput(f"cannot read the recipe {path}: {reason}") from None
    try:
        recipe = yaml.load(text, _UniqueKeys)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = " ".join(str(getattr(error, "problem", error)).split())
        raise BadInput(f"{path}{where}: not YAML ({problem})") from None
    if recipe is None:
        recipe = {}
    if not isinstance(recipe, dict):
        raise BadInput(f"{path}: a recipe is a list of `key: value` lines, and this is a {type(recipe).__name__}")
    return {str(key): value for key, value in recipe.items()}


def _stands_in(key: str, value: Any, where: str) -> str:
    """The file in which a wrong key of the recipe `where` stands: its own, or its defaults'."""
    try:
        own, defaults, file = _read_files(Path(where))
    except BadInput:  # not read from a file
        return where
    return str(file) if key not in own and key in defaults and defaults[key] == value else where


def _parse_overrides(words: list[str]) -> dict[str, Any]:
    """`["--beta", "0.2", "--use_cpu"]` -> `{"beta": 0.2, "use_cpu": True}`; values are read as YAML."""
    result: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--") or len(word) == 2:
            raise BadInput(f"{word!r} is not an option; keys of the recipe are given as --key value")
        key, equals, value = word[2:].partition("=")
        if not equals:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        try:
            result[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            result[key] = value
    return result


def parse(recipe: dict[str, Any], schemas: tuple[type, ...], where: str, inside: str = "") -> tuple[Any, ...]:
    """Make one instance of each dataclass in `schemas` from the recipe's keys.

    Raises BadInput for a key that no schema has (naming the nearest one), for a value of a wrong type, and for what
    a dataclass itself refuses. A key that several schemas share goes to each of them. A value whose type is a dataclass
    is a mapping, checked in the same way. `inside`: the path to this mapping, as "models.dpo.".
    """
    fields = {schema: {field.name: field for field in dataclasses.fields(schema) if field.init} for schema in schemas}
    known = {name for names in fields.values() for name in names} - set(_REFUSED)
    for key in [key for key in recipe if key not in known][:1]:
        at = where if inside else _stands_in(key, recipe[key], where)
        if key in _REFUSED:
            raise BadInput(f"{at}: key `{inside}{key}`: {_REFUSED[key]}")
        near = difflib.get_close_matches(key.replace("-", "_"), known, n=1, cutoff=0.0)
        raise BadInput(f"{at}: unknown key `{inside}{key}`; the nearest known one is `{near[0]}`")
    instances = []
    for schema in schemas:
        hints = typing.get_type_hints(schema)
        given = {}
        for name in fields[schema]:
            if name in recipe:
                try:
                    given[name] = _convert(recipe[name], hints[name], where, inside + name)
                except BadInput as error:
                    at = where if inside else _stands_in(name, recipe[name], where)
                    raise BadInput(str(error).replace(where, at, 1)) from None
        missing = [
            name
            for name, field in fields[schema].items()
            if name not in given
            and field.default is dataclasses.MISSING
            and field.default_factory is dataclasses.MISSING
        ]
        if missing:
            raise BadInput(f"{where}: the key `{inside}{missing[0]}` is missing; add `{missing[0]}: ...`")
        try:
            instances.append(schema(**given))
        except (ValueError, TypeError, NotImplementedError, ImportError) as error:
            said = " ".join(str(error).split())
            with_path = said.replace("key `", f"key `{inside}", 1)
            if inside and with_path == said:
                with_path = f"key `{inside[:-1]}`: {said}"
            raise BadInput(f"{where}: {with_path}") from None
    return tuple(instances)


def _convert(value: Any, hint: Any, where: str, key: str) -> Any:
    """Check `value` against a type hint. YAML 1.1 reads 1e-5 as text, so text that is a number passes for one."""
    if hint is Any:
        return value
    origin = typing.get_origin(hint)
    arguments = typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if isinstance(value, dict) and (nested := [option for option in arguments if dataclasses.is_dataclass(option)]):
            return _convert(value, nested[0], where, key)
        # exact types first, so that a number stays a number where text is allowed too
        for exact in (True, False):
            for option in arguments:
                if not exact or type(value) is (typing.get_origin(option) or option):
                    try:
                        return _convert(value, option, where, key)
                    except BadInput:
                        continue
    elif origin is typing.Literal:
        if value in arguments:
            return value
    elif origin is list or hint is list:
        if isinstance(value, list):
            inner = arguments[0] if arguments else Any
            return [_convert(item, inner, where, f"{key}[{number}]") for number, item in enumerate(value)]
        if isinstance(value, str) and arguments == (str,):  # `loss_type: sigmoid` as a list of one, as TRL's CLI does
            return [value]
    elif origin is dict or hint is dict:
        if isinstance(value, dict):
            inner = arguments[1] if arguments else Any
            return {str(name): _convert(item, inner, where, f"{key}.{name}") for name, item in value.items()}
    elif isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if isinstance(value, dict):
            return parse({str(name): item for name, item in value.items()}, (hint,), where, f"{key}.")[0]
    elif hint is bool:
        if isinstance(value, bool):
            return value
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif hint is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, str):
            try:
                return float(value)
            except ValueError:
                pass
    elif hint is str:
        if isinstance(value, str):
            return value
        if value is False:  # YAML 1.1 reads a bare `no`, as in `save_strategy: no`, as false
            return "no"
    elif hint is type(None):
        if value is None:
            return None
    elif isinstance(value, (str, dict)):  # an enum or a config object of transformers: its own constructor decides
        return value
    raise BadInput(f"{where}: key `{key}`: {value!r} is not {_type_name(hint)}")


def _type_name(hint: Any) -> str:
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "text", type(None): "null"}
    if hint in names:
        return names[hint]
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_type_name(option) for option in arguments if option is not type(None)))
    if origin is typing.Literal:
        return "one of " + ", ".join(repr(option) for option in arguments)
    if origin is list or hint is list:
        return f"a list ({_type_name(arguments[0])} each)" if arguments else "a list"
    if origin is dict or hint is dict:
        return "a mapping (`name: value` lines)"
    if dataclasses.is_dataclass(hint):
        return "a mapping (`key: value` lines)"
    return f"a {getattr(hint, '__name__', hint)}"


class _UniqueKeys(yaml.SafeLoader):
    """YAML that refuses a key given twice, where PyYAML silently takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=deep)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key `{key}` is given twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)
