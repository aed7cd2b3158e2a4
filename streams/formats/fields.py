"""The fields that every format has, checked: one value in, one typed value out, or the reason why not."""

from __future__ import annotations

import binascii
import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

from storage.text import escaped
from streams.errors import ParseError
from streams.events import Response

__all__ = ["attributes", "base64_image", "embedding", "response", "string", "time_ms"]

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MILLISECOND = timedelta(milliseconds=1)
LONGEST_NAME = 512
LONGEST_ATTRIBUTE = 800
"""Bytes: a group is named by an attribute, and that name is part of index rows."""

# An integer below this is a time before March 1973 in milliseconds, or a recent one in seconds.
SMALLEST_MS = 100_000_000_000
LARGEST_MS = (datetime.max.replace(tzinfo=UTC) - EPOCH) // MILLISECOND

_KINDS = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
    bytes: "bytes",
}


def kind(value: object) -> str:
    """Name a value's type in the words of the log, not of Python."""
    return _KINDS.get(type(value), type(value).__name__)


def string(value: object, field: str, longest: int = LONGEST_NAME) -> str:
    """Check a string that has to be there.

    Args:
        value: the field's value, or None where it is absent.
        field: its name, for the reason.
        longest: most characters allowed.

    Raises:
        ParseError: absent, no string, empty, too long, or not storable (a NUL or half a surrogate pair, which
            JSON can spell and no database takes).
    """
    if value is None:
        raise ParseError(f"{field} is missing")
    if not isinstance(value, str):
        raise ParseError(f"{field} must be a string, not {kind(value)}")
    if not value or value.isspace():
        raise ParseError(f"{field} is empty")
    if len(value) > longest:
        raise ParseError(f"{field} has {len(value)} characters; at most {longest} are allowed")
    if "\0" in value:
        raise ParseError(f"{field} contains a NUL character")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise ParseError(f"{field} contains half a surrogate pair at character {error.start}") from None
    return value


def time_ms(value: object) -> int:
    """Check a time.

    Args:
        value: ISO 8601 with ``Z`` or an offset, integer milliseconds since the epoch, or an aware datetime.

    Returns:
        Milliseconds since the epoch, rounded down.

    Raises:
        ParseError: absent, unreadable, without a zone, before 1970, or an integer that must be seconds.
    """
    if value is None:
        raise ParseError("time is missing")
    if type(value) is int:
        if not SMALLEST_MS <= value <= LARGEST_MS:
            shown = value if abs(value) < 10**20 else "a number of more than 20 digits"
            raise ParseError(f"time {shown} is not in milliseconds since the epoch (1973 to 9999)")
        return value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            raise ParseError(f"time {value[:64]!r} is not ISO 8601") from None
    elif isinstance(value, datetime):
        moment = value
    else:
        raise ParseError(f"time must be ISO 8601 or an integer of milliseconds, not {kind(value)}")
    if moment.tzinfo is None:
        raise ParseError(f"time {str(value)[:64]!r} has no zone: add Z or an offset such as +01:00")
    milliseconds = (moment - EPOCH) // MILLISECOND
    if milliseconds < 0:
        raise ParseError(f"time {str(value)[:64]!r} is before 1970: is the logger's clock set?")
    return milliseconds


def base64_image(value: object) -> bytes:
    """Decode base64 strictly: padded, standard alphabet, no line breaks.

    Raises:
        ParseError: no string, empty, or not base64.
    """
    if not isinstance(value, str):
        raise ParseError(f"image.b64 must be a string, not {kind(value)}")
    try:
        image = binascii.a2b_base64(value, strict_mode=True)
    except ValueError as error:  # binascii.Error, or a character outside ASCII
        hint = "; leave out the data: prefix" if value.startswith("data:") else ""
        raise ParseError(f"image.b64 is not base64: {error}{hint}") from None
    if not image:
        raise ParseError("image.b64 is empty")
    return image


def embedding(value: object) -> npt.NDArray[np.float32]:
    """Check an embedding. Its length is checked later, against the encoder.

    Args:
        value: a list of numbers or a numeric array, shape (d,).

    Returns:
        float32, shape (d,), finite, d ≥ 1; as given, not normalised.

    Raises:
        ParseError: no list, empty, or a value that is no finite float32; says which.
    """
    if isinstance(value, np.ndarray):
        if value.ndim != 1 or value.dtype.kind not in "fiu":
            raise ParseError(f"embedding must be a list of numbers, not {value.dtype} of shape {value.shape}")
    elif not isinstance(value, list):
        raise ParseError(f"embedding must be a list of numbers, not {kind(value)}")
    elif not set(map(type, value)) <= {float, int}:
        index = next(i for i, x in enumerate(value) if type(x) not in (float, int))
        raise ParseError(f"embedding[{index}] must be a number, not {kind(value[index])}")
    if not len(value):
        raise ParseError("embedding is empty")
    try:
        with np.errstate(over="ignore"):
            vector = np.asarray(value, dtype=np.float32)
    except OverflowError:  # an integer beyond float64
        raise ParseError("embedding holds a number that float32 cannot") from None
    if not np.isfinite(vector).all():
        index = int(np.argmin(np.isfinite(vector)))
        raise ParseError(f"embedding[{index}] is not a finite float32: {value[index]}")
    return vector


def response(label: object, scores: object) -> Response:
    """Read an answer; both parts may be absent (None).

    A caller may have a say in the answer, and must not escape being judged by it: what is unusable is left
    out, which is a label that is no name, and scores that are not finite numbers by label.
    """
    if isinstance(scores, str):  # a table without nested columns holds them as JSON
        try:
            scores = json.loads(scores)
        except (ValueError, RecursionError):
            scores = None
    numbers = scores if isinstance(scores, Mapping) else {}
    return Response(
        label if _is_name(label) else None,
        {name: float(score) for name, score in numbers.items() if _is_name(name) and _is_finite(score)},
    )


def attributes(value: object) -> dict[str, str]:
    """Turn attributes to strings that can be stored; nulls are left out, nested values become JSON.

    A caller writes some of them, its user agent say, and must not escape being judged by them: what no
    database holds is escaped, and of a long text the beginning and a hash are kept.

    Raises:
        ParseError: no object.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ParseError(f"attributes must be an object, not {kind(value)}")
    return {
        _storable(name): _storable(item) for name, item in value.items() if item is not None and item != ""
    }


def _storable(item: object) -> str:
    if not isinstance(item, str):
        item = json.dumps(item, ensure_ascii=False, sort_keys=True, default=str)
    text = escaped(item)
    data = text.encode()
    if len(data) <= LONGEST_ATTRIBUTE:
        return text
    return f"{text[:200]}…{blake2b(data, digest_size=8).hexdigest()}"


def _is_name(value: object) -> TypeGuard[str]:
    try:
        string(value, "")
    except ParseError:
        return False
    return True


def _is_finite(value: object) -> TypeGuard[float]:
    try:
        return type(value) in (float, int) and math.isfinite(value)  # type: ignore[arg-type]
    except OverflowError:  # an integer beyond float64
        return False
