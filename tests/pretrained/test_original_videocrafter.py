"""VideoCrafter out of its authors' single files, which are written here from others' names."""

import warnings
from functools import cache

import pytest
import torch
from safetensors.torch import save_file

import vdm
from tests.models.unet3d_oracles import relative_error
from tests.models.videocrafter_oracles import KINDS
from tests.pretrained.tiny_videocrafter import FADES, SIZES, TinyVideoCrafter, tiny_sizes
from vdm.conditioning.picture import PictureTokens
from vdm.conditioning.resampler import PictureTokenEncoder, Resampler
from vdm.diffusion.discrete_schedules import DDPMTable
from vdm.diffusion.shifted_schedules import Faded
from vdm.pretrained import export
from vdm.pretrained.keymap import to_foreign
from vdm.pretrained.loading import Reading
from vdm.pretrained.original_network import KNOWN, load_original_network, recognize
from vdm.pretrained.original_unet import VIDEOCRAFTER_ORIGINAL, original_entries
from vdm.pretrained.sources import read

PUBLISHED = {
    "videocrafter2": (1_413_284_420, 1484),
    "videocrafter1_512": (1_144_485_956, 1196),
    "videocrafter1_1024": (1_146_536_516, 1200),
    "videocrafter1_image": (1_438_843_460, 1516),
}
"""Parameters and keys."""
UNET = "model.diffusion_model."
SMALL = {"num_frames": 2, "height": 16, "width": 24, "steps": 1, "progress": False}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """The models of a kind, theirs and ours out of their file."""

    @cache
    def make(kind):
        theirs = TinyVideoCrafter(kind)
        return theirs, load(theirs.state(), tmp_path_factory.mktemp(kind) / "model.ckpt")

    return make


@pytest.fixture(scope="module")
def state(both):
    """The tensors of a file."""
    return both("videocrafter2")[0].state()


def load(state, path):
    torch.save({"state_dict": state}, path)
    with tiny_sizes():
        return vdm.load(path)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_goes_to_its_place_and_back(both, kind):
    theirs, ours = both(kind)
    own, expected = ours.network.state_dict(), theirs.network.our_state(ours.network.state_dict())
    assert own.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in own.items())
    state = theirs.state()
    unet = {key.removeprefix(UNET): v for key, v in state.items() if key.startswith(UNET)}
    assert recognize(unet, "f") == kind
    back = to_foreign(own, original_entries(ours.network, VIDEOCRAFTER_ORIGINAL, unet))
    assert back.keys() == unet.keys()
    assert all(torch.equal(value, unet[key]) for key, value in back.items())


@pytest.mark.parametrize("kind", KINDS)
def test_full_sizes_are_those_published(kind):
    with torch.device("meta"):
        network = KNOWN[kind].make()
    places = original_entries(network, VIDEOCRAFTER_ORIGINAL, {})
    count = sum(parameter.numel() for parameter in network.parameters())
    assert (count, len(places)) == PUBLISHED[kind]
    assert len({place.theirs for place in places}) == len(places)
    assert network.needs == {"text"} | (set(KINDS[kind]) & {"fps", "image"})


def test_the_resampler_has_as_many_parameters_as_published():
    with torch.device("meta"):
        resampler = Resampler(1280)
    assert sum(parameter.numel() for parameter in resampler.parameters()) == 48_541_696


@pytest.mark.parametrize("kind", KINDS)
def test_it_samples_as_published(both, kind):
    theirs, ours = both(kind)
    parts, table, end = ours.parts, DDPMTable(), FADES.get(kind)
    defaults = parts.defaults
    assert parts.schedule == (table if end is None else Faded(table, end))
    assert (defaults.steps, defaults.guidance_scale, defaults.num_frames) == (50, 12.0, 16)
    is_large = kind == "videocrafter1_1024"
    assert (defaults.height, defaults.width) == ((576, 1024) if is_large else (320, 512))
    assert (defaults.sampler, defaults.time_grid) == ("ddim_ancestral", "leading")
    told = {"videocrafter1_512": None, "videocrafter1_image": 8.0}.get(kind, 28.0)
    assert defaults.told_fps == told
    assert (defaults.rate_told(10.0), defaults.rate_told(16.0)) == (told or 10.0, 16.0)
    assert isinstance(parts.given, PictureTokens) == theirs.has_picture
    assert parts.system.startswith("VideoCrafter")


