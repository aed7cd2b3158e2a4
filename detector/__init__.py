"""Vectors to evidence: pure, deterministic, without I/O, clocks or threads."""

from __future__ import annotations

import os

# Before FAISS loads OpenMP: its idle threads spin by default, and on cores that something else needs too a
# search in two threads then takes four times as long as in one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
