"""A clip in stages: keyframes, the frames between them, more pixels, each by a model of its own.

The stages pass on latents. The first makes every s-th latent frame of the clip, or of a smaller
one; interpolation fills in between; upscaling makes the clip larger. These may stand in any order,
and the distance of keyframes and their size follow from what comes after them.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.data.latent_view import resize_video
from vdm.pipelines import inputs, steering
from vdm.pipelines.clip import Clip
from vdm.pipelines.generate import Generator
from vdm.pipelines.interpolate import interpolate, overlay
from vdm.pipelines.request import check_output, time_grid_for
from vdm.pipelines.upscale import Upscaler
from vdm.pipelines.walk import TimeGridAsked
from vdm.pretrained.cascades import (
    StageCard,
    check_order,
    place_of,
    save_cascade,
    write_cascade,
)
from vdm.pretrained.layout import write_folder
from vdm.types import Conditioning, Latents
from vdm.utils.rng import derive_seed
from vdm.utils.time_grid import TimeGrid

__all__ = [
    "Cascade",
    "Interpolate",
    "MakeKeyframes",
    "Stage",
    "Upscale",
    "UpscalePixels",
    "save_cascade",
]


@dataclass(frozen=True)
class Request:
    """What one call asks of every stage.

    Args:
        prompt: As for a generator.
        grid: The time axis of the finished clip.
        height: Of the finished clip, in pixels.
        width: Of the finished clip, in pixels.
        seeds: One per sample.
        frames: ``image`` and no last one, ``video`` and ``mask`` as for a generator.
        cond: Further fields of the conditioning.
        settings: Further arguments of the generators.
        noise_aug: Level of noise on what one stage hands to the next; each model's own if None.
    """

    prompt: inputs.Prompt | None
    grid: TimeGrid
    height: int
    width: int
    seeds: list[int]
    frames: tuple[tuple[Any, Any], Any, Any]
    cond: Mapping[str, Any]
    settings: Mapping[str, Any]
    noise_aug: float | None


@dataclass(frozen=True, eq=False)
class Draft:
    """What the stages so far have made.

    Args:
        latents: Every ``stride``-th latent frame of the clip, smaller by ``shrink``.
        stride: Latent frames of the finished clip from one to the next.
        shrink: How many times the finished clip is as high and wide.
        maker: The model that made them.
    """

    latents: Latents | None
    stride: int
    shrink: int
    maker: Generator | None = None


@dataclass(frozen=True, eq=False)
class Stage(ABC):
    """One model and its task.

    Args:
        model: The model.
        factor: By how much there are more latents afterwards: frames, or rows and columns.

    Raises:
        ValueError: If the factor does not go with the task.
    """

    model: Generator
    factor: int = 2
    kind: ClassVar[str]

    def __post_init__(self) -> None:
        StageCard(self.kind, self.kind, self.factor)  # refuses what does not go together

    @abstractmethod
    def run(self, request: Request, draft: Draft) -> Draft:
        """Go on with what the stages before have made."""

    def known(self, request: Request, draft: Draft) -> tuple[Tensor, Tensor] | None:
        """Latents of the user's frames in the size that the stage works on, and where they are."""
        size = request.height // draft.shrink, request.width // draft.shrink
        found = steering.given_in_clip(self.model, *request.frames, request.grid, size)
        if found is None:
            return None
        latents, where = (inputs.repeat_to(value, len(request.seeds)) for value in found)
        return latents.to(self.model.device), where.to(self.model.device)

    def make(
        self, request: Request, draft: Draft, given: Tensor | None, mask: Tensor | None
    ) -> Draft:
        """Have the model make the latents of a draft, told some of them."""
        if given is not None and mask is not None and bool((mask == 1).all()):
            return Draft(given, draft.stride, draft.shrink)
        part = request.grid.every(draft.stride)
        fields = {} if given is None else {"given": given, "given_mask": mask}
        latents: Any = self.model(
            request.prompt,
            cond={**request.cond, **fields},
            num_frames=part.num_frames,
            fps=part.fps,
            height=request.height // draft.shrink,
            width=request.width // draft.shrink,
            seed=self.seeds(request, draft),
            output="latents",
            noise_aug=None if given is None else request.noise_aug,
            **request.settings,
        )
        return Draft(latents, draft.stride, draft.shrink)

    def seeds(self, request: Request, draft: Draft) -> list[int]:
        """Every stage has noise of its own."""
        path = (self.kind, draft.stride, draft.shrink)
        return [derive_seed(seed, *path) for seed in request.seeds]


