"""The language: each constructor's set told in plain Python, the algebra's laws, values that are values."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import sparsedsl as sd
from sparsedsl.layers import PerHead, Stack
from sparsedsl.pattern import Pattern
from tests.proofs.random_patterns import layered, patterns

Pairs = Callable[[int, int], bool]
Layered = Pattern | PerHead | Stack

# (q_len, k_len, q_start): None is the default, the last query on the last key.
PLACES = ((9, 9, None), (1, 1, None), (1, 12, None), (5, 12, None), (12, 5, None), (6, 9, 0), (6, 9, 40), (6, 9, -4))
EMPTY_PLACES = ((0, 5, None), (5, 0, None), (0, 0, None))

# base -> its powers below 2**10
POWERS = {base: {base**t for t in range(10)} for base in (2, 3, 10)}

SETS: dict[str, tuple[Pattern, Pairs]] = {
    "sliding": (sd.sliding(3), lambda q, k: k in (q, q - 1, q - 2)),
    "sliding, ahead": (sd.sliding(2, ahead=3), lambda q, k: q - 1 <= k <= q + 3),
    "dilated": (sd.dilated(3, 4), lambda q, k: k in (q, q - 4, q - 8)),
    "dilated, one key": (sd.dilated(1, 7), lambda q, k: k == q),
    "dilated, beyond the longest word": (sd.dilated(3, 100_000), lambda q, k: q == k),
    "power": (sd.power(), lambda q, k: q == k or q - k in POWERS[2]),
    "power of 3": (sd.power(base=3), lambda q, k: q == k or q - k in POWERS[3]),
    "power of 10": (sd.power(base=10), lambda q, k: q == k or q - k in POWERS[10]),
    "sink": (sd.sink(2), lambda q, k: k < 2),
    "strided": (sd.strided(3), lambda q, k: abs(q - k) in (0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 36, 39, 42, 45)),
    "strided, beyond the longest word": (sd.strided(100_000), lambda q, k: q == k),
    "chunked": (sd.chunked(4), lambda q, k: any(c <= q < c + 4 and c <= k < c + 4 for c in range(0, 60, 4))),
    "chunked, vast": (sd.chunked(2**40), lambda q, k: True),
    "offsets": (sd.offsets({5, -2, 0}), lambda q, k: k in (q - 5, q + 2, q)),
    "offsets, a list with repeats": (sd.offsets([1, 1, 3]), lambda q, k: k in (q - 1, q - 3)),
    "causal": (sd.causal(), lambda q, k: k <= q),
    "full": (sd.full(), lambda q, k: True),
    "empty": (sd.empty(), lambda q, k: False),
    "where": (sd.where("q + k == 7 or k >= 2 * q"), lambda q, k: q + k == 7 or k >= 2 * q),
    "union": (sd.sliding(2) | sd.sink(1), lambda q, k: k in (q, q - 1) or k == 0),
    "intersection": (sd.sink(3) & sd.causal(), lambda q, k: k <= min(q, 2)),
    "difference": (sd.causal() - sd.strided(2), lambda q, k: k < q and (q - k) % 2 == 1),
    "complement": (~sd.causal(), lambda q, k: k > q),
    "blocks": (sd.sliding(2).blocks(3), lambda q, k: q // 3 - k // 3 in (0, 1)),
    "blocks of blocks": (sd.power().blocks(2).blocks(2), lambda q, k: q // 4 - k // 4 in {0, 1, 2, 4, 8, 16}),
    "blocks, cut": (sd.sink(1).blocks(4) & sd.causal(), lambda q, k: k < 4 and k <= q),
    "blocks of a condition": (sd.where("q % 2 == 1").blocks(3), lambda q, k: q // 3 % 2 == 1),
}


def told(pairs: Pairs, q_len: int, k_len: int, q_start: int | None) -> list[list[bool]]:
    start = k_len - q_len if q_start is None else q_start
    return [[q >= 0 and pairs(q, k) for k in range(k_len)] for q in range(start, start + q_len)]


# --- what the words mean


@pytest.mark.parametrize("name", SETS)
def test_dense_is_the_set(name: str) -> None:
    pattern, pairs = SETS[name]
    for place in PLACES:
        q_len, k_len, q_start = place
        assert pattern.dense(q_len, k_len, q_start=q_start).tolist() == told(pairs, *place), place
    for q_len, k_len, _ in EMPTY_PLACES:
        assert pattern.dense(q_len, k_len).shape == (q_len, k_len)


@given(patterns(), st.integers(0, 12), st.integers(0, 30), st.integers(-9, 40))
def test_every_place_shows_one_infinite_matrix(pattern: Pattern, q_len: int, k_len: int, q_start: int) -> None:
    whole = pattern.dense(60, 60)
    shown = pattern.dense(q_len, k_len, q_start=q_start)
    for row, position in enumerate(range(q_start, q_start + q_len)):
        expected = whole[position, :k_len] if position >= 0 else np.zeros(k_len, dtype=bool)
        np.testing.assert_array_equal(shown[row], expected)
    np.testing.assert_array_equal(pattern.dense(q_len, k_len), pattern.dense(q_len, k_len, q_start=k_len - q_len))


def test_k_len_is_q_len_unless_given() -> None:
    np.testing.assert_array_equal(sd.sliding(3).dense(7), sd.sliding(3).dense(7, 7))


def test_random_blocks_draws_as_many_as_there_are_and_the_same_each_time() -> None:
    pattern = sd.random_blocks(4, 3, seed=5)
    matrix = pattern.dense(80)
    blocks = matrix[::4, ::4]
    np.testing.assert_array_equal(matrix, blocks.repeat(4, 0).repeat(4, 1))
    assert blocks.sum(1).tolist() == [min(b + 1, 3) for b in range(20)]
    assert not np.triu(blocks, 1).any()
    np.testing.assert_array_equal(pattern.dense(33), matrix[:33, :33])
    assert not np.array_equal(sd.random_blocks(4, 3, seed=6).dense(80), matrix)
    # Written down once: the draw must stay the same on every machine and in every version.
    assert np.flatnonzero(blocks[19]).tolist() == DRAWN_FOR_BLOCK_19


DRAWN_FOR_BLOCK_19 = [12, 14, 19]


def test_per_head_stacks_its_heads() -> None:
    heads = sd.per_head([sd.sliding(2), sd.causal(), sd.sliding(2)])
    matrices = heads.dense(3, 5)
    assert matrices.shape == (3, 3, 5)
    for head, matrix in zip(heads.heads, matrices, strict=True):
        np.testing.assert_array_equal(matrix, head.dense(3, 5))
    np.testing.assert_array_equal(heads.union().dense(6), heads.dense(6).any(0))


@settings(max_examples=30)
@given(patterns(), patterns(), patterns(), st.integers(1, 4))
def test_set_operations_apply_head_by_head(a: Pattern, b: Pattern, one: Pattern, size: int) -> None:
    heads, other = sd.per_head([a, b]), sd.per_head([b, one])
    x, y, z = a.dense(9), b.dense(9), one.dense(9)
    for composed, expected in (
        (heads | one, [x | z, y | z]),
        (one | heads, [x | z, y | z]),
        (heads & one, [x & z, y & z]),
        (one & heads, [x & z, y & z]),
        (heads - one, [x & ~z, y & ~z]),
        (one - heads, [z & ~x, z & ~y]),
        (heads | other, [x | y, y | z]),
        (heads & other, [x & y, y & z]),
        (heads - other, [x & ~y, y & ~z]),
        (~heads, [~x, ~y]),
        (heads.blocks(size), [a.blocks(size).dense(9), b.blocks(size).dense(9)]),
    ):
        np.testing.assert_array_equal(composed.dense(9), expected)


def test_a_stack_is_a_list_of_layers() -> None:
    a, b, c = sd.sliding(2), sd.causal(), sd.sink(1)
    stack = sd.cycle([a, b, c], layers=8)
    assert [*stack] == [a, b, c, a, b, c, a, b]
    assert len(stack) == 8
    assert [stack[layer] for layer in range(-8, 8)] == [*stack, *stack]
    assert sd.cycle([a, b, c], layers=2) == Stack([a, b])
    assert sd.cycle([a, b, a, b], layers=6) == sd.cycle([a, b], layers=6) == Stack([a, b, a, b, a, b])
    assert sd.cycle([a, b], layers=6) != sd.cycle([a, b], layers=5)


@given(st.lists(st.sampled_from([sd.sliding(2), sd.causal()]), min_size=1, max_size=9), st.integers(1, 12))
def test_equal_schedules_are_equal_values(listed: list[Pattern], layers: int) -> None:
    stack = sd.cycle(listed, layers=layers)
    spelled = [listed[layer % len(listed)] for layer in range(layers)]
    assert [*stack] == spelled
    assert Stack(spelled) == stack
    assert hash(Stack(spelled)) == hash(stack)


# --- the laws of sets, on matrices


@settings(max_examples=40)
@given(patterns(), patterns(), patterns(), st.integers(1, 5))
def test_laws_of_sets(a: Pattern, b: Pattern, c: Pattern, size: int) -> None:
    def matrix(pattern: Pattern) -> NDArray[np.bool_]:
        return pattern.dense(11, 14)

    for left, right in (
        (~(a | b), ~a & ~b),
        (~(a & b), ~a | ~b),
        ((a | b) | c, a | (b | c)),
        ((a & b) & c, a & (b & c)),
        (a | b, b | a),
        (a & b, b & a),
        (a & (b | c), (a & b) | (a & c)),
        (a | (b & c), (a | b) & (a | c)),
        (~~a, a),
        (a - b, a & ~b),
        (a - (b | c), (a - b) - c),
        (a | a, a),
        (a & a, a),
        (a | (a & b), a),
        (a | sd.empty(), a),
        (a & sd.full(), a),
        (a | ~a, sd.full()),
        (a & ~a, sd.empty()),
        ((a | b).blocks(size), a.blocks(size) | b.blocks(size)),
        ((a & b).blocks(size), a.blocks(size) & b.blocks(size)),
        ((a - b).blocks(size), a.blocks(size) - b.blocks(size)),
        ((~a).blocks(size), ~a.blocks(size)),
        (a.blocks(size).blocks(3), a.blocks(3 * size)),
        (a.blocks(1), a),
    ):
        np.testing.assert_array_equal(matrix(left), matrix(right), err_msg=f"{left}  and  {right}")


# --- values


@given(layered())
def test_values_are_frozen_hashable_comparable_and_copied_as_equals(pattern: Layered) -> None:
    again = copy.deepcopy(pattern)
    assert pattern == again
    assert hash(pattern) == hash(again)
    assert {pattern: 1}[again] == 1
    assert pickle.loads(pickle.dumps(pattern)) == pattern
    assert (pattern != again) is False


@pytest.mark.parametrize("name", SETS)
def test_nothing_can_be_assigned(name: str) -> None:
    pattern = SETS[name][0]
    for field in ("window", "parts", "new"):
        with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
            setattr(pattern, field, 5)
    assert not hasattr(pattern, "__dict__")


def test_operands_keep_their_order_and_flatten() -> None:
    a, b, c = sd.sliding(2), sd.causal(), sd.sink(1)
    assert (a | b) | c == a | (b | c)
    assert str(a | (b | c)) == "sliding(2) | causal() | sink(1)"
    assert a | b != b | a
    assert str((a | b) & c) == "(sliding(2) | causal()) & sink(1)"
    assert str(a - b - c) == "sliding(2) - causal() - sink(1)"
    assert str(a - (b - c)) == "sliding(2) - (causal() - sink(1))"
    assert str(~(a | b).blocks(4)) == "~(sliding(2) | causal()).blocks(4)"
    assert str((~a).blocks(4)) == "(~sliding(2)).blocks(4)"


@settings(max_examples=40)
@given(patterns(), patterns())
def test_text_groups_as_python_does(a: Pattern, b: Pattern) -> None:
    names = {name: getattr(sd, name) for name in sd.__all__ if name not in ("check", "compile")}
    for composed in (a | b, a & b, a - b, b - a, ~a, (a | b).blocks(2), a - b | b, a | b - a, ~(a & b), (~a).blocks(3)):
        assert sd.parse(str(composed)) == composed
        assert eval(repr(composed), names) == composed
        assert sd.parse(repr(composed)) == composed
        assert str(sd.parse(str(composed))) == str(composed)
