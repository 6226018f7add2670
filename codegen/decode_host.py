"""The fixed text of the operator over a cache, and of the checks of its inputs."""

from __future__ import annotations

OPERATOR = '''
def check_cache(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cache_seqlens: Tensor | None,
    page_table: Tensor | None,
    q_start: int | None,
    packed: bool,
) -> None:
    """Raise InputError unless the lengths and the pages fit the call; values on the device are not looked at."""
    if cache_seqlens is None:
        raise InputError(
            "MissingArgument",
            "a page table does not tell how many keys are in use",
            "page_table without cache_seqlens",
            "cache_seqlens: (batch,) int32, keys in use of each sequence, the new ones included",
            "cache_seqlens=torch.full((batch,), length, dtype=torch.int32, device=q.device)",
        )
    if q_start is not None:
        raise InputError(
            "WrongValue",
            "q_start and cache_seqlens both say where the queries stand",
            f"q_start = {q_start}",
            "one of them: with cache_seqlens the last query of each sequence sits on its last key",
            "q_start=None",
        )
    if packed:
        raise InputError(
            "WrongValue",
            "packed documents have no cache",
            "cache_seqlens, and cu_seqlens or document_ids",
            "one of the two: each sequence of a cache is a row of the batch",
            "a call without cu_seqlens and document_ids",
        )
    batch, q_len = q.shape[0], q.shape[2]
    tables = {"cache_seqlens": (cache_seqlens, 1, "(batch,)"), "page_table": (page_table, 2, "(batch, pages)")}
    for name, (table, dims, shape) in tables.items():
        if table is None:
            continue
        if not isinstance(table, Tensor) or table.dtype != torch.int32:
            kind = table.dtype if isinstance(table, Tensor) else type(table).__name__
            raise InputError(
                "DtypeMismatch",
                f"{name} is no int32 tensor",
                f"{name} of {kind}",
                f"{name}: {shape} int32",
                f"torch.as_tensor({name}, dtype=torch.int32, device=q.device)",
            )
        if table.dim() != dims or table.shape[0] != batch:
            raise InputError(
                "ShapeMismatch",
                f"{name} does not fit the queries",
                f"{name} {tuple(table.shape)}, q {tuple(q.shape)}",
                f"{name}: {shape} with batch = {batch}",
                f"one entry of {name} for each sequence of q",
            )
        if table.device != q.device:
            raise InputError(
                "DeviceMismatch",
                f"{name} is on another device than q",
                f"{name} on {table.device}, q on {q.device}",
                "one device",
                f"{name}.to(q.device)",
            )
    if any(each.stride(3) != 1 for each in (k, v)):
        raise InputError(
            "LayoutMismatch",
            "the head dimension of the cache is not contiguous",
            f"strides k {k.stride()}, v {v.stride()}",
            "stride 1 in the last dimension; the others are free, a cache is never copied",
            "a cache allocated with head_dim last, seen through transpose(1, 2)",
        )
    capacity = k.shape[2] if page_table is None else page_table.shape[1] * k.shape[2]
    if q_len > capacity:
        raise InputError(
            "CacheTooShort" if page_table is None else "PageTableTooSmall",
            "the cache cannot hold the new tokens",
            f"q_len = {q_len}, room for {capacity} keys",
            "room for the new keys, which stand in the cache before the call",
            "k and v of more rows" if page_table is None else "a page_table of more columns",
        )
    if torch.is_grad_enabled() and (q.requires_grad or k.requires_grad or v.requires_grad):
        raise InputError(
            "NoGradient",
            "attention over a cache has no gradient",
            "q, k or v asks for one",
            "inference: torch.no_grad(), or tensors that need no gradient",
            "without cache_seqlens and page_table for training",
        )


def check_cache_values(k: Tensor, cache_seqlens: Tensor, page_table: Tensor | None) -> None:
    """On the CPU, where looking costs nothing: lengths and pages that lead out of the cache."""
    capacity = k.shape[2] if page_table is None else page_table.shape[1] * k.shape[2]
    longest, shortest = int(cache_seqlens.max()), int(cache_seqlens.min())
    if longest > capacity or shortest < 0:
        raise InputError(
            "CacheTooShort" if page_table is None else "PageTableTooSmall",
            "a sequence is longer than the cache" if longest > capacity else "a sequence has a negative length",
            f"cache_seqlens from {shortest} to {longest}, room for {capacity} keys",
            f"0 <= cache_seqlens <= {capacity}",
            "a larger cache, or cache_seqlens of the keys that are in it",
        )
    if page_table is None:
        return
    used = torch.arange(page_table.shape[1])[None, :] * k.shape[2] < cache_seqlens[:, None]
    named = page_table[used]
    if len(named) and not 0 <= int(named.min()) <= int(named.max()) < k.shape[0]:
        raise InputError(
            "OutOfRange",
            "page_table names a page that is not there",
            f"pages from {int(named.min())} to {int(named.max())}",
            f"0 <= page < {k.shape[0]} for the pages in use; the others may be anything",
            "a page for every page_size keys of cache_seqlens",
        )


@torch.library.custom_op(unused("cached_attention_$digest"), mutates_args=())
def cached_attention_op(
    q: Tensor, k: Tensor, v: Tensor, cache_seqlens: Tensor, page_table: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    if q.numel() == 0 or k.numel() == 0 or (page_table is not None and page_table.numel() == 0):
        return torch.zeros_like(q), torch.full(q.shape[:3], float("-inf"), dtype=wide, device=q.device)
    if not q.is_cuda:
        check_cache_values(k, cache_seqlens, page_table)
    if on_gpu_road(q):
        table = page_table if page_table is None or page_table.stride(1) == 1 else page_table.contiguous()
        return launch_cached(q, k, v, cache_seqlens.contiguous(), table, scale, 0)
    sizes = {"block_m": CPU_BLOCK_M, "block_n": CPU_BLOCK_N}
    return forward_cached(q, k, v, cache_seqlens, page_table, scale=scale, parts=CPU_PARTS, **sizes)


@cached_attention_op.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, cache_seqlens: Tensor, page_table: Tensor | None, scale: float
) -> tuple[Tensor, Tensor]:
    lse_dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    return torch.empty(q.shape, dtype=q.dtype, device=q.device), q.new_empty(q.shape[:3], dtype=lse_dtype)


@cached_attention_op.register_vmap
def _(info, in_dims, *inputs):
    raise NotImplementedError("attention over a cache has no vmap: batches of sequences are its first dimension")
'''

