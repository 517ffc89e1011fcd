"""Given frames: pictures, clips and masks as users hand them in, as pixels and as latents."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from vdm.conditioning.given import GivenApart, InPlace, Showing
from vdm.conditioning.picture import SeenFrame
from vdm.pipelines.inputs import common_batch, repeat_to
from vdm.types import Conditioning, Denoise
from vdm.utils.rng import SampleNoise, derive_seed
from vdm.utils.tensors import expand_as
from vdm.utils.time_grid import TimeGrid
from vdm.utils.video_io import read_video


def given_clip(
    image: Any,
    video: Any,
    mask: Any,
    grid: TimeGrid,
    height: int,
    width: int,
    last_image: Any = None,
) -> tuple[Float[Tensor, "b 3 t h w"], Float[Tensor, "b 1 t h w"]] | None:
    """A whole clip in [-1, 1] of which some pixels are given, and 1 where they are.

    Args:
        image: The first frame: a path, a PIL image, a list of them, or a tensor in [0, 1].
        video: Frames: a path or a tensor in [0, 1].
        mask: Where ``video`` is given; by default everywhere in its frames, which come first. A
            ``video`` of just the given frames is spread to where a mask of frames has its ones.
        grid: The clip's time axis.
        height: Pixels.
        width: Pixels.
        last_image: The last frame, beside a first one.

    Returns:
        The clip and the mask; None if nothing is given. Pixels that are not given are filled from
        those that are, so they have no influence.

    Raises:
        ValueError: If the arguments contradict each other or the clip's length.
    """
    if image is not None and video is not None:
        raise ValueError("got image and video, expected one of them")
    if mask is not None and video is None:
        raise ValueError("got mask without video, expected both")
    if last_image is not None and image is None:
        raise ValueError("got last_image without image, expected both")
    if image is None and video is None:
        return None
    if image is not None:
        ends = [image] if last_image is None else [image, last_image]
        frames = [read_image(end, height, width) for end in ends]
        batch = max(len(frame) for frame in frames)
        movie = torch.stack([repeat_to(frame, batch) for frame in frames], dim=2)
        if last_image is not None:
            mask = torch.zeros(grid.num_frames)
            mask[0] = mask[-1] = 1
    else:
        movie = load_movie(video, height, width)
    have, wanted = movie.shape[2], grid.num_frames
    if mask is not None and have < wanted:
        movie = _spread(movie, torch.as_tensor(mask))
        have = movie.shape[2]
    if have > wanted or (mask is not None and have < wanted):
        least = "exactly" if mask is not None else "at most"
        raise ValueError(f"got {have} given frames, expected {least} num_frames={wanted}")
    if mask is None:
        mask = torch.arange(wanted) < have
    pixels = given_pixels(mask, wanted, height, width)
    batch = common_batch(video=len(movie), mask=len(pixels))
    movie = nn.functional.pad(movie, (0, 0, 0, 0, 0, wanted - have))
    movie, pixels = repeat_to(movie, batch), repeat_to(pixels, batch)
    return hold(movie, pixels), pixels


def _spread(movie: Tensor, mask: Tensor) -> Tensor:
    """Frames where the ones of a mask of frames are, if there are as many."""
    if mask.ndim != 1 or int((mask == 1).sum()) != movie.shape[2]:
        return movie
    spread = movie.new_zeros(*movie.shape[:2], len(mask), *movie.shape[3:])
    spread[:, :, mask == 1] = movie
    return spread


def read_image(image: Any, height: int, width: int) -> Float[Tensor, "b 3 {height} {width}"]:
    """A picture, or a list of pictures, in [-1, 1] and of the wanted size (Lanczos).

    Raises:
        TypeError: If it is none of the types that count as a picture.
        ValueError: If the file cannot be decoded, or a tensor has another shape or range.
    """
    if isinstance(image, (list, tuple)):
        return torch.cat([read_image(item, height, width) for item in image])
    if isinstance(image, (str, Path)):
        image = open_image(Path(image))
    if isinstance(image, Image.Image):
        return 2 * _resize(image.convert("RGB"), height, width)[None] - 1
    if not isinstance(image, Tensor):
        raise TypeError(
            f"got an image of type {type(image).__name__}, expected a path, a PIL image or a tensor"
        )
    batch = image[None] if image.ndim == 3 else image
    if batch.ndim != 4 or batch.shape[1] != 3:
        raise ValueError(
            f"got an image of shape {tuple(image.shape)}, expected (3, h, w) or (b, 3, h, w)"
        )
    _check_range(batch, "image")
    return 2 * _fit(batch.float(), height, width) - 1


def load_movie(video: Any, height: int, width: int) -> Float[Tensor, "b 3 t h w"]:
    """A clip in [-1, 1] and of the wanted size (Lanczos, frame by frame).

    Raises:
        TypeError: If it is neither a path nor a tensor.
        ValueError: If the file cannot be decoded, or a tensor has another shape or range.
    """
    if isinstance(video, (str, Path)):
        frames, _ = read_video(video)
        video = torch.movedim(frames, -1, 0).float() / 255
    if not isinstance(video, Tensor):
        raise TypeError(f"got a video of type {type(video).__name__}, expected a path or a tensor")
    batch = video[None] if video.ndim == 4 else video
    if batch.ndim != 5 or batch.shape[1] != 3 or not batch.shape[2]:
        raise ValueError(
            f"got a video of shape {tuple(video.shape)}, expected (3, t, h, w) or (b, 3, t, h, w)"
        )
    _check_range(batch, "video")
    frames = batch.float().transpose(1, 2).flatten(0, 1)
    fitted = _fit(frames, height, width).unflatten(0, (len(batch), -1))
    return 2 * fitted.transpose(1, 2) - 1


def read_movie(video: Any) -> tuple[Float[Tensor, "b 3 t h w"], float | None]:
    """A clip in [-1, 1] of its own size, and its frame rate where it is known.

    Raises:
        TypeError: As :func:`load_movie`.
        ValueError: As :func:`load_movie`.
    """
    rate = None
    if isinstance(video, (str, Path)):
        frames, rate = read_video(video)
        video = torch.movedim(frames, -1, 0).float() / 255
    size = video.shape[-2:] if isinstance(video, Tensor) else (0, 0)
    return load_movie(video, *size), rate


def given_pixels(mask: Any, num_frames: int, height: int, width: int) -> Float[Tensor, "b 1 t h w"]:
    """Which pixels are given, 1 where they are.

    Args:
        mask: ``(t,)`` for whole frames, ``(t, h, w)`` for regions, ``(b, 1, t, h, w)`` for regions
            per sample.
        num_frames: Frames of the clip.
        height: Pixels.
        width: Pixels.

    Raises:
        ValueError: If the mask has another shape, or other values than 0 and 1.
    """
    mask = torch.as_tensor(mask).float()
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("got a mask with values besides 0 and 1, expected 1 where given")
    if mask.ndim == 1:
        mask = mask.reshape(1, 1, -1, 1, 1)
    elif mask.ndim == 3:
        mask = mask[None, None]
    if (
        mask.ndim != 5
        or mask.shape[1:3] != (1, num_frames)
        or mask.shape[3:] not in [(1, 1), (height, width)]
    ):
        raise ValueError(
            f"got a mask of shape {tuple(mask.shape)}, expected ({num_frames},), "
            f"({num_frames}, {height}, {width}) or (b, 1, {num_frames}, {height}, {width})"
        )
    return mask.expand(-1, -1, -1, height, width)


def hold(video: Tensor, mask: Tensor) -> Float[Tensor, "b 3 t h w"]:
    """Where a pixel is not given, put the nearest given one in time, earlier ones first; else grey.

    So nothing that is not given has an influence, and the encoder still sees a plausible clip.
    """
    known, filled = mask.clone(), video * mask
    order = range(1, video.shape[2]), range(video.shape[2] - 2, -1, -1)
    for frames, step in zip(order, (1, -1), strict=True):
        for k in frames:
            take = (1 - known[:, :, k]) * known[:, :, k - step]
            filled[:, :, k] += take * filled[:, :, k - step]
            known[:, :, k] += take
    return filled


def given_latents(
    mask: Tensor, strides: tuple[int, int, int], piece: int | None = None
) -> Float[Tensor, "b 1 t h w"]:
    """Which latents are given: those of whose pixels all are.

    Args:
        mask: ``(b, 1, t, h, w)`` over pixels.
        strides: Of the autoencoder.
        piece: Frames that it encodes by themselves, see :class:`vdm.utils.time_grid.TimeGrid`.
    """
    st, sh, sw = strides
    cells = -torch.nn.functional.max_pool3d(-mask, (1, sh, sw))
    sizes = TimeGrid(mask.shape[2], stride=st, piece=piece).groups
    groups = cells.split(sizes, dim=2)
    return torch.cat([group.amin(dim=2, keepdim=True) for group in groups], dim=2)


def open_image(path: Path) -> Image.Image:
    """A picture in a file.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it cannot be read as one.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    try:
        with Image.open(path) as opened:
            return opened.convert("RGB")
    except (OSError, SyntaxError) as error:
        raise ValueError(f"{path}: not a picture that can be read") from error


