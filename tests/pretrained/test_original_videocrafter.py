"""VideoCrafter out of its authors' single files, which are written here from others' names."""

import pytest
import torch
from safetensors.torch import save_file

import vdm
from tests.models.unet3d_oracles import relative_error
from tests.models.videocrafter_oracles import KINDS
from tests.pretrained.tiny_videocrafter import FADES, TinyVideoCrafter, tiny_sizes
from vdm.conditioning.picture import PictureTokens
from vdm.conditioning.resampler import PictureTokenEncoder, Resampler
from vdm.diffusion.discrete_schedules import DDPMTable
from vdm.diffusion.shifted_schedules import Faded
from vdm.models import unet3d_presets as presets
from vdm.pretrained import export
from vdm.pretrained.keymap import to_foreign
from vdm.pretrained.original_network import KNOWN, recognize
from vdm.pretrained.original_unet import VIDEOCRAFTER_ORIGINAL, original_entries

NUM_KEYS = {
    "videocrafter2": 1484,
    "videocrafter1_512": 1196,
    "videocrafter1_1024": 1200,
    "videocrafter1_image": 1516,
}
UNET = "model.diffusion_model."


@pytest.fixture(scope="module", params=KINDS)
def theirs(request):
    return TinyVideoCrafter(request.param)


@pytest.fixture(scope="module")
def second():
    return TinyVideoCrafter("videocrafter2")


def load(state, path):
    torch.save({"state_dict": state}, path)
    with tiny_sizes():
        return vdm.load(path)


def test_every_weight_goes_to_its_place_and_back(theirs, tmp_path):
    state = theirs.state()
    ours = load(state, tmp_path / "model.ckpt").network
    expected = theirs.network.our_state(ours.state_dict())
    assert ours.state_dict().keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in ours.state_dict().items())
    unet = {key.removeprefix(UNET): v for key, v in state.items() if key.startswith(UNET)}
    assert recognize(unet, "f") == theirs.kind
    back = to_foreign(ours.state_dict(), original_entries(ours, VIDEOCRAFTER_ORIGINAL, unet))
    assert back.keys() == unet.keys()
    assert all(torch.equal(value, unet[key]) for key, value in back.items())


@pytest.mark.parametrize("kind", KINDS)
def test_full_sizes_have_as_many_keys_as_published(kind):
    with torch.device("meta"):
        places = original_entries(KNOWN[kind].make(), VIDEOCRAFTER_ORIGINAL, {})
    assert len({place.theirs for place in places}) == len(places) == NUM_KEYS[kind]


def test_the_resampler_has_as_many_parameters_as_published():
    with torch.device("meta"):
        resampler = Resampler(1280)
    assert sum(parameter.numel() for parameter in resampler.parameters()) == 48_541_696


def test_it_samples_as_published(theirs, tmp_path):
    parts = load(theirs.state(), tmp_path / "model.ckpt").parts
    table, defaults = DDPMTable(), parts.defaults
    end = FADES.get(theirs.kind)
    assert parts.schedule == (table if end is None else Faded(table, end))
    assert (defaults.steps, defaults.guidance_scale, defaults.num_frames) == (50, 12.0, 16)
    is_large = theirs.kind == "videocrafter1_1024"
    assert (defaults.height, defaults.width) == ((576, 1024) if is_large else (320, 512))
    assert (defaults.sampler, defaults.time_grid) == ("ddim_ancestral", "leading")
    told = {"videocrafter1_512": None, "videocrafter1_image": 8.0}.get(theirs.kind, 28.0)
    assert defaults.told_fps == told
    assert (defaults.rate_told(10.0), defaults.rate_told(16.0)) == (told or 10.0, 16.0)
    assert isinstance(parts.given, PictureTokens) == theirs.has_picture
    assert parts.system.startswith("VideoCrafter")


@torch.no_grad()
def test_tokens_of_a_picture_agree(tmp_path):
    theirs = TinyVideoCrafter("videocrafter1_image")
    ours = load(theirs.state(), tmp_path / "model.ckpt")
    assert isinstance(ours.image_encoder, PictureTokenEncoder)
    for size in ((300, 410), (60, 500)):
        pictures = 2 * torch.rand(2, 3, *size) - 1
        found = ours.image_encoder.encode_image(pictures)
        assert found.shape == (2, 4, 16)
        assert relative_error(found, theirs.encode_picture(pictures)) < 1e-5


