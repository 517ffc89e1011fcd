import json
from dataclasses import replace

import numpy as np
import pytest

from vdm.metrics.score import (
    Protocol,
    Score,
    bootstrap_interval,
    mean_score,
    proportion_score,
    resample_indices,
    wilson_interval,
)


def score(value: float, protocol: str = "psnr/16f/64/native/val/n8/r1") -> Score:
    return Score(value, protocol, n_real=8, n_gen=8)


def test_a_protocol_id_names_everything_that_changes_the_number():
    protocol = Protocol(
        "fvd/i3d-k400@af5c50f0", 16, 8, "64", "test-iid:start0", 2048, resize="torch-bilinear"
    )
    assert protocol.id == ("fvd/i3d-k400@af5c50f0/16f@8/64/torch-bilinear/test-iid:start0/n2048/r1")
    changed = Protocol(
        "fvd/i3d-k400@af5c50f0", 16, 8, "64", "test-iid:start0", 2048, estimator="ddof0"
    )
    assert changed.id != protocol.id


def test_scores_of_one_protocol_compare():
    assert score(1.0) < score(2.0)
    assert score(2.0) > score(1.0)
    assert score(3.0) - score(1.0) == 2.0


def test_scores_of_two_protocols_refuse_to_be_compared():
    other = score(2.0, "psnr/16f/64/native/val/n9/r1")
    with pytest.raises(ValueError, match="different protocols"):
        score(1.0) < other  # noqa: B015
    with pytest.raises(ValueError, match="n9"):
        score(1.0) - other


def test_a_distance_of_too_few_clips_for_its_features_says_so():
    few = Score(0.2, "fmd/flow/n128/r1", 128, 150, (0.1, 0.3), floor=0.08, num_features=128)
    assert few.rank_deficient
    assert few.to_dict()["rank_deficient"] is True
    assert few.to_dict()["value"] == 0.2
    assert not replace(few, n_real=129).rank_deficient
    assert "rank_deficient" not in replace(few, n_real=129).to_dict()


def test_a_distance_that_says_nothing_answers_why_and_no_number():
    near = Score(0.0712, "fmd/flow/n512/r1", 512, 512, floor=0.0803, num_features=192)
    assert not near.rank_deficient
    assert near.not_enough.startswith("at or below the floor 0.0803 between real clips: 512 clips")
    assert "0.0712" not in str(near)
    enough = replace(near, value=0.0804)
    assert not enough.not_enough
    assert enough.to_dict()["value"] == 0.0804
    with pytest.raises(ValueError, match="fmd/flow/n512/r1: not enough: at or below"):
        enough > near  # noqa: B015


def test_a_score_without_protocol_or_with_a_reversed_interval_is_refused():
    with pytest.raises(ValueError, match="empty protocol"):
        score(1.0, "")
    with pytest.raises(ValueError, match="low <= high"):
        Score(1.0, "psnr", 8, 8, interval=(2.0, 1.0))
    with pytest.raises(ValueError, match="n_gen=-1"):
        Score(1.0, "psnr", 8, -1)


def test_a_score_becomes_json_without_the_fields_that_do_not_apply():
    data = json.loads(json.dumps(Score(1.0, "psnr", 8, 9, interval=(0.5, 1.5)).to_dict()))
    assert data == {
        "value": 1.0,
        "protocol": "psnr",
        "n_real": 8,
        "n_gen": 9,
        "interval": [0.5, 1.5],
    }
    assert "[0.5, 1.5]" in str(Score(1.0, "psnr", 8, 9, interval=(0.5, 1.5)))


def test_wilson_interval_solves_its_equation():
    for successes, n in ((3, 7), (90, 97), (499, 500)):
        p = successes / n
        for bound in wilson_interval(successes, n):
            z = (p - bound) / np.sqrt(bound * (1 - bound) / n)
            assert abs(z) == pytest.approx(1.96, abs=1e-3)


def test_wilson_interval_stays_inside_at_the_ends():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    low, high = wilson_interval(20, 20)
    assert 0.8 < low < 1
    assert high == 1
    low, high = wilson_interval(0, 20)
    assert low == 0
    assert 0 < high < 0.2
    with pytest.raises(ValueError, match="3 successes of 2"):
        wilson_interval(3, 2)


def test_the_bootstrap_is_fixed_by_its_seed_and_covers_the_mean():
    values = np.random.default_rng(0).normal(5, 2, 400)
    first = bootstrap_interval(values)
    assert first == bootstrap_interval(values)
    assert first != bootstrap_interval(values, seed=1)
    half = 1.96 * values.std() / 20
    assert first == pytest.approx((values.mean() - half, values.mean() + half), abs=0.05)


def test_resamples_draw_every_video_equally_often():
    rows = resample_indices(7, 3000)
    assert rows.shape == (3000, 7)
    counts = np.bincount(rows.ravel(), minlength=7) / 3000
    assert np.abs(counts - 1).max() < 0.1
    with pytest.raises(ValueError, match="n=0"):
        resample_indices(0)


def test_shares_are_in_percent_with_their_interval_and_ceiling():
    result = proportion_score(9, 12, "caption-accuracy/whole", ceiling=99.0)
    assert result.value == 75
    assert result.interval[0] < 75 < result.interval[1]
    assert result.ceiling == 99.0
    with pytest.raises(ValueError, match="n=0"):
        proportion_score(0, 0, "caption-accuracy/whole")
    assert mean_score([1.0, 2.0, 6.0], "psnr", n_real=3).value == 3
