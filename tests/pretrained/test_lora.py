"""Low-rank changes: what is merged makes the frames that diffusers makes with adapters."""

import json
import re

import peft
import pytest
import torch
from safetensors.torch import save_file

import vdm
from tests.models.unet3d_oracles import relative_error
from tests.pretrained.test_diffusers_pipeline import agree, our_frames, their_frames
from tests.pretrained.tiny_models import animatediff, image, image_xl
from vdm.cli import main
from vdm.pretrained.diffusers_folder import load_unet
from vdm.pretrained.lora import read_loras
from vdm.types import Conditioning

RANK, ALPHA, SCALE = 3, 6.0, 0.8
SIDES = ("down", "up")
HEAD = ("r", "lora_alpha", "target_modules", "use_dora", "use_rslora", "alpha_pattern")


@pytest.fixture
def theirs():
    """One that may be changed."""
    return animatediff()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The same, as it is."""
    path = tmp_path_factory.mktemp("plain") / "model"
    animatediff().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def noise():
    return torch.randn(2, 4, 3, 6, 10, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def without(folder, noise):
    """What it makes."""
    return our_frames(vdm.load(folder), noise)


def draw(module, std=0.2):
    """Down and up for a linear map or a convolution."""
    weight, kernel = module.weight, module.weight.shape[2:]
    down = std * torch.randn(RANK, weight.shape[1], *kernel)
    return down, std * torch.randn(len(weight), RANK, *[1] * len(kernel))


def maps(network, pattern):
    """Linear maps and convolutions by name."""
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    return {
        name: module
        for name, module in network.named_modules()
        if isinstance(module, kinds) and re.search(pattern, name)
    }


def of_authors(network):
    """MotionLoRA as its authors name it, and as diffusers does."""
    ours, theirs = {}, {}
    for name, module in maps(network, r"motion_modules.*\.to_(q|k|v|out\.0)$").items():
        stem, _, kind = name.replace("to_out.0", "to_out").rpartition(".")
        old = stem.replace(".transformer_blocks", ".temporal_transformer.transformer_blocks")
        for number in (1, 2):
            old = old.replace(f".attn{number}", f".attention_blocks.{number - 1}")
        for side, value in zip(SIDES, draw(module), strict=True):
            ours[f"module.{old}.processor.{kind}_lora.{side}.weight"] = value
            theirs[f"unet.{stem}.processor.{kind}_lora.{side}.weight"] = value
    assert len(ours) > 20
    return ours, theirs


@pytest.mark.filterwarnings("ignore:.*was not trained on")
def test_motion_changes_as_there(theirs, folder, noise, without, tmp_path):
    original, renamed = of_authors(theirs.unet)
    torch.save({"state_dict": original, "animatediff_config": {"x": 1}}, tmp_path / "v2_lora.ckpt")
    (tmp_path / "hub").mkdir()
    save_file(renamed, tmp_path / "hub" / "diffusion_pytorch_model.safetensors")
    theirs.load_lora_weights(tmp_path / "hub", weight_name="diffusion_pytorch_model.safetensors")
    theirs.set_adapters(theirs.get_active_adapters(), [SCALE])
    expected = their_frames(theirs, noise)
    for source in ("v2_lora.ckpt", "hub"):
        ours = our_frames(vdm.load(folder, lora={tmp_path / source: SCALE}), noise)
        agree(ours, expected)
        assert float((ours - without).abs().max()) > 0.01


def test_a_weight_gets_exactly_what_its_maps_make(theirs, folder, tmp_path):
    original, _ = of_authors(theirs.unet)
    torch.save(original, tmp_path / "v2_lora.ckpt")
    before = load_unet(folder / "unet").state_dict()
    files = read_loras({tmp_path / "v2_lora.ckpt": SCALE})
    after = load_unet(folder / "unet", lora=files).state_dict()
    stem = "down_blocks.0.motion_modules.0.temporal_transformer.transformer_blocks.0"
    down, up = (
        original[f"module.{stem}.attention_blocks.1.processor.to_out_lora.{side}.weight"]
        for side in SIDES
    )
    key = "down.0.layers.0.after_transformer.0.blocks.0.attentions.1.to_out.weight"
    assert torch.equal(after[key], before[key] + SCALE * (up @ down))
    changed = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert len(changed) == len(original) // 2
    assert all("after_transformer" in key for key in changed)


def of_kohya(model):
    """Every map of the image model, and those of the text encoder's attentions and MLPs."""
    state = {}
    for prefix, part, pattern in (
        ("lora_unet_", model.unet, r"(resnets|attentions|samplers).*"),
        ("lora_te_", model.text_encoder, r"(self_attn|mlp)"),
    ):
        for name, module in maps(part, pattern).items():
            if "motion" in name:
                continue
            stem = "" if prefix == "lora_unet_" or name.startswith("text_model") else "text_model."
            flat = prefix + (stem + name).replace(".", "_")
            down, up = draw(module, 0.1)
            state |= {f"{flat}.lora_down.weight": down, f"{flat}.lora_up.weight": up}
            state[f"{flat}.alpha"] = torch.tensor(ALPHA)
    return state


