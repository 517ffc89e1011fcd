"""How given frames get into a clip: one class for every rule that models have for them.

A call goes through a way in the order in which published pipelines draw their random numbers:
frames are read, what precedes the noise is drawn, the noise itself, and then what stands in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from vdm.conditioning.given import DrawnInPlace, GivenAhead, GivenApart
from vdm.conditioning.likeness import Likeness
from vdm.conditioning.picture import FramesOnGrey, PictureRule, SeenFrame
from vdm.conditioning.sparse import SparseFrames
from vdm.pipelines import inputs, pictures
from vdm.pipelines.given import exact_given, keep_given, put_back
from vdm.pipelines.keyframes import Held, place_pieces, read_pieces
from vdm.pipelines.steering import given_in_clip, steering_fields
from vdm.types import Conditioning, Denoise, Latents
from vdm.utils.rng import SampleNoise
from vdm.utils.time_grid import TimeGrid

if TYPE_CHECKING:
    from vdm.pipelines.generate import Generator


@dataclass(frozen=True)
class Asked:
    """What a call says of frames.

    Args:
        image: The first frame, or the picture that the clip moves from; one, or one per sample.
        last_image: The last frame.
        video: Given frames.
        mask: Which of the clip's they are.
        motion: How much motion, or of which kind.
        raw: What the user says of single fields, which goes first.
        grid: The clip's time axis.
        size: Height and width of the clip in pixels.
    """

    image: Any
    last_image: Any
    video: Any
    mask: Any
    motion: float | None
    raw: dict[str, Tensor]
    grid: TimeGrid
    size: tuple[int, int]

    @property
    def frames(self) -> tuple[tuple[Any, Any], Any, Any, TimeGrid, tuple[int, int]]:
        """Those of the clip, and what clip it is."""
        return (self.image, self.last_image), self.video, self.mask, self.grid, self.size


class InClip:
    """Frames that are part of the clip; the network is shown them as it was trained to.

    Args:
        generator: The model.
        asked: What the call says of frames; the fields of given latents are taken out of ``raw``.

    Attributes:
        exact: Given latents themselves, which the clip will hold.
        shown: What the network is told of them.
        hidden: What it is told instead to be led away from.

    Raises:
        ValueError: If the frames contradict each other, the clip's length or the model.
    """

    reads_last: ClassVar = False
    """Whether a single frame may be given at the end."""
    draws_picture: ClassVar = False
    """Whether there may be a picture for every sample, as latents are drawn for each."""

    def __init__(self, generator: Generator, asked: Asked) -> None:
        if asked.last_image is not None and not self.reads_last:
            raise ValueError(
                f"got last_image, model {generator.parts.name!r} reads no single frame at the end: "
                "expected video with a mask"
            )
        self.generator, self.asked = generator, asked
        self.rule = generator.parts.given
        self.given: tuple[Tensor, Tensor] | None = None
        self.exact = Conditioning()
        self.shown: dict[str, Tensor] = {}
        self.hidden: dict[str, Tensor] = {}
        self.read()

    def read(self) -> None:
        """Read the frames: nothing is random yet."""
        self.given = given_in_clip(self.generator, *self.asked.frames)

    def counts(self) -> dict[str, int | None]:
        """For how many samples there are frames, by what they were given as."""
        image = pictures.count_pictures(self.asked.image) if self.draws_picture else None
        given = None if self.given is None else len(self.given[0])
        return {"image": image, "given": given}

    def draw(self, seeds: list[int], stream: SampleNoise) -> None:
        """Find out what the network is told, with what is drawn before the noise of the clip.

        Args:
            seeds: One per sample.
            stream: What is drawn for each sample.
        """
        asked = self.asked
        self.exact = exact_given(asked.raw, self.given, len(seeds)).to(self.generator.device)
        told = self.generator._told(asked.raw, self.exact, asked.grid, seeds, asked.size)
        self.shown = self.hidden = told

    def place(self, x: Latents, stream: SampleNoise) -> Float[Tensor, "b c placed h w"]:
        """The latents that sampling starts from, with the frames where they stand in them.

        Args:
            x: The same without them.
            stream: What is drawn for each sample after the noise of the clip.
        """
        return x

    def in_sight(self) -> tuple[Tensor | None, Tensor | None]:
        """What texts are read in sight of: the prompt, and the negative one."""
        return None, None

    def keep(self, denoise: Denoise, stream: SampleNoise) -> Denoise:
        """A denoiser that leaves given latents as they are.

        Args:
            denoise: The network, guided.
            stream: What is drawn for each sample in the course of sampling.
        """
        return keep_given(denoise, self.exact, self.rule)

    def put_back(self, latents: Latents) -> Latents:
        """What was sampled, given latents bit by bit as given where the model keeps them."""
        return put_back(latents, self.exact, self.rule)


class Apart(InClip):
    """Frames that are clips of their own at either end."""

    reads_last = True


class Drawn(InClip):
    """A picture as the first frame, drawn from what the autoencoder says of it; or other frames."""

    draws_picture = True

    def read(self) -> None:
        """Read other frames; both are refused."""
        if self.asked.image is None or self.asked.video is not None:
            super().read()

    def draw(self, seeds: list[int], stream: SampleNoise) -> None:
        """Draw the picture's latents first of all."""
        asked = self.asked
        if asked.image is not None:
            picture = (asked.image, asked.grid, asked.size)
            self.given = pictures.drawn_frame(self.generator, *picture, stream)
        super().draw(seeds, stream)


