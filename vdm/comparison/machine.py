"""What figures were measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

import vdm


def describe_machine() -> dict[str, Any]:
    """What the figures were measured on."""
    where = Path(vdm.__file__).parents[1]
    git = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=where, capture_output=True, text=True, check=False
    )
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "commit": git.stdout.strip() or None,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "device": device,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _processor() -> str:
    """Its name, as the system gives it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
