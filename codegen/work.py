"""What the kernels of a plan do at one length: pairs, FLOPs, bytes and memory, batch 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sparsedsl.codegen.columns import column_shares
from sparsedsl.codegen.explanation import Bytes, Kernel
from sparsedsl.codegen.hopper_choice import GRADIENT_TILES
from sparsedsl.codegen.part_source import PartSource
from sparsedsl.codegen.split_text import LongColumns, in_flight
from sparsedsl.codegen.table_masks import TableMasks
from sparsedsl.codegen.tile_counts import part_pairs, ranks, sequences, table_numbers, tile_counts
from sparsedsl.codegen.tiling import Tiles, Tiling

# Matrix products over a tile: scores and output; scores, dp and dq; scores, dv, dp and dk; all five of backward.
PRODUCTS = {"forward": 2, "hopper": 2, "dq": 3, "dkdv": 4, "hopper_backward": 5}
BY_KEYS = ("dkdv", "hopper_backward")
# By convention: five products backward, where one kernel would do it all.
USEFUL = {"forward": 2, "backward": 5}
FLOAT32 = 4


@dataclass(frozen=True, slots=True)
class Inputs:
    """The shapes of a call, batch 1; `width` is the head dim that kernels compute with.

    `multiprocessors` are those of the GPU: long columns of backward are split where they would leave most of it idle.
    """

    seq_len: int
    heads: int
    key_heads: int
    head_dim: int
    element: int
    multiprocessors: int

    @property
    def width(self) -> int:
        """The next power of two."""
        return 1 << (self.head_dim - 1).bit_length()

    @property
    def rows(self) -> int:
        """Query rows of all heads."""
        return self.heads * self.seq_len

    @property
    def q_bytes(self) -> int:
        """Of q, the output, and their gradients."""
        return self.rows * self.head_dim * self.element

    @property
    def k_bytes(self) -> int:
        """Of k, of v, and of their gradients."""
        return self.key_heads * self.seq_len * self.head_dim * self.element

    @property
    def lse_bytes(self) -> int:
        """Of a float32 number for each query row."""
        return self.rows * FLOAT32


def kernels_of(
    source: PartSource, tiling: Tiling, patterns: Sequence[TableMasks], inputs: Inputs, *, gradients: bool
) -> tuple[Kernel, ...]:
    """The kernels of a part, those for Hopper last; loads are counted tile by tile, as if no cache kept anything.

    `patterns` are those of the module that a table tells; `gradients`: whether backward has a kernel for Hopper.
    """
    part = source.part
    live = part_pairs(part, inputs.heads, inputs.seq_len)
    row = inputs.head_dim * inputs.element
    found = []
    kernels = [("forward", source.forward_tiles), ("dq", tiling.dq), ("dkdv", tiling.dkdv)]
    if source.hopper_tiles is not None:
        kernels.append(("hopper", source.hopper_tiles.tiles))
    if gradients:
        kernels.append(("hopper_backward", GRADIENT_TILES))
    for name, tiles in kernels:
        counts = tile_counts(part, tiles, inputs.heads, inputs.seq_len)
        own = _key_tiles(source, tiles, inputs) if name in BY_KEYS else counts.own
        executed = counts.visited * tiles.block_m * tiles.block_n
        # Both gradients of keys read each query tile's rows; the one for Hopper adds to its float32 sums for dq too.
        by_query = 2 * tiles.block_m * (row + FLOAT32)
        sums = tiles.block_m * inputs.width * FLOAT32
        loaded = {
            "forward": own * tiles.block_m * row + counts.visited * 2 * tiles.block_n * row,
            "hopper": own * tiles.block_m * row + counts.visited * 2 * tiles.block_n * row,
            "dq": own * tiles.block_m * 2 * (row + FLOAT32) + counts.visited * 2 * tiles.block_n * row,
            "dkdv": own * tiles.block_n * 2 * row + counts.visited * by_query,
            "hopper_backward": own * tiles.block_n * 2 * row + counts.visited * (by_query + sums),
        }[name]
        split, shares = split_columns(source, name, tiles, inputs)
        found.append(
            Kernel(
                name=name,
                block_m=tiles.block_m,
                block_n=tiles.block_n,
                own=own,
                full=counts.full,
                partial=counts.partial,
                executed=executed,
                waste=executed / live if live else 0.0,
                flops=2 * PRODUCTS[name] * inputs.width * executed,
                loaded=loaded,
                constants=name in source.look_up,
                table=FLOAT32 * table_numbers(part, tiles, patterns, inputs.heads, inputs.seq_len),
                split=split,
                shares=shares,
            )
        )
    return tuple(found)


def split_columns(source: PartSource, name: str, tiles: Tiles, inputs: Inputs) -> tuple[int, int]:
    """How many key tiles of all key heads a kernel splits, and into how many shares each, as a module decides."""
    columns, programs = _long_columns(source, name, tiles)
    if columns is None:
        return 0, 1
    longest = -(-inputs.seq_len // tiles.block_m) * (inputs.heads // inputs.key_heads)
    shares = column_shares(longest, inputs.key_heads, columns.reads, programs * inputs.multiprocessors)
    early = min(columns.early, -(-inputs.seq_len // tiles.block_n))
    return (inputs.key_heads * early, shares) if shares > 1 else (0, 1)


def _long_columns(source: PartSource, name: str, tiles: Tiles) -> tuple[LongColumns | None, int]:
    """The columns that a kernel may split, and its programs in flight on a multiprocessor."""
    if name == "dkdv":
        return source.columns, in_flight(tiles.warps)
    if name == "hopper_backward" and source.hopper_backward is not None:
        return source.hopper_backward.columns, 1
    return None, 1


def _share_bytes(source: PartSource, name: str, tiles: Tiles, width: int, inputs: Inputs) -> int:
    """What the shares of a kernel leave: dk and dv of their tiles in float32, as wide as it computes them."""
    split, shares = split_columns(source, name, tiles, inputs)
    return 2 * FLOAT32 * split * shares * tiles.block_n * width if shares > 1 else 0


def _key_tiles(source: PartSource, tiles: Tiles, inputs: Inputs) -> int:
    """The key tiles of all key heads and classes; each has a program, read by anybody or not."""
    step = source.part.step
    lengths = (ranks(inputs.seq_len, step, residue) for residue in range(min(step, inputs.seq_len)))
    return inputs.key_heads * sum(-(-length // tiles.block_n) for length in lengths)


def useful_flops(direction: str, live_pairs: int, inputs: Inputs) -> int:
    """Multiplications and additions on live pairs: 4 · head dim forward, 10 · head dim backward."""
    return 2 * USEFUL[direction] * inputs.head_dim * live_pairs


def floor_bytes(direction: str, inputs: Inputs) -> int:
    """Every input read once, every result written once."""
    if direction == "forward":
        return 2 * inputs.q_bytes + 2 * inputs.k_bytes + inputs.lse_bytes
    return 4 * inputs.q_bytes + 4 * inputs.k_bytes + 2 * inputs.lse_bytes


def merged_bytes(direction: str, sources: Sequence[PartSource], inputs: Inputs) -> int:
    """What several parts write and read in float32 beside the results."""
    total = 0
    for number, source in enumerate(sources):
        written = _row_count(source, inputs) * inputs.head_dim
        if direction == "backward":
            written += 2 * inputs.key_heads * inputs.seq_len * inputs.head_dim
        total += FLOAT32 * written * ((number < len(sources) - 1) + (number > 0))
    return total


def row_bytes(sources: Sequence[PartSource], inputs: Inputs) -> int:
    """What the kernel before dq moves: it reads the output, its gradient, and two numbers a row, and writes two."""
    return sum(_row_count(source, inputs) * (2 * inputs.head_dim * inputs.element + 4 * FLOAT32) for source in sources)


def result_bytes(direction: str, inputs: Inputs) -> int:
    """What the last part writes."""
    if direction == "forward":
        return inputs.q_bytes + inputs.lse_bytes
    return inputs.q_bytes + 2 * inputs.k_bytes


def _row_count(source: PartSource, inputs: Inputs) -> int:
    return sum(each.length * each.count for each in sequences(source.part, inputs.heads, inputs.seq_len))


def memory(direction: str, sources: Sequence[PartSource], tiling: Tiling, tables: int, inputs: Inputs) -> list[Bytes]:
    """The tensors that live together when the pass needs the most; backward holds what forward left."""
    q, k, lse = inputs.q_bytes, inputs.k_bytes, inputs.lse_bytes
    found = [Bytes("q", q), Bytes("k", k), Bytes("v", k), Bytes("output", q), Bytes("log-sum-exp", lse)]
    if direction != "forward":
        found += [Bytes("output's gradient", q), Bytes("log-sum-exp's gradient", lse)]
        found += [Bytes("dq", q), Bytes("dk", k), Bytes("dv", k)]
    if direction in ("backward", "hopper_backward"):
        # A part frees its own when it is done.
        by_part = [_held_beside(direction, source, tiling, inputs) for source in sources]
        found += max(by_part, key=lambda held: sum(each.bytes for each in held))
    if len(sources) > 1:
        ratio = FLOAT32 / inputs.element
        if direction == "forward":
            found.append(Bytes("output so far, float32", int(q * ratio)))
        else:
            found.append(Bytes("dq, dk and dv so far, float32", int((q + 2 * k) * ratio)))
    return [*found, Bytes("tables of tiles", tables)] if tables else found


def _held_beside(direction: str, source: PartSource, tiling: Tiling, inputs: Inputs) -> list[Bytes]:
    """What the backward launches of a part hold beside inputs and results when they hold the most."""
    if direction == "backward":
        rows = max(_launched_rows(source, tiling.dq, inputs))
        found = [Bytes("log-sum-exp and delta by tile", 2 * FLOAT32 * rows)]
        of_shares = _share_bytes(source, "dkdv", tiling.dkdv, inputs.width, inputs)
    else:
        rows, summed = _held_rows(source, inputs)
        found = [
            Bytes("log-sum-exp and delta by tile", 2 * FLOAT32 * rows),
            Bytes("sums for dq, float32", FLOAT32 * inputs.width * summed),
        ]
        of_shares = _share_bytes(source, "hopper_backward", GRADIENT_TILES, inputs.width, inputs)
    return [*found, Bytes("dk and dv of shares, float32", of_shares)] if of_shares else found


def _held_rows(source: PartSource, inputs: Inputs) -> tuple[int, int]:
    """Of the backward launches for Hopper when they hold the most: the rows of the last, and the rows with sums.

    Classes of two lengths are launched one after the other; the first one's sums live until the second one's are made.
    """
    rows = _launched_rows(source, GRADIENT_TILES, inputs)
    return rows[-1], sum(rows)


def _launched_rows(source: PartSource, tiles: Tiles, inputs: Inputs) -> list[int]:
    """The rows of the query tiles of each launch of a part: a launch takes all classes that are equally long.

    Where each head has one class of its own, a launch has tiles for every head, whose class may be in the other one.
    """
    part = source.part
    length, longer = divmod(inputs.seq_len, part.step)
    found = []
    for count, ranks_in in ((longer, length + 1), (part.step - longer, length)):
        if count and ranks_in:
            sequences_in = inputs.heads * (count if part.covers_all_rows else 1)
            found.append(sequences_in * -(-ranks_in // tiles.block_m) * tiles.block_m)
    return found
