"""The VAE of latent diffusion on images, frame by frame, with a decoder that may look over time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from vdm.autoencoder.latents import check_video
from vdm.layers.attention import Attention
from vdm.layers.frames import FrameConv, FrameUpsample
from vdm.layers.norms import make_group_norm
from vdm.layers.pieces import FRAMES, MIN_PIXELS, map_pieces, num_frames, num_rows, plus, silu
from vdm.layers.temporal import Learned, TemporalConv, normed_conv
from vdm.types import Autoencoder, Latents, Video
from vdm.utils.config import configurable
from vdm.utils.tensors import fold_frames, unfold_frames

Volume = Float[Tensor, "b c t h w"]
Step = Callable[[Tensor], Tensor]

EPS = 1e-6  # of everything within frames
EPS_IN_TIME = 1e-5


class ResBlock(nn.Module):
    """Two convolutions with a shortcut.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        num_groups: Groups of the normalisations.
    """

    def __init__(self, in_channels: int, channels: int, num_groups: int) -> None:
        super().__init__()
        self.norm1 = make_group_norm(in_channels, num_groups, EPS)
        self.conv1 = FrameConv(in_channels, channels)
        self.norm2 = make_group_norm(channels, num_groups, EPS)
        self.conv2 = FrameConv(channels, channels)
        self.shortcut = (
            nn.Identity() if in_channels == channels else FrameConv(in_channels, channels, 1)
        )

    def forward(self, x: Float[Tensor, "b c_in t h w"]) -> Volume:
        """Transform the frames."""

        def transform(x: Tensor) -> Tensor:
            h = self.conv1(silu(self.norm1(x)))
            h = self.conv2(silu(self.norm2(h)))
            return plus(h, self.shortcut(x))

        return map_pieces(transform, x, axis=FRAMES)


class ResBlockInTime(nn.Module):
    """Two convolutions over time with a shortcut; statistics are those of all frames.

    Args:
        channels: Channels.
        num_groups: Groups of the normalisations.
    """

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        self.norm1 = make_group_norm(channels, num_groups, EPS_IN_TIME, "clip")
        self.conv1 = TemporalConv(channels, channels)
        self.norm2 = make_group_norm(channels, num_groups, EPS_IN_TIME, "clip")
        self.conv2 = TemporalConv(channels, channels)

    def forward(self, x: Volume, blend: Callable[[Tensor, Tensor], Tensor]) -> Volume:
        """Couple the frames; without gradients, what goes in is written over.

        Args:
            x: A clip.
            blend: How the result meets what went in.
        """
        h = normed_conv(self.norm1, self.conv1, x)
        finish = lambda h, x: blend(x, plus(h, x))  # noqa: E731
        return normed_conv(self.norm2, self.conv2, h, finish=finish, onto=x)


class SpatioTemporalResBlock(nn.Module):
    """A block of every frame, then one over time, blended by one learned number.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the output.
        num_groups: Groups of the normalisations.

    Source:
        Blattmann et al. 2023, "Stable Video Diffusion", arXiv:2311.15127, appendix D.
    """

    def __init__(self, in_channels: int, channels: int, num_groups: int) -> None:
        super().__init__()
        self.spatial = ResBlock(in_channels, channels, num_groups)
        self.temporal = ResBlockInTime(channels, num_groups)
        self.blend = Learned(initial=0.0, switched=True).make()

    def forward(self, x: Float[Tensor, "b c_in t h w"]) -> Volume:
        """Transform the frames and couple them."""
        for step in self.steps():
            x = step(x)
        return x

    def steps(self) -> list[Step]:
        """What is done one after the other."""
        return [self.spatial, partial(self.temporal, blend=self.blend)]


class FrameAttention(nn.Module):
    """One head of attention over the places of every frame, normalised before and added.

    Args:
        channels: Channels.
        num_groups: Groups of the normalisation.
    """

    def __init__(self, channels: int, num_groups: int) -> None:
        super().__init__()
        self.norm = make_group_norm(channels, num_groups, EPS)
        self.attention = Attention(channels, 1)

    def forward(self, x: Volume) -> Volume:
        """Let the places of every frame attend to each other."""

        def attend(x: Tensor) -> Tensor:
            tokens = rearrange(self.norm(x), "b c t h w -> (b t) (h w) c")
            b, _, t, h, w = x.shape
            mixed = rearrange(
                self.attention(tokens), "(b t) (h w) c -> b c t h w", b=b, t=t, h=h, w=w
            )
            return plus(mixed, x)

        return map_pieces(attend, x, axis=FRAMES)


class Shrink(nn.Module):
    """A strided convolution of frames that are padded below and on the right alone.

    Args:
        channels: Channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Volume) -> Float[Tensor, "b c t h_out w_out"]:
        """Halve every frame."""
        frames = F.pad(fold_frames(x), (0, 1, 0, 1))
        return unfold_frames(self.conv(frames), len(x))


