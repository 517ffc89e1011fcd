"""Published models in full size without a single weight: the settings of every part, in folders."""

import functools
import json

import diffusers
import torch
from transformers import CLIPImageProcessor

from tests.pretrained.tiny_models import DDIM, KARRAS, LINEAR
from tests.pretrained.tiny_t5 import make_tokenizer
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
WAN_PICTURE = {"image_dim": 1280, "added_kv_proj_dim": 5120}
UMT5_XXL = {
    "vocab_size": 256384,
    "d_model": 4096,
    "d_kv": 64,
    "d_ff": 10240,
    "num_layers": 24,
    "num_heads": 64,
    "feed_forward_proj": "gated-gelu",
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


def write_wan(folder, version):
    """Wan's large model of pictures: 2.1 is told them in tokens too, 2.2 has two networks."""
    has_tokens = version == "2.1"
    network = {"in_channels": 36} | (WAN_PICTURE if has_tokens else {})
    parts = {"transformer": (diffusers.WanTransformer3DModel, network)}
    parts["vae"] = (diffusers.AutoencoderKLWan, {})
    encoders = {"text_encoder": ("UMT5EncoderModel", UMT5_XXL | {"model_type": "umt5"})}
    index = {"tokenizer": ["transformers", "T5Tokenizer"]}
    if has_tokens:
        tower = {key: value for key, value in VIT_H.items() if key != "projection_dim"}
        encoders["image_encoder"] = ("CLIPVisionModel", tower | {"model_type": "clip_vision_model"})
        CLIPImageProcessor().save_pretrained(folder / "image_processor")
        index["image_processor"] = ["transformers", "CLIPImageProcessor"]
    else:
        parts["transformer_2"] = parts["transformer"]
        index["boundary_ratio"] = 0.9
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 5.0}
    make_tokenizer(folder / "tokenizer")
    _write(folder, "WanImageToVideoPipeline", parts, flow, **encoders)
    index = json.loads((folder / "model_index.json").read_text()) | index
    _write_json(folder / "model_index.json", index)
    return folder


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
    cls = "EulerDiscreteScheduler" if scheduler is KARRAS else "DDIMScheduler"
    cls = "UniPCMultistepScheduler" if "use_flow_sigmas" in scheduler else cls
    _write_json(folder / "scheduler" / "scheduler_config.json", {"_class_name": cls, **scheduler})
    index["scheduler"] = ["diffusers", cls]
    _write_json(folder / "model_index.json", index)
    return folder


def _write_json(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))
