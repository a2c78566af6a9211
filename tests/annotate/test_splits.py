"""Which prompts are the same, and how groups are split."""

from collections import Counter

from annotate.services.splits import (
    GroupsOfPrompts,
    Place,
    choose_joint_splits,
    choose_splits,
    nearly_the_same,
    normalised,
    on_another_side,
    prompt_hash,
)


def user(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def test_trivially_different_copies_are_the_same_prompt() -> None:
    for copy in ("what is  2+2 ?", "What is 2+2", "WHAT\nIS 2+2?!", "What is ２+２?", " “What is 2+2?” "):
        assert prompt_hash(user(copy)) == prompt_hash(user("What is 2+2?")), copy
    assert normalised("Straße, Ärger!") == "strasse ärger"


def test_different_prompts_stay_different() -> None:
    assert prompt_hash(user("What is 2+2?")) != prompt_hash(user("What is 2+3?"))
    assert prompt_hash(user("What is 2+2?")) != prompt_hash(user("What is 2-2?"))
    assert prompt_hash(user("!")) != prompt_hash(user("?"))
    other_role = [{"role": "system", "content": "Hi"}]
    assert prompt_hash(user("Hi")) != prompt_hash(other_role)


def test_shares_are_close_with_many_groups() -> None:
    splits = choose_splits({f"g{number}": 1 for number in range(200)}, {}, validation=0.1, test=0.2)
    assert Counter(splits.values()) == {"train": 140, "validation": 20, "test": 40}


def test_22_debates_fill_every_split() -> None:
    sizes = {f"debate-{number}": 300 + 37 * (number % 9) for number in range(22)}
    splits = choose_splits(sizes, {}, validation=0.1, test=0.1)
    total = sum(sizes.values())
    for split in ("validation", "test"):
        part = sum(size for group, size in sizes.items() if splits[group] == split) / total
        assert abs(part - 0.1) < 0.03


def test_few_groups() -> None:
    assert choose_splits({"a": 5}, {}, validation=0.1, test=0.1) == {"a": "train"}
    two = choose_splits({"a": 5, "b": 90}, {}, validation=0.1, test=0.1)
    assert two == {"a": "test", "b": "train"}
    three = choose_splits({"a": 90, "b": 1, "c": 50}, {}, validation=0.1, test=0.1)
    assert sorted(three.values()) == ["test", "train", "validation"] and three["a"] == "train"


def test_no_share_no_split() -> None:
    assert set(choose_splits({f"g{n}": 1 for n in range(9)}, {}, validation=0, test=0).values()) == {"train"}


def test_deterministic_whatever_the_order() -> None:
    sizes = {f"g{number}": 1 + number % 4 for number in range(40)}
    backwards = dict(reversed(sizes.items()))
    assert choose_splits(sizes, {}, validation=0.2, test=0.2) == choose_splits(backwards, {}, validation=0.2, test=0.2)


def test_later_groups_keep_the_shares_and_move_nothing() -> None:
    kept = {f"old{number}": ("test" if number < 2 else "train", 10) for number in range(10)}  # 20% test, no validation
    splits = choose_splits({f"new{number}": 10 for number in range(10)}, kept, validation=0.1, test=0.2)
    # 20 groups: 4 test and 2 validation are wanted, 2 test are there.
    assert Counter(splits.values()) == {"test": 2, "validation": 2, "train": 6}
    assert not set(splits) & set(kept)


# --- near-duplicates ------------------------------------------------------------------------------------------------

LONG = "Explain to a child of seven why the sky is blue at noon and red in the evening"


def prompt(text: str, system: str | None = None) -> tuple[str, list[dict[str, str]]]:
    turns = [{"role": "system", "content": system}] if system else []
    turns += user(text)
    return prompt_hash(turns), turns


def test_near_prompts_are_found_whatever_the_system_says() -> None:
    (one, _), (two, _), _ = near = [prompt(LONG), prompt(LONG + ", please"), prompt("Why is the sea salty?")]
    assert nearly_the_same(near) == {one: {two}, two: {one}}
    manner = "You are a helpful assistant. " * 20
    asked = [prompt("Why is the sea salty?", manner), prompt("Name three rivers of Spain.", manner)]
    assert nearly_the_same(asked) == {}, "a long system turn that all share says nothing"
    assert nearly_the_same([prompt(f"What is {n} times 17, and how do you know it?") for n in range(5)]) == {}


def groups(splits: dict[str, str | None], of_prompt: dict[str, str]) -> GroupsOfPrompts:
    return GroupsOfPrompts(of_prompt, splits, {})


def test_a_near_duplicate_joins_the_group_of_the_known_prompt() -> None:
    known = groups({"red": "train", "blue": None}, {"a": "red", "b": "blue"})
    known.add("c", None, {"a"})
    assert known.of("c") == "red" and known.newly_joined == []
    known.add("d", "green", {"b"})  # two groups that are named, neither with a split
    assert known.of("b") == known.of("d") and len(known.newly_joined) == 1
    known.add("e", None, {"a", "b"})  # now they hang together: the one with a split stays
    assert {known.of(one) for one in "abcde"} == {"red"} and not known.kept_apart


def test_near_duplicates_whose_splits_are_stored_are_kept_apart() -> None:
    known = groups({"red": "train", "blue": "test"}, {"a": "red", "b": "blue"})
    known.add("c", None, {"a", "b"})
    assert (known.of("a"), known.of("b"), known.of("c")) == ("red", "blue", "blue")  # what is held out most
    assert known.kept_apart == {"red"}
    known.add("d", "red", {"b"})
    assert known.of("d") == "red" and known.kept_apart == {"red", "blue"}


def test_near_prompts_of_two_projects_are_split_alike_or_left_out() -> None:
    places = [Place("x", "one", None), Place("y", "two", None), Place("z", "three", None)]
    near = {"x": {"y", "elsewhere"}, "y": {"x"}, "elsewhere": {"x"}}
    for share in (0.0, 0.3, 0.6):
        splits = choose_joint_splits(places, validation=0.0, test=share, near=near)
        assert splits[0] == splits[1]
    assert choose_joint_splits([places[0], places[1]._replace(split="test")], validation=0, test=0, near=near) == [
        "test",
        "test",
    ]
    settled = [Place("x", "one", "train"), Place("y", "two", "test"), Place("z", "three", "train")]
    assert on_another_side(settled, near) == [True, False, False] and on_another_side(settled) == [False] * 3
    # Not through a third one: z is near y, and not near x.
    chain = [Place("x", "one", "test"), Place("y", "two", "train"), Place("z", "three", "train")]
    assert on_another_side(chain, {"x": {"y"}, "y": {"x", "z"}, "z": {"y"}}) == [False, True, False]
