"""``vdm sample``: words, and given frames, to clips in a folder."""

import argparse
from pathlib import Path
from typing import Any

from vdm.cli_parsing import (
    Parser,
    WrongWords,
    choice,
    describe_error,
    file_and_scale,
    nearest,
    number,
    number_or_pair,
    positive,
    reading_words,
    time_grid,
    whole_or_list,
)

LOADING: tuple[str, ...] = ("dtype", "device", "motion", "lora", "control", "variant", "profile")
LOADING += ("offload", "quantize", "compile", "attention")
"""Flags that go to ``vdm.load``; all others go to the generator."""
STREAMING = ("chunk", "context_time")
"""Flags that only a stream knows."""
WHOLE = (
    "last_image",
    "mask",
    "strength",
    "guidance_scale_2",
    "dynamic_guidance",
    "noise",
    "vbench",
    "decode_frames",
    "motion_bucket",
    "noise_aug",
)
"""Flags that only a clip made at once knows."""


def parser() -> Parser:
    """The words of ``vdm sample``; every argument of ``Generator.__call__`` is a flag."""
    made = Parser(
        prog="vdm sample",
        description="Generate one clip per prompt. What is not given is the model's own default.",
    )
    made.add_argument("model", metavar="MODEL", help="bundled name, model folder or checkpoint")
    made.add_argument("prompts", metavar="PROMPT", nargs="*", help="what to show, one per clip")
    files = made.add_argument_group("files")
    files.add_argument("--out", type=Path, required=True, metavar="DIR", help="where clips go")
    files.add_argument(
        "--format",
        type=choice("mp4", "webm", "gif", "png", "mkv", "npz"),
        default="mp4",
        help="mp4, webm, gif, png (contact sheet); mkv and npz are lossless",
    )
    files.add_argument(
        "--output",
        type=choice("video", "latents"),
        default="video",
        help="video, or latents: not decoded, one .safetensors file per clip",
    )
    files.add_argument(
        "--vbench",
        type=positive,
        metavar="N",
        help="N clips of each prompt (VBench wants 5), named PROMPT-0.mp4 as its script reads them",
    )
    files.add_argument("--no-progress", dest="progress", action="store_false", help="no bar")
    _add_given(made.add_argument_group("given"))
    _add_shape(made.add_argument_group("shape"))
    _add_sampling(made.add_argument_group("sampling"))
    _add_streaming(made.add_argument_group("streaming"))
    add_loading(made.add_argument_group("loading"))
    return made


def _add_given(group: Any) -> None:
    group.add_argument("--negative-prompt", metavar="TEXT", help="what to lead away from")
    group.add_argument("--image", type=Path, metavar="FILE", help="the first frame")
    group.add_argument(
        "--last-image", type=Path, metavar="FILE", help="the last frame, if the model reads it"
    )
    group.add_argument("--video", type=Path, metavar="FILE", help="the first frames")
    group.add_argument(
        "--mask",
        metavar="1,0,..|FILE",
        help="1 where --video is given: one number per frame, or a tensor in a .safetensors file",
    )
    group.add_argument(
        "--cond",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="a field of the conditioning, raw: numbers, or a .safetensors file; may be repeated",
    )
    group.add_argument(
        "--motion-bucket", type=number, help="amount of motion, if the model reads it"
    )
    group.add_argument(
        "--noise-aug", type=number, help="noise on the picture, if the model reads it"
    )


def _add_shape(group: Any) -> None:
    group.add_argument("--num-frames", type=positive, help="frames per clip")
    group.add_argument("--seconds", type=number, help="length, instead of --num-frames or --fps")
    group.add_argument("--fps", type=number, help="frames per second")
    group.add_argument("--height", type=positive, help="pixels")
    group.add_argument("--width", type=positive, help="pixels")


