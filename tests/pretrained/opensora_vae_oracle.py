"""The VAE of Open-Sora 1.2 written down plainly: diffusers' image VAE, its authors' one over time.

Nothing here is shared with the package; names are the authors'.
"""

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from einops import rearrange
from torch import nn

SHIFT, SCALE = (-0.10, 0.34, 0.27, 0.98), (3.85, 2.32, 2.33, 3.06)
IMAGE = {
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "latent_channels": 4,
}
SMALL = {"filters": 32, "multipliers": (1, 2, 2, 2), "depth": 1, "halves": (False, True, True)}
FULL = {"filters": 128, "multipliers": (1, 2, 2, 4), "depth": 4, "halves": (False, True, True)}


class Conv(nn.Module):
    """Zeros before the first frame; one fewer where every second frame is left out."""

    def __init__(self, in_channels, out_channels, size=3, stride=1, bias=True):
        super().__init__()
        self.front, self.side = size - stride, size // 2
        self.conv = nn.Conv3d(in_channels, out_channels, size, stride=(stride, 1, 1), bias=bias)

    def forward(self, x):
        side = [self.side] * 4
        return self.conv(F.pad(x, (*side, self.front, 0)))


class Block(nn.Module):
    def __init__(self, before, after):
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(32, before), nn.GroupNorm(32, after)
        self.conv1 = Conv(before, after, bias=False)
        self.conv2 = Conv(after, after, bias=False)
        if before != after:
            self.conv3 = Conv(before, after, 1, bias=False)

    def forward(self, x):
        h = self.conv2(F.silu(self.norm2(self.conv1(F.silu(self.norm1(x))))))
        return h + (self.conv3(x) if hasattr(self, "conv3") else x)


def blocks(before, after, depth):
    return nn.ModuleList(Block(after if k else before, after) for k in range(depth))


class Encoder(nn.Module):
    def __init__(self, filters, multipliers, depth, halves):
        super().__init__()
        widths = [filters * factor for factor in multipliers]
        self.conv_in = Conv(4, filters, bias=False)
        befores = [filters, *widths[:-1]]
        self.block_res_blocks = nn.ModuleList(
            blocks(*pair, depth) for pair in zip(befores, widths, strict=True)
        )
        self.conv_blocks = nn.ModuleList(
            Conv(width, width, stride=2) if is_halved else nn.Identity()
            for width, is_halved in zip(widths[: len(halves)], halves, strict=True)
        )
        self.res_blocks = blocks(widths[-1], widths[-1], depth)
        self.norm1, self.conv2 = nn.GroupNorm(32, widths[-1]), Conv(widths[-1], 8, 1)

    def forward(self, x):
        x = self.conv_in(x)
        for level, some in enumerate(self.block_res_blocks):
            for block in some:
                x = block(x)
            if level < len(self.conv_blocks):
                x = self.conv_blocks[level](x)
        for block in self.res_blocks:
            x = block(x)
        return self.conv2(F.silu(self.norm1(x)))


class Decoder(nn.Module):
    def __init__(self, filters, multipliers, depth, halves):
        super().__init__()
        widths = [filters * factor for factor in multipliers]
        self.conv1 = Conv(4, widths[-1])
        self.res_blocks = blocks(widths[-1], widths[-1], depth)
        befores = [*widths[1:], widths[-1]]
        self.block_res_blocks = nn.ModuleList(
            blocks(*pair, depth) for pair in zip(befores, widths, strict=True)
        )
        self.conv_blocks = nn.ModuleList(
            Conv(width, 2 * width) if is_doubled else nn.Identity()
            for width, is_doubled in zip(widths[1:], halves, strict=True)
        )
        self.norm1, self.conv_out = nn.GroupNorm(32, filters), Conv(filters, 4)

    def forward(self, x):
        x = self.conv1(x)
        for block in self.res_blocks:
            x = block(x)
        for level in reversed(range(len(self.block_res_blocks))):
            for block in self.block_res_blocks[level]:
                x = block(x)
            if level and isinstance(self.conv_blocks[level - 1], Conv):
                x = self.conv_blocks[level - 1](x)
                x = torch.stack((x[:, ::2], x[:, 1::2]), dim=3).flatten(2, 3)
        return self.conv_out(F.silu(self.norm1(x)))


class TemporalVAE(nn.Module):
    def __init__(self, **size):
        super().__init__()
        self.stride = 2 ** sum(size["halves"])
        self.encoder, self.decoder = Encoder(**size), Decoder(**size)
        self.quant_conv, self.post_quant_conv = Conv(8, 8, 1), Conv(4, 4, 1)


class SpatialVAE(nn.Module):
    def __init__(self, **config):
        super().__init__()
        self.module = AutoencoderKL(**config)


class VideoVAEOracle(nn.Module):
    """Both, as one file holds them."""

    def __init__(self, image, **size):
        super().__init__()
        self.spatial_vae, self.temporal_vae = SpatialVAE(**image), TemporalVAE(**size)
        for name, values in (("shift", SHIFT), ("scale", SCALE)):
            self.register_buffer(name, torch.tensor(values)[None, :, None, None, None])

    def config(self):
        """Settings beside the file."""
        return {
            "architectures": ["VideoAutoencoderPipeline"],
            "model_type": "VideoAutoencoderPipeline",
            "cal_loss": False,
            "freeze_vae_2d": False,
            "from_pretrained": None,
            "micro_frame_size": 17,
            "scale": list(SCALE),
            "shift": list(SHIFT),
            "torch_dtype": "float32",
            "transformers_version": "4.36.2",
            "vae_2d": {
                "from_pretrained": "PixArt-alpha/pixart_sigma_sdxlvae_T5_diffusers",
                "local_files_only": False,
                "micro_batch_size": 4,
                "subfolder": "vae",
                "type": "VideoAutoencoderKL",
            },
            "vae_temporal": {"from_pretrained": None, "type": "VAE_Temporal_SD"},
        }

    def encode_mean(self, video):
        """Raw means, of the image VAE's means."""
        frames = rearrange(video, "b c t h w -> (b t) c h w")
        mean = self.spatial_vae.module.encode(frames).latent_dist.mean * 0.18215
        mean = rearrange(mean, "(b t) c h w -> b c t h w", b=len(video))
        found = []
        for start in range(0, mean.shape[2], 17):
            piece = mean[:, :, start : start + 17]
            missing = -piece.shape[2] % self.temporal_vae.stride
            moments = self.temporal_vae.encoder(F.pad(piece, (0, 0, 0, 0, missing, 0)))
            found.append(self.temporal_vae.quant_conv(moments)[:, :4])
        return torch.cat(found, dim=2)

    def decode(self, latents, num_frames):
        """Frames in [-1, 1] of latents as networks see them."""
        z, stride = latents * self.scale + self.shift, self.temporal_vae.stride
        at_a_time, pieces = -(-17 // stride), []
        for start in range(0, z.shape[2], at_a_time):
            count = min(17, num_frames)
            piece = self.temporal_vae.post_quant_conv(z[:, :, start : start + at_a_time])
            pieces.append(self.temporal_vae.decoder(piece)[:, :, -count % stride :])
            num_frames -= count
        frames = rearrange(torch.cat(pieces, dim=2) / 0.18215, "b c t h w -> (b t) c h w")
        video = self.spatial_vae.module.decode(frames).sample
        return rearrange(video, "(b t) c h w -> b c t h w", b=len(latents))
