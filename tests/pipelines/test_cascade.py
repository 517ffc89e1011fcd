"""A cascade is a generator: same calls, same promises, and a folder that comes back as it was."""

import json

import pytest
import torch
from tiny_model import make_parts

import vdm
from vdm.cli import main
from vdm.conditioning.given import Hint, Nearest, NoiseAugmentation, Showing
from vdm.models.dit import VideoDiT
from vdm.pipelines import Generator
from vdm.pipelines.cascade import (
    Cascade,
    Interpolate,
    MakeKeyframes,
    Upscale,
    blend_between,
    save_cascade,
)
from vdm.pipelines.evaluate import evaluate
from vdm.pretrained import export, read
from vdm.pretrained.cascades import StageCard, is_cascade, read_cascade
from vdm.pretrained.parts import Defaults, Envelope
from vdm.utils.time_grid import TimeGrid

RED, BLUE = "a red circle moves left", "a small blue square stays still"
DEFAULTS = Defaults(9, 8.0, 16, 16, steps=2, guidance_scale=2.0, sampler="euler")
WIDE = Envelope((1, 64), (0.1, 64.0), (8, 64), (8, 64))
LATENTS = {"seed": 3, "output": "latents", "progress": False}


def model(seed, scalars=(), given=None, **changes):
    torch.manual_seed(seed)
    network = VideoDiT(3, 24, 1, 2, text_dim=8, pooled_dim=8, scalars=scalars)
    parts = make_parts(
        network=network, given=given, defaults=DEFAULTS, envelope=WIDE, name=f"m{seed}", **changes
    )
    with torch.no_grad():  # make_parts draws the same for all
        network.patch_embed.weight += 0.1 * torch.randn(network.patch_embed.weight.shape)
    # One autoencoder and one text encoder for all, as in a family of models.
    shared = make_parts()
    parts.autoencoder, parts.text_encoder = shared.autoencoder, shared.text_encoder
    return Generator(parts)


@pytest.fixture(scope="module")
def keyframes():
    return model(1, ["fps"])


@pytest.fixture(scope="module")
def filler():
    return model(2, ["noise_aug"], Showing(Nearest(), NoiseAugmentation()))


@pytest.fixture(scope="module")
def upscaler():
    return model(3, ["noise_aug"], Showing(Hint(), NoiseAugmentation()))


@pytest.fixture(scope="module")
def cascade(keyframes, filler):
    return Cascade([MakeKeyframes(keyframes), Interpolate(filler)], "two")


def picture(seed=0):
    return torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_a_cascade_makes_a_clip_as_a_generator_does(cascade):
    clip = cascade([RED, BLUE], seed=5, progress=False)
    assert clip.frames.shape == (2, 3, 9, 16, 16)
    assert clip.fps == 8.0
    assert clip[1].metadata["seed"] == 6
    assert clip[1].metadata["prompt"] == BLUE
    assert [stage["model"] for stage in clip.metadata["stages"]] == ["m1", "m2"]
    assert clip.metadata["model"] == "two"
    assert "interpolate 'm2'" in repr(cascade)


def test_its_keyframes_are_what_the_first_model_makes_alone(cascade, keyframes):
    latents = cascade(RED, **LATENTS)
    alone = keyframes(RED, num_frames=5, fps=4.0, **LATENTS)
    assert torch.equal(latents[:, :, ::2], alone)


def test_a_sample_of_a_batch_equals_the_same_sample_alone(keyframes, filler, upscaler):
    stages = [MakeKeyframes(keyframes), Interpolate(filler), Upscale(upscaler)]
    cascade = Cascade(stages)
    together = cascade([RED, BLUE, RED], **LATENTS)
    for k, prompt in enumerate([RED, BLUE, RED]):
        alone = cascade(prompt, **{**LATENTS, "seed": 3 + k})
        torch.testing.assert_close(together[k : k + 1], alone, atol=2e-5, rtol=0)


@pytest.mark.parametrize("factors", [(2, 2), (4,), (3,)])
@pytest.mark.parametrize("num_frames", [1, 2, 5, 8, 9])
def test_recursion_fits_every_number_of_frames(keyframes, filler, factors, num_frames):
    stages = [MakeKeyframes(keyframes), *(Interpolate(filler, factor) for factor in factors)]
    cascade = Cascade(stages)
    latents = cascade(RED, num_frames=num_frames, steps=1, **LATENTS)
    assert latents.shape[2] == TimeGrid(num_frames, stride=2).num_latent_frames
    stride = cascade.stride
    part = TimeGrid(num_frames, 8.0, 2).every(stride)
    alone = keyframes(RED, num_frames=part.num_frames, fps=part.fps, steps=1, **LATENTS)
    assert torch.equal(latents[:, :, ::stride], alone)


