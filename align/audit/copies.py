"""What stands in the data twice: copies, leakage between splits, pairs both ways, cycles, pairs without a difference.

Texts are compared as `preferences.near` normalises them: case, width of letters and white space set aside.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from align.audit.rows import Part, Row
from preferences.near import Near, groups, near, normalised

_MOST_TO_COMPARE = 400  # responses of one prompt: a matrix of triples; larger prompts are looked at in part


class Place(NamedTuple):
    """A row: which part, and its index in it."""

    part: int
    row: int


@dataclass
class Copies:
    """The rows by numbers that stand for their normalised texts: equal numbers are equal texts. All arrays (rows,).

    `prompt` stands for the row's responses where the data has no prompts; `chosen` and `rejected` are -1 where
    there is none. Of each there is a family: the smallest number of a text that it hangs together with through near
    duplicates.
    """

    places: list[Place]
    held_out: np.ndarray
    prompt: np.ndarray
    chosen: np.ndarray
    rejected: np.ndarray
    tie: np.ndarray
    near_prompts: list[Near]
    prompt_family: np.ndarray
    chosen_family: np.ndarray
    rejected_family: np.ndarray


def compare(parts: Sequence[Part]) -> Copies:
    """Find out which texts of all rows are the same, or nearly."""
    places = [Place(number, row) for number, part in enumerate(parts) for row in range(len(part.rows))]
    rows: list[Row] = [parts[place.part].rows[place.row] for place in places]
    prompts, texts = _Numbers(), _Numbers()
    chosen, rejected, prompt = (np.full(len(rows), -1, dtype=np.int64) for _ in range(3))
    for number, row in enumerate(rows):
        one, other = (None if text is None else normalised(text) for text in (row.chosen, row.rejected))
        chosen[number] = -1 if one is None else texts.of(one)
        rejected[number] = -1 if other is None else texts.of(other)
        prompt[number] = prompts.of(normalised(row.asked) or "\n".join(sorted(text for text in (one, other) if text)))
    near_prompts = near(list(prompts.known))
    family = np.array([*groups(len(texts.known), near(list(texts.known))), -1], dtype=np.int64)
    return Copies(
        places=places,
        held_out=np.array([parts[place.part].held_out for place in places], dtype=bool),
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
        tie=np.array([row.preference == 0.5 for row in rows], dtype=bool),
        near_prompts=near_prompts,
        prompt_family=np.array(groups(len(prompts.known), near_prompts), dtype=np.int64)[prompt],
        chosen_family=family[chosen],
        rejected_family=family[rejected],
    )


class _Numbers:
    """A number for each different text, from 0."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def of(self, text: str) -> int:
        return self.known.setdefault(text, len(self.known))


def repeated(*columns: np.ndarray) -> list[tuple[int, int]]:
    """(row, the first row that is the same in all of these columns), for each row that is not the first itself."""
    _, first, inverse = np.unique(np.stack(columns, axis=1), axis=0, return_index=True, return_inverse=True)
    original = first[inverse.reshape(-1)]
    again = np.flatnonzero(original != np.arange(len(original)))
    return list(zip(again.tolist(), original[again].tolist(), strict=True))


def leaks(copies: Copies) -> list[tuple[int, int, float]]:
    """(held-out row, a row that trains, similarity) where the prompts are the same or nearly so, by held-out row."""
    trains: dict[int, int] = {}  # prompt -> the first row that trains on it
    for row in np.flatnonzero(~copies.held_out).tolist():
        trains.setdefault(int(copies.prompt[row]), row)
    like: dict[int, tuple[float, int]] = {prompt: (1.0, row) for prompt, row in trains.items()}
    for first, second, similarity in copies.near_prompts:
        for one, other in ((first, second), (second, first)):
            if other in trains and (one not in like or like[one][0] < similarity):
                like[one] = (similarity, trains[other])
    found = []
    for row in np.flatnonzero(copies.held_out).tolist():
        known = like.get(int(copies.prompt[row]))
        if known is not None:
            found.append((row, known[1], known[0]))
    return found