@dataclass(frozen=True, eq=False)
class MakeKeyframes(Stage):
    """The first latents, from words and from what the user gives."""

    factor: int = 1
    kind = "keyframes"

    def run(self, request: Request, draft: Draft) -> Draft:
        """Every ``draft.stride``-th latent frame."""
        known = self.known(request, draft)
        if known is None:
            return self.make(request, draft, None, None)
        given, mask = (value[:, :, :: draft.stride] for value in known)
        anything = bool(mask.any())
        return self.make(request, draft, given if anything else None, mask if anything else None)

    def seeds(self, request: Request, draft: Draft) -> list[int]:
        """Those of the user: a draft is what its model makes alone."""
        return request.seeds


@dataclass(frozen=True, eq=False)
class Interpolate(Stage):
    """The frames between, ``factor`` times as many."""

    kind = "interpolate"

    def run(self, request: Request, draft: Draft) -> Draft:
        """The latents so far are keyframes."""
        assert draft.latents is not None
        stride = draft.stride // self.factor
        part, known = request.grid.every(stride), self.known(request, draft)
        if known is not None:
            known = known[0][:, :, ::stride], known[1][:, :, ::stride]
        latents = interpolate(
            self.model,
            draft.latents.to(self.model.device),
            self.factor,
            request.prompt,
            num_frames=part.num_frames,
            fps=part.fps,
            seed=self.seeds(request, Draft(None, stride, draft.shrink)),
            known=known,
            cond=request.cond,
            noise_aug=request.noise_aug,
            **request.settings,
        )
        return Draft(latents, stride, draft.shrink)


