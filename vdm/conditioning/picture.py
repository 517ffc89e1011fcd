"""A picture that a clip is to move from, and how networks are told of it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """The picture is no frame of the clip: its latents stand beside the noise of every frame.

    The latents are raw, without the scale of those that are denoised; what guidance leads away from
    has zeros in the place of the picture.

    Args:
        noise_aug: Standard deviation of the noise on the picture, in pixel values of [-1, 1].
        motion_bucket: How much is to move.
        fps_offset: Added to the frame rate that the network is told.

    Source:
        Blattmann et al. 2023, "Stable Video Diffusion", arXiv:2311.15127, appendix D.
    """

    noise_aug: float = 0.02
    motion_bucket: float = 127.0
    fps_offset: float = -1.0


@dataclass(frozen=True)
class FirstFrame:
    """The picture is the first frame: its latents stand beside the noise of the first latent frame.

    Beside all others there are zeros. The latents are drawn from what the autoencoder says of the
    picture, and guidance leads away from no picture.

    Source:
        Yang et al. 2024, "CogVideoX", arXiv:2408.06072, sec. 3.5, and its released pipeline.
    """


@dataclass(frozen=True)
class PictureTokens:
    """The picture is told beside the words, in tokens of its own.

    What guidance leads away from is told of a grey picture.

    Source:
        Chen et al. 2023, "VideoCrafter1", arXiv:2310.19512, and its inference code.
    """


PictureRule = Picture | FirstFrame | PictureTokens
