"""Sine, cosine and exponential that have the same bits on every machine.

Mathematical libraries differ in the last bit from one processor to the next; addition,
multiplication and rounding do not. A scene's numbers may only depend on these.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64] | np.float64
"""NumPy turns an array without axes into a scalar on the way."""

# pi / 2 and ln 2 in two parts: the first has so few bits that small multiples of it are exact.
_QUARTER = (1.57079632673412561417e00, 6.07710050650619224932e-11)
_LN2 = (6.93147180369123816490e-01, 1.90821492927058770002e-10)
_PER_LN2 = 1.4426950408889634
_SIN = tuple((-1.0) ** k / math.factorial(2 * k + 1) for k in range(8))
_COS = tuple((-1.0) ** k / math.factorial(2 * k) for k in range(9))
_EXP = tuple(1.0 / math.factorial(k) for k in range(14))


def _polynomial(coefficients: tuple[float, ...], x: Values) -> Values:
    total = np.full_like(x, coefficients[-1])
    for coefficient in coefficients[-2::-1]:
        total = total * x + coefficient
    return total


def sincos(angle: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sine and cosine of angles up to some thousand radians, to 1e-15.

    Args:
        angle: Radians.

    Source:
        Taylor polynomials on [-pi/4, pi/4] after Cody and Waite 1980, "Software Manual for the
        Elementary Functions", chapter 8 (argument reduction).
    """
    angle = np.asarray(angle, dtype=np.float64)
    turns = np.rint(angle * (2 / math.pi))
    rest = (angle - turns * _QUARTER[0]) - turns * _QUARTER[1]
    square = rest * rest
    sine, cosine = rest * _polynomial(_SIN, square), _polynomial(_COS, square)
    quadrant = turns.astype(np.int64) & 3
    is_odd = (quadrant & 1) == 1
    first, second = np.where(is_odd, cosine, sine), np.where(is_odd, sine, cosine)
    return (
        np.where(quadrant >= 2, -first, first),
        np.where((quadrant == 1) | (quadrant == 2), -second, second),
    )


def exp(x: ArrayLike) -> NDArray[np.float64]:
    """Exponential of numbers between -100 and 100, to 1e-15 of its value.

    Args:
        x: Exponent.

    Source:
        Taylor polynomial on [-ln 2 / 2, ln 2 / 2] after Cody and Waite 1980, "Software Manual for
        the Elementary Functions", chapter 6 (argument reduction).
    """
    x = np.asarray(x, dtype=np.float64)
    twos = np.rint(x * _PER_LN2)
    rest = (x - twos * _LN2[0]) - twos * _LN2[1]
    return np.ldexp(_polynomial(_EXP, rest), twos.astype(np.int64))
