"""Groups and splits: what is the same prompt, and which side of train / validation / test a group takes."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

OWN_GROUP = "prompt-"  # begins the name of a group that no import named
HELD_OUT = ("train", "validation", "test")  # the later, the more it hurts to have trained on it


def normalised(text: str) -> str:
    """Text without what makes a trivial copy differ: width and case of letters, punctuation, runs of white space."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    kept = (" " if unicodedata.category(letter)[0] in "PZC" else letter for letter in folded)
    return " ".join("".join(kept).split()) or text  # a prompt of punctuation only stays itself


def prompt_hash(prompt: list[dict[str, str]]) -> str:
    """Hex SHA-256 of a normalised prompt, turns and roles included."""
    turns = "\n".join(f"{turn['role']}: {normalised(turn['content'])}" for turn in prompt)
    return hashlib.sha256(turns.encode()).hexdigest()


def nearly_the_same(prompts: Iterable[tuple[str, list[dict[str, str]]]]) -> dict[str, set[str]]:
    """{hash of a prompt: those of its near-duplicates}, of (hash, prompt); without those that have none.

    Near is what preferences.near says of the turns' text. System turns are set aside, unless there is nothing else:
    items often share a long one, and differ in what is asked.
    """
    from preferences.near import near  # numpy, which most of the service can do without

    texts: dict[str, str] = {}
    for hashed, prompt in prompts:
        if hashed not in texts:
            turns = [turn for turn in prompt if turn["role"] != "system"] or prompt
            texts[hashed] = "\n".join(turn["content"] for turn in turns)
    hashes = list(texts)
    found: dict[str, set[str]] = {}
    for pair in near(list(texts.values())):
        for one, other in ((pair.first, pair.second), (pair.second, pair.first)):
            found.setdefault(hashes[one], set()).add(hashes[other])
    return found


class GroupsOfPrompts:
    """Which group each prompt belongs to, as items come in: all items of one prompt stand in one group.

    A new prompt takes the group that the import says, or else that of a near-duplicate, or else one of its own. A known
    prompt keeps its group, and a group that the import says for it becomes one with that; so do the groups of
    near-duplicates. The one with a stored split stays, or else the one that an import named.
    Two groups that both have a split can't become one any more: where the splits differ they are kept apart.

    `splits` holds every group's stored split or None; `newly_joined` the groups that are part of another one now.
    """

    def __init__(
        self, of_prompt: Mapping[str, str], splits: Mapping[str, str | None], joined: Mapping[str, str]
    ) -> None:
        self.splits = dict(splits)
        self.newly_joined: list[str] = []
        self.kept_apart: set[str] = set()
        self._of_prompt = dict(of_prompt)
        self._joined = dict(joined)  # group -> the one that it has become part of

    def add(self, prompt: str, named: str | None, like: Collection[str] = ()) -> None:
        """Take in an item with this prompt (a hash), for which the import names a group, or None.

        `like` are the hashes of its near-duplicates: those that are known by now share its group. It goes with the one
        that is held out most, should their splits differ.
        """
        known = sorted(other for other in like if other in self._of_prompt)
        if prompt not in self._of_prompt:
            group = named or OWN_GROUP + prompt[:16]
            if known and named is None:
                splits = {other: self.splits[self.of(other)] or "train" for other in known}
                group = self.of(max(known, key=lambda other: HELD_OUT.index(splits[other])))
            self._of_prompt[prompt] = group
            self.splits.setdefault(group, None)
        elif named is not None:
            self._join(self.of(prompt), named)
        for other in known:
            self._join(self.of(prompt), self.of(other))

    def of(self, prompt: str) -> str:
        """The group of a prompt."""
        return self.whole(self._of_prompt[prompt])

    def whole(self, group: str) -> str:
        """The group that this one is part of by now, which may be itself."""
        while group in self._joined:
            group = self._joined[group]
        return group

    def _join(self, stays: str, named: str) -> None:
        self.splits.setdefault(named, None)
        goes = self.whole(named)
        if self._weight(goes) > self._weight(stays):
            stays, goes = goes, stays
        if stays == goes:
            return
        if self.splits[goes] is None:
            self._joined[goes] = stays
            self.newly_joined.append(goes)
        elif self.splits[goes] != self.splits[stays]:
            self.kept_apart.add(named)

    def _weight(self, group: str) -> tuple[bool, bool]:
        return self.splits[group] is not None, not group.startswith(OWN_GROUP)


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
        chosen.update(dict.fromkeys(takes, split))
        left = [group for group in left if group not in chosen]
    chosen.update(dict.fromkeys(left, "train"))
    return chosen


