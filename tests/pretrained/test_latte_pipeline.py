"""Latte makes the frames that diffusers makes of each prompt by itself."""

import pytest
import torch
from diffusers import LattePipeline

import vdm
from tests.pretrained.tiny_dit import LATTE_SIZE, latte_pipeline
from vdm.pretrained import export

PROMPTS, NEGATIVE, SEEDS = ["a Cat runs ", "dogs"], "rain", [11, 5]
HEIGHT, WIDTH = LATTE_SIZE
NUM_FRAMES = 5
pytestmark = pytest.mark.filterwarnings("ignore:.*was not trained on")


def their_frames(pipeline, steps=4):
    """One prompt after the other: in a batch, tokens that fill up are zero but take part."""
    pipeline.set_progress_bar_config(disable=True)
    made = [
        pipeline(
            prompt,
            negative_prompt=NEGATIVE,
            video_length=NUM_FRAMES,
            height=HEIGHT,
            width=WIDTH,
            num_inference_steps=steps,
            guidance_scale=3.0,
            generator=torch.Generator().manual_seed(seed),
            clean_caption=False,
            output_type="pt",
        ).frames
        for prompt, seed in zip(PROMPTS, SEEDS, strict=True)
    ]
    return torch.cat(made).transpose(1, 2)


def our_frames(generate, steps=4):
    return generate(
        PROMPTS,
        negative_prompt=[NEGATIVE] * 2,
        num_frames=NUM_FRAMES,
        height=HEIGHT,
        width=WIDTH,
        steps=steps,
        guidance_scale=3.0,
        seed=SEEDS,
        progress=False,
    ).frames


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latte") / "model"
    theirs = latte_pipeline()
    theirs.save_pretrained(folder)
    return vdm.load(folder), theirs


def test_frames_agree_from_the_seed_on(both):
    ours, theirs = both
    frames, expected = our_frames(ours), their_frames(theirs)
    assert frames.shape == expected.shape
    assert expected.std() > 0.05
    error = float((frames - expected).abs().max())
    print(f"largest difference of frames {error:.1e}")
    assert error <= 1e-4


def test_it_is_written_back_and_loads_there(both, tmp_path):
    ours, theirs = both
    export(ours, tmp_path / "back")
    back = LattePipeline.from_pretrained(tmp_path / "back")
    assert torch.equal(their_frames(back, 2), their_frames(theirs, 2))
    again = vdm.load(tmp_path / "back")
    assert again.parts.describe()["defaults"] == ours.parts.describe()["defaults"]
    assert again.parts.config_hash() == ours.parts.config_hash()


def test_it_makes_by_default_what_it_was_trained_on(both):
    ours, _ = both
    defaults = ours.parts.defaults
    side = ours.autoencoder.strides[1]
    assert ours.parts.system == "Latte-1"
    assert (defaults.num_frames, defaults.height, defaults.width) == (5, 8 * side, 8 * side)
    assert (defaults.steps, defaults.guidance_scale) == (50, 7.5)


def test_words_of_another_length_have_no_folder_there(both, tmp_path):
    ours, _ = both
    ours.text_encoder.max_length = 90
    try:
        with pytest.raises(ValueError, match="got texts of 90 tokens with padding='masked_alike'"):
            export(ours, tmp_path / "back")
    finally:
        ours.text_encoder.max_length = 120
