"""The fixed text of backward's long columns: key tiles that all later queries read, each split over programs.

Such a key tile is worked by several programs, its shares. Each walks a stretch of every loop of the column and leaves
dk and dv in float32 in a place of its own; one small kernel adds them up, in a fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import indent

from sparsedsl.codegen.plan import Part
from sparsedsl.codegen.programs import LoopProgram, Program
from sparsedsl.codegen.templates import filled

# What tiles are counted at.
LENGTH = 131072


@dataclass(frozen=True, slots=True)
class LongColumns:
    """The first `early` key tiles, which nearly all later queries read; a query tile reads `reads` key tiles of all."""

    early: int
    reads: float


def long_columns(part: Part, programs: Sequence[Program], early: int) -> LongColumns | None:
    """The long columns of a part that can be split; None where there are none.

    In residue order a column is as long as its class, and each class has its own: none is split. Where only a table
    tells the tiles, the host does not know how long a column is; where short columns stand among the `early` ones, as
    beside a global token in the middle of the keys, a share of these would be nothing but its start.
    """
    loops = [each for each in programs if isinstance(each, LoopProgram)]
    if not early or part.step > 1 or len(loops) < len(programs):
        return None
    tiles = loops[0].tiles
    rows = LENGTH // tiles.block_m + 4 * early * tiles.block_n // tiles.block_m
    found = [sum(each.transposed.counts_by_tile(range(early), rows)) for each in loops]
    if any(2 * max(counts) < rows for counts in zip(*found, strict=True)):
        return None
    rows, columns = LENGTH // tiles.block_m, LENGTH // tiles.block_n
    visited = [sum(each.tiles.counts(range(rows), columns)) for each in loops]
    heads = part.kind_of or (0,)
    # As an emitted module has it.
    return LongColumns(early, float(f"{sum(visited[kind] for kind in heads) / len(heads) / rows:.4g}"))


def in_flight(warps: int) -> int:
    """How many programs of the plain kernel a multiprocessor runs at once: each thread takes all registers it can."""
    return max(8 // warps, 1)


DEVICE = '''
@triton.jit
def share_of(tiles, share, among):
    """Where one of `among` shares of a loop over so many tiles starts and ends."""
    return tiles * share // among, tiles * (share + 1) // among


@triton.jit(do_not_specialize=["shares", "columns", "all_heads", "k_len"])
def dkdv_kernel_of_shares(
    sums_ptr, dk_ptr, dv_ptr, before_dk_ptr, before_dv_ptr, shares, columns, all_heads, k_len,
    BLOCK_N: tl.constexpr, head_dim: tl.constexpr, D: tl.constexpr,
):
    """dk and dv of two keys of a column that was split: what its shares left, added up in a fixed order."""
    SIZE: tl.constexpr = 2 * D
    column, pair = tl.program_id(0) // (BLOCK_N // 2), tl.program_id(0) % (BLOCK_N // 2)
    o_s = tl.arange(0, 16)
    o = pair * SIZE + tl.arange(0, SIZE)
    dk = tl.zeros([SIZE], tl.float32)
    dv = tl.zeros([SIZE], tl.float32)
    for first in range(0, shares, 16):
        here = (first + o_s < shares)[:, None]
        place = ((first + o_s) * columns + column).to(tl.int64)[:, None] * (2 * BLOCK_N * D) + o[None, :]
        dk += tl.sum(tl.load(sums_ptr + place, mask=here, other=0.0), 0)
        dv += tl.sum(tl.load(sums_ptr + BLOCK_N * D + place, mask=here, other=0.0), 0)
    o_n = column // all_heads * BLOCK_N + o // D
    place = ((column % all_heads).to(tl.int64) * k_len + o_n) * head_dim + o % D
    inside = (o_n < k_len) & (o % D < head_dim)
    if before_dk_ptr is not None:
        dk += tl.load(before_dk_ptr + place, mask=inside, other=0.0)
        dv += tl.load(before_dv_ptr + place, mask=inside, other=0.0)
    tl.store(dk_ptr + place, dk.to(dk_ptr.dtype.element_ty), mask=inside)
    tl.store(dv_ptr + place, dv.to(dv_ptr.dtype.element_ty), mask=inside)
'''

HOST = '''

def shares_of_columns(q: Tensor, k: Tensor, q_start: int, block_m: int, reads: float, programs: int) -> int:
    """Into how many shares the longest columns of backward are split, `programs` in flight a multiprocessor."""
    longest = tiles_in(q_start, q.shape[2], block_m) * (q.shape[1] // k.shape[1])
    return column_shares(longest, k.shape[0] * k.shape[1], reads, programs * multiprocessors(q.device))
'''

# --- the plain kernel of dk and dv

KEY_ORDER = """
${key_program}
    # Key tiles that every query reads take longest: those of all heads start first.
    early = min(key_tiles, ${early_tiles})
    later = max(program - early * all_heads, 0)
    i_bg, j = later // max(key_tiles - early, 1), early + later % max(key_tiles - early, 1)
    if program < early * all_heads:
        i_bg, j = program % all_heads, program // all_heads
