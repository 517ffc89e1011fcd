import numpy as np
import pytest

from vdm.world.exact import exp, sincos


def test_sine_and_cosine_are_those_of_the_library_to_the_last_bit_or_two():
    angle = np.concatenate([np.linspace(-1000, 1000, 4001), np.arange(-8, 9) * np.pi / 4])
    sine, cosine = sincos(angle)
    np.testing.assert_allclose(sine, np.sin(angle), rtol=0, atol=2.5e-16)
    np.testing.assert_allclose(cosine, np.cos(angle), rtol=0, atol=2.5e-16)


def test_exponential_is_that_of_the_library_to_the_last_bit_or_two():
    x = np.linspace(-90, 90, 3001)
    np.testing.assert_allclose(exp(x), np.exp(x), rtol=1e-15)


@pytest.mark.parametrize("angle", [0.25, 7.5, -3.0])
def test_one_angle_gives_the_bits_that_it_gives_among_others(angle):
    alone = sincos(angle)
    among = sincos(np.full(37, angle))
    assert all(
        float(one) == value for one, many in zip(alone, among, strict=True) for value in many
    )


def test_values_are_these_bits():
    sine, cosine = sincos(np.array([1.0, 2.5, -40.0]))
    assert [x.hex() for x in sine.tolist()] == [
        "0x1.aed548f090ceep-1",
        "0x1.326af0dcfcab0p-1",
        "-0x1.7d7f78e027f00p-1",
    ]
    assert [x.hex() for x in cosine.tolist()] == [
        "0x1.14a280fb5068cp-1",
        "-0x1.9a2f7ef858b7dp-1",
        "-0x1.5578e7d68218ep-1",
    ]
    assert [x.hex() for x in exp(np.array([0.5, -1.25])).tolist()] == [
        "0x1.a61298e1e069cp+0",
        "0x1.25618372a584fp-2",
    ]
