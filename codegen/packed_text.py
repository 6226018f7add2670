"""The fixed text of packed calls: how a kernel finds its document, and how tiles end where the document does.

The document of a program comes from a search in cu_seqlens on the device, so a launch needs no value of it. From there
on the kernel sees the document alone: q_len, k_len and q_start = 0 are the document's, and the walk is as ever.
"""

from __future__ import annotations

# --- set-up of a kernel; `$step` is the part's


ROW_TILES = """
    if cu_ptr is None:
        first_row_tile = max(q_start, 0) // BLOCK_M
        row_tiles = (q_start + q_len + BLOCK_M - 1) // BLOCK_M - first_row_tile
    else:
        first_row_tile, row_tiles = 0, q_len // BLOCK_M + documents
"""

ROW_DOCUMENT = """
    rows, first, first_slot, at_b, at_n = q_len, 0, 0, i_b, 0
    if cu_ptr is not None:
        document, first, q_len = document_of(i, cu_ptr, documents, BLOCK_M)
        first_slot = first // BLOCK_M + document
        i -= first_slot
        if i * BLOCK_M >= q_len:
            return
        k_len, q_start, at_b, at_n = q_len, 0, first + q_len, END - q_len
"""

ROW_DOCUMENT_OF_CLASS = """
    first_slot, at_b, at_c, at_n = 0, i_b, i_c, 0
    if cu_ptr is not None:
        document, first_row, length = document_of(i, cu_ptr, documents, BLOCK_M * $step)
        first_slot = first_row // (BLOCK_M * $step) + document
        i -= first_slot
        q_len = (length + $step - 1 - i_c) // $step
        if i * BLOCK_M >= q_len:
            return
        k_len, q_start = q_len, 0
        at_b, at_c, at_n = first_row + i_c + $step * q_len, END, END - q_len
"""

ROWS_DOCUMENT = """
    rows, first, first_slot = q_len, 0, 0
    if cu_ptr is not None:
        document, first, q_len = document_of(i, cu_ptr, documents, BLOCK_M)
        first_slot = first // BLOCK_M + document
        i -= first_slot
        if i * BLOCK_M >= q_len:
            return
        q_start = 0
"""

ROWS_DOCUMENT_OF_CLASS = """
    first_slot = 0
    if cu_ptr is not None:
        document, first_row, length = document_of(i, cu_ptr, documents, BLOCK_M * $step)
        first_slot = first_row // (BLOCK_M * $step) + document
        i -= first_slot
        q_len, q_start = (length + $step - 1 - i_c) // $step, 0
        if i * BLOCK_M >= q_len:
            return
"""

# Where there are several parts, a row of a key tile is counted by the kernel itself.
KEYS, KEYS_OF_CLASS = "    keys, first = k_len, 0\n", "    first = 0\n"

KEY_DOCUMENT = """
    row_slots, first_slot, at_b, at_n = row_tiles - first_row_tile, 0, i_b, 0
    if cu_ptr is not None:
        document, first, k_len = document_of(j, cu_ptr, documents, BLOCK_N)
        j -= first // BLOCK_N + document
        if j * BLOCK_N >= k_len:
            return
        row_slots, first_slot = q_len // BLOCK_M + documents, first // BLOCK_M + document
        q_start, first_row_tile, row_tiles = 0, 0, (k_len + BLOCK_M - 1) // BLOCK_M
        at_b, at_n = first + k_len, END - k_len
"""

KEY_DOCUMENT_OF_CLASS = """
    row_slots, first_slot, at_b, at_c, at_n = row_tiles - first_row_tile, 0, i_b, i_c, 0
    if cu_ptr is not None:
        document, first, length = document_of(j, cu_ptr, documents, BLOCK_N * $step)
        j -= first // (BLOCK_N * $step) + document
        k_len = (length + $step - 1 - i_c) // $step
        if j * BLOCK_N >= k_len:
            return
        row_slots, first_slot = q_len // BLOCK_M + documents, first // (BLOCK_M * $step) + document
        q_start, first_row_tile, row_tiles = 0, 0, (k_len + BLOCK_M - 1) // BLOCK_M
        at_b, at_c, at_n = first + i_c + $step * k_len, END, END - k_len
"""

