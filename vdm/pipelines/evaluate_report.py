"""From measurements to scores, to a table and to JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from einops import rearrange

from vdm import world
from vdm.data.clip_cache import ClipSource
from vdm.data.sources import ShapesSource
from vdm.metrics.captions import (
    CaptionScore,
    caption_accuracy,
    failures_by_pair,
    score_caption,
    swapped,
)
from vdm.metrics.clip_agreement import NAME as CLIP
from vdm.metrics.clip_measures import CLIP_MEASURES, ClipMeasure
from vdm.metrics.frechet import frechet_distance_inf, frechet_score, frechet_score_of_frames
from vdm.metrics.inception import SPLITS, inception_score
from vdm.metrics.lpips import NAME as LPIPS
from vdm.metrics.mmd import Kernel, mmd_score
from vdm.metrics.motion import EXTRACTOR as FLOW
from vdm.metrics.oracle import ObjectReading, Reading
from vdm.metrics.score import Protocol, Score, difference_interval, mean_score
from vdm.metrics.temporal import Jitter, mean_jitter
from vdm.metrics.vbench import BACKGROUND, SUBJECT
from vdm.pipelines.evaluate_instruments import Extractor, Instruments
from vdm.pipelines.evaluate_records import Records, unpack
from vdm.pipelines.evaluate_sources import CaptionScenes

if TYPE_CHECKING:
    from rich.table import Table

GENERATED, REAL, RECONSTRUCTED = "generated", "real", "reconstructed"
SWAPPED = "swapped captions"
SOURCES = (GENERATED, REAL, RECONSTRUCTED, "static copy", "shuffled frames", SWAPPED)
NUM_FAILURES = 10
MIN_FOR_LIMIT = 8
"""Fewest clips from which a distance can be followed to infinitely many."""


@dataclass(frozen=True)
class FeatureDistance:
    """A distance between features of the model's clips and of real ones.

    Args:
        name: What it is called.
        measured: Name of the network whose features are compared.
        metric: What protocol ids call it; the extractor follows.
        estimator: Settings of the extractor, and of the distance.
        ddof: Of covariances, see :func:`vdm.metrics.frechet.frechet_distance`.
        kernel: A squared MMD with this kernel, instead of a Frechet distance.
    """

    name: str
    measured: str
    metric: str
    estimator: str = ""
    ddof: int = 1
    kernel: Kernel | None = None

    def score(
        self,
        real: np.ndarray,
        generated: np.ndarray,
        more_real: np.ndarray | None,
        protocol: Protocol,
        num_resamples: int,
        per_frame: int | None = None,
    ) -> Score:
        """Between real features and generated ones, with other real ones for the floor if any."""
        if per_frame is not None:
            pattern = "n (t d) -> n t d"
            x, y = (rearrange(rows, pattern, d=per_frame) for rows in (real, generated))
            more = None if more_real is None else rearrange(more_real, pattern, d=per_frame)
            return frechet_score_of_frames(x, y, protocol, more, self.ddof)
        if self.kernel is None:
            return frechet_score(
                real, generated, protocol, more_real, num_resamples, ddof=self.ddof
            )
        return mmd_score(real, generated, protocol, more_real, num_resamples, kernel=self.kernel)


DISTANCES = (
    FeatureDistance("fmd/flow", "flow", "fmd", FLOW),
    FeatureDistance("fd/transnet", "transnet", "fd"),
    FeatureDistance("fvd", "i3d", "fvd"),
    FeatureDistance("fvd/ddof0", "i3d", "fvd", "ddof0", ddof=0),
    FeatureDistance("kvd", "i3d", "kvd", "kid", kernel="kid"),
    FeatureDistance("fvd/videomae", "videomae", "fvd", "ddof0", ddof=0),
    FeatureDistance("fid", "inception", "fid"),
)
INCEPTION_SCORE = "is"


@dataclass(frozen=True)
class DataSet:
    """Data to score on.

    Args:
        name: What it is called.
        source: Its clips.
        n: Clips to score.
        num_frames: Frames per clip.
        size: Height and width.
        fps: Frames per second, where it is the same for all clips.
        content: Tells folders of the same name apart.
        resize: How frames reached their size.
    """

    name: str
    source: ClipSource
    n: int
    num_frames: int
    size: tuple[int, int]
    fps: float | None
    content: str = ""
    resize: str = "native"

    def protocol(self, metric: str, estimator: str = "", resize: str = "") -> Protocol:
        """The protocol of a metric on this data; ``resize`` is what the metric itself does."""
        height, width = self.size
        is_world = isinstance(self.source, ShapesSource | CaptionScenes)
        origin = f"moving-shapes-{world.VERSION}/" if is_world else ""
        name = self.name.replace(" ", "-").replace("/", ":")
        name += f"@{self.content}" if self.content else ""
        return Protocol(
            metric,
            self.num_frames,
            self.fps,
            str(height) if height == width else f"{height}x{width}",
            f"{origin}{name}:start0",
            self.n,
            f"{self.resize}+{resize}" if resize else self.resize,
            estimator,
        )


@dataclass
class Evaluation:
    """Scores by data, source of the clips and name of the score.

    Args:
        about: The model and its settings.
        scores: ``scores[data][source][name]``.
        failures: For each data set, the pairs of attributes that failed most, as plain data.
        gaps: Whole captions on test-iid minus test-comp, in points, by number of objects.
        jitter_passes: For each data set, whether the model's jitter is small enough.
        clamped: For each data set and source, the share of values that had to be clamped.
    """

    about: Mapping[str, Any]
    scores: dict[str, dict[str, dict[str, Score]]] = field(default_factory=dict)
    failures: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    gaps: dict[str, dict[str, Any]] = field(default_factory=dict)
    jitter_passes: dict[str, bool] = field(default_factory=dict)
    clamped: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        scores = {
            data: {
                source: {name: score.to_dict() for name, score in named.items()}
                for source, named in sources.items()
            }
            for data, sources in self.scores.items()
        }
        return {**asdict(self), "about": dict(self.about), "scores": scores}

    def save(self, path: str | Path) -> Path:
        """Write everything as JSON, whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.partial")
        temporary.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
        return temporary.replace(path)

    def tables(self) -> Iterator[Table]:
        """One table per protocol, for a terminal."""
        from rich.table import Table

        for title in TITLES:
            rows = list(self._rows(title))
            if not rows:
                continue
            columns = list(dict.fromkeys(name for *_, named in rows for name in named))
            table = Table(title=title, title_justify="left")
            for name in ("data", "clips", "n"):
                table.add_column(name, justify="right" if name == "n" else "left")
            for name in columns:
                table.add_column(name.removeprefix(f"{title}/"), justify="right")
            for data, source, named in rows:
                n = max(score.n_gen for score in named.values())
                cells = [_cell(named[name]) if name in named else "" for name in columns]
                table.add_row(data, source, str(n), *cells)
            yield table

    def _rows(self, title: str) -> Iterator[tuple[str, str, dict[str, Score]]]:
        for data, sources in self.scores.items():
            for source in SOURCES:
                every = sources.get(source, {})
                named = {name: score for name, score in every.items() if _title(name) == title}
                if named:
                    yield data, source, named


