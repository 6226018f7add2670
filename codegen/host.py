"""The host side of an emitted module: checks, the torch operator, and the self-check of `main`."""

from __future__ import annotations

CPU_ROAD = """
CPU_BLOCK_M, CPU_BLOCK_N = $cpu_block_m, $cpu_block_n
$cpu_runs


CPU_PARTS = (
$cpu_parts)
"""

TABLE_ROAD = '''

# (predicate, random choices) of each pattern that has a table.
PREDICATES = (
${predicates})


@lru_cache(maxsize=16)
def tile_tables(
    block_m: int, block_n: int, q_start: int, q_len: int, k_len: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The live tiles by query tile, (starts, tiles), and by key tile, made once for each length."""
    rows = range(max(q_start, 0) // block_m, (q_start + q_len - 1) // block_m + 1)
    columns = -(-k_len // block_n)
    parts, kinds = [], 0
    with torch.device("cpu"):
        for predicate, choices in PREDICATES:
            i, j, kind = live_tiles(predicate, choices, block_m, block_n, rows, columns)
            parts.append((i, j, kind + kinds))
            kinds += 1 + 2 ** len(choices)
        i, j, kind = (torch.cat(each) for each in zip(*parts, strict=True))
        by_row = compressed(kind, i - rows.start, j, kinds, len(rows))
        by_column = compressed(kind, j, i, kinds, columns)
    row_starts, row_tiles, column_starts, column_tiles = (
        each.to(device, torch.int32) for each in (*by_row, *by_column)
    )
    return row_starts, row_tiles, column_starts, column_tiles


def table_runs(
    number: int, masks: Sequence[Mask | None], i: int, key_tiles: int
) -> list[tuple[range, Mask | None]]:
    """The key tiles of query tile i on the CPU road, neighbours of one kind together."""
    predicate, choices = PREDICATES[number]
    _, tiles, kinds = live_tiles(predicate, choices, CPU_BLOCK_M, CPU_BLOCK_N, range(i, i + 1), key_tiles)
    runs: list[tuple[range, Mask | None]] = []
    last = -1
    for tile, kind in sorted(zip(tiles.tolist(), kinds.tolist(), strict=True)):
        if runs and kind == last and runs[-1][0].stop == tile:
            runs[-1] = (range(runs[-1][0].start, tile + 1), masks[kind])
        else:
            runs.append((range(tile, tile + 1), masks[kind]))
        last = kind
    return runs
'''