# --- functions of the device


DOCUMENT = '''
# A packed descriptor's rows end here, and so does each document in it.
END = tl.constexpr(1 << 30)


@triton.jit
def document_of(slot, cu_ptr, documents, SIZE: tl.constexpr):
    """The document of a slot, its first row and its length.

    Document d has the slots from cu_seqlens[d] // SIZE + d on: one for each SIZE of its rows, one at most to spare.
    """
    # The slots of `low` begin at `slot` or before, those of `high` after it.
    low = min(max(slot - tl.load(cu_ptr + documents) // SIZE, 0), documents - 1)
    high = min(slot - tl.load(cu_ptr + low) // SIZE, documents - 1) + 1
    while low + 1 < high:
        middle = (low + high) // 2
        after = tl.load(cu_ptr + middle) // SIZE + middle > slot
        low, high = tl.where(after, low, middle), tl.where(after, middle, high)
    first = tl.load(cu_ptr + low)
    return low, first, tl.load(cu_ptr + low + 1) - first
'''

HEAD_TILES = '''

@triton.jit
def tile_of_head(desc, i_b, i_h, start, ROWS: tl.constexpr, D: tl.constexpr):
    """A tile of one head; in a packed call `i_b` is the document's end, and END the end of its rows."""
    if len(desc.shape) == 4:
        return desc.load([i_b, i_h, start, 0]).reshape(ROWS, D)
    else:
        return desc.load([i_b, i_h, END, start, 0]).reshape(ROWS, D)


@triton.jit
def store_tile_of_head(desc, i_b, i_h, start, tile, ROWS: tl.constexpr, D: tl.constexpr):
    """Store a tile of one head, less what is outside."""
    if len(desc.shape) == 4:
        desc.store([i_b, i_h, start, 0], tile.to(desc.dtype).reshape(1, 1, ROWS, D))
    else:
        desc.store([i_b, i_h, END, start, 0], tile.to(desc.dtype).reshape(1, 1, 1, ROWS, D))
'''

CLASS_TILES = '''

@triton.jit
def tile_of_class(desc, i_b, i_h, i_c, start, ROWS: tl.constexpr, D: tl.constexpr):
    """A tile of one residue class of one head; in a packed call `i_b` is the document's end, and `i_c` is END."""
    return desc.load([i_b, i_h, i_c, start, 0]).reshape(ROWS, D)
'''

LISTED = '''

@triton.jit
def listed_before(tile, tiles, first, stop):
    """Where the tiles of a row of the table, which stand in order, reach `tile`: what a document does not have."""
    while first < stop:
        middle = (first + stop) // 2
        below = tl.load(tiles + middle) < tile
        first, stop = tl.where(below, middle + 1, first), tl.where(below, stop, middle)
    return first
'''

# --- the host


DESCRIPTOR = '''

def packed_descriptor(tensor: Tensor, rows: int, step: int = 1) -> TensorDescriptor:
    """A (1, heads, length, head_dim) tensor of documents read in tiles that end where the document does.

    Rank r of the n ranks at first, first + step, ... is read at [first + step * n, head, END, END - n + r, 0]: 2**30
    is also where the fourth dimension ends, so that hardware gives 0 for what follows the document, and stores none of
    it. The third dimension takes the 2**30 rows off again: 2**34 elements 2**30 times are 0 in addresses of 64 bits.
    """
    width = next_power_of_2(tensor.shape[3])
    _, heads, row, _ = tensor.stride()
    shape = [0x7FFF0000, tensor.shape[1], 0x7FFF0000, 1 << 30, tensor.shape[3]]
    return TensorDescriptor(tensor, shape, [row, heads, 2**34 - step * row, step * row, 1], [1, 1, 1, rows, width])


def documents_in(cu_seqlens: Tensor | None) -> int | None:
    """How many documents a packed call has; None for an ordinary call."""
    return None if cu_seqlens is None else cu_seqlens.shape[0] - 1
'''