def _check_range(values: Tensor, name: str) -> None:
    if not values.is_floating_point():
        raise TypeError(f"got {name} of type {values.dtype}, expected floating point in [0, 1]")
    low, high = float(values.min()), float(values.max())
    if not -1e-3 <= low <= high <= 1 + 1e-3:
        raise ValueError(f"got {name} values from {low:g} to {high:g}, expected [0, 1]")


def _resize(image: Image.Image, height: int, width: int) -> Float[Tensor, "3 {height} {width}"]:
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).movedim(-1, 0).float() / 255


def _fit(
    images: Float[Tensor, "b 3 h w"], height: int, width: int
) -> Float[Tensor, "b 3 {height} {width}"]:
    """Resize tensors as pictures of the same values are; those of the right size stay."""
    if images.shape[2:] == (height, width):
        return images
    levels = (images.clamp(0, 1) * 255).round().to(torch.uint8).movedim(1, -1).cpu().numpy()
    return torch.stack([_resize(Image.fromarray(level), height, width) for level in levels])


def show_given(
    exact: Conditioning,
    showing: Any,
    reads: Container[str],
    noise_aug: Float[Tensor, " b"] | None,
    seeds: Sequence[int],
) -> dict[str, Tensor]:
    """The fields of given latents as the network was trained to see them.

    Args:
        exact: Given latents and their mask, if there are any.
        showing: How the network was trained; as they are where it is neither :class:`Showing` nor
            :class:`InPlace`.
        reads: Fields that the network reads.
        noise_aug: Level of noise, one for each sample or for all; the model's own if None.
        seeds: One per sample; the noise is another than that which sampling starts from.
    """
    is_beside = not isinstance(showing, InPlace)
    showing = showing if isinstance(showing, Showing) else Showing()
    fields: dict[str, Tensor] = {}
    if showing.noise is not None and noise_aug is None and "noise_aug" in reads:
        noise_aug = torch.tensor([showing.noise.sampling])
    if noise_aug is not None:
        fields["noise_aug"] = noise_aug
    given, mask = exact.given, exact.given_mask
    if given is None or mask is None:
        return fields | exact.present()
    if not is_beside:
        return fields
    level = eps = None
    if showing.noise is not None and noise_aug is not None:
        level = repeat_to(noise_aug, len(seeds)).to(given)
        own = SampleNoise([derive_seed(seed, "noise_aug") for seed in seeds])
        eps = own.draw(given.shape[1:]).to(given)
    fields["given"] = showing.show(given, mask, level, eps)
    if "given_mask" in reads or "given" not in reads:  # a network that reads neither refuses both
        fields["given_mask"] = mask
    return fields


