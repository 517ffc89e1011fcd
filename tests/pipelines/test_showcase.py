"""What the demo shows is measured on what it shows."""

import numpy as np
import pytest
import torch

from vdm import world
from vdm.pipelines import Generator
from vdm.pipelines.showcase import (
    CAPTIONS,
    Shown,
    as_clip,
    continue_frame,
    judge,
    moving_picture,
    through_autoencoder,
    words_to_video,
)
from vdm.pretrained.parts import Parts
from vdm.utils.video_io import from_uint8

ASK = {"steps": 1, "progress": False}


def test_the_captions_are_eight_sentences_of_the_world():
    assert len(set(CAPTIONS)) == 8
    motions = {thing.motion for text in CAPTIONS for thing in world.parse_caption(text).objects}
    assert len(motions) >= 8


@pytest.mark.parametrize("caption", CAPTIONS)
def test_a_clip_of_the_world_shows_what_its_caption_says(caption):
    frames = world.render(world.scene_from_caption(caption))
    assert judge(as_clip(frames), caption).whole


def test_what_cannot_be_read_is_not_judged():
    square = as_clip(np.zeros((5, 16, 16, 3), np.uint8))
    assert judge(square, "a mauve thing") is None
    assert not judge(square, CAPTIONS[0]).whole
    assert judge(as_clip(np.zeros((5, 16, 24, 3), np.uint8)), CAPTIONS[0]) is None
    assert judge(as_clip(np.zeros((3, 16, 16, 3), np.uint8)), CAPTIONS[0]) is None


def test_more_objects_than_the_world_has_room_for_are_not_judged():
    colours = ("red", "blue", "green", "pink")
    prompt = " and ".join(f"a {colour} star grows" for colour in colours)
    assert judge(as_clip(world.render(world.scene("val", 0, 0))), prompt) is None


def test_batches_change_nothing_about_the_clips(generate):
    whole = words_to_video(generate, CAPTIONS[:3], seed=4, batch_size=3, **ASK)
    parts = words_to_video(generate, CAPTIONS[:3], seed=4, batch_size=2, **ASK)
    for one, other in zip(whole, parts, strict=True):
        assert one.prompt == other.prompt
        assert (one.clip.frames - other.clip.frames).abs().max() < 1e-5
        assert one.to_dict()["seed"] == other.to_dict()["seed"]
        assert one.seconds > 0
    assert whole[2].to_dict()["seed"] == 6


def test_reconstructions_are_measured_against_the_input(generate):
    frames = np.random.default_rng(0).integers(0, 256, (5, 16, 24, 3), np.uint8)
    result = through_autoencoder(generate, frames, fps=12.0)
    assert np.array_equal(result.original.uint8()[0], frames)
    assert result.decoded.frames.shape == (1, 3, 5, 16, 24)
    assert result.decoded.fps == 12.0
    video = from_uint8(torch.from_numpy(frames))[None]
    expected = generate.autoencoder.reconstruct(video).clamp(-1, 1)
    assert (2 * result.decoded.frames - 1 - expected).abs().max() <= 1 / 127
    assert result.compression == 3 * 5 * 16 * 24 / (3 * 3 * 4 * 6)
    assert set(result.to_dict()) == {"psnr", "ssim", "compression"}


def test_a_model_without_autoencoder_says_so(generate):
    parts = Parts("pixels", network=generate.network, schedule=generate.schedule)
    with pytest.raises(ValueError, match="'pixels' has no autoencoder"):
        through_autoencoder(Generator(parts), np.zeros((5, 16, 24, 3), np.uint8))


def test_a_first_frame_is_continued(generate):
    asked = {"height": 16, "width": 16, **ASK}
    with pytest.warns(UserWarning, match="width=16"):
        # A generator of its own: the shared one may have warned already, and each warns once.
        shown, truth = continue_frame(Generator(generate.parts), index=2, **asked)
    assert shown.clip.metadata["given"] == "image"
    assert shown.prompt == world.print_caption(world.scene("test-iid", 0, 2))
    assert truth.frames.shape == shown.clip.frames.shape == (1, 3, 5, 16, 16)


def test_the_moving_picture_shows_every_clip():
    clips = [as_clip(np.full((3, 4, 6, 3), 40 * k, np.uint8), seed=k) for k in range(5)]
    shown = [Shown(f"caption {k}", clip, None, 1.0) for k, clip in enumerate(clips)]
    picture = moving_picture(shown, columns=2, zoom=2)
    assert picture.frames.shape == (1, 3, 3, 3 * (8 + 52 + 10) + 10, 2 * (12 + 10) + 10)
    levels = picture.uint8()[0]
    assert (levels[:, 10:18, 10:22] == 0).all()
    assert (levels[:, 150:158, 10:22] == 160).all()
    assert picture.metadata["seed"] == list(range(5))
