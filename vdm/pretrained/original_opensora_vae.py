"""The VAE of Open-Sora 1.2 in its authors' folder: settings of both stages, weights of both."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vdm.autoencoder.causal_vae import CausalVAE
from vdm.autoencoder.image_vae import ImageVAE
from vdm.autoencoder.latents import Factor, Standard
from vdm.autoencoder.opensora_vae import LatentTimeDesign, TwoStageVAE
from vdm.pretrained.diffusers_files import CONFIG, open_weights, read_config
from vdm.pretrained.diffusers_settings import ForeignConfig, reading_settings
from vdm.pretrained.diffusers_vae import modern_names, vae_entries
from vdm.pretrained.keymap import Entry, ForeignWeights
from vdm.pretrained.loading import Reading, fill
from vdm.pretrained.tensor_files import Renamed

KIND = "VideoAutoencoderPipeline"
IMAGE, TIME = "spatial_vae.module.", "temporal_vae."
SCALE, SHIFT = "scale", "shift"
FACTOR = 0.18215
"""What latents of the image VAE are multiplied by, whatever its own settings say."""
WIDTHS, HALVES = (128, 256, 256, 512), (False, True, True)
"""Of the published VAE's levels over time: channels, and whether frames are fewer after them."""

OUTSIDE = {
    "encoder.embed": "encoder.conv_in.conv",
    "encoder.out.norm": "encoder.norm1",
    "encoder.out.conv": "encoder.conv2.conv",
    "to_moments": "quant_conv.conv",
    "from_latents": "post_quant_conv.conv",
    "decoder.embed": "decoder.conv1.conv",
    "decoder.out.norm": "decoder.norm1",
    "decoder.out.conv": "decoder.conv_out.conv",
}
IN_BLOCK = {
    "first.norm": "norm1",
    "first.conv": "conv1.conv",
    "second.norm": "norm2",
    "second.conv": "conv2.conv",
    "shortcut": "conv3.conv",
}


def is_opensora_vae(config: Mapping[str, Any]) -> bool:
    """Whether settings are those of this VAE."""
    return config.get("model_type") == KIND