TITLES = (
    "caption-accuracy",
    "reconstruction",
    LPIPS,
    *(distance.name for distance in DISTANCES),
    INCEPTION_SCORE,
    *(measure.name for measure in CLIP_MEASURES),
    CLIP,
    SUBJECT,
    BACKGROUND,
)
"""Protocols in the order of their tables."""


def _title(name: str) -> str:
    """The protocol that a score belongs to."""
    fitting = [t for t in TITLES if name == t or name.startswith((f"{t}/", f"{t}_"))]
    return max(fitting, key=len)


def _cell(score: Score) -> str:
    if score.not_enough:
        return f"not enough:\n{score.not_enough}"
    text = f"{score.value:.3g}" if score.value < 10 else f"{score.value:.1f}"
    if score.interval is not None:
        text += f"\n{score.interval[0]:.3g}-{score.interval[1]:.3g}"
    if score.floor is not None:
        text += f"\nfloor {score.floor:.3g}"
    return text + ("\nrank-deficient" if score.rank_deficient else "")


def summarise(
    sets: Sequence[DataSet],
    records: Records,
    protocols: Sequence[str],
    instruments: Instruments,
    about: Mapping[str, Any],
    baselines: bool,
    num_resamples: int,
) -> Evaluation:
    """Turn measurements into scores.

    Args:
        sets: The data.
        records: All measurements.
        protocols: Which scores to make of them.
        instruments: What the measurements were made with.
        about: The model and its settings.
        baselines: Whether the baselines were measured too.
        num_resamples: Bootstrap resamples.
    """
    result = Evaluation(about)
    for one in sets:
        scores = result.scores.setdefault(one.name, {})
        for source in (GENERATED, RECONSTRUCTED):
            if records.has(one.name, source, range(one.n), "clamped"):
                shares = records.column(one.name, source, "clamped", range(one.n))
                result.clamped.setdefault(one.name, {})[source] = float(np.mean(shares))
        if "caption-accuracy" in protocols:
            _captions(one, records, baselines, result)
        if "reconstruction" in protocols:
            _reconstruction(one, records, scores, num_resamples)
        if LPIPS in protocols:
            _lpips(instruments, one, records, scores, num_resamples)
        for distance in DISTANCES:
            if distance.name in protocols:
                extractor = instruments.extractors[distance.measured]
                _distance(distance, extractor, one, records, scores, num_resamples)
        if INCEPTION_SCORE in protocols:
            extractor = instruments.extractors["classes"]
            _inception_score(extractor, one, records, scores, num_resamples)
        for measure in instruments.measures:
            _clip_measure(measure, one, records, scores, num_resamples)
        if "jitter" in protocols:
            _judge_jitter(one, records, result)
    _gaps(result)
    return result