@pytest.mark.filterwarnings("ignore:.*was not trained on")
def test_every_map_of_an_image_model_may_be_changed(theirs, folder, noise, tmp_path):
    state = of_kohya(theirs)
    kernels = {value.shape[2:] for value in state.values()}
    assert torch.Size([3, 3]) in kernels
    save_file(state, tmp_path / "AnimateLCM_sd15_t2v_lora.safetensors")
    theirs.load_lora_weights(tmp_path / "AnimateLCM_sd15_t2v_lora.safetensors")
    theirs.set_adapters(theirs.get_active_adapters(), [SCALE])
    ours = vdm.load(folder, lora={tmp_path / "AnimateLCM_sd15_t2v_lora.safetensors": SCALE})
    agree(our_frames(ours, noise), their_frames(theirs, noise))
    x, text = torch.randn(2, 4, 3, 7, 10), torch.randn(2, 5, 16)
    steps = torch.tensor([981.0, 41.0])
    expected = theirs.unet(x, steps, text.repeat_interleave(3, 0)).sample
    assert relative_error(ours.network(x, steps, Conditioning(text=text)), expected) < 1e-5


def flat_name(name, per_level):
    """As most scripts call a map of Stable Diffusion XL."""
    kinds = {"resnets": "0", "attentions": "1", "downsamplers": "0", "upsamplers": "2"}
    resnet = {
        "conv1": "in_layers_2",
        "time_emb_proj": "emb_layers_1",
        "conv_shortcut": "skip_connection",
    }
    side, *rest = name.split(".")
    rest[-1] = resnet.get(rest[-1], rest[-1])
    if side == "mid_block":
        place = {"attentions0": "1", "resnets0": "0", "resnets1": "2"}["".join(rest[:2])]
        return "_".join(("middle_block", place, *rest[2:]))
    level, kind, number, *rest = rest
    place = per_level * int(level) + int(number)
    if "samplers" in kind:
        place += per_level - 1
        rest = ["op"] if kind == "downsamplers" else rest
    if side == "down_blocks":
        return "_".join(("input_blocks", str(place + 1), kinds[kind], *rest))
    return "_".join(("output_blocks", str(place), kinds[kind], *rest))


def test_maps_of_an_xl_model_have_the_names_of_its_authors(tmp_path):
    theirs = image_xl()
    theirs.save_pretrained(tmp_path / "image")
    per_level = theirs.unet.config.layers_per_block + 1
    pattern = r"(to_(q|k|v|out\.0)|ff\.net\.2|proj_in|conv1|emb_proj|shortcut|samplers\.0\.conv)$"
    found = {name: flat_name(name, per_level) for name in maps(theirs.unet, pattern)}
    found |= {"time_embedding.linear_2": "time_embed_2", "add_embedding.linear_1": "label_emb_0_0"}
    state = {}
    for name, flat in found.items():
        down, up = draw(theirs.unet.get_submodule(name))
        state |= {
            f"lora_unet_{flat}.lora_down.weight": down,
            f"lora_unet_{flat}.lora_up.weight": up,
        }
        state[f"lora_unet_{flat}.alpha"] = torch.tensor(ALPHA)
    assert all(any(way in key for key in state) for way in ("input_", "middle_", "output_"))
    save_file(state, tmp_path / "style.safetensors")
    files = read_loras({tmp_path / "style.safetensors": SCALE})
    ours = load_unet(tmp_path / "image" / "unet", lora=files).state_dict()
    before = load_unet(tmp_path / "image" / "unet").state_dict()
    assert sum(not torch.equal(ours[key], before[key]) for key in ours) == len(found)
    theirs.load_lora_weights(tmp_path / "style.safetensors")
    theirs.fuse_lora(lora_scale=SCALE)
    theirs.unload_lora_weights()
    theirs.unet.save_pretrained(tmp_path / "merged")
    for key, value in load_unet(tmp_path / "merged").state_dict().items():
        torch.testing.assert_close(ours[key], value, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*was not trained on")
def test_what_training_there_leaves_is_read_with_the_scale_in_its_head(
    theirs, folder, noise, without, tmp_path
):
    state, head = {}, {}
    for part, ends in {
        "unet": ("to_q", r"to_out\.0", r"net\.2"),
        "text_encoder": ("q_proj", "fc1"),
    }.items():
        module = getattr(theirs, part)
        for name, one in maps(module, f"({'|'.join(ends)})$").items():
            for side, value in zip("AB", draw(one), strict=True):
                state[f"{part}.{name}.lora_{side}.weight"] = value
        config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(ends)).to_dict()
        head |= {f"{part}.{key}": value for key, value in config.items() if key in HEAD}
    (tmp_path / "lora").mkdir()
    path = tmp_path / "lora" / "pytorch_lora_weights.safetensors"
    save_file(
        state, path, {"format": "pt", "lora_adapter_metadata": json.dumps(head, default=list)}
    )
    theirs.load_lora_weights(path)
    ours = our_frames(vdm.load(folder, lora=tmp_path / "lora"), noise)
    agree(ours, their_frames(theirs, noise))
    assert float((ours - without).abs().max()) > 0.01