@torch.no_grad()
def test_states_of_words_agree(second, tmp_path):
    ours = load(second.state(), tmp_path / "model.ckpt")
    texts = ["a panda eats bamboo, 4k", ""]
    assert relative_error(ours.text_encoder(texts).text, second.encode_words(texts)) < 1e-5


def test_a_folder_of_ours_holds_all_of_it(theirs, tmp_path):
    ours = load(theirs.state(), tmp_path / "model.ckpt")
    again = vdm.load(export(ours, tmp_path / "folder", "vdm"))
    same = ("schedule", "target", "preconditioning", "given", "defaults", "envelope")
    for name in same:
        assert getattr(again.parts, name) == getattr(ours.parts, name), name
    told = {"num_frames": 2, "height": 16, "width": 24, "steps": 2, "seed": 1, "progress": False}
    if theirs.has_picture:
        told["image"] = torch.rand(3, 20, 30)
    with pytest.warns(UserWarning, match="was not trained on num_frames=2"):
        clips = [model("a cat", **told).frames for model in (ours, again)]
    assert torch.equal(*clips)


def test_other_ways_to_store_it_are_the_same_model(second, tmp_path):
    state = second.state()
    plain = load(state, tmp_path / "model.ckpt").network.state_dict()
    deep = {f"_forward_module.{key}": value for key, value in state.items()}
    torch.save({"module": deep}, tmp_path / "deepspeed.ckpt")
    save_file(state, tmp_path / "safe.safetensors")
    half = {key: value.half() for key, value in state.items()}
    torch.save(half, tmp_path / "half.ckpt")
    with tiny_sizes():
        for name in ("deepspeed.ckpt", "safe.safetensors"):
            other = vdm.load(tmp_path / name).network.state_dict()
            assert all(torch.equal(value, other[key]) for key, value in plain.items()), name
        assert vdm.load(tmp_path / "half.ckpt").schedule == Faded(DDPMTable(), 0.7)


def test_the_network_alone_is_read_as_well(theirs, tmp_path, monkeypatch):
    torch.save({"state_dict": theirs.state()}, tmp_path / "model.ckpt")
    make = KNOWN[theirs.kind].make
    from tests.pretrained.tiny_videocrafter import SIZES

    network = load_network_tiny(tmp_path / "model.ckpt", lambda: make(SIZES.unet))
    assert network.needs == {"text"} | (set(KINDS[theirs.kind]) & {"fps", "image"})


def load_network_tiny(path, make):
    from vdm.pretrained.original_network import load_original_network

    return load_original_network(path, make)


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
        r"model\.ckpt: final\.conv\.bias has shape \(5,\), UNet3D expects \(4,\)",
    ),
    "no number": (
        lambda s: s[f"{UNET}out.2.bias"].fill_(torch.nan),
        r"model\.ckpt: final\.conv\.bias holds NaN",
    ),
}


@pytest.mark.parametrize("change", BREAKS)
def test_a_file_that_is_not_as_it_has_to_be_is_refused(second, change, tmp_path):
    state = second.state()
    spoil, message = BREAKS[change]
    spoil(state)
    with pytest.raises(ValueError, match=message):
        load(state, tmp_path / "model.ckpt")


def test_a_damaged_file_is_refused(second, tmp_path):
    torch.save(second.state(), tmp_path / "model.ckpt")
    whole = (tmp_path / "model.ckpt").read_bytes()
    (tmp_path / "model.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"model\.ckpt: the file is truncated or damaged"):
        vdm.load(tmp_path / "model.ckpt")


def test_options_of_other_models_are_refused(second, tmp_path):
    torch.save(second.state(), tmp_path / "model.ckpt")
    for options in ({"motion": "adapter"}, {"profile": "original"}):
        with tiny_sizes(), pytest.raises(ValueError, match=f"got {next(iter(options))}="):
            vdm.load(tmp_path / "model.ckpt", **options)


@pytest.mark.parametrize("kind", KINDS)
def test_diffusers_has_no_class_for_them(kind, tmp_path):
    network = KNOWN[kind].make(presets.Size(presets.Heads(dim=8), 16, (32, 64), 1, (1, 0, 1)))
    with pytest.raises(ValueError, match="diffusers"):
        export(network, tmp_path)