OPERATOR = '''
CAUSAL = $causal
HEADS = $head_count
HEAD_DIM = $head_dim
DTYPES = $dtypes


class InputError(ValueError):
    """Inputs that do not fit each other or this module: what, where, got, expected, try."""

    def __init__(self, code: str, what: str, got: str, expected: str, hint: str) -> None:
        lines = (f"{code}: {what}", "where     attention(q, k, v)", f"got       {got}", f"expected  {expected}")
        super().__init__("\\n  ".join([*lines, f"try       {hint}"]))
        self.code = code


def check_inputs(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None, q_start: int | None, paged: bool = False
) -> None:
    """Raise InputError unless this module can answer the call; pages are no sequences of the batch."""
    for name, each in (("q", q), ("k", k), ("v", v)):
        if not isinstance(each, Tensor):
            raise InputError(
                "WrongType",
                f"{name} is no tensor",
                f"{name} of type {type(each).__name__}",
                "three tensors",
                f"torch.as_tensor({name})",
            )
    shapes = f"q {tuple(q.shape)}, k {tuple(k.shape)}, v {tuple(v.shape)}"
    if q.dim() != 4 or k.dim() != 4 or v.dim() != 4:
        raise InputError(
            "ShapeMismatch",
            "attention takes 4-D tensors",
            shapes,
            "(batch, heads, length, dim) each",
            "unsqueeze(0) for a missing batch, unflatten and transpose for heads inside the last dimension",
        )
    if k.shape != v.shape or (q.shape[0] != k.shape[0] and not paged) or q.shape[3] != k.shape[3]:
        raise InputError(
            "ShapeMismatch",
            "q, k and v do not fit",
            shapes,
            "q (B, H, M, D), k and v (B, G, N, D)",
            "transpose(1, 2) if length stands before heads",
        )
    if q.shape[3] == 0:
        raise InputError("ShapeMismatch", "the head dimension is empty", shapes, "head_dim >= 1", "q.shape")
    if k.shape[1] == 0 or q.shape[1] % k.shape[1]:
        raise InputError(
            "HeadMismatch",
            "the key heads do not divide the query heads",
            f"{q.shape[1]} query heads, {k.shape[1]} key heads",
            "a number of key heads that divides the number of query heads",
            "repeat_interleave the key heads up to a divisor",
        )
    if HEADS is not None and q.shape[1] != HEADS:
        raise InputError(
            "HeadMismatch",
            "the pattern and the query disagree on the number of heads",
            f"{HEADS} head patterns, q of shape {tuple(q.shape)}",
            "one pattern for each query head (key heads do not count)",
            "per_head([...]) with as many patterns as query heads",
        )
    if not q.dtype == k.dtype == v.dtype:
        raise InputError(
            "DtypeMismatch",
            "q, k and v have different types",
            f"{q.dtype}, {k.dtype}, {v.dtype}",
            "one type",
            "k.to(q.dtype), v.to(q.dtype)",
        )
    if not q.dtype.is_floating_point or q.dtype.itemsize < 2:
        raise InputError(
            "DtypeMismatch",
            "no kernel takes this type",
            f"{q.dtype}",
            "float16, bfloat16 or float32",
            "q.to(torch.bfloat16)",
        )
    if not q.device == k.device == v.device:
        raise InputError(
            "DeviceMismatch",
            "q, k and v are on different devices",
            f"{q.device}, {k.device}, {v.device}",
            "one device",
            "k.to(q.device), v.to(q.device)",
        )
    if q.device.type not in ("cuda", "cpu", "meta"):
        raise InputError(
            "DeviceMismatch",
            "no kernel runs on this device",
            f"{q.device}",
            "a CUDA or CPU device",
            'q.to("cuda")',
        )
    if q.is_cuda:
        if q.dtype not in DTYPES:
            raise InputError(
                "DtypeMismatch",
                "this module has no such kernel",
                f"{q.dtype}",
                f"one of {DTYPES}",
                "a module built with another --tiling",
            )
        step = 16 // q.dtype.itemsize
        if not 16 <= q.shape[3] <= HEAD_DIM or q.shape[3] % step:
            raise InputError(
                "ShapeMismatch",
                "this module has no kernel for this head dimension",
                f"head_dim = {q.shape[3]}",
                f"16 <= head_dim <= {HEAD_DIM}, a multiple of {step}",
                "zeros appended to the head dimension of q, k and v, with scale= given",
            )
    if scale is not None and (not isinstance(scale, (int, float)) or scale != scale):
        raise InputError("WrongValue", "scale is no number", f"scale = {scale!r}", "a float", "head_dim ** -0.5")
    if q_start is not None and not isinstance(q_start, int):
        raise InputError(
            "WrongType",
            "q_start is no position",
            f"q_start = {q_start!r}",
            "an int",
            "q_start=None: the last query sits on the last key",
        )
    if CAUSAL and q_start is not None and q_start + q.shape[2] > k.shape[2]:
        raise InputError(
            "OutOfRange",
            "the last query stands after the last key of a pattern that looks back",
            f"q_start = {q_start}, q_len = {q.shape[2]}, k_len = {k.shape[2]}",
            "q_start + q_len <= k_len",
            "q_start=None: the last query sits on the last key",
        )


def autocast(each: Tensor) -> Tensor:
    """The tensor in autocast's type where that is on, as torch's own attention takes it; float64 stays."""
    device = each.device.type if isinstance(each, Tensor) else ""
    if device not in ("cuda", "cpu") or not torch.is_autocast_enabled(device):
        return each
    if not each.is_floating_point() or each.dtype == torch.float64:
        return each
    return each.to(torch.get_autocast_dtype(device))


def unused(name: str) -> str:
    """The name, or with a number where another module of this process has an operator of that name."""
    number, found = 1, name
    while hasattr(torch.ops.sparsedsl, found):
        number += 1
        found = f"{name}_{number}"
    return f"sparsedsl::{found}"


@torch.library.custom_op(unused("attention_$digest"), mutates_args=())
def attention_op(q: Tensor, k: Tensor, v: Tensor, scale: float, q_start: int) -> tuple[Tensor, Tensor]:
    if q.numel() == 0 or k.numel() == 0:
        return room_like(q).zero_(), torch.full(q.shape[:3], float("-inf"), device=q.device)
    if not on_gpu_road(q):
        out, lse = forward_parts(
            q, k, v, scale=scale, q_start=q_start, parts=CPU_PARTS, block_m=CPU_BLOCK_M, block_n=CPU_BLOCK_N
        )
    elif q.shape[2] <= FEW_QUERIES:
        out, lse = launch_cached(q, k, v, None, None, scale, q_start)
    else:
        out, lse = launch_forward(q, k, v, scale, q_start)
    return laid_out_like(q, out), lse


@attention_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, scale: float, q_start: int) -> tuple[Tensor, Tensor]:
    lse_dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    return room_like(q), q.new_empty(q.shape[:3], dtype=lse_dtype)


@torch.library.custom_op(unused("attention_backward_$digest"), mutates_args=())
def attention_backward_op(
    d_out: Tensor, d_lse: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float, q_start: int
) -> tuple[Tensor, Tensor, Tensor]:
    if q.numel() == 0 or k.numel() == 0:
        return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)
    if on_gpu_road(q):
        return launch_backward(d_out, d_lse, q, k, v, out, lse, scale, q_start)
    return backward_parts(
        d_out,
        d_lse,
        q,
        k,
        v,
        out,
        lse,
        scale=scale,
        q_start=q_start,
        parts=CPU_PARTS,
        block_m=CPU_BLOCK_M,
        block_n=CPU_BLOCK_N,
    )


@attention_backward_op.register_fake
def _(
    d_out: Tensor, d_lse: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor, scale: float, q_start: int
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty(each.shape, dtype=each.dtype, device=each.device) for each in (q, k, v))
    return dq, dk, dv


def save_for_backward(ctx, inputs, output) -> None:
    q, k, v, ctx.scale, ctx.q_start = inputs
    ctx.save_for_backward(q, k, v, *output)


def attention_gradient(ctx, d_out: Tensor, d_lse: Tensor):
    q, k, v, out, lse = ctx.saved_tensors
    return *attention_backward_op(d_out, d_lse, q, k, v, out, lse, ctx.scale, ctx.q_start), None, None


attention_op.register_autograd(attention_gradient, setup_context=save_for_backward)


def mapped(op, info, in_dims, *inputs):
    """An operator under vmap, whose last two inputs are numbers: the mapped dimension becomes more of the batch."""
    size = info.batch_size
    tensors = [
        each.expand(size, *each.shape) if dim is None else each.movedim(dim, 0)
        for each, dim in zip(inputs[:-2], in_dims[:-2], strict=True)
    ]
    outs = op(*(each.flatten(0, 1) for each in tensors), *inputs[-2:])
    return tuple(each.unflatten(0, (size, each.shape[0] // size)) for each in outs), (0,) * len(outs)


@attention_op.register_vmap
def _(info, in_dims, *inputs):
    return mapped(attention_op, info, in_dims, *inputs)


@attention_backward_op.register_vmap
def _(info, in_dims, *inputs):
    return mapped(attention_backward_op, info, in_dims, *inputs)


class Transformed(torch.autograd.Function):
    """The operator for torch.func, whose transforms do not take a gradient that is registered with an operator."""

    generate_vmap_rule = True

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, scale: float, q_start: int) -> tuple[Tensor, Tensor]:
        return attention_op(q, k, v, scale, q_start)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        save_for_backward(ctx, inputs, output)

    @staticmethod
    def backward(ctx, d_out: Tensor, d_lse: Tensor):
        return *TransformedBackward.apply(d_out, d_lse, *ctx.saved_tensors, ctx.scale, ctx.q_start), None, None


class TransformedBackward(torch.autograd.Function):
    """The gradient for torch.func; it has none of its own."""

    generate_vmap_rule = True

    @staticmethod
    def forward(*inputs) -> tuple[Tensor, Tensor, Tensor]:
        return attention_backward_op(*inputs)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, *d_gradients):
        raise RuntimeError("attention over a pattern has no second derivative")

'''

