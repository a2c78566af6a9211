"""Groups and splits: what is the same prompt, and which side of train / validation / test a group takes."""

import hashlib
import unicodedata
from collections.abc import Mapping


def normalised(text: str) -> str:
    """Text without what makes a trivial copy differ: width and case of letters, punctuation, runs of white space."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = (" " if unicodedata.category(letter)[0] in "PZC" else letter for letter in folded)
    return " ".join("".join(kept).split()) or text  # a prompt of punctuation only stays itself


def prompt_hash(prompt: list[dict[str, str]]) -> str:
    """Hex SHA-256 of a normalised prompt, turns and roles included."""
    turns = "\n".join(f"{turn['role']}: {normalised(turn['content'])}" for turn in prompt)
    return hashlib.sha256(turns.encode()).hexdigest()


def choose_splits(
    new: Mapping[str, int], kept: Mapping[str, tuple[str, int]], *, validation: float, test: float
) -> dict[str, str]:
    """Choose the split of new groups so that the shares of items come close to those asked for.

    `new` is {group: items}, `kept` {group: (split, items)} of groups whose split is stored and never changes. Walking
    through the new groups in the order of their SHA-256, test takes each one that brings it nearer to its share of all
    items, then validation does; train takes the rest. A test or validation set that would stay empty takes the
    smallest group, as long as another is left for train. No clock and no chance: same input, same splits.
    """
    total = sum(new.values()) + sum(items for _, items in kept.values())
    left = sorted(new, key=lambda group: hashlib.sha256(group.encode()).hexdigest())
    spare = 0 if any(split == "train" for split, _ in kept.values()) else 1  # groups that train can't do without
    chosen: dict[str, str] = {}
    for split, part in (("test", test), ("validation", validation)):
        held = sum(items for known, items in kept.values() if known == split)
        takes: list[str] = []
        for group in left:
            nearer = abs(held + new[group] - part * total) < abs(held - part * total)
            if nearer and len(left) - len(takes) > spare:
                takes.append(group)
                held += new[group]
        if part > 0 and held == 0 and len(left) > spare:
            takes = [min(left, key=lambda group: new[group])]  # min keeps the order of hashes among equals
        left = [group for group in left if group not in set(takes)]
        chosen.update(dict.fromkeys(takes, split))
    chosen.update(dict.fromkeys(left, "train"))
    return chosen