def shared_groups(copies: Copies, parts: Sequence[Part]) -> list[tuple[int, int]]:
    """(held-out row, a row that trains) of one group, which the data says belongs on one side; within one data set."""
    trains: dict[str, int] = {}
    for number, place in enumerate(copies.places):
        group = parts[place.part].rows[place.row].group
        if group is not None and not copies.held_out[number]:
            trains.setdefault(group, number)
    found = []
    for number, place in enumerate(copies.places):
        group = parts[place.part].rows[place.row].group
        if copies.held_out[number] and group in trains and not parts[place.part].elsewhere:
            found.append((number, trains[group]))
    return found


def degenerate(copies: Copies) -> list[int]:
    """Rows with a winner whose two responses are the same once normalised."""
    return np.flatnonzero((copies.chosen == copies.rejected) & (copies.chosen >= 0) & ~copies.tie).tolist()


def contradictions(copies: Copies) -> list[tuple[int, int]]:
    """(row, a row that says the opposite of the same two responses to the same prompt), for each such row."""
    usable = (copies.chosen >= 0) & (copies.rejected >= 0) & (copies.chosen != copies.rejected) & ~copies.tie
    first: dict[tuple[int, int, int], int] = {}
    rows = np.flatnonzero(usable).tolist()
    keys = list(
        zip(*(column[usable].tolist() for column in (copies.prompt, copies.chosen, copies.rejected)), strict=True)
    )
    for row, key in zip(rows, keys, strict=True):
        first.setdefault(key, row)
    return [
        (row, first[prompt, lost, won])
        for row, (prompt, won, lost) in zip(rows, keys, strict=True)
        if (prompt, lost, won) in first
    ]


class Triples(NamedTuple):
    """Three responses to a prompt, each pair of them judged: how many there are, how many go round in a circle."""

    complete: int
    cyclic: int
    examples: list[tuple[int, int, int]]  # rows: a > b, b > c, c > a


def cycles(copies: Copies, most_examples: int = 5) -> Triples:
    """Count circular triads (Kendall and Babington Smith 1940): a > b > c > a. Coins would make a quarter of them.

    Pairs that stand in the data both ways belong to `contradictions` and count for the side that has more rows.
    """
    usable = (copies.chosen >= 0) & (copies.rejected >= 0) & (copies.chosen != copies.rejected) & ~copies.tie
    rows = np.flatnonzero(usable)
    rows = rows[np.argsort(copies.prompt[rows], kind="stable")]
    edges = np.flatnonzero(np.diff(copies.prompt[rows], prepend=-2, append=-2))
    complete = cyclic = 0
    examples: list[tuple[int, int, int]] = []
    for start, end in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if end - start < 3:
            continue
        some = rows[start:end]
        texts, ends = np.unique(np.concatenate([copies.chosen[some], copies.rejected[some]]), return_inverse=True)
        won, lost = ends[: len(some)], ends[len(some) :]
        inside = (won < _MOST_TO_COMPARE) & (lost < _MOST_TO_COMPARE)
        some, won, lost, size = some[inside], won[inside], lost[inside], min(len(texts), _MOST_TO_COMPARE)
        wins = np.zeros((size, size))
        np.add.at(wins, (won, lost), 1.0)
        beats = (wins > wins.T).astype(np.float64)
        judged = beats + beats.T
        round_about = round((beats @ beats * beats.T).sum() / 3)
        complete += round((judged @ judged * judged).sum() / 6)
        cyclic += round_about
        if round_about and len(examples) < most_examples:
            row_of = {(int(w), int(x)): int(row) for row, w, x in zip(some, won, lost, strict=True)}
            a, c = (int(place) for place in np.argwhere((beats @ beats) * beats.T > 0)[0])
            b = int(np.flatnonzero(beats[a] * beats[:, c])[0])
            examples.append((row_of[a, b], row_of[b, c], row_of[c, a]))
    return Triples(complete, cyclic, examples)
