"""Statements for every length: whether a pattern is ever incomplete, and its depth as a function of N."""
