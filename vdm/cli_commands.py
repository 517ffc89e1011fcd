"""``vdm convert`` and ``plan``: thin fronts of functions that notebooks call directly."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from vdm.cli_parsing import (
    Parser,
    WrongWords,
    choice,
    nearest,
    number_or_pair,
    positive,
    reading_words,
)

DTYPES = ("float32", "bfloat16", "float16", "float64")


def convert(words: list[str]) -> None:
    """Rewrite a stored model in another layout or number format."""
    parser = Parser(prog="vdm convert", description="Rewrite a model in another layout or type.")
    parser.add_argument("source", metavar="SRC", help="bundled name, model folder or checkpoint")
    parser.add_argument("destination", metavar="DST", type=Path, help="folder to write")
    parser.add_argument("--layout", type=choice("vdm", "diffusers"), default="vdm")
    parser.add_argument("--dtype", type=choice(*DTYPES), help="store weights in this type")
    parser.add_argument(
        "--weights", type=choice("ema", "raw"), default="ema", help="of a run: averaged or last"
    )
    parser.add_argument(
        "--autoencoder", metavar="MODEL", help="take its autoencoder, of the same latents"
    )
    parser.add_argument("--motion", metavar="PATH", help="a motion adapter, for an image model")
    parser.add_argument("--variant", help="which weights, where a folder has several: fp16")
    parser.add_argument(
        "--then",
        action="append",
        metavar="KIND[:FACTOR]=MODEL",
        help="make a cascade: SRC makes keyframes, then e.g. interpolate:2=MODEL; may be repeated",
    )
    parser.add_argument(
        "--refer-to",
        metavar="NAME",
        help="store no part that this bundled model has too, to the bit; refer to it",
    )
    asked = parser.read(words)
    from vdm.pretrained import convert as rewrite
    from vdm.pretrained.cascades import is_cascade
    from vdm.pretrained.layout import refer
    from vdm.pretrained.sources import bundled

    if asked.refer_to is not None and asked.refer_to not in bundled():
        raise WrongWords(f"got --refer-to {asked.refer_to}, {nearest(asked.refer_to, bundled())}")
    with reading_words(asked.source, asked.autoencoder):
        if asked.then or is_cascade(asked.source):
            made = _convert_cascade(asked)
        else:
            made = rewrite(
                asked.source,
                asked.destination,
                asked.layout,
                asked.dtype,
                asked.weights,
                asked.autoencoder,
                motion=asked.motion,
                variant=asked.variant,
            )
    if asked.refer_to is not None:
        refer(made, asked.refer_to)
    print(made)


def _convert_cascade(asked: Any) -> Path:
    """Put a cascade together, or rewrite one, with further stages if asked for."""
    from vdm.pretrained.cascades import StageCard, assemble, is_cascade, read_cascade
    from vdm.pretrained.sources import locate

    name, stages = None, [StageCard("keyframes", asked.source)]
    if is_cascade(asked.source):
        name, cards = read_cascade(asked.source)
        folder = locate(asked.source)
        stages = [replace(card, model=str(folder / card.model)) for card in cards]
    if asked.layout != "vdm":
        raise ValueError(f"got layout={asked.layout!r} for a cascade, expected 'vdm'")
    for option in ("motion", "variant"):
        if (value := getattr(asked, option)) is not None:
            raise ValueError(f"got {option}={value!r} for a cascade, expected None")
    return assemble(
        asked.destination,
        [*stages, *map(StageCard.parse, asked.then or [])],
        name=name,
        dtype=asked.dtype,
        weights=asked.weights,
        autoencoder=asked.autoencoder,
    )


def plan(words: list[str]) -> None:
    """Print what a generation will cost."""
    parser = Parser(
        prog="vdm plan",
        description="Memory, operations and time of one generation, before weights are loaded.",
    )
    parser.add_argument("model", metavar="MODEL", help="bundled name, folder of a model or a run")
    for name, what in (
        ("num-frames", "frames per clip"),
        ("height", "pixels"),
        ("width", "pixels"),
        ("steps", "sampling steps"),
        ("batch-size", "clips made together"),
        ("decode-frames", "latent frames decoded at a time"),
    ):
        parser.add_argument(f"--{name}", type=positive, help=what)
    parser.add_argument("--motion", metavar="PATH", help="a motion adapter, for an image model")
    parser.add_argument("--guidance-scale", type=number_or_pair, help="1 is no guidance")
    parser.add_argument("--sampler", help="a function of vdm.diffusion.samplers")
    parser.add_argument("--dtype", type=choice(*DTYPES), default="float32")
    parser.add_argument("--device", default="cpu", help="whose speed the roofline is for")
    parser.add_argument("--json", action="store_true", help="as JSON")
    asked = parser.read(words)
    import torch

    from vdm.cli_sample import check_device
    from vdm.pipelines.plan import measure_machine
    from vdm.pipelines.plan_cascade import plan_source

    check_device(asked.device)
    dtype = getattr(torch, asked.dtype)
    with reading_words(asked.model):
        stages = plan_source(
            asked.model,
            asked.motion,
            num_frames=asked.num_frames,
            height=asked.height,
            width=asked.width,
            steps=asked.steps,
            guidance_scale=asked.guidance_scale,
            sampler=asked.sampler,
            batch=asked.batch_size or 1,
            decode_frames=asked.decode_frames,
            dtype=dtype,
        )
    machine = measure_machine(asked.device, dtype)
    rows = [asdict(stage) | {"roofline_seconds": machine.seconds(stage)} for stage in stages]
    if asked.json:
        print(json.dumps({"stages": rows, "machine": asdict(machine)}, indent=2))
    else:
        print(_plan_table(rows, machine))


def _plan_table(rows: list[dict[str, Any]], machine: Any) -> str:
    columns = ("part", "params", "weights", "activations", "GFLOP", "calls", "at least")
    width = max(14, *(len(row["name"]) + 1 for row in rows))
    table = [columns] + [
        (
            row["name"],
            f"{row['num_parameters'] / 1e6:.2f} M",
            f"{row['weight_bytes'] / 1e6:.1f} MB",
            f"{row['activation_bytes'] / 1e6:.1f} MB",
            f"{row['flops'] / 1e9:.2f}",
            str(row["num_calls"]),
            f"{row['roofline_seconds']:.2f} s",
        )
        for row in rows
    ]
    peak = sum(row["weight_bytes"] for row in rows) + max(row["activation_bytes"] for row in rows)
    total = sum(row["flops"] * row["num_calls"] for row in rows)
    seconds = sum(row["roofline_seconds"] for row in rows)
    speed = f"{machine.flops / 1e9:.0f} GFLOP/s, {machine.bandwidth / 1e9:.1f} GB/s"
    return "\n".join(
        [
            *(
                f"{line[0]:<{width}}" + "".join(f"{cell:>13}" for cell in line[1:])
                for line in table
            ),
            f"peak memory {peak / 1e6:.1f} MB, {total / 1e9:.1f} GFLOP in all, at least "
            f"{seconds:.2f} s on {machine.name} ({speed}, both just measured)",
        ]
    )
