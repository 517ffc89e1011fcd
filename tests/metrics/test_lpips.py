"""Random backbones in torchvision's layout: the published files cannot be had without a network."""

import numpy as np
import pytest
import torch
from torch import nn
from torchmetrics.functional.image.lpips import _LPIPS

from vdm.metrics.lpips import LPIPS
from vdm.metrics.weights_file import WeightsFile

RNG = np.random.default_rng(0)
REAL = RNG.integers(0, 256, (2, 3, 40, 48, 3), np.uint8)
NEAR = np.clip(REAL + RNG.normal(0, 12, REAL.shape).round(), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    """A file, and the reference with the same weights."""
    torch.manual_seed(0)
    reference = _LPIPS(pretrained=True, net="alex", pnet_rand=True)
    for layer in reference.net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.normal_(layer.bias, 0, 0.1)
    # A slice of the reference keeps the numbers of torchvision's layers.
    theirs = reference.net.state_dict().items()
    state = {"features." + key.split(".", 1)[1]: value for key, value in theirs}
    path = tmp_path_factory.mktemp("weights") / "alex.pth"
    torch.save({**state, "classifier.1.weight": torch.zeros(2)}, path)
    return path, reference


def test_it_is_torchmetrics_mean_over_frames(backbone):
    path, reference = backbone
    distance = LPIPS(path)
    assert distance.id == f"alex@{WeightsFile.of(path).id}"
    found = distance(REAL, NEAR)
    for real, near, value in zip(REAL, NEAR, found, strict=True):
        x, y = (torch.from_numpy(c).permute(0, 3, 1, 2) / 127.5 - 1 for c in (real, near))
        expected = reference(x, y).mean()
        assert value == pytest.approx(float(expected), rel=1e-4)
    assert (distance(REAL, REAL) == 0).all()


def test_small_frames_and_other_files_are_refused(backbone, tmp_path):
    distance = LPIPS(backbone[0])
    with pytest.raises(ValueError, match="got frames of 8x8, expected at least 32x32"):
        distance(REAL[:, :, :8, :8], NEAR[:, :, :8, :8])
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"other\.pth: neither AlexNet nor VGG-16"):
        LPIPS(tmp_path / "other.pth")
