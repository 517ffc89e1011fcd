"""What a random clip costs beside plain PyAV and OpenCV, and whether memory stays flat.

Readers take turns on the same clips in one process, each on one thread; a figure is the median of
the ratios of CPU times of single rounds. Every reader is checked to give the same frames. Clips of
one's own are given as arguments: ``python tests/benchmark_loader.py clip.mp4 ...``.
"""

import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import av
import cv2
import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.benchmark import Figure  # noqa: E402
from vdm.data.ingest import ingest  # noqa: E402
from vdm.data.ingested import IngestedClips  # noqa: E402
from vdm.data.listing import read_listing  # noqa: E402
from vdm.utils.video_io import write_video  # noqa: E402
from vdm.utils.video_reader import VideoIndex, VideoReader  # noqa: E402

ROUNDS, CLIPS, NUM_FRAMES = 5, 4, 16
SIZES = (64, 128, 256)
SAMPLES = 10_000
Read = Callable[[Path, VideoIndex, int, int], np.ndarray]


def ours(path: Path, index: VideoIndex, start: int, size: int) -> np.ndarray:
    """As :class:`IngestedClips` reads, which knows when frames are shown."""
    with VideoReader(path, (size, size), threads=1, index=index) as reader:
        return reader.read(range(start, start + NUM_FRAMES))


def plain(path: Path, index: VideoIndex, start: int, size: int) -> np.ndarray:
    """Seek, decode up to the clip, convert at full size, resize."""
    wanted = index.pts[start : start + NUM_FRAMES]
    frames = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        container.seek(wanted[0], backward=True, stream=stream)
        for frame in container.decode(stream):
            if frame.pts >= wanted[0]:
                frames.append(_cover(frame.to_ndarray(format="rgb24"), size))
            if len(frames) == NUM_FRAMES:
                break
    return np.stack(frames)


def opencv(path: Path, index: VideoIndex, start: int, size: int) -> np.ndarray:
    """OpenCV's reader on one thread."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    capture.set(cv2.CAP_PROP_POS_FRAMES, start)
    frames = [_cover(capture.read()[1][..., ::-1], size) for _ in range(NUM_FRAMES)]
    capture.release()
    return np.stack(frames)


def _cover(frame: np.ndarray, size: int) -> np.ndarray:
    height, width = frame.shape[:2]
    scale = size / min(height, width)
    height, width = max(size, round(height * scale)), max(size, round(width * scale))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    frame = cv2.resize(np.ascontiguousarray(frame), (width, height), interpolation=how)
    top, left = (height - size) // 2, (width - size) // 2
    return frame[top : top + size, left : left + size]


def make_clip(path: Path, count: int = 250, height: int = 360, width: int = 640) -> Path:
    """A camera that pans over a picture: every frame is another."""
    rows, columns = 1 + (height + count) // 40, 1 + (width + 12 * count) // 40
    tiles = np.random.default_rng(0).integers(0, 256, (rows, columns, 3), np.uint8)
    picture = tiles.repeat(40, 0).repeat(40, 1)
    frames = [picture[k : k + height, 12 * k : 12 * k + width] for k in range(count)]
    return write_video(np.stack(frames), path, 25.0)


def reading(paths: list[Path], rounds: int = ROUNDS) -> Iterator[Figure]:
    """CPU time of a random clip, of others' readers in units of ours."""
    bounds = {"plain PyAV": (plain, 1.5), "OpenCV": (opencv, 1.0)}
    for path in paths:
        with VideoReader(path) as reader:
            index = reader.index
        places = np.random.default_rng(0).integers(0, len(index.pts) - NUM_FRAMES, CLIPS)
        for size in SIZES:
            readers: dict[str, Read] = {"ours": ours, **{k: v for k, (v, _) in bounds.items()}}
            spent: dict[str, list[float]] = {name: [] for name in readers}
            for _ in range(rounds + 1):
                clips = {}
                for name, read in readers.items():
                    begun = time.process_time()
                    clips[name] = np.stack([read(path, index, int(k), size) for k in places])
                    spent[name].append(time.process_time() - begun)
                _check_same(path, clips)
            for name, (_, least) in bounds.items():
                pairs = zip(spent[name][1:], spent["ours"][1:], strict=True)  # the first warms up
                ratio = median(theirs / our for theirs, our in pairs)
                what = f"{path.name[:16]} at {size}, ours / {name}"
                yield Figure(what, 1 / ratio, "x", 1 / least)


def _check_same(path: Path, clips: dict[str, np.ndarray]) -> None:
    """Frames are the same ones: near each other, and nearer than to the ones that follow."""
    our = clips["ours"].astype(np.float32)
    for name, other in clips.items():
        same = np.abs(our - other).mean()
        next_one = np.abs(our[:, :-1] - other[:, 1:]).mean()
        if not same < max(0.5 * next_one, 1e-9):
            raise AssertionError(f"{path.name}: {name} differs by {same:.2f} of {next_one:.2f}")


def memory(samples: int = SAMPLES) -> Figure:
    """How much more memory the last samples of many need than the first."""
    with tempfile.TemporaryDirectory() as folder:
        for number in range(4):
            make_clip(Path(folder) / "clips" / f"{number}.mp4", 40, 64, 64)
        ingest(read_listing(Path(folder) / "clips"), Path(folder) / "out")
        data = IngestedClips(Path(folder) / "out", NUM_FRAMES, (32, 32))
        for key in range(samples // 20):
            data[key]
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for key in range(samples):
            data[key]
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return Figure(f"memory that {samples} samples add", grown / 1024, "MiB", 8)


def main(words: list[str]) -> int:
    """Measure and print."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    missed = 0

    def figures() -> Iterator[Figure]:
        with tempfile.TemporaryDirectory() as folder:
            yield from reading([Path(w) for w in words] or [make_clip(Path(folder) / "pan.mp4")])
        yield memory()

    for figure in figures():
        missed += not figure.kept
        verdict = "" if figure.kept else "   MISSED"
        print(
            f"{figure.name:<52}{figure.value:>9.3g} {figure.unit:<9} <= {figure.bound:g}{verdict}",
            flush=True,
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
