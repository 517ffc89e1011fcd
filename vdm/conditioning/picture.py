"""A picture that a clip is to move from, and how networks are told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vdm.utils.config import configurable
from vdm.utils.tensors import expand_as


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


@dataclass(frozen=True)
class SeenFrame:
    """The picture is the first frame, and texts are read in sight of it.

    What guidance leads away from is read in sight of a black one. Sampling starts from a clip that
    stands still, at almost all noise, though the network is told of nothing but noise.

    Args:
        is_ahead: Whether the picture is a latent frame of its own ahead of the clip, which is made
            with it, for later ones to be decoded well, and then left out; otherwise it is the
            clip's first, and stays as it is.
        start: Noise time of the clip that stands still.

    Source:
        tencent/HunyuanVideo-I2V, as in its pipeline of diffusers.
    """

    is_ahead: bool = False
    start: float = 0.999

    @property
    def keeps_given(self) -> bool:
        """Whether the picture comes back as it is."""
        return not self.is_ahead


@dataclass(frozen=True)
class FramesOnGrey:
    """Pictures are frames of the clip: latents of a grey clip with them stand beside the noise.

    Masks beside these tell frame by frame of pixels which they are, and guidance leads away from
    other words alone. The network makes the given frames anew.

    Args:
        num_told: How many pictures are told in tokens besides.

    Source:
        Wan team 2025, arXiv:2503.20314, section 5.1.
    """

    num_told: int = 1


PictureRule = Picture | FirstFrame | PictureTokens


@configurable
class MovedPicture:
    """What a network in training is told of the picture: it is the first frame of the clip.

    Args:
        image_encoder: From pictures to tokens; stays as it is.
        rule: How the picture is shown.
        noise_mean: Mean of the logarithm of the standard deviation of the noise on the picture.
        noise_std: Its standard deviation.
        dropout: How often there are zeros in the place of the picture, so that the network can be
            guided.

    Raises:
        ValueError: If the dropout is no probability, or the spread is negative.

    Source:
        Blattmann et al. 2023, "Stable Video Diffusion", arXiv:2311.15127, appendix D.
    """

    def __init__(
        self,
        image_encoder: nn.Module,
        rule: Picture = Picture(),
        noise_mean: float = -3.0,
        noise_std: float = 0.5,
        dropout: float = 0.1,
    ) -> None:
        if not 0 <= dropout <= 1:
            raise ValueError(f"got dropout={dropout}, expected 0 to 1, e.g. 0.1")
        if noise_std < 0:
            raise ValueError(f"got noise_std={noise_std}, expected at least 0, e.g. 0.5")
        self.image_encoder = image_encoder.eval().requires_grad_(False)
        self.rule = rule
        self.noise_mean, self.noise_std, self.dropout = noise_mean, noise_std, dropout

    @torch.no_grad()
    def fields(
        self,
        pictures: Float[Tensor, "b 3 height width"],
        autoencoder: Any,
        num_frames: int,
        fps: Float[Tensor, " b"],
        u: Float[Tensor, "b 2"],
        eps: Float[Tensor, "b 3 height width"],
    ) -> dict[str, Tensor]:
        """Fields of the conditioning.

        Args:
            pictures: First frames, in [-1, 1].
            autoencoder: Makes the latents.
            num_frames: Latent frames of a clip.
            fps: Frames per second of every clip.
            u: Uniform numbers in [0, 1): of the noise level, and of leaving the picture out.
            eps: Standard normal noise.
        """
        quantile = torch.special.ndtri(u[:, 0].clamp(1e-6, 1 - 1e-6))
        level = torch.exp(self.noise_mean + self.noise_std * quantile)
        noisy = pictures + expand_as(level, pictures) * eps
        mean, _ = autoencoder.encode_moments(noisy[:, :, None])
        encode: Any = self.image_encoder.encode_image
        token = encode(pictures)
        kept = (u[:, 1] >= self.dropout).to(token)
        given = mean.expand(-1, -1, num_frames, -1, -1)
        return {
            "image": expand_as(kept, token) * token,
            "given": expand_as(kept, given) * given,
            "fps": fps + self.rule.fps_offset,
            "motion_bucket": torch.full_like(level, self.rule.motion_bucket),
            "noise_aug": level,
        }
