"""Published transformers and causal VAEs beside their references, at sizes for a benchmark.

Heads are as wide as published and tokens more than two thousand; there are fewer heads and blocks.
"""

import diffusers
import torch

from tests.models.unet3d_oracles import reference
from tests.pretrained.speed import Pair, Side, load
from tests.pretrained.tiny_dit import call_cogvideox, call_ltx
from vdm.pretrained import load_autoencoder, load_network
from vdm.types import Conditioning

FLOAT = torch.float32
TEXT_DIM = 1024


def cogvideox(dtype=FLOAT, size=(5, 32, 56), num_text=226, depth=2):
    """As the 5B model: 2,240 tokens of a clip and 226 of a text."""
    theirs = reference(
        diffusers.CogVideoXTransformer3DModel,
        0.7,
        num_attention_heads=8,
        num_layers=depth,
        text_embed_dim=TEXT_DIM,
        use_rotary_positional_embeddings=True,
        sample_height=size[1],
        sample_width=size[2],
        max_text_seq_length=num_text,
    )
    x, text, step, cond = _inputs(16, size, num_text, dtype)
    ours = load(theirs, load_network, dtype)
    return Pair(
        Side(ours, lambda: ours(x, step, cond)),
        Side(theirs, lambda: call_cogvideox(theirs, x, step, text)),
    )


def wan(dtype=FLOAT, size=(5, 32, 56), num_text=512, depth=2):
    """As the models for words: 2,240 tokens, a text of 512."""
    theirs = reference(
        diffusers.WanTransformer3DModel,
        0.7,
        num_attention_heads=4,
        num_layers=depth,
        ffn_dim=2984,
        text_dim=TEXT_DIM,
    )
    x, text, step, cond = _inputs(16, size, num_text, dtype)
    ours = load(theirs, load_network, dtype)
    return Pair(
        Side(ours, lambda: ours(x, step, cond)),
        Side(theirs, lambda: theirs(x, step, text).sample),
    )


def latte(dtype=FLOAT, size=(16, 24, 24), num_text=120, depth=2):
    """16 frames of 144 tokens."""
    theirs = reference(
        diffusers.LatteTransformer3DModel,
        0.7,
        num_attention_heads=8,
        attention_head_dim=72,
        in_channels=4,
        out_channels=8,
        num_layers=depth,
        cross_attention_dim=576,
        attention_bias=True,
        sample_size=size[1],
        patch_size=2,
        activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        norm_eps=1e-6,
        caption_channels=TEXT_DIM,
        video_length=size[0],
    )
    x, text, step, cond = _inputs(4, size, num_text, dtype)
    ours = load(theirs, load_network, dtype)
    return Pair(
        Side(ours, lambda: ours(x, step, cond)),
        Side(theirs, lambda: theirs(x, step, text).sample[:, :4]),
    )


def ltx(dtype=FLOAT, size=(5, 16, 28), num_text=128, depth=2):
    """As the 2B model: every latent of the clip is a token."""
    theirs = reference(
        diffusers.LTXVideoTransformer3DModel,
        0.7,
        num_attention_heads=8,
        cross_attention_dim=512,
        num_layers=depth,
        caption_channels=TEXT_DIM,
    )
    x, text, step, cond = _inputs(128, size, num_text, dtype)
    ours = load(theirs, load_network, dtype)
    fps, mask = torch.tensor([25.0]), torch.ones(1, num_text)
    cond = cond.replace(fps=fps)
    return Pair(
        Side(ours, lambda: ours(x, step, cond)),
        Side(theirs, lambda: call_ltx(theirs, x, step, text, mask, fps)),
    )


def _inputs(channels, size, num_text, dtype):
    x = torch.randn(1, channels, *size, dtype=dtype)
    text = torch.randn(1, num_text, TEXT_DIM, dtype=dtype)
    return x, text, torch.tensor([981.0]), Conditioning(text=text)


def _decoder(cls, config, size):
    def make(dtype=FLOAT, size=size):
        theirs = reference(cls, **config)
        ours = load(theirs, load_autoencoder, dtype)
        raw = torch.randn(1, ours.latent_channels, *size, dtype=dtype)
        latents = ours.scale.normalize(raw)
        return Pair(
            Side(ours, lambda: ours.decode(latents)),
            Side(theirs, lambda: theirs.decode(raw).sample),
        )

    return make


TRANSFORMERS = {
    "CogVideoX transformer": cogvideox,
    "Latte transformer": latte,
    "Wan transformer": wan,
    "LTX transformer": ltx,
}
DECODERS = {
    "CogVideoX VAE decode": _decoder(
        diffusers.AutoencoderKLCogVideoX,
        {"block_out_channels": (64, 128, 128, 256), "layers_per_block": 1},
        (3, 12, 16),
    ),
    "Wan VAE decode": _decoder(
        diffusers.AutoencoderKLWan, {"base_dim": 48, "num_res_blocks": 1}, (3, 12, 16)
    ),
    "HunyuanVideo VAE decode": _decoder(
        diffusers.AutoencoderKLHunyuanVideo,
        {
            "block_out_channels": (48, 96, 192, 192),
            "layers_per_block": 1,
            "norm_num_groups": 16,
        },
        (3, 12, 16),
    ),
    "LTX VAE decode": _decoder(
        diffusers.AutoencoderKLLTXVideo,
        {
            "decoder_block_out_channels": (32, 64, 128, 128),
            "block_out_channels": (32, 64, 128, 128),
            "decoder_layers_per_block": (2, 2, 2, 2, 2),
            "layers_per_block": (1, 1, 1, 1, 1),
        },
        (3, 12, 16),
    ),
}
