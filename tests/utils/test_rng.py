"""A draw depends on its key alone: not on the batch, and not on torch's default device."""

import pytest
import torch

from vdm.utils.rng import SampleNoise, derive_seed, generator


def test_keys_are_told_apart():
    seeds = {derive_seed(0), derive_seed(1), derive_seed(0, "a"), derive_seed(0, "a", 1)}
    assert len(seeds) == 4
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_draws_are_the_same_whatever_the_default_device():
    like = torch.zeros(2, 3, 4)
    expected = SampleNoise([5, 6])(like)
    with torch.device("meta"):
        assert torch.equal(SampleNoise([5, 6])(like), expected)
        assert generator(0, "eps").device.type == "cpu"


def test_a_sample_gets_the_same_noise_alone_and_in_a_batch():
    together = SampleNoise([5, 6])(torch.zeros(2, 3, 4))
    assert torch.equal(SampleNoise([6])(torch.zeros(1, 3, 4)), together[1:])


def test_a_batch_of_another_size_is_refused():
    with pytest.raises(ValueError, match="got a batch of 3, expected 2"):
        SampleNoise([5, 6])(torch.zeros(3, 4))
