"""Tiny transformers of every published kind as diffusers builds them, and how they are called."""

import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLLTXVideo,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoImageToVideoPipeline,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    LattePipeline,
    LatteTransformer3DModel,
    LTXConditionPipeline,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    WanTransformer3DModel,
)
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video_image2video import (
    DEFAULT_PROMPT_TEMPLATE as SEEN_BY_THEM,
)
from einops import rearrange

from tests.models.unet3d_oracles import reference
from tests.pretrained.test_diffusers_vae import IMAGE as IMAGE_VAE
from tests.pretrained.tiny_llama import PATCH, SIDE, make_clip, make_llama, make_llava
from tests.pretrained.tiny_t5 import make_text_encoder, make_tokenizer
from vdm.types import Conditioning

FRAMES_FIRST = "b c t h w -> b t c h w"

COGVIDEOX = {
    "num_attention_heads": 3,
    "attention_head_dim": 16,
    "in_channels": 4,
    "out_channels": 4,
    "time_embed_dim": 20,
    "text_embed_dim": 14,
    "num_layers": 2,
    "sample_frames": 9,
    "sample_height": 8,
    "sample_width": 12,
    "max_text_seq_length": 5,
}
ROTARY = COGVIDEOX | {"use_rotary_positional_embeddings": True}
NEW = ROTARY | {"patch_size_t": 2, "patch_bias": False, "sample_height": 40, "sample_width": 40}
COGVIDEOX_KINDS = {
    "2b": COGVIDEOX,
    "5b": ROTARY,
    "5b-i2v": ROTARY | {"in_channels": 8, "use_learned_positional_embeddings": True},
    "1.5": NEW,
    "1.5-i2v": NEW | {"in_channels": 8, "ofs_embed_dim": 20},
}


def make_cogvideox(kind, scale=1.0, **more):
    """With every number drawn anew, the learned table of positions included."""
    config = COGVIDEOX_KINDS[kind] | more
    model = reference(CogVideoXTransformer3DModel, scale, **config)
    if kind == "5b-i2v":
        torch.nn.init.normal_(model.patch_embed.pos_embedding)
    return model


def call_cogvideox(model, x, steps, text, given=None):
    """As their pipelines call it; latents are ``b c t h w`` here."""
    config = model.config
    told = {"ofs": torch.tensor([2.0])} if config.ofs_embed_dim else {}
    if config.use_rotary_positional_embeddings:
        pipeline = SimpleNamespace(transformer=model, vae_scale_factor_spatial=8)
        prepare = CogVideoXImageToVideoPipeline._prepare_rotary_positional_embeddings
        sizes = (8 * x.shape[3], 8 * x.shape[4], x.shape[2])
        told["image_rotary_emb"] = prepare(pipeline, *sizes, x.device)
    both = x if given is None else torch.cat((x, given), dim=1)
    out = model(rearrange(both, FRAMES_FIRST), text, steps, **told).sample
    return rearrange(out, FRAMES_FIRST)


SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
}
VAE = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "latent_channels": 4}
LONG_TEXT = {"sample_height": 4, "sample_width": 6, "max_text_seq_length": 226}
COGVIDEOX_SIZE = (32, 48)
"""Height and width of the clips of tiny pipelines, in pixels."""


def cogvideox_pipeline(kind):
    """A whole model, for clips of 32 x 48 pixels if it is bound to a size."""
    is_new = kind.startswith("1.5")
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = make_tokenizer(Path(folder))
    more = {} if is_new else LONG_TEXT
    transformer = make_cogvideox(kind, 0.7, **more)
    factor = {"scaling_factor": 0.7, "invert_scale_latents": is_new}
    vae = reference(AutoencoderKLCogVideoX, 0.7, **VAE, norm_num_groups=2, **factor)
    made = CogVideoXDDIMScheduler if kind == "2b" else CogVideoXDPMScheduler
    scheduler = made(**SCHEDULER, snr_shift_scale=3.0 if kind == "2b" else 1.0)
    pipeline = CogVideoXImageToVideoPipeline if kind.endswith("i2v") else CogVideoXPipeline
    return pipeline(tokenizer, make_text_encoder(tokenizer), vae, transformer, scheduler)


