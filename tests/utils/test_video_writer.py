"""Files that are written while the clip is made."""

import numpy as np
import pytest

from vdm.utils.video_io import read_metadata, read_video, write_video
from vdm.utils.video_writer import CODECS, VideoWriter


def clip(count=9, height=33, width=46):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.mark.parametrize("suffix", CODECS)
def test_in_pieces_or_at_once_the_file_is_the_same(tmp_path, suffix):
    frames, note = clip(), {"prompt": "a"}
    whole = write_video(frames, tmp_path / f"whole{suffix}", 7.0, note)
    with VideoWriter(tmp_path / "new" / f"parts{suffix}", 7.0, note) as writer:
        for part in (frames[:1], frames[1:5], frames[5:]):
            writer.write(part)
            assert not writer.path.exists()
    for first, second in zip(read_video(whole), read_video(writer.path), strict=True):
        assert np.array_equal(first, second)
    assert read_metadata(writer.path) == read_metadata(whole)
    assert [path.name for path in writer.path.parent.iterdir()] == [f"parts{suffix}"]


def test_the_same_frames_are_the_same_file_whatever_was_in_memory(tmp_path):
    def write():
        write_video(clip(9, 46, 64), tmp_path / "other.webm")  # leaves its traces in free memory
        return write_video(clip(9, 46, 64), tmp_path / "clip.mp4").read_bytes()

    assert len({write() for _ in range(30)}) == 1


def test_after_an_error_nothing_is_left_and_the_old_file_stays(tmp_path):
    path = write_video(clip(), tmp_path / "clip.mkv")
    before = path.read_bytes()

    def stop():
        with VideoWriter(path) as writer:
            writer.write(clip(2))
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        stop()
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_without_frames_there_is_no_file(tmp_path):
    with VideoWriter(tmp_path / "clip.mp4"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_misuse_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"got suffix '\.gif', expected one of \.mp4, \.webm"):
        VideoWriter(tmp_path / "clip.gif")
    with pytest.raises(ValueError, match=r"got fps=0\.0, expected more than 0"):
        VideoWriter(tmp_path / "clip.mp4", 0.0)
    with VideoWriter(tmp_path / "clip.mkv") as writer:
        writer.write(clip())
        with pytest.raises(ValueError, match=r"got frames of size \(8, 8\), expected \(33, 46\)"):
            writer.write(clip(1, 8, 8))