# What the docstring of `attention` says of the module's kernels.
REPEATS = """\
    The same inputs give the same bits each time, gradients too: no sum waits for who comes first. There is no other
    mode, and torch.use_deterministic_algorithms changes nothing."""

ATTENTION = '''
def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    scale: float | None = None,
    q_start: int | None = None,
    return_lse: bool = False,
    cu_seqlens: Tensor | None = None,
    document_ids: Tensor | None = None,
    cache_seqlens: Tensor | None = None,
    page_table: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Softmax attention over the pairs of PATTERN.

${repeats}

    Shapes
        q (batch, heads, q_len, head_dim); k and v (batch, key_heads, k_len, head_dim), key_heads dividing heads.
        Returns q's shape, and with return_lse the natural log-sum-exp (batch, heads, q_len) in float32. The output lies
        in memory as q does where one distance leads from head to head and one from token to token, else contiguous.
        Documents packed in one row: cu_seqlens (documents + 1,) int32, document d having the rows from cu_seqlens[d] to
        cu_seqlens[d + 1], its end; or document_ids (batch, length), integers that change where a document begins.
        cache_seqlens (batch,) int32: keys in use of each sequence, the new ones included; k and v are then a cache
        with room for k_len. page_table (batch, pages) int32: k and v are (pages, key_heads, page_size, head_dim).
    Units
        Query row i stands at position q_start + i; by default the last query sits on the last key, with
        cache_seqlens on the last key in use. A length or a page number that leads out of the cache is an error on
        the CPU; on a GPU it is not looked at, and counts as the nearest one inside. scale defaults
        to head_dim ** -0.5. A row with no key gives 0, log-sum-exp -inf and zero gradients. Under torch.autocast the
        inputs are cast, as those of scaled_dot_product_attention are. Positions count from 0 in each document, and no
        pair crosses one; a row of no document has no key.
    Cost
        Time and memory in proportion to the tiles that hold a live pair; no mask, no table. Calls of at most
        FEW_QUERIES queries, and all over a cache, run kernels that split the keys and load only live ones.
    Raises
        InputError: shapes, types, devices or positions that do not fit.
    """
    q, k, v = autocast(q), autocast(k), autocast(v)
    check_inputs(q, k, v, scale, q_start, page_table is not None)
    by_id = cu_seqlens is None
    documents = document_ids if by_id else cu_seqlens
    cached = cache_seqlens is not None or page_table is not None
    if cached:
        check_cache(q, k, v, cache_seqlens, page_table, q_start, documents is not None)
    if documents is not None:
        check_documents(q, k, q_start, documents, by_id, document_ids)
    start = k.shape[-2] - q.shape[-2] if q_start is None else q_start
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    if factor < 0:
        # The kernels take the maximum of unscaled scores.
        q, factor = -q, -factor
    if factor == 0:
        # Nor may a dead score, -inf, meet a factor of 0.
        q, factor = q * 0, 1.0
    if documents is not None:
        out, lse = packed_attention(q, k, v, factor, documents, by_id)
        return (out, lse) if return_lse else out
    if cached:
        out, lse = cached_attention_op(q, k, v, cache_seqlens, page_table, factor)
        return (out, lse) if return_lse else out
    transformed = not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()
    out, lse = (Transformed.apply if transformed else attention_op)(q, k, v, factor, start)
    return (out, lse) if return_lse else out
'''