@pytest.mark.parametrize("order", ["interpolate first", "upscale first"])
def test_the_same_stages_go_in_either_order(keyframes, filler, upscaler, order, monkeypatch):
    later = [Interpolate(filler), Upscale(upscaler)]
    cascade = Cascade([MakeKeyframes(keyframes), *(later if order[0] == "i" else later[::-1])])
    asked = []
    call = Generator.__call__

    def spy(self, *args, **kwargs):
        asked.append((self.parts.name, kwargs["num_frames"], kwargs["height"]))
        return call(self, *args, **kwargs)

    monkeypatch.setattr(Generator, "__call__", spy)
    assert cascade(RED, **LATENTS).shape == (1, 3, 5, 4, 4)
    middle = ("m2", 9, 8) if order[0] == "i" else ("m3", 5, 16)
    last = ("m3", 9, 16) if order[0] == "i" else ("m2", 9, 16)
    assert asked == [("m1", 5, 8), middle, last]


def test_a_larger_clip_follows_the_small_one(keyframes, upscaler):
    seen = []
    handle = upscaler.network.register_forward_pre_hook(lambda _, args: seen.append(args[2]))
    small = Cascade([MakeKeyframes(keyframes), Upscale(upscaler)])
    small(RED, guidance_scale=1.0, noise_aug=0.0, **LATENTS)
    handle.remove()
    assert not seen[0].given_mask.any()
    draft = keyframes(RED, height=8, width=8, guidance_scale=1.0, **LATENTS)
    pixels = keyframes.autoencoder.decode(draft, num_frames=9).clamp(-1, 1)
    assert seen[0].given.shape == (1, 3, 5, 4, 4)
    frames = torch.nn.functional.interpolate(
        pixels[0].transpose(0, 1), scale_factor=2, mode="bilinear"
    )
    expected = upscaler.autoencoder.encode(frames.transpose(0, 1)[None])
    torch.testing.assert_close(seen[0].given, expected, atol=1e-4, rtol=0)


def test_latents_between_are_on_straight_lines():
    few = torch.arange(3.0).reshape(1, 1, 3, 1, 1) ** 2
    assert blend_between(few, 2, 6).flatten().tolist() == [0, 0.5, 1, 2.5, 4, 4]


def test_a_given_picture_is_the_first_frame(cascade):
    latents = cascade(RED, image=picture(), **LATENTS)
    expected = cascade.autoencoder.encode(2 * picture()[None, :, None] - 1)
    assert torch.equal(latents[:, :, :1], expected)
    assert not torch.equal(latents, cascade(RED, image=picture(1), **LATENTS))
    both = cascade(RED, image=torch.stack([picture(), picture(1)]), **LATENTS)
    assert len(both) == 2


def test_given_frames_of_a_clip_stay_whichever_stage_they_fall_to(cascade):
    video = torch.rand(3, 9, 16, 16)
    mask = torch.tensor([0, 1, 1, 0, 0, 0, 0, 1, 1])  # latent frames 1 and 4
    latents = cascade(RED, video=video, mask=mask, **LATENTS)
    other = cascade(RED, video=video, mask=mask, **{**LATENTS, "seed": 9})
    for k in range(5):
        assert torch.equal(latents[:, :, k], other[:, :, k]) == (k in (1, 4))


def test_a_folder_comes_back_as_it_was(keyframes, filler, tmp_path):
    made = Cascade([MakeKeyframes(keyframes), Interpolate(filler), Interpolate(filler)], "thrice")
    folder = export(made, tmp_path / "model", layout="vdm")
    assert sorted(path.name for path in folder.iterdir()) == [
        "0-keyframes",
        "1-interpolate",
        "vdm.json",
    ]
    loaded = vdm.load(folder)
    assert isinstance(loaded, Generator)
    assert loaded.parts.name == "thrice"
    assert loaded.stages[1].model is loaded.stages[2].model
    assert loaded.stages[0].model.autoencoder is loaded.autoencoder
    assert torch.equal(loaded(RED, **LATENTS), made(RED, **LATENTS))
    assert loaded.about()["config_sha256"] == made.about()["config_sha256"]
    assert vdm.load(folder, attention="plain", dtype="bfloat16").dtype == torch.bfloat16


@pytest.fixture(scope="module")
def folders(keyframes, filler, tmp_path_factory):
    place = tmp_path_factory.mktemp("models")
    for name, generator in (("a", keyframes), ("b", filler)):
        export(generator, place / name, layout="vdm")
    return place


