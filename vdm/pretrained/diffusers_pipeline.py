"""Whole models in diffusers' layout: ``model_index.json`` and a folder for every part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from vdm.conditioning.likeness import Likeness
from vdm.conditioning.picture import Picture
from vdm.pretrained.diffusers_control import Control, steer
from vdm.pretrained.diffusers_dit_pipeline import DIT_PIPELINES, read_dit_pipeline
from vdm.pretrained.diffusers_files import CONFIG, read_config
from vdm.pretrained.diffusers_folder import (
    load_clip_image,
    load_clip_pair,
    load_clip_text,
    load_unet,
    load_vae,
)
from vdm.pretrained.diffusers_hunyuan_pipeline import HUNYUAN_PIPELINES, read_hunyuan_pipeline
from vdm.pretrained.diffusers_scheduler import SamplingRules, read_rules, rules_from_config
from vdm.pretrained.diffusers_wan_pipeline import WAN_PIPELINES, read_wan_pipeline
from vdm.pretrained.hub import fetch, is_hub_id
from vdm.pretrained.loading import Reading
from vdm.pretrained.lora import Lora, read_loras
from vdm.pretrained.parts import Defaults, Parts, around

INDEX = "model_index.json"
IMAGE, SVD = "StableDiffusionPipeline", "StableVideoDiffusionPipeline"
MODELSCOPE, ANIMATEDIFF = "TextToVideoSDPipeline", "AnimateDiffPipeline"
ANIMATELCM = "AnimateDiffPipeline with LCMScheduler"
SPARSECTRL = "AnimateDiffSparseControlNetPipeline"
PIA = "PIAPipeline"
IMAGE_XL, ANIMATEDIFF_XL = "StableDiffusionXLPipeline", "AnimateDiffSDXLPipeline"
DEFAULTS = {
    SVD: Defaults(14, 7.0, 576, 1024, 25, (1.0, 3.0)),
    MODELSCOPE: Defaults(16, 8.0, 256, 256, 50, 9.0),
    ANIMATEDIFF: Defaults(16, 8.0, 512, 512, 50, 7.5),
    ANIMATELCM: Defaults(16, 8.0, 512, 512, 4, 1.5),
    SPARSECTRL: Defaults(16, 8.0, 512, 512, 50, 7.5),
    PIA: Defaults(16, 8.0, 512, 512, 50, 7.5),
    IMAGE: Defaults(1, 8.0, 512, 512, 50, 7.5),
    ANIMATEDIFF_XL: Defaults(16, 8.0, 1024, 1024, 50, 5.0),
    IMAGE_XL: Defaults(1, 8.0, 1024, 1024, 50, 5.0),
}
"""What is published for each kind of model."""

KINDS = (SVD, MODELSCOPE, ANIMATEDIFF, SPARSECTRL, PIA, ANIMATEDIFF_XL, IMAGE, IMAGE_XL)
TRANSFORMERS = dict.fromkeys(DIT_PIPELINES, read_dit_pipeline)
TRANSFORMERS |= dict.fromkeys(WAN_PIPELINES, read_wan_pipeline)
TRANSFORMERS |= dict.fromkeys(HUNYUAN_PIPELINES, read_hunyuan_pipeline)
"""What reads a model whose network is a transformer, by its class."""

SYSTEMS = {
    SVD: "Stable Video Diffusion",
    MODELSCOPE: "ModelScope text-to-video",
    ANIMATEDIFF: "AnimateDiff",
    ANIMATELCM: "AnimateLCM",
    SPARSECTRL: "AnimateDiff with SparseCtrl",
    ANIMATEDIFF_XL: "AnimateDiff SDXL",
    PIA: "PIA",
}
"""As their certificates call them."""

ANIMATEDIFF_SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
    "clip_sample": False,
    "timestep_spacing": "linspace",
    "steps_offset": 1,
}
"""How motion modules were trained and are sampled, whatever the image model says."""

LCM_SCHEDULER = {
    "_class_name": "LCMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "linear",
}
LCM_STEPS = {"diffusers": 50, "original": 100}
"""Entries of the table among which AnimateLCM's few steps are chosen, by profile."""

