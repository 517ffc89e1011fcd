"""Clips into files that are named after what they were made from."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor

from vdm.pipelines import inputs
from vdm.pipelines.clip import SUFFIXES, Clip
from vdm.pretrained.loading import write_safetensors

LONGEST = 240
"""Bytes of a prompt that is to be a file name; file systems take 255 with what follows."""


def sample_to_folder(
    model: Any,
    prompts: Sequence[str],
    out: str | Path,
    *,
    suffix: str = ".mp4",
    batch_size: int = 8,
    seed: inputs.Seed | None = None,
    noise: Float[Tensor, "b c t h w"] | None = None,
    output: str = "video",
    vbench: int | None = None,
    **arguments: Any,
) -> list[Path]:
    """Generate one clip per prompt, in batches, into files named after prompt and seed.

    Args:
        model: What :func:`vdm.load` takes or gives.
        prompts: The texts; an empty list makes one clip without text.
        out: Folder; made if need be. A file of the same prompt, seed and format is replaced.
        suffix: Format, see :meth:`Clip.save`.
        batch_size: Clips generated together; it changes nothing about them.
        seed: As in :meth:`Generator.__call__`: clip ``k`` uses ``seed + k``.
        noise: Initial latents: one for every clip, or for each its own. With one prompt or none
            there are as many clips.
        output: ``"video"``, or ``"latents"``: not decoded, in ``.safetensors`` files.
        vbench: Make so many clips of each prompt, named as VBench's own script reads them:
            ``PROMPT-0.mp4`` and so on. VBench wants 5, and 25 for temporal flickering.
        arguments: Further arguments of :meth:`Generator.__call__`, the same for every clip.

    Returns:
        Paths of the clips, in the order of the prompts.

    Raises:
        ValueError: If the format, batch size or an argument is refused.
    """
    if suffix not in SUFFIXES:
        raise ValueError(f"got suffix {suffix!r}, expected one of {', '.join(SUFFIXES)}")
    if batch_size < 1:
        raise ValueError(f"got batch_size={batch_size}, expected at least 1")
    from vdm.pipelines.load import load

    generate = load(model) if isinstance(model, str | Path) else model
    texts: list[str | None] = list(prompts) or [None]
    if vbench is not None:
        if vbench < 1:
            raise ValueError(f"got {vbench=}, expected at least 1")
        texts = [text for text in texts for _ in range(vbench)]
    if noise is not None and len(texts) == 1:
        texts = texts * len(noise)
    inputs.common_batch(prompts=len(texts), noise=inputs.length_of(noise))
    seeds = inputs.seeds_for(seed, len(texts))
    named = zip(texts, seeds, strict=True)
    names = vbench_names(texts) if vbench else [f"{slug(text)}_seed{n}" for text, n in named]
    paths: list[Path] = []
    for start in range(0, len(texts), batch_size):
        some = slice(start, start + batch_size)
        prompt = None if texts[0] is None else [text or "" for text in texts[some]]
        eps = noise if noise is None or len(noise) == 1 else noise[some]
        made = generate(prompt, seed=seeds[some], noise=eps, output=output, **arguments)
        told = zip(texts[some], seeds[some], names[some], strict=True)
        for k, (text, number, name) in enumerate(told):
            path = Path(out) / f"{name}{suffix}"
            if isinstance(made, Clip):
                paths.append(made[k].save(path))
            else:
                paths.append(_save_latents(made[k : k + 1], path, text, number))
    return paths


def _save_latents(latents: Tensor, path: Path, prompt: str | None, seed: int) -> Path:
    """One clip's latents in a file that says what they are of."""
    path = path.with_suffix(".safetensors")
    write_safetensors({"latents": latents}, path, {"prompt": prompt or "", "seed": str(seed)})
    return path


def vbench_names(prompts: Sequence[str | None]) -> list[str]:
    """Names of clips as VBench's own script looks for them: the prompt, and which of its clips.

    Raises:
        ValueError: If there is no prompt, or one is no file name.

    Source:
        Huang et al. 2024, "VBench", arXiv:2311.17982; its readme on sampled videos.
    """
    names, seen = [], Counter[str]()
    for prompt in prompts:
        if not prompt or "/" in prompt or "\0" in prompt or len(prompt.encode()) > LONGEST:
            raise ValueError(f"got prompt {prompt!r}, expected one that can be the name of a file")
        names.append(f"{prompt}-{seen[prompt]}")
        seen[prompt] += 1
    return names


def slug(text: str | None, length: int = 60) -> str:
    """A prompt as a file name: letters, digits and hyphens.

    A prompt that does not fit is cut and told apart from others by a hash.
    """
    words = re.sub(r"[^a-z0-9]+", "-", (text or "no prompt").lower()).strip("-") or "prompt"
    if len(words) <= length:
        return words
    return f"{words[:length].rstrip('-')}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