class Enlarge(FrameUpsample):
    """Twice as high and wide: pixels are repeated, then a convolution.

    A pixel of the output meets 2 x 2 different ones, so each of the four that stand for one pixel
    is convolved with a kernel of that size, of sums of weights: 4 products instead of 9, and the
    repeated pixels are nowhere in memory, nor are results twice but for a few rows.
    """

    def forward(self, x: Volume) -> Float[Tensor, "b c_out t h_out w_out"]:  # type: ignore[override]
        """Double every frame."""
        frames = fold_frames(x)
        n, _, h, w = frames.shape
        weight, bias = self.conv.weight, self.conv.bias
        sums = weight.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
        kernels = torch.einsum("yam,oimn,xbn->yxoabi", sums, weight, sums).contiguous()
        kernels = rearrange(kernels, "y x o a b i -> y x o i a b")  # channels last, as frames are
        out = torch.empty(
            (n, len(weight), 2 * h, 2 * w),
            dtype=x.dtype,
            device=x.device,
            memory_format=torch.channels_last,
        )
        lines, some = out.unflatten(2, (h, 2)), num_frames(x)
        for at in range(0, n, some):
            few = frames[at : at + some]
            step = num_rows(few, MIN_PIXELS // 2)
            for start in range(0, h, step):
                above = min(start, 1)
                rows = few[:, :, start - above : start + step + 1]
                size = min(step, h - start)
                for row in range(2):
                    for column in range(2):
                        part = F.conv2d(rows, kernels[row, column], bias, padding=1)
                        part = part[:, :, above + row :, column : column + w]
                        into = lines[at : at + some, :, start : start + size, row, column::2]
                        into.copy_(part[:, :, :size])
        return unfold_frames(out, len(x))


class Level(nn.Module):
    """Blocks of one size, and the way to the next one.

    Args:
        blocks: The blocks.
        resize: The way to the next size; None at the end.
    """

    def __init__(self, blocks: Sequence[nn.Module], resize: nn.Module | None) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.resize = resize

    def forward(self, x: Volume) -> Float[Tensor, "b c_out t h_out w_out"]:
        """Transform a clip."""
        for step in self.steps():
            x = step(x)
        return x

    def steps(self) -> list[Step]:
        """What is done one after the other."""
        steps = steps_of(self.blocks)
        return steps if self.resize is None else [*steps, self.resize]


def steps_of(modules: Iterable[nn.Module]) -> list[Step]:
    """What modules do one after the other, step by step.

    Whoever runs the steps keeps nothing but the last result, where a module's caller keeps what
    went into it until it is done.
    """
    return [step for module in modules for step in getattr(module, "steps", lambda m=module: [m])()]


class Encoder(nn.Module):
    """From frames to moments: down, the middle, and out.

    Args:
        latent_channels: Channels of the latents; mean and log-variance have as many each.
        widths: Channels of every level, from the finest.
        depth: Blocks of every level.
        num_groups: Groups of the normalisations.
    """

    def __init__(
        self, latent_channels: int, widths: Sequence[int], depth: int, num_groups: int
    ) -> None:
        super().__init__()
        self.embed = FrameConv(3, widths[0])
        levels, width = [], widths[0]
        for number, next_width in enumerate(widths):
            blocks = []
            for _ in range(depth):
                blocks.append(ResBlock(width, next_width, num_groups))
                width = next_width
            levels.append(Level(blocks, Shrink(width) if number < len(widths) - 1 else None))
        self.levels = nn.ModuleList(levels)
        self.middle = nn.Sequential(
            ResBlock(width, width, num_groups),
            FrameAttention(width, num_groups),
            ResBlock(width, width, num_groups),
        )
        self.norm = make_group_norm(width, num_groups, EPS)
        self.conv = FrameConv(width, 2 * latent_channels)

    def forward(self, video: Video) -> Float[Tensor, "b c t h w"]:
        """Mean and log-variance, one behind the other."""
        # Frames are then views of the clip.
        x = self.embed(video.contiguous(memory_format=torch.channels_last_3d))
        for step in steps_of((*self.levels, *self.middle)):
            x = step(x)
        return map_pieces(lambda x: self.conv(silu(self.norm(x))), x, axis=FRAMES)


class Decoder(nn.Module):
    """From latents to frames: the middle, up, and out; every block may look over time as well.

    Args:
        latent_channels: Channels of the latents.
        widths: Channels of every level, from the finest.
        depth: Blocks of every level; there is one more on the way up.
        num_groups: Groups of the normalisations.
        is_temporal: Whether blocks have a half that looks over time, and a last convolution does.
    """

    def __init__(
        self,
        latent_channels: int,
        widths: Sequence[int],
        depth: int,
        num_groups: int,
        is_temporal: bool,
    ) -> None:
        super().__init__()
        block = SpatioTemporalResBlock if is_temporal else ResBlock
        width = widths[-1]
        self.embed = FrameConv(latent_channels, width)
        self.middle = nn.Sequential(
            block(width, width, num_groups),
            FrameAttention(width, num_groups),
            block(width, width, num_groups),
        )
        levels = []
        for number, next_width in reversed(list(enumerate(widths))):
            blocks = []
            for _ in range(depth + 1):
                blocks.append(block(width, next_width, num_groups))
                width = next_width
            levels.append(Level(blocks, Enlarge(width) if number else None))
        self.levels = nn.ModuleList(levels)
        self.norm = make_group_norm(width, num_groups, EPS)
        self.conv = FrameConv(width, 3)
        self.conv_in_time = TemporalConv(3, 3) if is_temporal else None

    def forward(self, raw: Latents) -> Video:
        """Frames of latents."""
        x = self.embed(raw.contiguous(memory_format=torch.channels_last_3d))
        for step in steps_of((*self.middle, *self.levels)):
            x = step(x)
        x = map_pieces(lambda x: self.conv(silu(self.norm(x))), x, axis=FRAMES)
        return x if self.conv_in_time is None else self.conv_in_time(x)


@configurable
class ImageVAE(Autoencoder):
    """The VAE of Stable Diffusion, and of Stable Video Diffusion with its temporal decoder.

    Args:
        latent_channels: Channels of the latents.
        widths: Channels of every level, from the finest.
        depth: Blocks of every level of the encoder; the decoder has one more.
        num_groups: Groups of the normalisations.
        scale: What raw latents are multiplied by.
        is_temporal: Whether the decoder looks over time. It then sees the frames that are decoded
            together, so the size of the pieces changes the result.

    Source:
        Rombach et al. 2022, arXiv:2112.10752; the temporal decoder: Blattmann et al. 2023, "Stable
        Video Diffusion", arXiv:2311.15127, appendix D.
    """

    is_causal = False

    def __init__(
        self,
        latent_channels: int = 4,
        widths: Sequence[int] = (128, 256, 512, 512),
        depth: int = 2,
        num_groups: int = 32,
        scale: float = 0.18215,
        is_temporal: bool = False,
    ) -> None:
        super().__init__()
        self.latent_channels, self.scale, self.is_temporal = latent_channels, scale, is_temporal
        self.is_chunk_exact = not is_temporal
        side = 2 ** (len(widths) - 1)
        self.strides = (1, side, side)
        self.encoder = Encoder(latent_channels, widths, depth, num_groups)
        self.to_moments = FrameConv(2 * latent_channels, 2 * latent_channels, 1)
        # The temporal decoder takes latents as they are.
        self.from_latents: nn.Module = nn.Identity()
        if not is_temporal:
            self.from_latents = FrameConv(latent_channels, latent_channels, 1)
        self.decoder = Decoder(latent_channels, widths, depth, num_groups, is_temporal)

    def encode_moments(self, video: Video) -> tuple[Latents, Latents]:
        """Mean and log-variance of raw latents.

        Raises:
            ValueError: If the height or width is not a multiple of the stride.
        """
        check_video(video, self.strides)
        mean, logvar = self.to_moments(self.encoder(video)).chunk(2, dim=1)
        return mean, logvar.clamp(-30, 20)

    def encode(
        self, video: Video, sample: bool = False, generator: torch.Generator | None = None
    ) -> Latents:
        """Latents in the scale that networks are trained with.

        Args:
            video: Clips in [-1, 1], of any number of frames.
            sample: Draw from the posterior instead of taking its mean.
            generator: Where the draw comes from, made there in float32, frame by frame, and then
                moved.

        Raises:
            ValueError: If the height or width is not a multiple of the stride.
        """
        mean, logvar = self.encode_moments(video)
        if sample:
            device = mean.device if generator is None else generator.device
            frames = mean.transpose(1, 2).shape
            eps = torch.randn(frames, generator=generator, dtype=torch.float32, device=device)
            mean = mean + torch.exp(0.5 * logvar) * eps.transpose(1, 2).to(mean)
        return self.scale * mean

    def decode_raw(self, raw: Latents, num_frames: int | None = None) -> Video:
        """Clips from raw latents, cut to ``num_frames``."""
        return self.decoder(self.from_latents(raw))[:, :, :num_frames]

    def decode(
        self, latents: Latents, num_frames: int | None = None, decode_frames: int | None = None
    ) -> Video:
        """Clips from latents.

        Args:
            latents: In the scale that networks are trained with.
            num_frames: Frames to return; by default all.
            decode_frames: Frames decoded at a time, all by default.

        Returns:
            Clips, nominally in [-1, 1], not clamped.

        Raises:
            ValueError: If the latents have another number of channels, there are fewer frames than
                asked for, or no frame is decoded at a time.
        """
        if latents.ndim != 5 or latents.shape[1] != self.latent_channels:
            raise ValueError(
                f"got latents {tuple(latents.shape)}, expected (b, {self.latent_channels}, t, h, w)"
            )
        length = latents.shape[2]
        for name, value, most in (
            ("num_frames", num_frames, length),
            ("decode_frames", decode_frames, math.inf),
        ):
            if value is not None and not 1 <= value <= most:
                raise ValueError(f"got {name}={value}, expected 1 to {most} for these latents")
        chunks = (latents / self.scale).split(decode_frames or length, dim=2)
        return torch.cat([self.decode_raw(chunk) for chunk in chunks], dim=2)[:, :, :num_frames]

    def reconstruct(self, video: Video) -> Video:
        """Encode and decode."""
        return self.decode(self.encode(video))
