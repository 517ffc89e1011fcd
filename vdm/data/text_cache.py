"""Which captions have been read already: states of a text encoder that is not trained.

The key covers every weight and the class and arguments of the encoder, its type, and each caption.
If the encoder's *code* changed, the empty caption no longer gives the states that were kept, and
all of them are missed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from vdm.conditioning.text import TextStates
from vdm.data.block_store import digest
from vdm.data.latent_cache import close, describe_encoder, weight_hash

TEXT_VERSION = 1
"""Raised when the meaning of what is stored changes."""
PROBE = ""


class TextCache:
    """Reads captions as a text encoder does, each of them once.

    Every caption is encoded by itself, so that a batch changes nothing.

    Args:
        encoder: Is not trained; gives states of tokens.
        root: Folder of all caches.

    Raises:
        ValueError: If the encoder is trained, so that its states change, or gives none.
    """

    def __init__(self, encoder: nn.Module, root: str | Path = "outputs/cache") -> None:
        if any(parameter.requires_grad for parameter in encoder.parameters()):
            raise ValueError("got a text encoder that is trained, expected one that stays as it is")
        self.encoder = encoder
        weights = list(encoder.parameters())
        description = {
            "version": TEXT_VERSION,
            "encoder": describe_encoder(encoder),
            "weights": weight_hash(encoder),
            "dtype": str(weights[0].dtype) if weights else "",
        }
        self.folder = Path(root) / f"text-{digest(description)[:20]}"
        probe, kept = self._encode(PROBE), self._read(PROBE)
        if "text" not in probe:
            raise ValueError("got an encoder that gives no states of tokens: nothing to keep")
        if kept is not None and not all(
            key in kept and close(kept[key].float().numpy(), value.float().numpy())
            for key, value in probe.items()
        ):
            shutil.rmtree(self.folder)

    def __call__(self, prompts: Sequence[str]) -> TextStates:
        """States of captions, where and in the type that the encoder would give them."""
        rows = [self._states(prompt) for prompt in prompts]
        longest = max(len(row["text"]) for row in rows)
        masked = "text_mask" in rows[0]
        if not masked and any(len(row["text"]) != longest for row in rows):
            raise ValueError("got captions of different lengths without a mask, expected one")
        like = next(self.encoder.parameters(), torch.empty(0))

        def stack(key: str) -> Tensor | None:
            if key not in rows[0]:
                return None
            values = [row[key] for row in rows]
            if key != "pooled_text":
                values = [_padded(value, longest) for value in values]
            return torch.stack(values).to(like.device)

        text = stack("text")
        return TextStates(text, stack("text_mask"), stack("pooled_text"))  # type: ignore[arg-type]

    def _states(self, prompt: str) -> dict[str, Tensor]:
        if (kept := self._read(prompt)) is not None:
            return kept
        states = self._encode(prompt)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self._path(prompt)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        save_file(states, temporary)
        temporary.replace(path)
        return states

    @torch.no_grad()
    def _encode(self, prompt: str) -> dict[str, Tensor]:
        training = self.encoder.training
        self.encoder.eval()
        try:
            found = self.encoder([prompt])._asdict()
        finally:
            self.encoder.train(training)
        return {key: value[0].cpu().clone() for key, value in found.items() if value is not None}

    def _path(self, prompt: str) -> Path:
        return self.folder / f"{hashlib.sha256(prompt.encode()).hexdigest()[:32]}.safetensors"

    def _read(self, prompt: str) -> dict[str, Tensor] | None:
        """What was kept; nothing if it is not there or damaged."""
        try:
            states = load_file(self._path(prompt))
        except (OSError, SafetensorError):
            return None
        return states if "text" in states else None


def _padded(value: Tensor, length: int) -> Tensor:
    """Zeros behind, up to a number of tokens."""
    missing = length - len(value)
    return F.pad(value, (0, 0) * (value.ndim - 1) + (0, missing)) if missing else value
