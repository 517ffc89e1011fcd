"""Single files of authors that hold a network: which it is, is seen by its keys."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from vdm.models import unet3d_presets as presets
from vdm.models.dual_stream_presets import hunyuan_video, open_sora_2
from vdm.pretrained.diffusers_files import open_state
from vdm.pretrained.diffusers_unet import LAVIE, LAVIE_UPSCALE, Family, entries, tables
from vdm.pretrained.keymap import Entry, ForeignWeights
from vdm.pretrained.loading import Reading, fill
from vdm.pretrained.original_cogvideox import MARK, build_cogvideox
from vdm.pretrained.original_dual_stream import (
    HUNYUAN_ORIGINAL,
    OPEN_SORA_ORIGINAL,
    DualStreamNames,
    dual_stream_entries,
)
from vdm.pretrained.original_unet import (
    MODELSCOPE_ORIGINAL,
    SVD_ORIGINAL,
    VIDEOCRAFTER_ORIGINAL,
    OriginalFamily,
    original_entries,
)
from vdm.pretrained.tensor_files import Renamed

UNET, COGVIDEOX = "model.diffusion_model.", "cogvideox"
GUEST = "attn_temp.to_q.weight"
RELATIVE = "relative_position_k.embeddings_table"
REFINER = "individual_token_refiner.blocks.0.self_attn_qkv.weight"
TOLD_GUIDANCE = "guidance_in.mlp.0.weight"
BIAS = "time_rel_pos_bias.relative_attention_bias.weight"

Make = Callable[[], nn.Module]


@dataclass(frozen=True)
class Known:
    """A published network.

    Args:
        make: Builds it.
        family: Whose names its weights have.
        marks: Ends of keys that no other network has all of.
        lacks: Ends of keys that it has none of.
    """

    make: Make
    family: OriginalFamily | Family | DualStreamNames
    marks: tuple[str, ...]
    lacks: tuple[str, ...] = ()


KNOWN = {
    "stable_video_diffusion": Known(
        presets.stable_video_diffusion,
        SVD_ORIGINAL,
        ("label_emb.0.0.weight", "time_pos_embed.0.weight"),
    ),
    "videocrafter2": Known(
        presets.videocrafter2,
        VIDEOCRAFTER_ORIGINAL,
        ("init_attn.0.norm.weight", "fps_embedding.0.weight", "temopral_conv.conv1.0.weight"),
        ("to_k_ip.weight",),
    ),
    "videocrafter1_image": Known(
        presets.videocrafter1_image,
        VIDEOCRAFTER_ORIGINAL,
        ("init_attn.0.norm.weight", "fps_embedding.0.weight", "to_k_ip.weight"),
    ),
    "videocrafter1_512": Known(
        presets.videocrafter1, VIDEOCRAFTER_ORIGINAL, (RELATIVE,), ("fps_embedding.0.weight",)
    ),
    "videocrafter1_1024": Known(
        partial(presets.videocrafter1, scalars=["fps"]),
        VIDEOCRAFTER_ORIGINAL,
        (RELATIVE, "fps_embedding.0.weight"),
    ),
    "modelscope": Known(presets.modelscope, MODELSCOPE_ORIGINAL, ("input_blocks.0.1.norm.weight",)),
    "lavie": Known(presets.lavie, LAVIE, (GUEST, BIAS)),
    "lavie_interpolation": Known(presets.lavie_interpolation, LAVIE, (GUEST,), (BIAS,)),
    "lavie_upscale": Known(
        presets.lavie_upscale, LAVIE_UPSCALE, ("attn_temporal.to_q.weight", "shift_conv.weight")
    ),
    "hunyuan_video": Known(hunyuan_video, HUNYUAN_ORIGINAL, (REFINER, TOLD_GUIDANCE)),
    "hunyuan_video_image": Known(
        partial(hunyuan_video, "i2v-concat"), HUNYUAN_ORIGINAL, (REFINER,), (TOLD_GUIDANCE,)
    ),
    "open_sora_2": Known(
        open_sora_2, OPEN_SORA_ORIGINAL, ("double_blocks.0.img_attn.q_proj.weight", "cond_in.bias")
    ),
}


def recognize(keys: Iterable[str], where: str) -> str:
    """The name of the network that keys belong to.

    Raises:
        ValueError: If it is none of those that are known.
    """
    names = list(keys)

    def has(mark: str) -> bool:
        return any(name.endswith(mark) for name in names)

    if MARK in names:
        return COGVIDEOX
    for name, known in KNOWN.items():
        if all(has(mark) for mark in known.marks) and not any(has(mark) for mark in known.lacks):
            return name
    expected = ", ".join((*KNOWN, COGVIDEOX))
    raise ValueError(f"{where}: got a file of no known network, expected one of {expected}")


def load_original_network(
    path: Path,
    make: Make | None = None,
    how: Reading = Reading(),  # noqa: B008 (frozen)
    expected: str | None = None,
) -> nn.Module:
    """The network of a single file, in eval mode.

    Args:
        path: Of the authors: Stable Video Diffusion, ModelScope, VideoCrafter 1 and 2, LaVie,
            CogVideoX, HunyuanVideo, Open-Sora 2.0. Of HunyuanVideo's network that takes a picture
            for the first frame the file looks like that of the network for words: ``make`` tells.
        make: Builds the network, if it has another size than the published one.
        how: How weights are read; a plan of a network of which ``make`` is known needs no file.
        expected: Which network it has to be; any that is known if None.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or of no such network, or a key, a shape or a value is not as
            it has to be.
    """
    if how.is_plan and make is not None:
        with torch.device("meta"):
            return make().eval()
    theirs, kind = open_network(path)
    if expected not in (None, kind):
        raise ValueError(f"{path}: got the network of {kind}, expected that of {expected}")
    return build_network(theirs, kind, path, make, how)


def open_network(path: Path) -> tuple[Mapping[str, Tensor], str]:
    """The network's tensors in a single file by their names there, and which network it is.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or of no known network.
    """
    return network_in(open_state(path), path)


def network_in(state: Mapping[str, Tensor], path: Path) -> tuple[Mapping[str, Tensor], str]:
    """The same, of a file that is open already."""
    theirs = without_prefix(state)
    return theirs, recognize(theirs, str(path))


def without_prefix(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The network's tensors in a file, of whole models too, by names without what is before."""
    inside = {key.split(UNET)[1]: key for key in state if UNET in key}
    return Renamed(state, inside) if inside else state


def build_network(
    theirs: Mapping[str, Tensor],
    kind: str,
    path: Path,
    make: Make | None = None,
    how: Reading = Reading(),  # noqa: B008 (frozen)
) -> nn.Module:
    """A network of its authors' tensors, in eval mode.

    Args:
        theirs: The tensors.
        kind: Which network.
        path: The file they come from, for messages.
        make: Builds the network, if it has another size than the published one.
        how: How weights are read.

    Raises:
        ValueError: If a key, a shape or a value is not as it has to be.
    """
    if kind == COGVIDEOX:
        return build_cogvideox(theirs, path, how)
    known = KNOWN[kind]
    with torch.device("meta"):
        network = (make or known.make)()
    places: list[Entry]
    if how.is_plan:
        return network.eval()
    if isinstance(known.family, DualStreamNames):
        places = dual_stream_entries(network, known.family)  # type: ignore[arg-type]
    elif isinstance(known.family, Family):
        places = entries(network, known.family)  # type: ignore[arg-type]
    else:
        places = original_entries(network, known.family, theirs)  # type: ignore[arg-type]
    read = ForeignWeights(theirs, places, tables(theirs), str(path))
    fill(network, read, str(path), how.dtype)
    return network
