"""Small models of every published kind, every parameter drawn anew, as diffusers builds them."""

import tempfile
from pathlib import Path

import diffusers
import torch
from diffusers.pipelines.deprecated.pia import PIAPipeline
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from tests.models.unet3d_oracles import reference
from tests.pretrained.test_diffusers_unet import COMMON, TINY
from tests.pretrained.test_diffusers_vae import IMAGE as VAE
from tests.pretrained.test_diffusers_vae import TEMPORAL as TEMPORAL_VAE
from tests.pretrained.tiny_clip import make_text_encoder, make_tokenizer

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
DDIM = SD | {"clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1}
LINEAR = DDIM | {"beta_schedule": "linear", "timestep_spacing": "linspace"}
LINEAR |= {"set_alpha_to_one": True}
KARRAS = SD | {
    "prediction_type": "v_prediction",
    "sigma_min": 0.002,
    "sigma_max": 700.0,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "use_karras_sigmas": True,
}
MOTION = {
    "block_out_channels": (32, 64),
    "motion_layers_per_block": 1,
    "motion_num_attention_heads": 2,
    "motion_norm_num_groups": 8,
}
CONTROL = {
    "block_out_channels": (32, 64),
    "down_block_types": ("CrossAttnDownBlockMotion", "DownBlockMotion"),
    "layers_per_block": 1,
    "cross_attention_dim": 16,
    "attention_head_dim": 4,
    "norm_num_groups": 8,
    "motion_num_attention_heads": 2,
    "conditioning_embedding_out_channels": (6, 10, 14),
}
"""Pixels shrink as in the tiny VAE."""
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 224,
    "patch_size": 56,
    "projection_dim": 16,
    "hidden_act": "gelu",
}


def small(cls, **config):
    """A reference of which outputs stay small, as those of trained networks do."""
    return reference(cls, 0.7, **config)


def words():
    """What models share that read text."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = make_tokenizer(Path(folder))
    vae = small(diffusers.AutoencoderKL, **VAE | {"latent_channels": 4, "scaling_factor": 0.18215})
    return {"vae": vae, "text_encoder": make_text_encoder(tokenizer), "tokenizer": tokenizer}


def modelscope():
    unet = small(diffusers.UNet3DConditionModel, **COMMON, **TINY[diffusers.UNet3DConditionModel])
    scheduler = diffusers.DDIMScheduler(**DDIM)
    return diffusers.TextToVideoSDPipeline(**words(), unet=unet, scheduler=scheduler)


def image(scheduler=None):
    kind = diffusers.UNet2DConditionModel
    return diffusers.StableDiffusionPipeline(
        **words(),
        unet=small(kind, **COMMON, **TINY[kind]),
        scheduler=scheduler or diffusers.DDIMScheduler(clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def animatelcm():
    model = animatediff()
    model.scheduler = diffusers.LCMScheduler(beta_schedule="linear", original_inference_steps=100)
    return model


def animatediff():
    kind = diffusers.UNet2DConditionModel
    return diffusers.AnimateDiffPipeline(
        **words(),
        unet=small(kind, **COMMON, **TINY[kind]),
        motion_adapter=small(diffusers.MotionAdapter, **MOTION),
        scheduler=diffusers.DDIMScheduler(**LINEAR),
    )


def sparsectrl(sees="latents"):
    sights = {"latents": 4, "pixels": 3}
    model = animatediff()
    vae = model.vae
    vae.quant_conv.weight.data[4:] = 0.0  # sure of its latents, of which they draw one
    vae.quant_conv.bias.data[4:] = -40.0
    return diffusers.AnimateDiffSparseControlNetPipeline(
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet,
        motion_adapter=model.motion_adapter,
        scheduler=model.scheduler,
        controlnet=reference(  # of which something is to be seen
            diffusers.SparseControlNetModel,
            2.0,
            **CONTROL,
            conditioning_channels=sights[sees],
            use_simplified_condition_embedding=sees == "latents",
        ),
    )


def pia():
    kind = diffusers.UNet2DConditionModel
    return PIAPipeline(
        **words(),
        unet=small(kind, **COMMON, **TINY[kind]),
        motion_adapter=small(diffusers.MotionAdapter, **MOTION, conv_in_channels=9),
        scheduler=diffusers.DDIMScheduler(**LINEAR),
    )


XL = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2),
    "attention_head_dim": (2, 4),
    "norm_num_groups": 8,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 12 + 6 * 8,
}


def image_xl():
    said = words_xl()
    return diffusers.StableDiffusionXLPipeline(
        **said,
        unet=small(diffusers.UNet2DConditionModel, **COMMON | XL | {"cross_attention_dim": 36}),
        scheduler=diffusers.EulerDiscreteScheduler(**SD),
    )


def words_xl():
    """A VAE and two text encoders."""
    said = words()
    config = said["text_encoder"].config.to_dict() | {"hidden_size": 20, "projection_dim": 12}
    torch.manual_seed(1)
    second = CLIPTextModelWithProjection(CLIPTextConfig(**config)).eval()
    for parameter in second.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return said | {"text_encoder_2": second, "tokenizer_2": said["tokenizer"]}


def animatediff_xl():
    unet = small(diffusers.UNet2DConditionModel, **COMMON | XL | {"cross_attention_dim": 16 + 20})
    model = diffusers.AnimateDiffSDXLPipeline(
        **words_xl(),
        unet=unet,
        motion_adapter=small(diffusers.MotionAdapter, **MOTION | {"use_motion_mid_block": False}),
        scheduler=diffusers.DDIMScheduler(**LINEAR),
    )
    # Which it forgets when it takes over an image model.
    model.unet.add_embedding.load_state_dict(unet.add_embedding.state_dict())
    return model


def svd():
    kind = diffusers.UNetSpatioTemporalConditionModel
    torch.manual_seed(0)
    encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION)).eval()
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return diffusers.StableVideoDiffusionPipeline(
        vae=small(diffusers.AutoencoderKLTemporalDecoder, **TEMPORAL_VAE),
        image_encoder=encoder,
        unet=small(kind, **COMMON, **TINY[kind], num_frames=4),
        scheduler=diffusers.EulerDiscreteScheduler(**KARRAS),
        feature_extractor=CLIPImageProcessor(
            do_resize=False, do_center_crop=False, do_rescale=False, do_normalize=True
        ),
    )
