"""Random weights in the layout of the published file: that file cannot be had without a network."""

import numpy as np
import pytest
import torch
from torchmetrics.image.inception import InceptionScore

from vdm.metrics.inception import Inception, _network, inception_score
from vdm.metrics.weights_file import WeightsFile

CLIPS = np.random.default_rng(0).integers(0, 256, (2, 1, 20, 28, 3), np.uint8)
POOL = [[1.3364, 0, 0.29084], [1.4143, 0, 0.27389]]
CLASSES = [[-0.59966, 1.6234, 0.77284], [-0.61682, 1.8767, 0.76723]]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    with torch.device("meta"):
        layout = _network().state_dict()
    random = torch.Generator().manual_seed(0)
    state = {}
    for key, value in sorted(layout.items()):
        if not value.is_floating_point():
            state[key] = torch.zeros(value.shape, dtype=value.dtype)
        elif key.endswith(("running_var", "bn.weight")):
            state[key] = torch.rand(value.shape, generator=random) + 0.5
        else:
            fan = value[0].numel() if value.ndim > 1 else 100
            state[key] = torch.randn(value.shape, generator=random) * (2 / fan) ** 0.5
    torch.save(state, path)
    return path


def test_features_and_logits_are_those_of_torch_fidelity(weights):
    """The numbers come from torch-fidelity 0.4.0 itself, with these weights and frames."""
    network = Inception(weights)
    assert network.id == f"inception@{WeightsFile.of(weights).id}"
    pool, classes = network.frames(CLIPS, "pool"), network.frames(CLIPS, "classes")
    assert pool.shape == (2, 1, 2048)
    assert classes.shape == (2, 1, 1008)
    np.testing.assert_allclose(pool[:, 0, :3], POOL, rtol=1e-3)
    np.testing.assert_allclose(classes[:, 0, :3], CLASSES, rtol=1e-3, atol=1e-3)
    assert np.array_equal(network.pool(CLIPS), pool[:, 0])
    assert np.array_equal(network.classes(CLIPS[1:]), classes[1])


def test_a_file_of_something_else_is_refused_in_one_line_and_never_run(tmp_path):
    class Malicious:
        def __reduce__(self):
            return (pytest.fail, ("code of the file was run",))

    for name, content in (("other", {"weight": torch.zeros(2)}), ("code", Malicious())):
        torch.save(content, tmp_path / name)
        with pytest.raises(ValueError, match="not the weights of Inception v3") as error:
            Inception(tmp_path / name)
        assert "\n" not in str(error.value)


def test_the_score_is_that_of_torchmetrics_on_shared_logits():
    class Shared(torch.nn.Module):
        def forward(self, images):
            return images.flatten(1).double()

    logits = np.random.default_rng(1).normal(0, 3, (12, 5, 12)).astype(np.float32)
    reference = InceptionScore(feature=Shared(), splits=1)
    reference.update(torch.from_numpy(logits.reshape(60, 3, 2, 2)))
    score = inception_score(logits, "is", 20, splits=1)
    assert score.value == pytest.approx(float(reference.compute()[0]), rel=1e-6)
    assert score.interval[0] <= score.value <= score.interval[1]


def test_sure_frames_of_all_classes_score_their_number_and_splits_are_averaged():
    logits = np.full((20, 3, 4), -60.0, np.float32)
    for video in range(20):
        logits[video, :, video % 4] = 60.0
    assert inception_score(logits, "is", 2, splits=5).value == pytest.approx(4)
    assert inception_score(logits, "is", 2, splits=10).value == pytest.approx(2)
    assert inception_score(np.zeros((20, 3, 4), np.float32), "is", 2).value == pytest.approx(1)
    with pytest.raises(ValueError, match="got 9 clips, expected at least 10"):
        inception_score(logits[:9], "is")