LATTE = {
    "num_attention_heads": 3,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 2,
    "cross_attention_dim": 24,
    "attention_bias": True,
    "sample_size": 8,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "norm_type": "ada_norm_single",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-6,
    "caption_channels": 14,
    "video_length": 5,
}


def make_latte(scale=1.0, **more):
    """With every number drawn anew."""
    return reference(LatteTransformer3DModel, scale, **LATTE | more)


LATTE_SIZE = (24, 32)


def latte_pipeline():
    """A whole model, for clips of five frames."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = make_tokenizer(Path(folder))
    return LattePipeline(
        tokenizer,
        make_text_encoder(tokenizer),
        reference(
            AutoencoderKL, 0.7, **IMAGE_VAE | {"latent_channels": 4, "scaling_factor": 0.18215}
        ),
        make_latte(0.7),
        DDIMScheduler(clip_sample=False),
    )


WAN = {
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 4,
    "out_channels": 4,
    "text_dim": 14,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 32,
}


def make_wan(scale=1.0, **more):
    """With every number drawn anew."""
    return reference(WanTransformer3DModel, scale, **WAN | more)


LTX = {
    "num_attention_heads": 4,
    "attention_head_dim": 8,
    "cross_attention_dim": 32,
    "in_channels": 6,
    "out_channels": 6,
    "caption_channels": 14,
    "num_layers": 2,
}
STRIDES = (8, 32, 32)


def make_ltx(scale=1.0, **more):
    """With every number drawn anew."""
    return reference(LTXVideoTransformer3DModel, scale, **LTX | more)


def call_ltx(model, x, levels, text, mask, fps, is_late=False):
    """As its pipelines call it; latents are ``b c t h w`` here, levels one per frame or clip."""
    _, _, t, h, w = x.shape
    if levels.ndim == 2:
        levels = levels.repeat_interleave(h * w, dim=1)
    st, sh, sw = STRIDES
    places = None
    if is_late:
        ids = LTXConditionPipeline._prepare_video_ids(len(x), t, h, w)
        places = LTXConditionPipeline._scale_video_ids(ids, sh, st).float()
        places[:, 0] *= 1.0 / fps[:, None]
    out = model(
        rearrange(x, "b c t h w -> b (t h w) c"),
        text,
        levels,
        mask,
        num_frames=t,
        height=h,
        width=w,
        rope_interpolation_scale=(st / rearrange(fps, "b -> b 1 1 1 1"), sh, sw),
        video_coords=places,
    ).sample
    return rearrange(out, "b (t h w) c -> b c t h w", t=t, h=h)


LTX_SCHEDULER = {
    "use_dynamic_shifting": True,
    "base_shift": 0.95,
    "max_shift": 2.05,
    "base_image_seq_len": 1024,
    "max_image_seq_len": 4096,
    "shift_terminal": 0.1,
}
LTX_VAE = {
    "latent_channels": 6,
    "block_out_channels": (4, 6, 8, 8),
    "decoder_block_out_channels": (4, 6, 8, 8),
    "layers_per_block": (1, 1, 1, 1, 1),
    "decoder_layers_per_block": (1, 1, 1, 1, 1),
}
LTX_TOLD_VAE = LTX_VAE | {
    "decoder_block_out_channels": (8, 16, 32),
    "decoder_layers_per_block": (1, 1, 1, 1),
    "decoder_spatio_temporal_scaling": (True,) * 3,
    "decoder_inject_noise": (False,) * 4,
    "upsample_residual": (True,) * 3,
    "upsample_factor": (2,) * 3,
    "timestep_conditioning": True,
}
LTX_FOLDING_VAE = LTX_TOLD_VAE | {
    "block_out_channels": (4, 8, 8, 16, 16),
    "down_block_types": ("LTXVideo095DownBlock3D",) * 4,
    "downsample_type": ("spatial", "temporal", "spatiotemporal", "spatiotemporal"),
    "layers_per_block": (1,) * 5,
    "spatio_temporal_scaling": (True,) * 4,
    "spatial_compression_ratio": 32,
    "temporal_compression_ratio": 8,
}
LTX_CLIP = {"height": 64, "width": 96, "num_frames": 17}


def ltx_pipeline(is_told=False):
    """A whole model, whose decoder may be told how noisy latents are."""
    scheduler = FlowMatchEulerDiscreteScheduler(**LTX_SCHEDULER)
    return LTXPipeline(scheduler, *_ltx_parts(LTX_TOLD_VAE if is_told else LTX_VAE))


def ltx_condition_pipeline():
    """A whole model of version 0.9.5."""
    return LTXConditionPipeline(FlowMatchEulerDiscreteScheduler(), *_ltx_parts(LTX_FOLDING_VAE))


def _ltx_parts(settings):
    """Autoencoder, text encoder, tokenizer and network."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = make_tokenizer(Path(folder))
    vae = reference(AutoencoderKLLTXVideo, 0.7, **settings)
    torch.nn.init.normal_(vae.latents_mean)
    torch.nn.init.uniform_(vae.latents_std, 0.5, 2)
    if vae.config.timestep_conditioning:
        vae.decoder.timestep_scale_multiplier.data.fill_(900)
    return vae, make_text_encoder(tokenizer), tokenizer, make_ltx(0.7)


