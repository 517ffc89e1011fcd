"""A clip is saved in every format with its origin inside, and plays in a notebook."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from vdm.pipelines.clip import SUFFIXES, Clip, tile
from vdm.utils.video_io import read_metadata, read_video

NOTE = {"prompt": ["a <red> circle", "a blue bar"], "seed": [4, 5], "steps": 7}


def clips(b: int = 2, t: int = 5, h: int = 12, w: int = 16) -> Clip:
    frames = torch.rand(b, 3, t, h, w, generator=torch.Generator().manual_seed(0))
    return Clip(frames, 8.0, dict(NOTE))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_holds_its_origin(tmp_path, suffix):
    path = clips()[1].save(tmp_path / "new" / f"clip{suffix}")
    assert path.is_file()
    about = read_metadata(path)
    assert about["prompt"] == "a blue bar"
    assert about["seed"] == 5
    assert about["steps"] == 7
    assert about["vdm"]


@pytest.mark.parametrize("suffix", [".mkv", ".npz"])
def test_lossless_formats_give_back_every_bit(tmp_path, suffix):
    clip = clips()[0]
    frames, fps = read_video(clip.save(tmp_path / f"clip{suffix}"))
    assert np.array_equal(frames.numpy(), clip.uint8()[0])
    assert fps == pytest.approx(8.0)


def test_several_samples_go_side_by_side_into_one_file(tmp_path):
    clip = clips(b=3)
    frames, _ = read_video(clip.save(tmp_path / "grid.npz"))
    assert frames.shape == (5, 12 + 2 + 12, 16 + 2 + 16, 3)
    ours = clip.uint8()
    assert np.array_equal(frames[:, :12, :16], ours[0])
    assert np.array_equal(frames[:, :12, 18:], ours[1])
    assert np.array_equal(frames[:, 14:, :16], ours[2])
    assert (frames[:, 14:, 18:] == 255).all()
    assert read_metadata(tmp_path / "grid.npz")["seed"] == [4, 5]


def test_one_sample_is_not_framed():
    frames = clips(b=1).uint8()
    assert np.array_equal(tile(frames), frames[0])


def test_a_contact_sheet_has_one_row_per_sample(tmp_path):
    path = clips(b=2, t=20).save(tmp_path / "sheet.png")
    assert Image.open(path).size == (8 * 16 + 7 * 2, 2 * 12 + 2)


def test_samples_are_taken_apart():
    clip = clips()
    assert len(clip) == 2
    assert [one.metadata["seed"] for one in clip] == [4, 5]
    assert torch.equal(clip[-1].frames, clip.frames[1:])
    assert clip[0].metadata["steps"] == 7
    with pytest.raises(IndexError, match="sample 2, expected less than 2"):
        clip[2]
    assert clip.seconds == 5 / 8
    assert repr(clip) == "Clip(2 x 5 frames of 12x16 at 8 fps)"


def test_a_notebook_plays_it():
    page = clips()._repr_html_()
    assert "a &lt;red&gt; circle" in page
    data = re.search(r'src="data:image/gif;base64,([^"]+)"', page)[1]
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.n_frames == 5
        assert image.size[1] >= 150


def test_a_clip_can_be_embedded_in_every_format_that_pages_play():
    for suffix, kind in {
        ".gif": "image",
        ".webp": "image",
        ".mp4": "video",
        ".webm": "video",
    }.items():
        assert clips().data_url(suffix).startswith(f"data:{kind}/{suffix[1:]};base64,")
    with pytest.raises(ValueError, match=r"suffix '\.npz'"):
        clips().data_url(".npz")


def test_the_animation_of_a_page_loses_nothing():
    clip = clips(b=1)
    data = base64.b64decode(clip.data_url(".webp", zoom=2).split(",")[1])
    with Image.open(io.BytesIO(data)) as image:
        assert image.n_frames == 5
        for k in range(5):
            image.seek(k)
            assert np.array_equal(np.array(image.convert("RGB"))[::2, 1::2], clip.uint8()[0, k])


def test_bad_clips_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"frames \(1, 3, 0, 4, 6\)"):
        Clip(torch.zeros(1, 3, 0, 4, 6), 8.0)
    with pytest.raises(ValueError, match="fps=0"):
        Clip(torch.zeros(1, 3, 1, 4, 6), 0.0)
    with pytest.raises(ValueError, match=r"suffix '\.avi'"):
        clips().save(tmp_path / "clip.avi")
    assert list(tmp_path.iterdir()) == []
