"""From noise to a clip: conditioning, guidance, sampling, decoding, for any model made of parts."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.conditioning.text import TextStates, read_by
from vdm.diffusion import samplers
from vdm.pipelines import inputs
from vdm.pipelines.clip import Clip, clip_from
from vdm.pipelines.given import show_given
from vdm.pipelines.guide import denoiser_of, read_guide, unsaid
from vdm.pipelines.progress import sampling_bar
from vdm.pipelines.request import (
    Geometry,
    check_output,
    geometry_of,
    named,
    tell_scale,
    time_grid_for,
)
from vdm.pipelines.start import first_step, noise_start, noisy_start, read_start, roughened
from vdm.pipelines.walk import TimeGridAsked, read_walk
from vdm.pipelines.ways import Asked, way_of
from vdm.pretrained.parts import Envelope, Parts
from vdm.types import Conditioning
from vdm.utils.rng import SampleNoise
from vdm.utils.time_grid import TimeGrid

Prompt = inputs.Prompt
POSITIVE_ONLY = ("text", "text_mask", "pooled_text", "label", "image")
"""Fields that say what is wanted: the unguided prediction is made without them."""


class Generator:
    """A model ready to generate.

    Args:
        parts: The model.
        dtype: Number format of the weights; as they are if None.
        device: Where to compute; torch's default device if None.
        offload: ``"cpu"`` keeps weights there and moves each part to the device while it works.

    Raises:
        ValueError: If the model cannot generate, or offloading would change nothing.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        dtype: torch.dtype | None = None,
        device: str | torch.device | None = None,
        offload: str | None = None,
    ) -> None:
        if parts.network is None or parts.schedule is None:
            have = ", ".join(parts.modules) or "no weights"
            raise ValueError(f"model {parts.name!r} cannot generate: it has {have}, but no network")
        self.parts = parts
        self.device = torch.device(device) if device is not None else torch.get_default_device()
        if offload not in (None, "cpu"):
            raise ValueError(f"got offload={offload!r}, expected 'cpu' or None")
        if self.device.type == offload:
            raise ValueError(f"got offload={offload!r} with device {self.device}, expected another")
        self.offload = offload
        self.dtype = dtype or next(parts.network.parameters()).dtype
        for module in parts.modules.values():
            module.to(device=offload or self.device, dtype=dtype)
        self._warned = False

    def __repr__(self) -> str:
        count = sum(p.numel() for m in self.parts.modules.values() for p in m.parameters())
        about = [f"{count / 1e6:.1f} M parameters", str(self.device)]
        if self.parts.quantized:
            about.append(self.parts.quantized)
        return f"Generator({self.parts.name!r}, {', '.join(about)})"

    @property
    def network(self) -> Any:
        """The denoising network."""
        return self.parts.network

    @property
    def autoencoder(self) -> Any:
        """Between video and latents."""
        return self.parts.autoencoder

    @property
    def text_encoder(self) -> Any:
        """From prompts to encoder states."""
        return self.parts.text_encoder

    @property
    def image_encoder(self) -> Any:
        """From pictures to tokens; none of the bundled models has one."""
        return self.parts.image_encoder

    @property
    def schedule(self) -> Any:
        """The noise schedule."""
        return self.parts.schedule

    @property
    def target(self) -> Any:
        """What the network predicts."""
        return self.parts.target

    @property
    def envelope(self) -> Envelope:
        """What the model was trained on."""
        return self.parts.envelope

    @property
    def geometry(self) -> Geometry:
        """Which sizes the model can make."""
        return geometry_of(self.parts)

    @torch.no_grad()
    def __call__(
        self,
        prompt: Prompt | None = None,
        *,
        negative_prompt: Prompt | None = None,
        image: Any = None,
        last_image: Any = None,
        video: Any = None,
        mask: Any = None,
        cond: Conditioning | Mapping[str, Any] | None = None,
        num_frames: int | None = None,
        seconds: float | None = None,
        fps: float | None = None,
        height: int | None = None,
        width: int | None = None,
        steps: int | None = None,
        guidance_scale: float | Sequence[float] | None = None,
        guidance_scale_2: float | None = None,
        dynamic_guidance: bool | None = None,
        sampler: str | None = None,
        time_grid: TimeGridAsked | None = None,
        strength: float | None = None,
        seed: inputs.Seed | None = None,
        noise: Float[Tensor, "b c t h w"] | None = None,
        decode_frames: int | None = None,
        output: str = "video",
        progress: bool = True,
        motion_bucket: float | None = None,
        noise_aug: float | None = None,
    ) -> Clip | Tensor:
        """Generate clips. What is not given is the model's own default.

        Args:
            prompt: Text, a list of texts, or ready-made encoder states ``(b, n, d)``.
            negative_prompt: What guidance leads away from.
            image: The first frame: a path, a PIL image, or a tensor in [0, 1]. Resized (Lanczos).
            last_image: The last frame, for models that read single frames. Likewise.
            video: Given frames: a path or a tensor in [0, 1]; without ``mask`` the first frames.
                With ``strength`` the clip to start from, of which ``mask`` says what stays.
            mask: 1 where ``video`` is given: ``(t,)``, ``(t, h, w)`` or ``(b, 1, t, h, w)``. To
                LTX-Video from 0.9.5 on frames may be given in part, by a number below 1.
            cond: Fills or overrides single fields of the conditioning, raw as the network takes
                them; ``given`` clean, with ``given_mask``: how it is shown is the model's matter.
            num_frames: Frames per clip.
            seconds: Length of a clip, instead of ``num_frames`` or of ``fps``.
            fps: Frames per second.
            height: Pixels.
            width: Pixels.
            steps: Sampling steps.
            guidance_scale: 1 is no guidance; a pair is a ramp from the first to the last frame.
            guidance_scale_2: Another for the second network of a model that has two, which makes
                the steps of little noise; the same where ``guidance_scale`` is given alone. Of
                Open-Sora 2.0 how far it leads to given frames.
            dynamic_guidance: Vary the scale over the steps, between 1 and 1 more than it is.
            sampler: Name of a function of ``vdm.diffusion.samplers``.
            time_grid: Name of a function of ``vdm.diffusion.time_grids``, ``{"name": ..., ...}``
                with arguments of it, or noise times from 1 down to 0, one more than steps.
            strength: Start from ``video`` with the noise of the last ``strength * steps`` steps,
                and take these alone: more than 0, which changes nothing, and at most 1.
            seed: One integer (sample ``k`` uses ``seed + k``) or one per sample; None draws one.
            noise: Initial latents of unit variance.
            decode_frames: Latent frames decoded at a time: less memory, the same result.
            output: ``"video"``, or ``"latents"`` to skip decoding.
            progress: Show a progress bar.
            motion_bucket: Amount of motion, for networks that read it; for PIA its kind, 0 to 8.
            noise_aug: Noise added to the given picture, for networks that read it.

        Returns:
            A clip, or the latents ``(b, c, t, h, w)``.

        Raises:
            ValueError: If an argument is outside what the model can do.
        """
        check_output(output)
        defaults, geometry = self.parts.defaults, self.geometry
        height = defaults.height if height is None else height
        width = defaults.width if width is None else width
        geometry.check_pixels(height=height, width=width)
        walk = read_walk(time_grid, steps, defaults)
        first = 0 if strength is None else first_step(strength, walk.steps)
        start = None if strength is None else read_start(video, num_frames, height, width)
        if start is not None and seconds is None:
            num_frames = start.shape[2]
        stride, piece = geometry.strides[0], geometry.piece
        grid = time_grid_for(defaults, stride, num_frames, seconds, fps, piece)
        (geometry if start is None else replace(geometry, pads_frames=False)).check_frames(grid)
        guide = read_guide(self.parts, guidance_scale, guidance_scale_2, dynamic_guidance)
        sampler = defaults.sampler if sampler is None else sampler
        sample = named(samplers, sampler, "sampler")
        self._warn_outside(grid, height, width)

        raw = inputs.as_fields(cond, motion_bucket=motion_bucket, noise_aug=noise_aug)
        told_or_not = tell_scale(self.network, raw, guide.scale, guidance_scale, negative_prompt)
        between = replace(guide, scale=told_or_not)
        frames = way_of(
            self,
            Asked(
                image=image,
                last_image=last_image,
                video=video if start is None or mask is not None else None,
                mask=mask,
                motion=motion_bucket,
                raw=raw,
                grid=grid,
                size=(height, width),
            ),
        )
        batch = inputs.common_batch(
            prompt=inputs.length_of(prompt),
            negative_prompt=inputs.length_of(negative_prompt),
            seed=inputs.length_of(seed),
            noise=inputs.length_of(noise),
            video=inputs.length_of(start),
            **frames.counts(),
            **{f"cond.{name}": len(value) for name, value in raw.items() if len(value) != 1},
        )
        seeds = inputs.seeds_for(seed, batch)
        stream = SampleNoise(seeds)
        frames.draw(seeds, stream)
        shape = self._latent_shape(grid, height, width)
        eps = None if noise is None else inputs.check_noise(noise, shape, batch)
        times = walk.times(self, shape[1:])[first:]
        if start is not None:
            x = noisy_start(self, start, stream, eps, float(times[0]))
        else:
            x = noise_start(self, stream, shape, eps, frames.exact.given, float(times[0]))
        x = frames.place(x, stream)
        wanted, unwanted = inputs.published_words(prompt, negative_prompt, defaults)
        seen, unseen = frames.in_sight()
        positive = self._conditioning(wanted, raw, frames.shown, batch, seen)
        negative = None
        if between.is_on:
            negative = self._unwanted(unwanted, raw, frames.hidden, batch, unseen)
            if getattr(self.text_encoder, "masks_alike", False):
                negative = negative.replace(text_mask=positive.text_mask)
            if negative_prompt is None and not unwanted:
                negative = unsaid(self, negative)
        # Samplers whose stride depends on the whole grid are told of it.
        whole = (
            {"num_steps": walk.steps} if "num_steps" in inspect.signature(sample).parameters else {}
        )
        tell: dict[str, Any] = {"noise": stream, **whole}
        with self._working("network"), sampling_bar(batch, len(times) - 1, progress) as callback:
            guided = between.denoise(denoiser_of(self, sample), positive, negative, times)
            denoise = frames.keep(guided, stream)
            latents = sample(denoise, self.schedule, x, times, callback=callback, **tell)
        latents = frames.put_back(latents)
        if output == "latents":
            return latents[:, :, -grid.num_latent_frames :]
        latents = latents[:, :, -(grid.num_latent_frames + geometry.num_ahead) :]
        asked = {
            "prompt": inputs.text_of(prompt),
            "negative_prompt": inputs.text_of(negative_prompt),
            "seed": seeds,
            **walk.notes(),
            **guide.notes(),
            "sampler": sampler,
            "strength": strength,
            "given": inputs.name_of(image=image, video=video, last_image=last_image),
        }
        return self._finish(roughened(self, latents, stream), grid, decode_frames, asked)

    def _finish(
        self, latents: Tensor, grid: TimeGrid, decode_frames: int | None, asked: dict[str, Any]
    ) -> Clip:
        """Decode, and note where the clip came from."""
        frames = self._decode(latents, grid, decode_frames)
        height, width = frames.shape[3:]
        return clip_from(frames, grid.fps, self._note(grid, height, width, asked))

    def _note(
        self, grid: TimeGrid, height: int, width: int, asked: dict[str, Any]
    ) -> dict[str, Any]:
        """Where a clip comes from."""
        return {
            "model": self.parts.name,
            **asked,
            **({"quantize": self.parts.quantized} if self.parts.quantized else {}),
            "num_frames": grid.num_frames,
            "fps": grid.fps,
            "height": height,
            "width": width,
            "dtype": str(self.dtype).removeprefix("torch."),
            "config_sha256": self.parts.config_hash(),
            "weights_sha256": self.parts.weight_hashes(),
        }

    def _call_network(self, x: Tensor, c_noise: Tensor, cond: Conditioning) -> Tensor:
        """The network in its own precision, everything around it in float32."""
        return self.network(x.to(self.dtype), c_noise, cond).float()

    def _call_with_variance(self, x: Tensor, c_noise: Tensor, cond: Conditioning) -> Tensor:
        """The same of a network that says something of the variance."""
        return self.network.with_variance(x.to(self.dtype), c_noise, cond).float()

    def _told(
        self,
        raw: Mapping[str, Tensor],
        exact: Conditioning,
        grid: TimeGrid,
        seeds: Sequence[int],
        size: tuple[int, int],
    ) -> dict[str, Tensor]:
        """What the network is told of given latents, rate and size, as far as it reads it."""
        reads = getattr(self.network, "reads", ())
        told = show_given(exact, self.parts.given, reads, raw.get("noise_aug"), seeds)
        if "fps" in reads and "fps" not in raw:
            told["fps"] = torch.tensor([self.parts.defaults.rate_told(grid.fps)])
        if "size" in reads and "size" not in raw:
            told["size"] = torch.tensor([size]).float()
        return told

    def _conditioning(
        self,
        prompt: Prompt | None,
        raw: Mapping[str, Tensor],
        told: Mapping[str, Tensor] | None,
        batch: int,
        seen: Tensor | None = None,
    ) -> Conditioning:
        """Everything the network is told, one row per sample, checked against what it reads."""
        found = {**self._encode_prompt(prompt, seen), **raw, **(told or {})}
        rows = {
            name: inputs.repeat_to(torch.as_tensor(value), batch) for name, value in found.items()
        }
        return Conditioning(**rows).to(self.device).to(self.dtype)

    def _unwanted(
        self,
        prompt: Prompt | None,
        raw: Mapping[str, Tensor],
        told: Mapping[str, Tensor],
        batch: int,
        seen: Tensor | None = None,
    ) -> Conditioning:
        """The same of what guidance leads away from: without anything that says what is wanted."""
        rest = {name: value for name, value in raw.items() if name not in POSITIVE_ONLY}
        rest |= inputs.no_label(self.network, raw)
        return self._conditioning(prompt, rest, told, batch, seen)

    @torch.no_grad()
    def check_prompt(self, prompt: Prompt) -> None:
        """Find out, before anything else is computed, whether the model reads a prompt.

        Args:
            prompt: As for a call.

        Raises:
            ValueError: If it does not.
        """
        self._encode_prompt(prompt)

    def _encode_prompt(
        self, prompt: Prompt | None, seen: Tensor | None = None
    ) -> dict[str, Tensor]:
        """The text fields of the conditioning, of texts that may be read in sight of a picture."""
        if isinstance(prompt, Tensor):
            mask = torch.ones(prompt.shape[:2], device=prompt.device)
            return read_by(self.network, TextStates(prompt, mask, None))
        if self.text_encoder is None:
            if prompt:
                raise ValueError(f"model {self.parts.name!r} takes no prompt, got {prompt!r}")
            return {}
        texts = [prompt or ""] if isinstance(prompt, str | None) else list(prompt)
        with self._working("text_encoder"):
            states = self.text_encoder.encode(texts, *(() if seen is None else (seen,)))
        return read_by(self.network, states)

    def _encode(self, video: Tensor) -> Tensor:
        if self.autoencoder is None:
            return video
        with self._working("autoencoder"):
            return self.autoencoder.encode(video.to(self.device, self.dtype)).float()

    def _decode(self, latents: Tensor, grid: TimeGrid, decode_frames: int | None) -> Tensor:
        if self.autoencoder is None:
            return latents[:, :, : grid.num_frames]
        surplus = self.geometry.num_ahead * self.geometry.strides[0]
        num_frames = grid.num_frames + surplus
        with self._working("autoencoder"):
            video = self.autoencoder.decode(
                latents.to(self.dtype), num_frames=num_frames, decode_frames=decode_frames
            )
        return video[:, :, surplus:]

    def _latent_shape(self, grid: TimeGrid, height: int, width: int) -> tuple[int, int, int, int]:
        _, sh, sw = self.geometry.strides
        channels = self.network.in_channels
        return channels, self.geometry.num_latent_frames(grid), height // sh, width // sw

    def _warn_outside(self, grid: TimeGrid, height: int, width: int) -> None:
        """Say once that the model was not trained on what is asked."""
        outside = self.envelope.outside(
            num_frames=grid.num_frames, fps=grid.fps, height=height, width=width
        )
        if outside and not self._warned:
            self._warned = True
            warnings.warn(
                f"{self.parts.name} was not trained on {', '.join(outside)}", stacklevel=4
            )

    @contextmanager
    def _working(self, name: str) -> Iterator[None]:
        """Have a part on the device while it works."""
        module = getattr(self.parts, name)
        if self.offload is None:
            yield
            return
        module.to(self.device)
        try:
            yield
        finally:
            module.to(self.offload)