HUNYUAN = {
    "in_channels": 4,
    "out_channels": 4,
    "num_attention_heads": 2,
    "attention_head_dim": 10,
    "num_layers": 2,
    "num_single_layers": 1,
    "num_refiner_layers": 1,
    "text_embed_dim": 14,
    "pooled_projection_dim": 16,
    "rope_axes_dim": (2, 4, 4),
}
HUNYUAN_KINDS = {
    "t2v": {},
    "i2v-concat": {
        "in_channels": 9,
        "guidance_embeds": False,
        "image_condition_type": "latent_concat",
    },
    "i2v-replace": {"image_condition_type": "token_replace"},
}


def make_hunyuan(kind="t2v", scale=1.0, **more):
    """With every number drawn anew."""
    return reference(HunyuanVideoTransformer3DModel, scale, **HUNYUAN | HUNYUAN_KINDS[kind] | more)


def call_hunyuan(model, x, steps, cond):
    """As their pipelines call it, with what ours are told."""
    kind, text = model.config.image_condition_type, cond.text
    mask = torch.ones(text.shape[:2]) if cond.text_mask is None else cond.text_mask
    guidance = None if cond.guidance is None else 1000 * cond.guidance
    if kind == "latent_concat":
        x = torch.cat((x, cond.given, cond.given_mask), dim=1)
    elif kind == "token_replace":
        x = torch.cat((cond.given[:, :, :1], x[:, :, 1:]), dim=2)
    return model(x, steps, text, mask, cond.pooled_text, guidance).sample


def told_hunyuan(kind, shape, num_text=7):
    """What tiny networks are told of a clip: texts of different lengths, and a picture."""
    b, _, t, h, w = shape
    mask = (torch.arange(num_text) < torch.tensor([[num_text], [3]])).float()
    cond = Conditioning(torch.randn(b, num_text, 14), mask, torch.randn(b, 16))
    if kind == "i2v-concat":
        first = torch.zeros(b, 1, t, h, w)
        first[:, :, 0] = 1
        return cond.replace(given=torch.randn(shape), given_mask=first)
    cond = cond.replace(guidance=torch.tensor([6.0, 1.5]))
    return cond if kind == "t2v" else cond.replace(given=torch.randn(shape))


HUNYUAN_VAE = {
    "block_out_channels": (8, 12, 16, 12),
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 4,
    "scaling_factor": 0.7,
}


def hunyuan_pipeline(kind="t2v"):
    """A whole model."""
    pipeline, more = HunyuanVideoPipeline, {}
    if kind == "t2v":
        tokenizer, llama = make_llama(HUNYUAN["text_embed_dim"])
    else:
        tokenizer, pictures, llama = make_llava(HUNYUAN["text_embed_dim"])
        pipeline, more = HunyuanVideoImageToVideoPipeline, {"image_processor": pictures}
    clip_tokenizer, clip = make_clip(HUNYUAN["pooled_projection_dim"])
    return pipeline(
        text_encoder=llama,
        tokenizer=tokenizer,
        transformer=make_hunyuan(kind, scale=0.7),
        vae=reference(AutoencoderKLHunyuanVideo, 0.7, **HUNYUAN_VAE),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=clip,
        tokenizer_2=clip_tokenizer,
        **more,
    )


def see_little():
    """How texts are read in sight of a picture of a few parts, where the published one has more."""
    count = (SIDE // PATCH) ** 2
    return SEEN_BY_THEM | {"image_emb_len": count, "image_emb_end": 5 + count}
