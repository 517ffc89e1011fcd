from pathlib import Path

import pytest
import torch
import yaml
from jsonargparse import ArgumentParser
from torch.utils.flop_counter import FlopCounterMode

from vdm.models.dit import VideoDiT
from vdm.models.unet3d import UNet3D
from vdm.training.muon import MuonAdamW
from vdm.training.optimizers import MuonPlan, split_parameters
from vdm.types import Conditioning

CONFIGS = Path(__file__).parents[2] / "configs"
CHANNELS, TEXT = 8, 96  # linked from the autoencoder and the text encoder


def recipe(name):
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())


def network(name):
    described = recipe(name)["model"]["init_args"]["network"]
    kind = {"UNet3D": UNet3D, "VideoDiT": VideoDiT}[described["class_path"].rpartition(".")[2]]
    described["class_path"] = f"{kind.__module__}.{kind.__name__}"
    described["init_args"] |= {"in_channels": CHANNELS, "text_dim": TEXT}
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--network", type=torch.nn.Module)
    return parser.instantiate(parser.parse_object({"network": described})).network


def cost(net):
    """Operations of one training sample."""
    x = torch.empty(1, CHANNELS, 5, 8, 8)
    cond = Conditioning(
        text=torch.empty(1, 12, TEXT), text_mask=torch.ones(1, 12), pooled_text=torch.empty(1, TEXT)
    )
    with FlopCounterMode(display=False) as counter:
        net(x, torch.rand(1), cond).sum().backward()
    return counter.get_total_flops()


@pytest.fixture(scope="module")
def unet():
    return network("unet_s_shapes")


def test_it_costs_what_the_transformer_costs(unet):
    dit = network("dit_s_shapes")
    assert isinstance(unet, UNet3D)
    assert 4e6 <= sum(p.numel() for p in unet.parameters()) <= 6e6
    assert abs(cost(unet) / cost(dit) - 1) <= 0.15


def test_all_but_the_network_is_the_transformers_recipe():
    unet, dit = recipe("unet_s_shapes"), recipe("dit_s_shapes")
    for config in (unet, dit):
        del config["model"]["init_args"]["network"], config["model"]["init_args"]["name"]
    assert unet == dit


def test_kernels_are_orthogonalised_and_what_is_next_to_the_data_is_not(unet):
    names = {id(p): name for name, p in unet.named_parameters()}
    hidden, outer, flat = (
        {names[id(p)] for p in part} for part in split_parameters(unet, MuonPlan().outer)
    )
    assert {"embed.weight", "final.conv.weight", "time_embed.fc1.weight"} <= outer
    assert {
        "middle.0.resblock.conv1.weight",
        "middle.0.after_resblock.0.convs.0.weight",
        "middle.0.after_transformer.0.proj_in.weight",
        "down.0.resize.weight",
    } <= hidden
    assert all("norm" not in name for name in hidden | outer)
    assert {"embed.bias", "final.norm.weight", "middle.0.resblock.norm1.weight"} <= flat


def test_a_step_moves_a_kernel_in_all_directions_alike(unet):
    kernel = unet.middle[0].after_resblock[0].convs[0].weight
    kernel.grad = torch.randn_like(kernel)
    before = kernel.detach().clone()
    MuonAdamW([kernel], lr=1e-3, weight_decay=0.0, orthogonal=True).step()
    step = (kernel.detach() - before).flatten(1)
    values = torch.linalg.svdvals(step)
    assert values.max() < 2.5 * values.min()
    assert float(step.square().mean().sqrt()) == pytest.approx(0.2e-3, rel=0.2)
    kernel.data.copy_(before)
