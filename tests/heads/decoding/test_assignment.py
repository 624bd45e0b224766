import itertools

import numpy as np
import pytest
import tensorflow as tf

from hgtrain.heads.decoding.assignment import ASSIGNMENTS, exact_assignment, greedy_assignment

by_method = pytest.mark.parametrize("assign", ASSIGNMENTS.values(), ids=ASSIGNMENTS)


def best_of_all(scores: np.ndarray) -> tuple[float, list[int]]:
    """Return the highest sum of scores that a permutation has, and the permutation."""
    orders = np.array(list(itertools.permutations(range(len(scores)))))
    sums = scores[np.arange(len(scores)), orders].astype(np.float64).sum(axis=1)
    return sums.max(), orders[sums.argmax()].tolist()


def total(scores: np.ndarray, columns: np.ndarray) -> float:
    rows = np.flatnonzero(columns >= 0)
    return float(scores[rows, columns[rows]].astype(np.float64).sum())


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5])
def test_the_exact_assignment_is_the_best_of_all_permutations(size: int) -> None:
    scores = np.random.default_rng(size).uniform(-2, 1, (40, size, size)).astype(np.float32)
    columns = exact_assignment(scores, np.ones(scores.shape, bool)).numpy()
    for table, found in zip(scores, columns, strict=True):
        best, order = best_of_all(table)
        assert total(table, found) == pytest.approx(best, abs=1e-5)
        assert found.tolist() == order


@pytest.mark.parametrize(
    ("count", "rows", "columns"),
    [(4000, 6, 6), (2000, 3, 7), (2000, 7, 4), (1500, 8, 8), (500, 24, 24)],
)
def test_the_exact_assignment_is_scipys(count: int, rows: int, columns: int) -> None:
    linear_sum_assignment = pytest.importorskip("scipy.optimize").linear_sum_assignment
    random = np.random.default_rng(rows * columns)
    scores = random.uniform(-2, 1, (count, rows, columns)).astype(np.float32)
    # Peaks that do not exist have neither row nor column.
    has_row, has_column = (random.random((count, side)) < 0.8 for side in (rows, columns))
    candidates = has_row[:, :, None] & has_column[:, None, :]
    found = tf.function(exact_assignment)(np.where(candidates, scores, np.nan), candidates).numpy()
    for table, row, column, its in zip(scores, has_row, has_column, found, strict=True):
        there, back = np.flatnonzero(row), np.flatnonzero(column)
        from_row, to_column = linear_sum_assignment(-table[np.ix_(there, back)].astype(np.float64))
        expected = np.full(rows, -1)
        expected[there[from_row]] = back[to_column]
        assert total(table, its) == pytest.approx(total(table, expected), abs=1e-5)
        # Of large tables the second best may be as good in float32.
        assert rows > 8 or its.tolist() == expected.tolist()


def test_as_many_are_matched_as_candidates_allow() -> None:
    # The highest score alone would leave the second row without a column.
    candidates = np.array([[[True, True], [True, False]]])
    scores = np.array([[[5.0, -3.0], [0.0, 9.0]]], np.float32)
    assert exact_assignment(scores, candidates).numpy().tolist() == [[1, 0]]


def test_the_greedy_assignment_takes_the_highest_score_first() -> None:
    scores = np.array([[[0.9, 0.8], [0.8, 0.1]]], np.float32)
    candidates = np.ones(scores.shape, bool)
    assert greedy_assignment(scores, candidates).numpy().tolist() == [[0, 1]]
    assert exact_assignment(scores, candidates).numpy().tolist() == [[1, 0]]


@by_method
def test_no_candidates_give_no_matches(assign) -> None:
    scores = np.full((3, 4, 4), np.nan, np.float32)
    scores[2] = np.eye(4)
    candidates = np.isfinite(scores)
    found = assign(scores, candidates).numpy().tolist()
    assert found == [[-1] * 4, [-1] * 4, [0, 1, 2, 3]]
    assert assign(scores[:0], candidates[:0]).shape == (0, 4)


@by_method
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_never_matched(assign, value: float) -> None:
    scores = np.array([[[value, 0.1], [0.2, value]]], np.float32)
    assert assign(scores, np.ones(scores.shape, bool)).numpy().tolist() == [[1, 0]]
    scores = np.full((1, 2, 2), value, np.float32)
    assert assign(scores, np.ones(scores.shape, bool)).numpy().tolist() == [[-1, -1]]


@by_method
@pytest.mark.parametrize("shape", [(1, 3), (3, 1), (2, 5), (5, 2)])
def test_tables_need_not_be_square(assign, shape: tuple[int, int]) -> None:
    scores = np.zeros((1, *shape), np.float32)
    scores[0, -1, -1] = 1
    (found,) = assign(scores, np.ones(scores.shape, bool)).numpy().tolist()
    assert found[-1] == shape[1] - 1
    matched = [column for column in found if column >= 0]
    assert len(matched) == len(set(matched)) == min(shape)


@by_method
@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e4])
def test_the_scale_of_the_scores_changes_nothing(assign, factor: float) -> None:
    random = np.random.default_rng(7)
    scores = random.uniform(-1, 1, (50, 6, 6)).astype(np.float32)
    candidates = (random.random((50, 6, 1)) < 0.7) & (random.random((50, 1, 6)) < 0.7)
    np.testing.assert_array_equal(
        assign(scores, candidates), assign(np.float32(factor) * scores, candidates)
    )


def test_equal_scores_are_matched_one_to_one() -> None:
    found = exact_assignment(np.zeros((1, 24, 24), np.float32), np.ones((1, 24, 24), bool)).numpy()
    assert sorted(found[0]) == list(range(24))
