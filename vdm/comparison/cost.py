"""What sampling costs, in a process of its own, so that its peak memory is nobody else's.

``python -m vdm.comparison.cost MODEL '{"steps": 25}'`` prints one line of JSON.
"""

from __future__ import annotations

import contextlib
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROMPT = "a red circle moves left"
NUM_REPEATS = 3
MAXRSS = 1 if sys.platform == "darwin" else 1024
"""Bytes in the unit of ``ru_maxrss``."""


def sampling_cost(model: str | Path, settings: Mapping[str, Any]) -> dict[str, float]:
    """Seconds per clip (alone, the median of several), and bytes above the loaded program.

    Args:
        model: What ``vdm.load`` takes.
        settings: Arguments of the call.

    Raises:
        RuntimeError: If the model does not load or does not sample.
    """
    words = [sys.executable, "-m", "vdm.comparison.cost", str(model), json.dumps(dict(settings))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().splitlines() or ["no message"]
        raise RuntimeError(f"{model} does not sample: {last[-1]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def measure_sampling(
    model: str | Path, settings: Mapping[str, Any], num_repeats: int = NUM_REPEATS
) -> dict[str, float]:
    """The same in this process, whose memory may have been larger before.

    Args:
        model: What ``vdm.load`` takes.
        settings: Arguments of the call.
        num_repeats: Clips that are timed, after one that is not.
    """
    import torch

    import vdm

    generate = vdm.load(model)
    on_gpu = torch.cuda.is_available()
    before = _forget_peak()
    seconds = []
    for seed in range(num_repeats + 1):
        start = time.perf_counter()
        generate(PROMPT, seed=seed, progress=False, **settings)
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    peak = torch.cuda.max_memory_allocated() if on_gpu else _status("VmHWM") - before
    return {"seconds": statistics.median(seconds[1:]), "peak_bytes": peak}


def _forget_peak() -> int:
    """Begin a new peak of the resident set, where the system can; returns what is resident now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def wait_for(process: subprocess.Popen[Any]) -> int:
    """Wait for the end of a process; returns the bytes that it had resident at most.

    They are looked up while it runs: what the system tells at its end counts the process that
    started it, too.
    """
    status, peak = Path(f"/proc/{process.pid}/status"), 0
    if not status.is_file():
        process.wait()
        return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * MAXRSS
    while process.poll() is None:
        with contextlib.suppress(OSError, ValueError):
            peak = max(peak, _status("VmHWM", status))
        time.sleep(0.1)
    return peak


def _status(name: str, status: Path = Path("/proc/self/status")) -> int:
    """A size in bytes that the system notes of a process; without /proc the peak of this one."""
    if not Path("/proc/self/status").is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * MAXRSS
    (line,) = (row for row in status.read_text().splitlines() if row.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    print(json.dumps(measure_sampling(sys.argv[1], json.loads(sys.argv[2]))))
