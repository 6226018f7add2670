"""Plain recomputations for `Proof.verify`: short, slow, and nothing of what the search for proofs uses.

A set of distances or positions is an integer with a bit for each member, moved one member at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from sparsedsl.forms import NormalForm
from sparsedsl.integers import IntegerSet

Matrix = NDArray[np.bool_]


def contiguous_reaches(layers: Sequence[IntegerSet], below: int) -> list[int]:
    """The contiguous reach after 0, 1, ... layers, each adding one distance of its set or none; exact below `below`.

    Cost
        O(layers · members below · below / 64) time, O(below / 8) bytes.
    """
    everything = (1 << below) - 1
    joined = 1
    found = [0]
    for distances in layers:
        further = joined
        for distance in distances.members(1, below):
            further |= joined << distance
        joined = further & everything
        missing = ~joined
        found.append((missing & -missing).bit_length() - 2)
    return found


def is_a_sum(target: int, members: IntegerSet) -> bool:
    """Whether the target is a sum of members > 0, each as often as needed.

    Cost
        O(members below · target / 64 · log(target)) time, O(target / 8) bytes.
    """
    everything = (1 << target + 1) - 1
    sums = 1
    for member in members.members(1, target + 1):
        step = member
        while step <= target:
            # Invariant: with 0, 1, ..., 2^i − 1 copies of the member so far, step = 2^i · member.
            sums |= sums << step & everything
            step *= 2
    return bool(sums >> target & 1)


def joined_through(
    edges: Sequence[Matrix], long_edges: Sequence[Matrix], keys: int
) -> list[tuple[list[int], list[int]]]:
    """For each query, the keys below `keys` that it reaches after each layer; and those by a path with a long edge.

    Set
        After layer h: a query's keys are those that it had (the residual connection) and those of all tokens
        that it reads. A path counts as long if one of its edges is in `long_edges`.
    Cost
        O(layers · edges · keys / 64) time.
    """
    size = len(edges[0])
    within = (1 << keys) - 1
    lists = {id(matrix): _rows(matrix) for matrix in (*edges, *long_edges)}
    joined = [1 << q & within for q in range(size)]
    long = [0] * size
    found = []
    for edge, long_edge in zip(edges, long_edges, strict=True):
        next_joined, next_long = [], []
        for q, (reads, reads_long) in enumerate(zip(lists[id(edge)], lists[id(long_edge)], strict=True)):
            seen, seen_long = joined[q], long[q]
            for k in reads_long:
                seen_long |= joined[k]
            for k in reads:
                if seen_long == within and seen == within:
                    break
                seen |= joined[k]
                seen_long |= long[k]
            next_joined.append(seen)
            next_long.append(seen_long)
        joined, long = next_joined, next_long
        found.append((joined, long))
    return found


def _rows(matrix: Matrix) -> list[list[int]]:
    return [np.flatnonzero(row).tolist() for row in matrix]


def neighbours_missing(layers: Sequence[NormalForm], end: int) -> int | None:
    """The first unit q, 1 <= q <= end, that does not read q − 1 in any layer."""
    for query in range(1, end + 1):
        if not any(1 in form.cell_at(query, query - 1).row(query) for form in layers):
            return query
    return None


def self_edges_missing(layers: Sequence[NormalForm], end: int) -> int | None:
    """The first unit q < end that does not read itself in every layer."""
    for query in range(end):
        if not all(0 in form.cell_at(query, query).row(query) for form in layers):
            return query
    return None


def all_joined_after(form: NormalForm, size: int, layers: int) -> bool:
    """Whether so many layers join all pairs k <= q of the first `size` units; the residual connection is there."""
    edges: Matrix = np.tril(replace(form, unit=1, cut=False).dense(size, size)) | np.eye(size, dtype=np.bool_)
    joined: Matrix = np.eye(size, dtype=np.bool_)
    for _ in range(layers):
        joined = edges.astype(np.float32) @ joined.astype(np.float32) > 0
    return bool((joined | ~np.tri(size, dtype=np.bool_)).all())
