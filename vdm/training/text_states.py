"""Captions read once: for a run whose text encoder is not trained."""

from __future__ import annotations

import lightning as L

from vdm.data.text_cache import TextCache
from vdm.training.diffusion_module import DiffusionModule


class CachedCaptions(L.Callback):
    """Keeps the text encoder's states of every caption on disk, and reads them from there.

    Args:
        cache_dir: Folder of all caches.
    """

    def __init__(self, cache_dir: str = "outputs/cache") -> None:
        self.cache_dir = cache_dir

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Put the cache in front of the encoder.

        Raises:
            ValueError: If the module has no text encoder, or one that is trained.
        """
        encoder = getattr(pl_module, "text_encoder", None)
        if not isinstance(pl_module, DiffusionModule) or encoder is None:
            raise ValueError("got CachedCaptions, expected a model with a text encoder")
        pl_module.text_cache = TextCache(encoder, self.cache_dir)
