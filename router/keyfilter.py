"""A Bloom filter over dedupe keys: most messages are new, and most of those need no look at the disk.  Sans-I/O."""

from __future__ import annotations

from typing import Final

PROBES: Final = 3
BITS_PER_KEY: Final = 16  # with three probes: one new message in 200 is looked up in vain at full capacity


def key_number(key: bytes) -> int:
    """The first 63 bits of a dedupe key: what the filter and the table on disk are keyed by."""
    return int.from_bytes(key[:8], "big") >> 1


class KeyFilter:
    """Says of a key "never seen" or "perhaps seen".

    Past its capacity it errs more often on the side of "perhaps", which costs a look-up and never a wrong answer.

    Args:
        capacity: Keys it is made for; rounded up to a power of two. Two bytes of memory each.
    """

    __slots__ = ("_bits", "_mask", "keys")

    def __init__(self, capacity: int) -> None:
        size = 1 << max(10, (capacity * BITS_PER_KEY - 1).bit_length())
        self._bits = bytearray(size >> 3)
        self._mask = size - 1
        self.keys = 0

    def add(self, number: int) -> None:
        """Remember a key."""
        bits, mask, step = self._bits, self._mask, number >> 31 | 1
        for _ in range(PROBES):
            number &= mask
            bits[number >> 3] |= 1 << (number & 7)
            number += step
        self.keys += 1

    def add_new(self, number: int) -> bool:
        """Remember a key; False when it was perhaps there before (it is not counted again)."""
        bits, mask, step = self._bits, self._mask, number >> 31 | 1
        a = number & mask
        b = (a + step) & mask
        c = (b + step) & mask
        bit_a, bit_b, bit_c = 1 << (a & 7), 1 << (b & 7), 1 << (c & 7)
        a >>= 3
        b >>= 3
        c >>= 3
        if bits[a] & bit_a and bits[b] & bit_b and bits[c] & bit_c:
            return False
        bits[a] |= bit_a
        bits[b] |= bit_b
        bits[c] |= bit_c
        self.keys += 1
        return True