UNREAD = ("safety_checker", "feature_extractor", "motion_adapter")
"""Parts that are not needed: frames are not judged, and a network holds its motion modules."""
READ = {"unet", "vae", "scheduler"}
STEERING = {"controlnet"}
PAIR = {"text_encoder_2", "tokenizer_2"}
WORDS, PICTURES = {"text_encoder", "tokenizer"}, {"image_encoder"}


def is_pipeline(path: Path) -> bool:
    """Whether a folder holds a whole model in diffusers' layout."""
    return (path / INDEX).is_file()


def read_pipeline(
    folder: Path,
    motion: str | Path | None = None,
    profile: str = "diffusers",
    lora: Lora | None = None,
    control: Control | None = None,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> Parts:
    """A model from its folder.

    Args:
        folder: Holds ``model_index.json``.
        motion: A motion adapter, for an image model: a folder, its authors' file, or a name on the
            hub. One that is called AnimateLCM, as its authors call it, is sampled in few steps.
        profile: Whose numerics, where references disagree.
        lora: Low-rank changes of the network and the text encoder.
        control: SparseCtrl, for a network with motion modules.
        how: How weights are read.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If it is of an unknown kind, or a part is not as it has to be.
    """
    index, where = read_config(folder, INDEX), folder / INDEX
    kind = str(index.get("_class_name"))
    if kind in TRANSFORMERS and motion is None:
        for argument, value in {"lora": lora, "control": control}.items():
            if value is not None:
                raise ValueError(f"got {argument} for {kind}, expected a model with a U-Net")
        return TRANSFORMERS[kind](folder, how)
    if kind not in KINDS:
        known = ", ".join((*KINDS, *TRANSFORMERS))
        raise ValueError(f"{where}: got class {kind}, expected one of {known}")
    needed = _check_parts(index, kind, where)
    if kind in (IMAGE, IMAGE_XL) and motion is not None:
        kind = ANIMATEDIFF if kind == IMAGE else ANIMATEDIFF_XL
        rules = rules_from_config(_scheduler_of(motion, profile))
    else:
        rules = read_rules(folder / "scheduler")
    if kind == SPARSECTRL and control is None:
        control = folder / "controlnet"
    if kind == ANIMATEDIFF and rules.sampler == "latent_consistency":
        kind = ANIMATELCM
    if motion is not None and is_hub_id(motion):
        motion = fetch(str(motion), replace(how, variant=None))
    loras = read_loras(lora)
    network = load_unet(folder / "unet", motion, profile, loras, how)
    autoencoder = load_vae(folder / "vae", how)
    settings = read_config(folder / "unet", CONFIG)
    modules: dict[str, nn.Module] = {"network": network, "autoencoder": autoencoder}
    given: Any = Likeness() if network.frame_conditioning is True else None
    if kind == PIA and given is None:
        raise ValueError(f"{folder / 'unet'}: got in_channels=4, expected 9 for {PIA}")
    kind = PIA if given is not None else kind
    more: dict[str, Any] = {}
    if control is not None:
        if kind not in (ANIMATEDIFF, ANIMATELCM, SPARSECTRL):
            raise ValueError(f"got control for {kind}, expected a model with motion modules")
        kind = SPARSECTRL if kind == ANIMATEDIFF else kind
        modules["network"], given = steer(network, control)
    for one in loras:
        one.check(needed)
    sides = _sides(settings, folder / "unet" / CONFIG)
    if kind == SVD:
        modules["image_encoder"] = load_clip_image(folder / "image_encoder", how)
        given, more = Picture(), {"num_frames": _count(settings, folder / "unet" / CONFIG)}
    elif kind in (IMAGE_XL, ANIMATEDIFF_XL):
        is_silent = bool(index.get("force_zeros_for_empty_prompt", True))
        modules["text_encoder"] = load_clip_pair(folder, is_silent, loras, how)
    else:
        words = folder / "tokenizer"
        modules["text_encoder"] = load_clip_text(folder / "text_encoder", words, loras, how)
    published = _sized(DEFAULTS[kind], sides, autoencoder.strides[1])
    name, system = folder.resolve().name, SYSTEMS.get(kind, "")
    return complete(name, modules, rules, published, given=given, system=system, **more)


def _check_parts(index: Mapping[str, Any], kind: str, where: Path) -> set[str]:
    """Parts that a kind of model needs, all of which are there.

    Raises:
        ValueError: If one is missing, or there is one that nothing reads.
    """
    needed = READ | (PICTURES if kind == SVD else WORDS)
    needed |= STEERING if kind == SPARSECTRL else set()
    needed |= PAIR if kind in (IMAGE_XL, ANIMATEDIFF_XL) else set()
    parts = {name for name, value in index.items() if isinstance(value, list) and any(value)}
    if surplus := sorted(parts - needed - WORDS - PICTURES - set(UNREAD)):
        raise ValueError(f"{where}: got a part {surplus[0]}, expected {', '.join(sorted(needed))}")
    if missing := sorted(needed - parts):
        raise ValueError(f"{where}: has no {missing[0]}")
    return needed


def _scheduler_of(motion: str | Path, profile: str) -> dict[str, Any]:
    """How an image model is sampled with a motion adapter."""
    if "animatelcm" not in Path(motion).name.lower():
        return ANIMATEDIFF_SCHEDULER
    return LCM_SCHEDULER | {"original_inference_steps": LCM_STEPS.get(profile, 50)}


def complete(
    name: str,
    modules: Mapping[str, nn.Module],
    rules: SamplingRules,
    published: Defaults,
    given: Any = None,
    system: str = "",
    **changes: Any,
) -> Parts:
    """A model of its modules, with the settings that it was published with.

    Args:
        name: What it is called.
        modules: Its modules by part.
        rules: How the network's output becomes a sample.
        published: Its settings, those of sampling aside.
        given: How pictures are shown to the network.
        system: Which published system it is.
        changes: Settings that are others here.
    """
    defaults = replace(
        published,
        sampler=rules.sampler,
        time_grid=rules.time_grid,
        time_grid_args=rules.time_grid_args,
        **changes,
    )
    parts = Parts(
        name=name,
        schedule=rules.schedule,
        target=rules.target,
        preconditioning=rules.preconditioning,
        given=given,
        defaults=defaults,
        envelope=around(defaults),
        system=system,
    )
    for part, module in modules.items():
        setattr(parts, part, module)
    return parts


def _sides(settings: Mapping[str, Any], where: Path) -> tuple[int, int] | None:
    """Height and width of the latents that the network was trained on, if they are told."""
    said = settings.get("sample_size")
    if said is None:
        return None
    sides = said if isinstance(said, list) else [said, said]
    if len(sides) != 2 or any(type(side) is not int or side < 1 for side in sides):
        raise ValueError(f"{where}: got sample_size={said!r}, expected one whole number or two")
    return sides[0], sides[1]


def _count(settings: Mapping[str, Any], where: Path) -> int:
    """Frames that the network was trained on."""
    said = settings.get("num_frames", 25)
    if type(said) is not int or said < 1:
        raise ValueError(f"{where}: got num_frames={said!r}, expected a whole number from 1")
    return said


def _sized(published: Defaults, sides: tuple[int, int] | None, side: int) -> Defaults:
    """Published settings, in the size that the network was trained on if that is told."""
    if sides is None:
        return published
    height, width = sides
    return replace(published, height=height * side, width=width * side)