class InSight(Drawn):
    """A picture as the first frame, and texts that are read in sight of it."""

    def read(self) -> None:
        """Refuse other frames, and none."""
        _refuse_frames(self.generator, self.asked)
        if self.asked.image is None:
            name = self.generator.parts.name
            raise ValueError(f"got no image, model {name!r} needs one to move from")

    def in_sight(self) -> tuple[Tensor, Tensor]:
        """The picture, and a black one."""
        return pictures.in_sight(self.asked.image)


class Moved(InClip):
    """A picture that the clip moves from, of which the network is told beside the noise."""

    draws_picture = True

    def read(self) -> None:
        """Refuse frames of the clip."""
        _refuse_frames(self.generator, self.asked)

    def draw(self, seeds: list[int], stream: SampleNoise) -> None:
        """Draw the picture's latents, and noise on it, before the noise of the clip."""
        asked = self.asked
        self.shown, self.hidden = pictures.picture_fields(
            self.generator, asked.image, asked.grid, asked.size, seeds, asked.raw, stream
        )


class Alike(Moved):
    """A picture that every frame is to be like."""

    def draw(self, seeds: list[int], stream: SampleNoise) -> None:
        """Nothing comes before the noise of the clip."""

    def place(self, x: Latents, stream: SampleNoise) -> Float[Tensor, "b c placed h w"]:
        """Draw the picture's latents after it."""
        asked = self.asked
        asked.raw.pop("motion_bucket", None)  # it chooses a mask
        self.shown = self.hidden = pictures.likeness_fields(
            self.generator, asked.image, asked.grid, asked.size, stream, asked.motion
        )
        return x


class Steering(InClip):
    """Frames that steer the clip: the network sees them and makes them anew."""

    reads_last = True

    def read(self) -> None:
        """Read the frames as the network sees them."""
        self.shown = steering_fields(self.generator, *self.asked.frames, self.asked.raw)
        self.hidden = self.shown

    def counts(self) -> dict[str, int | None]:
        """For how many samples there are frames."""
        return {"given": inputs.length_of(self.shown.get("given"))}

    def draw(self, seeds: list[int], stream: SampleNoise) -> None:
        """Nothing is drawn."""


class Ahead(InClip):
    """Frames ahead of the clip, or in it with a share of noise."""

    reads_last = True

    def read(self) -> None:
        """Read them piece by piece."""
        ends, video, mask, grid, size = self.asked.frames
        raw = self.asked.raw
        self.pieces = read_pieces(self.generator, ends, video, mask, grid, size, raw)
        self.held: Held | None = None

    def counts(self) -> dict[str, int | None]:
        """For how many samples there are frames."""
        return {"frames": max((len(piece.clip) for piece in self.pieces), default=None)}

    def place(self, x: Latents, stream: SampleNoise) -> Float[Tensor, "b c placed h w"]:
        """Draw their latents, put them into their places, and tell the network where these are."""
        if not self.pieces:
            return x
        self.held = place_pieces(self.generator, self.pieces, x, stream)
        self.shown["starts"] = self.held.starts
        return self.held.latents

    def keep(self, denoise: Denoise, stream: SampleNoise) -> Denoise:
        """Hold each as strongly as it is given."""
        return denoise if self.held is None else self.held.keep(denoise, stream)


WAYS: dict[Any, type[InClip]] = {
    GivenAhead: Ahead,
    GivenApart: Apart,
    DrawnInPlace: Drawn,
    SeenFrame: InSight,
    PictureRule: Moved,
    Likeness: Alike,
    SparseFrames | FramesOnGrey: Steering,
}
"""By the rule that a model has for given frames; every other rule shows frames of the clip."""


def _refuse_frames(generator: Generator, asked: Asked) -> None:
    """Refuse frames of the clip, of which a model that moves pictures takes none."""
    if asked.video is not None or asked.mask is not None or "given" in asked.raw:
        name = generator.parts.name
        raise ValueError(f"got given frames, model {name!r} moves a picture: expected image alone")


def way_of(generator: Generator, asked: Asked) -> InClip:
    """How the frames of a call get into the clip.

    Args:
        generator: The model.
        asked: What the call says of frames.

    Raises:
        ValueError: If the frames contradict each other, the clip's length or the model.
    """
    rule = generator.parts.given
    way = next((way for kinds, way in WAYS.items() if isinstance(rule, kinds)), InClip)
    return way(generator, asked)
