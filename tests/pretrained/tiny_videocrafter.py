"""Small VideoCrafters of others' parts, and the single files that their authors would make of them.

The networks are diffusers' with plain code for what differs, the words and pictures go through
open-clip, the picture's tokens through diffusers' resampler of IP-Adapter.
"""

import contextlib
import re
from functools import cache, partial
from types import SimpleNamespace
from unittest import mock

import diffusers
import open_clip
import torch
from diffusers.models.embeddings import IPAdapterPlusImageProjection
from diffusers.pipelines.stable_video_diffusion.pipeline_stable_video_diffusion import (
    _resize_with_antialiasing,
)
from einops import rearrange

from tests.diffusion.videocrafter_loop import authors_loop
from tests.models.unet3d_oracles import reference
from tests.models.videocrafter_oracles import Reference
from tests.pretrained.test_original_svd import vae_state
from tests.pretrained.test_original_unet import original
from vdm.conditioning.clip_image import MEAN, STD
from vdm.conditioning.resampler import ResamplerSize
from vdm.models import unet3d_presets as presets
from vdm.models.unet3d_blocks import Heads
from vdm.pretrained import original_videocrafter, sources
from vdm.pretrained.original_text import VIT_H_PENULTIMATE, open_clip_tokenizer
from vdm.pretrained.original_videocrafter import Sizes, read_videocrafter

FADES = {"videocrafter2": 0.7, "videocrafter1_1024": 0.3, "videocrafter1_image": 0.7}
SCALE, WIDTH, LAYERS = 0.18215, 16, 3
VAE = {
    "block_out_channels": (32, 64),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "scaling_factor": SCALE,
}
VISION = {"layers": 2, "width": 24, "head_width": 8, "image_size": 224, "patch_size": 56}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": 2, "layers": LAYERS}
RESAMPLER = ResamplerSize(dim=20, out_dim=WIDTH, num_tokens=4, depth=2, num_heads=3, head_dim=8)
SIZES = Sizes(
    presets.Size(Heads(dim=8), widths=(32, 64), depth=1, attention=(1, 0, 1), context_dim=WIDTH),
    {"widths": (32, 64), "depth": 1, "num_groups": 8},
    VIT_H_PENULTIMATE
    | {"hidden_size": WIDTH, "intermediate_size": 64, "num_attention_heads": 2}
    | {"num_hidden_layers": LAYERS - 1},
    {
        "hidden_size": 24,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 224,
        "patch_size": 56,
        "projection_dim": WIDTH,
        "hidden_act": "gelu",
    },
    RESAMPLER,
)
IN_ATTENTION = {
    "processor.table_k": "relative_position_k.embeddings_table",
    "processor.table_v": "relative_position_v.embeddings_table",
    "processor.to_k_ip.0.weight": "to_k_ip.weight",
    "processor.to_v_ip.0.weight": "to_v_ip.weight",
}
RESAMPLER_NAMES = [
    (r"\.ln0\.", ".0.norm1."),
    (r"\.ln1\.", ".0.norm2."),
    (r"\.attn\.to_out\.0\.", ".0.to_out."),
    (r"\.attn\.", ".0."),
    (r"\.ff\.0\.", ".1.0."),
    (r"\.ff\.1\.net\.0\.proj\.", ".1.1."),
    (r"\.ff\.1\.net\.2\.", ".1.3."),
]


cached_words = cache(open_clip_tokenizer)


@contextlib.contextmanager
def tiny_sizes():
    """Files are read in sizes that no published one has, the vocabulary only once."""
    read = partial(read_videocrafter, sizes=SIZES)
    with (
        mock.patch.object(sources, "read_videocrafter", read),
        mock.patch.object(original_videocrafter, "open_clip_tokenizer", cached_words),
    ):
        yield


def redrawn(module, std=0.3):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return module.eval().requires_grad_(False)


