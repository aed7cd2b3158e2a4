"""Text that every database can hold."""

from __future__ import annotations

__all__ = ["escaped"]


def escaped(text: str) -> str:
    r"""Write NUL and lone surrogates, which no database holds as text, as ``\x00``, ``\udc80``, ….

    A text that comes back unchanged can be stored. Such a name in a log makes the record a dead letter:
    one bad name must not make its whole batch fail.

    Examples:
        >>> escaped("key-7f3a")
        'key-7f3a'
        >>> escaped("key\x00")
        'key\\x00'
    """
    return text.replace("\x00", "\\x00").encode(errors="backslashreplace").decode()
