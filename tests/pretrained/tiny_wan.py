"""Tiny whole models of Wan as diffusers builds them, and the frames that they make."""

import tempfile
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLWan,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
)
from torchvision.transforms.functional import to_pil_image
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    UMT5Config,
    UMT5EncoderModel,
)

from tests.models.unet3d_oracles import reference
from tests.pretrained.parity_common import quietly
from tests.pretrained.test_diffusers_causal_vae import TINY
from tests.pretrained.tiny_dit import make_wan
from tests.pretrained.tiny_t5 import make_tokenizer

PROMPTS, NEGATIVE, SEEDS = ["a cat  runs", "the dogs &amp; a bird"], "rain", [11, 5]
CHANNELS = 5
BOUNDARY = 0.9
WAN_21, WAN_22 = TINY["Wan 2.1"][1], TINY["Wan 2.2"][1]


def make_umt5(tokenizer):
    """Every parameter drawn anew; few of 512 tokens are words, so these are large."""
    config = UMT5Config(
        vocab_size=len(tokenizer),
        d_model=14,
        d_kv=6,
        d_ff=20,
        num_layers=2,
        num_heads=3,
        feed_forward_proj="gated-gelu",
    )
    torch.manual_seed(0)
    model = UMT5EncoderModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.normal_(model.encoder.final_layer_norm.weight, std=5.0)
    return model


IMAGE_DIM, SIDE = 10, 8
NUM_IMAGE = 1 + (SIDE // 4) ** 2
"""Tokens of a picture."""


def make_image_encoder(dim=IMAGE_DIM, num_heads=2):
    """Every parameter drawn anew, and what prepares pictures for it."""
    config = CLIPVisionConfig(
        hidden_size=dim,
        intermediate_size=12,
        num_hidden_layers=3,
        num_attention_heads=num_heads,
        image_size=SIDE,
        patch_size=4,
        hidden_act="gelu",
    )
    torch.manual_seed(0)
    model = CLIPVisionModel(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    sides = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    return {"image_encoder": model, "image_processor": CLIPImageProcessor(**sides)}


GIVEN = {"in_channels": 2 * CHANNELS + 4}
PICTURE = GIVEN | {"image_dim": IMAGE_DIM, "added_kv_proj_dim": 24}
PICTURES = PICTURE | {"pos_embed_seq_len": 2 * NUM_IMAGE}
"""What a network is told is in its settings: given frames, and in tokens one picture or two."""


def make_network(is_second=False, **more):
    """A network, or another one of the same kind."""
    theirs = make_wan(**{"in_channels": CHANNELS, "out_channels": CHANNELS} | more)
    for name, parameter in theirs.named_parameters():
        if "pos_embed" in name:
            torch.nn.init.normal_(parameter)
        if is_second:
            parameter.data = parameter.roll(1, 0)
    return theirs


def base_parts(vae, shift=3.0):
    """Everything but the network, by part."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = make_tokenizer(Path(folder))
    return {
        "tokenizer": tokenizer,
        "text_encoder": make_umt5(tokenizer),
        "vae": reference(AutoencoderKLWan, **vae),
        "scheduler": UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
        ),
    }


def wan_t2v():
    """Words to video with one network."""
    return WanPipeline(**base_parts(WAN_21), transformer=make_network())


def wan_t2v_a14b():
    """Two networks."""
    both = {"transformer": make_network(), "transformer_2": make_network(True)}
    return WanPipeline(**base_parts(WAN_21, 5.0), **both, boundary_ratio=BOUNDARY)


def wan_ti2v_5b():
    """One network that is told a noise level for every token."""
    return WanPipeline(**base_parts(WAN_22, 5.0), transformer=make_network(), expand_timesteps=True)


def wan_i2v():
    """A picture in tokens and beside the noise."""
    parts = base_parts(WAN_21) | make_image_encoder()
    return WanImageToVideoPipeline(**parts, transformer=make_network(**PICTURE))


def wan_flf2v():
    """Two of them."""
    parts = base_parts(WAN_21, 16.0) | make_image_encoder()
    return WanImageToVideoPipeline(**parts, transformer=make_network(**PICTURES))


def wan_i2v_a14b():
    """Two networks that are shown a picture beside the noise alone."""
    both = {"transformer": make_network(**GIVEN), "transformer_2": make_network(True, **GIVEN)}
    return WanImageToVideoPipeline(**base_parts(WAN_21, 5.0), **both, boundary_ratio=BOUNDARY)


PIPELINES = {
    "Wan2.1-T2V": wan_t2v,
    "Wan2.1-I2V-14B": wan_i2v,
    "Wan2.1-FLF2V-14B": wan_flf2v,
    "Wan2.2-T2V-A14B": wan_t2v_a14b,
    "Wan2.2-I2V-A14B": wan_i2v_a14b,
    "Wan2.2-TI2V-5B": wan_ti2v_5b,
}
"""What makes each system."""


def size_of(system):
    """Height and width of tiny clips."""
    return (64, 32) if system == "Wan2.2-TI2V-5B" else (32, 48)


def pictures_for(system):
    """The pictures that a system cannot do without."""
    noise = torch.rand(2, 3, 30, 50, generator=torch.Generator().manual_seed(1))
    first, last = (to_pil_image(picture) for picture in noise)
    found = {"image": first, "last_image": last}
    return dict(list(found.items())[: (2 if "FLF2V" in system else "-I2V" in system)])


def moving(theirs):
    """The same model as one that moves pictures."""
    settings = {"boundary_ratio", "expand_timesteps"}
    told = {name: getattr(theirs.config, name) for name in settings}
    return WanImageToVideoPipeline(**theirs.components, **told)


def their_frames(pipeline, size, **more):
    """Two clips, guidance on."""
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        prompt=PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        height=size[0],
        width=size[1],
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
        output_type="pt",
        **more,
    )
    return made.frames.transpose(1, 2)


def our_frames(generate, size, **more):
    """The same here."""
    return quietly(
        generate,
        PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        height=size[0],
        width=size[1],
        seed=SEEDS,
        **more,
    ).frames
