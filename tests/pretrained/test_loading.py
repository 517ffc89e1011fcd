"""Weights come into a module as they are, lying in memory as they are read fastest."""

import torch
from torch import nn

from vdm.layers.conv import CausalConv3d
from vdm.layers.frames import FrameConv
from vdm.pretrained.loading import fill


def test_kernels_lie_channels_last_and_by_frames_and_keep_every_bit():
    with torch.device("meta"):
        module = nn.Sequential(FrameConv(3, 4), CausalConv3d(4, 5, (2, 3, 1)), nn.Linear(5, 6))
    state = {key: torch.randn(value.shape) for key, value in module.state_dict().items()}
    fill(module, state, "test")
    for key, value in module.state_dict().items():
        assert torch.equal(value, state[key]), key
        assert value.data_ptr() != state[key].data_ptr(), key
    frame, causal, linear = (layer.weight for layer in module)
    for kernel in (frame, *causal.unbind(2)):
        assert kernel.is_contiguous(memory_format=torch.channels_last)
    assert linear.is_contiguous()
