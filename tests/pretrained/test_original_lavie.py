"""LaVie's release as whole models; what they make is compared in ``parity_lavie``."""

import inspect
import json
import shutil

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from einops import repeat

import vdm
from tests.models.unet3d_oracles import relative_error
from tests.pretrained import lavie_upscale_oracle
from tests.pretrained.lavie_oracle import FULL, SMALL, Network
from tests.pretrained.lavie_release import SD, X4, Release
from tests.pretrained.parity_lavie import told_of
from vdm.conditioning.given import Repeated
from vdm.models import unet3d_presets as presets
from vdm.pipelines.cascade import Cascade, Interpolate, MakeKeyframes, UpscalePixels
from vdm.pipelines.generate import Generator
from vdm.pipelines.interpolate import interpolate_clip
from vdm.pipelines.upscale import Upscaler
from vdm.pipelines.walk import times_of
from vdm.pretrained.diffusers_unet import LAVIE, LAVIE_UPSCALE, entries
from vdm.pretrained.keymap import to_foreign
from vdm.types import Conditioning
from vdm.utils.rng import derive_seed

B, T = 2, 5
QUIET = {"progress": False, "output": "latents"}


@pytest.fixture(scope="module")
def theirs():
    return Release()


@pytest.fixture(scope="module")
def folder(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("pretrained_models")
    theirs.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def base(folder):
    return vdm.load(folder / "lavie_base.pt")


@pytest.fixture(scope="module")
def between(folder):
    return vdm.load(folder / "lavie_interpolation.pt")


@pytest.fixture(scope="module")
def larger(folder):
    return vdm.load(folder / "lavie_vsr.pt")


def test_it_is_called_as_any_generator_is():
    kinds = (Generator, Cascade, Upscaler)
    one, *others = [list(inspect.signature(kind.__call__).parameters) for kind in kinds]
    assert all(other == one for other in others)


def test_what_is_to_be_enlarged_has_to_be_a_clip(larger):
    with pytest.raises(ValueError, match=r"got no whole clip, model 'lavie_vsr' enlarges one"):
        larger("a cat")
    video = torch.rand(3, 2, 5, 6)
    for wrong, message in (
        ({"image": video[:, 0]}, "expected video alone"),
        ({"output": "frames"}, "got output='frames'"),
        ({"height": 22}, "got height=22, expected a multiple of 4; nearest: 24"),
        ({"num_frames": 3}, "expected 2 frames"),
        ({"seconds": 1.0}, "expected 2 frames"),
        ({"strength": 0.5}, "got strength=0.5, expected None"),
        ({"last_image": video[:, 0]}, "got last_image for an upscaler, expected None"),
        ({"cond": {"given": video[None]}}, r"got cond\.given, expected video"),
    ):
        with pytest.raises(ValueError, match=message):
            larger("a cat", video=video, progress=False, **wrong)


@pytest.mark.filterwarnings("ignore:.*not trained on")
def test_noise_and_size_of_what_is_enlarged_may_be_chosen(larger):
    told = {"video": torch.rand(3, 2, 5, 6), "steps": 1, "seed": 3, **QUIET}
    one, other = (larger("a cat", noise_aug=level, **told) for level in (50, 300))
    assert torch.equal(one, larger("a cat", **told))
    assert not torch.equal(one, other)
    assert larger("a cat", height=32, width=16, **told).shape == (1, 4, 2, 8, 4)


def test_given_frames_are_repeated_as_they_do_it():
    keyframes = torch.randn(B, 4, 16, 2, 3)
    told = told_of(keyframes)
    shown = Repeated().fill(told["given"], told["given_mask"])
    assert shown.shape[2] == 61
    assert torch.equal(shown, keyframes.repeat_interleave(4, dim=2)[:, :, 1:-2])


@torch.no_grad()
def test_without_its_guests_it_is_the_image_model_on_every_frame(theirs, base):
    """Where all frames are equal, so that statistics of a clip are those of a frame."""
    state = theirs.base.state_dict()
    image = UNet2DConditionModel(**SMALL).eval()
    image.load_state_dict({key: value for key, value in state.items() if "_temp" not in key})
    network = presets.lavie(presets.Size(base.network.options.heads, 16, (32, 64), 1, (1, 0, 1), 8))
    own = base.network.state_dict()
    network.load_state_dict(
        {k: 0 * v if "guests.0.attention.to_out" in k else v for k, v in own.items()}
    )
    frame, steps, text = torch.randn(B, 4, 7, 10), torch.tensor([981, 41]), torch.randn(B, 6, 16)
    made = network(
        repeat(frame, "b c h w -> b c t h w", t=T), steps.float(), Conditioning(text=text)
    )
    expected = repeat(image(frame, steps, text).sample, "b c h w -> b c t h w", t=T)
    assert relative_error(made, expected) < 1e-5


@pytest.mark.parametrize("kind", ["lavie", "lavie_interpolation", "lavie_upscale"])
def test_full_sizes_have_the_published_keys_and_shapes(kind):
    with torch.device("meta"):
        ours = getattr(presets, kind)()
        if kind == "lavie_upscale":
            theirs = lavie_upscale_oracle.Upscaler(**lavie_upscale_oracle.FULL).state_dict()
        else:
            theirs = Network(kind == "lavie", **FULL).state_dict()
    assert len(theirs) == {"lavie": 830, "lavie_interpolation": 798, "lavie_upscale": 1158}[kind]
    shapes = {key: value.shape for key, value in theirs.items() if "freqs" not in key}
    family = LAVIE_UPSCALE if kind == "lavie_upscale" else LAVIE
    found = to_foreign(ours.state_dict(), entries(ours, family))
    assert {key: value.shape for key, value in found.items()} == shapes


def test_published_settings(base, between):
    assert (base.parts.system, between.parts.system) == ("LaVie", "LaVie interpolation")
    size = (base.parts.defaults.height, base.parts.defaults.width)
    assert size == (320, 512)
    assert (base.parts.defaults.num_frames, between.parts.defaults.num_frames) == (16, 61)
    assert (base.parts.defaults.fps, between.parts.defaults.fps) == (8, 24)
    assert times_of(base, 50)[:2].tolist() == [0.982, 0.962]
    assert times_of(between, 50)[[0, 1, -2, -1]].tolist() == [1.0, 0.98, 0.001, 0.0]
    t = torch.tensor([0.001, 1.0], dtype=torch.float64)
    ends = torch.tensor([0.9999, 4.03583e-5], dtype=torch.float64)
    torch.testing.assert_close(base.schedule.alpha(t) ** 2, ends, rtol=1e-5, atol=0)


@pytest.mark.filterwarnings("ignore:.*not trained on")
def test_the_release_is_a_cascade(folder):
    cascade = vdm.load(folder)
    one, two, three = cascade.stages
    assert one.model.autoencoder is two.model.autoencoder
    assert one.model.text_encoder is two.model.text_encoder
    defaults = cascade.parts.defaults
    assert (defaults.num_frames, defaults.fps) == (61, 24)
    assert (defaults.height, defaults.width) == (1280, 2048)
    clip = cascade(
        "a cat", num_frames=5, height=32, width=48, steps=1, seed=3, progress=False
    )  # fmt: skip
    assert (clip.fps, clip.frames.shape) == (24, (1, 3, 5, 32, 48))
    # The same by hand: every stage has noise of its own, which follows from the seed.
    small = {"height": 8, "width": 12, "steps": 1}
    keyframes = one.model("a cat", num_frames=2, seed=3, **small, **QUIET)
    seed = derive_seed(derive_seed(3, "interpolate", 1, 4), "interpolate", 1)
    told = {"cond": told_of(keyframes), "num_frames": 5, "seed": seed, "progress": False}
    draft = two.model("a cat", **told, **small)
    seed = derive_seed(3, "upscale", 1, 4)
    again = three.model("a cat", video=draft.frames, steps=1, seed=seed, progress=False)
    assert torch.allclose(clip.frames, again.frames, atol=1e-5)


def test_stages_that_do_not_go_together_are_refused(base, between, larger):
    first, then = MakeKeyframes(base), UpscalePixels(larger)
    with pytest.raises(ValueError, match="got height=88, expected a multiple of 16; nearest: 96"):
        Cascade([first, then])("a cat", height=88)
    with pytest.raises(ValueError, match="enlarges pixels before others, expected it last"):
        Cascade([first, then, Interpolate(between, 4)])
    with pytest.raises(ValueError, match="got factor=2 for 'lavie_vsr', expected 4"):
        UpscalePixels(larger, 2)
    with pytest.raises(ValueError, match="got factor=4 for 'lavie_base', expected None"):
        UpscalePixels(base)
    alone = Cascade([first, then]).parts.defaults
    assert (alone.num_frames, alone.fps) == (16, 8)


def test_default_words_are_the_published_ones(between):
    seen = []
    encode = between.text_encoder.encode
    between.text_encoder.encode = lambda texts: seen.append(list(texts)) or encode(texts)
    try:
        small = {"num_frames": 2, "height": 8, "width": 8, "steps": 1, **QUIET}
        between(["a cat", "a dog"], **small)
        between("a cat", negative_prompt="rain", **small)
    finally:
        del between.text_encoder.encode
    assert seen == [["a cat, 4k.", "a dog, 4k."], ["None"], ["a cat, 4k."], ["rain"]]


@pytest.mark.filterwarnings("ignore:.*not trained on")
def test_a_clip_is_filled_in(between):
    video = torch.rand(3, 3, 8, 12)
    clip = interpolate_clip(between, video, 4, "a cat", fps=6, steps=1, seed=1, progress=False)
    assert clip.frames.shape == (1, 3, 9, 8, 12)
    assert clip.fps == 24
    assert not torch.equal(clip.frames[0, :, ::4], video)  # it makes these anew, too


def test_a_release_of_the_base_alone_makes_keyframes(folder, tmp_path):
    (tmp_path / SD).symlink_to(folder / SD)
    (tmp_path / "lavie_base.pt").symlink_to(folder / "lavie_base.pt")
    assert [stage.kind for stage in vdm.load(tmp_path).stages] == ["keyframes"]


def test_what_is_missing_is_named(folder, tmp_path):
    path = tmp_path / "lavie_base.pt"
    shutil.copy(folder / "lavie_base.pt", path)
    with pytest.raises(
        FileNotFoundError, match=rf"lavie_base\.pt: holds a network alone.* as {SD}"
    ):
        vdm.load(path)
    (tmp_path / SD).symlink_to(folder / SD)
    state = torch.load(path, weights_only=True)["ema"]
    key = "mid_block.attentions.0.transformer_blocks.0.norm_temp.weight"
    torch.save({"ema": {name: value for name, value in state.items() if name != key}}, path)
    with pytest.raises(ValueError, match=rf"lavie_base\.pt: misses {key}"):
        vdm.load(path)
    torch.save({"ema": state | {"odd.weight": torch.ones(1)}}, path)
    with pytest.raises(ValueError, match=r"lavie_base\.pt: holds odd\.weight"):
        vdm.load(path)
    torch.save({"ema": state | {key: torch.ones(3)}}, path)
    with pytest.raises(ValueError, match=r"lavie_base\.pt: .*norm_temp.weight has shape \(3,\)"):
        vdm.load(path)
    whole = (folder / "lavie_base.pt").read_bytes()
    for size in (5_000, len(whole) // 2):  # torch says different things of the two
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"lavie_base\.pt: the file is truncated or damaged"):
            vdm.load(path)
    torch.save({"weight": torch.ones(1)}, path)
    with pytest.raises(ValueError, match=r"lavie_base\.pt: got a file of no known network"):
        vdm.load(path)
    with pytest.raises(FileNotFoundError, match=r"no file or folder .*nothing\.pt"):
        vdm.load(tmp_path / "nothing.pt")


def test_the_image_model_has_to_be_one(folder, tmp_path):
    shutil.copytree(folder / SD, tmp_path / SD)
    (tmp_path / "lavie_base.pt").symlink_to(folder / "lavie_base.pt")
    path = tmp_path / SD / "unet" / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"_class_name": "UNet1DModel"}))
    with pytest.raises(ValueError, match=r"config\.json: got class UNet1DModel, expected UNet2D"):
        vdm.load(tmp_path / "lavie_base.pt")
    (tmp_path / "lavie_vsr.pt").symlink_to(folder / "lavie_vsr.pt")
    with pytest.raises(FileNotFoundError, match=rf"lavie_vsr\.pt: .* as {X4}"):
        vdm.load(tmp_path / "lavie_vsr.pt")


@pytest.mark.filterwarnings("ignore:.*not trained on")
def test_it_is_written_and_read_back(folder, between, larger, tmp_path):
    vdm.pretrained.convert(folder / "lavie_interpolation.pt", tmp_path / "ours")
    there, here = between, vdm.load(tmp_path / "ours")
    told = {"cond": told_of(torch.randn(1, 4, 2, 2, 3)), "num_frames": 5, "height": 8, "width": 12}
    one, other = (model("a cat", steps=1, seed=1, **told, **QUIET) for model in (there, here))
    assert torch.equal(one, other)
    assert here.parts.defaults == there.parts.defaults
    vdm.pretrained.convert(folder / "lavie_vsr.pt", tmp_path / "larger")
    there, here = larger, vdm.load(tmp_path / "larger")
    assert here.parts.given == there.parts.given
    told = {"video": torch.rand(3, 2, 3, 4), "steps": 1, "seed": 1}
    assert torch.equal(here("a cat", **told, **QUIET), there("a cat", **told, **QUIET))
