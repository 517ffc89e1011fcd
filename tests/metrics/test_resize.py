import pytest
import torch

from vdm.metrics.resize import resize_as_tf1


@pytest.mark.parametrize("size", [(5, 9), (13, 4)])
def test_each_pixel_is_where_tensorflow_1_looks(size):
    """Row ``i`` of the result lies at row ``i * height / side`` of what came in."""
    side = 7
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    found = resize_as_tf1(x, side)
    height, width = size
    for i in range(side):
        for j in range(side):
            y, z = i * height / side, j * width / side
            top, left = int(y), int(z)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            dy, dz = y - top, z - left
            upper = (1 - dz) * x[..., top, left] + dz * x[..., top, right]
            lower = (1 - dz) * x[..., bottom, left] + dz * x[..., bottom, right]
            expected = (1 - dy) * upper + dy * lower
            torch.testing.assert_close(found[..., i, j], expected, atol=1e-5, rtol=0)
