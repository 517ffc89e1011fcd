"""LaVie's super-resolution written down plainly, on diffusers' upscaler; as in ``lavie_oracle``."""

from types import MethodType

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from einops import rearrange, repeat
from torch import nn

from tests.pretrained.lavie_oracle import FrameAttention, OverClip, Rotary

SMALL = {
    "block_out_channels": (32, 64),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "norm_num_groups": 32,
    "num_class_embeds": 1000,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "only_cross_attention": (True, False),
}
FULL = {
    "block_out_channels": (256, 512, 512, 1024),
    "cross_attention_dim": 1024,
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "num_class_embeds": 1000,
    "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 3),
    "up_block_types": (*["CrossAttnUpBlock2D"] * 3, "UpBlock2D"),
    "only_cross_attention": (True, True, True, False),
}


class Convs(nn.Module):
    """A residual block of two convolutions; over time, or of every frame."""

    def __init__(self, dim, kernels, level_dim=None):
        super().__init__()
        self.norm1, self.norm2 = (nn.GroupNorm(32, dim, eps=1e-6) for _ in range(2))
        self.conv1, self.conv2 = (
            nn.Conv3d(dim, dim, kernel, padding=tuple(side // 2 for side in kernel))
            if kernel[0] > 1
            else nn.Conv2d(dim, dim, kernel[1:], padding=1)
            for kernel in kernels
        )
        if level_dim:
            self.time_emb_proj = nn.Linear(level_dim, dim)

    def conv(self, which, x):
        if isinstance(which, nn.Conv3d):
            return which(x)
        frames = which(rearrange(x, "b c t h w -> (b t) c h w"))
        return rearrange(frames, "(b t) c h w -> b c t h w", b=len(x))

    def forward(self, x, level=None):
        h = self.conv(self.conv1, F.silu(self.norm1(x)))
        if level is not None:
            h = h + self.time_emb_proj(F.silu(level))[:, :, None, None, None]
        return x + self.conv(self.conv2, F.silu(self.norm2(h)))


class TemporalModule(nn.Module):
    """Behind a level: over time, of every frame, and a map that starts at zero."""

    def __init__(self, dim, level_dim):
        super().__init__()
        self.resblocks_3d_t = Convs(dim, [(5, 1, 1), (3, 1, 1)], level_dim)
        self.resblocks_3d_s = Convs(dim, [(1, 3, 3), (1, 3, 3)], level_dim)
        self.shift_conv = nn.Conv2d(dim, dim, 1)

    def forward(self, frames, level):
        clip = rearrange(frames, "(b t) c h w -> b c t h w", t=self.num_frames)
        level = level[:: self.num_frames]
        h = self.resblocks_3d_s(self.resblocks_3d_t(clip, level), level)
        return frames + self.shift_conv(rearrange(h, "b c t h w -> (b t) c h w"))


def block(self, x, encoder_hidden_states=None, **_):
    x = x + self.attn1(self.norm1(x), encoder_hidden_states if self.only_cross_attention else None)
    x = x + self.attn2(self.norm2(x), encoder_hidden_states)
    x = x + self.attn_temporal(self.norm_temporal(x), self.num_frames)
    return x + self.ff(self.norm3(x))


def transformer(self, x, *arguments, **named):
    clip = self.resblock_temporal(rearrange(x, "(b t) c h w -> b c t h w", t=self.num_frames))
    frames = rearrange(clip, "b c t h w -> (b t) c h w")
    return Transformer2DModel.forward(self, frames, *arguments, **named)


def followed(level, module):
    """Have a level of diffusers followed by a module; what it keeps for later is from before."""
    inner = level.forward

    def forward(*arguments, **named):
        made = inner(*arguments, **named)
        level_embed = named["temb"] if "temb" in named else arguments[1]
        if isinstance(made, tuple):
            return module(made[0], level_embed), made[1]
        return module(made, level_embed)

    level.forward = forward


class Upscaler(UNet2DConditionModel):
    """The network."""

    def __init__(self, **size):
        super().__init__(in_channels=7, out_channels=4, use_linear_projection=True, **size)
        heads, level_dim = size["attention_head_dim"], 4 * size["block_out_channels"][0]
        self.temporal_rotary_emb = Rotary(32)
        for name, module in list(self.named_modules()):
            if isinstance(module, Transformer2DModel):
                module.resblock_temporal = Convs(module.in_channels, [(3, 1, 1), (3, 1, 1)])
                module.forward = MethodType(transformer, module)
            if isinstance(module, nn.GroupNorm) and "attentions" not in name:
                module.__class__ = OverClip
            if name.rpartition(".")[0].endswith("transformer_blocks"):
                dim = module.norm3.weight.numel()
                module.attn_temporal = FrameAttention(dim, heads, True)
                module.norm_temporal = nn.LayerNorm(dim)
                module.forward = MethodType(block, module)
        widths = size["block_out_channels"]
        self.down_temporal_blocks = nn.ModuleList(TemporalModule(w, level_dim) for w in widths)
        self.up_temporal_blocks = nn.ModuleList(TemporalModule(w, level_dim) for w in widths[::-1])
        self.mid_temporal_block = TemporalModule(widths[-1], level_dim)
        for level, module in zip(self.down_blocks, self.down_temporal_blocks, strict=True):
            followed(level, module)
        for level, module in zip(self.up_blocks, self.up_temporal_blocks, strict=True):
            followed(level, module)
        followed(self.mid_block, self.mid_temporal_block)

    def publish(self):
        """Give the tables of rotations the numbers that they have in every file."""
        for module in self.modules():
            if isinstance(module, Rotary):
                module.freqs.data = module.published()

    def on_clip(self, x, low, steps, text, level):
        """The prediction for clips beside noisy smaller ones."""
        num_frames = x.shape[2]
        for module in self.modules():
            module.num_frames = num_frames
        frames = rearrange(torch.cat((x, low), dim=1), "b c t h w -> (b t) c h w")
        per_frame = {"pattern": "b -> (b t)", "t": num_frames}
        steps, level = (repeat(v.expand(len(x)), **per_frame) for v in (steps, level))
        text = repeat(text, "b n d -> (b t) n d", t=num_frames)
        pred = super().forward(frames, steps, text, class_labels=level).sample
        return rearrange(pred, "(b t) c h w -> b c t h w", t=num_frames)