@pytest.mark.parametrize("kind", ["videocrafter2", "videocrafter1_image"])
def test_weights_are_read_as_asked_or_not_at_all(both, kind, tmp_path):
    theirs, ours = both(kind)
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": theirs.state()}, path)
    with tiny_sizes():
        half = vdm.load(path, dtype=torch.float16).parts
        planned = read(path, how=Reading(is_plan=True))
    for name, module in ours.parts.modules.items():
        state = half.modules[name].state_dict()
        for key, value in module.state_dict().items():
            expected = value.half() if value.is_floating_point() else value
            assert torch.equal(state[key], expected), key
        empty = planned.modules[name].state_dict()
        assert {key: value.shape for key, value in empty.items()} == {
            key: value.shape for key, value in module.state_dict().items()
        }
        assert all(parameter.is_meta for parameter in planned.modules[name].parameters())


@torch.no_grad()
def test_tokens_of_a_picture_agree(both):
    theirs, ours = both("videocrafter1_image")
    assert isinstance(ours.image_encoder, PictureTokenEncoder)
    for size in ((300, 410), (60, 500)):
        pictures = 2 * torch.rand(2, 3, *size) - 1
        found = ours.image_encoder.encode_image(pictures)
        assert found.shape == (2, 4, 16)
        assert relative_error(found, theirs.encode_picture(pictures)) < 1e-5


@torch.no_grad()
def test_states_of_words_agree(both):
    theirs, ours = both("videocrafter2")
    texts = ["a panda eats bamboo, 4k", ""]
    assert relative_error(ours.text_encoder(texts).text, theirs.encode_words(texts)) < 1e-5


@pytest.mark.parametrize("kind", ["videocrafter1_1024", "videocrafter1_image"])
def test_a_folder_of_ours_holds_all_of_it(both, kind, tmp_path):
    theirs, ours = both(kind)
    again = vdm.load(export(ours, tmp_path / "folder", "vdm"))
    same = ("schedule", "target", "preconditioning", "given", "defaults", "envelope")
    for name in same:
        assert getattr(again.parts, name) == getattr(ours.parts, name), name
    told = {**SMALL, "seed": 1}
    if theirs.has_picture:
        told["image"] = torch.rand(3, 20, 30)
    with pytest.warns(UserWarning, match="was not trained on num_frames=2"):
        clips = [model("a cat", **told).frames for model in (ours, again)]
    assert torch.equal(*clips)


def test_other_ways_to_store_it_are_the_same_model(both, state, tmp_path):
    plain = both("videocrafter2")[1].network.state_dict()
    deep = {f"_forward_module.{key}": value for key, value in state.items()}
    torch.save({"module": deep}, tmp_path / "deepspeed.ckpt")
    save_file(state, tmp_path / "safe.safetensors")
    torch.save({key: value.half() for key, value in state.items()}, tmp_path / "half.ckpt")
    with tiny_sizes():
        for name in ("deepspeed.ckpt", "safe.safetensors"):
            other = vdm.load(tmp_path / name).network.state_dict()
            assert all(torch.equal(value, other[key]) for key, value in plain.items()), name
        assert vdm.load(tmp_path / "half.ckpt").schedule == Faded(DDPMTable(), 0.7)


def test_the_network_alone_is_read_as_well(both, tmp_path):
    theirs, ours = both("videocrafter1_image")
    torch.save({"state_dict": theirs.state()}, tmp_path / "model.ckpt")
    make = KNOWN["videocrafter1_image"].make
    alone = load_original_network(tmp_path / "model.ckpt", lambda: make(SIZES.unet)).state_dict()
    own = ours.network.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in alone.items())


