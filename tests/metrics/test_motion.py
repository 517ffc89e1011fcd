import numpy as np
import pytest
from textured_clips import panned

from vdm import world
from vdm.metrics.frechet import GaussianStatistics, frechet_distance
from vdm.metrics.motion import (
    EXTRACTOR,
    SIDE,
    is_dynamic,
    motion_amount,
    motion_features,
    motion_features_of_flow,
)
from vdm.metrics.optical_flow import FlowEstimator

DIRECTIONS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1), (1, 1)])


def clips(start: int, n: int) -> np.ndarray:
    """Pans in one of five directions, 1 or 2 pixels per frame."""
    numbers = range(start, start + n)
    steps = [np.arange(9)[:, None] * DIRECTIONS[k % 5] * (1 + k % 2) for k in numbers]
    return np.stack([panned(k, s, 32, 40) for k, s in zip(numbers, steps, strict=True)])


def distance(x: np.ndarray, y: np.ndarray) -> float:
    return frechet_distance(GaussianStatistics.of(x), GaussianStatistics.of(y)).value


def test_a_constant_motion_votes_for_its_direction_alone():
    flow = np.zeros((15, 32, 32, 2), np.float32)
    flow[..., 1] = -2  # up: three quarters of a turn in image coordinates
    features = motion_features_of_flow(flow)
    assert features.shape == (192,)
    velocities, differences = features.reshape(2, 12, 8)
    assert np.allclose(velocities[:, 6], np.log(3))
    assert velocities.sum() == pytest.approx(12 * np.log(3), rel=1e-5)
    assert not differences.any()


def test_features_know_where_and_when():
    flow = np.zeros((15, 32, 32, 2), np.float32)
    flow[10:, 16:, :16] = (2, 0)  # last third, lower left
    velocities, differences = motion_features_of_flow(flow).reshape(2, 3, 2, 2, 8)
    assert velocities[2, 1, 0, 0] == pytest.approx(np.log(3))
    assert np.count_nonzero(velocities) == 1
    assert np.count_nonzero(differences) == 1


def test_the_distance_sees_motion_and_order_but_not_appearance():
    scenes = (world.scene("test-iid", seed=0, index=index) for index in range(48))
    real, more = np.split(np.stack([world.render(scene) for scene in scenes]), 2)
    reference = motion_features(real)
    floor = distance(reference, motion_features(more))
    rng = np.random.default_rng(0)
    noisy = np.clip(more + rng.normal(0, 5, more.shape).round(), 0, 255).astype(np.uint8)
    for same in (255 - more, noisy, np.ascontiguousarray(more[:, ::-1])):
        assert distance(reference, motion_features(same)) < 1.3 * floor
    static = np.repeat(more[:, :1], more.shape[1], 1)
    doubled = np.repeat(more[:, : more.shape[1] // 2], 2, 1)
    order = rng.permutation(more.shape[1])
    for other in (static, doubled, more[:, order]):
        assert distance(reference, motion_features(other)) > 1.5 * floor


def test_the_default_estimator_is_the_one_of_the_protocol():
    assert FlowEstimator(side=SIDE).id == EXTRACTOR


def test_short_clips_and_other_sizes_are_refused():
    with pytest.raises(ValueError, match="at least 5"):
        motion_features(clips(0, 1)[:, :4])
    with pytest.raises(ValueError, match="32, 32, 2"):
        motion_features_of_flow(np.zeros((15, 16, 32, 2), np.float32))


def test_motion_is_measured_in_widths():
    flow = np.zeros((15, 32, 64, 2), np.float32)
    flow[..., 0] = 3.2
    assert motion_amount(flow) == pytest.approx(5)


@pytest.mark.parametrize(("pairs", "moves"), [(3, False), (4, True)])
def test_a_clip_moves_if_enough_pairs_do(pairs, moves):
    flow = np.zeros((15, 32, 64, 2), np.float32)  # 16 frames, a large motion is 0.75 pixels
    flow[:pairs, :2, :52, 1] = 0.76  # 5.08 % of the pixels
    assert is_dynamic(flow) is moves
    assert not is_dynamic(flow * 0.98)