def _add_sampling(group: Any) -> None:
    group.add_argument("--steps", type=positive, help="sampling steps")
    group.add_argument(
        "--guidance-scale",
        type=number_or_pair,
        metavar="S|FIRST,LAST",
        help="1 is no guidance; two numbers are a ramp over the frames",
    )
    group.add_argument(
        "--guidance-scale-2",
        type=number,
        metavar="S",
        help="of the second network, if the model has two: at little noise",
    )
    group.add_argument(
        "--dynamic-guidance",
        action="store_const",
        const=True,
        help="vary the scale over the steps, between 1 and 1 more than it is",
    )
    group.add_argument("--sampler", help="a function of vdm.diffusion.samplers")
    add_time_grid(group)
    group.add_argument(
        "--strength",
        type=number,
        metavar="S",
        help="start from --video with noise, and take this share of the steps: 0 to 1",
    )
    group.add_argument(
        "--seed",
        type=whole_or_list,
        metavar="N|N,N,..",
        help="clip k uses N + k; or one seed per clip",
    )
    group.add_argument(
        "--noise",
        type=Path,
        metavar="FILE",
        help="initial latents: a tensor in a .safetensors file",
    )
    group.add_argument("--decode-frames", type=positive, help="latent frames decoded at a time")
    group.add_argument("--batch-size", type=positive, default=8, help="clips made together")


def add_time_grid(group: Any) -> None:
    """The flag for the noise times, with arguments as JSON."""
    group.add_argument(
        "--time-grid",
        type=time_grid,
        metavar="NAME|JSON|T,T,..",
        help="a function of vdm.diffusion.time_grids, or it with arguments "
        """('{"name": "shifted", "shift": 3}'), or the noise times from 1 to 0""",
    )


def _add_streaming(group: Any) -> None:
    group.add_argument(
        "--stream",
        action="store_true",
        help="make the clip chunk by chunk and write it meanwhile, if the model is causal",
    )
    group.add_argument("--chunk", type=positive, help="latent frames made together (default 1)")
    group.add_argument(
        "--context-time", type=number, help="noise time of the frames before (default 0: clean)"
    )


def add_loading(group: Any) -> None:
    """Flags for the arguments of ``vdm.load``."""
    group.add_argument("--dtype", type=choice("float32", "bfloat16", "float16", "float64"))
    group.add_argument("--device", help="where to compute, e.g. cuda")
    group.add_argument("--motion", type=Path, metavar="PATH", help="a motion adapter")
    group.add_argument(
        "--lora",
        type=file_and_scale,
        action="append",
        metavar="PATH[=SCALE]",
        help="low-rank changes that are added to the weights; may be repeated",
    )
    group.add_argument(
        "--control",
        type=file_and_scale,
        metavar="PATH[=SCALE]",
        help="SparseCtrl: given frames steer the clip",
    )
    group.add_argument("--variant", help="which weights, where a folder has several: fp16")
    group.add_argument("--profile", default="diffusers", help="whose numerics, where they differ")
    group.add_argument("--offload", type=choice("cpu"), help="cpu: weights rest there")
    group.add_argument("--quantize", help="int8 or int8-dynamic: linear maps in eight bits")
    group.add_argument("--compile", action="store_true", help="compile the network")
    group.add_argument("--attention", type=choice("auto", "plain", "sdpa", "flash"))


def main(words: list[str]) -> None:
    """Generate the clips and print their paths."""
    asked = parser().read(words)
    files = (asked.model, asked.image, asked.last_image, asked.video, asked.noise)
    with reading_words(*files):
        call = _call_arguments(asked)
    generate = load_model(asked)
    from vdm.pipelines import sample_to_folder, stream_to_folder
    from vdm.pipelines.cascade import Cascade

    if asked.stream and isinstance(generate, Cascade):
        raise WrongWords("--stream: got a cascade, whose keyframes come first, expected one model")
    with reading_words(*files):
        paths = (stream_to_folder if asked.stream else sample_to_folder)(
            generate,
            asked.prompts,
            asked.out,
            suffix=f".{asked.format}",
            batch_size=asked.batch_size,
            **call,
        )
    for path in paths:
        print(path)