def keeps_given(showing: Any) -> bool:
    """Whether a model leaves given latents as they are."""
    if isinstance(showing, SeenFrame):
        return showing.keeps_given
    return not isinstance(showing, Showing) or showing.fill.keeps_given


def exact_given(
    raw: dict[str, Tensor], given: tuple[Tensor, Tensor] | None, batch: int
) -> Conditioning:
    """The given latents themselves, which the clip will hold, and their mask, if there are any.

    Args:
        raw: Fields that the user set, which take precedence; those of given latents are taken out.
        given: Latents and mask of given pixels.
        batch: Number of samples.
    """
    found = {} if given is None else {"given": given[0], "given_mask": given[1]}
    found |= {name: raw.pop(name) for name in ("given", "given_mask") if name in raw}
    return Conditioning(**{name: repeat_to(value, batch) for name, value in found.items()})


def keep_given(denoise: Denoise, exact: Conditioning, showing: Any) -> Denoise:
    """A denoiser that knows the given latents, where they are kept: they need no estimate."""
    if exact.given is None or exact.given_mask is None or not keeps_given(showing):
        return denoise
    if isinstance(showing, GivenApart):  # they are put back at the end
        return denoise
    given, known = exact.given.float(), exact.given_mask.float()
    if not isinstance(showing, InPlace):
        return lambda xt, t: torch.lerp(denoise(xt, t), given, known)
    is_clean = known.amin((1, 3, 4))  # a frame has one noise level, so it is given as a whole

    def in_place(xt: Tensor, t: Tensor) -> Tensor:
        seen = torch.lerp(xt, given.to(xt), expand_as(is_clean, xt).to(xt))
        return torch.lerp(denoise(seen, t[:, None] * (1 - is_clean)), given, known)

    return in_place


def put_back(latents: Tensor, exact: Conditioning, showing: Any) -> Tensor:
    """The latents, where given ones are kept bit for bit as given."""
    if exact.given is None or exact.given_mask is None or not keeps_given(showing):
        return latents
    return torch.where(exact.given_mask == 1, exact.given.to(latents), latents)