"""

SPLIT_KEY_ORDER = """
    early = min(key_tiles, ${early_tiles})
    program, all_heads = tl.program_id(0), tl.num_programs(0) // (key_tiles + early * (shares - 1))
    # Key tiles that every query reads take longest: those of all heads start first, each in `shares` programs.
    columns = early * all_heads
    later = max(program - columns * shares, 0)
    i_bg, j = later // max(key_tiles - early, 1), early + later % max(key_tiles - early, 1)
    share, among = 0, 1
    if program < columns * shares:
        i_bg, j = program % columns % all_heads, program % columns // all_heads
        if sums_ptr is not None:
            share, among = program // columns, shares
"""

SPLIT_STORE = """
    whole = True
    if sums_ptr is not None:
        whole = program >= columns * shares
        if program < columns * shares:
            o_d = tl.arange(0, D)
            place = program.to(tl.int64) * (2 * BLOCK_N * D) + tl.arange(0, BLOCK_N)[:, None] * D + o_d[None, :]
            tl.store(sums_ptr + place, dk)
            tl.store(sums_ptr + BLOCK_N * D + place, dv)
    if whole:
"""

SET_SUMS = """
    columns = batch * key_heads * min(tiles_in(0, k_len, ${block_n}), ${early_tiles})
    shares = 1 if packed else shares_of_columns(q, k, q_start, ${block_m}, ${reads}, ${in_flight})
    sums = None
    if shares > 1:
        sums = torch.empty((shares, columns, 2, ${block_n}, width), dtype=torch.float32, device=q.device)
"""

ADD_SHARES = """
        if sums is not None:
            dkdv_kernel_of_shares[(columns * ${half},)](
                sums,
                dk,
                dv,
${before}                shares,
                columns,
                batch * key_heads,
                k_len,
                BLOCK_N=${block_n},
                head_dim=head_dim,
                D=width,
            )
"""


def plain_holes(columns: LongColumns | None, own: dict[str, str], sizes: dict[str, str]) -> dict[str, str]:
    """What the plain kernel of dk and dv and its launch say of long columns, over the holes of the part."""
    if columns is None:
        order = filled(KEY_ORDER.strip("\n"), own | sizes)
        return {"key_order": order, "set_sums": "", "more_programs": "", "give_sums": "", "add_shares": ""}
    block_n = int(sizes["dkdv_block_n"])
    holes = {
        "early_tiles": str(columns.early),
        "reads": str(columns.reads),
        "block_m": sizes["dkdv_block_m"],
        "block_n": str(block_n),
        "half": str(block_n // 2),
        "in_flight": str(in_flight(int(sizes["dkdv_warps"]))),
        "before": before_lines(own, 16),
    }
    return {
        "key_order": filled(SPLIT_KEY_ORDER.strip("\n"), holes),
        "key_names": ',\n    "shares"',
        "key_scalars": "\n    sums_ptr, shares," + own["key_scalars"].replace("\n   ", ""),
        "store_dkdv": SPLIT_STORE.strip("\n") + "\n" + indent(own["store_dkdv"], "    "),
        "set_sums": filled(SET_SUMS.lstrip("\n"), holes),
        "more_programs": " + (shares - 1) * columns",
        "give_sums": "            sums,\n            shares,\n",
        "add_shares": filled(ADD_SHARES.lstrip("\n"), holes),
    }


def before_lines(own: dict[str, str], depth: int) -> str:
    """The gradients that the part adds to, as arguments; None, None where it is the first."""
    given = ["*before[1:]"] if own["give_before_dq"] else ["None", "None"]
    return "".join(f"{' ' * depth}{each},\n" for each in given)


# --- the kernel for Hopper

# The float32 sums of shares lie behind those for dq, in blocks of 64 rows as these do; the loading warp says where.
PUT_SHARE = '''
@gluon.jit
def put_share(blocks_ptr, block, b_sum, D: gl.constexpr):
    """Store a tile [64, D] as a block of its own."""
    LAYOUT: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [4, 1], [16, D, 16])
    o_n = gl.arange(0, 64, gl.SliceLayout(1, LAYOUT))
    o_d = gl.arange(0, D, gl.SliceLayout(0, LAYOUT))
    place = gl.expand_dims(o_n, 1) * D + gl.expand_dims(o_d, 0)
    gl.store(blocks_ptr + block.to(gl.int64) * (64 * D) + place, b_sum)
'''

TELL_SHARE = """\
        if SPLIT:
            block = -1
            if work < columns * shares:
                block = all_heads * group * (row_tiles - first_row_tile) + 4 * work
            tell(share_smem, 0, block)