MAIN = '''
def dense_mask(q_len: int, k_len: int, heads: int) -> Tensor:
    """The pattern as a boolean matrix of each head, read off the CPU schedule tile by tile."""
    mask = torch.zeros(heads, q_len, k_len, dtype=torch.bool)
    for part in CPU_PARTS:
        for each in slices(part, heads, heads, k_len - q_len):
            inside = mask[each.heads, each.rows, each.keys]
            for own, _, runs in head_parts(part.groups, inside.shape[0], inside.shape[0]):
                sizes = (inside.shape[1], inside.shape[2], each.q_start, runs, CPU_BLOCK_M, CPU_BLOCK_N)
                for tile in query_tiles(*sizes):
                    for start, stop, keep in tile.spans:
                        keys = torch.arange(start, stop)
                        live = keep(tile.positions[:, None], keys[None, :]) if keep else torch.tensor(True)
                        inside[own, tile.rows, start:stop] |= live
    return mask


def dense_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """The oracle: dense softmax over a boolean mask (heads, q_len, k_len); a row without a key gives 0."""
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~mask, float("-inf"))
    return torch.softmax(scores, -1).nan_to_num(0.0) @ v


def main() -> None:
    """Compare output and gradients with dense attention in float64, on three shapes and a cache; raise on a miss."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = DTYPES[0] if device == "cuda" or INTERPRETED else torch.float32
    heads = HEADS or 4
    sizes = ((1, heads, 300, 300, 64), (2, 1, 100, 421, 32), (1, heads, 1, 77, 64))
    for batch, key_heads, q_len, k_len, head_dim in sizes:
        torch.manual_seed(0)
        shapes = ((heads, q_len), (key_heads, k_len), (key_heads, k_len))
        tensors = [torch.randn(batch, h, n, head_dim, device=device, dtype=dtype) for h, n in shapes]
        mask = dense_mask(q_len, k_len, heads).to(device)
        want_inputs = [each.double().requires_grad_() for each in tensors]
        got_inputs = [each.clone().requires_grad_() for each in tensors]
        want, got = dense_attention(*want_inputs, mask), attention(*got_inputs)
        weight = torch.randn_like(want)
        wants = (want, *torch.autograd.grad(want, want_inputs, weight))
        gots = (got, *torch.autograd.grad(got, got_inputs, weight.to(dtype)))
        for name, a, b in zip(("output", "dq", "dk", "dv"), wants, gots, strict=True):
            error = ((a - b.double()).norm() / a.norm().clamp_min(1e-6)).item()
            if not error < (1e-4 if dtype == torch.float32 else 2e-2):
                raise AssertionError(f"{name} of {q_len} x {k_len}: relative error {error:.1e}")
        print(f"{q_len:5} queries, {k_len:5} keys, head_dim {head_dim}: ok on {device}, {dtype}")
    check_cached(device, dtype, heads)


if __name__ == "__main__":
    main()
'''
