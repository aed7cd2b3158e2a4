"""Vectors to evidence: pure, deterministic, without I/O, clocks or threads."""
