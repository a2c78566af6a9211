"""Which prompts are the same, and how groups are split."""

from collections import Counter

from annotate.services.splits import choose_splits, normalised, prompt_hash


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
