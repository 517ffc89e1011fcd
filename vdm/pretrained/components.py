"""Single parts of a model: network, autoencoder, sampling rules; and the way back to files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vdm.autoencoder.causal_vae import ChunkedVAE
from vdm.autoencoder.image_vae import ImageVAE
from vdm.models.dit import VideoDiT
from vdm.models.dual_stream_dit import DualStreamDiT
from vdm.models.joint_dit import JointDiT
from vdm.models.unet3d import UNet3D
from vdm.pretrained.checkpoints import Weights, is_of_a_run, parts_of_checkpoint
from vdm.pretrained.diffusers_dit import load_dit, save_dit
from vdm.pretrained.diffusers_dit_config import is_dit
from vdm.pretrained.diffusers_export import save_pipeline
from vdm.pretrained.diffusers_files import (
    CONFIG,
    open_state,
    open_weights,
    read_config,
    tensors_in,
)
from vdm.pretrained.diffusers_folder import load_unet, load_vae, save_unet, save_vae
from vdm.pretrained.diffusers_scheduler import (
    SCHEDULER_CONFIG,
    SamplingRules,
    read_rules,
    rules_of,
)
from vdm.pretrained.layout import CARD, read_folder, write_folder
from vdm.pretrained.loading import Reading, read_pickled
from vdm.pretrained.original_causal_vae import is_causal_vae, load_original_vae
from vdm.pretrained.original_ltx import is_ltx, read_ltx_network, read_ltx_vae
from vdm.pretrained.original_network import build_network, network_in, without_prefix
from vdm.pretrained.original_opensora_vae import is_opensora_vae, load_opensora_vae
from vdm.pretrained.original_stdit import is_stdit, is_stdit3, load_stdit, load_stdit3
from vdm.pretrained.original_wan import CLASS, is_original_wan, load_original_wan
from vdm.pretrained.parts import MODULES, RULES, Parts
from vdm.pretrained.sources import locate, read
from vdm.pretrained.tensor_files import TensorFiles
from vdm.utils.config import describe


def load_network(
    folder: str | Path, *, variant: str | None = None, dtype: str | torch.dtype | None = None
) -> nn.Module:
    """The denoising network of a model, in eval mode.

    Args:
        folder: A model, a component folder of diffusers, or the single file of a network's authors.
        variant: Which weights of a folder of diffusers, e.g. ``fp16``.
        dtype: Convert weights to this type as they are read; as they are stored if None.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the model has none, or a key is missing, surplus or of another shape.
    """
    path, how = locate(folder), Reading(variant, parse_dtype(dtype))
    if (path / CONFIG).is_file():
        config = read_config(path)
        if config.get("_class_name") == CLASS:
            return load_original_wan(open_weights(path, variant), path, how=how)
        if is_stdit3(config):
            return load_stdit3(path, how)
        return (load_dit if is_dit(config) else load_unet)(path, how=how)
    if path.suffix == ".pth" and is_stdit(open_state(path)):
        return load_stdit(path, how)[0]
    if path.suffix in (".pt", ".pth", ".bin"):
        return _original(open_state(path), path, how)
    if path.suffix == ".safetensors" and path.is_file():
        files = TensorFiles([path])
        if is_ltx(files):
            return read_ltx_network(path, files, how)
        if not any(key.startswith(("ema.", "raw.")) for key in files):
            return _original(files, path, how)
    if path.suffix == ".ckpt" and path.is_file():
        data = read_pickled(path)
        if not is_of_a_run(data):
            return _original(tensors_in(data), path, how)
        return _present(parts_of_checkpoint(data, path, "ema", how), "network", folder)
    return _part(folder, "network", how)


def _original(state: Mapping[str, Tensor], path: Path, how: Reading) -> nn.Module:
    """The network in a file of its authors."""
    theirs = without_prefix(state)
    if is_original_wan(theirs):
        return load_original_wan(theirs, path, how=how)
    return build_network(*network_in(theirs, path), path, how=how)


def load_autoencoder(
    folder: str | Path, *, variant: str | None = None, dtype: str | torch.dtype | None = None
) -> nn.Module:
    """The autoencoder of a model, in eval mode.

    Args:
        folder: A model, a component folder of diffusers, or the single file of a causal VAE's
            authors.
        variant: Which weights of a folder of diffusers, e.g. ``fp16``.
        dtype: Convert weights to this type as they are read; as they are stored if None.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the model has none, or a key is missing, surplus or of another shape.
    """
    path, how = locate(folder), Reading(variant, parse_dtype(dtype))
    if (path / CONFIG).is_file():
        is_two_stage = is_opensora_vae(read_config(path))
        return load_opensora_vae(path, how) if is_two_stage else load_vae(path, how)
    if path.suffix == ".safetensors" and path.is_file():
        files = TensorFiles([path])
        if is_ltx(files):
            return read_ltx_vae(path, files, how)
        if is_causal_vae(files):
            return load_original_vae(path, how)
    if path.suffix in (".pt", ".pth"):
        return load_original_vae(path, how)
    return _part(folder, "autoencoder", how)


def load_schedule(folder: str | Path) -> SamplingRules:
    """The schedule, target and preconditioning of a model, and its published time grid and sampler.

    Args:
        folder: A model, or the scheduler of one in diffusers' layout.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If the model has no schedule, or a setting asks for what ours cannot do.
    """
    path = locate(folder)
    if (path / SCHEDULER_CONFIG).is_file():
        return read_rules(path)
    parts = _read(folder, (), Reading(is_plan=True))
    if parts.schedule is None:
        raise ValueError(f"{folder}: the model has no schedule")
    return rules_of(parts)


def export(
    source: Any,
    folder: str | Path,
    layout: str = "diffusers",
    *,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write a generator, a model or one part of it to a folder that loads back bit for bit.

    Args:
        source: A ``Generator``, a ``Cascade``, :class:`Parts`, or one module.
        folder: Made if need be.
        layout: ``vdm``, or ``diffusers`` for models that diffusers has a class for.
        dtype: Store floating-point weights in this type; as they are if None.

    Returns:
        The folder.

    Raises:
        ValueError: If the layout is unknown or cannot hold this model.
    """
    if hasattr(source, "stages"):  # a cascade knows where its models go
        if layout != "vdm":
            raise ValueError(f"got layout={layout!r} for a cascade, expected 'vdm'")
        return source.save(folder, dtype)
    parts = getattr(source, "parts", source)
    if layout == "diffusers" and isinstance(parts, UNet3D):
        return save_unet(parts, folder, dtype)
    if layout == "diffusers" and isinstance(parts, DualStreamDiT | JointDiT | VideoDiT):
        return save_dit(parts, folder, dtype)
    if layout == "diffusers" and isinstance(parts, ImageVAE | ChunkedVAE):
        return save_vae(parts, folder, dtype)
    if isinstance(parts, nn.Module):
        module, parts = parts, Parts(name=type(parts).__name__)
        setattr(parts, _role(module), module)
    if layout == "diffusers":
        return save_pipeline(parts, Path(folder), dtype)
    if layout != "vdm":
        raise ValueError(f"got layout={layout!r}, expected 'vdm' or 'diffusers'")
    return write_folder(parts, Path(folder), dtype)


