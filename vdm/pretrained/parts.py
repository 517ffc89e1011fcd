"""What a model is made of, and what it was made for: parts, defaults, training envelope."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from contextlib import nullcontext
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from vdm.utils.config import build, describe

MODULES = ("network", "text_encoder", "autoencoder", "image_encoder")
"""Parts that hold weights."""
RULES = ("schedule", "target", "preconditioning", "given")
"""Parts that hold none: how the network's output is to be read, and what it is shown."""


@dataclass(frozen=True)
class Defaults:
    """What a call uses where the user says nothing.

    Args:
        num_frames: Frames per clip.
        fps: Frames per second.
        height: Pixels.
        width: Pixels.
        steps: Sampling steps.
        guidance_scale: A number, or (first frame, last frame) for a ramp.
        guidance_scale_2: That of the second network, where there are two; the same if None.
        sampler: Name of a function of ``vdm.diffusion.samplers``.
        time_grid: Name of a function of ``vdm.diffusion.time_grids``.
        time_grid_args: Its arguments besides the number of steps and the schedule.
        negative_prompt: What guidance leads away from.
        prompt_suffix: Words behind every prompt.
        dynamic_guidance: Whether the scale varies over the steps, see
            :func:`vdm.diffusion.guidance.dynamic_cosine`.
        frames_first: Whether noise is drawn frame by frame, so that a seed gives what it gave where
            the model was published; otherwise channel by channel.
        pads_frames: Whether latent frames that do not fill whole tokens get more in front of them.
        decode_noise: Share of noise in the raw latents that are decoded, where the autoencoder is
            made to take it out again.
        guided_channels: Of how many channels of the latents guidance leads away, counted from the
            first: the others stay as they are with what is wanted. None for all.
        told_fps: The frame rate that the network is told of clips with ``fps``, where they are to
            be played at another than it was trained with; None for the same.
    """

    num_frames: int = 16
    fps: float = 8.0
    height: int = 64
    width: int = 64
    steps: int = 25
    guidance_scale: float | tuple[float, float] = 1.0
    guidance_scale_2: float | None = None
    sampler: str = "dpmpp_2m"
    time_grid: str = "uniform"
    time_grid_args: dict[str, float] = field(default_factory=dict)
    negative_prompt: str = ""
    prompt_suffix: str = ""
    dynamic_guidance: bool = False
    frames_first: bool = False
    pads_frames: bool = False
    decode_noise: float = 0.0
    told_fps: float | None = None
    guided_channels: int | None = None

    def rate_told(self, fps: float) -> float:
        """The frame rate that the network is told of a clip with this one."""
        return float(fps if self.told_fps is None or fps != self.fps else self.told_fps)


@dataclass(frozen=True)
class Envelope:
    """What a model was trained on; outside it the output is a guess.

    Args:
        num_frames: Fewest and most frames.
        fps: Lowest and highest frame rate.
        height: Smallest and largest height in pixels.
        width: Smallest and largest width in pixels.
    """

    num_frames: tuple[int, int] = (16, 16)
    fps: tuple[float, float] = (8.0, 8.0)
    height: tuple[int, int] = (64, 64)
    width: tuple[int, int] = (64, 64)

    def outside(self, **asked: float) -> list[str]:
        """One phrase for every quantity outside, e.g. ``num_frames=64 (trained on 16)``."""
        phrases = []
        for name, value in asked.items():
            low, high = getattr(self, name)
            if not low <= value <= high:
                trained = f"{low:g}" if low == high else f"{low:g} to {high:g}"
                phrases.append(f"{name}={value:g} (trained on {trained})")
        return phrases


def around(defaults: Defaults) -> Envelope:
    """What a model was trained on, as far as it is told: its own defaults."""
    num_frames, fps = defaults.num_frames, defaults.fps
    return Envelope(
        (num_frames, num_frames),
        (fps, fps),
        (defaults.height, defaults.height),
        (defaults.width, defaults.width),
    )


