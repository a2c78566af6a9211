"""Near-duplicate texts: MinHash finds candidates, and the exact Jaccard similarity of their shingles decides.

A shingle is a run of 5 characters of the normalised text (Unicode NFKC, case folded, white space collapsed); of 3 where
most of the text is written without spaces between words, as Chinese, Japanese and Thai are, or in Korean's syllables,
since such a character says as much as two letters. Characters rather than words: they suit code, short prompts and
every script, and a typing error costs a few shingles. Texts with different numbers are different whatever else they
share: "What is 2+3?" is another question than "What is 2+4?", however long the words around the numbers. And what most
texts share is a template, which makes no two of them alike: of 50 texts or more, shingles that more than half of them
have are left out, unless a text has no others.

MinHash: Broder 1997, "On the resemblance and containment of documents"; bands: Leskovec, Rajaraman and Ullman, "Mining
of Massive Datasets", 3.4. The signatures are rensa's (arXiv 1704.04370), of hashes that we make, so that the same texts
give the same candidates on every machine.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import rensa

PERMUTATIONS = 128
THRESHOLD = 0.8  # as in Lee et al. 2022 (arXiv 2107.06499): below it many a template with other content is found
_RECALL = 0.995  # of pairs that are exactly as similar as the threshold; of more similar ones more
_MOST_NEIGHBOURS = 32  # in a bucket of hundreds each text is compared with the next ones: the group comes out whole
_SLACK = 0.2  # an estimate from 128 hashes is off by 0.2 less than once in a million
_AT_ONCE = 1 << 21  # characters that are hashed together
_TEMPLATE_OF, _TEMPLATE_SHARE, _TEMPLATE_SAMPLE = 50, 0.5, 1000  # texts at least, share of them, texts looked at

_DENSE = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_NUMBER = re.compile(r"\d+")
_FACTOR = 0x9E3779B97F4A7C15


class Near(NamedTuple):
    """Two texts, first < second, and the Jaccard similarity of their shingles."""

    first: int
    second: int
    similarity: float


def near(texts: Sequence[str], threshold: float = THRESHOLD) -> list[Near]:
    """Pairs of texts whose shingles have a Jaccard similarity of at least `threshold`, sorted. 0 < threshold <= 1.

    Every similarity is exact; a pair just at the threshold is missed once in 200 times. Texts that are the same once
    normalised are paired with the first of them only, at 1.0, and only that one is compared with others.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold {threshold} is not above 0 and at most 1")
    plain = [normalised(text) for text in texts]
    first: dict[str, int] = {}
    found = []
    for number, text in enumerate(plain):
        if first.setdefault(text, number) != number:
            found.append(Near(first[text], number, 1.0))
    distinct = np.fromiter(first.values(), dtype=np.int64, count=len(first))
    template = _template(list(first))
    shingles: dict[int, np.ndarray] = {}

    def of(number: int) -> np.ndarray:
        if number not in shingles:
            shingles[number] = np.unique(_hashes([plain[number]], template)[0])
        return shingles[number]

    for one, other in distinct[_candidates(_signatures(list(first), template), threshold)].tolist():
        if _NUMBER.findall(plain[one]) == _NUMBER.findall(plain[other]):
            alike = _jaccard(of(one), of(other))
            if alike >= threshold:
                found.append(Near(one, other, alike))
    return sorted(found)


def groups(count: int, pairs: Iterable[tuple[int, int] | Near]) -> list[int]:
    """For each of `count` texts the smallest number among those that it hangs together with through `pairs`."""
    parent = list(range(count))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for pair in pairs:
        low, high = sorted((root(pair[0]), root(pair[1])))
        parent[high] = low
    return [root(number) for number in range(count)]


def similarity(one: str, other: str) -> float:
    """Jaccard similarity of two texts' shingles, from 0 to 1; 0 where their numbers differ."""
    one, other = normalised(one), normalised(other)
    if _NUMBER.findall(one) != _NUMBER.findall(other):
        return 0.0
    return _jaccard(*(np.unique(_hashes([text])[0]) for text in (one, other)))


def normalised(text: str) -> str:
    """The text that shingles are taken from: width and case of letters set aside, white space collapsed."""
    if text.isascii():
        return " ".join(text.lower().split())
    return " ".join(unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).split())


# --- shingles and signatures ------------------------------------------------------------------------------------


def _jaccard(one: np.ndarray, other: np.ndarray) -> float:
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def _length(text: str) -> int:
    """How many characters a shingle of this text has."""
    if text.isascii():
        return 5
    return 3 if 2 * len(_DENSE.findall(text)) > len(text) - text.count(" ") else 5


