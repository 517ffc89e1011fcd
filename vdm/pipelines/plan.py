"""What a call will cost, in memory, operations and time, before any weight is loaded.

The parts are built on the meta device, where tensors have shapes but no data, and run once there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vdm.conditioning.picture import FramesOnGrey, Picture, SeenFrame
from vdm.diffusion import samplers
from vdm.layers.positions import forget_tables
from vdm.pipelines.meter import FusedAttention, MemoryMeter
from vdm.pipelines.request import check_scale, check_steps, geometry_of, named, time_grid_for
from vdm.pretrained.layout import FORMAT
from vdm.pretrained.loading import Reading
from vdm.pretrained.parts import Parts, parts_from
from vdm.pretrained.sources import read
from vdm.types import Conditioning

TEXT_LENGTH = 32
"""Tokens assumed where no text encoder says how many it gives."""
PICTURE_LENGTH = 16
"""Tokens assumed for a picture where no image encoder says how many it gives."""


@dataclass(frozen=True)
class Stage:
    """One part of the model at work.

    Args:
        name: Which part.
        num_parameters: Its parameters.
        weight_bytes: Bytes of its weights.
        activation_bytes: Most bytes of tensors alive at once during a call, weights aside.
        flops: Floating-point operations of a call.
        traffic_bytes: Bytes that the operations of a call read and write.
        num_calls: How often it is called for one batch of clips.
    """

    name: str
    num_parameters: int
    weight_bytes: int
    activation_bytes: int
    flops: int
    traffic_bytes: int
    num_calls: int


@dataclass(frozen=True)
class Machine:
    """How fast a device is at the two things that bound every model.

    Args:
        name: The device.
        flops: Floating-point operations per second in a matrix product.
        bandwidth: Bytes per second read and written by a copy.
    """

    name: str
    flops: float
    bandwidth: float

    def seconds(self, stage: Stage) -> float:
        """The roofline: no call can be faster than its arithmetic or its memory traffic."""
        call = max(stage.flops / self.flops, stage.traffic_bytes / self.bandwidth)
        return call * stage.num_calls


def read_description(source: str | Path, motion: str | Path | None = None) -> dict[str, Any]:
    """The description of a model, without its weights.

    Args:
        source: What :func:`vdm.load` takes, a cascade aside. Of a model that is named by a hub id,
            no weights are fetched.
        motion: A motion adapter, for an image model.

    Raises:
        ValueError: If there is none.
        FileNotFoundError: If the path leads nowhere.
    """
    parts = read(source, motion=motion, how=Reading(is_plan=True))
    return {"format": FORMAT, **parts.describe()}


def plan(
    description: dict[str, Any],
    *,
    num_frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    steps: int | None = None,
    guidance_scale: float | tuple[float, float] | None = None,
    sampler: str | None = None,
    batch: int = 1,
    decode_frames: int | None = None,
    dtype: torch.dtype = torch.float32,
) -> list[Stage]:
    """The stages of a generation, in order.

    Args:
        description: What :func:`read_description` gives.
        num_frames: Frames per clip; this and what follows default to the model's own.
        height: Pixels.
        width: Pixels.
        steps: Sampling steps.
        guidance_scale: 1 is no guidance; anything else doubles the network's calls.
        sampler: Name of the sampler.
        batch: Clips made together.
        decode_frames: Latent frames decoded at a time.
        dtype: Number format of weights and activations.

    Raises:
        ValueError: If the model cannot make clips of this size, or there is no such sampler.
    """
    parts = parts_from(description, "plan", on_meta=True)
    for module in parts.modules.values():
        module.to("meta", dtype).eval().requires_grad_(False)
    if parts.network is None:
        raise ValueError(f"model {parts.name!r} has no network, expected one to plan for")
    defaults = parts.defaults
    strides = getattr(parts.autoencoder, "strides", (1, 1, 1))
    geometry = geometry_of(parts)
    height = defaults.height if height is None else height
    width = defaults.width if width is None else width
    geometry.check_pixels(height=height, width=width)
    grid = time_grid_for(defaults, strides[0], num_frames, None, None, geometry.piece)
    geometry.check_frames(grid)
    steps = check_steps(defaults.steps if steps is None else steps)
    scale = check_scale(defaults.guidance_scale if guidance_scale is None else guidance_scale)
    sampler = defaults.sampler if sampler is None else sampler
    named(samplers, sampler, "sampler")

    channels = getattr(parts.autoencoder, "latent_channels", 3)
    size = (geometry.num_latent_frames(grid), height // strides[1], width // strides[2])
    latents = torch.empty(batch, channels, *size, device="meta", dtype=dtype)
    # Heun's method looks ahead in every step but the last.
    is_told = "guidance" in getattr(parts.network, "reads", ())  # the scale, in one call
    num_sides = 1 if scale == 1.0 or is_told else 2
    calls = (2 * steps - 1 if sampler == "heun" else steps) * num_sides
    one: nn.Module = getattr(parts.network, "high", parts.network)  # of two, each makes some steps
    cond = _conditioning(parts, one, latents)
    c_noise = torch.empty(batch, device="meta")
    network, text_encoder, autoencoder = parts.network, parts.text_encoder, parts.autoencoder
    stages = []
    if text_encoder is not None:
        prompts = [""] * batch
        encode: Callable[..., Any] = text_encoder.encode  # type: ignore[assignment]
        if isinstance(parts.given, SeenFrame):
            # What is cut out of a picture, which is made outside of the device.
            side: Any = text_encoder.eyes.size  # type: ignore[union-attr]
            square = torch.empty(1, 3, side, side, device="meta", dtype=dtype)
            encode = partial(text_encoder, squares=square)
        stages.append(_measure("text_encoder", text_encoder, lambda: encode(prompts), num_sides))
    if isinstance(parts.given, Picture):
        stages += _of_picture(parts.image_encoder, autoencoder, (batch, 3, height, width), dtype)
    if isinstance(parts.given, SeenFrame):
        first = torch.empty(batch, 3, 1, height, width, device="meta", dtype=dtype)
        look: Callable[..., Tensor] = autoencoder.encode  # type: ignore[union-attr, assignment]
        stages.append(_measure("encoder", autoencoder, lambda: look(first), 1))  # type: ignore[arg-type]
    if isinstance(parts.given, FramesOnGrey):
        clip = (batch, 3, grid.num_frames, height, width)
        stages += _of_frames(parts.given, parts.image_encoder, autoencoder, clip, dtype)
    stages.append(_measure("network", network, lambda: one(latents, c_noise, cond), calls))
    if autoencoder is not None:
        num_ahead = geometry.num_ahead
        kept = latents[:, :, -(grid.num_latent_frames + num_ahead) :]
        decoded = grid.num_frames + num_ahead * strides[0]
        arguments = {"num_frames": decoded, "decode_frames": decode_frames}
        decode: Callable[..., Tensor] = autoencoder.decode  # type: ignore[assignment]
        stages.append(_measure("decoder", autoencoder, lambda: decode(kept, **arguments), 1))
    return stages


def measure_encoder(
    description: dict[str, Any],
    num_frames: int,
    height: int,
    width: int,
    batch: int = 1,
    dtype: torch.dtype = torch.float32,
) -> Stage:
    """The stage that makes latents of given clips.

    Args:
        description: What :func:`read_description` gives.
        num_frames: Frames per clip.
        height: Pixels.
        width: Pixels.
        batch: Clips encoded together.
        dtype: Number format of weights and activations.

    Raises:
        ValueError: If the model has no autoencoder.
    """
    autoencoder = parts_from(description, "plan", on_meta=True).autoencoder
    if autoencoder is None:
        raise ValueError("got a model without an autoencoder, expected one with")
    autoencoder.to(dtype).eval()
    video = torch.empty(batch, 3, num_frames, height, width, device="meta", dtype=dtype)
    encode: Callable[..., Tensor] = autoencoder.encode  # type: ignore[assignment]
    return _measure("encoder", autoencoder, lambda: encode(video), 1)


def _of_picture(
    image_encoder: Any, autoencoder: Any, size: tuple[int, int, int, int], dtype: torch.dtype
) -> list[Stage]:
    """What a network is shown of the picture that it moves."""
    picture = torch.empty(size, device="meta", dtype=dtype)
    return [
        _measure("image_encoder", image_encoder, lambda: image_encoder.encode_image(picture), 1),
        _measure("encoder", autoencoder, lambda: autoencoder.encode(picture[:, :, None]), 1),
    ]


def _of_frames(
    rule: FramesOnGrey,
    image_encoder: Any,
    autoencoder: Any,
    size: tuple[int, int, int, int, int],
    dtype: torch.dtype,
) -> list[Stage]:
    """What a network is shown of given frames: a clip with them, and pictures as tokens."""
    clip, found = torch.empty(size, device="meta", dtype=dtype), []
    if rule.num_told:
        # The square that is cut out of a picture, which is made outside of the device.
        side = image_encoder.size
        square = torch.empty(size[0], 3, side, side, device="meta", dtype=dtype)
        run = partial(image_encoder.model, pixel_values=square)
        found.append(_measure("image_encoder", image_encoder, run, rule.num_told))
    return [*found, _measure("encoder", autoencoder, lambda: autoencoder.encode(clip), 1)]


def _conditioning(parts: Parts, network: nn.Module, latents: Tensor) -> Conditioning:
    """Every field that the network needs, in the shapes that it was built for."""
    arguments = getattr(getattr(network, "unet", network), "_init_args", {})
    batch, length = len(latents), getattr(parts.text_encoder, "max_length", TEXT_LENGTH)
    length += getattr(parts.text_encoder, "num_seen", 0)
    num_image = getattr(parts.image_encoder, "num_tokens", PICTURE_LENGTH)
    num_image *= getattr(parts.given, "num_told", 1)
    image_dim: Any = getattr(network, "image_dim", None) or arguments.get("text_dim")
    known: dict[str, Callable[[], Tensor]] = {
        "text": lambda: latents.new_empty(batch, length, arguments["text_dim"]),
        "image": lambda: latents.new_empty(batch, num_image, image_dim),
        "given": lambda: torch.empty_like(latents),
        "pooled_text": lambda: latents.new_empty(batch, arguments["pooled_dim"]),
        "size": lambda: latents.new_empty(batch, 2),
        "label": lambda: torch.zeros(batch, device="meta", dtype=torch.long),
    }
    needs: set[str] = getattr(parts.network, "needs", set())
    return Conditioning(
        **{name: known.get(name, lambda: latents.new_empty(batch))() for name in needs}
    )


def _measure(name: str, module: nn.Module, run: Callable[[], Any], num_calls: int) -> Stage:
    weights = list(_tensors(module))
    meter = MemoryMeter(weights)
    forget_tables()  # left over from an earlier call, they would not be counted
    with torch.no_grad(), FusedAttention(), meter:
        run()
    return Stage(
        name=name,
        num_parameters=sum(parameter.numel() for parameter in module.parameters()),
        weight_bytes=sum(tensor.nbytes for tensor in weights),
        activation_bytes=meter.peak,
        flops=meter.flops,
        traffic_bytes=meter.traffic,
        num_calls=num_calls,
    )


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def measure_machine(device: str = "cpu", dtype: torch.dtype = torch.float32) -> Machine:
    """How fast a device really is, in well under a second.

    Args:
        device: Where to measure.
        dtype: Number format of the matrix product.
    """
    side = 1024 if torch.device(device).type == "cpu" else 8192
    a = torch.ones(side, side, device=device, dtype=dtype)
    b = torch.ones(32 * 2**20, device=device, dtype=torch.uint8)
    product = _best_seconds(lambda: a @ a, device)
    copy = _best_seconds(lambda: b.clone(), device)
    return Machine(device, 2 * side**3 / product, 2 * b.nbytes / copy)


def _best_seconds(run: Callable[[], Any], device: str) -> float:
    times = []
    for _ in range(6):
        start = time.perf_counter()
        run()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)
