"""Frames are decoded once, and anything that changes them is a miss."""

import hashlib

import numpy as np
import pytest

from vdm.data import frame_cache
from vdm.data.frame_cache import FrameCache
from vdm.data.ingest import ingest
from vdm.data.ingested import IngestedClips
from vdm.data.listing import read_listing
from vdm.utils.video_reader import VideoReader


@pytest.fixture
def video(tmp_path, make_video):
    path = make_video(tmp_path / "a.mkv", num_frames=11)
    with VideoReader(path) as reader:
        return path, hashlib.sha256(path.read_bytes()).hexdigest(), reader.index


def test_frames_are_those_of_the_reader_and_are_decoded_once(video, tmp_path, monkeypatch):
    path, sha256, index = video
    cache = FrameCache(tmp_path / "cache")
    monkeypatch.setattr(frame_cache, "CHUNK", 4)
    frames = cache.video(path, None, sha256, index, (18, 26))
    with VideoReader(path, (18, 26)) as reader:
        assert np.array_equal(frames, reader.read(range(11)))
    monkeypatch.setattr(frame_cache, "VideoReader", None)
    assert np.array_equal(cache.video(path, None, sha256, index, (18, 26)), frames)
    assert len(list((tmp_path / "cache" / "frames").iterdir())) == 1


def test_every_change_is_a_miss(video, tmp_path, monkeypatch):
    _, sha256, index = video
    cache = FrameCache(tmp_path)
    places = {cache.path(sha256, index, (18, 26)), cache.path("0" * 64, index, (18, 26))}
    places.add(cache.path(sha256, index, (26, 18)))
    for name in ("FRAMES_VERSION", "RESIZE_RULE"):
        monkeypatch.setattr(frame_cache, name, "another")
        places.add(cache.path(sha256, index, (18, 26)))
    monkeypatch.setattr("av.library_versions", {"libavcodec": (1, 2, 3)})
    places.add(cache.path(sha256, index, (18, 26)))
    assert len(places) == 6


def test_half_a_file_is_made_anew(video, tmp_path):
    path, sha256, index = video
    cache = FrameCache(tmp_path)
    frames = np.array(cache.video(path, None, sha256, index, (18, 26)))
    place = cache.path(sha256, index, (18, 26))
    place.write_bytes(place.read_bytes()[:-1000])
    assert np.array_equal(cache.video(path, None, sha256, index, (18, 26)), frames)


def test_samples_are_the_same_with_a_cache(tmp_path, make_video):
    for name, count in (("a", 9), ("b", 14)):
        make_video(tmp_path / "clips" / f"{name}.mp4", num_frames=count)
    ingest(read_listing(tmp_path / "clips"), tmp_path / "out")
    options = {"num_frames": 5, "size": (24, 32), "seed": 3}
    plain = IngestedClips(tmp_path / "out", **options)
    cached = IngestedClips(tmp_path / "out", **options, cache=FrameCache(tmp_path / "cache"))
    for key in range(6):
        assert (plain[key]["video"] == cached[key]["video"]).all()
