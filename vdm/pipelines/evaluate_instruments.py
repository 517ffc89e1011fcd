"""What an evaluation measures clips with, made before any work so that what is missing is said."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from vdm.metrics import i3d, transnet
from vdm.metrics.clip_agreement import NAME as CLIP
from vdm.metrics.clip_agreement import ClipAgreement
from vdm.metrics.clip_measures import CLIP_MEASURES, ClipMeasure
from vdm.metrics.clips import Clips
from vdm.metrics.frame_consistency import CLIP as CLIP_NAME
from vdm.metrics.frame_consistency import DINO, background_consistency, subject_consistency
from vdm.metrics.frechet import Features
from vdm.metrics.i3d import Resize, i3d_features
from vdm.metrics.i3d_files import find_i3d
from vdm.metrics.inception import NUM_CLASSES, NUM_FEATURES, RESIZE_RULE, Inception
from vdm.metrics.lpips import LPIPS
from vdm.metrics.lpips import NAME as LPIPS_NAME
from vdm.metrics.motion import EXTRACTOR as FLOW
from vdm.metrics.motion import motion_features
from vdm.metrics.transnet import load_transnet, transnet_features
from vdm.metrics.vbench import BACKGROUND, SUBJECT
from vdm.metrics.videomae import VideoMAE
from vdm.pipelines.evaluate_records import pack

Source = str | Path | None


@dataclass(frozen=True)
class Weights:
    """Files and folders of weights, by what they are for; see :func:`vdm.pipelines.evaluate`."""

    transnet: Source = None
    i3d: Source = None
    inception: Source = None
    lpips: Source = None
    videomae: Source = None
    clip: Source = None
    dino: Source = None
    i3d_resize: Resize = "torch-bilinear"


@dataclass(frozen=True)
class Extractor:
    """Turns clips into rows of features.

    Args:
        id: What protocol ids call it, with the hash of its weights.
        features: One row per clip.
        key: Under which name records keep the rows: other weights are other measurements.
        resize: How frames are resized for it.
        per_frame: Length of a frame's features, where a row is those of all frames.
        min_frames: Fewest frames that a clip may have.
        is_network: Whether many clips at once are faster than one by one.
    """

    id: str
    features: Callable[[Clips], Features]
    key: str
    resize: str = ""
    per_frame: int | None = None
    min_frames: int = 1
    is_network: bool = True

    def rows(self, clips: Clips) -> list[str]:
        """Features as records keep them."""
        return [pack(row) for row in self.features(clips)]


@dataclass(frozen=True)
class Instruments:
    """Everything that clips are measured with.

    Args:
        extractors: By the names of their networks.
        measures: Numbers of single clips.
        lpips: Compares reconstructions with inputs.
    """

    extractors: Mapping[str, Extractor]
    measures: Sequence[ClipMeasure]
    lpips: LPIPS | None = None

    def key(self, measured: str) -> str:
        """Under which name records keep what a protocol needs."""
        if measured in self.extractors:
            return self.extractors[measured].key
        if measured == LPIPS_NAME and self.lpips is not None:
            return f"{LPIPS_NAME}/{self.lpips.id}"
        keys = {measure.name: measure.key for measure in self.measures}
        return keys.get(measured, measured)

    @property
    def feature_keys(self) -> set[str]:
        """The keys of features."""
        return {extractor.key for extractor in self.extractors.values()}

    def without_network(self, names: Container[str]) -> dict[str, Callable[[Clips], list[Any]]]:
        """What measures clips one by one, by the names under which records keep it.

        Args:
            names: Those that are wanted.
        """
        found: dict[str, Callable[[Clips], list[Any]]] = {
            one.key: one.rows for one in self.extractors.values() if not one.is_network
        }
        found |= {one.key: one.measure for one in self.measures if not one.weights}
        return {key: measure for key, measure in found.items() if key in names}


def make_instruments(
    protocols: Sequence[str], networks: Sequence[str], weights: Weights
) -> Instruments:
    """What some protocols need.

    Args:
        protocols: Their names.
        networks: Names of the networks whose features they compare.
        weights: Where weights are that no package brings.

    Raises:
        FileNotFoundError: If a file is not there.
        ImportError: If a package that is needed is not installed.
        ValueError: If weights are wanted but not named, or not the ones that are expected.
    """

    @cache
    def inception() -> Inception:
        return Inception(_named(weights.inception, "fid and is", "--inception-weights FILE"))

    made = {name: _extractor(name, weights, inception) for name in dict.fromkeys(networks)}
    measures = [measure for measure in CLIP_MEASURES if measure.name in protocols]
    if by_clip := [name for name in (CLIP, BACKGROUND) if name in protocols]:
        flag = f"--clip-weights FOLDER, or {CLIP_NAME}"
        clip = ClipAgreement(_named(weights.clip, by_clip[0], flag))
        both = {CLIP: clip.measure(), BACKGROUND: background_consistency(clip)}
        measures += [both[name] for name in by_clip]
    if SUBJECT in protocols:
        flag = f"--dino-weights FOLDER, or {DINO}"
        measures.append(subject_consistency(_named(weights.dino, SUBJECT, flag)))
    lpips = None
    if LPIPS_NAME in protocols:
        lpips = LPIPS(_named(weights.lpips, LPIPS_NAME, "--lpips-weights FILE"))
    return Instruments(made, measures, lpips)


def _extractor(name: str, weights: Weights, inception: Callable[[], Inception]) -> Extractor:
    """An extractor by the name of its network."""
    if name == "flow":
        return Extractor(name, motion_features, FLOW, is_network=False)
    if name == "transnet":
        features = partial(transnet_features, network=load_transnet(weights.transnet))
        return Extractor(transnet.EXTRACTOR, features, name, transnet.RESIZE_RULE)
    if name == "i3d":
        network, told = find_i3d(weights.i3d)
        features = partial(i3d_features, network=network, resize=weights.i3d_resize)
        rule = i3d.RESIZES[weights.i3d_resize]
        key = name if (told, rule) == (i3d.EXTRACTOR, i3d.RESIZE_RULE) else f"{told}/{rule}"
        return Extractor(told, features, key, rule, min_frames=i3d.MIN_FRAMES)
    if name == "videomae":
        mae = VideoMAE(_named(weights.videomae, "fvd/videomae", "--videomae-weights FOLDER|NAME"))
        return Extractor(mae.id, mae, mae.id, mae.resize, min_frames=mae.num_frames)
    image = inception()
    if name == "classes":
        key, length = f"{image.id}/classes", NUM_CLASSES
        return Extractor(image.id, image.classes, key, RESIZE_RULE, length)
    return Extractor(image.id, image.pool, image.id, RESIZE_RULE, NUM_FEATURES)


def _named(source: Source, protocol: str, flag: str) -> str | Path:
    if source is None:
        raise ValueError(f"{protocol} needs weights that no package brings: expected {flag}")
    return source
