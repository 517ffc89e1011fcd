import hashlib

import pytest
import torch
from torch import nn

from vdm.metrics.weights_file import WeightsFile, hash_of


def test_a_file_is_known_by_its_hash_and_a_wrong_one_is_refused(tmp_path):
    path = tmp_path / "weights@home.pth"
    path.write_bytes(b"weights")
    expected = hashlib.sha256(b"weights").hexdigest()
    for source in (path, f"{path}@{expected}", f"{path}@{expected[:8]}"):
        assert WeightsFile.of(source) == WeightsFile(path, expected)
    assert WeightsFile.of(path).id == expected[:8]
    with pytest.raises(ValueError, match=f"got sha256 {expected[:8]}, expected 01234567"):
        WeightsFile.of(f"{path}@01234567")
    with pytest.raises(FileNotFoundError, match="nowhere, expected a file of weights"):
        WeightsFile.of(tmp_path / "nowhere")


def test_a_network_is_hashed_by_its_numbers_and_not_by_their_names():
    first = nn.ModuleDict({"norm": nn.LayerNorm(3), "map": nn.Linear(3, 4)})
    same = nn.Sequential(first["map"], first["norm"])
    assert hash_of(first) == hash_of(same)
    with torch.no_grad():
        first["map"].weight[0, 0] += 1
    changed = hash_of(first)
    with torch.no_grad():
        first["map"].weight[0, 0] -= 1
        first["map"].weight.data = first["map"].weight.data.reshape(6, 2)
    assert len({changed, hash_of(first), hash_of(nn.LayerNorm(3))}) == 3