MAIN = '''
def check_cached(device: str, dtype: torch.dtype, heads: int) -> None:
    """Compare two sequences in pages with dense attention over each; what is not in use is NaN."""
    lengths, size, columns = (77, 5), 16, 5
    q = torch.randn(2, heads, 3, 64, device=device, dtype=dtype)
    k, v = (torch.randn(2, heads, size * columns, 64, device=device, dtype=dtype) for _ in range(2))
    for number, length in enumerate(lengths):
        k[number, :, length:] = v[number, :, length:] = float("nan")
    k_pages, v_pages = (each.unflatten(2, (columns, size)).transpose(1, 2).flatten(0, 1) for each in (k, v))
    tables = torch.arange(2 * columns, dtype=torch.int32, device=device).view(2, columns)
    seqlens = torch.tensor(lengths, dtype=torch.int32, device=device)
    got = attention(q, k_pages, v_pages, cache_seqlens=seqlens, page_table=tables)
    for number, length in enumerate(lengths):
        own = slice(number, number + 1)
        mask = dense_mask(3, length, heads).to(device)
        want = dense_attention(q[own].double(), k[own, :, :length].double(), v[own, :, :length].double(), mask)
        error = ((want - got[own].double()).norm() / want.norm().clamp_min(1e-6)).item()
        if not error < (1e-4 if dtype == torch.float32 else 2e-2):
            raise AssertionError(f"a cache of {length} keys: relative error {error:.1e}")
    print(f"pages of {size}, {lengths[0]} and {lengths[1]} keys: ok on {device}, {dtype}")

'''
