"""SparseCtrl out of diffusers' folders and its authors' files steers as there."""

import pytest
import torch
from diffusers import SparseControlNetModel
from torchvision.transforms.functional import to_pil_image

import vdm
from tests.models.unet3d_oracles import relative_error
from tests.pretrained.test_diffusers_pipeline import agree
from tests.pretrained.tiny_models import CONTROL, animatediff, image, small, sparsectrl
from vdm.pretrained.diffusers_control import control_from_config, load_control
from vdm.types import Conditioning

SEES = {
    "latents": {"conditioning_channels": 4},
    "pixels": {"conditioning_channels": 3, "use_simplified_condition_embedding": False},
}
COUNTS = {"latents": 496_730_880, "pixels": 497_802_784}
# From the names in diffusers to those of the authors, one by one.
ORIGINAL = {
    ".norm.": ".temporal_transformer.norm.",
    ".proj_in.": ".temporal_transformer.proj_in.",
    ".proj_out.": ".temporal_transformer.proj_out.",
    ".transformer_blocks.": ".temporal_transformer.transformer_blocks.",
    ".pos_embed.": ".attention_blocks.0.pos_encoder.",
    ".attn1.": ".attention_blocks.0.",
    ".norm1.": ".norms.0.",
    ".norm3.": ".ff_norm.",
}


def original(control):
    state = {}
    for key, value in control.state_dict().items():
        for theirs, authors in ORIGINAL.items() if "motion_modules" in key else ():
            key = key.replace(theirs, authors)
        state[f"module.{key}"] = value
    return {"controlnet": state, "epoch": 3}


def config_of(model):
    return {**model.config, "_class_name": type(model).__name__}


@pytest.mark.parametrize("sees", SEES)
def test_it_adds_what_theirs_adds(sees, tmp_path):
    theirs = small(SparseControlNetModel, **CONTROL, **SEES[sees])
    theirs.save_pretrained(tmp_path)
    ours = load_control(tmp_path)
    side = 1 if sees == "latents" else 4
    x, text, steps = torch.randn(2, 4, 3, 6, 10), torch.randn(2, 5, 16), torch.tensor([981.0, 41.0])
    mask = torch.zeros(2, 1, 3, 6 * side, 10 * side)
    mask[:, :, 1:] = 1
    given = mask * torch.randn(2, SEES[sees]["conditioning_channels"], 3, 6 * side, 10 * side)
    with torch.no_grad():
        down, middle = theirs(
            x,
            steps,
            text.repeat_interleave(3, 0),
            given,
            conditioning_mask=mask,
            return_dict=False,
        )
        found = ours(x, steps, Conditioning(text=text, given=given, given_mask=mask))
    for one, other in zip(found, [*down, middle], strict=True):
        assert relative_error(one, other.unflatten(0, (2, 3)).transpose(1, 2)) < 1e-5


@pytest.mark.parametrize("sees", SEES)
def test_the_full_size_has_the_published_number_of_parameters(sees):
    with torch.device("meta"):
        ours = control_from_config(config_of(SparseControlNetModel(**SEES[sees])))
    assert sum(parameter.numel() for parameter in ours.parameters()) == COUNTS[sees]


@pytest.mark.parametrize("sees", SEES)
def test_the_authors_file_gives_the_same_as_a_folder(sees, tmp_path):
    # No file says heads and groups: those of the published ones are meant.
    more = {"attention_head_dim": 8, "motion_num_attention_heads": 8, "norm_num_groups": 32}
    widths = {"conditioning_embedding_out_channels": (16, 32, 96, 256)}
    theirs = small(SparseControlNetModel, **CONTROL | SEES[sees] | more | widths)
    theirs.save_pretrained(tmp_path / "folder")
    torch.save(original(theirs), tmp_path / "v3_sd15_sparsectrl.ckpt")
    one, other = (
        load_control(tmp_path / "folder"),
        load_control(tmp_path / "v3_sd15_sparsectrl.ckpt"),
    )
    expected = other.state_dict()
    assert all(torch.equal(value, expected[key]) for key, value in one.state_dict().items())
    ours, folders = one._init_args, other._init_args
    assert {**ours, "attention": list(ours["attention"])} == {
        **folders,
        "attention": list(folders["attention"]),
    }


@pytest.mark.filterwarnings("ignore:.*was not trained on")
def test_drawings_steer_as_there(tmp_path):
    theirs = sparsectrl("pixels")
    theirs.set_progress_bar_config(disable=True)
    image().save_pretrained(tmp_path / "image")
    theirs.motion_adapter.save_pretrained(tmp_path / "motion")
    theirs.controlnet.save_pretrained(tmp_path / "control")
    ours = vdm.load(
        tmp_path / "image", motion=tmp_path / "motion", control={tmp_path / "control": 0.7}
    )
    assert ours.parts.system == "AnimateDiff with SparseCtrl"
    keys = (torch.rand(3, 2, 24, 40) * 255).floor() / 255
    noise, common = torch.randn(1, 4, 3, 6, 10), {"height": 24, "width": 40, "guidance_scale": 3.0}
    made = theirs(
        "a cat",
        conditioning_frames=[to_pil_image(key) for key in keys.transpose(0, 1)],
        controlnet_frame_indices=[0, 2],
        controlnet_conditioning_scale=0.7,
        num_frames=3,
        num_inference_steps=2,
        latents=noise,
        output_type="pt",
        **common,
    ).frames.transpose(1, 2)
    told = {"num_frames": 3, "steps": 2, "noise": noise, "progress": False, **common}
    clip = ours("a cat", video=keys, mask=[1, 0, 1], **told)
    agree(clip.frames, made)
    assert not torch.allclose(
        clip.frames, ours("a cat", image=keys[:, 0], **told).frames, atol=1e-3
    )
    assert not torch.allclose(clip.frames, ours("a cat", **told).frames, atol=1e-3)


def test_what_does_not_fit_is_refused(tmp_path):
    animatediff().save_pretrained(tmp_path / "model")
    image().save_pretrained(tmp_path / "image")
    control = small(SparseControlNetModel, **CONTROL | {"cross_attention_dim": 12})
    control.save_pretrained(tmp_path / "control")
    torch.save({"weight": torch.ones(2)}, tmp_path / "other.ckpt")
    for source, asked, message in (
        ("model", tmp_path / "control", "got text_dim=12, expected 16 as in the U-Net"),
        ("model", tmp_path / "other.ckpt", "holds no SparseCtrl, expected controlnet_cond"),
        ("model", {"a": 1.0, "b": 2.0}, "got 2 in control, expected one"),
        ("image", tmp_path / "control", "got control for StableDiffusionPipeline, expected a mod"),
    ):
        with pytest.raises(ValueError, match=message):
            vdm.load(tmp_path / source, control=asked)
    config = config_of(control) | {"act_fn": "gelu"}
    with pytest.raises(ValueError, match=r"config\.json: got act_fn='gelu', expected 'silu'"):
        control_from_config(config)
    with pytest.raises(ValueError, match="got class UNet, expected SparseControlNetModel"):
        control_from_config({"_class_name": "UNet"})
