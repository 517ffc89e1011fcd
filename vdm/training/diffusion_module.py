"""Training a denoising network: latents, conditioning, noise by position, the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vdm.conditioning.dropout import ConditionDropout
from vdm.conditioning.frames import GivenFrames, given_mask
from vdm.conditioning.picture import MovedPicture
from vdm.conditioning.text import read_by
from vdm.data.text_cache import TextCache
from vdm.diffusion.losses import DenoisingLoss
from vdm.models.regions import compile_regions
from vdm.pretrained.parts import Defaults, Parts
from vdm.training.alignment import Alignment
from vdm.training.base import TrainingModule
from vdm.training.draws import noise_like, spread_uniforms, uniforms
from vdm.training.optimizers import OptimizerPlan
from vdm.training.sources import Start, read_autoencoder, start_from
from vdm.types import Autoencoder, Conditioning, Latents
from vdm.utils.config import configurable

OF_THE_DATA = ("num_frames", "fps", "height", "width")
"""Defaults of a model that are those of the data it is trained on."""


@configurable
class DiffusionModule(TrainingModule):
    """A denoising network in training.

    Batches hold ``latents``, or ``video`` that is encoded on the way, and ``caption``; ``fps`` and
    ``hint`` where the data have them.

    Args:
        network: The network that is trained.
        loss: What it is trained for: schedule, target, preconditioning, times and weighting.
        optimizer: How the parameters are trained.
        text_encoder: From captions to encoder states, or to labels; trained with the network if it
            can be. None for a network that is told neither.
        autoencoder: Makes the latents; stays as it is. A module, or the name or path of a trained
            model. None for a network that works on pixels.
        frames: Which latent frames are given, and how they are shown. None for a network that is
            never given any.
        dropout: How often a caption is left out, so that the network can be guided.
        defaults: How the model is to be sampled where nothing is said; the shape and the rate of a
            clip are those of the data.
        num_bins: Parts of [0, 1] over which the validation loss is split by noise time.
        name: What the model is called.
        seed: Everything that training draws is derived from it.
        start: Name or path of a trained model of the same shape, whose network and text encoder
            training goes on from; or which parts of another one. None starts from random weights.
        compile: Compile the network's layers when they are first used; pays off after minutes.
        picture: What the network is told of the first frame, if it moves pictures; batches then
            hold ``video``.
        alignment: What a layer of the network is taught beside; batches then hold ``maps``.

    Raises:
        ValueError: If there is no bin, the defaults name a shape or a rate, or the network has
            other labels than the encoder gives.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: DenoisingLoss,
        optimizer: OptimizerPlan,
        text_encoder: nn.Module | None = None,
        autoencoder: Autoencoder | str | None = None,
        frames: GivenFrames | None = None,
        dropout: ConditionDropout = ConditionDropout(),  # noqa: B008 (frozen)
        defaults: Defaults = Defaults(),  # noqa: B008 (frozen)
        num_bins: int = 8,
        name: str = "diffusion",
        seed: int = 0,
        start: str | Start | None = None,
        compile: bool = False,
        picture: MovedPicture | None = None,
        alignment: Alignment | None = None,
    ) -> None:
        super().__init__(optimizer, seed)
        if num_bins < 1:
            raise ValueError(f"got num_bins={num_bins}, expected at least 1")
        for key in OF_THE_DATA:
            if (value := getattr(defaults, key)) != getattr(Defaults(), key):
                raise ValueError(f"got defaults.{key}={value}, nothing reads it: it is the data's")
        _check_labels(network, text_encoder)
        self.network = network
        self.loss = loss
        self.text_encoder = text_encoder
        self.text_cache: TextCache | None = None
        self.autoencoder: nn.Module | None = (
            read_autoencoder(autoencoder) if isinstance(autoencoder, str) else autoencoder
        )
        if self.autoencoder is not None:
            self.autoencoder.eval().requires_grad_(False)
        self.frames, self.picture = frames, picture
        self.image_encoder = None if picture is None else picture.image_encoder
        if picture is not None and (frames is not None or autoencoder is None):
            raise ValueError("got a picture to move, expected an autoencoder and no given frames")
        self.dropout = dropout
        self.defaults = defaults
        self.num_bins = num_bins
        self.name = name
        self.alignment = alignment
        if start is not None:
            trained = {"network": network, "text_encoder": text_encoder}
            start_from(start, {part: m for part, m in trained.items() if m is not None})
        if compile:
            compile_regions(network)

    def parts(self) -> Parts:
        """Everything that sampling needs."""
        return Parts(
            name=self.name,
            network=self.network,
            text_encoder=self.text_encoder,
            autoencoder=self.autoencoder,
            image_encoder=self.image_encoder,
            schedule=self.loss.schedule,
            target=self.loss.target,
            preconditioning=self.loss.preconditioning,
            given=self._given(),
            defaults=self._defaults(),
            envelope=self.envelope(),
        )

    def _given(self) -> Any:
        """How given frames, or a picture, are shown."""
        if self.picture is not None:
            return self.picture.rule
        return None if self.frames is None else self.frames.shown.or_none()

    def _defaults(self) -> Defaults:
        """As the recipe says; the shape of a clip is that of the data."""
        trained = self.envelope()
        return replace(
            self.defaults,
            num_frames=trained.num_frames[0],
            fps=trained.fps[0],
            height=trained.height[0],
            width=trained.width[0],
        )

    def train(self, mode: bool = True) -> DiffusionModule:
        """As for any module, but what is not trained stays in eval mode."""
        super().train(mode)
        for part in (self.autoencoder, self.image_encoder, self.text_encoder):
            if part is not None and not any(p.requires_grad for p in part.parameters()):
                part.eval()
        return self

    def settings(self) -> dict[str, Any]:
        """As made, but what came from elsewhere is here now: its source may be gone one day."""
        return {**super().settings(), "autoencoder": self.autoencoder, "start": None}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The loss of one batch."""
        x0 = self.latents(batch)
        keys = self.positions(batch_idx, len(x0))
        u = uniforms(1, self.seed, "dropout", keys=keys)[:, 0]
        prompts = self.dropout.prompts(batch["caption"], u)
        cond = self.conditioning(x0, prompts, "train", keys, batch)
        eps = noise_like(x0, self.seed, "eps", keys=keys)
        t = self.times(x0.shape[2], keys).to(x0.device)
        if self.alignment is None:
            loss = self.loss(self.network, x0, cond, eps, t).mean()
            self.log_train({"loss": loss})
            return loss
        if "maps" not in batch:
            raise ValueError("got an alignment, expected data with maps, e.g. maps: true")
        with self.alignment.listening(self.network) as heard:
            loss = self.loss(self.network, x0, cond, eps, t).mean()
        error = self.alignment(heard[0], batch["maps"])
        self.log_train({"loss": loss, "maps": error})
        return loss + self.alignment.weight * error

    def times(
        self, num_frames: int, keys: Sequence[int]
    ) -> Float[Tensor, " b"] | Float[Tensor, "b {num_frames}"]:
        """Noise times of training samples, one for each, or one per frame where the loss says so.

        Args:
            num_frames: Latent frames of a clip.
            keys: One per sample, the place in the stream of random numbers.
        """
        u = spread_uniforms(self.seed, "t", keys=keys)
        if self.loss.frame_times is None:
            return self.loss.sample_times(u)
        more = uniforms(1 + num_frames, self.seed, "frame_times", keys=keys)
        return self.loss.sample_frame_times(torch.cat((u[:, None], more), dim=1))

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """The loss on a fixed table of (clip, t, eps), which only the number of a clip decides."""
        x0 = self.latents(batch)
        keys = [int(index) for index in batch["index"]]
        cond = self.conditioning(x0, batch["caption"], "val", keys, batch)
        eps = noise_like(x0, 0, "val", "eps", keys=keys)
        bins = torch.tensor([key % self.num_bins for key in keys])
        inside = uniforms(1, 0, "val", "t", keys=keys)[:, 0]
        t = ((bins + inside) / self.num_bins).to(x0.device)
        losses = self.loss(self.network, x0, cond, eps, t).float().cpu()
        self._log_val("loss", losses, prog_bar=True)
        for number in range(self.num_bins):
            self._log_val(f"loss_bin_{number}", losses[bins == number])

    test_step = validation_step

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Estimates of the clean latents from half-way noise."""
        x0 = self.latents(batch)
        keys = [int(index) for index in batch["index"]]
        cond = self.conditioning(x0, batch["caption"], "val", keys, batch)
        t = torch.full((len(x0),), 0.5, device=x0.device)
        xt = self.loss.schedule.add_noise(x0, noise_like(x0, 0, "val", "eps", keys=keys), t)
        return self.loss.denoiser(self.network)(xt, t, cond)

    @torch.no_grad()
    def latents(self, batch: dict[str, Any]) -> Latents:
        """The clean latents of a batch."""
        if "latents" in batch:
            return batch["latents"]
        if self.autoencoder is None:
            return batch["video"]
        return self.autoencoder.encode(batch["video"])  # type: ignore[operator]

    def conditioning(
        self,
        x0: Latents,
        prompts: Sequence[str],
        purpose: str,
        keys: Sequence[int],
        batch: Mapping[str, Any] | None = None,
    ) -> Conditioning:
        """What the network is told, as far as it reads it.

        Args:
            x0: Clean latents.
            prompts: Captions, ``""`` where left out.
            purpose: Names the stream of random numbers; that of ``"val"`` is the same in every run.
            keys: One per sample, the place in that stream.
            batch: What else the data say of the clips: ``fps``, ``hint``, ``video``.

        Raises:
            ValueError: If there is a picture to move, and no ``video``.
        """
        batch = batch or {}
        fields: dict[str, Tensor] = {}
        if self.text_encoder is not None:
            read = self.text_cache or self.text_encoder
            fields |= read_by(self.network, read(prompts))
        if "fps" in batch and "fps" in getattr(self.network, "reads", ()):
            fields["fps"] = batch["fps"]
        if self.picture is not None:
            fields |= self._picture_fields(x0, purpose, keys, batch)
        if self.frames is not None:
            seed = 0 if purpose == "val" else self.seed
            u = uniforms(x0.shape[2] + 1, seed, purpose, "frames", keys=keys)
            mask = given_mask(self.frames.choose(x0.shape[2], u.to(x0.device)), x0)
            shown, level, eps = self.frames.shown, None, None
            if shown.noise is not None:
                u = uniforms(1, seed, purpose, "noise_aug", keys=keys)[:, 0]
                level = fields["noise_aug"] = shown.noise.level(u).to(x0.device)
                eps = noise_like(x0, seed, purpose, "noise_aug", "eps", keys=keys)
            given = shown.show(shown.source(x0, batch.get("hint")), mask, level, eps)
            fields |= {"given": given, "given_mask": mask}
        return Conditioning(**fields)

    def _picture_fields(
        self, x0: Latents, purpose: str, keys: Sequence[int], batch: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """What the network is told of the first frames."""
        assert self.picture is not None
        if "video" not in batch:
            raise ValueError("got clips as latents alone, expected video: a picture is to be moved")
        seed, pictures = (0 if purpose == "val" else self.seed), batch["video"][:, :, 0]
        fps = batch.get("fps", torch.full((len(x0),), self.envelope().fps[0]))
        u = uniforms(2, seed, purpose, "picture", keys=keys).to(x0.device)
        if purpose == "val":
            u[:, 1] = 1.0  # never left out
        eps = noise_like(pictures, seed, purpose, "picture", "eps", keys=keys)
        return self.picture.fields(
            pictures, self.autoencoder, x0.shape[2], fps.to(x0), u.to(x0.dtype), eps
        )

    def _log_val(self, name: str, losses: Float[Tensor, " n"], prog_bar: bool = False) -> None:
        """Log a mean over samples, each counting the same whatever batch it came in."""
        if len(losses):
            self.log(
                f"{self.split}/{name}",
                losses.mean(),
                batch_size=len(losses),
                prog_bar=prog_bar,
                sync_dist=True,
            )


def _check_labels(network: nn.Module, encoder: nn.Module | None) -> None:
    """Refuse a network whose labels nobody gives, or of which others are given.

    Raises:
        ValueError: If it is one.
    """
    embed = getattr(network, "label_embed", None)
    expected = None if embed is None else embed.null
    if expected != (given := getattr(encoder, "null", None)):
        raise ValueError(
            f"got num_labels={expected} of the network, expected {given}: as many as the encoder "
            "of captions gives"
        )