def load_opensora_vae(
    folder: Path,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> TwoStageVAE:
    """The VAE of a folder, in eval mode.

    Its settings do not say how large it is: that is seen by its weights. A plan needs none, and is
    then of the published size.

    Args:
        folder: Holds ``config.json`` and the weights.
        how: How weights are read.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a setting, a key, a shape or a value is not as it has to be.
    """
    said, where = str(folder / CONFIG), str(folder)
    with reading_settings(said):
        scale, piece = _settings(read_config(folder), said)
    try:
        found = open_weights(folder, how.variant)
    except FileNotFoundError:
        if not how.is_plan:
            raise
        with torch.device("meta"):
            return TwoStageVAE(ImageVAE(scale=FACTOR), _time_of(WIDTHS, 4, HALVES), scale, piece)
    state = Renamed(found, {name: key for key, name in modern_names(found).items()})
    for key, values in ((SCALE, scale.std), (SHIFT, scale.mean)):
        table = state[key].flatten() if key in state else torch.empty(0)
        if table.shape != (len(values),) or not torch.allclose(
            table.float(), torch.tensor(values), atol=4e-3
        ):
            raise ValueError(f"{where}: {key} holds other numbers than {said}: {list(values)}")
    with torch.device("meta"), reading_settings(where):
        vae = vae_of(state, scale, piece)
    if how.is_plan:
        return vae.eval()
    read = ForeignWeights(state, opensora_vae_entries(vae), (SCALE, SHIFT), where)
    fill(vae, read, where, how.dtype)
    return vae


def vae_of(state: Mapping[str, Tensor], scale: Standard, frames_per_piece: int) -> TwoStageVAE:
    """A VAE as large as weights say, which it does not have yet.

    Args:
        state: Weights by their keys.
        scale: Of its latents.
        frames_per_piece: Frames that it takes at a time.

    Raises:
        ValueError: If levels or blocks are missing.
    """
    return TwoStageVAE(_image(state), _time(state), scale, frames_per_piece)


def _settings(data: Mapping[str, Any], said: str) -> tuple[Standard, int]:
    """Scale of the latents, and frames of a piece."""
    config = ForeignConfig(data, said)
    config.expect(model_type=KIND, cal_loss=False)
    for name in ("architectures", "torch_dtype", "transformers_version", "from_pretrained"):
        config.take(name, None)  # of files
    config.take("freeze_vae_2d", False)  # of training
    for name, kind in (("vae_2d", "VideoAutoencoderKL"), ("vae_temporal", "VAE_Temporal_SD")):
        part = ForeignConfig(config.take(name, {}), f"{said}: {name}")
        part.expect(type=kind)
        for file in ("from_pretrained", "subfolder", "micro_batch_size", "local_files_only"):
            part.take(file, None)  # of files, and of memory
        part.close()
    piece = config.take("micro_frame_size", None)
    if not isinstance(piece, int):
        raise ValueError(f"got micro_frame_size={piece!r}, expected frames of a piece, e.g. 17")
    scale = Standard(tuple(config.take(SHIFT, ())), tuple(config.take(SCALE, ())))
    config.close()
    return scale, piece


def _rows(state: Mapping[str, Tensor], pattern: str) -> list[int]:
    """Rows of the tensors whose keys have a number in the place of a group, in its order."""
    found = {
        int(match[1]): state[key].shape[0] for key in state if (match := re.fullmatch(pattern, key))
    }
    if sorted(found) != list(range(len(found))) or not found:
        raise ValueError(
            f"got {len(found)} tensors {pattern}, expected one for each level or block"
        )
    return [found[number] for number in sorted(found)]


def _image(state: Mapping[str, Tensor]) -> ImageVAE:
    down = rf"{re.escape(IMAGE)}encoder\.down_blocks"
    widths = _rows(state, rf"{down}\.(\d+)\.resnets\.0\.conv1\.weight")
    depth = len(_rows(state, rf"{down}\.0\.resnets\.(\d+)\.conv1\.weight"))
    return ImageVAE(widths=tuple(widths), depth=depth, scale=FACTOR)


def _time(state: Mapping[str, Tensor]) -> CausalVAE:
    encoder = rf"{re.escape(TIME)}encoder"
    widths = _rows(state, rf"{encoder}\.block_res_blocks\.(\d+)\.0\.conv1\.conv\.weight")
    depth = len(_rows(state, rf"{encoder}\.block_res_blocks\.0\.(\d+)\.conv1\.conv\.weight"))
    halves = [
        f"{TIME}encoder.conv_blocks.{level}.conv.weight" in state
        for level in range(len(widths) - 1)
    ]
    return _time_of(tuple(widths), depth, tuple(halves))


def _time_of(widths: tuple[int, ...], depth: int, halves: tuple[bool, ...]) -> CausalVAE:
    design = LatentTimeDesign(num_middle=depth)
    return CausalVAE(design, Factor(1.0), 4, widths, depth, depth, halves, halves[::-1])


def opensora_vae_entries(vae: TwoStageVAE) -> list[Entry]:
    """Where every weight lies in the authors' file."""
    image = [
        Entry(IMAGE + entry.theirs, tuple(f"image.{key}" for key in entry.ours))
        for entry in vae_entries(vae.image)
    ]
    levels = len(vae.time.decoder.levels)
    time = [
        Entry(f"{TIME}{_named(stem, levels)}.{kind}", (f"time.{key}",))
        for key in vae.time.state_dict()
        for stem, _, kind in [key.rpartition(".")]
    ]
    return image + time


def _named(stem: str, levels: int) -> str:
    if stem in OUTSIDE:
        return OUTSIDE[stem]
    half, _, rest = stem.partition(".")
    if found := re.fullmatch(r"middle\.(\d+)\.(.+)", rest):
        return f"{half}.res_blocks.{found[1]}.{IN_BLOCK[found[2]]}"
    if not (found := re.fullmatch(r"levels\.(\d+)\.(?:blocks\.(\d+)\.)?(.+)", rest)):
        raise ValueError(f"got a VAE with {stem}, for which its authors have no name")
    # Levels are counted from the finest both ways, and changes of the frame rate from there, too.
    level = int(found[1]) if half == "encoder" else levels - 1 - int(found[1])
    if found[2] is None:
        return f"{half}.conv_blocks.{level if half == 'encoder' else level - 1}.conv"
    return f"{half}.block_res_blocks.{level}.{found[2]}.{IN_BLOCK[found[3]]}"
