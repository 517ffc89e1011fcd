import numpy as np
import pytest

from vdm.metrics.oracle_motion import Motion, read_motion, spin_rate
from vdm.metrics.oracle_shapes import STEP
from vdm.world import attributes as a
from vdm.world.scenes import Object

FRAMES = np.arange(16.0)
BOX = (-15.0, 15.0, -10.0, 12.0)


def overlaps(angle: np.ndarray, period: int = 90) -> np.ndarray:
    """Overlap that peaks at the object's angle."""
    degrees = np.arange(0, period, STEP)
    gap = np.degrees(angle)[:, None] - degrees
    gap = np.abs((gap + period / 2) % period - period / 2)
    return 0.95 - 0.4 * gap / period


def read(motion: str, speed: str | None, order: np.ndarray | None = None, noise: float = 0.0):
    size = "large" if motion == "shrink" else "small"
    thing = Object(
        "red", "square", "plain", size, motion, speed, 0.4, 2.0, -3.0, 0.9, orbit=9.0, box=BOX
    )
    pose = thing.pose(FRAMES)
    rng = np.random.default_rng(0)
    path = np.stack([pose.x, pose.y], -1) + noise * rng.standard_normal((16, 2))
    log_radius = np.log(pose.radius) + noise / 9 * rng.standard_normal(16)
    order = np.arange(16) if order is None else order
    return read_motion(FRAMES, path[order], log_radius[order], overlaps(pose.angle[order]))


@pytest.mark.parametrize("speed", a.SPEEDS)
@pytest.mark.parametrize("motion", a.MOTIONS[1:])
def test_every_motion_and_speed_is_read_from_its_closed_form(motion, speed):
    assert read(motion, speed) == Motion(motion, speed)
    assert read(motion, speed, noise=0.15) == Motion(motion, speed)


def test_standing_still_is_static():
    assert read("static", None, noise=0.15) == Motion("static")


@pytest.mark.parametrize("motion", a.MOTIONS[1:])
def test_no_motion_is_read_from_shuffled_frames(motion):
    rng = np.random.default_rng(1)
    names = [read(motion, "fast", rng.permutation(16)).name for _ in range(20)]
    assert names.count(motion) <= 1


def test_frames_backwards_turn_the_motion_round():
    backwards = np.arange(16)[::-1]
    opposites = {
        "left": "right",
        "circle-cw": "circle-ccw",
        "spin-ccw": "spin-cw",
        "grow": "shrink",
    }
    for motion, opposite in opposites.items():
        assert read(motion, "slow", backwards).name == opposite


def test_a_diagonal_line_is_none_of_the_motions():
    path = np.outer(FRAMES, (1.5, 1.5))
    assert read_motion(FRAMES, path, np.full(16, 2.0), overlaps(np.zeros(16))) == Motion(None)


def test_missing_frames_leave_the_motion_readable():
    seen = np.array([0, 1, 3, 4, 6, 8, 9, 10, 13, 14, 15])
    path = np.outer(FRAMES, (0.0, -2.4))
    motion = read_motion(seen * 1.0, path[seen], np.full(11, 2.0), overlaps(np.zeros(11)))
    assert motion == Motion("up", "fast")
    few = read_motion(FRAMES[:3], path[:3], np.full(3, 2.0), overlaps(np.zeros(3)))
    assert few == Motion(None)


def test_the_spin_is_found_jointly_and_round_shapes_have_none():
    rate, score = spin_rate(FRAMES, overlaps(0.15 * FRAMES))
    assert rate == pytest.approx(0.15, abs=0.01)
    assert score == pytest.approx(0.95, abs=0.01)
    assert spin_rate(FRAMES, np.full((16, 1), 0.9)) == (0.0, pytest.approx(0.9))
