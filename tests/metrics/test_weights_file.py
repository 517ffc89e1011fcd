import hashlib

import pytest

from vdm.metrics.weights_file import WeightsFile


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
