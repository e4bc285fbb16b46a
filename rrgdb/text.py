"""Text of unknown origin, for a terminal: names in a recording may have come from anybody."""

from __future__ import annotations


def shown(text: str) -> str:
    r"""``text`` as one line that does nothing but show: controls (escape sequences, line ends), what changes the
    direction of text and whatever else is not printable is escaped as in Python's literals, a byte that was no UTF-8
    (``surrogateescape``) as ``\xNN``."""
    return text if text.isprintable() else "".join(c if c.isprintable() else _escaped(c) for c in text)


def _escaped(c: str) -> str:
    if "\udc80" <= c <= "\udcff":
        return f"\\x{ord(c) - 0xDC00:02x}"
    return c.encode("unicode_escape").decode("ascii")


def attribute(text: str) -> str:
    """``text`` as the value of an attribute in XML, with its quotes."""
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(character, entity)
    for white in "\n\r\t":
        text = text.replace(white, f"&#{ord(white)};")
    return f'"{text}"'
