"""Packs: pairs and rankings that share responses go through the reward model together, each response once.

Six pairs of a ranking of four are twelve responses as TRL pads them, and four here (InstructGPT's way: all comparisons
of a prompt are one element of the batch, arXiv 2203.02155, section 3.4). A tournament of thirty-three arguments, in
which each meets each, is 1,056 against 33.
"""

import random
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple


class PairRow(NamedTuple):
    """One pair as token ids."""

    chosen: Sequence[int]
    rejected: Sequence[int]
    preference: float
    weight: float
    margin: float = 0.0


class RankingRow(NamedTuple):
    """What everybody said of the responses of one item, token ids each: n rankings, of k ranks each."""

    texts: Sequence[Sequence[int]]
    ranks: Sequence[Sequence[int]]
    weight: Sequence[float]
    margin: Sequence[float]


class Pack(NamedTuple):
    """Pairs that go through the model at once."""

    texts: list[list[int]]  # token ids, each text once, shortest first
    pairs: list[tuple[int, int]]  # (chosen, rejected), as positions in `texts`
    preference: list[float]
    weight: list[float]
    margin: list[float]


class RankingPack(NamedTuple):
    """Rankings that go through the model at once, one entry a rater's ranking."""

    texts: list[list[int]]
    rankings: list[list[int]]  # the responses of an item, as positions in `texts`
    ranks: list[list[int]]
    weight: list[float]
    margin: list[float]


class _Row(NamedTuple):
    ends: tuple[int, ...]  # numbers of its texts
    said: Any  # PairRow or RankingRow


def pack_pairs(rows: Iterable[PairRow], max_texts: int, seed: int) -> list[Pack]:
    """Cut pairs into packs of at most `max_texts` >= 2 different texts.

    Every row is in exactly one pack. Rows that hang together through shared texts stay together where they fit, and
    where they don't, texts are cut into blocks of half a pack, and a pack holds the pairs of two blocks.
    """
    if max_texts < 2:
        raise ValueError("a pack needs room for two texts")
    numbered, texts = _numbered((row, (row.chosen, row.rejected)) for row in rows)
    chance = random.Random(seed)
    groups: list[list[_Row]] = []
    for component in _components(numbered, len(texts)):
        groups += [component] if _count(component) <= max_texts else _blocks(component, max_texts // 2, chance)
    packs = []
    for group in _filled(groups, max_texts, chance):
        members, place = _members(group, texts)
        packs.append(
            Pack(
                texts=members,
                pairs=[(place[row.ends[0]], place[row.ends[1]]) for row in group],
                preference=[row.said.preference for row in group],
                weight=[row.said.weight for row in group],
                margin=[row.said.margin for row in group],
            )
        )
    return packs


def pack_rankings(rows: Iterable[RankingRow], max_texts: int, seed: int) -> list[RankingPack]:
    """The same for whole rankings, none of more than `max_texts` texts: all rankings of an item are in one pack.

    Items that share texts stay together as far as they fit, in the order of the rows.
    """
    numbered, texts = _numbered((row, row.texts) for row in rows)
    if max(map(_count, ([row] for row in numbered)), default=0) > max_texts:
        raise ValueError("a pack needs room for the texts of a ranking")
    groups: list[list[_Row]] = []
    for component in _components(numbered, len(texts)):
        groups.append([])
        for row in component:
            if _count([*groups[-1], row]) > max_texts:
                groups.append([])
            groups[-1].append(row)
    packs = []
    for group in _filled(groups, max_texts, random.Random(seed)):
        members, place = _members(group, texts)
        packs.append(
            RankingPack(
                texts=members,
                rankings=[[place[end] for end in row.ends] for row in group for _ in row.said.ranks],
                ranks=[list(ranks) for row in group for ranks in row.said.ranks],
                weight=[weight for row in group for weight in row.said.weight],
                margin=[margin for row in group for margin in row.said.margin],
            )
        )
    return packs


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


def as_columns(packs: Sequence[Pack] | Sequence[RankingPack]) -> dict[str, list[Any]]:
    """One or more packs as columns of a data set."""
    return {name: [list(getattr(pack, name)) for pack in packs] for name in packs[0]._fields}


def _numbered(rows: Iterable[tuple[Any, Sequence[Sequence[int]]]]) -> tuple[list[_Row], list[list[int]]]:
    """Rows with the numbers of their texts, and the different texts."""
    numbers: dict[tuple[int, ...], int] = {}
    numbered = [
        _Row(tuple(numbers.setdefault(tuple(ids), len(numbers)) for ids in texts), said) for said, texts in rows
    ]
    return numbered, [list(ids) for ids in numbers]


def _components(rows: list[_Row], count: int) -> list[list[_Row]]:
    """Rows that are connected through shared texts, by union-find."""
    parent = list(range(count))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for row in rows:
        for end in row.ends[1:]:
            parent[root(row.ends[0])] = root(end)
    found: dict[int, list[_Row]] = {}
    for row in rows:
        found.setdefault(root(row.ends[0]), []).append(row)
    return list(found.values())


def _blocks(pairs: list[_Row], size: int, chance: random.Random) -> list[list[_Row]]:
    """Cut a component into groups of pairs, each between two blocks of `size` texts."""
    members = sorted({end for pair in pairs for end in pair.ends})
    chance.shuffle(members)
    block = {text: place // size for place, text in enumerate(members)}
    last = max(block.values())
    groups: dict[tuple[int, int], list[_Row]] = {}
    for pair in pairs:
        low, high = sorted((block[pair.ends[0]], block[pair.ends[1]]))
        if low == high:  # pairs inside a block ride with its pairs to a neighbour
            low, high = (low, low + 1) if low < last else (low - 1, low)
        groups.setdefault((low, high), []).append(pair)
    return list(groups.values())


def _filled(groups: list[list[_Row]], max_texts: int, chance: random.Random) -> list[list[_Row]]:
    """Groups in a random order, put together as long as there is room."""
    chance.shuffle(groups)
    packed: list[list[_Row]] = []
    room = 0
    for group in groups:
        if _count(group) > room:
            packed.append([])
            room = max_texts
        packed[-1].extend(group)
        room -= _count(group)
    return packed


def _count(rows: list[_Row]) -> int:
    return len({end for row in rows for end in row.ends})


def _members(rows: list[_Row], texts: list[list[int]]) -> tuple[list[list[int]], dict[int, int]]:
    """The texts of a pack, shortest first, and the place of each among them by its number."""
    members = sorted({end for row in rows for end in row.ends}, key=lambda number: (len(texts[number]), number))
    return [texts[number] for number in members], {number: place for place, number in enumerate(members)}
