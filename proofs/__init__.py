"""From a pattern to a verdict: what its layers let every token reach."""
