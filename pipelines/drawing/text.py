"""Untrusted text for a graph: on one line, no longer than its space, and harmless."""

from __future__ import annotations

import re
import unicodedata

_ELLIPSIS = "…"
_DAY, _HOUR, _MINUTE = 86_400, 3_600, 60

# Inputs in conditions, as the compiler writes them.
_INPUT = re.compile(r"inputs\.parameter_values\['((?:[^'\\]|\\.)*)'\]")
_CHANNEL = "pipelinechannel--"
_FIELD = re.compile(r"-loop-item-subvar-(.+?)(?=-loop-item|\Z)")
_ITEM = re.compile(r"-loop-item(?=\Z|\.|\[)")
_OWN_ITEM = re.compile(r"loop-item-param-\d+(-subvar-|(?=\Z|-))")

# The width of letters in a wide proportional typeface, in parts of its size.
_WIDTHS = {
    letter: part
    for part, letters in (
        (0.30, "ijlI|'.,:; "), (0.40, "ftr()[]{}/\\-!*"), (0.64, "0123456789$#?~"),
        (0.70, "ABCDEFGHJKLNOPQRSTUVXYZ_"), (0.85, "=<>+&^"), (0.95, "mwMW@%"),
    )
    for letter in letters
}  # fmt: skip
_ORDINARY, _FULL = 0.61, 1.05


def plain(text: str) -> str:
    """Put text on one line, without control characters or direction marks."""
    kept = []
    for letter in " ".join(text.split()):
        category = unicodedata.category(letter)
        # Control characters, marks of direction, halves of pairs, and what is no character.
        odd = category in {"Cc", "Cf", "Cs"} or (ord(letter) & 0xFFFE) == 0xFFFE
        kept.append("\N{REPLACEMENT CHARACTER}" if odd else letter)
    return "".join(kept)


def width(text: str, size: float) -> float:
    """Estimate the width of text in a proportional typeface, in the unit of ``size``."""
    return size * sum(map(_width, text))


def _width(letter: str) -> float:
    if unicodedata.combining(letter):
        return 0.0
    if unicodedata.east_asian_width(letter) in {"W", "F"}:
        return _FULL
    return _WIDTHS.get(letter, _ORDINARY)


def shorten(text: str, size: float, room: float) -> str:
    """Shorten text to fit, with an ellipsis in its middle.

    The end of a name often tells more than its middle: ``train-2``, ``train-3``.
    """
    if width(text, size) <= room:
        return text
    ending = _fitting(text[::-1], size, room / 3)[::-1]
    beginning = _fitting(text, size, room - width(_ELLIPSIS + ending, size))
    return f"{beginning}{_ELLIPSIS}{ending}"


def _fitting(text: str, size: float, room: float) -> str:
    for number, letter in enumerate(text):
        room -= size * _width(letter)
        if room < 0:
            return text[:number]
    return text


def duration(seconds: float) -> str:
    """Format a time span in its two largest units, such as ``3 min 5 s`` or ``2 d 4 h``."""
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    for unit, name, smaller, below in (
        (_DAY, "d", _HOUR, "h"), (_HOUR, "h", _MINUTE, "min"), (_MINUTE, "min", 1, "s")
    ):  # fmt: skip
        if whole >= unit:
            rest = whole % unit // smaller
            return f"{whole // unit} {name}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def channel(name: str) -> str:
    """Format the name of a nested input, without the compiler's additions.

    ``rows[]`` is an item of ``rows`` and ``rows[].kind`` a field of it; a loop over items that
    stand in the pipeline itself has an ``item``.
    """
    named = _OWN_ITEM.sub(
        lambda found: "item." if found[1] else "item", name.removeprefix(_CHANNEL)
    )
    return _ITEM.sub("[]", _FIELD.sub(r"[].\1", named))


def condition(expression: str) -> str:
    """Format a condition for people."""
    return _INPUT.sub(lambda found: channel(found[1]), plain(expression))
