import torch

from vdm.models.dit import VideoDiT
from vdm.models.regions import compile_regions
from vdm.models.unet3d import Layer, UNet3D
from vdm.models.unet3d_blocks import Heads, UNetOptions


def test_layers_of_which_there_are_many_are_compiled(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    transformer = VideoDiT(3, dim=12, depth=2, num_heads=1)
    compile_regions(transformer)
    assert compiled == list(transformer.blocks)

    compiled.clear()
    unet = UNet3D(3, (8, 12), 1, block=UNetOptions(Heads(dim=4), num_groups=2))
    compile_regions(unet)
    assert len(compiled) == 8
    assert all(isinstance(module, Layer) for module in compiled)

    compiled.clear()
    other = torch.nn.Conv3d(3, 3, 1)
    compile_regions(other)
    assert compiled == [other]
