import cv2
import numpy as np
import pytest
from textured_clips import smooth_noise

cv2.setNumThreads(1)


@pytest.fixture
def still() -> np.ndarray:
    """One clip in which nothing happens, (1, 9, 64, 80, 3)."""
    return np.repeat(smooth_noise(0, 64, 80)[None, None], 9, 1)


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory):
    """A tiny CLIP with random weights, in transformers' layout."""
    from tests.pretrained.tiny_clip import write_clip  # it takes long to import

    path = tmp_path_factory.mktemp("clip")
    write_clip(path, seed=0)
    return path
