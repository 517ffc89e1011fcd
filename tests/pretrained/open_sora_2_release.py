"""What the authors of Open-Sora 2.0 release, small and drawn at random, and what they make of it.

The network is FLUX's in diffusers, told patches of what is given beside those of the noise.
"""

import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import torch
from diffusers import AutoencoderKLHunyuanVideo, FluxTransformer2DModel
from safetensors.torch import save_file

from tests.models.test_dual_stream_presets import from_flux
from tests.models.unet3d_oracles import reference
from tests.pretrained.tiny_dit import HUNYUAN_VAE
from tests.pretrained.tiny_llama import make_clip
from tests.pretrained.tiny_t5 import make_text_encoder, make_tokenizer
from vdm.layers.embeddings import patchify, unpatchify
from vdm.models.dual_stream_presets import DualStreamSize, open_sora_2
from vdm.pretrained.keymap import to_foreign
from vdm.pretrained.original_causal_vae import KNOWN
from vdm.pretrained.original_dual_stream import OPEN_SORA_ORIGINAL, dual_stream_entries
from vdm.pretrained.original_open_sora_2 import CLIP, NETWORK, T5, VAE

C, PATCH, FACTOR = 4, (1, 2, 2), HUNYUAN_VAE["scaling_factor"]
SIZE = DualStreamSize(2, 32, (2, 1), C, 14, 16, (4, 14, 14))
FLUX = {
    "patch_size": 1,
    "in_channels": 4 * C + 4 * (C + 1),
    "out_channels": 4 * C,
    "num_layers": 2,
    "num_single_layers": 1,
    "attention_head_dim": 32,
    "num_attention_heads": 2,
    "joint_attention_dim": 14,
    "pooled_projection_dim": 16,
    "axes_dims_rope": (4, 14, 14),
}


def small_vae():
    """While this is open, files hold a small VAE."""
    vae = KNOWN["hunyuan_video"]
    return patch.dict(KNOWN, {"hunyuan_video": replace(vae, config=vae.config | HUNYUAN_VAE)})


class ReleaseV2:
    """All of its parts."""

    def __init__(self):
        with tempfile.TemporaryDirectory() as folder:
            self.tokenizer = make_tokenizer(Path(folder))
        self.t5 = make_text_encoder(self.tokenizer)
        self.clip_tokenizer, self.clip = make_clip(SIZE.pooled_dim)
        self.network = reference(FluxTransformer2DModel, 0.7, **FLUX)
        self.vae = reference(AutoencoderKLHunyuanVideo, 0.7, **HUNYUAN_VAE)
        self.vae.use_framewise_encoding = self.vae.use_framewise_decoding = False

    def save_pretrained(self, folder):
        ours = from_flux(self.network, open_sora_2(SIZE))
        state = to_foreign(ours.state_dict(), dual_stream_entries(ours, OPEN_SORA_ORIGINAL))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(state, folder / NETWORK)
        save_file(self.vae.state_dict(), folder / VAE)
        for part in (self.t5, self.tokenizer):
            part.save_pretrained(folder / T5)
        for part in (self.clip, self.clip_tokenizer):
            part.save_pretrained(folder / CLIP)

    def encode(self, texts):
        """States of 512 tokens, all of which are read, and a vector."""
        told = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        words = self.tokenizer(texts, max_length=512, **told).input_ids
        marks = self.clip_tokenizer(texts, max_length=77, **told).input_ids
        return self.t5(words).last_hidden_state, self.clip(marks).pooler_output

    def predict(self, x, t, text, pooled, mask, given):
        """The velocity of latents at noise times."""
        both = torch.cat((mask.expand(len(x), -1, -1, -1, -1), given * mask), dim=1)
        parts = [patchify(part, PATCH) for part in (x, both)]
        grid = parts[0].shape[1:4]
        places = torch.cartesian_prod(*(torch.arange(float(size)) for size in grid))
        found = self.network(
            hidden_states=torch.cat(parts, dim=-1).flatten(1, 3),
            encoder_hidden_states=text,
            pooled_projections=pooled,
            timestep=t,
            img_ids=places.reshape(-1, 3),
            txt_ids=torch.zeros(text.shape[1], 3),
        ).sample
        return unpatchify(found.unflatten(1, grid), PATCH)

    def sample(self, prompts, noise, steps, given=None, mask=None):
        """The loop of its code; pictures are given at the beginning, at the end or at both."""
        is_led = given is not None
        if not is_led:
            given, mask = torch.zeros_like(noise), torch.zeros_like(noise[:1, :1])
        b, _, count, h, w = noise.shape
        told, empty = self.encode(prompts), self.encode([""] * b)
        shift = (1 + 2 / 3840 * (h * w // 4 - 256)) * count**0.5
        times = torch.linspace(1, 0, steps + 1)
        times = (shift * times / (1 + (shift - 1) * times)).tolist()
        x = noise
        for step, (t, after) in enumerate(pairwise(times)):
            level, blind = torch.full((b,), t), torch.zeros_like(mask)
            cond = self.predict(x, level, *told, mask, given)
            wordless = self.predict(x, level, *empty, mask, given)
            neither = self.predict(x, level, *empty, blind, given)
            is_steady = step >= 10 and step % 2
            words, frames = (1.0, 1.0) if is_steady else (7.5, 3.0)
            if frames > 1 and is_led:
                last = torch.linspace(frames, 1.0, steps + 1)[step]
                frames = torch.linspace(1.0, float(last), count)[:, None, None]
            v = neither + frames * (wordless - neither) + words * (cond - wordless)
            x = x + (after - t) * v
        return torch.where(mask == 1, given, x)

    def decode(self, latents):
        """Frames in [0, 1]."""
        return (self.vae.decode(latents / FACTOR).sample / 2 + 0.5).clamp(0, 1)

    def look(self, pictures):
        """Latents of pictures in [0, 1], each a clip of its own."""
        return FACTOR * self.vae.encode(2 * pictures[:, :, None] - 1).latent_dist.mean
