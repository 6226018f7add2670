"""The fixed text of the host side of a part: descriptors, grids and launches."""

from __future__ import annotations

SHARED = '''
LOG2_E = 1.4426950408889634


# Read once, as the kernels above read it when they were defined.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def on_gpu_road(tensor: Tensor) -> bool:
    """Whether the Triton kernels run: on a CUDA device, or on the CPU where Triton interprets them."""
    return tensor.is_cuda or INTERPRETED


def precision(tensor: Tensor) -> str:
    """How the kernels multiply: float32 is never rounded to tf32."""
    return "ieee" if tensor.dtype == torch.float32 else "tf32"


def tiles_in(start: int, length: int, size: int, documents: int | None = None) -> int:
    """How many tiles hold the positions start .. start + length - 1 that are not negative.

    In a packed call, the slots: one for each tile of each document, at most one more for each.
    """
    if documents is not None:
        return length // size + documents
    return max((start + length + size - 1) // size - max(start, 0) // size, 0) if length else 0


def next_power_of_2(number: int) -> int:
    """What Triton's function of this name gives; that one is made for kernels too, and slow on the host."""
    return 1 << (number - 1).bit_length()
'''

DESCRIPTOR = '''

def tile_descriptor(tensor: Tensor, rows: int, packed: bool) -> TensorDescriptor:
    """A (batch, heads, length, head_dim) tensor read in tiles of `rows` rows of one head; outside reads give 0."""
    if packed:
        return packed_descriptor(tensor, rows)
    width = next_power_of_2(tensor.shape[3])
    return TensorDescriptor(tensor, list(tensor.shape), list(tensor.stride()), [1, 1, rows, width])
'''

CLASSES = '''

@dataclass(frozen=True)
class ClassRange:
    """Neighbouring residue classes of positions with as many queries and as many keys in each.

    `q_start` is the rank of a class's first query, `first_row` the row of the first class's first query; the first
    class's first key is key `first`.
    """

    first: int
    count: int
    q_start: int
    queries: int
    keys: int
    first_row: int


def class_ranges(step: int, q_start: int, q_len: int, k_len: int, packed: bool) -> Iterator[ClassRange]:
    """All residue classes modulo `step`, in ranges of equal ones; at most four, and one where step divides all.

    In a packed call the kernels count a document's classes; here is how many ranks the longest document may have.
    """
    if packed:
        ranks = -(-q_len // step)
        yield ClassRange(0, step, 0, ranks, ranks, 0)
        return
    q_end = q_start + q_len
    ends = sorted({0, q_start % step, q_end % step, k_len % step})
    for first, end in zip(ends, [*ends[1:], step], strict=True):
        low, high, keys = (-((first - position) // step) for position in (q_start, q_end, k_len))
        # A class without a query stands at 0, where it has no query tile either.
        start = low if low < high else 0
        yield ClassRange(first, end - first, start, high - low, keys, low * step + first - q_start)


def class_descriptor(
    tensor: Tensor, step: int, first: int, classes: int, ranks: int, rows: int, packed: bool
) -> TensorDescriptor:
    """The same tensor by residue class and rank: row first + class + step * rank, in tiles of `rows` ranks."""
    if packed:
        return packed_descriptor(tensor, rows, step)
    width = next_power_of_2(tensor.shape[3])
    base = tensor[:, :, first:] if ranks else tensor
    batch, heads, length, dim = tensor.stride()
    shape = [*tensor.shape[:2], classes if ranks else 1, max(ranks, 1), tensor.shape[3]]
    return TensorDescriptor(base, shape, [batch, heads, length, step * length, dim], [1, 1, 1, rows, width])
'''