"""

# dv of a share is stored before the last products: later it would crowd the registers of the loop, as ptxas has it.
TOLD_SHARE = """\
            if SPLIT:
                block = told(share_smem, 0)
                if block >= 0:
                    put_share(dq_blocks_ptr, block + 2 + W, dv, D)
"""

ALLOCATE_SHARE = """\
    share_smem = many_smem
    if SPLIT:
        share_smem = gl.allocate_shared_memory(gl.int32, [1, 1], NUMBER)
"""

HOPPER_STORE = """\
        whole = True
        if SPLIT:
            whole = block < 0
            if block >= 0:
                put_share(dq_blocks_ptr, block + W, dk, D)
        if whole:
"""

HOPPER_WORK = """
early = min(key_tiles, ${early_tiles})
all_heads = works // (key_tiles + early * (shares - 1))
# Key tiles that every query reads take longest: those of all heads start first, each in `shares` works.
columns = early * all_heads
later = max(work - columns * shares, 0)
i_bg = later // max(key_tiles - early, 1)
j = early + later % max(key_tiles - early, 1)
if work < columns * shares:
    i_bg = work % columns % all_heads
    j = work % columns // all_heads
"""

HOPPER_SHARE = """
share = 0
among = 1
if SPLIT:
    share = gl.where(work < columns * shares, work // columns, 0)
    among = gl.where(work < columns * shares, shares, 1)
"""

HOPPER_SET_SUMS = """\
    columns = batch * key_heads * min(tiles_in(0, k_len, ${block_n}), ${early_tiles})
    shares = hopper_shares${p}(q, k, q_start) if split else 1
    sums = shares * columns * 2 * ${block_n} * width if shares > 1 else 0
"""

HOPPER_ADD_SHARES = """\
        if sums:
            run(
                dkdv_kernel_of_shares,
                columns * ${half},
                dq_blocks[row_tiles * ${block_m} * width :],
                dk,
                dv,
${before}                shares,
                columns,
                batch * key_heads,
                k_len,
                BLOCK_N=${block_n},
                head_dim=head_dim,
                D=width,
                num_warps=4,
            )
"""

HOPPER_FORM = '''

def hopper_shares${p}(q: Tensor, k: Tensor, q_start: int) -> int:
    """Into how many shares the kernel for Hopper splits its longest columns."""
    return shares_of_columns(q, k, q_start, ${block_m}, ${reads}, 1)


def hopper_split_part${p}(run: Callable[..., None], *given: Any) -> bool:
    """The same with long columns in shares, by another form of the kernel, which is looked at by itself."""
    return hopper_backward_part${p}(run, *given, split=True)
'''


def split_work_lines(columns: LongColumns, *, share: bool) -> list[str]:
    """Which key tile a work of the kernel for Hopper is, and, where asked for, which share of it."""
    text = HOPPER_WORK.strip("\n") + (HOPPER_SHARE.rstrip("\n") if share else "")
    return filled(text, {"early_tiles": str(columns.early)}).splitlines()


def hopper_holes(columns: LongColumns | None, store: str) -> dict[str, str]:
    """What the backward kernel for Hopper says of long columns as it stores; `store` is for a column in one piece."""
    if columns is None:
        names = ("split", "more", "split_constant", "tell_share", "told_share", "allocate_share")
        return {"store": store} | dict.fromkeys(names, "")
    return {
        "store": HOPPER_STORE + indent(store, "    "),
        "tell_share": TELL_SHARE,
        "told_share": TOLD_SHARE,
        "allocate_share": ALLOCATE_SHARE,
        "split": " share_smem, SPLIT,",
        "more": "\n    share_smem, SPLIT: gl.constexpr,",
        "split_constant": "\n    SPLIT: gl.constexpr,",
        "key_names": ',\n    "shares"',
        "key_scalars": " shares,",
    }


def hopper_launch_holes(columns: LongColumns | None, own: dict[str, str], block_m: int, block_n: int) -> dict[str, str]:
    """The same for its launch."""
    names = ("form", "split_option", "set_sums", "more_works", "share_room", "give_shares", "give_split", "add_shares")
    if columns is None:
        return dict.fromkeys(names, "")
    holes = {
        "p": own["p"],
        "early_tiles": str(columns.early),
        "reads": str(columns.reads),
        "block_m": str(block_m),
        "block_n": str(block_n),
        "half": str(block_n // 2),
        "before": before_lines(own, 16),
    }
    return {
        "form": filled(HOPPER_FORM, holes),
        "split_option": " split: bool = False,",
        "set_sums": filled(HOPPER_SET_SUMS, holes),
        "more_works": " + (shares - 1) * columns",
        "share_room": " + sums",
        "give_shares": "            shares,\n",
        "give_split": "            SPLIT=shares > 1,\n",
        "add_shares": filled(HOPPER_ADD_SHARES, holes),
    }
