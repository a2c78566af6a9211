"""Recipes: what is read is what was written, and a wrong key or type is named."""

import dataclasses
import re
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from align.config import parse, read_recipe
from preferences.errors import BadInput


@dataclasses.dataclass
class Schema:
    rate: float = 0.1
    count: int = 3
    name: str = "x"
    flag: bool = False
    maybe: int | None = None
    either: bool | str = False
    kind: Literal["a", "b"] = "a"
    texts: list[str] = dataclasses.field(default_factory=list)
    numbers: dict[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.count < 0:
            raise ValueError("key `count`:  is\nbelow 0")


def made(**keys: Any) -> Schema:
    (instance,) = parse(keys, (Schema,), "r.yaml")
    assert isinstance(instance, Schema)
    return instance


VALUES = st.fixed_dictionaries(
    {},
    optional={
        "rate": st.floats(allow_nan=False, allow_infinity=False),
        "count": st.integers(0, 10**9),
        "name": st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=20),
        "flag": st.booleans(),
        "maybe": st.none() | st.integers(-(10**9), 10**9),
        "either": st.booleans() | st.text("abc", min_size=1),
        "kind": st.sampled_from(["a", "b"]),
        "texts": st.lists(st.text("ab c", max_size=5), max_size=3),
        "numbers": st.dictionaries(st.text("xyz", min_size=1, max_size=3), st.floats(-1, 1), max_size=3),
    },
)


@given(VALUES)
def test_what_is_written_is_read(values: dict[str, Any]) -> None:
    for key, value in values.items():
        assert getattr(made(**{key: value}), key) == value
    again = yaml.safe_load(yaml.safe_dump(values, allow_unicode=True))
    assert made(**again) == made(**values)


@given(VALUES, st.text("abcdefgh_", min_size=1, max_size=8).filter(lambda key: not hasattr(Schema, key)))
def test_an_unknown_key_is_named_with_a_known_one(values: dict[str, Any], key: str) -> None:
    known = {field.name for field in dataclasses.fields(Schema)}
    if key in known:
        return
    with pytest.raises(
        BadInput, match=rf"^r\.yaml: unknown key `{re.escape(key)}`; the nearest known one is `(\w+)`$"
    ) as told:
        made(**values, **{key: 1})
    assert str(told.value).split("`")[3] in known


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("rate", "fast", "'fast' is not a number"),
        ("rate", True, "True is not a number"),
        ("count", 1.0, "1.0 is not a whole number"),
        ("count", True, "True is not a whole number"),
        ("name", 3, "3 is not text"),
        ("flag", "yes please", "is not true or false"),
        ("maybe", "3", "'3' is not a whole number"),
        ("kind", "c", "'c' is not one of 'a', 'b'"),
        ("texts", [1], "key `texts[0]`: 1 is not text"),
        ("numbers", {"x": "y"}, "key `numbers.x`: 'y' is not a number"),
        ("numbers", [1], "is not a mapping"),
        ("count", -1, "r.yaml: key `count`: is below 0"),
    ],
)
def test_a_wrong_value_is_named(key: str, value: Any, said: str) -> None:
    with pytest.raises(BadInput) as told:
        made(**{key: value})
    assert said in str(told.value)
    assert f"`{key}" in str(told.value)


def test_numbers_as_yaml_reads_them() -> None:
    assert made(rate="1e-5").rate == 1e-5  # YAML 1.1 takes it for text
    assert made(rate=1).rate == 1.0
    assert isinstance(made(rate=1).rate, float)
    assert made(texts="sigmoid").texts == ["sigmoid"]
    assert made(either="auto").either == "auto"
    assert made(either=True).either is True


def test_a_key_of_two_schemas_goes_to_both() -> None:
    @dataclasses.dataclass
    class Other:
        rate: float = 0.0
        seed: int = 1

    first, second = parse({"rate": 0.5, "seed": 2}, (Schema, Other), "r.yaml")
    assert (first.rate, second.rate, second.seed) == (0.5, 0.5, 2)


def test_a_key_that_must_be_given() -> None:
    @dataclasses.dataclass
    class Needy:
        output_dir: str

    with pytest.raises(BadInput, match="the key `output_dir` is missing"):
        parse({}, (Needy,), "r.yaml")