PART = """

def forward_part${p}(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    ${before_out}scale: float,
    q_start: int,
    cu_seqlens: Tensor | None,
) -> None:
    packed, documents = cu_seqlens is not None, documents_in(cu_seqlens)
    batch, heads, q_len, head_dim = q.shape
    k_len = k.shape[2]
    grid = (batch * heads * tiles_in(q_start, q_len, ${block_m}, documents),)
    if grid[0]:
        forward_kernel${p}[grid](
${forward_arrays}            tile_descriptor(q, ${block_m}, packed),
            tile_descriptor(k, ${block_n}, packed),
            tile_descriptor(v, ${block_n}, packed),
            out,
            *rows_apart(out),
            lse,
${give_before}            scale * LOG2_E,
            q_len,
            k_len,
            q_start,
            heads,
            heads // k.shape[1],
            cu_seqlens,
            documents,
            head_dim=head_dim,
            D=next_power_of_2(head_dim),
            PRECISION=precision(q),
            num_warps=${warps},
            num_stages=${stages},
        )


def backward_part${p}(
    d_out: Tensor,
    d_lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    results: Sequence[Tensor],
${before_results}    scale: float,
    q_start: int,
    cu_seqlens: Tensor | None,
) -> None:
    packed, documents = cu_seqlens is not None, documents_in(cu_seqlens)
    batch, heads, q_len, head_dim = q.shape
    key_heads, k_len = k.shape[1], k.shape[2]
    dq, dk, dv = results
    width = next_power_of_2(head_dim)
    row_tiles = batch * heads * tiles_in(q_start, q_len, ${dq_block_m}, documents)
    row_lse = torch.empty(row_tiles * ${dq_block_m}, dtype=torch.float32, device=q.device)
    row_delta = torch.empty_like(row_lse)
    numbers = (scale * LOG2_E, scale, q_len, k_len, q_start, heads, heads // key_heads, cu_seqlens, documents)
    if row_tiles:
        rows_kernel${p}[(row_tiles,)](
            out,
            *rows_apart(out),
            d_out,
            *rows_apart(d_out),
            lse,
            d_lse,
            row_lse,
            row_delta,
            q_len,
            q_start,
            cu_seqlens,
            documents,
            head_dim=head_dim,
            D=width,
        )
        dq_kernel${p}[(row_tiles,)](
${dq_arrays}            tile_descriptor(q, ${dq_block_m}, packed),
            tile_descriptor(k, ${dq_block_n}, packed),
            tile_descriptor(v, ${dq_block_n}, packed),
            tile_descriptor(d_out, ${dq_block_m}, packed),
            dq,
${give_before_dq}            row_lse,
            row_delta,
            *numbers,
            head_dim=head_dim,
            D=width,
            PRECISION=precision(q),
            num_warps=${dq_warps},
            num_stages=${dq_stages},
        )
${set_sums}    grid = (batch * key_heads * tiles_in(0, k_len, ${dkdv_block_n}, documents)${more_programs},)
    if grid[0]:
        dkdv_kernel${p}[grid](
${dkdv_arrays}            tile_descriptor(q, ${dkdv_block_m}, packed),
            tile_descriptor(k, ${dkdv_block_n}, packed),
            tile_descriptor(v, ${dkdv_block_n}, packed),
            tile_descriptor(d_out, ${dkdv_block_m}, packed),
${give_dkdv}            row_lse,
            row_delta,
            *numbers,
${give_sums}${dkdv_head_dim}            D=width,
            PRECISION=precision(q),
            num_warps=${dkdv_warps},
            num_stages=${dkdv_stages},
        )
${add_shares}"""

PART_IN_CLASSES = """

def forward_part${p}(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    ${before_out}scale: float,
    q_start: int,
    cu_seqlens: Tensor | None,
) -> None:
    packed, documents = cu_seqlens is not None, documents_in(cu_seqlens)
    batch, heads, rows, head_dim = q.shape
    for each in class_ranges(${step}, q_start, rows, k.shape[2], packed):
        q_start, q_len, k_len = each.q_start, each.queries, each.keys
        grid = (batch * heads * ${each_count}tiles_in(q_start, q_len, ${block_m}, documents),)
        if not grid[0]:
            continue
        forward_kernel${p}[grid](
${forward_arrays}            class_descriptor(q, ${step}, each.first_row, each.count, q_len, ${block_m}, packed),
            class_descriptor(k, ${step}, each.first, each.count, k_len, ${block_n}, packed),
            class_descriptor(v, ${step}, each.first, each.count, k_len, ${block_n}, packed),
            out,
            *rows_apart(out),
            lse,
${give_before}            scale * LOG2_E,
            q_len,
            k_len,
            q_start,
            heads,
            heads // k.shape[1],
            cu_seqlens,
            documents,
${give_classes}            head_dim=head_dim,
            D=next_power_of_2(head_dim),
            PRECISION=precision(q),
            num_warps=${warps},
            num_stages=${stages},
        )


def backward_part${p}(
    d_out: Tensor,
    d_lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    results: Sequence[Tensor],
${before_results}    scale: float,
    q_start: int,
    cu_seqlens: Tensor | None,
) -> None:
    packed, documents = cu_seqlens is not None, documents_in(cu_seqlens)
    batch, heads, rows, head_dim = q.shape
    key_heads = k.shape[1]
    dq, dk, dv = results
    width = next_power_of_2(head_dim)
    for each in class_ranges(${step}, q_start, rows, k.shape[2], packed):
        q_start, q_len, k_len = each.q_start, each.queries, each.keys
        row_tiles = batch * heads * ${each_count}tiles_in(q_start, q_len, ${dq_block_m}, documents)
        row_lse = torch.empty(row_tiles * ${dq_block_m}, dtype=torch.float32, device=q.device)
        row_delta = torch.empty_like(row_lse)
        numbers = (scale * LOG2_E, scale, q_len, k_len, q_start, heads, heads // key_heads, cu_seqlens, documents)
        if row_tiles:
            rows_kernel${p}[(row_tiles,)](
                out,
                *rows_apart(out),
                d_out,
                *rows_apart(d_out),
                lse,
                d_lse,
                row_lse,
                row_delta,
                q_len,
                q_start,
                cu_seqlens,
                documents,
${give_rows_classes}                head_dim=head_dim,
                D=width,
            )
            dq_kernel${p}[(row_tiles,)](
${dq_arrays}                class_descriptor(q, ${step}, each.first_row, each.count, q_len, ${dq_block_m}, packed),
                class_descriptor(k, ${step}, each.first, each.count, k_len, ${dq_block_n}, packed),
                class_descriptor(v, ${step}, each.first, each.count, k_len, ${dq_block_n}, packed),
                class_descriptor(d_out, ${step}, each.first_row, each.count, q_len, ${dq_block_m}, packed),
                dq,
${give_before_dq}                row_lse,
                row_delta,
                *numbers,
${give_classes_deeper}                head_dim=head_dim,
                D=width,
                PRECISION=precision(q),
                num_warps=${dq_warps},
                num_stages=${dq_stages},
            )
        grid = (batch * key_heads * each.count * tiles_in(0, k_len, ${dkdv_block_n}, documents),)
        if grid[0]:
            dkdv_kernel${p}[grid](
${dkdv_arrays}                class_descriptor(q, ${step}, each.first_row, each.count, q_len, ${dkdv_block_m}, packed),
                class_descriptor(k, ${step}, each.first, each.count, k_len, ${dkdv_block_n}, packed),
                class_descriptor(v, ${step}, each.first, each.count, k_len, ${dkdv_block_n}, packed),
                class_descriptor(d_out, ${step}, each.first_row, each.count, q_len, ${dkdv_block_m}, packed),
${give_dkdv}                row_lse,
                row_delta,
                *numbers,
${give_key_classes}${dkdv_head_dim}                D=width,
                PRECISION=precision(q),
                num_warps=${dkdv_warps},
                num_stages=${dkdv_stages},
            )
"""

