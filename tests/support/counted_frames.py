"""Reads the numbers of frames that the tests' video files carry."""

from vdm.utils.video_io import to_uint8


def numbers(sample):
    """Which frames of the file a sample holds."""
    corner = to_uint8(sample["video"])[:, :2, :2].float().mean((1, 2, 3))
    return ((corner - 40) / 5).round().int().tolist()
