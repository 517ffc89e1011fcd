"""Schedulers of diffusers that compute in float64.

They keep tables, noise levels and samples in float32, by naming that type. Here their modules are
given stand-ins for ``torch`` and ``numpy`` in which the name means float64, so agreement can be
asked for to more digits than float32 has.
"""

import importlib

import numpy as np
import torch


class _Double:
    """A module in which ``float32`` is ``float64``."""

    def __init__(self, module, double):
        self._module, self.float32 = module, double

    def __getattr__(self, name):
        return getattr(self._module, name)


def double_scheduler(monkeypatch, name: str, **config):
    """A scheduler, e.g. ``"ddim.DDIMScheduler"``, whose module is in double precision."""
    module_name, class_name = name.split(".")
    module = importlib.import_module(f"diffusers.schedulers.scheduling_{module_name}")
    monkeypatch.setattr(module, "torch", _Double(torch, torch.float64))
    if hasattr(module, "np"):
        monkeypatch.setattr(module, "np", _Double(np, np.float64))
    return getattr(module, class_name)(**config)
