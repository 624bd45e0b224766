"""Which row goes with which column, for many small tables of scores at once, inside the graph."""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

FARTHEST = tf.float32.max


def exact_assignment(scores: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
    """Return the matches, as many as candidates allow, with the highest sum of scores.

    Rows are matched one after the other, each along the cheapest path of columns that change their
    row (Jonker and Volgenant 1987, A Shortest Augmenting Path Algorithm for Dense and Sparse Linear
    Assignment Problems), all tables side by side.

    Args:
        scores: `(N, R, C)` float32.
        candidates: `(N, R, C)` bool, which pairs may be matched; what is NaN or infinite may not.

    Returns:
        `(N, R)` int32, the column of each row, -1 where it has none.
    """
    candidates &= tf.math.is_finite(scores)
    rows, columns = scores.shape[1:]
    size = max(rows, columns)
    costs = _square_costs(scores, candidates, size)

    def add_row(row: tf.Tensor, prices: tf.Tensor, owners: tf.Tensor) -> tuple[tf.Tensor, ...]:
        end, previous, prices = _shortest_path(costs, prices, owners, row)
        return row + 1, prices, _shifted(owners, previous, end, row)

    # A column's price is what a row pays beside the cost. It starts at the lowest cost, so that in
    # a table without competition each row finds its column at once.
    prices = tf.reduce_min(costs, axis=1)
    owners = tf.cast(tf.zeros_like(prices), tf.int32) - 1
    _, _, owners = tf.while_loop(
        lambda row, prices, owners: row < size, add_row, (tf.constant(0), prices, owners)
    )
    is_owner = owners[:, None, :columns] == tf.range(rows)[:, None]
    return _columns(is_owner & candidates)


def greedy_assignment(scores: tf.Tensor, candidates: tf.Tensor) -> tf.Tensor:
    """Return the matches found by taking the highest score that is left, again and again.

    It has no loop, and the sum of scores may be less than the highest. Arguments and result are
    those of `exact_assignment`.
    """
    left = candidates & tf.math.is_finite(scores)
    rows, columns = scores.shape[1:]
    matched = tf.zeros_like(left)
    for _ in range(min(rows, columns)):
        flat = tf.reshape(tf.where(left, scores, tf.float32.min), (-1, rows * columns))
        best = tf.argmax(flat, axis=1, output_type=tf.int32)[:, None]
        in_row = tf.range(rows) == best // columns
        in_column = tf.range(columns) == best % columns
        matched |= left & in_row[:, :, None] & in_column[:, None, :]
        left &= ~(in_row[:, :, None] | in_column[:, None, :])
    return _columns(matched)


ASSIGNMENTS: dict[str, Callable[[tf.Tensor, tf.Tensor], tf.Tensor]] = {
    "exact": exact_assignment,
    "greedy": greedy_assignment,
}
"""By `model.head.assignment`: scores and candidates `(N, R, C)` to columns `(N, R)`."""


def _columns(matched: tf.Tensor) -> tf.Tensor:
    """Return the one column `(N, R)` int32 that is matched `(N, R, C)` in each row, or -1."""
    column = tf.argmax(tf.cast(matched, tf.float32), axis=2, output_type=tf.int32)
    return tf.where(tf.reduce_any(matched, axis=2), column, -1)


def _square_costs(scores: tf.Tensor, candidates: tf.Tensor, size: int) -> tf.Tensor:
    """Return the cost `(N, size, size)` of each pair, 0 for a table's highest score.

    What is no candidate costs a little more than all candidates together can differ, and no more:
    float32 has to tell scores apart beside it.
    """
    _, rows, columns = scores.shape
    sides = [[0, 0], [0, size - rows], [0, size - columns]]
    scores, candidates = tf.pad(scores, sides), tf.pad(candidates, sides)
    lowest = tf.where(candidates, scores, tf.float32.max)
    highest = tf.where(candidates, scores, tf.float32.min)
    lowest = tf.reduce_min(lowest, axis=(1, 2), keepdims=True)
    highest = tf.reduce_max(highest, axis=(1, 2), keepdims=True)
    # Of a table without candidates the lowest is above the highest.
    spread = tf.where(highest > lowest, highest - lowest, 0.0)
    return tf.where(candidates, highest - scores, (size + 1) * spread + 1e-3)


class _Search(NamedTuple):
    """How far the search for a row's cheapest way to a free column has come, in each table.

    Attributes:
        row: `(N,)` int32, whose costs are looked at next; -1 where a free column was found.
        column: `(N,)` int32, the column that this row has; -1 at the start.
        start: `(N,)`, the distance of that row.
        distances: `(N, S)`, the shortest way found to each column.
        previous: `(N, S)` int32, the column before each on that way, -1 for none.
        is_open: `(N, S)` bool, the columns whose rows were not looked at yet.
    """

    row: tf.Tensor
    column: tf.Tensor
    start: tf.Tensor
    distances: tf.Tensor
    previous: tf.Tensor
    is_open: tf.Tensor


def _shortest_path(
    costs: tf.Tensor, prices: tf.Tensor, owners: tf.Tensor, row: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the cheapest way for a row to a free column.

    Args:
        costs: `(N, S, S)`.
        prices: `(N, S)`.
        owners: `(N, S)` int32, the row that has a column, -1 where it is free.
        row: The one that is to get a column.

    Returns:
        The free column `(N,)` int32, for each column `(N, S)` the one before it on the way, -1
        where that is the row itself, and the new prices.
    """
    paid = tf.gather(tf.transpose(costs, (0, 2, 1)), tf.maximum(owners, 0), batch_dims=2) - prices
    none = tf.zeros_like(owners[:, 0])
    start = _Search(
        none + row,
        none - 1,
        tf.zeros_like(prices[:, 0]),
        tf.fill(tf.shape(prices), FARTHEST),
        tf.zeros_like(owners),
        tf.ones_like(owners, tf.bool),
    )
    (found,) = tf.while_loop(
        lambda search: tf.reduce_any(search.row >= 0),
        lambda search: (_scanned(search, costs, prices, owners, paid),),
        (start,),
    )
    length = tf.gather(found.distances, found.column, batch_dims=1)[:, None]
    prices -= tf.where(found.is_open, 0.0, length - found.distances)
    return found.column, found.previous, prices


def _scanned(
    search: _Search, costs: tf.Tensor, prices: tf.Tensor, owners: tf.Tensor, paid: tf.Tensor
) -> _Search:
    """Return the search after a row was looked at, and the nearest column taken.

    Args:
        search: So far.
        costs: `(N, S, S)`.
        prices: `(N, S)`.
        owners: `(N, S)` int32.
        paid: `(N, S)`, cost less price of each column for the row that has it.
    """
    through = tf.gather(costs, tf.maximum(search.row, 0), batch_dims=1) - prices
    through += search.start[:, None]
    is_shorter = search.is_open & (through < search.distances)
    distances = tf.where(is_shorter, through, search.distances)
    previous = tf.where(is_shorter, search.column[:, None], search.previous)
    reachable = tf.where(search.is_open, distances, FARTHEST)
    nearest = tf.reduce_min(reachable, axis=1)
    # Among columns of the same distance a free one ends the search.
    is_free = owners < 0
    preference = tf.where(reachable <= nearest[:, None], tf.where(is_free, 2.0, 1.0), 0.0)
    column = tf.argmax(preference, axis=1, output_type=tf.int32)
    row = tf.gather(owners, column, batch_dims=1)
    # A table that is done takes the same free column again, since that stays open and nothing gets
    # nearer.
    start = tf.where(row < 0, FARTHEST / 2, nearest - tf.gather(paid, column, batch_dims=1))
    is_open = search.is_open & (is_free | (tf.range(costs.shape[2]) != column[:, None]))
    return _Search(row, column, start, distances, previous, is_open)


def _shifted(owners: tf.Tensor, previous: tf.Tensor, end: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    """Return the owners after each column on the way to `end` took the row of the one before."""
    at = tf.range(owners.shape[1])

    def shift(column: tf.Tensor, owners: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        before = tf.gather(previous, tf.maximum(column, 0), batch_dims=1)
        its_row = tf.gather(owners, tf.maximum(before, 0), batch_dims=1)
        its_row = tf.where(before < 0, row, its_row)
        owners = tf.where(at == column[:, None], its_row[:, None], owners)
        return tf.where(column < 0, -1, before), owners

    _, owners = tf.while_loop(
        lambda column, owners: tf.reduce_any(column >= 0), shift, (end, owners)
    )
    return owners
