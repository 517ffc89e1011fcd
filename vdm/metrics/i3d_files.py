"""I3D out of the files that others score with: each is another extractor, with an id of its own.

StyleGAN-V's ``i3d_torchscript.pt`` is a program, which gives the same logits; the
``i3d_pretrained_400.pt`` of VideoGPT, TATS and the content-debiased FVD holds weights for the same
network in the names of pytorch-i3d.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vdm.metrics.i3d import EPS, EXTRACTOR, I3D, NUM_CLASSES, WEIGHTS, layer_names, load_i3d
from vdm.metrics.weights_file import WeightsFile, reading

BRANCHES = {"0.0": ".b0", "1.0": ".b1a", "1.1": ".b1b", "2.0": ".b2a", "2.1": ".b2b", "3.1": ".b3b"}
"""Layers of a mixed block: ours, and those of pytorch-i3d."""
NORM = ("weight", "bias", "running_mean", "running_var")


class Scripted(nn.Module):
    """StyleGAN-V's program, asked for the logits of frames that are resized already.

    Args:
        program: What ``torch.jit.load`` gives.
    """

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, video: Float[Tensor, "b 3 t 224 224"]) -> Float[Tensor, "b 400"]:
        """Logits of the 400 classes, averaged over time.

        Args:
            video: Frames in [-1, 1].

        Raises:
            ValueError: If the program answers something else.
        """
        found = self.program(video, rescale=False, resize=False, return_features=True)
        if found.shape != (len(video), NUM_CLASSES):
            expected = (len(video), NUM_CLASSES)
            raise ValueError(f"got {tuple(found.shape)} from the program, expected {expected}")
        return found


def find_i3d(source: str | Path | None = None) -> tuple[nn.Module, str]:
    """A network that gives 400 logits, and what protocol ids call it.

    Args:
        source: File of one of three kinds, see :meth:`WeightsFile.of`; the one in the installed
            package if None.

    Raises:
        FileNotFoundError: If there is no file of that name.
        ImportError: If none is named and the package is not installed.
        ValueError: If the file is of no kind that is known.
    """
    if source is None:
        return load_i3d(), EXTRACTOR
    file = WeightsFile.of(source)
    if file.sha256 == WEIGHTS.sha256:
        return load_i3d(file.path), EXTRACTOR
    problem = (
        f"{file.path}: neither the file of {WEIGHTS.requirement}, nor StyleGAN-V's program, nor "
        "weights of pytorch-i3d"
    )
    with reading(problem, "fvd"):
        if _is_program(file.path):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # the format is given
                program = torch.jit.load(str(file.path), map_location="cpu").eval()
            return Scripted(program).requires_grad_(False), f"i3d-torchscript@{file.id}"
        state = torch.load(file.path, map_location="cpu", weights_only=True)
        network = I3D()
        network.load_state_dict(_folded(state))
    return network.eval().requires_grad_(False), f"i3d-pytorch@{file.id}"


def _is_program(path: Path) -> bool:
    """Whether a file holds TorchScript."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _folded(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights of pytorch-i3d under our names, batch norms folded into convolutions."""
    left = {k: v for k, v in theirs.items() if not k.endswith("num_batches_tracked")}
    weights = {f"head.{key}": left.pop(f"logits.conv3d.{key}") for key in ("weight", "bias")}
    for ours, name in layer_names(BRANCHES).items():
        scale, bias, mean, var = (left.pop(f"{name}.bn.{key}") for key in NORM)
        scale = scale * torch.rsqrt(var + EPS)
        kernel = left.pop(f"{name}.conv3d.weight")
        weights[f"{ours}.weight"] = kernel * scale.reshape(-1, 1, 1, 1, 1)
        weights[f"{ours}.bias"] = bias - mean * scale
    if left:
        raise ValueError(f"got {min(left)}, expected layers of I3D alone")
    return weights
