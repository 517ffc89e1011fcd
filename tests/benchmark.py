"""What is promised in seconds and bytes, measured on this machine: ``make bench``.

Prints one line per figure beside the value it must keep, and fails if one does not. Times are the
best of several runs; memory is the most bytes of tensors alive at once, the same on every machine.
Then published models beside their references, see ``tests/benchmark_published.py``, which runs by
itself, too.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent / "support")]

import vdm  # noqa: E402
from tests.benchmark_published import published  # noqa: E402
from vdm import world  # noqa: E402
from vdm.layers.attention_backends import attend  # noqa: E402
from vdm.pipelines.plan import MemoryMeter  # noqa: E402
from vdm.pretrained import bundled  # noqa: E402


class Figure(NamedTuple):
    """One measured figure, and the bound that it must keep."""

    name: str
    value: float
    unit: str
    bound: float
    at_most: bool = True

    @property
    def kept(self) -> bool:
        """Whether the figure keeps its bound."""
        return self.value <= self.bound if self.at_most else self.value >= self.bound


def best_seconds(run: Callable[[], object], times: int = 3) -> float:
    """The fastest of several runs."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


def start_up() -> Iterator[Figure]:
    """Nobody waits for a help text."""
    for name, words in (
        ("import vdm", ["-c", "import vdm"]),
        ("vdm --help", ["-m", "vdm.cli", "-h"]),
    ):
        command = [sys.executable, *words]
        seconds = best_seconds(
            lambda c=command: subprocess.run(c, check=True, capture_output=True), 9
        )
        yield Figure(name, seconds, "s", 0.3)


def embedded_world() -> Iterator[Figure]:
    """Training must not wait for data."""
    count = 40

    def draw() -> None:
        for index in range(count):
            world.render(world.scene("train", 0, index), 64, 16, 8.0)

    yield Figure("clips of the world on one core", count / best_seconds(draw), "clips/s", 30, False)


def attention() -> Iterator[Figure]:
    """In bfloat16 training on a CPU, plain products are to beat SDPA: ``auto`` relies on it."""
    q, k, v = (torch.randn(16, 4, 80, 48, dtype=torch.bfloat16).requires_grad_() for _ in range(3))
    ratios = []
    for _ in range(9):
        seconds = {}
        for backend in ("sdpa", "auto"):
            start = time.perf_counter()
            attend(q, k, v, backend=backend).sum().backward()
            seconds[backend] = time.perf_counter() - start
        ratios.append(seconds["sdpa"] / seconds["auto"])
    yield Figure("bf16 attention with gradient, SDPA / ours", median(ratios), "x", 1.2, False)


def generation() -> Iterator[Figure]:
    """The bundled models, as a user calls them."""
    for name in sorted({*bundled()} - {"shapes-vae"}):
        generate = vdm.load(name)
        arguments = {"num_frames": 16, "height": 64, "width": 64, "steps": 25, "seed": 0}

        def call(output: str = "video") -> object:
            return generate("a red circle moves left", progress=False, output=output, **arguments)  # noqa: B023

        yield Figure(f"{name}: a clip of 16x64x64 in 25 steps", best_seconds(call), "s", 4.0)
        autoencoder = generate.autoencoder
        if autoencoder is None:
            continue
        latents = call("latents")
        long = latents.repeat(1, 1, 4, 1, 1)
        peaks = {}
        for frames in (1, long.shape[2]):
            with torch.no_grad(), MemoryMeter([*autoencoder.parameters(), long]) as meter:
                autoencoder.decode(long, decode_frames=frames)
            peaks[frames] = meter.peak
        share = peaks[1] / peaks[long.shape[2]]
        yield Figure(f"{name}: memory of decoding latent by latent", share, "of whole", 1.0)


def main() -> int:
    """Measure everything and print it."""
    missed = 0
    for part in (start_up, embedded_world, attention, generation):
        for figure in part():
            missed += not figure.kept
            sign = "<=" if figure.at_most else ">="
            verdict = "" if figure.kept else "   MISSED"
            print(
                f"{figure.name:<52}{figure.value:>9.3g} {figure.unit:<9} "
                f"{sign} {figure.bound:g}{verdict}",
                flush=True,
            )
    missed += published()
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