def test_several_are_added_and_an_animated_image_model_takes_them(tmp_path, capsys):
    theirs = animatediff()
    image().save_pretrained(tmp_path / "image")
    theirs.motion_adapter.save_pretrained(tmp_path / "motion")
    original, _ = of_authors(theirs.unet)
    torch.save(original, tmp_path / "pan.ckpt")
    save_file(of_kohya(theirs), tmp_path / "style.safetensors")
    both = [tmp_path / "pan.ckpt", tmp_path / "style.safetensors"]
    ours = vdm.load(tmp_path / "image", motion=tmp_path / "motion", lora=both)
    halves = [
        vdm.load(tmp_path / "image", motion=tmp_path / "motion", lora=one).network.state_dict()
        for one in both
    ]
    plain = vdm.load(tmp_path / "image", motion=tmp_path / "motion").network.state_dict()
    for key, value in ours.network.state_dict().items():
        changed = sum(half[key] - plain[key] for half in halves)
        torch.testing.assert_close(value - plain[key], changed, atol=1e-6, rtol=0)
    words = ["sample", str(tmp_path / "image"), "a cat", "--motion", str(tmp_path / "motion")]
    words += ["--lora", f"{both[0]}=0.5", "--lora", str(both[1]), "--out", str(tmp_path / "out")]
    words += ["--num-frames", "2", "--height", "8", "--width", "8", "--steps", "1"]
    assert main([*words, "--seed", "1", "--no-progress"]) == 0
    assert capsys.readouterr().out.strip().endswith("a-cat_seed1.mp4")


@pytest.mark.parametrize(("profile", "steps"), [("diffusers", 50), ("original", 100)])
def test_an_adapter_called_animatelcm_is_sampled_in_few_steps(profile, steps, tmp_path):
    image().save_pretrained(tmp_path / "image")
    animatediff().motion_adapter.save_pretrained(tmp_path / "AnimateLCM")
    ours = vdm.load(tmp_path / "image", motion=tmp_path / "AnimateLCM", profile=profile)
    defaults = ours.parts.defaults
    assert ours.parts.system == "AnimateLCM"
    assert (defaults.sampler, defaults.steps) == ("latent_consistency", 4)
    assert defaults.time_grid_args == {"original_steps": steps}
    assert ours.schedule.betas == "linear"


def test_what_cannot_be_merged_is_refused(tmp_path):
    model = image()
    model.save_pretrained(tmp_path / "image")
    name = "unet.down_blocks.0.attentions.0.proj_in"
    down, up = draw(model.unet.down_blocks[0].attentions[0].proj_in)
    good = {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    motion = "unet.down_blocks.0.motion_modules.0.proj_in.lora_A.weight"
    head = json.dumps({"unet.r": RANK, "unet.use_dora": True})
    cases = [
        ({motion: down, motion.replace("_A", "_B"): up}, {}, "expected motion modules to add it"),
        ({f"{name}.lora_A.weight": down}, {}, "has one of up and down, expected both"),
        (
            good | {f"{name}.dora_scale": up.clone()},
            {},
            "dora_scale, which is no low-rank change that can",
        ),
        (good | {f"{name}.lora_B.weight": up[1:]}, {}, r"got up \(31, 3, 1, 1\) and down"),
        (good | {f"{name}.lora_B.weight": up * float("nan")}, {}, "holds NaN or infinite"),
        (good, {"lora_adapter_metadata": head}, "got unet.use_dora=True, which cannot be merged"),
    ]
    for number, (state, metadata, message) in enumerate(cases):
        path = tmp_path / f"{number}.safetensors"
        save_file({key: value.contiguous() for key, value in state.items()}, path, metadata)
        with pytest.raises(ValueError, match=f"{number}.safetensors.*{message}"):
            load_unet(tmp_path / "image" / "unet", lora=read_loras(path))
    with pytest.raises(ValueError, match=r"holds 0\.safetensors, 1\.safetensors.*, expected one"):
        read_loras(tmp_path)
    (tmp_path / "dit").mkdir()
    (tmp_path / "dit" / "model_index.json").write_text('{"_class_name": "CogVideoXPipeline"}')
    for argument in ("lora", "control"):
        with pytest.raises(ValueError, match=f"got {argument} for CogVideoXPipeline, expected a"):
            vdm.load(tmp_path / "dit", **{argument: tmp_path / "0.safetensors"})
    with pytest.raises(ValueError, match="lora is for a model in diffusers' layout, and moving-sh"):
        vdm.load("moving-shapes", lora=tmp_path / "0.safetensors")
