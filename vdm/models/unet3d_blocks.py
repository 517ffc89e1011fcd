"""What the levels of a U-Net are made of: options, residual blocks, changes of size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vdm.layers.attention import QKNorm
from vdm.layers.attention_backends import Backend
from vdm.layers.factorization import Factorization, Spatial
from vdm.layers.feedforward import FeedForwardKind
from vdm.layers.frames import FrameConv
from vdm.layers.norms import PerFrameGroupNorm, Statistics, make_group_norm
from vdm.layers.pieces import FRAMES, map_pieces, plus, silu
from vdm.layers.temporal import Stream, TemporalConv

Volume = Float[Tensor, "b c t h w"]
Stage = Literal["input", "down", "middle", "up"]
Context = Literal["text", "image", "both"]


def check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse what is not among the choices.

    Raises:
        ValueError: If so.
    """
    if value not in choices:
        raise ValueError(f"got {name}={value!r}, expected one of {', '.join(choices)}")


@dataclass(frozen=True)
class Heads:
    """Attention heads by their number or by their width; both, where they need not fill the layer.

    Args:
        number: How many; None for as many as fill the layer.
        dim: Width of a head; None for that which fills the layer.

    Raises:
        ValueError: If neither is said.
    """

    number: int | None = None
    dim: int | None = None

    def __post_init__(self) -> None:
        """Check that something is said."""
        if self.number is None and self.dim is None:
            raise ValueError("got neither the number nor the dim of heads, expected one or both")

    def of(self, channels: int) -> tuple[int, int]:
        """Number and width of the heads of a layer.

        Raises:
            ValueError: If the heads do not fill it.
        """
        if self.number is not None and self.dim is not None:
            return self.number, self.dim
        given = self.number or self.dim or 1
        if channels % given:
            name = "number" if self.dim is None else "dim"
            nearest = max(n for n in range(1, given + 1) if channels % n == 0)
            raise ValueError(
                f"got heads.{name}={given}, expected a divisor of {channels}, e.g. {nearest}"
            )
        rest = channels // given
        return (given, rest) if self.dim is None else (rest, given)


@dataclass(frozen=True)
class Epsilons:
    """What is added to the variances, place by place.

    Args:
        down: Residual blocks of levels without attention on the way down.
        attention_down: Those of levels with attention.
        middle: Residual blocks in the middle.
        up: Residual blocks on the way up.
        transformer: Group normalisation before a transformer.
        layer: Layer normalisations in it.
        final: Normalisation before the last convolution.
    """

    down: float = 1e-5
    attention_down: float = 1e-5
    middle: float = 1e-5
    up: float = 1e-5
    transformer: float = 1e-6
    layer: float = 1e-5
    final: float = 1e-5


@dataclass(frozen=True)
class UNetOptions:
    """What is inside the blocks of a U-Net.

    Args:
        heads: Attention heads.
        num_groups: Groups of every group normalisation.
        statistics: Whether residual blocks and the last normalisation see one frame at a time or
            all frames of a clip. Those of spatial transformers always see one frame.
        spatial: Who attends to whom in spatial transformers; usually the tokens of a frame to each
            other.
        feedforward: Kind of feed-forward network.
        mlp_ratio: Its hidden width; a gated one has two thirds of it.
        qkv_bias: Whether the maps to queries, keys and values have offsets.
        qk_norm: Normalisation of queries and keys, or None.
        context: What cross-attention reads: states of the text encoder, of the image encoder, or of
            both, each with keys and values of its own.
        only_context: Levels in which tokens do not attend to each other but twice to the context.
        eps: Added to the variances.
        backend: Attention kernel, see :func:`vdm.layers.attention_backends.attend`.
        gradient_checkpointing: In training, compute a layer's activations again instead of keeping
            them.
    """

    heads: Heads = Heads(dim=32)
    num_groups: int = 16
    statistics: Statistics = "frame"
    spatial: Factorization = field(default_factory=Spatial)
    feedforward: FeedForwardKind = "geglu"
    mlp_ratio: float = 4.0
    qkv_bias: bool = False
    qk_norm: QKNorm | None = field(default_factory=QKNorm)
    context: Context = "text"
    only_context: Sequence[int] = ()
    eps: Epsilons = Epsilons()
    backend: Backend = "auto"
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        """Check the choice that no layer checks."""
        check_choice("context", self.context, get_args(Context))


