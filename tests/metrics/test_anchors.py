"""Published figures stand beside scores of their own protocol alone."""

import math

import pytest

from vdm.metrics.anchors import anchors_of, published
from vdm.metrics.score import Protocol

STYLEGAN_V = Protocol(
    "fvd/i3d-k400@af5c50f0",
    16,
    25,
    "256",
    "ucf-101@1234abcd:start0",
    2048,
    "swscale+224x224-bilinear",
    "ddof0",
)


def changed(**fields):
    return Protocol(**{**vars(STYLEGAN_V), **fields}).id


def test_a_score_of_the_same_protocol_finds_its_figures():
    (group,) = anchors_of(STYLEGAN_V.id)
    assert group.title == "UCF-101, 16x256x256, StyleGAN-V's protocol"
    assert group.rows["StyleGAN-V"] == 1431.0


@pytest.mark.parametrize(
    "fields",
    [
        {"n": 2047},
        {"frames": 17},
        {"resolution": "128"},
        {"estimator": ""},
        {"data": "moving-shapes-1/test-iid:start0"},
        {"metric": "fd/transnet@a313d0b3"},
        {"metric": "fvd_inf/i3d-k400@af5c50f0"},
    ],
)
def test_any_difference_that_changes_the_number_keeps_them_apart(fields):
    assert anchors_of(changed(**fields)) == []
    assert anchors_of("no protocol") == []


def test_means_over_clips_do_not_depend_on_how_many():
    protocol = Protocol("reconstruction/psnr", 17, 30, "256", "mcl-jcv:start0", 29)
    (group,) = anchors_of(protocol.id)
    assert group.rows["CogVideoX (16)"] == 33.76


def test_every_figure_is_a_number_under_one_title():
    titles = [group.title for group in published()]
    assert len(titles) == len(set(titles)) > 5
    for group in published():
        assert group.note
        assert len(group.rows) > 2
        assert all(math.isfinite(value) and value > 0 for value in group.rows.values())
