"""Published networks of two kinds of blocks compute what their references do."""

import re

import pytest
import torch
from diffusers import FluxTransformer2DModel

from tests.models.unet3d_oracles import reference, relative_error
from vdm.layers.embeddings import patchify
from vdm.models.dual_stream_presets import (
    OPEN_SORA_2,
    OPEN_SORA_2_DEEP,
    DualStreamSize,
    open_sora_2,
)
from vdm.types import Conditioning

HEADS, HEAD_DIM, C = 3, 12, 4
SIZE = DualStreamSize(HEADS, HEAD_DIM, (2, 2), C, 14, 16, (2, 4, 6))
NAMES = [
    (r"^patch_embed\.", "x_embedder."),
    (r"^text_embed\.", "context_embedder."),
    (r"^time_embed\.fc", "time_text_embed.timestep_embedder.linear_"),
    (r"^pooled_embed\.0\.", "time_text_embed.text_embedder.linear_1."),
    (r"^pooled_embed\.2\.", "time_text_embed.text_embedder.linear_2."),
    (r"^final\.modulation\.", "norm_out."),
    (r"^final\.linear\.", "proj_out."),
    (r"^double_blocks\.", "transformer_blocks."),
    (r"^single_blocks(\.\d+)\.modulation\.", r"single_transformer_blocks\1.norm."),
    (r"^single_blocks(\.\d+)\.to_hidden\.", r"single_transformer_blocks\1.proj_mlp."),
    (r"^single_blocks(\.\d+)\.attention\.to_out\.", r"single_transformer_blocks\1.proj_out."),
    (r"^single_blocks(\.\d+)\.attention\.", r"single_transformer_blocks\1.attn."),
    (r"\.video\.modulation\.", ".norm1."),
    (r"\.text\.modulation\.", ".norm1_context."),
    (r"\.video\.feedforward\.fc1\.", ".ff.net.0.proj."),
    (r"\.video\.feedforward\.fc2\.", ".ff.net.2."),
    (r"\.text\.feedforward\.fc1\.", ".ff_context.net.0.proj."),
    (r"\.text\.feedforward\.fc2\.", ".ff_context.net.2."),
    (r"\.video\.attention\.to_out\.", ".attn.to_out.0."),
    (r"\.video\.attention\.", ".attn."),
    (r"\.text\.attention\.to_out\.", ".attn.to_add_out."),
    (r"\.text\.attention\.to_(.)\.", r".attn.add_\1_proj."),
    (r"\.text\.attention\.norm_", ".attn.norm_added_"),
]


def flux_name(key):
    for pattern, name in NAMES:
        key = re.sub(pattern, name, key)
    return key


def from_flux(theirs, ours):
    """FLUX's weights in Open-Sora's network, where the halves of a head are rotated together."""
    state, found = theirs.state_dict(), {}
    patch = ours.patch_embed.in_features
    for key in ours.state_dict():
        if key.startswith("given_embed."):
            continue
        value = state[flux_name(key)]
        if key == "patch_embed.weight":  # theirs is of latents and of what is given
            value, found["given_embed.weight"] = value[:, :patch], value[:, patch:]
        elif key == "patch_embed.bias":
            found["given_embed.bias"] = torch.randn_like(value)
            value = value - found["given_embed.bias"]
        elif key.startswith("final.modulation."):
            value = torch.cat(value.chunk(2)[::-1])
        elif re.search(r"attention\.(to|norm)_[qk]\.", key):
            heads = value.unflatten(0, (-1, ours.head_dim))
            value = torch.cat((heads[:, ::2], heads[:, 1::2]), dim=1).flatten(0, 1)
        found[key] = value
    ours.load_state_dict(found)
    return ours.eval()


@torch.no_grad()
def test_open_sora_2_is_flux_with_given_frames():
    theirs = reference(
        FluxTransformer2DModel,
        patch_size=1,
        in_channels=4 * C + 4 * (C + 1),
        out_channels=4 * C,
        num_layers=2,
        num_single_layers=2,
        attention_head_dim=HEAD_DIM,
        num_attention_heads=HEADS,
        joint_attention_dim=14,
        pooled_projection_dim=16,
        axes_dims_rope=(2, 4, 6),
    )
    ours = from_flux(theirs, open_sora_2(SIZE))
    torch.manual_seed(1)
    x, t = torch.randn(2, C, 3, 6, 10), torch.tensor([0.98, 0.137])
    mask = torch.zeros(2, 1, 3, 6, 10)
    mask[:, :, 0] = 1
    text, pooled, given = torch.randn(2, 5, 14), torch.randn(2, 16), mask * torch.randn_like(x)
    cond = Conditioning(text=text, pooled_text=pooled, given=given, given_mask=mask)
    parts = [patchify(part, (1, 2, 2)) for part in (x, torch.cat((mask, given), dim=1))]
    places = torch.cartesian_prod(torch.arange(3.0), torch.arange(3.0), torch.arange(5.0))
    expected = theirs(
        hidden_states=torch.cat(parts, dim=-1).flatten(1, 3),
        encoder_hidden_states=text,
        pooled_projections=pooled,
        timestep=t,
        img_ids=places,
        txt_ids=torch.zeros(5, 3),
    ).sample
    found = patchify(ours(x, 1000 * t, cond), (1, 2, 2)).flatten(1, 3)
    assert relative_error(found, expected) < 2e-6


@pytest.mark.parametrize(
    ("size", "count"), [(OPEN_SORA_2, 11_891_390_528), (OPEN_SORA_2_DEEP, 11_891_971_200)]
)
def test_open_sora_2_has_the_published_number_of_parameters(size, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in open_sora_2(size).parameters()) == count
