"""The host side of packed calls in an emitted module: checks, the operator, its gradient, the CPU road."""

from __future__ import annotations

OPERATOR = '''

def check_documents(
    q: Tensor, k: Tensor, q_start: int | None, documents: Tensor, by_id: bool, document_ids: Tensor | None
) -> None:
    """Raise InputError unless this is a packed call that the module can answer; values on a GPU are not read."""
    name = "document_ids" if by_id else "cu_seqlens"
    if not by_id and document_ids is not None:
        raise InputError(
            "WrongValue",
            "documents are told in two ways",
            "cu_seqlens and document_ids",
            "one of the two",
            "cu_seqlens alone, which costs less",
        )
    if not isinstance(documents, Tensor):
        raise InputError(
            "WrongType",
            f"{name} is no tensor",
            f"{name} of type {type(documents).__name__}",
            "an integer tensor",
            f'{name}=torch.tensor(..., dtype=torch.int32, device="{q.device}")',
        )
    if q_start is not None:
        raise InputError(
            "WrongValue",
            f"{name} and q_start can't both be given",
            f"q_start = {q_start}",
            "q_start=None: the positions of each document begin at 0",
            "q_start=None",
        )
    if q.shape[2] != k.shape[2]:
        raise InputError(
            "ShapeMismatch",
            f"with {name} there are as many queries as keys",
            f"{q.shape[2]} queries, {k.shape[2]} keys",
            "q_len == k_len: each document attends to itself",
            f"attention without {name} for queries that follow cached keys",
        )
    shape = tuple(documents.shape)
    if by_id and shape != (q.shape[0], q.shape[2]):
        raise InputError(
            "ShapeMismatch",
            "document_ids do not fit the tokens",
            f"document_ids {shape}, q {tuple(q.shape)}",
            f"(batch, length) = {q.shape[0], q.shape[2]}",
            "one id for each token, the same in all its rows",
        )
    if not by_id and (len(shape) != 1 or shape[0] < 2):
        raise InputError(
            "ShapeMismatch",
            "cu_seqlens holds no document",
            f"cu_seqlens {shape}",
            "(documents + 1,): where each document begins, and where the last one ends",
            "torch.tensor([0, length]) for one document",
        )
    if not by_id and q.shape[0] != 1:
        raise InputError(
            "ShapeMismatch",
            "packed documents stand in one row",
            f"a batch of {q.shape[0]}",
            "batch 1 with cu_seqlens",
            "document_ids=, which takes a batch, or its rows side by side along the length",
        )
    whole = not documents.is_floating_point() and not documents.is_complex() and documents.dtype != torch.bool
    if not (whole if by_id else documents.dtype == torch.int32):
        raise InputError(
            "DtypeMismatch",
            f"{name} has another type",
            f"{documents.dtype}",
            "integers" if by_id else "torch.int32",
            f"{name}.to(torch.int32)",
        )
    if documents.device != q.device:
        raise InputError(
            "DeviceMismatch",
            f"{name} and the tokens are on different devices",
            f"{name} on {documents.device}, q on {q.device}",
            "one device",
            f"{name}.to(q.device)",
        )
    if not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active():
        raise InputError(
            "Unsupported",
            f"a call with {name} can't be transformed by torch.func",
            "a call under vmap, grad or another transform",
            "a plain call; autograd and torch.compile are fine",
            "more documents in place of a mapped dimension, .backward() in place of grad",
        )


def ascending(cu_seqlens: Tensor, length: int) -> Tensor:
    """The documents' bounds as kernels may trust them, never outside the tokens; raise InputError where read."""
    if cu_seqlens.is_cuda:
        return cu_seqlens.clamp(0, length).cummax(0).values.to(torch.int32)
    bounds = cu_seqlens.tolist()
    if bounds[0] < 0 or bounds[-1] > length or bounds != sorted(bounds):
        wrong = next((place for place, pair in enumerate(pairwise(bounds)) if pair[0] > pair[1]), None)
        falls = "" if wrong is None else f", then {bounds[wrong]} before {bounds[wrong + 1]}"
        raise InputError(
            "OutOfRange",
            "cu_seqlens does not ascend inside the tokens",
            f"from {bounds[0]} to {bounds[-1]}{falls}; {length} tokens",
            "0 <= cu_seqlens[d] <= cu_seqlens[d + 1] <= length",
            "lengths.cumsum(0) behind a 0",
        )
    return cu_seqlens.contiguous()


def without_spares(bounds: Tensor, length: int) -> Tensor:
    """Bounds without the empty documents behind the last token, where they are as many as from ids: one a token.

    A program is launched for each document of each head, so they are counted first, for which the host waits. While a
    graph is captured it can't: then the spare programs start, and return.
    """
    if bounds.shape[0] <= length or (bounds.is_cuda and torch.cuda.is_current_stream_capturing()):
        return bounds
    return bounds[: int((bounds < length).sum()) + 1].contiguous()


@torch.library.custom_op(unused("document_starts_$digest"), mutates_args=())
def document_starts_op(document_ids: Tensor) -> Tensor:
    """cu_seqlens for the rows of a batch side by side: a document for each run of equal ids, empty ones to fill up."""
    begins = torch.ones_like(document_ids, dtype=torch.bool)
    begins[:, 1:] = document_ids[:, 1:] != document_ids[:, :-1]
    ordered = document_ids.sort(-1).values
    returns = begins[:, 1:].sum(1) != (ordered[:, 1:] != ordered[:, :-1]).sum(1)
    if document_ids.is_cuda:
        torch._assert_async(~returns.any(), "document_ids: an id comes back after another one")
    elif returns.any():
        row = int(returns.nonzero()[0])
        runs = document_ids[row][begins[row]].tolist()
        raise InputError(
            "WrongValue",
            "an id comes back after another one",
            f"runs of {', '.join(map(str, runs[:12]))}{', ...' if len(runs) > 12 else ''} in row {row}",
            "the tokens of a document side by side",
            "ids that never decrease, or tokens sorted by id",
        )
    number = begins.flatten().cumsum(0)
    wanted = torch.arange(1, number.shape[0] + 2, device=number.device)
    return torch.searchsorted(number, wanted, out_int32=True)


@document_starts_op.register_fake
def _(document_ids: Tensor) -> Tensor:
    return document_ids.new_empty(document_ids.numel() + 1, dtype=torch.int32)


@torch.library.custom_op(unused("packed_attention_$digest"), mutates_args=())
def packed_attention_op(
    q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    bounds = without_spares(ascending(cu_seqlens, q.shape[2]), q.shape[2])
    if q.numel() and on_gpu_road(q):
        out, lse = launch_forward(q, k, v, scale, 0, bounds)
        return laid_out_like(q, out), lse
    out = room_like(q).zero_()
    wide = torch.float64 if q.dtype == torch.float64 else torch.float32
    lse = torch.full(q.shape[:3], float("-inf"), dtype=wide, device=q.device)
    for first, end in pairwise(bounds.tolist() if q.numel() else ()):
        if first < end:
            rows = [each[:, :, first:end] for each in (q, k, v)]
            out[:, :, first:end], lse[:, :, first:end] = forward_parts(
                *rows, scale=scale, q_start=0, parts=CPU_PARTS, block_m=CPU_BLOCK_M, block_n=CPU_BLOCK_N
            )
    return out, lse


@packed_attention_op.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, cu_seqlens: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    lse_dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    return room_like(q), q.new_empty(q.shape[:3], dtype=lse_dtype)


@torch.library.custom_op(unused("packed_attention_backward_$digest"), mutates_args=())
def packed_attention_backward_op(
    d_out: Tensor,
    d_lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    bounds = without_spares(ascending(cu_seqlens, q.shape[2]), q.shape[2])
    if q.numel() and on_gpu_road(q):
        return launch_backward(d_out, d_lse, q, k, v, out, lse, scale, 0, bounds)
    gradients = [torch.zeros(each.shape, dtype=each.dtype, device=each.device) for each in (q, k, v)]
    for first, end in pairwise(bounds.tolist() if q.numel() else ()):
        if first < end:
            rows = [each[:, :, first:end] for each in (d_out, d_lse, q, k, v, out, lse)]
            found = backward_parts(
                *rows, scale=scale, q_start=0, parts=CPU_PARTS, block_m=CPU_BLOCK_M, block_n=CPU_BLOCK_N
            )
            for gradient, share in zip(gradients, found, strict=True):
                gradient[:, :, first:end] = share
    dq, dk, dv = gradients
    return dq, dk, dv


@packed_attention_backward_op.register_fake
def _(
    d_out: Tensor,
    d_lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens: Tensor,
    out: Tensor,
    lse: Tensor,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    dq, dk, dv = (torch.empty(each.shape, dtype=each.dtype, device=each.device) for each in (q, k, v))
    return dq, dk, dv


def save_packed(ctx, inputs, output) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*tensors, *output)


def packed_gradient(ctx, d_out: Tensor, d_lse: Tensor):
    return *packed_attention_backward_op(d_out, d_lse, *ctx.saved_tensors, ctx.scale), None, None


packed_attention_op.register_autograd(packed_gradient, setup_context=save_packed)


def side_by_side(each: Tensor) -> Tensor:
    """(batch, heads, length, dim) -> (1, heads, batch * length, dim); no copy where heads stand next to dim."""
    return each.transpose(1, 2).flatten(0, 1).transpose(0, 1)[None]


def packed_attention(
    q: Tensor, k: Tensor, v: Tensor, factor: float, documents: Tensor, by_id: bool
) -> tuple[Tensor, Tensor]:
    """Attention inside each document alone."""
    if not by_id:
        return packed_attention_op(q, k, v, documents, factor)
    # A document also ends where its row of the batch does; an id is compared with those of its own row.
    q, k, v = side_by_side(q), side_by_side(k), side_by_side(v)
    out, lse = packed_attention_op(q, k, v, document_starts_op(documents), factor)
    return tuple(each[0].unflatten(1, documents.shape).transpose(0, 1) for each in (out, lse))
'''
