"""Checksums of many stretches of one file, each for the price of a short one.

Owns: the CRC-32C from one place of the file up to each border ``STEP_BYTES`` apart, made once and
as far as it is asked for. From two of them follows the checksum of what lies between, so a stretch
costs its two ends, whatever its length.

Why: records may hold whatever looks like headers of batches, each with a length that reaches to the
end of the file. To check each of them in full takes time with the square of the file's size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from crc32c import crc32c

from minilog.errors import CorruptRange

STEP_BYTES: Final = 16 * 1024
_POLYNOMIAL: Final = 0x82F63B78
_ONE: Final = 1 << 31
"""Polynomials have their lowest power in the highest bit, as CRC-32C has."""


class Checksums:
    def __init__(self, pread: Callable[[int, int], bytes], start: int) -> None:
        """Of stretches that begin at ``start`` or after. ``pread`` reads so many bytes from a
        position on."""
        self._pread = pread
        self._start = start
        self._sums = [0]
        """Of what lies between ``start`` and each border so far."""
        self._shifts = [_ONE, _of_zeros(STEP_BYTES)]
        """What a checksum is multiplied with when so many steps of bytes follow."""

    def of(self, start: int, end: int) -> int:
        """Checksum of the bytes from ``start`` to ``end``, both in the file. Raises
        CorruptRange."""
        first, last = -(-(start - self._start) // STEP_BYTES), (end - self._start) // STEP_BYTES
        if first >= last:
            return crc32c(self._pread(start, end - start))
        try:
            sums = self._sum(first), self._sum(last)
        except CorruptRange:  # perhaps before the stretch
            return crc32c(self._pread(start, end - start))
        head = crc32c(self._pread(start, self._border(first) - start), 0)
        middle = sums[1] ^ _multiplied(self._shift(last - first), head ^ sums[0])
        return crc32c(self._pread(self._border(last), end - self._border(last)), middle)

    def _border(self, step: int) -> int:
        return self._start + step * STEP_BYTES

    def _sum(self, step: int) -> int:
        while len(self._sums) <= step:
            data = self._pread(self._border(len(self._sums) - 1), STEP_BYTES)
            self._sums.append(crc32c(data, self._sums[-1]))
        return self._sums[step]

    def _shift(self, steps: int) -> int:
        while len(self._shifts) <= steps:
            self._shifts.append(_multiplied(self._shifts[-1], self._shifts[1]))
        return self._shifts[steps]


def _of_zeros(count: int) -> int:
    """x to the power of 8 ``count``, which is a power of 2: what so many bytes do to a checksum
    before them."""
    power = _ONE >> 8
    while count > 1:
        power, count = _multiplied(power, power), count // 2
    return power


def _multiplied(a: int, b: int) -> int:
    """Product of two polynomials modulo that of CRC-32C."""
    product = 0
    while a:
        if a & _ONE:
            product ^= b
        a = a << 1 & 0xFFFFFFFF
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product
