"""The judge of the VAE's adversarial term: scores for overlapping patches of space and time."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from vdm.types import Video
from vdm.utils.config import configurable


@configurable
class VideoDiscriminator(nn.Module):
    """A strided 3D convolutional network that scores patches of a clip.

    It has no normalisation: with batch statistics, a clip's score would depend on its neighbours in
    the batch.

    Args:
        width: Channels behind the first convolution; each further one doubles them.
        depth: Strided convolutions; each halves height and width, all but the first also halve
            time.

    Source:
        Isola et al. 2017, "Image-to-Image Translation with Conditional Adversarial Networks",
        arXiv:1611.07004, section 3.2.2, extended in time.
    """

    def __init__(self, width: int = 32, depth: int = 3) -> None:
        super().__init__()
        if depth < 1:
            raise ValueError(f"got depth={depth}, expected at least 1")
        layers: list[nn.Module] = []
        channels = 3
        for level in range(depth):
            stride = (1 if level == 0 else 2, 2, 2)
            layers += [
                nn.Conv3d(channels, width * 2**level, (3, 4, 4), stride, padding=1),
                nn.LeakyReLU(0.2),
            ]
            channels = width * 2**level
        self.layers = nn.Sequential(*layers, nn.Conv3d(channels, 1, 3, padding=1))

    def forward(self, video: Video) -> Float[Tensor, "b 1 _ _ _"]:
        """Scores of patches, high for real; the axes are smaller than the clip's."""
        return self.layers(video)