def _hashes(plain: Sequence[str], template: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """64-bit hashes of all shingles, text after text, and where each text's begin and end, (texts + 1,); those in the
    sorted `template` are left out of texts that have others.
    """
    lengths = np.array([_length(text) for text in plain], dtype=np.int64)
    # a text shorter than a shingle is one shingle, filled up with what no text holds
    padded = [text.ljust(length, "\x00") for text, length in zip(plain, lengths.tolist(), strict=True)]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    sizes = np.array([len(text) for text in padded], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    offsets = np.concatenate([[0], np.cumsum(sizes - lengths + 1)])
    begins = np.ones(len(codes), dtype=bool)  # where a shingle of its text begins
    hashes = np.zeros(len(codes), dtype=np.uint64)
    wide = np.repeat(lengths == 5, sizes) if (lengths == 5).any() and (lengths == 3).any() else None
    for place in range(5):
        more = codes[place:] * np.uint64(pow(_FACTOR, place + 1, 1 << 64))
        if place >= 3:
            more = more * np.uint64(lengths[0] == 5) if wide is None else np.where(wide[: len(more)], more, 0)
        hashes[: len(more)] += more
    for back in range(1, 5):
        begins[starts[1:][lengths > back] - back] = False
    hashes = hashes[begins]
    hashes ^= hashes >> np.uint64(32)
    hashes *= np.uint64(0xD6E8FEB86659FD93)
    hashes ^= hashes >> np.uint64(29)
    if template is None or not len(template):
        return hashes, offsets
    nearest = np.minimum(np.searchsorted(template, hashes), len(template) - 1)
    kept = np.concatenate([[0], np.cumsum(template[nearest] != hashes)])  # how many before each
    nothing_else = kept[offsets[1:]] == kept[offsets[:-1]]
    keep = (np.diff(kept) == 1) | np.repeat(nothing_else, np.diff(offsets))
    return hashes[keep], np.concatenate([[0], np.cumsum(keep)])[offsets]


def _template(plain: Sequence[str]) -> np.ndarray:
    """The sorted hashes of shingles that most of the texts have, by a sample that is evenly spread."""
    if len(plain) < _TEMPLATE_OF:
        return np.empty(0, dtype=np.uint64)
    some = plain[:: -(-len(plain) // _TEMPLATE_SAMPLE)]
    found, counts = np.unique(np.concatenate([np.unique(_hashes([text])[0]) for text in some]), return_counts=True)
    return found[counts > _TEMPLATE_SHARE * len(some)]


def _signatures(plain: Sequence[str], template: np.ndarray | None = None) -> np.ndarray:
    """MinHash signatures, (texts, 128) uint32: the share of equal places estimates the Jaccard similarity."""
    parts = [np.empty((0, PERMUTATIONS), dtype=np.uint32)]
    for some in _chunks(plain):
        hashes, offsets = _hashes(some, template)
        matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(
            hashes, offsets.astype(np.uint64), num_perm=PERMUTATIONS, seed=1
        )
        parts.append(np.array(matrix.to_rows(), dtype=np.uint32))
    return np.concatenate(parts)


def _chunks(plain: Sequence[str]) -> Iterator[Sequence[str]]:
    begin, characters = 0, 0
    for end, text in enumerate(plain, start=1):
        characters += len(text) + PERMUTATIONS
        if characters >= _AT_ONCE:
            yield plain[begin:end]
            begin, characters = end, 0
    if begin < len(plain):
        yield plain[begin:]


# --- bands ------------------------------------------------------------------------------------------------------


def _rows(threshold: float) -> int:
    """The most hashes a band for which a pair at the threshold still shares some band nearly always."""
    return max(
        rows
        for rows in range(1, PERMUTATIONS)
        if rows == 1 or 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= _RECALL
    )


def _candidates(signed: np.ndarray, threshold: float) -> np.ndarray:
    """Pairs of rows that share a band and whose signatures look similar enough, (pairs, 2), each once, sorted."""
    rows, count = _rows(threshold), len(signed)
    found = [np.empty(0, dtype=np.int64)]
    for start in range(0, PERMUTATIONS - rows + 1, rows):
        keys = np.zeros(count, dtype=np.uint64)
        for column in range(start, start + rows):
            keys = (keys ^ signed[:, column]) * np.uint64(_FACTOR)
            keys ^= keys >> np.uint64(29)
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        for distance in range(1, min(_MOST_NEIGHBOURS, count - 1) + 1):
            same = np.flatnonzero(keys[distance:] == keys[:-distance])
            if not len(same):
                break
            found.append(order[same] * count + order[same + distance])
        found = [np.unique(np.concatenate(found))]
    pairs = np.stack(np.divmod(found[0], max(count, 1)), axis=1)
    kept = [
        some[(signed[some[:, 0]] == signed[some[:, 1]]).mean(axis=1) >= threshold - _SLACK]
        for some in np.array_split(pairs, len(pairs) // 65536 + 1)
    ]
    return np.concatenate(kept)
