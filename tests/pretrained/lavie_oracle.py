"""LaVie written down plainly: diffusers' image model, and its authors' attention over time in it.

Nothing here is shared with the package: names, order of the branches, buckets of distances and
rotations are those of the authors' inference code, in the simplest form.
"""

from types import MethodType

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from einops import rearrange, repeat
from torch import nn
from transformers.models.t5.modeling_t5 import T5Attention

from tests.pretrained.test_diffusers_unet import COMMON, TINY

SMALL = COMMON | TINY[UNet2DConditionModel]
FULL = {"cross_attention_dim": 768, "attention_head_dim": 8}  # the published size


class OverClip(nn.GroupNorm):
    """Statistics of all frames of a clip, though frames lie in the batch."""

    num_frames = 1

    def forward(self, x):
        clip = rearrange(x, "(b t) c h w -> b c t h w", t=self.num_frames)
        return rearrange(super().forward(clip), "b c t h w -> (b t) c h w")


class RelativeBias(nn.Module):
    """A number for the distance of two frames and a head, in the buckets of T5."""

    def __init__(self, heads):
        super().__init__()
        self.relative_attention_bias = nn.Embedding(32, heads)

    def forward(self, num_frames):
        place = torch.arange(num_frames)
        ahead = place[None, :] - place[:, None]
        buckets = T5Attention._relative_position_bucket(ahead, True, 32, 32)
        return rearrange(self.relative_attention_bias(buckets), "q k heads -> heads q k")


class Rotary(nn.Module):
    """Pairs of neighbouring channels turn with the number of the frame, 32 channels at most."""

    def __init__(self, head_dim):
        super().__init__()
        self.count = min(32, head_dim)
        self.freqs = nn.Parameter(self.published())

    def published(self):
        """The frequencies in every file."""
        return 10_000 ** (-torch.arange(0, self.count, 2) / self.count)

    def forward(self, x):
        turned, rest = x[..., : self.count], x[..., self.count :]
        pairs = torch.view_as_complex(turned.reshape(*turned.shape[:-1], -1, 2).contiguous())
        angle = torch.outer(torch.arange(x.shape[-2]).float(), self.freqs)
        turned = torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)
        return torch.cat((turned, rest), dim=-1)


class FrameAttention(nn.Module):
    """The tokens at one place attend to each other over time."""

    def __init__(self, dim, heads, is_base):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(dim, dim, bias=False) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        if is_base:
            self.time_rel_pos_bias, self.rotary_emb = RelativeBias(heads), Rotary(dim // heads)

    def forward(self, x, num_frames):
        x = rearrange(x, "(b t) n d -> b n t d", t=num_frames)
        split = "b n t (heads d) -> b n heads t d"
        maps = (self.to_q, self.to_k, self.to_v)
        q, k, v = (rearrange(to(x), split, heads=self.heads) for to in maps)
        if hasattr(self, "rotary_emb"):
            q, k = self.rotary_emb(q), self.rotary_emb(k)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if hasattr(self, "time_rel_pos_bias"):
            scores = scores + self.time_rel_pos_bias(num_frames)
        mixed = rearrange(scores.softmax(-1) @ v, "b n heads t d -> b n t (heads d)")
        return rearrange(self.to_out[0](mixed), "b n t d -> (b t) n d")


def base_block(self, x, encoder_hidden_states=None, **_):
    x = x + self.attn1(self.norm1(x))
    x = x + self.attn2(self.norm2(x), encoder_hidden_states=encoder_hidden_states)
    x = x + self.attn_temp(self.norm_temp(x), self.num_frames)
    return x + self.ff(self.norm3(x))


def interpolation_block(self, x, encoder_hidden_states=None, **_):
    normed = rearrange(self.norm1(x), "(b t) n d -> b t n d", t=self.num_frames)
    first = normed[:, [0] * self.num_frames]
    before = normed[:, [max(k - 1, 0) for k in range(self.num_frames)]]
    both = rearrange(torch.cat((first, before), dim=2), "b t n d -> (b t) n d")
    x = x + self.attn1(normed.flatten(0, 1), encoder_hidden_states=both)
    x = x + self.attn2(self.norm2(x), encoder_hidden_states=encoder_hidden_states)
    x = x + self.ff(self.norm3(x))
    return x + self.attn_temp(self.norm_temp(x), self.num_frames)


class Network(UNet2DConditionModel):
    """One of the two networks."""

    def __init__(self, is_base, **size):
        super().__init__(in_channels=4 if is_base else 8, **size)
        for name, module in list(self.named_modules()):
            if isinstance(module, nn.GroupNorm) and "attentions" not in name:
                module.__class__ = OverClip
            if name.rpartition(".")[0].endswith("transformer_blocks"):
                dim = module.norm3.weight.numel()
                module.attn_temp = FrameAttention(dim, size["attention_head_dim"], is_base)
                module.norm_temp = nn.LayerNorm(dim)
                module.forward = MethodType(base_block if is_base else interpolation_block, module)

    def publish(self):
        """Give the tables of rotations the numbers that they have in every file."""
        for module in self.modules():
            if isinstance(module, Rotary):
                module.freqs.data = module.published()

    def on_clip(self, x, steps, text):
        """The prediction for clips."""
        num_frames = x.shape[2]
        for module in self.modules():
            if isinstance(module, OverClip) or hasattr(module, "attn_temp"):
                module.num_frames = num_frames
        frames = rearrange(x, "b c t h w -> (b t) c h w")
        steps = repeat(steps.expand(len(x)), "b -> (b t)", t=num_frames)
        text = repeat(text, "b n d -> (b t) n d", t=num_frames)
        pred = super().forward(frames, steps, text).sample
        return rearrange(pred, "(b t) c h w -> b c t h w", t=num_frames)
