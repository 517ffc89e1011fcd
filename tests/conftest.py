"""Runs every test with the package's annotations checked, shapes included, and from fixed seeds.

Within one signature an axis name stands for one size: an output with other channels than the input
is ``"b c_out t h w"``, a size that nothing else shares is ``_`` or ``...``. What must run without
the checks (``torch.compile(fullgraph=True)``) goes into a subprocess.
"""

import gc
import os

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# On AMD, MKL's last bits depend on where in memory numbers lie, unless it is asked to be strict.
os.environ.setdefault("MKL_CBWR", "AVX2,STRICT")
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    # Tests in several processes share the cores; told before torch, imported below, counts them.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

import no_draws
import typecheck

typecheck.install("vdm")
no_draws.install()
# What collecting makes stays until the end: looking through it for garbage, again and again, would
# take a large part of the time.
gc.disable()


def pytest_collection_finish() -> None:
    """From here on, look for garbage among what tests make."""
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    """Modules are taken down as ever."""
    gc.unfreeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files with slow tests first; leave out tests marked ``gpu`` on a machine without one."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        config.hook.pytest_deselected(items=marked)
        items[:] = [item for item in items if item not in marked]


@pytest.fixture(autouse=True)
def _seed_everything() -> None:
    """A test that draws from a global generator draws the same on every run."""
    import random

    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
