"""Scores by networks of others: what they are called, what they need, what they refuse."""

from pathlib import Path

import numpy as np
import pytest

from tests.pipelines.test_evaluate import IID, Darker, Perfect
from vdm.metrics.lpips import LPIPS
from vdm.pipelines.evaluate import evaluate


class TinyInception:
    """Three features of a frame, and logits of four classes: how bright which channel is."""

    def __init__(self, weights: str) -> None:
        self.id = f"inception@{weights}"

    def pool(self, clips: np.ndarray) -> np.ndarray:
        return clips.mean((2, 3), dtype=np.float32).reshape(len(clips), -1)

    def classes(self, clips: np.ndarray) -> np.ndarray:
        means = clips.mean((2, 3), dtype=np.float32)
        logits = np.concatenate([means, means.max(-1, keepdims=True) - 3], -1)
        return logits.reshape(len(clips), -1)


def test_scores_of_frames_name_their_weights_and_count_clips(monkeypatch, tmp_path: Path):
    where = "vdm.pipelines.evaluate_instruments"
    monkeypatch.setattr(f"{where}.Inception", TinyInception)
    monkeypatch.setattr(f"{where}.NUM_FEATURES", 3)
    monkeypatch.setattr(f"{where}.NUM_CLASSES", 4)
    options = {"n": 10, "num_objects": (1,), "num_resamples": 3, "baselines": False}
    options |= {"out": tmp_path, "steps": 3}

    def scores(weights: str) -> dict:
        model = Perfect()
        made = evaluate(model, "test-iid", ("fid", "is"), inception_weights=weights, **options)
        return made.scores[IID]

    named = scores("aaaaaaaa")
    fid, score = named["generated"]["fid"], named["generated"]["is"]
    rest = "16f@8/64/native+299x299-bilinear-tf1/moving-shapes-1/test-iid:1-object:start0/n10"
    assert fid.protocol == f"fid/inception@aaaaaaaa/{rest}/r1"
    assert score.protocol == f"is/inception@aaaaaaaa/{rest}/splits10/r1"
    assert (fid.n_gen, fid.per_clip, fid.num_features) == (10, 16, 3)
    assert fid.floor > 0
    assert 1 <= score.value <= 4
    assert set(named["real"]) == {"is"}
    other = scores("bbbbbbbb")["generated"]["fid"]
    assert other.value == fid.value
    with pytest.raises(ValueError, match="different protocols"):
        other - fid
    with pytest.raises(ValueError, match="got n=9, batch_size=16, expected at least 10"):
        evaluate(Perfect(), "test-iid", "is", n=9, inception_weights="a")


def test_lpips_stands_beside_psnr_and_needs_an_autoencoder(monkeypatch):
    class TinyLPIPS(LPIPS):
        def __init__(self, weights: str) -> None:
            assert weights == "file"
            self.id = "alex@cccccccc"

        def __call__(self, real: np.ndarray, made: np.ndarray) -> np.ndarray:
            return np.abs(real.astype(float) - made).mean((1, 2, 3, 4))

    monkeypatch.setattr("vdm.pipelines.evaluate_instruments.LPIPS", TinyLPIPS)
    options = {"n": 2, "num_objects": (1,), "baselines": False, "num_resamples": 3}
    protocols = ("lpips", "reconstruction")
    result = evaluate(Perfect(Darker()), "test-iid", protocols, lpips_weights="file", **options)
    named = result.scores[IID]["reconstructed"]
    assert 0.9 < named["lpips"].value < 1.1
    assert named["lpips"].protocol.startswith("lpips/alex@cccccccc/16f@8/64/native/")
    assert "reconstruction/psnr" in named
    assert [table.title for table in result.tables()] == ["reconstruction", "lpips"]
    with pytest.raises(ValueError, match="'lpips', expected a model with an autoencoder"):
        evaluate(Perfect(), "test-iid", "lpips", lpips_weights="file", **options)


@pytest.mark.parametrize(
    ("protocol", "flag"),
    [("fid", "inception"), ("is", "inception"), ("lpips", "lpips"), ("fvd/videomae", "videomae")],
)
def test_weights_that_no_package_brings_are_asked_for(protocol, flag):
    with pytest.raises(ValueError, match=f"that no package brings: expected --{flag}-weights"):
        evaluate(Perfect(Darker()), "test-iid", protocol, n=10)


def test_fvd_by_other_files_and_grids_is_a_protocol_of_its_own(monkeypatch):
    where = "vdm.pipelines.evaluate_instruments"
    monkeypatch.setattr(f"{where}.find_i3d", lambda source: (source, "i3d-pytorch@dddddddd"))
    monkeypatch.setattr(
        f"{where}.i3d_features", lambda clips, network, resize: clips[:, 0, 0, 0].astype("f4")
    )
    options = {"n": 4, "num_objects": (1,), "num_resamples": 3, "baselines": False}
    named = evaluate(
        Perfect(), "test-iid", "fvd", i3d_weights="a", i3d_resize="tf1-bilinear", **options
    ).scores[IID]["generated"]
    assert named["fvd"].protocol.startswith(
        "fvd/i3d-pytorch@dddddddd/16f@8/64/native+224x224-bilinear-tf1/"
    )