def _reading(data: Mapping[str, Any]) -> Reading:
    objects = tuple(ObjectReading(**thing) for thing in data["objects"])
    return Reading(objects, data["camera"], data["is_persistent"])


def _captions(one: DataSet, records: Records, baselines: bool, result: Evaluation) -> None:
    """Caption accuracy of every source, with the real clips' as ceiling."""
    indices = range(one.n)
    protocol = one.protocol("caption-accuracy/{part}", "oracle").id
    ceilings: dict[str, float] = {}

    def add(source: str, scores: Sequence[CaptionScore]) -> None:
        named = caption_accuracy(scores, protocol, ceilings)
        if source == REAL:
            ceilings.update({name: score.value for name, score in named.items()})
        result.scores[one.name].setdefault(source, {}).update(
            {f"caption-accuracy/{name}": score for name, score in named.items()}
        )

    for source in (REAL, *(name for name in SOURCES if name not in (REAL, SWAPPED))):
        if not records.has(one.name, source, indices, "reading"):
            continue
        readings = [_reading(row) for row in records.column(one.name, source, "reading", indices)]
        captions = records.column(one.name, source, "caption", indices)
        scores = [score_caption(*pair) for pair in zip(readings, captions, strict=True)]
        add(source, scores)
        if source == REAL and baselines and one.n > 1:
            pairs = zip(readings, swapped(captions), strict=True)
            add(SWAPPED, [score_caption(*pair) for pair in pairs])
        if source == GENERATED:
            result.failures[one.name] = [asdict(f) for f in failures_by_pair(scores)][:NUM_FAILURES]


def _reconstruction(
    one: DataSet, records: Records, scores: dict[str, dict[str, Score]], num_resamples: int
) -> None:
    if not records.has(one.name, RECONSTRUCTED, range(one.n), "reconstruction"):
        return
    rows = records.column(one.name, RECONSTRUCTED, "reconstruction", range(one.n))
    named = scores.setdefault(RECONSTRUCTED, {})
    for name in rows[0]:
        protocol = one.protocol(f"reconstruction/{name}").id
        values = [row[name] for row in rows]
        named[f"reconstruction/{name}"] = mean_score(values, protocol, one.n, num_resamples)


def _lpips(
    instruments: Instruments,
    one: DataSet,
    records: Records,
    scores: dict[str, dict[str, Score]],
    num_resamples: int,
) -> None:
    key = instruments.key(LPIPS)
    if instruments.lpips is None or not records.has(one.name, RECONSTRUCTED, range(one.n), key):
        return
    values = records.column(one.name, RECONSTRUCTED, key, range(one.n))
    protocol = one.protocol(f"{LPIPS}/{instruments.lpips.id}").id
    score = mean_score(values, protocol, one.n, num_resamples)
    scores.setdefault(RECONSTRUCTED, {})[LPIPS] = score


