"""Linear maps of a loaded model in eight bits: smaller, and no longer the same to the bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

from vdm.pretrained.parts import Parts, plain_tensors

FORMATS = {
    "int8": "Int8WeightOnlyConfig",
    "int8-dynamic": "Int8DynamicActivationInt8WeightConfig",
}
"""torchao's settings by format: weights alone, or inputs of linear maps too, when they come."""
QUANTIZED = ("network", "text_encoder", "image_encoder")
"""Parts that consist of linear maps for the most part; an autoencoder's errors would be seen."""


@dataclass(frozen=True)
class Quantized:
    """What quantising has done to a model.

    Args:
        format: The format.
        num_maps: How many linear maps there are in it.
        num_bytes: Bytes of these maps' weights now.
        num_bytes_before: Bytes of the same weights before.
        error: Relative L2 difference of these weights.
    """

    format: str
    num_maps: int
    num_bytes: int
    num_bytes_before: int
    error: float

    def __str__(self) -> str:
        return (
            f"quantised to {self.format}: {self.num_maps} linear maps in {self.num_bytes / 1e6:.1f}"
            f" MB instead of {self.num_bytes_before / 1e6:.1f} MB, weights to {self.error:.1e}"
        )


def quantize(parts: Parts, format: str) -> Quantized:
    """Quantise the linear maps of a model in place, and note it in the model.

    Args:
        parts: The model; its autoencoder stays as it is.
        format: ``int8``: weights alone, a scale for each row. ``int8-dynamic``: inputs as well, a
            scale for each token.

    Raises:
        ValueError: If there is no such format, torchao is not installed, or the model has no linear
            map.
    """
    if format not in FORMATS:
        raise ValueError(f"got quantize={format!r}, expected one of {', '.join(FORMATS)}")
    try:
        from torchao import quantization
    except ModuleNotFoundError as error:
        raise ValueError(
            f"quantize={format!r} needs torchao: pip install 'vdm[torchao]'"
        ) from error
    config: Any = getattr(quantization, FORMATS[format])()
    maps = [
        module
        for name in QUANTIZED
        if (part := getattr(parts, name)) is not None
        for module in part.modules()
        if type(module) is nn.Linear
    ]
    if not maps:
        raise ValueError(f"got quantize={format!r}, but {parts.name} has no linear map")
    before, after, wrong, whole = 0, 0, 0.0, 0.0
    for linear in maps:
        exact = linear.weight.detach()
        quantization.quantize_(linear, config, filter_fn=lambda *_: True)
        now: Any = linear.weight
        before, after = (
            before + exact.nbytes,
            after + sum(part.nbytes for part in plain_tensors(now)),
        )
        wrong += float((now.dequantize().float() - exact.float()).square().sum())
        whole += float(exact.float().square().sum())
    parts.quantized = format
    for name in QUANTIZED:  # the files' weights are not these
        parts.hashes.pop(name, None)
    error_of_weights = (wrong / whole) ** 0.5 if whole else 0.0
    return Quantized(format, len(maps), after, before, error_of_weights)
