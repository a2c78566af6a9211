"""Strengths by exact numbers; and what an export promises of the consensus. The model has tests of its own."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from annotate.services.consensus import is_tie, pair_strength, plain_ranks, strength_pairs
from annotate.store.database import Database, open_database
from preferences.contract import PreferencesFolder
from preferences.stats.consensus import Said, fit
from tests.annotate.house import item
from tests.annotate.test_export_rows import exported, pairs, texts

A, B, TIE = [1, 2], [2, 1], [1, 1]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    return open_database(str(tmp_path_factory.mktemp("consensus") / "a.db"), create=True)


def test_strength_is_about_the_best_over_the_second() -> None:
    assert strength_pairs([2, 1]) == {(0, 1)}
    assert strength_pairs([3, 1, 2]) == {(1, 2)}
    assert strength_pairs([1, 3, 2, 4]) == {(0, 2)}
    assert strength_pairs([2, 1, 2]) == {(0, 1), (1, 2)}  # two seconds
    assert strength_pairs([1, 1, 2]) == {(0, 1)}  # two firsts: a tie of strength 0
    assert strength_pairs([1, 1]) == {(0, 1)}


def test_pair_strength_is_the_mean_size_of_those_given() -> None:
    answers = [([1, 2], -3), ([2, 1], 1), ([1, 1], 0), ([1, 2], None)]
    assert pair_strength(answers, 0, 1) == (3 + 1 + 0) / 3
    assert pair_strength([([1, 2], None)], 0, 1) is None
    three = [([1, 2, 3], 2), ([1, 3, 2], 3)]
    assert pair_strength(three, 0, 1) == 2.0
    assert pair_strength(three, 0, 2) == 3.0
    assert pair_strength(three, 1, 2) is None


def test_only_the_order_of_ranks_counts() -> None:
    assert plain_ranks([4, 4, 1]) == [2, 2, 1] and plain_ranks([1, 2, 3]) == [1, 2, 3] and plain_ranks([7, 7]) == [1, 1]


def test_a_tie_is_what_a_reliable_rater_would_most_likely_say() -> None:
    items = [[A], [TIE], [A, B], [A, TIE, TIE], [A, A, TIE], [TIE] * 5]
    found = fit([[Said(f"w{n}", ranks) for n, ranks in enumerate(answers)] for answers in items]).items
    assert [is_tie(one, 0, 1) for one in found] == [one.ranks == [1, 1] for one in found]
    assert [is_tie(one, 0, 1) for one in found] == [False, True, True, True, False, True]


def test_a_winner_by_a_hair_is_a_tie() -> None:
    """Two raters against two, of whom some are a little more reliable: no coin goes into training data."""
    items = [[A, A, B, B]] + [[A, A, A, A]] * 5 + [[A, A, A, B]]
    found = fit([[Said(f"w{n}", ranks) for n, ranks in enumerate(answers)] for answers in items]).items
    assert 0 < abs(found[0].preference[0, 1] - 0.5) < 0.05 and is_tie(found[0], 0, 1)
    assert not is_tie(found[-1], 0, 1)


def rows_of(folder: PreferencesFolder) -> dict[str, Any]:
    """{ranking: its only pair, with a winner or without}."""
    return {row.ranking: row for row in [*pairs(folder), *folder.ties]}


def test_more_that_agree_make_it_surer_and_who_differs_less(database: Database) -> None:
    counts = [[A], [A, A], [A, A, A], [A, A, B], [A, A, TIE], [A, B], [TIE, TIE, TIE]]
    folder = exported(database, [item(str(n), *answers) for n, answers in enumerate(counts)])
    one, two, three, against, tied, split, ties = (rows_of(folder)[str(n)] for n in range(7))
    assert one.preference < two.preference < three.preference and one.weight < two.weight < three.weight
    assert against.preference < two.preference and against.weight < two.weight
    assert max(against.preference, tied.preference) < three.preference
    assert all(texts(row) == (f"{row.ranking} response 0", f"{row.ranking} response 1") for row in (one, against, tied))
    assert split.preference < one.preference and [row.ranking for row in folder.ties] == ["5", "6"]
    assert split.weight < one.weight < ties.weight  # that they are alike is known of the one, little of the other
    ranks = {ranking.ranking: ranking.ranks for ranking in folder.rankings}
    assert [ranks[str(n)] for n in (0, 1, 2, 3, 4, 6)] == [A, A, A, A, A, TIE]


def test_who_is_trusted_more_counts_for_more(database: Database) -> None:
    """w0 to w2 are of one mind; w3 and w4 are not: where w0 says one thing and w3 another, w0 is believed."""
    agreed = [item(f"q{n}", *([A if n % 2 else B] * 3)) for n in range(12)]
    for number, row in enumerate(agreed):
        row["answers"] += [
            {"rater": "w3", "ranks": A if number % 3 else B},
            {"rater": "w4", "ranks": B if number % 4 < 2 else A},
        ]
    against = item("against")
    against["answers"] = [{"rater": "w0", "ranks": A}, {"rater": "w3", "ranks": B}, {"rater": "w4", "ranks": B}]
    folder = exported(database, [*agreed, against])
    row, trust = rows_of(folder)["against"], folder.manifest["raters"]
    assert texts(row) == ("against response 0", "against response 1"), "one who can be trusted, against two who can't"
    assert min(trust["w0"], trust["w1"], trust["w2"]) > 0.8 > 0.5 > max(trust["w3"], trust["w4"])
    assert set(folder.manifest["projects"][0]["consensus"]) == {"spread", "reliability", "ties", "strong"}


def test_gold_items_anchor_who_is_trusted(database: Database) -> None:
    """Two raters against each other: only what the owner knows says who is right."""
    gold = [item(f"g{n}", A, B, gold=A) for n in range(8)]
    folder = exported(database, [*gold, item("q", A, B), item("swapped", B, A)])
    rows = rows_of(folder)
    assert texts(rows["q"])[0] == "q response 0" and texts(rows["swapped"])[0] == "swapped response 1"
    assert folder.manifest["raters"]["w0"] > 0.8 > 0.3 > folder.manifest["raters"]["w1"]
    assert rows["q"].preference == pytest.approx(rows["swapped"].preference, abs=1e-6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.permutations([1, 2, 3]) | st.just([1, 1, 2]), min_size=1, max_size=4), min_size=1, max_size=4)
)
def test_responses_in_another_order_say_the_same(database: Database, said: list[list[list[int]]]) -> None:
    forth = [item(f"q{n}", *answers, responses=3) for n, answers in enumerate(said)]
    back = [item(f"q{n}", *([ranks[::-1] for ranks in answers]), responses=3) for n, answers in enumerate(said)]
    for row in back:
        row["responses"] = row["responses"][::-1]
    one, other = (exported(database, rows) for rows in (forth, back))

    def told(folder: PreferencesFolder) -> list[Any]:
        rows = [*pairs(folder), *folder.ties]
        return sorted((row.ranking, *texts(row), row.preference, row.weight) for row in rows)

    for mine, theirs in zip(told(one), told(other), strict=True):
        assert mine[:3] == theirs[:3] and mine[3:] == pytest.approx(theirs[3:], abs=2e-6)


def test_the_same_answers_say_the_same_under_other_pseudonyms(database: Database) -> None:
    rows = [item(f"q{n}", *([[1, 2, 3], [1, 3, 2], [2, 1, 3], [1, 1, 3]][n % 3 :]), responses=3) for n in range(9)]
    folder = exported(database, rows)
    again = exported(database, rows)  # another project: other pseudonyms, in another order
    assert folder.manifest["raters"] == pytest.approx(again.manifest["raters"], abs=2e-6)
    for one, other in zip(pairs(folder), pairs(again), strict=True):
        assert (one.preference, one.weight) == pytest.approx((other.preference, other.weight), abs=2e-6)
        assert (texts(one), sorted(one.raters)) == (texts(other), sorted(other.raters))
