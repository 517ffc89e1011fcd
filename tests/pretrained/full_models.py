"""Published models in full size without a single weight: the settings of every part, in folders."""

import functools
import json

import diffusers
import torch

from tests.pretrained.tiny_models import DDIM, KARRAS, LINEAR
from vdm.pretrained.original_svd import VIT_H
from vdm.pretrained.original_text import VIT_H_PENULTIMATE, open_clip_tokenizer

VIT_L = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
}
SIDES = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2}
SIDES |= {"down_block_types": ("DownEncoderBlock2D",) * 4}
VAE = (diffusers.AutoencoderKL, SIDES | {"up_block_types": ("UpDecoderBlock2D",) * 4})
TEMPORAL_VAE = (diffusers.AutoencoderKLTemporalDecoder, SIDES)
SVD = (diffusers.UNetSpatioTemporalConditionModel, {})
MODELSCOPE = (diffusers.UNet3DConditionModel, {"sample_size": 32})
SD15 = (diffusers.UNet2DConditionModel, {"cross_attention_dim": 768, "sample_size": 64})
MOTION = (diffusers.MotionAdapter, {"use_motion_mid_block": False})
MOTION_2 = (diffusers.MotionAdapter, {})


def on_meta(case):
    cls, config = case
    return _on_meta(cls, tuple(config.items()))


@functools.lru_cache(maxsize=2)
def _on_meta(cls, config):
    with torch.device("meta"):
        return cls(**dict(config))


def write_svd(folder):
    features = {"image_processor_type": "CLIPImageProcessor"}
    _write_json(folder / "feature_extractor" / "preprocessor_config.json", features)
    parts = {"unet": SVD, "vae": TEMPORAL_VAE}
    encoder = VIT_H | {"model_type": "clip_vision_model"}
    kind = "CLIPVisionModelWithProjection"
    return _write(
        folder, "StableVideoDiffusionPipeline", parts, KARRAS, image_encoder=(kind, encoder)
    )


def write_modelscope(folder, unet=MODELSCOPE):
    return _write_words(folder, "TextToVideoSDPipeline", unet, DDIM, VIT_H_PENULTIMATE)


def write_image(folder):
    return _write_words(folder, "StableDiffusionPipeline", SD15, LINEAR, VIT_L)


def write_motion(folder, motion=MOTION_2):
    on_meta(motion).save_config(folder)
    return folder


def _write_words(folder, kind, unet, scheduler, config):
    (folder / "tokenizer").mkdir(parents=True)
    for name, text in open_clip_tokenizer().items():
        (folder / "tokenizer" / name).write_text(text)
    encoder = ("CLIPTextModel", config | {"model_type": "clip_text_model"})
    _write(folder, kind, {"unet": unet, "vae": VAE}, scheduler, text_encoder=encoder)
    index = json.loads((folder / "model_index.json").read_text())
    index["tokenizer"] = ["transformers", "CLIPTokenizer"]
    _write_json(folder / "model_index.json", index)
    return folder


def _write(folder, kind, parts, scheduler, **encoders):
    index = {"_class_name": kind}
    for name, case in parts.items():
        on_meta(case).save_config(folder / name)
        index[name] = ["diffusers", case[0].__name__]
    for name, (cls, config) in encoders.items():
        _write_json(folder / name / "config.json", config)
        index[name] = ["transformers", cls]
    is_euler = scheduler is KARRAS
    cls = "EulerDiscreteScheduler" if is_euler else "DDIMScheduler"
    _write_json(folder / "scheduler" / "scheduler_config.json", {"_class_name": cls, **scheduler})
    index["scheduler"] = ["diffusers", cls]
    _write_json(folder / "model_index.json", index)
    return folder


def _write_json(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
