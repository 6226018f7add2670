"""One declaration, checked and compiled: run with `make demo`; no GPU is needed."""

from __future__ import annotations

import time

import torch
from torch import Tensor

import sparsedsl as sd

LENGTH, HEADS, HEAD_DIM = 8192, 4, 64

# 1. Declare: PowerAttention on blocks of 256 tokens: five near blocks, powers of two, the first block.
pattern = (sd.sliding(5) | sd.power() | sd.sink(1)).blocks(256) & sd.causal()


def timed(attend: object, tensors: list[Tensor]) -> tuple[float, list[Tensor]]:
    """Seconds of forward and backward, then the output and the gradients of q, k, v."""
    assert callable(attend)
    leaves = [each.detach().requires_grad_() for each in tensors]
    start = time.perf_counter()
    out = attend(*leaves)
    gradients = torch.autograd.grad(out, leaves, torch.ones_like(out))
    return time.perf_counter() - start, [out.detach(), *gradients]


def main() -> None:
    """Check, compile, run both ways on the CPU, compare with dense attention."""
    # 2. Check: does a stack of 28 layers let every token see every earlier one, at 131072 tokens?
    verdict = sd.check(pattern, seq_len=131072, layers=28)
    print(verdict, end="\n\n")
    assert verdict.complete

    # 3. Compile, and run forward and backward.
    attn = sd.compile(pattern)
    torch.manual_seed(0)
    tensors = [torch.randn(1, HEADS, LENGTH, HEAD_DIM) for _ in range(3)]
    timed(attn, tensors)  # the first call warms up
    sparse_seconds, sparse = timed(attn, tensors)

    # 4. Compare: the same pairs through dense attention with a mask.
    mask = torch.from_numpy(pattern.dense(LENGTH))

    def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    dense_seconds, exact = timed(dense, tensors)
    for name, ours, theirs in zip(("output", "dq", "dk", "dv"), sparse, exact, strict=True):
        error = ((ours - theirs).norm() / theirs.norm()).item()
        assert error < 1e-4, f"{name}: relative error {error}"
        print(f"{name:<7} agrees with dense attention: relative error {error:.0e}")

    live, square = int(mask.sum()), LENGTH * LENGTH
    print(f"\nAt {LENGTH} tokens, {HEADS} heads, head dim {HEAD_DIM}, on this CPU, forward and backward:")
    print(f"  pairs   {live:,} of the {square:,} that a dense mask holds ({live / square:.0%})")
    print(
        f"  time    {sparse_seconds:.2f} s against {dense_seconds:.2f} s: {dense_seconds / sparse_seconds:.1f}x faster"
    )
    share = verdict.live_pairs / (verdict.seq_len * (verdict.seq_len + 1) / 2)
    print(f"At {verdict.seq_len} tokens it reads {share:.1%} of the causal pairs: {1 / share:.1f}x fewer.")


if __name__ == "__main__":
    main()