def convert(
    source: str | Path,
    destination: str | Path,
    layout: str = "vdm",
    dtype: str | torch.dtype | None = None,
    weights: Weights = "ema",
    autoencoder: str | Path | None = None,
    *,
    motion: str | Path | None = None,
    variant: str | None = None,
) -> Path:
    """Rewrite a stored model in another layout or number format.

    Args:
        source: Anything that :func:`vdm.load` takes.
        destination: Folder to write; must not hold a model yet.
        layout: ``vdm``, or ``diffusers`` for models that diffusers has a class for.
        dtype: Store floating-point weights in this type, e.g. ``float16``; as they are if None.
        weights: Which weights of a training run.
        autoencoder: Model whose autoencoder replaces that of the source; it must make the same
            latents, as one does whose decoder alone was trained on.
        motion: A motion adapter, for an image model.
        variant: Which weights of a folder of diffusers, e.g. ``fp16``.

    Returns:
        The destination.

    Raises:
        ValueError: If the destination holds a model, the source cannot be read or written so, or
            the other autoencoder makes other latents.
    """
    destination = Path(destination)
    if (destination / CARD).exists():
        raise ValueError(f"{destination} already holds a model; expected a new folder")
    parts = read(source, weights, motion, how=Reading(variant))
    if autoencoder is not None:
        other = read(autoencoder, weights).autoencoder
        if not _same_latents(parts.autoencoder, other):
            raise ValueError(f"got {autoencoder}, expected an autoencoder of the same latents")
        parts.autoencoder = other
    return export(parts, destination, layout, dtype=parse_dtype(dtype))


def _same_latents(one: nn.Module | None, other: nn.Module | None) -> bool:
    """Whether two autoencoders differ in nothing but their decoders."""
    if one is None or other is None or describe(one) != describe(other):
        return False
    states = [
        {key: value for key, value in part.state_dict().items() if not key.startswith("decoder.")}
        for part in (one, other)
    ]
    return states[0].keys() == states[1].keys() and all(
        torch.equal(value, states[1][key]) for key, value in states[0].items()
    )


def parse_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """A floating-point type by name.

    Raises:
        ValueError: If it is no floating-point type.
    """
    if dtype is None or isinstance(dtype, torch.dtype):
        found = dtype
    else:
        found = getattr(torch, dtype.removeprefix("torch."), None)
    names = ("float32", "float16", "bfloat16", "float64")
    if dtype is not None and found not in [getattr(torch, name) for name in names]:
        raise ValueError(
            f"got dtype={str(dtype).removeprefix('torch.')!r}, expected one of {', '.join(names)}"
        )
    return found


def _part(source: str | Path, name: str, how: Reading) -> nn.Module:
    return _present(_read(source, (name,), how), name, source)


def _present(parts: Parts, name: str, source: str | Path) -> nn.Module:
    part = getattr(parts, name)
    if part is None:
        raise ValueError(f"{source}: the model has no {name}")
    return part


def _read(source: str | Path, modules: tuple[str, ...], how: Reading) -> Parts:
    """A model with no other modules than these, where the layout allows to read them alone."""
    path = locate(source)
    if (path / CARD).is_file():
        return read_folder(path, (*modules, *RULES), how)
    return read(path, how=how)


def _role(module: nn.Module) -> str:
    """Which part of a model a module is: encoders of video decode too, encoders of text do not."""
    network, text_encoder, autoencoder, image_encoder = MODULES
    if hasattr(module, "decode"):
        return autoencoder
    if hasattr(module, "encode_image"):
        return image_encoder
    return text_encoder if hasattr(module, "encode") else network