ONE_PART = """

def launch_forward(
    q: Tensor, k: Tensor, v: Tensor, scale: float, q_start: int, cu_seqlens: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    q, k, v = readable(q), readable(k), readable(v)
    out = room_like(q)
    if q_start < 0 or cu_seqlens is not None:
        # Rows before position 0, and rows of no document, have no key, and no tile.
        out.zero_()
    lse = torch.full(q.shape[:3], float("-inf"), dtype=torch.float32, device=q.device)
${forward_parts}    return out, lse


def launch_backward(
    d_out: Tensor,
    d_lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
    q_start: int,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = readable(q), readable(k), readable(v)
    packed = cu_seqlens is not None
    dq = (torch.zeros if packed or q_start < 0 else torch.empty)(q.shape, dtype=q.dtype, device=q.device)
    new = torch.zeros if packed else torch.empty
    dk, dv = (new(each.shape, dtype=each.dtype, device=each.device) for each in (k, v))
    d_out, d_lse, out = in_rows(d_out), d_lse.contiguous(), in_rows(out)
${backward_parts}    return dq, dk, dv
"""

PARTS = '''

def launch_forward(
    q: Tensor, k: Tensor, v: Tensor, scale: float, q_start: int, cu_seqlens: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Part after part into one float32 output; the last one, which covers all rows, writes the result."""
    q, k, v = readable(q), readable(k), readable(v)
    out = room_like(q)
    if q_start < 0 or cu_seqlens is not None:
        # Rows before position 0, and rows of no document, have no key, and no tile.
        out.zero_()
    lse = torch.full(q.shape[:3], float("-inf"), dtype=torch.float32, device=q.device)
    so_far = torch.empty(q.shape, dtype=torch.float32, device=q.device)
${forward_parts}    return out, lse


def launch_backward(
    d_out: Tensor,
    d_lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
    q_start: int,
    cu_seqlens: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Part after part into float32 gradients; the last one, which covers all rows, writes the results."""
    q, k, v = readable(q), readable(k), readable(v)
    hollow = q_start < 0 or cu_seqlens is not None
    new = torch.zeros if hollow else torch.empty
    results = [new(each.shape, dtype=each.dtype, device=each.device) for each in (q, k, v)]
    # What the first part does not reach must be 0.
    new = ${new_gradients}
    so_far = [new(each.shape, dtype=torch.float32, device=each.device) for each in (q, k, v)]
    d_out, d_lse, out = in_rows(d_out), d_lse.contiguous(), in_rows(out)
    given = (d_out, d_lse, q, k, v, out, lse)
${backward_parts}    dq, dk, dv = results
    return dq, dk, dv
'''
