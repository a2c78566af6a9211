"""Packs: pairs that share responses go through the reward model together, each response once.

Six pairs of a ranking of four are twelve responses as TRL pads them, and four here (InstructGPT's way: all comparisons
of a prompt are one element of the batch, arXiv 2203.02155, section 3.4). A tournament of thirty-three arguments, in
which each meets each, is 1,056 against 33.
"""

import random
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple


class Pack(NamedTuple):
    """What goes through the model at once."""

    texts: list[list[int]]  # token ids, each text once, shortest first
    pairs: list[tuple[int, int]]  # (chosen, rejected), as positions in `texts`
    preference: list[float]
    weight: list[float]


class _Pair(NamedTuple):
    chosen: int
    rejected: int
    preference: float
    weight: float


def pack_pairs(
    rows: Iterable[tuple[Sequence[int], Sequence[int], float, float]], max_texts: int, seed: int
) -> list[Pack]:
    """Cut (chosen ids, rejected ids, preference, weight) rows into packs of at most `max_texts` >= 2 different texts.

    Every row is in exactly one pack. Rows that hang together through shared texts stay together where they fit, and
    where they don't, texts are cut into blocks of half a pack, and a pack holds the pairs of two blocks.
    """
    if max_texts < 2:
        raise ValueError("a pack needs room for two texts")
    numbers: dict[tuple[int, ...], int] = {}
    pairs = []
    for chosen, rejected, preference, weight in rows:
        ends = [numbers.setdefault(tuple(ids), len(numbers)) for ids in (chosen, rejected)]
        pairs.append(_Pair(ends[0], ends[1], preference, weight))
    texts = [list(ids) for ids in numbers]

    chance = random.Random(seed)
    groups: list[list[_Pair]] = []
    for component in _components(pairs, len(texts)):
        groups += [component] if _count(component) <= max_texts else _blocks(component, max_texts // 2, chance)
    chance.shuffle(groups)

    packed: list[list[_Pair]] = []
    room = 0
    for group in groups:
        if _count(group) > room:
            packed.append([])
            room = max_texts
        packed[-1].extend(group)
        room -= _count(group)
    return [_pack(group, texts) for group in packed]


def length_chunks(lengths: Sequence[int]) -> list[range]:
    """Cut texts, sorted by length, into runs that are padded apart, where that saves a quarter of the tokens or more.

    Halves again and again: [10, 10, 100, 100] -> 0..1, 2..3 (220 tokens with padding in place of 400).
    """

    def cut(run: range) -> list[range]:
        middle = run.start + len(run) // 2
        halves = (range(run.start, middle), range(middle, run.stop))
        if len(run) < 2 or sum(len(half) * lengths[half[-1]] for half in halves) > 0.75 * len(run) * lengths[run[-1]]:
            return [run]
        return [part for half in halves for part in cut(half)]

    return cut(range(len(lengths)))


def _components(pairs: list[_Pair], count: int) -> list[list[_Pair]]:
    """Pairs that are connected through shared texts, by union-find."""
    parent = list(range(count))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for pair in pairs:
        parent[root(pair.chosen)] = root(pair.rejected)
    found: dict[int, list[_Pair]] = {}
    for pair in pairs:
        found.setdefault(root(pair.chosen), []).append(pair)
    return list(found.values())


def _blocks(pairs: list[_Pair], size: int, chance: random.Random) -> list[list[_Pair]]:
    """Cut a component into groups of pairs, each between two blocks of `size` texts."""
    members = sorted({end for pair in pairs for end in (pair.chosen, pair.rejected)})
    chance.shuffle(members)
    block = {text: place // size for place, text in enumerate(members)}
    last = max(block.values())
    groups: dict[tuple[int, int], list[_Pair]] = {}
    for pair in pairs:
        low, high = sorted((block[pair.chosen], block[pair.rejected]))
        if low == high:  # pairs inside a block ride with its pairs to a neighbour
            low, high = (low, low + 1) if low < last else (low - 1, low)
        groups.setdefault((low, high), []).append(pair)
    return list(groups.values())


def _count(pairs: list[_Pair]) -> int:
    return len({end for pair in pairs for end in (pair.chosen, pair.rejected)})


def _pack(pairs: list[_Pair], texts: list[list[int]]) -> Pack:
    members = sorted({end for pair in pairs for end in (pair.chosen, pair.rejected)}, key=lambda n: (len(texts[n]), n))
    place = {number: index for index, number in enumerate(members)}
    return Pack(
        texts=[texts[number] for number in members],
        pairs=[(place[pair.chosen], place[pair.rejected]) for pair in pairs],
        preference=[pair.preference for pair in pairs],
        weight=[pair.weight for pair in pairs],
    )


def as_columns(packs: list[Pack]) -> dict[str, list[Any]]:
    """The packs as columns of a data set."""
    return {name: [list(getattr(pack, name)) for pack in packs] for name in Pack._fields}
