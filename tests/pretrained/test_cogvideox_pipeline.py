"""CogVideoX makes the frames that diffusers makes, from words, a picture or a clip."""

import json
import shutil

import pytest
import torch
from diffusers import CogVideoXVideoToVideoPipeline
from torchvision.transforms.functional import to_pil_image

import vdm
from tests.pretrained.tiny_dit import COGVIDEOX_KINDS, COGVIDEOX_SIZE, cogvideox_pipeline
from vdm.conditioning.picture import FirstFrame
from vdm.pretrained import export

PROMPTS, NEGATIVE, SEEDS = ["a cat runs", "the dogs"], "rain", [11, 5]
HEIGHT, WIDTH = COGVIDEOX_SIZE
NUM_FRAMES = 9  # three latent frames, of which version 1.5 makes four
pytestmark = pytest.mark.filterwarnings("ignore:.*was not trained on")


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Each model there and here, made once, and where it lies."""
    made = {}

    def load(kind):
        if kind not in made:
            theirs, folder = cogvideox_pipeline(kind), tmp_path_factory.mktemp("cog") / "model"
            theirs.save_pretrained(folder)
            made[kind] = (theirs, vdm.load(folder), folder)
        return made[kind]

    return load


def generators():
    return [torch.Generator().manual_seed(seed) for seed in SEEDS]


def their_frames(pipeline, **more):
    pipeline.set_progress_bar_config(disable=True)
    made = pipeline(
        prompt=PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        height=HEIGHT,
        width=WIDTH,
        guidance_scale=3.0,
        generator=generators(),
        output_type="pt",
        **more,
    )
    return made.frames.transpose(1, 2)


def our_frames(generate, **more):
    return generate(
        PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        height=HEIGHT,
        width=WIDTH,
        guidance_scale=3.0,
        seed=SEEDS,
        progress=False,
        **more,
    ).frames


def pictures():
    noise = torch.rand(2, 3, 30, 50, generator=torch.Generator().manual_seed(1))
    return [to_pil_image(picture) for picture in noise]


def agree(ours, theirs):
    assert ours.shape == theirs.shape
    assert theirs.std() > 0.05
    error = float((ours - theirs).abs().max())
    print(f"largest difference of frames {error:.1e}")
    assert error <= 1e-4


@pytest.mark.parametrize("kind", COGVIDEOX_KINDS)
def test_frames_agree_from_the_seed_on(kind, loaded):
    theirs, generate, _ = loaded(kind)
    told = {"image": pictures()} if kind.endswith("i2v") else {}
    expected = their_frames(
        theirs, num_frames=NUM_FRAMES, num_inference_steps=4, use_dynamic_cfg=True, **told
    )
    asked = {"num_frames": NUM_FRAMES, "steps": 4, "dynamic_guidance": True}
    agree(our_frames(generate, **asked, **told), expected)
    constant = our_frames(generate, **asked | {"dynamic_guidance": False}, **told)
    assert not torch.allclose(constant, expected, atol=1e-3)


@pytest.mark.parametrize("kind", ["2b", "5b"])
def test_a_clip_is_made_anew(kind, loaded):
    theirs, generate, _ = loaded(kind)
    movie = torch.rand(3, NUM_FRAMES, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1))
    again = CogVideoXVideoToVideoPipeline(**theirs.components)
    both = {"strength": 0.7}
    expected = their_frames(again, video=[movie.transpose(0, 1)] * 2, num_inference_steps=4, **both)
    made = our_frames(generate, video=movie, steps=4, **both)
    agree(made, expected)


@pytest.mark.parametrize("kind", ["2b", "5b-i2v", "1.5-i2v"])
def test_it_is_written_back_and_loads_there(kind, loaded, tmp_path):
    theirs, generate, _ = loaded(kind)
    export(generate, tmp_path / "back")
    back = type(theirs).from_pretrained(tmp_path / "back")
    told = {"image": pictures()} if kind.endswith("i2v") else {}
    asked = {"num_frames": NUM_FRAMES, "num_inference_steps": 2, **told}
    assert torch.equal(their_frames(back, **asked), their_frames(theirs, **asked))
    again = vdm.load(tmp_path / "back")
    assert again.parts.describe()["defaults"] == generate.parts.describe()["defaults"]
    assert again.parts.config_hash() == generate.parts.config_hash()


def test_what_it_was_trained_on_is_what_it_makes_by_default(loaded):
    old, new = (loaded(kind)[1].parts for kind in ("2b", "1.5-i2v"))
    assert (old.system, old.given) == ("CogVideoX-2B", None)
    assert (old.defaults.num_frames, old.defaults.height, old.defaults.width) == (9, 32, 48)
    assert (new.system, new.given) == ("CogVideoX1.5-5B-I2V", FirstFrame())
    assert (new.defaults.num_frames, new.defaults.height, new.defaults.width) == (81, 768, 1360)


def test_latents_are_those_of_the_clip_alone(loaded):
    generate = loaded("1.5")[1]
    asked = {"num_frames": NUM_FRAMES, "height": HEIGHT, "width": WIDTH, "steps": 2, "seed": 3}
    latents = generate("a cat", output="latents", progress=False, **asked)
    assert latents.shape == (1, 4, 3, 4, 6)
    clip = generate("a cat", progress=False, **asked)
    decoded = generate.autoencoder.decode(latents, num_frames=NUM_FRAMES)
    torch.testing.assert_close(clip.frames, (decoded / 2 + 0.5).clamp(0, 1))


def test_ready_made_states_do_as_well_as_words(loaded):
    generate = loaded("5b")[1]
    asked = {"num_frames": 1, "height": HEIGHT, "width": WIDTH, "steps": 2, "seed": 3}
    states = generate.text_encoder.encode(["a cat"]).text
    words = generate("a cat", progress=False, **asked).frames
    assert torch.equal(generate(states, progress=False, **asked).frames, words)


def test_a_clip_that_fills_no_whole_tokens_cannot_be_started_from(loaded):
    video = torch.rand(3, NUM_FRAMES, HEIGHT, WIDTH)
    with pytest.raises(ValueError, match="got num_frames=9, which makes 3 latent frames"):
        our_frames(loaded("1.5")[1], video=video, strength=0.5)


def test_what_does_not_go_together_is_refused(loaded, tmp_path):
    _, generate, folder = loaded("5b-i2v")
    with pytest.raises(ValueError, match="got no image, model 'model' needs one to move from"):
        generate("a cat", height=HEIGHT, width=WIDTH)
    with pytest.raises(ValueError, match=r"got dynamic_guidance and the ramp \(1.0, 2.0\)"):
        generate("a cat", dynamic_guidance=True, guidance_scale=(1.0, 2.0))
    shutil.copytree(folder, tmp_path / "model")
    path = tmp_path / "model" / "model_index.json"
    index = json.loads(path.read_text())
    path.write_text(json.dumps({key: v for key, v in index.items() if key != "vae"}))
    with pytest.raises(ValueError, match="has no vae"):
        vdm.load(tmp_path / "model")
    path.write_text(json.dumps({**index, "controlnet": ["diffusers", "ControlNet"]}))
    with pytest.raises(ValueError, match="got a part controlnet, expected scheduler, text_enc"):
        vdm.load(tmp_path / "model")
