"""Larger clips from smaller ones, by models that see the smaller one beside the noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.pipelines import inputs
from vdm.pipelines.clip import Clip
from vdm.pipelines.generate import Generator
from vdm.pipelines.given import load_movie, read_movie
from vdm.pipelines.request import check_output
from vdm.pipelines.walk import TimeGridAsked
from vdm.types import Conditioning
from vdm.utils.rng import SampleNoise, derive_seed
from vdm.utils.time_grid import TimeGrid

DECODED_FRAMES = 4  # at a time, as in LaVie's inference code: frames are large here


class Upscaler(Generator):
    """A model that enlarges a clip: ``video`` is the smaller one; called as any generator is.

    Clips that are longer than what it was trained on are enlarged piece by piece, each from noise
    of its own. Its ``parts.given`` is a :class:`vdm.conditioning.smaller.SmallerClip`.
    """

    @torch.no_grad()
    def __call__(
        self,
        prompt: inputs.Prompt | None = None,
        *,
        negative_prompt: inputs.Prompt | None = None,
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
        """Enlarge clips, arguments as for any generator.

        ``video`` is a path or frames in [0, 1], all of which are enlarged. ``height`` and ``width``
        are those of the result; by default its own size times the model's factor. ``noise_aug`` is
        the noise on it, as an entry of the model's table; ``strength`` is refused.

        Raises:
            ValueError: If there is no video, or an argument does not fit it.
        """
        rule = self.parts.given
        if video is None or image is not None or mask is not None:
            raise ValueError(
                f"got no whole clip, model {self.parts.name!r} enlarges one: expected video alone"
            )
        inputs.refuse("an upscaler", last_image=last_image, guidance_scale_2=guidance_scale_2)
        if strength is not None:
            raise ValueError(
                f"got strength={strength:g}, expected None: enlarging starts from noise"
            )
        check_output(output)
        movie, rate = read_movie(video)
        height, width = (
            height or rule.factor * movie.shape[3],
            width or rule.factor * movie.shape[4],
        )
        for name, size in (("height", height), ("width", width)):
            if size % rule.factor:
                nearest = max(1, round(size / rule.factor)) * rule.factor
                raise ValueError(
                    f"got {name}={size}, expected a multiple of {rule.factor}; nearest: {nearest}"
                )
        small = (height // rule.factor, width // rule.factor)
        movie = movie if movie.shape[3:] == small else load_movie(video, *small)
        count = movie.shape[2]
        if num_frames not in (None, count) or seconds is not None:
            raise ValueError(f"got another length than that of the video, expected {count} frames")
        fields = inputs.as_fields(cond, motion_bucket=motion_bucket, noise_aug=noise_aug)
        if "given" in fields:
            raise ValueError(
                "got cond.given, expected video: how it is shown is the model's matter"
            )
        batch = inputs.common_batch(
            prompt=inputs.length_of(prompt),
            negative_prompt=inputs.length_of(negative_prompt),
            seed=inputs.length_of(seed),
            noise=inputs.length_of(noise),
            video=len(movie),
            **{f"cond.{name}": len(value) for name, value in fields.items()},
        )
        seeds = inputs.seeds_for(seed, batch)
        level = fields.pop("noise_aug", torch.tensor([float(rule.level)]))
        grid = TimeGrid(count, fps or rate or self.parts.defaults.fps, 1)
        sampling: dict[str, Any] = {
            "steps": steps,
            "guidance_scale": guidance_scale,
            "dynamic_guidance": dynamic_guidance,
            "sampler": sampler,
            "time_grid": time_grid,
        }
        pieces: list[Any] = []
        for start in range(0, count, rule.max_frames):
            part = slice(start, start + rule.max_frames)
            piece = inputs.repeat_to(movie[:, :, part], batch)
            own = SampleNoise([derive_seed(one, "noise_aug", start) for one in seeds])
            shown = rule.show(piece, inputs.repeat_to(level, batch), own.draw(piece.shape[1:]))
            made = super().__call__(
                prompt,
                negative_prompt=negative_prompt,
                cond={**fields, "given": shown, "noise_aug": level},
                num_frames=piece.shape[2],
                fps=grid.fps,
                height=height,
                width=width,
                seed=[derive_seed(one, "upscale", start) for one in seeds],
                noise=None if noise is None else noise[:, :, part],
                output="latents",
                progress=progress,
                **sampling,
            )
            pieces.append(made)
        latents = torch.cat(pieces, dim=2)
        if output == "latents":
            return latents
        asked = {
            "prompt": inputs.text_of(prompt),
            "negative_prompt": inputs.text_of(negative_prompt),
            "seed": seeds,
            **sampling,
            "given": "video",
        }
        return self._finish(latents, grid, decode_frames or DECODED_FRAMES, asked)
