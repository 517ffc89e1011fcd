"""LaVie written down plainly: diffusers' image model, and its authors' attention over time in it.

Nothing here is shared with the package: names, order of the branches, buckets of distances,
rotations and samplers are those of the authors' inference code, in the simplest form.
"""

from types import MethodType

import diffusers
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from einops import rearrange, repeat
from torch import nn
from transformers.models.t5.modeling_t5 import T5Attention

from tests.pretrained import tiny_models
from tests.pretrained.test_diffusers_unet import COMMON, TINY

SMALL = COMMON | TINY[UNet2DConditionModel]
FULL = {"cross_attention_dim": 768, "attention_head_dim": 8}  # the published size
IMAGE_MODEL = "stable-diffusion-v1-4"


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


class Release:
    """What the authors release, and what their code makes with it."""

    def __init__(self):
        self.image_model = tiny_models.image()
        self.networks = {}
        for name in ("base", "interpolation"):
            network = tiny_models.small(Network, is_base=name == "base", **SMALL)
            for module in network.modules():
                if isinstance(module, Rotary):
                    module.freqs.data = module.published()
            self.networks[name] = network
        self.base, self.interpolation = self.networks.values()

    def save_pretrained(self, folder):
        folder.mkdir(parents=True, exist_ok=True)
        self.image_model.save_pretrained(folder / IMAGE_MODEL)
        for name, network in self.networks.items():
            torch.save({"ema": network.state_dict()}, folder / f"lavie_{name}.pt")

    def words(self, texts):
        tokens = self.image_model.tokenizer(
            texts, padding="max_length", truncation=True, return_tensors="pt"
        )
        return self.image_model.text_encoder(tokens.input_ids).last_hidden_state

    def decode(self, latents):
        """Frames in [0, 1]."""
        frames = rearrange(latents / 0.18215, "b c t h w -> (b t) c h w")
        video = self.image_model.vae.decode(frames).sample
        video = rearrange(video, "(b t) c h w -> b c t h w", t=latents.shape[2])
        return (video / 2 + 0.5).clamp(0, 1)

    def text_to_latents(self, prompts, negatives, noise, steps, scale, seeds):
        """The loop of the base model's pipeline: DDPM's scheduler, its own noise for each clip."""
        scheduler = diffusers.DDPMScheduler(
            beta_start=0.0001, beta_end=0.02, beta_schedule="linear", clip_sample=False,
            steps_offset=1,
        )  # fmt: skip
        scheduler.set_timesteps(steps)
        draws = [torch.Generator().manual_seed(seed) for seed in seeds]
        wanted, unwanted = self.words(prompts), self.words(negatives)
        x = noise
        for t in scheduler.timesteps:
            cond, uncond = (self.base.on_clip(x, t, text) for text in (wanted, unwanted))
            eps = uncond + scale * (cond - uncond)
            rows = [scheduler.step(eps[k : k + 1], t, x[k : k + 1], generator=draw).prev_sample
                    for k, draw in enumerate(draws)]  # fmt: skip
            x = torch.cat(rows)
        return x

    def interpolate(self, prompts, keyframes, noise, steps, scale):
        """The loop of the interpolation: DDIM of guided diffusion, whose steps are respaced."""
        betas = torch.linspace(0.0001, 0.02, 1000, dtype=torch.float64)
        alpha_bar = torch.cumprod(1 - betas, 0)
        stride, place, kept = 999 / (steps - 1), 0.0, []
        for _ in range(steps):
            kept.append(round(place))
            place += stride
        wanted = self.words([f"{prompt}, 4k." for prompt in prompts])
        unwanted = self.words(["None"] * len(prompts))
        copied = keyframes.repeat_interleave(4, dim=2)[:, :, 1:-2]
        x = noise.double()
        for k in reversed(range(steps)):
            now, before = alpha_bar[kept[k]], alpha_bar[kept[k - 1]] if k else torch.tensor(1.0)
            both = torch.cat((x.float(), copied), dim=1)
            t = torch.tensor(kept[k])
            cond, uncond = (
                self.interpolation.on_clip(both, t, text) for text in (wanted, unwanted)
            )
            eps = (uncond + scale * (cond - uncond)).double()
            x0 = (x - (1 - now).sqrt() * eps) / now.sqrt()
            x = before.sqrt() * x0 + (1 - before).sqrt() * eps
        return x.float()