def test_a_picture_is_told_in_tokens(both):
    ours = both("videocrafter1_image")[1]
    told = {**SMALL, "output": "latents", "noise": torch.randn(1, 4, 2, 8, 12), "seed": 1}
    picture = torch.rand(3, 20, 30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = ours("a cat", image=picture, **told)
        tokens = ours.image_encoder.encode_image(2 * picture[None] - 1)
        torch.testing.assert_close(ours("a cat", cond={"image": tokens}, **told), expected)
        assert not torch.allclose(ours("a cat", image=1 - picture, **told), expected, atol=1e-3)
        with pytest.raises(ValueError, match="got no image, model 'videocrafter1_image' needs"):
            ours("a cat", **told)
        with pytest.raises(ValueError, match="got given frames"):
            ours("a cat", image=picture, video=torch.rand(3, 1, 16, 24), **told)


def test_the_frame_rate_that_is_told_is_published_or_that_of_the_clip(both):
    ours = both("videocrafter2")[1]
    told = {**SMALL, "output": "latents", "noise": torch.randn(1, 4, 2, 8, 12), "seed": 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        usual = ours("a cat", **told)
        assert torch.equal(ours("a cat", cond={"fps": 28.0}, **told), usual)
        assert torch.equal(ours("a cat", fps=28, **told), usual)
        assert not torch.allclose(ours("a cat", fps=16, **told), usual, atol=1e-3)


BREAKS = {
    "no bias": (
        lambda s: s.pop(f"{UNET}time_embed.0.bias"),
        r"model\.ckpt: misses time_embed\.0\.bias",
    ),
    "no fade": (lambda s: s.pop("scale_arr"), r"model\.ckpt: misses scale_arr"),
    "a short fade": (
        lambda s: s.update(scale_arr=s["scale_arr"][:900]),
        r"scale_arr has shape \(900,\), expected 1000 or 1400 numbers",
    ),
    "another fade": (
        lambda s: s.update(scale_arr=s["scale_arr"].flip(0)),
        "scale_arr is no fade from 1 to 1 over 400 entries",
    ),
    "other betas": (
        lambda s: s.update(betas=torch.linspace(1e-4, 0.02, 1000)),
        r"betas are not those from 0\.00085 to 0\.012",
    ),
    "an odd key": (
        lambda s: s.update(odd=torch.ones(1)),
        r"model\.ckpt: holds odd, for which there is no place",
    ),
    "an odd key inside": (
        lambda s: s.update({f"{UNET}odd": torch.ones(1)}),
        r"model\.ckpt: holds odd, for which there is no place",
    ),
    "a word less": (
        lambda s: s.pop("cond_stage_model.model.ln_final.bias"),
        r"model\.ckpt: misses ln_final\.bias",
    ),
    "no decoder": (
        lambda s: s.pop("first_stage_model.decoder.conv_out.bias"),
        r"model\.ckpt: misses decoder\.conv_out\.bias",
    ),
    "another shape": (
        lambda s: s.update({f"{UNET}out.2.bias": torch.ones(5)}),
        r"model\.ckpt: \S*out\.2\.bias has shape \(5,\), UNet3D expects \(4,\)",
    ),
    "no number": (
        lambda s: s[f"{UNET}out.2.bias"].fill_(torch.nan),
        r"model\.ckpt: \S*out\.2\.bias holds NaN",
    ),
}


@pytest.mark.parametrize("change", BREAKS)
def test_a_file_that_is_not_as_it_has_to_be_is_refused(state, change, tmp_path):
    state = {key: value.clone() for key, value in state.items()}
    spoil, message = BREAKS[change]
    spoil(state)
    with pytest.raises(ValueError, match=message):
        load(state, tmp_path / "model.ckpt")


def test_a_damaged_file_is_refused(state, tmp_path):
    torch.save(state, tmp_path / "model.ckpt")
    whole = (tmp_path / "model.ckpt").read_bytes()
    (tmp_path / "model.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.ckpt: the file is truncated or damaged"):
        vdm.load(tmp_path / "model.ckpt")


def test_options_of_other_models_are_refused(state, tmp_path):
    torch.save(state, tmp_path / "model.ckpt")
    for options in ({"motion": "adapter"}, {"profile": "original"}):
        with tiny_sizes(), pytest.raises(ValueError, match=f"got {next(iter(options))}="):
            vdm.load(tmp_path / "model.ckpt", **options)


@pytest.mark.parametrize("kind", KINDS)
def test_diffusers_has_no_class_for_them(both, kind, tmp_path):
    with pytest.raises(ValueError, match="diffusers"):
        export(both(kind)[1], tmp_path)
