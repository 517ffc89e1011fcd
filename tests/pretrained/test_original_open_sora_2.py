"""Open-Sora 2.0's release as a whole model; what it makes is compared in ``parity_open_sora_2``."""

import pytest
import torch
from safetensors.torch import load_file, save_file

import vdm
from tests.pretrained.open_sora_2_release import NETWORK, SIZE, VAE, ReleaseV2, small_vae
from vdm.models.dual_stream_presets import OPEN_SORA_2, OPEN_SORA_2_DEEP, open_sora_2
from vdm.pipelines.walk import times_of
from vdm.pretrained import export
from vdm.pretrained.keymap import to_foreign
from vdm.pretrained.original_dual_stream import OPEN_SORA_ORIGINAL, dual_stream_entries
from vdm.pretrained.original_open_sora_2 import read_open_sora_2, size_in

ASKED = {"height": 16, "width": 32, "num_frames": 13, "steps": 2, "seed": 1, "progress": False}
ASKED |= {"output": "latents"}
pytestmark = pytest.mark.filterwarnings("ignore:.*was not trained on")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("open_sora_2") / "ckpts"
    ReleaseV2().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def generate(folder):
    with small_vae():
        return vdm.load(folder)


def movie(num_frames):
    drawn = torch.Generator().manual_seed(3)
    return torch.rand(3, num_frames, 16, 32, generator=drawn)


def test_published_defaults(generate):
    defaults = generate.parts.defaults
    assert (defaults.num_frames, defaults.height, defaults.width) == (129, 192, 336)
    assert (defaults.steps, defaults.guidance_scale, defaults.guidance_scale_2) == (50, 7.5, 3.0)
    assert generate.parts.system == "Open-Sora 2.0"
    # 1.0 for 256 tokens of a frame, times the root of the number of frames.
    times = times_of(generate, 4, (4, 32, 32))
    assert times.tolist() == pytest.approx([1, 6 / 7, 2 / 3, 0.4, 0])


@pytest.mark.parametrize("size", [SIZE, OPEN_SORA_2, OPEN_SORA_2_DEEP])
def test_files_tell_how_large_a_network_is(size):
    with torch.device("meta"):
        network = open_sora_2(size)
        state = to_foreign(network.state_dict(), dual_stream_entries(network, OPEN_SORA_ORIGINAL))
    assert size_in(state, "file") == size
    del state["cond_in.weight"]
    with pytest.raises(ValueError, match=r"file: has no cond_in.weight of 2 axes"):
        size_in(state, "file")


def test_clips_may_be_given_at_both_ends(generate):
    ends = movie(6)
    mask = torch.zeros(13)
    mask[:5] = mask[-1] = 1
    latents = generate("a cat", video=ends, mask=mask, **ASKED)
    assert latents.shape[2] == 4
    pixels = 2 * ends[None] - 1
    pairs = (pixels[:, :, :5], latents[:, :, :2]), (pixels[:, :, 5:], latents[:, :, 3:])
    for frames, found in pairs:
        torch.testing.assert_close(found, generate.autoencoder.encode(frames))
    other = generate("a cat", video=ends.flip(1), mask=mask, **ASKED)
    assert not torch.allclose(other[:, :, 2], latents[:, :, 2], atol=1e-3)


def test_given_frames_have_a_scale_of_their_own(generate):
    picture = movie(1)[:, 0]
    made = [
        generate("a cat", image=picture, guidance_scale=scale, guidance_scale_2=second, **ASKED)
        for scale, second in ((7.5, 3.0), (7.5, 1.0), (1.0, 1.0))
    ]
    assert not torch.allclose(made[0], made[1], atol=1e-3)
    assert torch.equal(made[0], generate("a cat", image=picture, **ASKED))
    assert torch.equal(made[0], generate("a cat", image=picture, guidance_scale=7.5, **ASKED))
    with pytest.raises(ValueError, match="got guidance_scale_2=3 and the ramp"):
        generate("a cat", image=picture, guidance_scale=(1.0, 3.0), **ASKED)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"frames": [3]}, "got frames in the middle, expected them at the beginning or the end"),
        ({"frames": [0, 1]}, "got 2 given frames side by side, .* of 4; nearest: 1"),
        ({"frames": range(13)}, "got 13 frames of 13 given, expected some left"),
        ({"region": True}, "got a mask of regions, expected one of whole frames"),
    ],
)
def test_what_is_not_given_as_it_has_to_be_is_refused(generate, given, message):
    mask = torch.zeros(13)
    if "region" in given:
        mask = torch.zeros(13, 16, 32)
        mask[:, :8] = 1
    else:
        mask[list(given["frames"])] = 1
    with pytest.raises(ValueError, match=message):
        generate("a cat", video=movie(13), mask=mask, **ASKED)


def test_a_release_that_is_not_whole_or_of_other_parts_is_refused(folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / VAE).unlink()
    with small_vae(), pytest.raises(FileNotFoundError, match=VAE):
        read_open_sora_2(tmp_path)
    state = load_file(folder / NETWORK)
    state["cond_in.weight"] = state["cond_in.weight"][:, : 16 + 1]
    (tmp_path / NETWORK).unlink()
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / NETWORK)
    (tmp_path / VAE).symlink_to(folder / VAE)
    with small_vae(), pytest.raises(ValueError, match=r"got a VAE of 4 channels, .* of 16"):
        read_open_sora_2(tmp_path)


def test_it_comes_back_from_our_own_layout(generate, tmp_path):
    export(generate, tmp_path / "ours", layout="vdm")
    asked = ASKED | {"image": movie(1)[:, 0]}
    again = vdm.load(tmp_path / "ours")
    assert torch.equal(again("a cat", **asked), generate("a cat", **asked))
    with pytest.raises(ValueError, match="diffusers has no class for DualStreamDiT"):
        export(generate, tmp_path / "theirs")
