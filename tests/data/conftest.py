"""Sources of clips that cost nothing and count how often they are asked."""

import numpy as np
import pytest


class CountedClips:
    """Clip ``i`` is full of ``i``; its caption says so."""

    def __init__(
        self, count: int = 11, shape: tuple[int, ...] = (5, 4, 6, 3), about: str = "a"
    ) -> None:
        self.count, self.shape, self.about = count, shape, about
        self.asked: list[int] = []

    def __len__(self) -> int:
        return self.count

    def describe(self) -> dict[str, object]:
        return {"about": self.about}

    def clip(self, index: int) -> tuple[np.ndarray, str]:
        self.asked.append(index)
        return np.full(self.shape, index, np.uint8), f"clip {index}"


@pytest.fixture
def make_clips() -> type[CountedClips]:
    return CountedClips
