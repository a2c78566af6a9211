"""Exact numbers, worked by hand in the comments."""

from fractions import Fraction

from annotate.services.consensus import consensus_ranks, pair_strength, share, strength_pairs


def test_share_counts_a_tie_as_half_a_vote() -> None:
    # Three say 0 is better, one says 1, one says tie: (3 + 1/2) / 5.
    answers = [[1, 2], [1, 2], [1, 3], [2, 1], [1, 1]]
    assert share(answers, 0, 1) == Fraction(7, 10)
    assert share(answers, 1, 0) == Fraction(3, 10)


def test_exactly_half_is_a_tie_whatever_the_order_of_answers() -> None:
    assert share([[1, 2], [2, 1]], 0, 1) == Fraction(1, 2)
    assert consensus_ranks([[1, 2], [2, 1]]) == [1, 1]
    assert consensus_ranks([[1, 2], [2, 1], [1, 1]]) == [1, 1]


def test_consensus_ranks_by_mean_share() -> None:
    # Shares of 0: against 1 1/2, against 2 1; of 1 the same; of 2: 0 and 0.
    assert consensus_ranks([[1, 2, 3], [2, 1, 3]]) == [1, 1, 3]
    # 0 beats 1 by 2/3 and 2 by 1 = 5/3; 1 beats 0 by 1/3 and 2 by 2/3 = 1; 2 has 0 + 1/3.
    assert consensus_ranks([[1, 2, 3], [1, 3, 2], [2, 1, 3]]) == [1, 2, 3]
    # A cycle (0>1>2>0, one vote each way round) is a tie of all: every response has 1/3·2 + 2/3·1... = 1.
    assert consensus_ranks([[1, 2, 3], [3, 1, 2], [2, 3, 1]]) == [1, 1, 1]


def test_only_the_order_of_ranks_counts() -> None:
    assert consensus_ranks([[1, 4, 4]]) == consensus_ranks([[1, 2, 2]]) == [1, 2, 2]


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
