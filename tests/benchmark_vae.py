"""How fast causal VAEs decode beside their references, on this machine: part of ``make bench``.

Both have the same weights and take turns in one process; a figure is the median of the ratios of
single rounds. A ratio says more than a time where machines are busy.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import torch
from diffusers import AutoencoderKLCogVideoX, AutoencoderKLWan

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from tests.benchmark import Figure  # noqa: E402
from tests.models.unet3d_oracles import reference  # noqa: E402
from vdm.pretrained import load_autoencoder  # noqa: E402

ROUNDS = 7
MODELS = {
    "CogVideoX": (
        AutoencoderKLCogVideoX,
        {"block_out_channels": (64, 128, 128, 256), "layers_per_block": 1},
        (3, 12, 16),
    ),
    "Wan 2.1": (AutoencoderKLWan, {"base_dim": 48, "num_res_blocks": 1}, (3, 12, 16)),
}
"""Reference, settings, and latents (frames, height, width)."""


@torch.no_grad()
def decoding(rounds: int = ROUNDS) -> Iterator[Figure]:
    """Ours against the reference, with one thread and with two."""
    for name, (cls, config, size) in MODELS.items():
        theirs = reference(cls, **config)
        with tempfile.TemporaryDirectory() as folder:
            theirs.save_pretrained(folder)
            ours = load_autoencoder(folder)
        raw = torch.randn(1, ours.latent_channels, *size)
        latents = ours.scale.normalize(raw)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            ratios = []
            for _ in range(rounds + 1):
                start = time.perf_counter()
                theirs.decode(raw)
                middle = time.perf_counter()
                ours.decode(latents)
                ratios.append((time.perf_counter() - middle) / (middle - start))
            what = f"{name} VAE decode, {threads} threads, ours / reference"
            yield Figure(what, median(ratios[1:]), "x", 0.95)  # the first round warms up


def main() -> int:
    """Measure and print."""
    missed = 0
    for figure in decoding():
        missed += not figure.kept
        verdict = "" if figure.kept else "   MISSED"
        print(
            f"{figure.name:<52}{figure.value:>9.3g} {figure.unit:<9} <= {figure.bound:g}{verdict}",
            flush=True,
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