def _call_arguments(asked: argparse.Namespace) -> dict[str, Any]:
    """The arguments of the generator or of a stream, files read."""
    skipped = {"model", "prompts", "out", "format", "batch_size", "stream", *LOADING}
    skipped |= _refuse_others(asked)
    call = {name: value for name, value in vars(asked).items() if name not in skipped}
    for name in ("image", "last_image", "video"):
        path = call.get(name)
        if path is not None and not path.is_file():
            flag = f"--{name.replace('_', '-')}"
            raise WrongWords(f"{flag}: got {path}, expected a file that exists")
    if asked.noise is not None:
        call["noise"] = _tensor("--noise", str(asked.noise))
    if asked.mask is not None:
        call["mask"] = _tensor("--mask", asked.mask)
    fields = {}
    for word in asked.cond:
        name, equals, value = word.partition("=")
        if not equals:
            raise WrongWords(f"--cond: got {word!r}, expected FIELD=VALUE, e.g. fps=6")
        fields[name] = _tensor(f"--cond {name}", value)
    call["cond"] = fields or None
    return call


def _refuse_others(asked: argparse.Namespace) -> set[str]:
    """The flags that are not for the way in which the clip is made.

    Raises:
        WrongWords: If one of them is there.
    """
    if asked.stream and asked.output != "video":
        raise WrongWords(f"--output: got {asked.output!r}, expected video with --stream")
    others = WHOLE if asked.stream else STREAMING
    for name in others:
        if (value := getattr(asked, name)) is not None:
            flag = f"--{name.replace('_', '-')}"
            expected = "none with --stream" if asked.stream else "it with --stream alone"
            raise WrongWords(f"{flag}: got {value}, expected {expected}")
    if not asked.stream:
        return set(others)
    unsaid = {name for name in STREAMING if getattr(asked, name) is None}
    return {*others, *unsaid, "output"}


def _tensor(flag: str, word: str) -> Any:
    """A tensor from a ``.safetensors`` file that holds one, or from numbers with commas between."""
    import torch

    if not word.endswith(".safetensors"):
        values = [part.strip() for part in word.split(",")]
        integral = all(part.lstrip("+-").isdigit() for part in values)
        try:
            return torch.tensor([int(part) if integral else float(part) for part in values])
        except ValueError:
            expected = "numbers with commas between, or a .safetensors file"
            raise WrongWords(f"{flag}: got {word!r}, expected {expected}") from None
    from vdm.pretrained.loading import read_safetensors

    tensors, _ = read_safetensors(Path(word))
    if len(tensors) != 1:
        raise WrongWords(f"{flag}: got {len(tensors)} tensors in {word}, expected one")
    return next(iter(tensors.values()))


def load_model(asked: argparse.Namespace) -> Any:
    """The generator that flags of :func:`add_loading` describe.

    A model that is not there is a wrong word; a damaged one is failed work.

    Raises:
        WrongWords: If there is no such model, or an argument does not apply to it.
    """
    from vdm.pipelines import load
    from vdm.pretrained import bundled

    check_device(asked.device)
    exists = Path(asked.model).exists() or asked.model in bundled()
    loading = {name: getattr(asked, name) for name in LOADING}
    loading["lora"] = dict(asked.lora) if asked.lora else None
    loading["control"] = dict([asked.control]) if asked.control else None
    try:
        return load(asked.model, **loading)
    except (ValueError, FileNotFoundError) as error:
        said = describe_error(error)
        if not exists or said.startswith(tuple(f"got {name}=" for name in LOADING)):
            raise WrongWords(said) from error
        raise


def check_device(name: str | None) -> None:
    """Refuse a device that this machine does not have.

    Args:
        name: What torch calls it; none is torch's default.

    Raises:
        WrongWords: If so.
    """
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        have = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
        raise WrongWords(f"--device: got {name!r}, {nearest(str(name), have)}") from error
