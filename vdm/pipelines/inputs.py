"""What users hand in besides frames: prompts, seeds, noise, raw fields; and their common batch."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence, Sized
from numbers import Integral
from typing import Any, SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor

from vdm.pretrained.parts import Defaults
from vdm.types import Conditioning

Prompt = str | Sequence[str] | Float[Tensor, "b n d"]
"""Text, a list of texts, or ready-made encoder states."""
Seed = SupportsIndex | Sequence[SupportsIndex]
"""One whole number, NumPy's included, or one per sample."""


def seeds_for(seed: Seed | None, batch: int) -> list[int]:
    """One seed per sample.

    Args:
        seed: One integer (sample ``k`` gets ``seed + k``), one per sample, or None for a draw from
            torch.
        batch: Number of samples.

    Raises:
        TypeError: If a seed is not a whole number.
        ValueError: If the number of seeds is not the number of samples.
    """
    if seed is None:
        seed = int(torch.randint(2**31, ()))
    given = list(seed) if isinstance(seed, Iterable) else [seed]
    if wrong := [s for s in given if not isinstance(s, Integral) or isinstance(s, bool)]:
        raise TypeError(f"got seed {wrong[0]!r}, expected a whole number")
    values = [int(value) for value in given]
    if not isinstance(seed, Iterable):
        return [values[0] + k for k in range(batch)]
    if len(values) != batch:
        raise ValueError(f"got {len(values)} seeds, expected {batch}: one per sample")
    return values


def common_batch(**sizes: int | None) -> int:
    """The number of samples that all inputs agree on; an input of one serves every sample.

    Raises:
        ValueError: If two inputs disagree, or one is empty.
    """
    present = {name: size for name, size in sizes.items() if size is not None}
    if empty := [name for name, size in present.items() if size == 0]:
        raise ValueError(f"got 0 for {empty[0]}, expected at least 1")
    batch = max(present.values(), default=1)
    if wrong := {name: size for name, size in present.items() if size not in (1, batch)}:
        got = ", ".join(f"{size} for {name}" for name, size in wrong.items())
        raise ValueError(f"got {got}, expected 1 or {batch}")
    return batch


def refuse(what: str, **arguments: object) -> None:
    """Refuse arguments that a kind of model has no use for.

    Args:
        what: The kind of model.
        arguments: By name; None where they are not there.

    Raises:
        ValueError: If one is there.
    """
    if given := [name for name, value in arguments.items() if value is not None]:
        raise ValueError(f"got {given[0]} for {what}, expected None")


def repeat_to(value: Tensor, batch: int) -> Tensor:
    """A batch of one, expanded to ``batch``; others as they are."""
    return value.expand(batch, *value.shape[1:]) if len(value) == 1 else value


def as_fields(
    cond: Conditioning | Mapping[str, Any] | None, **keywords: float | None
) -> dict[str, Tensor]:
    """The raw conditioning fields that the user set.

    Args:
        cond: Fields, as a record or by name; a single number is for all samples.
        keywords: Further fields, one number for all samples.

    Raises:
        ValueError: If there is no such field.
    """
    if isinstance(cond, Conditioning):
        fields = cond.present()
    else:
        names = list(inspect.signature(Conditioning).parameters)
        if unknown := sorted(set(cond or {}) - set(names)):
            raise ValueError(f"got cond.{unknown[0]}, expected one of {', '.join(names)}")
        values = {name: torch.as_tensor(value) for name, value in (cond or {}).items()}
        fields = {name: torch.atleast_1d(value) for name, value in values.items()}
    fields |= {
        name: torch.tensor([float(value)]) for name, value in keywords.items() if value is not None
    }
    return fields


def published_words(
    prompt: Prompt | None, negative_prompt: Prompt | None, defaults: Defaults
) -> tuple[Prompt | None, Prompt | None]:
    """Both prompts with the words that a model was published with; encoder states stay.

    Args:
        prompt: What is wanted.
        negative_prompt: What is not; the model's own if None.
        defaults: The model's.
    """
    words = defaults.prompt_suffix
    if words and isinstance(prompt, str):
        prompt += words
    elif words and prompt is not None and not isinstance(prompt, Tensor):
        prompt = [text + words for text in prompt]
    return prompt, defaults.negative_prompt if negative_prompt is None else negative_prompt


def no_label(network: Any, raw: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The label that says nothing to a network, if labels are given."""
    embed = getattr(network, "label_embed", None)
    if "label" not in raw or embed is None:
        return {}
    return {"label": torch.full_like(raw["label"], embed.null)}


def check_noise(
    noise: Tensor, shape: tuple[int, int, int, int], batch: int
) -> Float[Tensor, "b c t h w"]:
    """The user's initial noise, one row per sample.

    Raises:
        ValueError: If it has another shape than the latents.
    """
    if noise.ndim != 5 or tuple(noise.shape[1:]) != shape:
        raise ValueError(f"got noise of shape {tuple(noise.shape)}, expected {(batch, *shape)}")
    return repeat_to(noise, batch)


def length_of(value: Any) -> int | None:
    """How many samples an input stands for; None if it is not there, or a number for any."""
    if not isinstance(value, Sized):
        return None
    return 1 if isinstance(value, str) else len(value)


def name_of(**found: Any) -> str:
    """Which of some things is there, the first if there are several."""
    return next((name for name, value in found.items() if value is not None), "nothing")


def text_of(prompt: Prompt | None) -> Any:
    """A prompt as it is noted in a file."""
    if isinstance(prompt, Tensor):
        return f"encoder states {tuple(prompt.shape)}"
    return prompt if prompt is None or isinstance(prompt, str) else list(prompt)
