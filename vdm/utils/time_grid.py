"""How long a clip is: the one owner of seconds, frames and latent frames."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TimeGrid:
    """A clip's time axis.

    A causal video autoencoder with temporal stride ``s`` maps the first frame to the first latent
    frame and every further group of ``s`` frames to one more; a last group that is not full is
    completed by repeating the last frame and cut off again after decoding. So any number of frames
    goes in and the same number comes out.

    Args:
        num_frames: Frames in the clip.
        fps: Frames per second.
        stride: Frames per latent frame, after the first.
        piece: Frames that are encoded by themselves, where an autoencoder takes clips in pieces; in
            each, the first latent frame stands for the frames that fill no group. None for whole
            clips.

    Raises:
        ValueError: If there is no frame, or a rate or stride is not positive.
    """

    num_frames: int
    fps: float = 8.0
    stride: int = 1
    piece: int | None = None

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise ValueError(f"got num_frames={self.num_frames}, expected at least 1")
        if not self.fps > 0:
            raise ValueError(f"got fps={self.fps}, expected more than 0")
        if self.stride < 1:
            raise ValueError(f"got stride={self.stride}, expected at least 1")

    @classmethod
    def from_seconds(
        cls, seconds: float, fps: float, stride: int = 1, piece: int | None = None
    ) -> TimeGrid:
        """The grid that covers ``seconds``: the nearest whole number of frames, at least one."""
        return cls(max(1, round(seconds * fps)), fps, stride, piece)

    @property
    def seconds(self) -> float:
        """Length of the clip: every frame is shown for ``1 / fps`` seconds."""
        return self.num_frames / self.fps

    @property
    def num_latent_frames(self) -> int:
        """Latent frames, the first frame having one of its own."""
        if self.piece is not None:
            whole, rest = divmod(self.num_frames, self.piece)
            return whole * -(-self.piece // self.stride) - (-rest // self.stride)
        return 1 + -(-(self.num_frames - 1) // self.stride)

    @property
    def groups(self) -> list[int]:
        """Frames of the clip that each latent frame stands for."""
        sizes = []
        for start in range(0, self.num_frames, self.piece or self.num_frames):
            left = min(self.num_frames - start, self.piece or self.num_frames)
            first = 1 if self.piece is None else left % self.stride or self.stride
            while left > 0:
                sizes.append(min(first, left))
                left, first = left - sizes[-1], self.stride
        return sizes

    @property
    def padded_frames(self) -> int:
        """The nearest number of frames at or above ``num_frames`` that fills every latent frame."""
        if self.piece is not None:
            whole, rest = divmod(self.num_frames, self.piece)
            return whole * self.piece + min(self.piece, -(-rest // self.stride) * self.stride)
        return 1 + (self.num_latent_frames - 1) * self.stride

    def every(self, step: int) -> TimeGrid:
        """The time axis of every ``step``-th latent frame, the first one included.

        Raises:
            ValueError: If the step is not positive.
        """
        if step < 1:
            raise ValueError(f"got step={step}, expected at least 1")
        if step == 1:
            return self
        later = (self.num_latent_frames - 1) // step
        return TimeGrid(1 + later * self.stride, self.fps / step, self.stride)
