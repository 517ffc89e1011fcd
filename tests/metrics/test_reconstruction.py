import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from vdm.metrics.reconstruction import psnr, psnr_per_frame, ssim, ssim_per_frame


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    real = rng.integers(0, 256, (2, 3, 17, 21, 3), dtype=np.uint8)
    noisy = real + rng.normal(0, 12, real.shape)
    return real, noisy.round().clip(0, 255).astype(np.uint8)


def test_psnr_agrees_with_scikit_image(pair):
    real, other = pair
    for b in range(2):
        for t in range(3):
            expected = peak_signal_noise_ratio(real[b, t], other[b, t], data_range=255)
            assert psnr_per_frame(real, other)[b, t] == pytest.approx(expected, rel=1e-12)


def test_psnr_averages_decibels_over_frames_not_errors_over_the_clip(pair):
    real, other = pair
    other = np.concatenate([real[:, :1], other[:, 1:]], 1)
    frames = psnr_per_frame(real, other)
    assert (frames[:, 0] == 100).all()
    assert np.allclose(psnr(real, other), frames.mean(1))


def test_ssim_agrees_with_scikit_image_and_torchmetrics(pair):
    real, other = pair
    ours = ssim_per_frame(real, other)
    for b in range(2):
        for t in range(3):
            expected = structural_similarity(
                real[b, t],
                other[b, t],
                gaussian_weights=True,
                sigma=1.5,
                use_sample_covariance=False,
                data_range=255,
                channel_axis=-1,
            )
            assert ours[b, t] == pytest.approx(expected, abs=1e-9)
    x, y = (torch.from_numpy(v).flatten(0, 1).permute(0, 3, 1, 2).double() for v in pair)
    _, full = structural_similarity_index_measure(
        x, y, data_range=255.0, reduction="none", return_full_image=True
    )
    valid = full[..., 5:-5, 5:-5].mean((1, 2, 3))  # without what it padded
    assert np.allclose(ours.ravel(), valid.numpy(), atol=1e-6)
    assert np.allclose(ssim(real, other), ours.mean(1))


def test_a_perfect_copy_has_the_best_scores(pair):
    real, _ = pair
    assert (psnr(real, real) == 100).all()
    assert np.allclose(ssim(real, real), 1)


def test_unequal_or_small_clips_are_refused(pair):
    real, other = pair
    for metric in (psnr, ssim):
        with pytest.raises((TypeError, ValueError)):
            metric(real, other[:, :2])
        with pytest.raises((TypeError, ValueError)):
            metric(real / 255.0, other / 255.0)
    with pytest.raises(ValueError, match="at least 11x11"):
        ssim(real[:, :, :10], other[:, :, :10])
