"""What experiments measure by functions of their own, on models whose answer is known."""

from types import SimpleNamespace

import pytest

import vdm
from vdm.comparison import measurements


@pytest.fixture
def load(monkeypatch):
    """Have ``vdm.load`` give a function instead of a model."""
    return lambda generate: monkeypatch.setattr(vdm, "load", lambda _: generate)


def test_what_is_given_back_unchanged_is_all_recovered(load, monkeypatch):
    monkeypatch.setattr(measurements, "RECOVERED_FROM", (0.6, 0.7))
    asked = []

    def generate(captions, *, video, strength, seed, progress, steps):
        asked.append((strength, steps, len(captions), tuple(seed)))
        return SimpleNamespace(frames=video if strength < 0.65 else video.flip(2))

    load(generate)
    rows = measurements.recovery("model", {"steps": 7}, seed=3)
    assert [row["noise time"] for row in rows] == list(measurements.RECOVERED_FROM)
    for row in rows:
        assert row["count %"] == row["colour %"] == row["shape %"] == 100
        assert (row["motion %"] == row["whole %"] == 100) == (row["noise time"] < 0.65)
    assert {(steps, count) for _, steps, count, _ in asked} == {(7, 16)}
    assert len({seeds for *_, seeds in asked}) == 2  # the same noise from every time


def test_one_clip_again_and_again_has_no_diversity(load):
    def generate(captions, *, seed, progress):
        one = vdm.world.render(vdm.world.scene_from_caption(captions[0], 0))
        frames = measurements.torch.from_numpy(one).movedim(-1, 0) / 255
        return SimpleNamespace(frames=frames.expand(len(captions), *frames.shape))

    load(generate)
    (row,) = measurements.diversity("model", {}, seed=0, is_smoke=True)
    assert row["distance"] == row["ratio"] == 0 < row["distance of real clips"]


def test_rules_are_measured_once_and_the_network_for_every_number_of_steps(load, monkeypatch):
    asked = []

    def scores(filler, stride, *, n, steps, beside_rules, **settings):
        asked.append((filler, stride, n, steps))
        of = {name: SimpleNamespace(value=float(steps)) for name in ("psnr", "ssim")}
        return {name: of for name in (["linear"] * beside_rules + ["decoded", "interpolated"])}

    load("filler")
    monkeypatch.setattr(measurements, "interpolation_scores", scores)
    rows = measurements.fill_in_by_steps("model", {"steps": 25}, seed=3)
    steps = measurements.FILL_STEPS
    first, *others = (f"the network, steps {count}" for count in steps)
    assert [row["frames filled in by"] for row in rows] == [first, "linear", "decoded", *others]
    assert [row["PSNR dB"] for row in rows] == [steps[0], *steps[:1] * 2, *steps[1:]]
    assert asked == [("filler", 2, 64, count) for count in steps]
