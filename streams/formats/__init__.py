"""Log formats: records in, events out."""

from __future__ import annotations

from streams.formats.format import FORMATS, Detecting, Format, detect, looks_like, named
from streams.formats.native import Native, encode_native
from streams.formats.table import Table

__all__ = [
    "FORMATS",
    "Detecting",
    "Format",
    "Native",
    "Table",
    "detect",
    "encode_native",
    "looks_like",
    "named",
]

FORMATS.update({format_.name: format_ for format_ in (Native(), Table())})
