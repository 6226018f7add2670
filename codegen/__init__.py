"""From a pattern to kernels: plan, tile program, Triton source, and the runtime that calls it."""
