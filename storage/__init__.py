"""What must survive: baselines, subjects, queries, findings, offsets and dead letters in a database."""

from __future__ import annotations