@dataclass(frozen=True, eq=False)
class Upscale(Stage):
    """More pixels, ``factor`` times as many in height and width."""

    kind = "upscale"

    def run(self, request: Request, draft: Draft) -> Draft:
        """The clip so far, brought to size, is a hint: nothing of it is kept as it is."""
        assert draft.latents is not None
        larger = Draft(None, draft.stride, draft.shrink // self.factor)
        given = self.enlarge(draft.latents, request.grid, draft.stride)
        mask = given.new_zeros(len(given), 1, *given.shape[2:])
        known = self.known(request, larger)
        if known is not None:
            given, mask = overlay(given, mask, known, draft.stride)
        return self.make(request, larger, given, mask)

    def enlarge(self, latents: Float[Tensor, "b c t _ _"], grid: TimeGrid, stride: int) -> Latents:
        """Latents of the clip with larger frames, by way of pixels.

        A decoder needs every latent frame: those between are blended from their neighbours, and
        left out again.
        """
        whole = blend_between(latents.to(self.model.device), stride, grid.num_latent_frames)
        video = self.model._decode(whole, grid, None).float().clamp(-1, 1)
        height, width = (self.factor * size for size in video.shape[3:])
        return self.model._encode(resize_video(video, height, width))[:, :, ::stride]


@dataclass(frozen=True, eq=False)
class UpscalePixels(Stage):
    """More pixels by a model that sees those of the smaller clip, whose latents are others.

    Raises:
        ValueError: If the model enlarges by another factor, or no clips.
    """

    factor: int = 4
    kind = "upscale"

    def __post_init__(self) -> None:
        super().__post_init__()
        expected = getattr(self.model.parts.given, "factor", None)
        if self.factor != expected:
            name = self.model.parts.name
            raise ValueError(f"got factor={self.factor} for {name!r}, expected {expected}")

    def run(self, request: Request, draft: Draft) -> Draft:
        """The clip so far, decoded by the model that made it."""
        assert draft.latents is not None
        assert draft.maker is not None
        video = draft.maker._decode(draft.latents.to(draft.maker.device), request.grid, None)
        latents: Any = self.model(
            request.prompt,
            video=(video.float().clamp(-1, 1) + 1) / 2,
            cond=request.cond,
            fps=request.grid.fps,
            seed=self.seeds(request, draft),
            output="latents",
            noise_aug=request.noise_aug,
            **request.settings,
        )
        return Draft(latents, draft.stride, draft.shrink // self.factor)


def blend_between(
    latents: Float[Tensor, "b c k h w"], stride: int, num_latent_frames: int
) -> Latents:
    """Every ``stride``-th latent frame with straight lines between; after the last one it stays."""
    place = torch.arange(num_latent_frames, device=latents.device) / stride
    before = place.floor().long()
    after = (before + 1).clamp(max=latents.shape[2] - 1)
    share = (place - before).reshape(-1, 1, 1).to(latents)
    return torch.lerp(latents[:, :, before], latents[:, :, after], share)


def make_stage(card: StageCard, model: Generator) -> Stage:
    """The stage that a card describes."""
    kind = STAGES[card.kind]
    if kind is Upscale and isinstance(model, Upscaler):
        kind = UpscalePixels
    return kind(model, card.factor or 1)


STAGES: dict[str, type[Stage]] = {one.kind: one for one in (MakeKeyframes, Interpolate, Upscale)}
"""Stages by the name that they have in a file."""


class Cascade(Generator):
    """Models that make a clip one after the other; called as any generator is.

    Parts, defaults and envelope are those of the last stage, which also decodes.

    Args:
        stages: From the first to the last.
        name: What the cascade is called.

    Raises:
        ValueError: If the first stage does not make keyframes, another one does, or the models do
            not have the same latents.
    """

    def __init__(self, stages: Sequence[Stage], name: str = "cascade") -> None:
        check_order([stage.kind for stage in stages])
        before = stages[:-1] if isinstance(stages[-1], UpscalePixels) else stages
        if any(isinstance(stage, UpscalePixels) for stage in before):
            raise ValueError("got a stage that enlarges pixels before others, expected it last")
        spaces = {
            (stage.model.network.in_channels, *stage.model.geometry.strides) for stage in before
        }
        if len(spaces) > 1:
            got = " and ".join(str(space) for space in sorted(spaces))
            raise ValueError(
                f"got latents of (channels, *strides) {got}, expected the same for all stages"
            )
        last, parts = stages[-1].model, replace(stages[-1].model.parts, name=name)
        for record in ("defaults", "envelope"):  # one that enlarges takes clips as they come
            time = getattr(before[-1].model.parts, record)
            mine = getattr(parts, record)
            mine = replace(mine, num_frames=time.num_frames, fps=time.fps)
            setattr(parts, record, mine)
        super().__init__(parts, device=last.device, offload=last.offload)
        self.stages = list(stages)

    def __repr__(self) -> str:
        stages = ", ".join(f"{stage.kind} {stage.model.parts.name!r}" for stage in self.stages)
        return f"Cascade({self.parts.name!r}, {stages}, {self.device})"

    def check_prompt(self, prompt: inputs.Prompt) -> None:
        """Find out, before anything else is computed, whether every stage reads a prompt.

        Args:
            prompt: As for a call.

        Raises:
            ValueError: If one does not.
        """
        for stage in self.stages:
            stage.model.check_prompt(prompt)

    @property
    def last(self) -> Generator:
        """The model of the last stage."""
        return self.stages[-1].model

    @property
    def stride(self) -> int:
        """Latent frames from one keyframe of the draft to the next."""
        return math.prod(stage.factor for stage in self.stages if stage.kind == "interpolate")

    @property
    def shrink(self) -> int:
        """How many times as high and wide the clip is as its draft."""
        return math.prod(stage.factor for stage in self.stages if stage.kind == "upscale")

    def about(self) -> dict[str, Any]:
        """Everything that clips depend on besides the settings of a call, as plain data."""
        stages = [
            {
                "kind": stage.kind,
                "factor": stage.factor,
                "model": stage.model.parts.name,
                "config_sha256": stage.model.parts.config_hash(),
                "weights_sha256": stage.model.parts.weight_hashes(),
                "defaults": asdict(stage.model.parts.defaults),
                "dtype": str(stage.model.dtype).removeprefix("torch."),
            }
            for stage in self.stages
        ]
        built = [[stage[name] for name in ("kind", "factor", "config_sha256")] for stage in stages]
        digest = hashlib.sha256(json.dumps(built).encode()).hexdigest()
        return {"model": self.parts.name, "stages": stages, "config_sha256": digest}

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
        """Generate clips, arguments as for any generator.

        What is said of sampling is said to every stage; what is not said is each stage's own
        default. ``seed`` is that of the first stage, whose keyframes are what its model makes
        alone; the noise of later stages follows from it, so ``noise`` is refused, as ``strength``
        is. A given ``image`` or ``video`` stays as it is where no stage makes the clip larger.
        ``noise_aug`` is the noise on what one stage hands to the next.
        """
        check_output(output)
        if noise is not None:
            raise ValueError("got noise for a cascade, expected seeds: every stage draws its own")
        other = {"guidance_scale_2": guidance_scale_2, "strength": strength}
        inputs.refuse("a cascade", last_image=last_image, **other)
        fields = inputs.as_fields(cond, motion_bucket=motion_bucket)
        if taken := [name for name in ("given", "given_mask", "noise_aug") if name in fields]:
            raise ValueError(f"got cond.{taken[0]} for a cascade, whose stages set it themselves")
        defaults, geometry = self.parts.defaults, self.geometry
        height = defaults.height if height is None else height
        width = defaults.width if width is None else width
        self._check_pixels(height, width)
        grid = time_grid_for(defaults, geometry.strides[0], num_frames, seconds, fps)
        frames = ((image, None), video, mask)
        given = steering.given_in_clip(self, *frames, grid, (height, width))
        batch = inputs.common_batch(
            prompt=inputs.length_of(prompt),
            negative_prompt=inputs.length_of(negative_prompt),
            seed=inputs.length_of(seed),
            given=None if given is None else len(given[0]),
            **{f"cond.{name}": len(value) for name, value in fields.items()},
        )
        seeds = inputs.seeds_for(seed, batch)
        sampling: dict[str, Any] = {"steps": steps, "sampler": sampler, "time_grid": time_grid}
        sampling |= {"guidance_scale": guidance_scale, "dynamic_guidance": dynamic_guidance}
        settings = {**sampling, "negative_prompt": negative_prompt, "progress": progress}
        request = Request(prompt, grid, height, width, seeds, frames, fields, settings, noise_aug)
        draft = Draft(None, self.stride, self.shrink)
        for stage in self.stages:
            draft = replace(stage.run(request, draft), maker=stage.model)
        assert draft.latents is not None
        if output == "latents":
            return draft.latents
        asked = {
            "prompt": inputs.text_of(prompt),
            "negative_prompt": inputs.text_of(negative_prompt),
            "seed": seeds,
            **sampling,
            "given": inputs.name_of(image=image, video=video),
        }
        clip = self._finish(draft.latents.to(self.device), grid, decode_frames, asked)
        clip.metadata |= self.about()
        return clip

    def save(self, folder: str | Path, dtype: torch.dtype | None = None) -> Path:
        """Write the cascade as a folder that :func:`vdm.load` reads back.

        Args:
            folder: Made if need be. ``vdm.json`` lists the stages, whose models lie in it.
            dtype: Store floating-point weights in this type; as they are if None.

        Returns:
            The folder.
        """
        places: dict[int, str] = {}
        for index, stage in enumerate(self.stages):
            if id(stage.model) not in places:
                places[id(stage.model)] = place = place_of(index, stage.kind)
                write_folder(stage.model.parts, Path(folder) / place, dtype)
        cards = [StageCard(one.kind, places[id(one.model)], one.factor) for one in self.stages]
        return write_cascade(Path(folder), self.parts.name, cards)

    def _check_pixels(self, height: int, width: int) -> None:
        """Refuse sizes of which some stage cannot make its part."""
        shrink = self.shrink
        for stage in self.stages:
            shrink //= stage.factor if stage.kind == "upscale" else 1
            own = stage.model.geometry
            for name, size, stride, side in zip(
                ("height", "width"),
                (height, width),
                own.strides[1:],
                own.patch_size[1:],
                strict=True,
            ):
                multiple = shrink * stride * side
                if size < 1 or size % multiple:
                    nearest = max(1, round(size / multiple)) * multiple
                    raise ValueError(
                        f"got {name}={size}, expected a multiple of {multiple}; nearest: {nearest}"
                    )
