import inspect

import pytest
import torch

from vdm.layers.attention import QKNorm
from vdm.layers.factorization import Joint, Spatial, Temporal
from vdm.layers.positions import axial_rope, default_axes_dims
from vdm.models.dit_blocks import BlockOptions, DiTBlock, FinalLayer, make_modulation

B, T, H, W, DIM, HEADS, N, TEXT = 2, 5, 3, 4, 24, 2, 7, 10


def level(options, chunks, frames=1):
    return torch.randn(B, frames, chunks * DIM if options.modulation == "single" else DIM)


def inputs():
    return (
        torch.randn(B, T, H, W, DIM),
        axial_rope((T, H, W), default_axes_dims(DIM // HEADS)),
        torch.randn(B, N, TEXT),
    )


@pytest.mark.parametrize("rule", [Joint(), Spatial(), Temporal(True)], ids=str)
@pytest.mark.parametrize("modulation", ["single", "per_block"])
@pytest.mark.parametrize("text_dim", [None, TEXT])
def test_a_new_block_is_the_identity(rule, modulation, text_dim):
    options = BlockOptions(modulation=modulation)
    block = DiTBlock(DIM, HEADS, rule, text_dim, options)
    block.close()
    x, table, text = inputs()
    closed = level(options, 6) if modulation == "per_block" else torch.zeros(B, 1, 6 * DIM)
    assert torch.equal(block(x, closed, table, text if text_dim else None), x)
    opened = block(x, torch.randn(B, 1, 6 * DIM), table, text) if modulation == "single" else None
    assert opened is None or not torch.allclose(opened, x)


@pytest.mark.parametrize("modulation", ["single", "per_block"])
def test_a_new_final_layer_predicts_zero(modulation):
    options = BlockOptions(modulation=modulation)
    final = FinalLayer(DIM, 9, options)
    final.close()
    x, _, _ = inputs()
    out = final(x, torch.randn(B, 1, DIM))
    assert out.shape == (B, T, H, W, 9)
    assert not out.any()


@pytest.mark.parametrize(
    "options",
    [
        BlockOptions(feedforward="swiglu", mlp_ratio=2.0),
        BlockOptions(norm="rms", qk_norm=QKNorm("rms", "full"), qkv_bias=False),
        BlockOptions(qk_norm=None, backend="plain", modulation="per_block"),
    ],
    ids=["gated", "rms", "plain"],
)
def test_frames_may_be_modulated_differently(options):
    torch.manual_seed(1)
    block = DiTBlock(DIM, HEADS, Spatial(), TEXT, options)
    for parameter in block.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    x, table, text = inputs()
    levels = level(options, 6, frames=T)
    together = block(x, levels, table, text)
    alone = [
        block(x[:, k : k + 1], levels[:, k : k + 1], table.at(slice(k, k + 1)), text)
        for k in range(T)
    ]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), rtol=1e-4, atol=1e-5)
    same = block(x, levels[:, :1].expand(-1, T, -1), table, text)
    torch.testing.assert_close(same, block(x, levels[:, :1], table, text))


def test_an_unknown_modulation_is_refused():
    with pytest.raises(ValueError, match="got modulation 'film', expected 'single' or 'per_block'"):
        inspect.unwrap(make_modulation)("film", DIM, 6)
