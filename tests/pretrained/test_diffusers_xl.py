"""AnimateDiff on Stable Diffusion XL: two text encoders, told sizes, every weight in its place."""

import diffusers
import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from safetensors.torch import save_file

import vdm
from tests.pretrained.test_diffusers_pipeline import agree
from tests.pretrained.test_diffusers_unet import COMMON
from tests.pretrained.test_lora import draw
from tests.pretrained.tiny_models import XL, animatediff_xl, small
from vdm.models.unet3d_presets import SDXL, animatediff, stable_diffusion_15
from vdm.pretrained.diffusers_folder import load_unet, save_unet
from vdm.pretrained.diffusers_unet import entries
from vdm.pretrained.diffusers_unet_config import unet_from_config
from vdm.pretrained.keymap import to_foreign
from vdm.pretrained.layout import read_folder
from vdm.utils.config import describe

FULL = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (320, 640, 1280),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
ADAPTER = {"block_out_channels": (320, 640, 1280), "use_motion_mid_block": False}
IMAGE_COUNT, MOTION_COUNT = 2_567_463_684, 236_779_200


def config_of(model):
    return {**model.config, "_class_name": type(model).__name__}


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_full_size_is_the_published_one_key_by_key():
    with torch.device("meta"):
        image, adapter = UNet2DConditionModel(**FULL), MotionAdapter(**ADAPTER)
        ours, family = unet_from_config(config_of(image), motion=config_of(adapter))
        alone, _ = unet_from_config(config_of(image))
        presets = animatediff(SDXL, "v3"), stable_diffusion_15(SDXL)
        found = to_foreign(ours.state_dict(), entries(ours, family))
    assert (count(ours), count(alone)) == (IMAGE_COUNT + MOTION_COUNT, IMAGE_COUNT)
    assert [describe(one) for one in presets] == [describe(ours), describe(alone)]
    expected = {
        key: value.shape
        for key, value in {**image.state_dict(), **adapter.state_dict()}.items()
        if not key.endswith("pos_embed.pe")
    }
    assert {key: value.shape for key, value in found.items()} == expected


def test_networks_are_written_back_as_there(tmp_path):
    theirs = animatediff_xl().unet
    theirs.save_pretrained(tmp_path / "theirs")
    ours = load_unet(tmp_path / "theirs")
    save_unet(ours, tmp_path / "ours")
    again = UNetMotionModel.from_pretrained(tmp_path / "ours").state_dict()
    assert again.keys() == theirs.state_dict().keys()
    assert all(torch.equal(value, again[key]) for key, value in theirs.state_dict().items())
    image = small(UNet2DConditionModel, **COMMON | XL)
    image.save_pretrained(tmp_path / "image")
    save_unet(load_unet(tmp_path / "image"), tmp_path / "again")
    back = UNet2DConditionModel.from_pretrained(tmp_path / "again").state_dict()
    assert all(torch.equal(value, back[key]) for key, value in image.state_dict().items())


@pytest.fixture
def theirs():
    model = animatediff_xl()
    model.set_progress_bar_config(disable=True)
    return model


@pytest.mark.filterwarnings("ignore:.*was not trained on")
def test_an_image_model_moves_and_zeros_stand_for_what_is_not_said(theirs, tmp_path):
    names = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    image = diffusers.StableDiffusionXLPipeline(
        **{name: getattr(theirs, name) for name in names},
        unet=small(UNet2DConditionModel, **COMMON | XL | {"cross_attention_dim": 36}),
        scheduler=diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear"),
    )
    image.save_pretrained(tmp_path / "image")
    theirs.motion_adapter.save_pretrained(tmp_path / "motion")
    second = theirs.text_encoder_2.text_model.encoder.layers[0].self_attn.q_proj
    down, up = draw(second)
    name = "text_encoder_2.text_model.encoder.layers.0.self_attn.q_proj"
    state = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    save_file(state, tmp_path / "words.safetensors")
    second.weight.data += up @ down
    ours = vdm.load(
        tmp_path / "image", motion=tmp_path / "motion", lora=tmp_path / "words.safetensors"
    )
    assert ours.parts.system == "AnimateDiff SDXL"
    assert ours.parts.defaults.guidance_scale == 5.0
    noise, common = torch.randn(1, 4, 3, 6, 10), {"height": 24, "width": 40, "guidance_scale": 4.0}
    asked = {"num_frames": 3, "num_inference_steps": 2, "output_type": "pt", "latents": noise}
    told = {"num_frames": 3, "steps": 2, "noise": noise, "progress": False, **common}
    unsaid = ours("a cat", **told).frames
    agree(unsaid, theirs("a cat", **asked, **common).frames.transpose(1, 2))
    empty = ours("a cat", negative_prompt="", **told).frames
    assert not torch.allclose(unsaid, empty, atol=1e-3)
    larger = ours("a cat", cond={"size": [[48.0, 80.0]]}, **told).frames
    assert not torch.allclose(unsaid, larger, atol=1e-3)
    vdm.pretrained.export(ours, tmp_path / "ours", layout="vdm")
    again = vdm.Generator(read_folder(tmp_path / "ours"))
    assert torch.equal(again("a cat", **told).frames, unsaid)


def test_what_belongs_to_the_other_kind_is_refused():
    with torch.device("meta"):
        config = config_of(UNet2DConditionModel(**COMMON | XL))
    for change, message in (
        ({"addition_embed_type": "image"}, "got addition_embed_type='image', expected 'text_time'"),
        ({"use_linear_projection": False}, "got use_linear_projection=False, expected True"),
        ({"addition_embed_type": None}, "got use_linear_projection=True, expected False"),
    ):
        with pytest.raises(ValueError, match=message):
            unet_from_config(config | change)
