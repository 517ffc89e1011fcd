"""Hidden states of a layer that are taught to tell what is where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vdm.layers.embeddings import unpatchify
from vdm.layers.feedforward import MLP
from vdm.utils.config import configurable


@configurable
class Alignment(nn.Module):
    """A small head on a layer of the network that predicts maps of the clip from noisy latents.

    What a clip is made of shows in the squared error of latents only where it changes them much:
    that a square has corners hardly does. The maps say it outright, and a layer that knows them has
    learned what the words mean. The head is used in training alone.

    Args:
        layer: Name of the layer inside the network, e.g. ``blocks.5``; its output are tokens
            ``(b, t, h, w, d)``.
        dim: Their width.
        num_maps: How many maps there are.
        patch_size: Cells of the maps per token along (t, h, w).
        weight: How much the error of the maps counts beside that of the prediction.

    Source:
        Yu et al. 2024, "Representation Alignment for Generation", arXiv:2410.06940, with
        the truth in place of features of a trained encoder.
    """

    def __init__(
        self,
        layer: str,
        dim: int,
        num_maps: int = 9,
        patch_size: Sequence[int] = (1, 4, 4),
        weight: float = 0.5,
    ) -> None:
        super().__init__()
        self.layer, self.weight = layer, weight
        pt, ph, pw = patch_size
        self.patch_size = (pt, ph, pw)
        self.head = MLP(dim, dim, out_dim=num_maps * pt * ph * pw)

    @contextmanager
    def listening(self, network: nn.Module) -> Iterator[list[Tensor]]:
        """Keep what the layer gives while the network runs.

        Raises:
            ValueError: If the network has no such layer.
        """
        layers = dict(network.named_modules())
        if self.layer not in layers:
            near = [name for name in layers if name.startswith(self.layer.split(".")[0] + ".")]
            raise ValueError(
                f"got alignment.layer={self.layer!r}, which {type(network).__name__} does not "
                f"have; e.g. {(near or list(layers))[-1]!r}"
            )
        heard: list[Tensor] = []

        def keep(module: nn.Module, inputs: object, output: Tensor) -> None:
            heard.append(output)

        handle = layers[self.layer].register_forward_hook(keep)
        try:
            yield heard
        finally:
            handle.remove()

    def forward(
        self, tokens: Float[Tensor, "b t h w d"], maps: Float[Tensor, "b maps frames height width"]
    ) -> Float[Tensor, ""]:
        """Mean squared error of the maps.

        Args:
            tokens: What the layer gave.
            maps: The truth.

        Raises:
            ValueError: If there are other maps than the head predicts, or tokens of another width.
        """
        if tokens.ndim != 5 or tokens.shape[-1] != self.head.fc1.in_features:
            raise ValueError(
                f"got an output of shape {tuple(tokens.shape)} from {self.layer}, expected tokens "
                f"(b, t, h, w, {self.head.fc1.in_features}) as alignment.dim says"
            )
        pred = unpatchify(self.head(F.layer_norm(tokens, tokens.shape[-1:])), self.patch_size)
        if pred.shape != maps.shape:
            raise ValueError(
                f"got maps of shape {tuple(maps.shape)}, expected {tuple(pred.shape)} as "
                f"alignment.num_maps and patch_size say"
            )
        return F.mse_loss(pred.float(), maps.to(device=pred.device, dtype=torch.float32))