@dataclass
class Parts:
    """A model taken apart. Parts that it does not have are None.

    Args:
        name: What the model is called.
        network: Denoising network.
        text_encoder: From prompts to encoder states.
        autoencoder: Between video and latents; without one the network works on pixels.
        image_encoder: From pictures to tokens.
        schedule: Noise schedule.
        target: What the network predicts.
        preconditioning: How its input and output are scaled.
        given: How given latents, or a picture, are shown to the network: latents masked and without
            noise if None.
        defaults: What a call uses where the user says nothing.
        envelope: What the model was trained on.
        hashes: sha256 of the weight files, by part; empty where there are no files.
        system: Which published system it is; empty for models of our own.
        quantized: The format to which its weights were quantised; empty if they were not.
    """

    name: str
    network: nn.Module | None = None
    text_encoder: nn.Module | None = None
    autoencoder: nn.Module | None = None
    image_encoder: nn.Module | None = None
    schedule: Any = None
    target: Any = None
    preconditioning: Any = None
    given: Any = None
    defaults: Defaults = field(default_factory=Defaults)
    envelope: Envelope = field(default_factory=Envelope)
    hashes: dict[str, str] = field(default_factory=dict)
    system: str = ""
    quantized: str = ""

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The parts that hold weights, by name."""
        return {name: part for name in MODULES if (part := getattr(self, name)) is not None}

    def describe(self) -> dict[str, Any]:
        """Plain data from which :func:`parts_from` builds the same model, weights aside."""
        parts = {name: getattr(self, name) for name in MODULES + RULES}
        return {
            "name": self.name,
            "parts": {name: describe(part) for name, part in parts.items() if part is not None},
            "defaults": plain(self.defaults),
            "envelope": plain(self.envelope),
        }

    def config_hash(self) -> str:
        """sha256 of the description of the parts: equal for equal architectures and rules."""
        text = json.dumps(self.describe()["parts"], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def weight_hashes(self) -> dict[str, str]:
        """sha256 of the weights by part: of the file where there is one, else of the tensors."""
        return {
            name: self.hashes.get(name) or hash_module(part) for name, part in self.modules.items()
        }


def plain(record: Defaults | Envelope) -> dict[str, Any]:
    """A settings record as JSON types."""
    return json.loads(json.dumps(dataclasses.asdict(record)))


def settings_from(cls: type, data: dict[str, Any], where: str) -> Any:
    """A settings record from JSON types.

    Raises:
        ValueError: If a key is not one of the record's.
    """
    known = [item.name for item in fields(cls)]
    if surplus := sorted(set(data) - set(known)):
        raise ValueError(
            f"{where}: {cls.__name__.lower()} has no {', '.join(surplus)}; "
            f"it has: {', '.join(known)}"
        )
    pairs = {
        name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
    }
    return cls(**pairs)


def parts_from(data: dict[str, Any], where: str, on_meta: bool = False) -> Parts:
    """Build a described model; its weights are still random, the global random state is untouched.

    Args:
        data: What :meth:`Parts.describe` gives.
        where: The file it came from, for messages.
        on_meta: Build modules on the meta device, where tensors have shapes but no data; rules,
            which compute, are built as ever.

    Raises:
        ValueError: If a key, part, class or argument is unknown.
    """
    described = data.get("parts", {})
    if surplus := sorted(set(described) - set(MODULES + RULES)):
        raise ValueError(
            f"{where}: unknown part {', '.join(surplus)}; expected {', '.join(MODULES + RULES)}"
        )
    try:
        with torch.random.fork_rng(devices=[]):
            parts = {}
            for name, description in described.items():
                with torch.device("meta") if on_meta and name in MODULES else nullcontext():
                    parts[name] = build(description)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from error
    return Parts(
        name=data.get("name", "unnamed"),
        **parts,
        defaults=settings_from(Defaults, data.get("defaults", {}), where),
        envelope=settings_from(Envelope, data.get("envelope", {}), where),
    )


def hash_module(module: nn.Module) -> str:
    """sha256 over the names, types, shapes and bytes of a module's state."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        for part in plain_tensors(value):
            digest.update(
                part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
            )
    return digest.hexdigest()


def plain_tensors(value: Tensor) -> list[Tensor]:
    """The tensors that a weight is made of: itself, or numbers and scales of a quantised one."""
    if not hasattr(value, "__tensor_flatten__"):
        return [value]
    names, _ = value.__tensor_flatten__()
    return [getattr(value, name) for name in names]
