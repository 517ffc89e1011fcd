"""Keyframes are every s-th latent frame, hints are latents of clips that have lost detail."""

import numpy as np
import pytest
import torch

from vdm.autoencoder.vae import VideoVAE
from vdm.data.clip_cache import ClipSource, describe_source
from vdm.data.datamodules import ShapesLatents, ShapesSpec
from vdm.data.latent_view import LatentView, Smaller, resize_video
from vdm.data.sources import ShapesSource
from vdm.utils.video_io import from_uint8

SHAPES = ShapesSpec(num_train=4, num_val=2, size=16, num_frames=9)


def vae():
    torch.manual_seed(0)
    return VideoVAE(2, (6, 8), ((2, 2, 2),), (1, 1), (1, 1), patch_size=2).eval()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    cache = str(tmp_path_factory.mktemp("cache"))
    encoder = vae()

    def make(**view):
        return ShapesLatents(
            SHAPES, encoder, 2, paraphrase=False, view=LatentView(**view), cache_dir=cache
        )

    return make


def test_keyframes_are_every_other_latent_frame_at_half_the_rate(data):
    whole, few = data().train_dataset(), data(stride=2).train_dataset()
    assert whole[1]["latents"].shape[1] == 5
    assert torch.equal(few[1]["latents"], whole[1]["latents"][:, ::2])
    assert few[1]["caption"] == whole[1]["caption"]
    assert (float(whole[1]["fps"]), float(few[1]["fps"])) == (8.0, 4.0)
    assert "hint" not in few[1]
    batch = next(iter(data(stride=2).train_dataloader()))
    assert batch["fps"].dtype == torch.float32


def test_hints_are_latents_of_the_clip_without_its_details(data):
    sample = data(low_size=8, stride=2).val_dataset()[1]
    source = Smaller(SHAPES.source("val"), 8)
    video = from_uint8(torch.from_numpy(source.clip(1)[0]))[None]
    expected = vae().encode(video)[0, :, ::2]
    torch.testing.assert_close(sample["hint"], expected, atol=1e-2, rtol=0)  # stored in half
    assert not torch.equal(sample["hint"], sample["latents"])


def test_smaller_clips_keep_shape_and_caption_and_lose_detail():
    source = ShapesSource("val", 3, size=16, num_frames=3)
    smaller = Smaller(source, 4)
    assert isinstance(smaller, ClipSource)
    frames, caption = smaller.clip(2)
    real, words = source.clip(2)
    assert (frames.shape, caption, len(smaller)) == (real.shape, words, 3)
    video = from_uint8(torch.from_numpy(frames))[None]
    again = resize_video(resize_video(video, 4, 4), 16, 16)
    assert (again - video).abs().mean() < 0.5 * np.abs(frames / 127.5 - real / 127.5).mean()
    assert describe_source(smaller) != describe_source(source)
    assert describe_source(smaller) != describe_source(Smaller(source, 8))


def test_resizing_treats_frames_alone_and_keeps_flat_ones():
    video = torch.rand(2, 3, 4, 6, 8)
    small = resize_video(video, 3, 4)
    assert torch.equal(small[1:, :, 2:3], resize_video(video[1:, :, 2:3], 3, 4))
    flat = torch.full((1, 3, 2, 6, 8), 0.3)
    torch.testing.assert_close(resize_video(flat, 12, 12), torch.full((1, 3, 2, 12, 12), 0.3))


@pytest.mark.parametrize("view", [{"stride": 0}, {"low_size": 0}])
def test_views_of_nothing_are_refused(view):
    with pytest.raises(ValueError, match="=0, expected at least 1"):
        LatentView(**view)