class TinyVideoCrafter:
    """One of the models.

    Args:
        kind: Which network.
    """

    def __init__(self, kind):
        torch.manual_seed(0)
        self.kind, self.fade = kind, FADES.get(kind)
        self.network = Reference(kind, 0.7, RESAMPLER.num_tokens)
        self.vae = reference(diffusers.AutoencoderKL, 0.7, **VAE)
        self.words = redrawn(open_clip.CLIP(WIDTH, VISION, TEXT))
        self.has_picture = kind == "videocrafter1_image"
        if self.has_picture:
            self.tower = redrawn(open_clip.CLIP(WIDTH, VISION, TEXT))
            self.resampler = redrawn(
                IPAdapterPlusImageProjection(24, WIDTH, 20, 2, dim_head=8, heads=3, num_queries=4)
            )

    @torch.no_grad()
    def encode_words(self, texts):
        """States of the last layer but one, normalised as the last."""
        x = self.words.token_embedding(open_clip.tokenize(texts)) + self.words.positional_embedding
        for block in self.words.transformer.resblocks[:-1]:
            x = block(x, attn_mask=self.words.attn_mask)
        return self.words.ln_final(x)

    @torch.no_grad()
    def encode_picture(self, pictures):
        """Tokens of pictures in [-1, 1]."""
        small = (_resize_with_antialiasing(pictures, (224, 224)) + 1) / 2
        mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
        visual = self.tower.visual
        x = rearrange(visual.conv1((small - mean) / std), "b c h w -> b (h w) c")
        first = visual.class_embedding.expand(len(x), 1, -1)
        x = visual.ln_pre(torch.cat((first, x), dim=1) + visual.positional_embedding)
        for block in visual.transformer.resblocks:
            x = block(x)
        return self.resampler(x)

    @torch.no_grad()
    def __call__(self, prompts, negative, noise, draw, steps, scale, fps=None, pictures=None):
        """Frames in [0, 1], as the authors make them."""
        rates = {} if fps is None else {"fps": torch.full((len(noise),), float(fps))}
        wanted = {"text": self.encode_words(prompts), **rates}
        unwanted = {"text": self.encode_words(negative), **rates}
        if pictures is not None:
            wanted["image"] = self.encode_picture(pictures)
            grey = self.encode_picture(torch.zeros(1, 3, 224, 224))
            unwanted["image"] = grey.expand(len(noise), -1, -1)

        def predict(x, k):
            entries = torch.full((len(x),), float(k))
            eps, other = (self.network(x, entries, **told) for told in (wanted, unwanted))
            return other + scale * (eps - other)

        latents = authors_loop(predict, noise, draw, steps, self.fade)
        frames = rearrange(latents / SCALE, "b c t h w -> (b t) c h w")
        made = self.vae.decode(frames).sample
        made = rearrange(made, "(b t) c h w -> b c t h w", b=len(noise))
        return ((made + 1) / 2).clamp(0, 1)

    def state(self):
        """The tensors of the authors' file."""
        parts = {
            "model.diffusion_model.": self._unet(),
            "first_stage_model.": vae_state(self.vae),
            "cond_stage_model.model.": without(self.words, "visual."),
            "": self._tables(),
        }
        if self.has_picture:
            parts["embedder.model."] = without(self.tower, "transformer.")
            parts["image_proj_model."] = self._resampler()
        return {
            f"{prefix}{key}": value.detach().contiguous().clone()
            for prefix, part in parts.items()
            for key, value in part.items()
        }

    def _unet(self):
        state = self.network.state()
        rest = {key: state.pop(key) for key in list(state) if key.startswith("fps_embedding.")}
        module = SimpleNamespace(state_dict=lambda: state)
        named = original(module, {"up": "1", "last": "3", "kernels": False})
        for key, value in named.items():
            name = key.replace("input_blocks.0.1.", "init_attn.0.")
            for theirs, authors in IN_ATTENTION.items():
                name = name.replace(theirs, authors)
            # The first transformer's maps are convolutions, those of the others are not.
            is_kernel = re.search(r"^init_attn\.0\.proj_(in|out)\.weight$", name)
            rest[name] = value[..., None] if is_kernel else value
        return rest

    def _resampler(self):
        state, found = self.resampler.state_dict(), {}
        for key, value in state.items():
            name = key
            for theirs, authors in RESAMPLER_NAMES:
                name = re.sub(theirs, authors, name)
            if ".attn.to_k." in key:
                both = (value, state[key.replace("to_k", "to_v")])
                found[name.replace("to_k", "to_kv")] = torch.cat(both)
            elif ".attn.to_v." not in key:
                found[name] = value
        return found

    def _tables(self):
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        tables = {"betas": betas, "alphas_cumprod": torch.cumprod(1 - betas, 0)}
        if self.fade is not None:
            surplus = 600 if self.kind == "videocrafter1_1024" else 1000
            ends = torch.full((surplus,), self.fade)
            tables["scale_arr"] = torch.cat((torch.linspace(1, self.fade, 400), ends))
        return {name: table.float() for name, table in tables.items()}


def without(module, prefix):
    return {k: v for k, v in module.state_dict().items() if not k.startswith(prefix)}
