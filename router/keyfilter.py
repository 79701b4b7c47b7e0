"""A Bloom filter over dedupe keys: most messages are new, and most of those need no look at the disk.  Sans-I/O.

It is blocked: all bits of a key lie in one word of 64, so that a key costs one access to memory.
"""

from __future__ import annotations

from array import array
from struct import Struct
from typing import Final

BITS_PER_KEY: Final = 16  # with three of them set: one new message in 100 is looked up in vain at full capacity
WORD_BITS: Final = 64

_BIT: Final = [1 << n for n in range(WORD_BITS)]
_read_number = Struct(">Q").unpack_from


def key_number(key: bytes) -> int:
    """The first 64 bits of a dedupe key: what the filter goes by."""
    number: int = _read_number(key)[0]
    return number


class KeyFilter:
    """Says of a key "never seen" or "perhaps seen".

    Past its capacity it errs more often on the side of "perhaps", which costs a look-up and never a wrong answer.

    Args:
        capacity: Keys it is made for; rounded up to a power of two. Two bytes of memory each.
    """

    __slots__ = ("_mask", "_words", "keys")

    def __init__(self, capacity: int) -> None:
        words = 1 << max(4, (capacity * BITS_PER_KEY // WORD_BITS - 1).bit_length())
        self._words = array("Q", bytes(words * 8))
        self._mask = words - 1
        self.keys = 0

    def add(self, number: int) -> None:
        """Remember a key."""
        self.add_new(number)

    def add_new(self, number: int) -> bool:
        """Remember a key; False when it was perhaps there before (it is not counted again)."""
        words, at = self._words, number >> 18 & self._mask
        bits = _BIT[number & 63] | _BIT[number >> 6 & 63] | _BIT[number >> 12 & 63]
        word = words[at]
        if word & bits == bits:
            return False
        words[at] = word | bits
        self.keys += 1
        return True
