"""Open-Sora's networks written down plainly, under their authors' names.

Nothing here is shared with the package: texts are packed sample by sample, clean frames chosen by
their mask, rotations complex; sinusoids and tables of positions are diffusers'.
"""

import torch
import torch.nn.functional as F
from diffusers.models.embeddings import (
    get_1d_sincos_pos_embed_from_grid,
    get_2d_sincos_pos_embed_from_grid,
    get_timestep_embedding,
)
from einops import rearrange
from torch import nn

ONE = {"heads": 16, "dim": 64, "depth": 2, "text_dim": 14, "num_text": 120, "grid": (5, 4)}
TWO = {"heads": 3, "dim": 24, "depth": 2, "text_dim": 14, "num_text": 300}
FULL_ONE = ONE | {"dim": 1152, "depth": 28, "text_dim": 4096, "grid": (16, 32)}
FULL_TWO = TWO | {"heads": 16, "dim": 1152, "depth": 28, "text_dim": 4096}


def softmax_attention(q, k, v, heads):
    """Of tokens ``(b, n, heads * d)``."""
    q, k, v = (rearrange(x, "b n (heads d) -> b heads n d", heads=heads) for x in (q, k, v))
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    return rearrange(scores.softmax(-1) @ v, "b heads n d -> b n (heads d)")


