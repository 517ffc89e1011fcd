"""Where scored clips come from: a data set, its reconstruction, a model, a folder, a baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from vdm import world
from vdm.data.block_store import digest
from vdm.data.clip_cache import ClipSource
from vdm.metrics.captions import shuffled_frames, static_copy
from vdm.metrics.clips import Clips, quantise
from vdm.utils.rng import derive_seed
from vdm.utils.video_io import from_uint8, read_metadata, read_video

LOSSLESS = (".mkv", ".npz")
VIDEO = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".npz", ".webm")
Generate = Callable[..., Any]
"""``generate(prompts, seed=seeds, **settings) -> Clip``."""


class Real:
    """Clips of a data set, by number; what else is scored changes them or makes its own.

    Args:
        source: The data set.
    """

    name = "real"

    def __init__(self, source: ClipSource) -> None:
        self.source = source
        self._last: tuple[list[int], Clips, list[str]] | None = None

    def _read(self, indices: Sequence[int]) -> tuple[Clips, list[str]]:
        """Clips and captions; the last ones asked for are kept, as both are wanted in turn."""
        if self._last is None or self._last[0] != list(indices):
            pairs = [self.source.clip(index) for index in indices]
            clips = np.stack([frames for frames, _ in pairs])
            self._last = list(indices), clips, [caption for _, caption in pairs]
        return self._last[1:]

    def captions(self, indices: Sequence[int]) -> list[str]:
        """Captions of the clips."""
        return self._read(indices)[1]

    def clips(self, indices: Sequence[int]) -> tuple[Clips, float]:
        """The clips as they are."""
        return self._read(indices)[0], 0.0


class Reconstructed(Real):
    """Clips of a data set after the autoencoder.

    Args:
        source: The data set.
        autoencoder: Encodes and decodes; its own device and precision.
    """

    name = "reconstructed"

    def __init__(self, source: ClipSource, autoencoder: nn.Module) -> None:
        super().__init__(source)
        self.autoencoder = autoencoder

    def clips(self, indices: Sequence[int]) -> tuple[Clips, float]:
        """What comes out of the autoencoder."""
        frames, _ = super().clips(indices)
        weight = next(self.autoencoder.parameters())
        video = from_uint8(torch.from_numpy(frames)).to(weight.device, weight.dtype)
        with torch.no_grad():
            latents = self.autoencoder.encode(video)  # type: ignore[operator]
            decoded = self.autoencoder.decode(latents, num_frames=frames.shape[1])  # type: ignore[operator]
        return quantise(decoded.float())


class Generated(Real):
    """Clips that a model makes for the captions of a data set.

    Args:
        source: The data set whose captions are the prompts.
        generate: The model.
        seed: Clip ``k`` starts from noise keyed by (seed, data, k), whatever the batch.
        data: Name of the data.
        shape: Frames, height and width of the clips.
        settings: Further arguments of the model.

    Raises:
        ValueError: If the model makes clips of another shape.
    """

    name = "generated"

    def __init__(
        self,
        source: ClipSource,
        generate: Generate,
        seed: int,
        data: str,
        shape: tuple[int, int, int],
        settings: Mapping[str, Any],
    ) -> None:
        super().__init__(source)
        self.generate, self.seed, self.data, self.settings = generate, seed, data, dict(settings)
        self.shape = shape

    def clips(self, indices: Sequence[int]) -> tuple[Clips, float]:
        """What the model makes of the captions."""
        seeds = [derive_seed(self.seed, "evaluate", self.data, index) for index in indices]
        prompts = self.captions(indices)
        made = self.generate(prompts, seed=seeds, **self.settings)
        frames, clamped = quantise(2 * made.frames - 1)
        expected = (len(prompts), *self.shape, 3)
        if frames.shape != expected:
            raise ValueError(
                f"got clips of shape {frames.shape} from the model, expected {expected} as in the "
                "data: num_frames, height and width say which"
            )
        noted = getattr(made, "metadata", {}).get("clamped_share")
        return frames, clamped if noted is None else float(noted)


class StaticCopy(Real):
    """Baseline: the first frame all the time."""

    name = "static copy"

    def clips(self, indices: Sequence[int]) -> tuple[Clips, float]:
        """The clips, frozen."""
        return static_copy(super().clips(indices)[0]), 0.0


class Shuffled(Real):
    """Baseline: the real frames in another order."""

    name = "shuffled frames"

    def clips(self, indices: Sequence[int]) -> tuple[Clips, float]:
        """The clips, each in an order that depends on its number alone."""
        frames, _ = super().clips(indices)
        pairs = zip(frames, indices, strict=True)
        return np.concatenate([shuffled_frames(one[None], index) for one, index in pairs]), 0.0


class ClipFolder:
    """Clips in files, with captions in ``.txt`` files of the same name or noted in the clips.

    Args:
        folder: Where the files are.
        num_frames: Frames to read of each.
        size: Height and width to bring them to; as they are if None.
        lossless: Refuse files that went through a lossy codec.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If it holds no clip, or a lossy one where that is refused.
    """

    def __init__(
        self,
        folder: str | Path,
        num_frames: int | None = None,
        size: tuple[int, int] | None = None,
        lossless: bool = False,
    ) -> None:
        self.folder, self.num_frames, self.size = Path(folder), num_frames, size
        if not self.folder.is_dir():
            raise FileNotFoundError(f"got {folder}, expected a folder of clips")
        files = sorted(path for path in self.folder.rglob("*") if path.suffix.lower() in VIDEO)
        if not files:
            raise ValueError(f"{folder}: holds no clip, expected {', '.join(VIDEO)}")
        lossy = [path for path in files if path.suffix.lower() not in LOSSLESS]
        if lossless and lossy:
            raise ValueError(
                f"{lossy[0]}: got a lossy format, expected {' or '.join(LOSSLESS)}: a codec "
                "changes the scores"
            )
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def describe(self) -> dict[str, Any]:
        """Everything the clips depend on."""
        names = [[str(path.relative_to(self.folder)), path.stat().st_size] for path in self.files]
        captions = digest([self.caption(index) for index in range(len(self))])
        return {
            "folder": names,
            "captions": captions,
            "num_frames": self.num_frames,
            "size": self.size,
        }

    def clip(self, index: int) -> tuple[UInt8[np.ndarray, "t h w 3"], str]:
        """Clip number ``index`` and its caption; an empty one if there is none.

        Raises:
            ValueError: If the file cannot be read or has fewer frames than asked for.
        """
        path = self.files[index]
        size = None if path.suffix == ".npz" else self.size
        frames, _ = read_video(path, num_frames=self.num_frames, size=size)
        if self.size is not None and tuple(frames.shape[1:3]) != self.size:
            got, expected = "x".join(map(str, frames.shape[1:3])), "x".join(map(str, self.size))
            raise ValueError(f"{path}: got frames of {got}, expected {expected}")
        return frames.numpy(), self.caption(index)

    def caption(self, index: int) -> str:
        """The caption of clip number ``index``."""
        path = self.files[index]
        words = path.with_suffix(".txt")
        if words.is_file():
            return words.read_text(encoding="utf-8").strip()
        prompt = read_metadata(path).get("prompt")
        return prompt if isinstance(prompt, str) else ""


class CaptionScenes:
    """Clips of the world for given captions: the real ones beside a folder of finished clips.

    Args:
        captions: Sentences of the world's grammar.
        size: Height and width.
        num_frames: Frames per clip.
    """

    def __init__(self, captions: Sequence[str], size: int, num_frames: int) -> None:
        self.captions, self.size, self.num_frames = list(captions), size, num_frames

    def __len__(self) -> int:
        return len(self.captions)

    @property
    def name(self) -> str:
        """Says which captions."""
        return f"captions-{digest(self.captions)[:8]}"

    def describe(self) -> dict[str, Any]:
        """Everything the clips depend on."""
        about = {"world": "moving-shapes", "version": world.VERSION, "captions": self.captions}
        return {**about, "size": self.size, "num_frames": self.num_frames}

    def clip(self, index: int) -> tuple[UInt8[np.ndarray, "t h w 3"], str]:
        """A clip that shows caption number ``index``.

        Raises:
            ValueError: If no scene of the world can show it.
        """
        caption = self.captions[index]
        scene = world.scene_from_caption(caption)
        return world.render(scene, self.size, self.num_frames), caption


class FromFolder(Real):
    """Finished clips of a folder, as if a model had just made them."""

    name = "generated"

    def __init__(self, folder: ClipFolder) -> None:
        super().__init__(folder)
        self.folder = folder

    def captions(self, indices: Sequence[int]) -> list[str]:
        """Captions, without reading the clips.

        Raises:
            ValueError: If a clip has none.
        """
        captions = [self.folder.caption(index) for index in indices]
        for index, caption in zip(indices, captions, strict=True):
            if not caption:
                path = self.folder.files[index]
                raise ValueError(f"{path}: got no caption, expected {path.stem}.txt beside it")
        return captions
