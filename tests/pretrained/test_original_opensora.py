"""Open-Sora's releases as whole models; what they make is compared in ``parity_opensora``."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_model import make_parts

import vdm
from tests.pretrained import opensora_oracle as oracle
from tests.pretrained import opensora_vae_oracle as vae_oracle
from tests.pretrained.full_models import SIDES
from tests.pretrained.opensora_release import (
    FILE,
    IMAGE_VAE,
    NETWORK,
    TEXT,
    VIDEO_VAE,
    ReleaseOne,
    ReleaseTwo,
)
from tests.pretrained.test_full_sizes import count
from vdm.autoencoder.latents import Standard
from vdm.models.dit_presets import STDIT3_3B, STDiT3Size, stdit, stdit3
from vdm.pipelines.generate import Generator
from vdm.pipelines.plan import plan, read_description
from vdm.pretrained import export, load_autoencoder, load_network, sources
from vdm.pretrained.diffusers_files import open_weights
from vdm.pretrained.keymap import to_foreign
from vdm.pretrained.original_opensora import HUB
from vdm.pretrained.original_opensora_vae import opensora_vae_entries, vae_of
from vdm.pretrained.original_stdit import stdit_entries

QUIET = {"progress": False, "output": "latents", "steps": 1, "seed": 1}
TABLES = {"pos_embed", "pos_embed_temporal", "rope.freqs", "scale", "shift"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("opensora")
    ReleaseOne().save_pretrained(path)
    ReleaseTwo().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def one(folder):
    return vdm.load(folder / FILE)


@pytest.fixture(scope="module")
def two(folder):
    return vdm.load(folder / NETWORK)


def shapes(state):
    return {key: tuple(value.shape) for key, value in state.items() if key not in TABLES}


def test_the_first_network_has_the_published_keys_and_shapes():
    with torch.device("meta"):
        theirs, ours = oracle.STDiT(**oracle.FULL_ONE), stdit()
        found = to_foreign(ours.state_dict(), stdit_entries(ours))
    assert shapes(found) == shapes(theirs.state_dict())
    assert len(theirs.state_dict()) == 550
    assert count(ours) == 759_620_768


@pytest.mark.parametrize(
    ("size", "num_parameters"), [(STDiT3Size(), 1_207_643_972), (STDIT3_3B, 3_182_211_572)]
)
def test_the_second_networks_have_the_published_keys_and_shapes(size, num_parameters):
    with torch.device("meta"):
        told = {"heads": size.num_heads, "dim": 72 * size.num_heads}
        theirs, ours = oracle.STDiT3(**oracle.FULL_TWO | told), stdit3(size)
        found = to_foreign(ours.state_dict(), stdit_entries(ours))
    assert shapes(found) == shapes(theirs.state_dict())
    assert len(theirs.state_dict()) == 973
    assert count(ours) + 36 == num_parameters  # frequencies are counted there


def test_the_video_vae_has_the_published_keys_and_shapes():
    with torch.device("meta"):
        image = SIDES | {"up_block_types": ("UpDecoderBlock2D",) * 4, "latent_channels": 4}
        theirs = vae_oracle.VideoVAEOracle(image, **vae_oracle.FULL).state_dict()
        ours = vae_of(theirs, Standard(vae_oracle.SHIFT, vae_oracle.SCALE), 17)
        found = to_foreign(ours.state_dict(), opensora_vae_entries(ours))
    assert shapes(found) == shapes(theirs)
    assert sum(key.startswith("temporal_vae.") for key in theirs) == 267
    assert (count(ours.time), count(ours.image)) == (309_687_144, 83_653_863)
    assert ours.strides == (4, 8, 8)


def test_its_defaults_are_the_published_ones(one):
    defaults, side = one.parts.defaults, 8 * one.autoencoder.strides[1]
    assert one.parts.system == "Open-Sora 1.0"
    assert (defaults.num_frames, defaults.height, defaults.width) == (5, side, side)
    assert (defaults.fps, defaults.steps, defaults.guidance_scale) == (8, 100, 7)
    assert (defaults.sampler, defaults.time_grid) == ("learned_range", "linspace")
    assert defaults.guided_channels == 3
    assert one.text_encoder.max_length == 120


def test_any_sampler_takes_it(one):
    assert one("a cat", sampler="dpmpp_2m", **QUIET).isfinite().all()


def test_guidance_leaves_the_other_channels_as_they_are(one):
    small = {"sampler": "euler", "steps": 1, "seed": 1, "progress": False, "output": "latents"}
    plain, led = (one("a cat", guidance_scale=scale, **small) for scale in (1, 9))
    assert not torch.equal(led[:, :3], plain[:, :3])
    assert torch.allclose(led[:, 3:], plain[:, 3:], atol=1e-6)
    with pytest.raises(ValueError, match=r"got guidance that varies for .* expected one number"):
        one("a cat", guidance_scale=(1, 3), **QUIET)


def test_a_network_that_says_nothing_of_the_variance_is_refused():
    with pytest.raises(
        ValueError, match=r"got sampler 'learned_range' for .* expected e\.g\. 'anc"
    ):
        Generator(make_parts())("a red circle moves left", sampler="learned_range", **QUIET)


def test_it_is_written_and_read_back(folder, one, tmp_path):
    vdm.pretrained.convert(folder / FILE, tmp_path / "ours")
    back = vdm.load(tmp_path / "ours")
    assert torch.equal(back("a cat", **QUIET), one("a cat", **QUIET))
    assert back.parts.defaults == one.parts.defaults
    with pytest.raises(ValueError, match="diffusers has no class for this VideoDiT"):
        export(one.network, tmp_path / "there")


def test_what_is_missing_or_odd_is_named(folder, tmp_path):
    path = tmp_path / "weights.pth"
    state = torch.load(folder / FILE, weights_only=True)
    torch.save({"state_dict": state}, path)
    with pytest.raises(FileNotFoundError, match=f"holds a network alone.* {TEXT} is missing"):
        vdm.load(path)
    shutil.copytree(folder / TEXT, tmp_path / TEXT)
    with pytest.raises(FileNotFoundError, match=f"{IMAGE_VAE} is missing"):
        vdm.load(path)
    for change, message in (
        ({"odd.weight": torch.ones(1)}, r"holds odd\.weight"),
        ({"pos_embed": state["pos_embed"] + 0.1}, "pos_embed holds other positions than those"),
        ({"t_block.1.bias": torch.ones(3)}, r"t_block\.1\.bias has shape \(3,\)"),
    ):
        torch.save(state | change, path)
        with pytest.raises(ValueError, match=message):
            load_network(path)
    torch.save({key: value for key, value in state.items() if key != "pos_embed"}, path)
    with pytest.raises(ValueError, match="misses pos_embed"):
        load_network(path)
    torch.save({"weight": torch.ones(1)}, path)
    with pytest.raises(ValueError, match="got a file of no known network, expected one of Open-S"):
        vdm.load(path)


def test_the_second_has_its_published_defaults(two):
    defaults = two.parts.defaults
    assert two.parts.system == "Open-Sora 1.2"
    assert (defaults.num_frames, defaults.fps, defaults.steps) == (51, 24, 30)
    assert (defaults.height, defaults.width, defaults.guidance_scale) == (240, 424, 7)
    assert (defaults.sampler, defaults.time_grid) == ("euler", "shifted_by_size")
    assert two.text_encoder.max_length == 300
    assert (two.autoencoder.strides, two.autoencoder.frames_per_piece) == ((4, 2, 2), 17)


@pytest.mark.filterwarnings("ignore:.*not trained on")
def test_prompts_end_in_the_published_words_and_frames_are_counted_in_pieces(two):
    seen, encode = [], two.text_encoder.encode
    two.text_encoder.encode = lambda texts: seen.append(list(texts)) or encode(texts)
    try:
        latents = two("a cat", num_frames=22, height=10, width=14, **QUIET)
    finally:
        del two.text_encoder.encode
    assert seen[0] == ["a cat aesthetic score: 6.5."]
    assert latents.shape == (1, 4, 7, 5, 7)


def test_the_parts_of_the_second_load_by_themselves(folder, two):
    network = load_network(folder / NETWORK).state_dict()
    assert all(torch.equal(value, network[key]) for key, value in two.network.state_dict().items())
    vae = load_autoencoder(folder / VIDEO_VAE)
    latents = torch.randn(1, 4, 2, 3, 4)
    assert torch.equal(vae.decode(latents), two.autoencoder.decode(latents))


@pytest.mark.filterwarnings("ignore:.*not trained on")
def test_the_second_is_written_and_read_back(folder, two, tmp_path):
    vdm.pretrained.convert(folder / NETWORK, tmp_path / "ours")
    back, small = vdm.load(tmp_path / "ours"), {"num_frames": 5, "height": 6, "width": 10}
    asked = {**QUIET, "output": "video"}
    one, other = (model("a cat", **small, **asked).frames for model in (back, two))
    assert one.shape == (1, 3, 5, 6, 10)
    assert torch.equal(one, other)


def test_what_is_odd_about_the_second_is_named(folder, tmp_path):
    for part, load in ((NETWORK, load_network), (VIDEO_VAE, load_autoencoder)):
        shutil.copytree(folder / part, tmp_path / part)
        path = tmp_path / part / "config.json"
        settings = json.loads(path.read_text())
        path.write_text(json.dumps(settings | {"odd": 3}))
        with pytest.raises(ValueError, match=r"config\.json: got odd=3, which nothing reads"):
            load(tmp_path / part)
        path.write_text(json.dumps(settings))
    with pytest.raises(FileNotFoundError, match=f"{NETWORK}: holds a network alone.* {TEXT} is"):
        vdm.load(tmp_path / NETWORK)
    path = tmp_path / VIDEO_VAE / "config.json"
    path.write_text(json.dumps(settings | {"scale": [1.0, 2.0, 3.0, 4.0]}))
    with pytest.raises(ValueError, match="scale holds other numbers than"):
        load_autoencoder(tmp_path / VIDEO_VAE)
    path = tmp_path / NETWORK / "model.safetensors"
    state = load_file(path)
    save_file(state | {"rope.freqs": state["rope.freqs"] + 0.1}, path)
    with pytest.raises(ValueError, match="freqs holds other frequencies than those published"):
        load_network(tmp_path / NETWORK)


def test_the_second_comes_from_the_hub_with_all_that_it_needs(folder, two, monkeypatch):
    asked = {}

    def fetch(source, how, more=()):
        asked[source] = tuple(more)
        return folder / source.split("/")[1]

    monkeypatch.setattr(sources, "fetch", fetch)
    found = sources.read("hpcai-tech/OpenSora-STDiT-v3")
    assert asked.keys() == {"hpcai-tech/OpenSora-STDiT-v3", *HUB.values()}
    assert asked[HUB[TEXT]] == ("*.bin",)
    assert found.config_hash() == two.parts.config_hash()


def test_a_plan_needs_no_weights(folder, tmp_path):
    for part in (NETWORK, VIDEO_VAE, TEXT):
        shutil.copytree(folder / part, tmp_path / part, ignore=lambda *_: ["model.safetensors"])
    description = read_description(tmp_path / NETWORK)
    stages = {stage.name: stage for stage in plan(description, num_frames=1, height=8, width=16)}
    assert list(stages) == ["text_encoder", "network", "decoder"]
    assert stages["network"].num_calls == 60
    assert stages["decoder"].num_parameters == 309_687_144 + 83_653_863


def test_text_encoders_may_lie_in_shards_of_torchs_format(folder, tmp_path):
    state = load_file(folder / TEXT / "model.safetensors")
    names = {key: f"pytorch_model-0000{1 + k % 2}-of-00002.bin" for k, key in enumerate(state)}
    for file in set(names.values()):
        torch.save({key: state[key] for key in state if names[key] == file}, tmp_path / file)
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": names}))
    found = open_weights(tmp_path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key], value) for key, value in state.items())
    index.write_text(json.dumps({"weight_map": names | {"odd": names["shared.weight"]}}))
    with pytest.raises(ValueError, match="odd is in the index or in a shard, but not in both"):
        open_weights(tmp_path)