def _inception_score(
    extractor: Extractor,
    one: DataSet,
    records: Records,
    scores: dict[str, dict[str, Score]],
    num_resamples: int,
) -> None:
    """Of the model's frames and of real ones."""
    protocol = one.protocol(
        f"{INCEPTION_SCORE}/{extractor.id}", f"splits{SPLITS}", extractor.resize
    )
    for source in (GENERATED, REAL):
        if records.has(one.name, source, range(one.n), extractor.key):
            words = records.column(one.name, source, extractor.key, range(one.n))
            rows = np.stack([unpack(word) for word in words])
            logits = rearrange(rows, "n (t k) -> n t k", k=extractor.per_frame)
            score = inception_score(logits, protocol.id, num_resamples)
            scores.setdefault(source, {})[INCEPTION_SCORE] = score


def _distance(
    distance: FeatureDistance,
    extractor: Extractor,
    one: DataSet,
    records: Records,
    scores: dict[str, dict[str, Score]],
    num_resamples: int,
) -> None:
    if not records.has(one.name, GENERATED, range(one.n), extractor.key):
        return

    def features(source: str, indices: range) -> np.ndarray:
        words = records.column(one.name, source, extractor.key, indices)
        return np.stack([unpack(word) for word in words])

    same, others = range(one.n), range(one.n, 2 * one.n)
    generated, real = features(GENERATED, same), features(REAL, same)
    if records.has(one.name, REAL, others, extractor.key):
        # Both the model's clips and the real ones of the same captions against other real clips:
        # a perfect model scores the floor.
        reference, baseline, estimator = features(REAL, others), real, distance.estimator
    else:  # too few clips for a floor
        reference, baseline = real, None
        estimator = "-".join(filter(None, (distance.estimator, "same-captions")))
    metric = f"{distance.metric}/{extractor.id}"
    protocol = one.protocol(metric, estimator, extractor.resize)
    named = scores.setdefault(GENERATED, {})
    named[distance.name] = distance.score(
        reference, generated, baseline, protocol, num_resamples, extractor.per_frame
    )
    if one.n >= MIN_FOR_LIMIT and distance.kernel is None and extractor.per_frame is None:
        name, at, weights = metric.partition("@")
        limit = partial(frechet_distance_inf, reference, ddof=distance.ddof)
        floor = None if baseline is None else limit(baseline)
        named[f"{distance.name}_inf"] = Score(
            limit(generated),
            one.protocol(f"{name}_inf{at}{weights}", estimator, extractor.resize).id,
            one.n,
            one.n,
            floor=floor,
            num_features=reference.shape[1],
        )


def _clip_measure(
    measure: ClipMeasure,
    one: DataSet,
    records: Records,
    scores: dict[str, dict[str, Score]],
    num_resamples: int,
) -> None:
    """Means over the clips of every source."""
    for source in SOURCES:
        if not records.has(one.name, source, range(one.n), measure.key):
            continue
        rows = records.column(one.name, source, measure.key, range(one.n))
        named = scores.setdefault(source, {})
        for name in (key for key in rows[0] if all(key in row for row in rows)):
            weights = f"@{measure.weights}" if measure.weights else ""
            protocol = one.protocol(f"{measure.name}/{name}{weights}", measure.estimator).id
            values = [row[name] for row in rows]
            named[f"{measure.name}/{name}"] = mean_score(values, protocol, one.n, num_resamples)


def _judge_jitter(one: DataSet, records: Records, result: Evaluation) -> None:
    """Whether the model's jitter is small, beside that of real clips."""
    if not all(records.has(one.name, s, range(one.n), "jitter") for s in (GENERATED, REAL)):
        return
    model, real = (
        mean_jitter([Jitter(**row) for row in records.column(one.name, s, "jitter", range(one.n))])
        for s in (GENERATED, REAL)
    )
    result.jitter_passes[one.name] = model.passes(real)


def _gaps(result: Evaluation) -> None:
    """How much accuracy is lost on pairs of attributes that were never seen together."""
    for name, sources in result.scores.items():
        other = name.replace("test-iid", "test-comp")
        iid = sources.get(GENERATED, {}).get("caption-accuracy/whole")
        comp = result.scores.get(other, {}).get(GENERATED, {}).get("caption-accuracy/whole")
        if other == name or iid is None or comp is None:
            continue
        low, high = difference_interval(
            round(iid.value * iid.n_gen / 100),
            iid.n_gen,
            round(comp.value * comp.n_gen / 100),
            comp.n_gen,
        )
        result.gaps[name] = {
            "points": iid.value - comp.value,
            "interval": [100 * low, 100 * high],
        }