class Place(NamedTuple):
    """Where an item stands: the hash of its prompt, the name of its group, and the group's split, if it has one."""

    prompt: str
    group: str
    split: str | None


def choose_joint_splits(
    places: Sequence[Place], *, validation: float, test: float, near: Mapping[str, Collection[str]] | None = None
) -> list[str]:
    """The split of each item, so that what may be chosen still is chosen alike for all that belongs together.

    Items of one prompt belong together, those of `near` prompts, and those whose groups have one name, also if the two
    are of different projects. What has no split takes the most held-out one that is stored for something it belongs
    with, or else a new one as in `choose_splits`. A stored split stays, whatever the others say; see `on_another_side`.
    """
    root = _components(places, near or {})
    members: dict[str, list[Place]] = {}
    for place in places:
        members.setdefault(root(place.group), []).append(place)
    new: dict[str, int] = {}
    kept: dict[str, tuple[str, int]] = {}
    settled: dict[str, str] = {}
    for component, inside in members.items():
        stored = Counter(place.split for place in inside if place.split is not None)
        if not stored:
            new[component] = len(inside)
            continue
        settled[component] = max(stored, key=HELD_OUT.index)
        stored[settled[component]] += len(inside) - stored.total()
        kept.update({f"{component} {split}": (split, count) for split, count in stored.items()})
    settled |= choose_splits(new, kept, validation=validation, test=test)
    return [place.split or settled[root(place.group)] for place in places]


def on_another_side(places: Sequence[Place], near: Mapping[str, Collection[str]] | None = None) -> list[bool]:
    """Which items have to stay out, so that no prompt or one `near` it, and no group, stands on two sides of the split.

    Splits were stored before the projects came together, so that they may contradict each other. What is held out
    most (test, then validation) stays.
    """
    of_prompt: dict[str, str] = {}
    of_group: dict[str, str] = {}
    for place in places:
        split = place.split or "train"
        for known, key in ((of_prompt, place.prompt), (of_group, place.group)):
            known[key] = max(known.get(key, split), split, key=HELD_OUT.index)
    alike = dict(of_prompt)
    for prompt in of_prompt.keys() & (near or {}).keys():
        splits = [of_prompt[other] for other in (near or {})[prompt] if other in of_prompt]
        alike[prompt] = max([of_prompt[prompt], *splits], key=HELD_OUT.index)
    return [not (place.split or "train") == alike[place.prompt] == of_group[place.group] for place in places]


def _components(places: Sequence[Place], near: Mapping[str, Collection[str]]) -> Callable[[str], str]:
    """A function from a group's name to the smallest name among all groups that it is bound to by prompts."""
    parent: dict[str, str] = {}

    def root(group: str) -> str:
        while parent.setdefault(group, group) != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    first: dict[str, str] = {}  # prompt -> a group that has it
    for place in places:
        one, two = sorted((root(place.group), root(first.setdefault(place.prompt, place.group))))
        parent[two] = one
    for prompt, others in near.items():
        for other in others:
            if prompt in first and other in first:
                one, two = sorted((root(first[prompt]), root(first[other])))
                parent[two] = one
    return root
