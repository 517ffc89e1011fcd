"""Modules are built faster on the meta device where nothing is drawn for weights without data."""

import functools

from torch.nn import init

DRAWS = ("uniform_", "normal_", "trunc_normal_", "kaiming_uniform_", "kaiming_normal_")
DRAWS += ("xavier_uniform_", "xavier_normal_", "constant_", "ones_", "zeros_")


def install():
    """From now on what initialises weights leaves alone those that have no data."""
    for name in DRAWS:
        setattr(init, name, _unless_empty(getattr(init, name)))


def _unless_empty(draw):
    @functools.wraps(draw)
    def wrapper(tensor, *args, **kwargs):
        return tensor if tensor.is_meta else draw(tensor, *args, **kwargs)

    return wrapper
