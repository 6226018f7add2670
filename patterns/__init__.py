"""The library of published patterns: one family a file, with its paper, its set, its degree, its depth."""

from sparsedsl.patterns.catalogue import CATALOGUE, summary
from sparsedsl.patterns.drawing import draw

__all__ = ["CATALOGUE", "draw", "summary"]