@dataclass(frozen=True)
class Place:
    """Where in the network a layer sits.

    Args:
        stage: Before the levels, on the way down, in the middle, on the way up.
        channels: Width.
        level_dim: Width of the noise level's embedding.
        context_dim: Width of what cross-attention reads; None where there is none.
        has_attention: Whether there is a spatial transformer.
        options: What is inside.
        reads_only: Whether tokens do not attend to each other but to the context alone.
    """

    stage: Stage
    channels: int
    level_dim: int
    context_dim: int | None
    has_attention: bool
    options: UNetOptions
    reads_only: bool = False

    @property
    def eps(self) -> float:
        """Added to the variances of residual blocks."""
        eps = self.options.eps
        if self.stage == "down":
            return eps.attention_down if self.has_attention else eps.down
        return eps.up if self.stage == "up" else eps.middle


@dataclass(frozen=True)
class Signals:
    """What every layer is told in one call.

    Args:
        level: Embedding of the noise level per sample or per frame, after its nonlinearity.
        context: What cross-attention reads.
        context_mask: True where that is valid.
        image: Tokens of a picture that cross-attention reads beside the text.
        stream: The frames before, of a clip that comes in pieces.
    """

    level: Float[Tensor, "b frames e"]
    context: Float[Tensor, "b n context_dim"] | None = None
    context_mask: Bool[Tensor, "b 1 1 n"] | None = None
    image: Float[Tensor, "b m context_dim"] | None = None
    stream: Stream | None = None

    @property
    def start(self) -> int:
        """Number of the first frame."""
        return 0 if self.stream is None else self.stream.num_frames


class ResBlock(nn.Module):
    """Two convolutions of every frame with a shortcut, told the noise level between them.

    The second convolution starts at zero: a new block is the identity, or its shortcut where the
    width changes.

    Args:
        place: Where the block sits.
        in_channels: Channels of the input.
        convs_in_time: One or no convolution over time after each of the two; added to what goes in.

    Source:
        Ho et al. 2020, arXiv:2006.11239, appendix B; time: Ho et al. 2022, "Video Diffusion
        Models", arXiv:2204.03458, sec. 3, Singer et al. 2022, "Make-A-Video", arXiv:2209.14792,
        sec. 3.2.1.
    """

    def __init__(
        self, place: Place, in_channels: int, convs_in_time: Sequence[TemporalConv] = ()
    ) -> None:
        super().__init__()
        options, channels = place.options, place.channels
        norm = (options.num_groups, place.eps, options.statistics)
        self.norm1 = make_group_norm(in_channels, *norm)
        self.conv1 = FrameConv(in_channels, channels)
        self.modulation = nn.Linear(place.level_dim, channels)
        self.norm2 = make_group_norm(channels, *norm)
        self.conv2 = FrameConv(channels, channels)
        self.shortcut = (
            nn.Identity() if in_channels == channels else FrameConv(in_channels, channels, 1)
        )
        self.convs_in_time = nn.ModuleList(convs_in_time)
        sees_frames = options.statistics == "frame" and not convs_in_time
        self.blind_axis = FRAMES if sees_frames else None

    def close(self) -> None:
        """Start as the identity."""
        for conv in (self.conv2, *self.convs_in_time):
            conv.close()  # type: ignore[operator]

    def _in_time(self, x: Tensor, half: int, stream: Stream | None) -> Tensor:
        return plus(self.convs_in_time[half](x, stream), x) if len(self.convs_in_time) else x

    def forward(
        self, x: Float[Tensor, "b c_in t h w"], signals: Signals
    ) -> Float[Tensor, "b c t h w"]:
        """Transform the frames."""
        told = rearrange(self.modulation(signals.level), "b t c -> b c t 1 1")

        def transform(x: Tensor, told: Tensor) -> Tensor:
            h = self._in_time(self.conv1(silu(self.norm1(x))), 0, signals.stream)
            h = self._in_time(self.conv2(silu(self.norm2(plus(h, told)))), 1, signals.stream)
            return plus(h, self.shortcut(x))

        return map_pieces(transform, x, told, axis=self.blind_axis)


class FinalLayer(nn.Module):
    """Normalisation, nonlinearity and the last convolution, which starts at zero.

    Args:
        channels: Channels of the input.
        out_channels: Channels of the prediction.
        options: Groups, statistics and eps.
    """

    def __init__(self, channels: int, out_channels: int, options: UNetOptions) -> None:
        super().__init__()
        eps = options.eps.final
        self.norm = make_group_norm(channels, options.num_groups, eps, options.statistics)
        self.conv = FrameConv(channels, out_channels)

    def close(self) -> None:
        """Start with a prediction of zero."""
        self.conv.close()

    def forward(self, x: Volume) -> Float[Tensor, "b c_out t h w"]:
        """The prediction."""
        axis = FRAMES if isinstance(self.norm, PerFrameGroupNorm) else None
        return map_pieces(lambda x: self.conv(silu(self.norm(x))), x, axis=axis)
