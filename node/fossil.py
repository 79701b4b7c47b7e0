"""The delta encoding of the Fossil version control system: what makes one text of another.  Sans-I/O.

Format: https://fossil-scm.org/home/doc/tip/www/delta_format.wiki. A delta is text if both its ends are, as it is cut
between characters only: so it fits into a JSON string.

docs/decisions/0007-deltas-in-a-chain.md says what it costs, and why no package does this.
"""

from __future__ import annotations

import struct
from typing import Final

BLOCK_BYTES: Final = 16
"""Of the base, as it is looked for in the target: shorter common runs save less than the command that copies them."""

MOST_PROBES: Final = 2048
"""Places of the target at which a block is looked for: 0.1 µs each. What is left then is told as it is, so that texts
that have nothing in common, or only scraps, cost little more than those that have much."""

COPY_PROBES: Final = 32
"""A block that is found takes as long as so many that are not."""

_DIGITS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz~"
_STEP_BYTES: Final = 64  # first guess at the length of a common run


def create(base: bytes, target: bytes) -> bytes | None:
    """What makes `target` of `base`, both UTF-8; None: nothing that is shorter than the target itself."""
    size, length = len(base), len(target)
    most = min(size, length)
    head = _common_start(base, 0, target, 0, most)
    head = _back_to_character(target, head)
    tail = _common_end(base, size, target, length, most - head)
    tail = length - _on_to_character(target, length - tail)
    out = [_number(length), b"\n"]
    if head:
        out += _copy(0, head)
    _compare(base, head, size - tail, target, head, length - tail, out)
    if tail:
        out += _copy(size - tail, tail)
    if sum(map(len, out)) >= length:
        return None
    out += (_number(_checksum(target)), b";")
    delta = b"".join(out)
    return delta if len(delta) < length else None


def _compare(  # noqa: PLR0913, PLR0917 - two texts, each with a range
    base: bytes, first: int, last: int, target: bytes, at: int, end: int, out: list[bytes]
) -> None:
    """Commands for a range of the target, with copies of blocks that begin in a range of the base."""
    blocks = {base[i : i + BLOCK_BYTES]: i for i in range(first, last - BLOCK_BYTES + 1, BLOCK_BYTES)}
    find, told = blocks.get, at  # up to `told`, commands are written
    probes = MOST_PROBES if blocks else 0
    while at <= end - BLOCK_BYTES and probes > 0:
        found = find(target[at : at + BLOCK_BYTES])
        if found is None:
            at += 1
            probes -= 1
            continue
        probes -= COPY_PROBES
        before = _common_end(base, found, target, at, min(found, at - told))
        start = _on_to_character(target, at - before)
        run = _common_start(base, found, target, at, min(len(base) - found, end - at))
        stop = _back_to_character(target, at + run)
        if start > told:
            out += _insert(target[told:start])
        out += _copy(found + start - at, stop - start)
        at = told = stop
    if end > told:
        out += _insert(target[told:end])


def _common_start(one: bytes, at: int, other: bytes, there: int, most: int) -> int:
    """How many bytes from two places on are the same, at most so many."""
    found, step = 0, _STEP_BYTES
    while found < most:
        size = min(step, most - found)
        if one[at + found : at + found + size] == other[there + found : there + found + size]:
            found += size
            step *= 4
        elif size == 1:
            break
        else:
            most = found + size - 1  # the difference is within these
            step = size // 2
    return found


def _common_end(one: bytes, at: int, other: bytes, there: int, most: int) -> int:
    """How many bytes before two places are the same, at most so many."""
    found, step = 0, _STEP_BYTES
    while found < most:
        size = min(step, most - found)
        if one[at - found - size : at - found] == other[there - found - size : there - found]:
            found += size
            step *= 4
        elif size == 1:
            break
        else:
            most = found + size - 1
            step = size // 2
    return found


def _back_to_character(text: bytes, at: int) -> int:
    """The place, or the last one before it where a character of UTF-8 begins or the text ends."""
    while at < len(text) and text[at] & 0xC0 == 0x80:
        at -= 1
    return at


def _on_to_character(text: bytes, at: int) -> int:
    """The place, or the first one after it where a character of UTF-8 begins or the text ends."""
    while at < len(text) and text[at] & 0xC0 == 0x80:
        at += 1
    return at


def _copy(at: int, size: int) -> tuple[bytes, ...]:
    """Copy from the base."""
    return _number(size), b"@", _number(at), b","


def _insert(text: bytes) -> tuple[bytes, ...]:
    """Take what the command itself brings."""
    return _number(len(text)), b":", text


def _number(value: int) -> bytes:
    """In base 64, with digits of Fossil's own."""
    digits = bytearray((_DIGITS[value & 63],))
    while value := value >> 6:
        digits.append(_DIGITS[value & 63])
    digits.reverse()
    return bytes(digits)


def _checksum(text: bytes) -> int:
    """The sum of big-endian words, zeros added to the last, in 32 bits."""
    count = -(-len(text) // 4)
    words: tuple[int, ...] = struct.unpack(f">{count}I", text.ljust(count * 4, b"\0"))
    return sum(words) & 0xFFFF_FFFF
