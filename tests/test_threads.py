"""Tests in several processes share the cores, or each takes ten times as long."""

import os

import pytest
import torch


def test_torch_counts_the_threads_that_it_is_told_of():
    told = os.environ.get("OMP_NUM_THREADS")
    if told is None:
        pytest.skip("a single process has all cores")
    assert torch.get_num_threads() == int(told)