def test_commands_make_a_cascade_and_sample_it(folders, cascade, tmp_path, capsys):
    a, b = folders / "a", folders / "b"
    assert main(["convert", str(a), str(tmp_path / "two"), "--then", f"interpolate={b}"]) == 0
    assert is_cascade(tmp_path / "two")
    assert read_cascade(tmp_path / "two")[0] == "two"
    assert torch.equal(vdm.load(tmp_path / "two")(RED, **LATENTS), cascade(RED, **LATENTS))
    words = [str(tmp_path / "two"), RED, "--out", str(tmp_path / "clips"), "--seed", "3"]
    assert main(["sample", *words, "--format", "npz", "--no-progress"]) == 0
    assert (tmp_path / "clips" / "a-red-circle-moves-left_seed3.npz").is_file()
    again = [str(tmp_path / "two"), str(tmp_path / "again"), "--then", f"interpolate:3={b}"]
    assert main(["convert", *again]) == 0
    card = json.loads((tmp_path / "again" / "vdm.json").read_text())
    assert card["name"] == "two"
    assert [(stage["kind"], stage["factor"]) for stage in card["stages"]] == [
        ("keyframes", 1),
        ("interpolate", 2),
        ("interpolate", 3),
    ]
    capsys.readouterr()
    assert main(["sample", *words, "--stream"]) == 2
    assert "--stream" in capsys.readouterr().err


def test_models_are_put_together_by_kind(folders, tmp_path):
    folder = save_cascade(tmp_path / "two", keyframes=folders / "a", interpolate=folders / "b")
    assert [stage.kind for stage in vdm.load(folder).stages] == ["keyframes", "interpolate"]
    with pytest.raises(ValueError, match="already holds a model"):
        save_cascade(folder, keyframes=folders / "a")
    with pytest.raises(ValueError, match="got a cascade of several models, expected a single one"):
        read(folder)


def test_a_cascade_is_evaluated_as_any_model(folders, tmp_path):
    folder = save_cascade(tmp_path / "two", keyframes=folders / "a", interpolate=folders / "b")
    settings = {"num_frames": 16, "steps": 1, "num_resamples": 20}
    result = evaluate(folder, "test-iid", n=1, num_objects=[1], baselines=False, **settings)
    assert [stage["model"] for stage in result.about["stages"]] == ["m1", "m2"]
    assert "generated" in next(iter(result.scores.values()))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"noise": torch.zeros(1, 3, 5, 4, 4)}, "got noise for a cascade, expected seeds"),
        ({"cond": {"given": torch.zeros(1, 3, 5, 4, 4)}}, r"got cond\.given for a cascade"),
        ({"guidance_scale_2": 3.0}, "got guidance_scale_2 for a cascade, expected None"),
        ({"height": 20}, "got height=20, expected a multiple of 8; nearest: 16"),
        ({"output": "pixels"}, "got output='pixels'"),
        ({"motion_bucket": 3.0}, "does not read motion_bucket"),
        ({"prompt": [RED] * 2, "seed": [1, 2, 3]}, "expected 1 or 3"),
    ],
)
def test_what_a_cascade_cannot_do_is_refused(cascade, asked, message):
    with pytest.raises(ValueError, match=message):
        cascade(**{"prompt": RED, "progress": False, **asked})


def test_stages_that_do_not_fit_are_refused(keyframes, filler, tmp_path):
    other = Generator(make_parts(network=VideoDiT(3, 24, 1, 2), autoencoder=None))
    for stages, message in [
        ([], "got stages none, expected keyframes first"),
        ([Interpolate(filler)], "got stages interpolate, expected keyframes first"),
        ([MakeKeyframes(keyframes)] * 2, "expected keyframes first and then others"),
        ([MakeKeyframes(other), Interpolate(filler)], "expected the same for all stages"),
    ]:
        with pytest.raises(ValueError, match=message):
            Cascade(stages)
    with pytest.raises(ValueError, match="got layout='diffusers' for a cascade"):
        export(Cascade([MakeKeyframes(keyframes), Interpolate(filler)]), tmp_path)
    with pytest.raises(ValueError, match="got factor=1 for interpolate, expected at least 2"):
        Interpolate(filler, 1)
    with pytest.raises(ValueError, match="got factor=2 for keyframes, expected 1"):
        MakeKeyframes(keyframes, 2)
    for word in ("interpolate", "interpolate:x=a", "interpolate="):
        with pytest.raises(ValueError, match=r"expected KIND\[:FACTOR\]=MODEL"):
            StageCard.parse(word)
    with pytest.raises(ValueError, match="got stage 'paint', expected one of keyframes"):
        StageCard.parse("paint=a")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "vdm-cascade/2"}, "got format 'vdm-cascade/2', expected 'vdm-cascade/1'"),
        ({"weights": {}}, "unknown key weights"),
        ({"stages": [{"kind": "keyframes", "model": "../a"}]}, r"got model '\.\./a', expected a f"),
        ({"stages": [{"kind": "paint", "model": "a"}]}, "got stage 'paint'"),
        ({"stages": [{"kind": "keyframes", "model": "a", "size": 3}]}, "vdm.json"),
        ({"stages": []}, "got stages none"),
    ],
)
def test_a_bad_list_of_stages_is_one_line(change, message, tmp_path):
    stages = [{"kind": "keyframes", "model": "a", "factor": 1}]
    card = {"format": "vdm-cascade/1", "name": "bad", "stages": stages, **change}
    (tmp_path / "vdm.json").write_text(json.dumps(card))
    with pytest.raises(ValueError, match=message):
        vdm.load(tmp_path)
