"""Networks compile whole, in a process where nothing checks their annotations."""

import subprocess
import sys

import pytest

CODE = """
import torch
from vdm.layers.factorization import Spatial, Temporal
from vdm.models.dit import VideoDiT
from vdm.models.regions import keep_einops_whole
from vdm.models.unet3d import UNet3D
from vdm.models.unet3d_blocks import Heads, Signals, UNetOptions
from vdm.models.unet3d_temporal import TemporalConvStack, TemporalTransformer
from vdm.types import Conditioning


def check(module, *arguments):
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    assert torch.allclose(compiled(*arguments), module(*arguments), atol=1e-5)


keep_einops_whole()
torch.manual_seed(0)
dit = VideoDiT(3, 36, 2, 3, text_dim=10, factorization=[Spatial(), Temporal(True, 2)])
cond = Conditioning(text=torch.randn(2, 7, 10), text_mask=torch.ones(2, 7))
check(dit, torch.randn(2, 3, 5, 4, 6), 1000 * torch.rand(2), cond)

block = UNetOptions(heads=Heads(dim=4), num_groups=2)
temporal = [TemporalConvStack(is_causal=True), TemporalTransformer(positions="rotary")]
layer = UNet3D(3, (8,), 1, (0, 1), temporal, text_dim=10, block=block).eval().middle[0]
signals = Signals(torch.randn(2, 1, 32), torch.randn(2, 7, 10))
check(layer, torch.randn(2, 8, 5, 4, 6), signals)
"""


@pytest.mark.slow
def test_networks_compile_without_a_graph_break():
    """The transformer as a whole, the U-Net layer by layer."""
    subprocess.run([sys.executable, "-W", "error::UserWarning", "-c", CODE], check=True)
