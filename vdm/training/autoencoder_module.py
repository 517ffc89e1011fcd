"""Training a video autoencoder: encode, draw from the posterior, decode, compare."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset

from vdm.autoencoder.latents import LatentStatistics
from vdm.autoencoder.losses import AdversarialLoss, AutoencoderLoss
from vdm.metrics.reconstruction import psnr
from vdm.pretrained.parts import Parts
from vdm.training.base import TrainingModule
from vdm.training.draws import noise_like
from vdm.training.optimizers import OptimizerPlan
from vdm.training.sources import start_from
from vdm.types import Autoencoder
from vdm.utils.config import configurable
from vdm.utils.video_io import to_uint8


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through a module but not into it."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


@configurable
class AutoencoderModule(TrainingModule):
    """A video autoencoder in training.

    The discriminator, if there is one, is trained in the same step by the same optimiser: the sum
    of both losses gives each network the gradient of its own.

    Args:
        autoencoder: The autoencoder, with ``encode_moments`` and ``decode_raw``.
        loss: Compares clips and weighs the code.
        optimizer: How the parameters are trained.
        adversarial: Losses of decoder and discriminator; none trains without.
        statistics_clips: Training clips from which the scale of the latents is measured at the end.
        name: What the model is called.
        seed: Everything that training draws is derived from it.
        start: Name or path of a trained model of the same shape that training goes on from. None
            starts from random weights.
        train_encoder: Whether the encoder is trained too. With a frozen one latents stay what they
            are, and so do the networks that were trained on them.
    """

    def __init__(
        self,
        autoencoder: Autoencoder,
        loss: AutoencoderLoss,
        optimizer: OptimizerPlan,
        adversarial: AdversarialLoss | None = None,
        statistics_clips: int = 512,
        name: str = "autoencoder",
        seed: int = 0,
        start: str | None = None,
        train_encoder: bool = True,
    ) -> None:
        super().__init__(optimizer, seed)
        if statistics_clips < 1:
            raise ValueError(f"got statistics_clips={statistics_clips}, expected at least 1")
        self.autoencoder = autoencoder
        self.loss = loss
        self.adversarial = adversarial
        self.statistics_clips = statistics_clips
        self.name = name
        self.train_encoder = train_encoder
        if start is not None:
            start_from(start, {"autoencoder": autoencoder})
        if not train_encoder:
            autoencoder.encoder.requires_grad_(False)  # type: ignore[operator]

    def settings(self) -> dict[str, Any]:
        """As made, but started: what training went on from may be gone one day."""
        return {**super().settings(), "start": None}

    def parts(self) -> Parts:
        """The autoencoder alone: losses are not part of the model."""
        return Parts(name=self.name, autoencoder=self.autoencoder, envelope=self.envelope())

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The loss of one batch of clips."""
        video = batch["video"]
        keys = self.positions(batch_idx, len(video))
        mean, logvar = self.autoencoder.encode_moments(video)  # type: ignore[operator]
        eps = noise_like(mean, self.seed, "posterior", keys=keys)
        raw = mean + torch.exp(0.5 * logvar) * eps
        reconstruction = self.autoencoder.decode_raw(raw, video.shape[2])  # type: ignore[operator]
        reconstruction = reconstruction.float()
        loss, terms = self.loss(video, reconstruction, mean.float(), logvar.float())
        adversarial = self.adversarial
        if adversarial is not None and self.global_step >= adversarial.start_step:
            with frozen(adversarial.discriminator):
                terms["generator"] = adversarial.generator_loss(reconstruction)
            terms["discriminator"] = adversarial.discriminator_loss(video, reconstruction)
            loss = loss + terms["generator"] + terms["discriminator"]
        self.log_train({"loss": loss, **terms})
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Losses and PSNR of the posterior's mean."""
        video = batch["video"]
        mean, logvar = self.autoencoder.encode_moments(video)  # type: ignore[operator]
        reconstruction = self.autoencoder.decode_raw(mean, video.shape[2])  # type: ignore[operator]
        reconstruction = reconstruction.float()
        loss, terms = self.loss(video, reconstruction, mean.float(), logvar.float())
        clips = [to_uint8(x).cpu().numpy() for x in (video, reconstruction)]
        for name, value in {"loss": loss, **terms}.items():
            self.log(f"{self.split}/{name}", value, batch_size=len(video), sync_dist=True)
        decibels = float(psnr(*clips).mean())
        self.log(
            f"{self.split}/psnr", decibels, batch_size=len(video), prog_bar=True, sync_dist=True
        )

    test_step = validation_step

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Latents of unit variance."""
        return self.autoencoder.encode(batch["video"])  # type: ignore[operator]

    @torch.no_grad()
    def finish(self, data: Any) -> None:
        """Measure the scale of the latents on the first training clips, if it can have changed."""
        if not self.train_encoder:
            return
        clips = data.train_dataset()
        subset = Subset(clips, range(min(self.statistics_clips, len(clips))))
        statistics = LatentStatistics()
        for batch in DataLoader(subset, batch_size=data.batch_size):
            mean, _ = self.autoencoder.encode_moments(batch["video"].to(self.device))  # type: ignore[operator]
            statistics.update(mean)
        scale = statistics.mean_and_std()
        self.autoencoder.latents.set(*(x.to(self.device) for x in scale))  # type: ignore[union-attr, operator]