class RMS(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return self.weight * x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()


class SelfAttention(nn.Module):
    """To be told ``freqs`` if tokens are to be rotated by their number."""

    def __init__(self, dim, heads, has_norm):
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        if has_norm:
            self.q_norm, self.k_norm = RMS(dim // heads), RMS(dim // heads)

    def forward(self, x, freqs=None):
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if hasattr(self, "q_norm"):
            q, k = (
                norm(part.unflatten(-1, (self.heads, -1))).flatten(-2)
                for norm, part in ((self.q_norm, q), (self.k_norm, k))
            )
        if freqs is not None:
            turns = torch.polar(
                torch.ones(x.shape[1], len(freqs)), torch.outer(torch.arange(x.shape[1]), freqs)
            )
            q, k = (
                torch.view_as_real(
                    torch.view_as_complex(part.unflatten(-1, (self.heads, -1, 2)).contiguous())
                    * turns[:, None]
                ).flatten(-3)
                for part in (q, k)
            )
        return self.proj(softmax_attention(q, k, v, self.heads))


class CrossAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.q_linear, self.kv_linear = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x, texts):
        """Texts are one tensor for each sample, of as many tokens as it has."""
        found = []
        for row, text in zip(self.q_linear(x), texts, strict=True):
            k, v = self.kv_linear(text).chunk(2, dim=-1)
            found.append(softmax_attention(row[None], k[None], v[None], self.heads))
        return self.proj(torch.cat(found))


class MLP(nn.Module):
    def __init__(self, in_dim, hidden, out_dim):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(in_dim, hidden), nn.Linear(hidden, out_dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Embedder(nn.Module):
    """Of a number."""

    def __init__(self, dim):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, numbers):
        return self.mlp(get_timestep_embedding(numbers, 256, True, 0.0))


class CaptionEmbedder(nn.Module):
    def __init__(self, text_dim, dim, num_text):
        super().__init__()
        self.y_proj = MLP(text_dim, dim, dim)
        self.register_buffer("y_embedding", torch.randn(num_text, text_dim))


class Patches(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.proj = nn.Conv3d(4, dim, (1, 2, 2), stride=(1, 2, 2))


def plain_norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class Final(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.linear = nn.Linear(dim, 32)
        self.scale_shift_table = nn.Parameter(torch.zeros(2, dim))

    def modulated(self, x, level):
        shift, scale = (row + level[:, None] for row in self.scale_shift_table)
        return plain_norm(x) * (1 + scale) + shift

    def forward(self, x, level, clean_level=None, is_noisy=None):
        """Tokens ``(b, n, d)``; those of clean frames are modulated on top of the others'."""
        x = self.modulated(x, level)
        if is_noisy is not None:
            x = torch.where(is_noisy[..., None], x, self.modulated(x, clean_level))
        return self.linear(x)


class Block(nn.Module):
    """Of either network: ``attn_temp`` is the first one's alone."""

    def __init__(self, dim, heads, has_norm, is_two_way):
        super().__init__()
        self.attn = SelfAttention(dim, heads, has_norm)
        if is_two_way:
            self.attn_temp = SelfAttention(dim, heads, False)
        self.cross_attn = CrossAttention(dim, heads)
        self.mlp = MLP(dim, 4 * dim, dim)
        self.scale_shift_table = nn.Parameter(torch.zeros(6, dim))

    def modulation(self, level, clean_level=None, is_noisy=None):
        """Six vectors for every token, ``(6, b, 1 or n, d)``."""
        six = self.scale_shift_table[None] + level.unflatten(-1, (6, -1))
        six = rearrange(six, "b six d -> six b 1 d")
        if is_noisy is None:
            return six
        clean = self.scale_shift_table[None] + clean_level.unflatten(-1, (6, -1))
        clean = rearrange(clean, "b six d -> six b 1 d")
        return torch.where(is_noisy[None, :, :, None], six, clean)

    def forward(self, x, texts, six, num_frames, over_time=False, freqs=None, frames=None):
        within, over = "b (t s) d -> (b t) s d", "b (t s) d -> (b s) t d"
        back = {within: "(b t) s d -> b (t s) d", over: "(b s) t d -> b (t s) d"}
        sizes = {"b": len(x), "t": num_frames}
        shift, scale, gate, shift2, scale2, gate2 = six
        fold = over if over_time else within
        h = rearrange(plain_norm(x) * (1 + scale) + shift, fold, t=num_frames)
        h = self.attn(h, freqs)
        unfold = {"b": len(x)} if over_time else sizes
        x = x + gate * rearrange(h, back[fold], **unfold)
        if hasattr(self, "attn_temp"):
            h = rearrange(x, over, t=num_frames)
            h = self.attn_temp(h if frames is None else h + frames)
            x = x + gate * rearrange(h, back[over], b=len(x))
        x = x + self.cross_attn(x, texts)
        return x + gate2 * self.mlp(plain_norm(x) * (1 + scale2) + shift2)


class Network(nn.Module):
    """What both have."""

    def __init__(self, heads, dim, depth, text_dim, num_text):
        super().__init__()
        self.dim, self.depth = dim, depth
        self.x_embedder, self.t_embedder = Patches(dim), Embedder(dim)
        self.t_block = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.y_embedder = CaptionEmbedder(text_dim, dim, num_text)
        self.final_layer = Final(dim)

    def texts(self, y, mask):
        y = self.y_embedder.y_proj(y)
        return [row[valid == 1] for row, valid in zip(y, mask, strict=True)]

    def unpatchify(self, x, grid):
        t, h, w = grid
        pattern = "b (t h w) (ph pw c) -> b c t (h ph) (w pw)"
        return rearrange(x, pattern, t=t, h=h, w=w, ph=2, pw=2)


def places(dim, height, width, unit_h, unit_w):
    """Of width, then of height."""
    h, w = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    grid = torch.stack((w / unit_w, h / unit_h))[:, None].double()
    return get_2d_sincos_pos_embed_from_grid(dim, grid, output_type="pt").float()


class STDiT(Network):
    """Version 1.0, for clips of one size."""

    def __init__(self, grid, **size):
        super().__init__(**size)
        self.num_frames, self.side = grid
        dim, heads, unit = size["dim"], size["heads"], grid[1] / 32
        self.blocks = nn.ModuleList(Block(dim, heads, False, True) for _ in range(size["depth"]))
        table = places(dim, self.side, self.side, unit, unit)
        self.register_buffer("pos_embed", table[None])
        frames = torch.arange(self.num_frames).double() / (2 / 3 if self.num_frames == 64 else 1)
        table = get_1d_sincos_pos_embed_from_grid(dim, frames, output_type="pt").float()
        self.register_buffer("pos_embed_temporal", table[None])

    def forward(self, x, steps, y, mask):
        x = rearrange(self.x_embedder.proj(x), "b d t h w -> b t (h w) d") + self.pos_embed
        x = x.flatten(1, 2)
        level = self.t_embedder(steps)
        shared, texts = self.t_block(level), self.texts(y, mask)
        for number, block in enumerate(self.blocks):
            frames = None if number else self.pos_embed_temporal
            x = block(x, texts, block.modulation(shared), self.num_frames, frames=frames)
        x = self.final_layer(x, level)
        return self.unpatchify(x, (self.num_frames, self.side, self.side))


class STDiT3(Network):
    """Version 1.2."""

    def __init__(self, **size):
        super().__init__(**size)
        dim, heads = size["dim"], size["heads"]
        self.fps_embedder = Embedder(dim)
        self.rope = nn.Module()
        self.rope.freqs = nn.Parameter(torch.zeros(dim // heads // 2), requires_grad=False)
        for kind in ("spatial_blocks", "temporal_blocks"):
            blocks = [Block(dim, heads, True, False) for _ in range(size["depth"])]
            setattr(self, kind, nn.ModuleList(blocks))

    def publish(self):
        """Give the rotations the frequencies of every file."""
        count = len(self.rope.freqs)
        self.rope.freqs.data = 10_000 ** (-torch.arange(count) / count)

    def forward(self, x, steps, y, mask, fps, size, is_noisy=None):
        """Latents ``(b, 4, t, h, w)`` of any size; ``is_noisy`` is True for frames with noise."""
        *_, height, width = x.shape
        x = F.pad(x, (0, width % 2, 0, height % 2))
        x = rearrange(self.x_embedder.proj(x), "b d t h w -> b t h w d")
        t, h, w = x.shape[1:4]
        base, scale = round((h * w) ** 0.5), (size[0] * size[1]) ** 0.5 / 512
        x = x + places(self.dim, h, w, scale * h / base, scale * w / base).unflatten(0, (h, w))
        x = x.flatten(1, 3)
        level = self.t_embedder(steps) + self.fps_embedder(fps)
        clean = self.t_embedder(torch.zeros_like(steps)) + self.fps_embedder(fps)
        where = None if is_noisy is None else is_noisy.repeat_interleave(h * w, dim=1)
        texts = self.texts(y, mask)
        for pair in zip(self.spatial_blocks, self.temporal_blocks, strict=True):
            for over_time, block in enumerate(pair):
                six = block.modulation(self.t_block(level), self.t_block(clean), where)
                freqs = self.rope.freqs if over_time else None
                x = block(x, texts, six, t, over_time=bool(over_time), freqs=freqs)
        x = self.final_layer(x, level, clean, where)
        return self.unpatchify(x, (t, h, w))[..., :height, :width]
