"""What a VAE is trained for: reconstruction, a short code, looks, and fooling a discriminator."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Literal

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vdm.autoencoder.discriminator import VideoDiscriminator
from vdm.types import Latents, Video
from vdm.utils.config import configurable

FRAMES = "b c t h w -> (b t) c h w"


def kl_to_standard_normal(mean: Latents, logvar: Latents) -> Float[Tensor, " b"]:
    """KL divergence of the posterior from the standard normal, in nats per sample.

    Source:
        Kingma and Welling 2014, arXiv:1312.6114, appendix B.
    """
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).flatten(1).sum(1)


@configurable
class VGGFeatures(nn.Module):
    """The five feature maps of VGG-16 that LPIPS compares, weighted by its linear heads.

    The weights are the user's: torchvision's ImageNet file and the heads that torchmetrics ships.

    Args:
        backbone: Path of torchvision's ``vgg16`` state dict.
        heads: Path of the ``vgg`` linear heads of LPIPS v0.1; by default the ones inside
            torchmetrics.

    Raises:
        FileNotFoundError: If a file is missing.

    Source:
        Zhang et al. 2018, "The Unreasonable Effectiveness of Deep Features", arXiv:1801.03924, eq.
        1.
    """

    net = "vgg"
    cuts = (4, 9, 16, 23, 30)  # behind relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
    shift: Tensor
    scale: Tensor

    def __init__(self, backbone: str, heads: str | None = None) -> None:
        super().__init__()
        if heads is None:
            import torchmetrics.functional.image as image_metrics

            heads = str(Path(image_metrics.__file__).parent / "lpips_models" / f"{self.net}.pth")
        for path in (backbone, heads):
            if not Path(path).is_file():
                raise FileNotFoundError(f"got perceptual weights {path!r}, expected a file")
        features = self._layers()
        state = torch.load(backbone, weights_only=True, map_location="cpu")
        prefix = "features."
        features.load_state_dict(
            {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)},
            assign=True,
        )
        self.stages = nn.ModuleList(features[a:b] for a, b in pairwise((0, *self.cuts)))
        heads_state = torch.load(heads, weights_only=True, map_location="cpu")
        self.heads = nn.ParameterList(
            heads_state[f"lin{k}.model.1.weight"] for k in range(len(self.cuts))
        )
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).reshape(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).reshape(1, 3, 1, 1))
        self.requires_grad_(False)

    def _layers(self) -> nn.Sequential:
        from torchvision.models import vgg16

        with torch.device("meta"):
            return vgg16().features

    def forward(self, frames: Float[Tensor, "n 3 h w"]) -> list[Tensor]:
        """Unit-length features of frames in [-1, 1], times the roots of the heads' weights."""
        x = (frames - self.shift) / self.scale
        features = []
        for stage, head in zip(self.stages, self.heads, strict=True):
            x = stage(x)
            features.append(functional.normalize(x, dim=1, eps=1e-10) * head.clamp_min(0).sqrt())
        return features


@configurable
class AlexFeatures(VGGFeatures):
    """Likewise of AlexNet, the network of LPIPS in tables.

    Args:
        backbone: Path of torchvision's ``alexnet`` state dict.
        heads: Path of the ``alex`` linear heads.
    """

    net = "alex"
    cuts = (2, 5, 8, 10, 12)  # behind every rectification

    def _layers(self) -> nn.Sequential:
        from torchvision.models import alexnet

        with torch.device("meta"):
            return alexnet().features


@configurable
class PerceptualLoss(nn.Module):
    """Squared distance between feature maps of frames: mean over positions, sum over maps.

    Args:
        features: Frames ``(n, 3, h, w)`` in [-1, 1] to a list of feature maps, for instance
            :class:`VGGFeatures`.
    """

    def __init__(self, features: nn.Module) -> None:
        super().__init__()
        self.features = features

    def forward(self, video: Video, reconstruction: Video) -> Tensor:
        """The distance, averaged over all frames."""
        pairs = zip(
            self.features(rearrange(video, FRAMES)),
            self.features(rearrange(reconstruction, FRAMES)),
            strict=True,
        )
        distances = [(a - b).square().sum(1).mean() for a, b in pairs]
        return torch.stack(distances).sum()


@configurable
class AutoencoderLoss(nn.Module):
    """Reconstruction, KL and perceptual terms, weighted.

    Args:
        reconstruction: ``l2`` is the right one for PSNR, ``l1`` keeps edges sharper.
        kl_weight: Weight of the KL in nats per pixel value (all three channels counted).
        perceptual: Distance between clips, or None.
        perceptual_weight: Its weight.
    """

    def __init__(
        self,
        reconstruction: Literal["l1", "l2"] = "l2",
        kl_weight: float = 1e-3,
        perceptual: PerceptualLoss | None = None,
        perceptual_weight: float = 0.1,
    ) -> None:
        super().__init__()
        self.reconstruction = reconstruction
        self.kl_weight = kl_weight
        self.perceptual = perceptual
        self.perceptual_weight = perceptual_weight

    def forward(
        self, video: Video, reconstruction: Video, mean: Latents, logvar: Latents
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, and its terms before weighting.

        Args:
            video: Clips in [-1, 1].
            reconstruction: What the decoder made of a draw from the posterior.
            mean: Mean of the raw latents.
            logvar: Log-variance of the raw latents.
        """
        error = reconstruction - video
        terms = {
            "reconstruction": error.square().mean()
            if self.reconstruction == "l2"
            else error.abs().mean()
        }
        terms["kl"] = kl_to_standard_normal(mean, logvar).sum() / video.numel()
        loss = terms["reconstruction"] + self.kl_weight * terms["kl"]
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(video, reconstruction)
            loss = loss + self.perceptual_weight * terms["perceptual"]
        return loss, terms


@configurable
class AdversarialLoss(nn.Module):
    """Hinge losses of the decoder and of a patch discriminator.

    Args:
        discriminator: Clips to a map of scores, high for real.
        start_step: Step at which the decoder begins to be judged.
        weight: Weight of the decoder's term.

    Source:
        Lim and Ye 2017, "Geometric GAN", arXiv:1705.02894, eq. 13; in latent diffusion: Rombach et
        al. 2022, arXiv:2112.10752, appendix G.
    """

    def __init__(
        self, discriminator: VideoDiscriminator, start_step: int = 0, weight: float = 0.1
    ) -> None:
        super().__init__()
        self.discriminator = discriminator
        self.start_step = start_step
        self.weight = weight

    def generator_loss(self, reconstruction: Video) -> Tensor:
        """The decoder wants high scores."""
        return -self.weight * self.discriminator(reconstruction).mean()

    def discriminator_loss(self, video: Video, reconstruction: Video) -> Tensor:
        """The discriminator wants scores above 1 for real clips, below -1 for others."""
        real = functional.relu(1 - self.discriminator(video)).mean()
        fake = functional.relu(1 + self.discriminator(reconstruction.detach())).mean()
        return 0.5 * (real + fake)