def test_the_command_line_wins(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("# a comment\nrate: 0.1\ncount: 2\n")
    words = ["--rate", "0.2", "--flag", "--name=a=b", "--maybe", "null", "--numbers", '{"x": 1}', "--texts", "[a, b]"]
    assert read_recipe(tmp_path / "r.yaml", words) == {
        "rate": 0.2,
        "count": 2,
        "flag": True,
        "name": "a=b",
        "maybe": None,
        "numbers": {"x": 1},
        "texts": ["a", "b"],
    }
    assert read_recipe(tmp_path / "r.yaml", ["--count", "-5"])["count"] == -5
    (tmp_path / "empty.yaml").write_text("")
    assert read_recipe(tmp_path / "empty.yaml", []) == {}


def test_a_control_character_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("rate: \x00\n")
    with pytest.raises(BadInput, match="not YAML") as error:
        read_recipe(tmp_path / "r.yaml", [])
    assert "\n" not in str(error.value)


# --- a recipe on another ------------------------------------------------------------------------------------------


def stands_on(folder: Path, own: str, defaults: str) -> Path:
    (folder / "shared").mkdir(exist_ok=True)
    (folder / "shared/base.yaml").write_text(defaults)
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model/r.yaml").write_text("defaults: ../shared/base.yaml\n" + own)
    return folder / "model/r.yaml"


def test_defaults_lie_below_the_recipe_and_the_command_line_above(tmp_path: Path) -> None:
    path = stands_on(tmp_path, "rate: 0.2\nmaybe: null\n", "rate: 0.1\ncount: 2\nmaybe: 3\nname: b\n")
    assert read_recipe(path, ["--name", "c"]) == {"rate": 0.2, "count": 2, "maybe": None, "name": "c"}
    absolute = tmp_path / "absolute.yaml"
    absolute.write_text(f"defaults: {tmp_path / 'shared/base.yaml'}\n")
    assert read_recipe(absolute, [])["count"] == 2


def test_a_mapping_of_the_recipe_replaces_that_of_its_defaults(tmp_path: Path) -> None:
    path = stands_on(tmp_path, "numbers: {x: 1}\n", "numbers: {y: 2}\n")
    assert read_recipe(path, []) == {"numbers": {"x": 1}}


@pytest.mark.parametrize(
    ("own", "defaults", "said"),
    [
        ("", "defaults: other.yaml\n", r"shared/base\.yaml: names `defaults` of its own, and .*r\.yaml stands on"),
        ("", "rate: [\n", r"shared/base\.yaml, line 2: not YAML"),
        ("", "- rate\n", r"shared/base\.yaml: a recipe is a list of"),
        ("defaults: again.yaml\n", "", r"model/r\.yaml, line 2: not YAML \(the key `defaults` is given twice"),
    ],
)
def test_wrong_defaults(own: str, defaults: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=said):
        read_recipe(stands_on(tmp_path, own, defaults), [])


def test_more_wrong_defaults(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    for named, said in [("none.yaml", "there is no file"), ("[a]", "is not the name of a file"), ("", "None is not")]:
        path.write_text(f"defaults: {named}\n")
        with pytest.raises(BadInput, match=said):
            read_recipe(path, [])
    path.write_text("rate: 0.1\n")
    with pytest.raises(BadInput, match="a recipe's file says what it stands on"):
        read_recipe(path, ["--defaults", "x.yaml"])


@pytest.mark.parametrize(
    ("own", "defaults", "words", "said"),
    [
        ("", "rat: 1\n", [], "{shared}: unknown key `rat`"),
        ("rat: 1\n", "rat: 1\n", [], "{recipe}: unknown key `rat`"),
        ("", "rate: fast\n", [], "{shared}: key `rate`: 'fast' is not a number"),
        ("", "rate: 1\n", ["--rate", "fast"], "{recipe}: key `rate`: 'fast' is not a number"),
        ("rate: fast\n", "rate: 1\n", [], "{recipe}: key `rate`: 'fast' is not a number"),
        ("", "numbers: {x: y}\n", [], "{shared}: key `numbers.x`: 'y' is not a number"),
        ("", "push_to_hub: true\n", [], "{shared}: key `push_to_hub`: Concord never uploads"),
    ],
)
def test_a_mistake_names_the_file_in_which_it_stands(
    own: str, defaults: str, words: list[str], said: str, tmp_path: Path
) -> None:
    path = stands_on(tmp_path, own, defaults)
    with pytest.raises(BadInput) as told:
        parse(read_recipe(path, words), (Schema,), str(path))
    assert str(told.value).startswith(said.format(shared=tmp_path / "shared/base.yaml", recipe=path))
