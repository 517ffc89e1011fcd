"""Streams into files: a clip is on the disk as soon as its last frame is made."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from vdm import __version__
from vdm.pipelines import inputs
from vdm.pipelines.clip import Clip
from vdm.pipelines.generate import Generator
from vdm.pipelines.sample_files import slug
from vdm.pipelines.stream import stream, with_bar
from vdm.utils.video_writer import CODECS, VideoWriter


def stream_to_folder(
    generator: Generator,
    prompts: Sequence[str],
    out: str | Path,
    *,
    suffix: str = ".mp4",
    batch_size: int = 8,
    seed: inputs.Seed | None = None,
    progress: bool = True,
    **arguments: Any,
) -> list[Path]:
    """One clip per prompt into files that are written while the clips are made.

    Args:
        generator: A model with a causal network.
        prompts: The texts; an empty list makes one clip without text.
        out: Folder; made if need be. A file of the same prompt, seed and format is replaced.
        suffix: Format: ``.mp4``, ``.webm`` or ``.mkv``.
        batch_size: Clips generated together; it changes nothing about them.
        seed: Clip ``k`` uses ``seed + k``; or one per clip.
        progress: Show a progress bar.
        arguments: Further arguments of :func:`stream`, the same for every clip.

    Returns:
        Paths of the clips, in the order of the prompts.

    Raises:
        ValueError: If the format, batch size or an argument is refused.
    """
    if suffix not in CODECS:
        raise ValueError(f"got suffix {suffix!r}, expected one of {', '.join(CODECS)} for a stream")
    if batch_size < 1:
        raise ValueError(f"got batch_size={batch_size}, expected at least 1")
    texts: list[str | None] = list(prompts) or [None]
    seeds = inputs.seeds_for(seed, len(texts))
    paths = [
        Path(out) / f"{slug(text)}_seed{number}{suffix}"
        for text, number in zip(texts, seeds, strict=True)
    ]
    for start in range(0, len(texts), batch_size):
        some = slice(start, start + batch_size)
        prompt = None if texts[0] is None else [text or "" for text in texts[some]]
        chunks = with_bar(stream(generator, prompt, seed=seeds[some], **arguments), progress)
        _write(chunks, paths[some])
    return paths


def _write(chunks: Iterator[Clip], paths: Sequence[Path]) -> None:
    """Chunks of several clips to one file each."""
    with ExitStack() as files:
        writers: list[VideoWriter] = []
        for chunk in chunks:
            for k, path in enumerate(paths):
                if len(writers) <= k:
                    about = {"vdm": __version__, **chunk[k].metadata}
                    about = {
                        n: about[n] for n in about if n not in ("first_frame", "clamped_share")
                    }
                    writers.append(files.enter_context(VideoWriter(path, chunk.fps, about)))
                writers[k].write(chunk[k].uint8()[0])
