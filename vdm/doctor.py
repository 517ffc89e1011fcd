"""What this machine offers: packages, processor, kernels, codecs, scores; and if not, why not."""

import importlib.metadata
import io
import json
import os
import platform
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from vdm.cli_parsing import Parser, describe_error

State = Literal["yes", "no", "missing"]


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Args:
        section: Heading that it stands under.
        name: What was looked for.
        state: There, not there, or not there although the package cannot work without it.
        detail: A version, a number, or why not.
    """

    section: str
    name: str
    state: State
    detail: str


def main(words: list[str]) -> int:
    """Print the report; exit status 1 if something that the package needs is missing."""
    parser = Parser(prog="vdm doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="as JSON")
    arguments = parser.read(words)
    findings = examine()
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        print(report(findings))
    return 1 if any(finding.state == "missing" for finding in findings) else 0


def examine() -> list[Finding]:
    """Look at everything, in the order of the report."""
    parts: dict[str, Callable[[], Iterator[Finding]]] = {
        "machine": _machine,
        "packages": _packages,
        "processor": _processor,
        "gpu": _gpu,
        "attention": _attention,
        "video codecs": _codecs,
        "scores": _scores,
        "bundled models": _models,
    }
    return [finding for name, part in parts.items() for finding in _looked(name, part)]


def _looked(section: str, part: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """What a part of the report says, up to a package that it needs and does not find."""
    try:
        yield from part()
    except ImportError as error:
        yield Finding(section, error.name or section, "missing", str(error))


def report(findings: list[Finding]) -> str:
    """The findings as text, one line each under their headings."""
    lines: list[str] = []
    width = max(len(finding.name) for finding in findings)
    section = ""
    for finding in findings:
        if finding.section != section:
            section = finding.section
            lines += ["", section] if lines else [section]
        mark = {"yes": "+", "no": "-", "missing": "!"}[finding.state]
        lines.append(f"  {mark} {finding.name:<{width}}  {finding.detail}".rstrip())
    missing = sum(finding.state == "missing" for finding in findings)
    verdict = f"{missing} missing (marked !)" if missing else "all that is needed is there"
    return "\n".join([*lines, "", f"{verdict}; + active, - not active"])


def _machine() -> Iterator[Finding]:
    yield Finding("machine", "system", "yes", f"{platform.system()} {platform.machine()}")
    yield Finding("machine", "python", "yes", platform.python_version())
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    yield Finding("machine", "cores", "yes", str(cores))
    if "SC_PHYS_PAGES" in getattr(os, "sysconf_names", {}):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        yield Finding("machine", "memory", "yes", f"{memory:.1f} GiB")


def _packages() -> Iterator[Finding]:
    """The requirements that the installed package itself states, extras by their name."""
    seen: set[str] = set()
    for requirement in importlib.metadata.requires("vdm") or []:
        wanted, _, marker = requirement.partition(";")
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        name = re.split(r"[\[<>=!~ ]", wanted.strip())[0]
        if name == "vdm" or name in seen or (extra and extra[1] == "dev"):
            continue
        seen.add(name)
        section = "optional packages" if extra else "packages"
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            hint = f"not installed: pip install 'vdm[{extra[1]}]'" if extra else "not installed"
            yield Finding(section, name, "no" if extra else "missing", hint)
        else:
            yield Finding(section, name, "yes", version)


def _processor() -> Iterator[Finding]:
    import torch

    from vdm.utils.hardware import has_bfloat16, processor_flags

    section = "processor"
    yield Finding(section, "vector kernels", "yes", torch.backends.cpu.get_cpu_capability())
    threads = f"{torch.get_num_threads()} in one operation"
    yield Finding(section, "threads", "yes", threads)
    onednn = torch.backends.mkldnn.is_available()
    yield Finding(section, "oneDNN", "yes" if onednn else "no", "" if onednn else "not built in")
    flags = processor_flags()
    for name in ("avx2", "avx512_f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"):
        if name in flags:
            detail = "" if flags[name] else "not in this processor"
            yield Finding(section, name, "yes" if flags[name] else "no", detail)
    if has_bfloat16():
        yield Finding(section, "bfloat16", "yes", "in hardware")
    else:
        why = "computed, but not in hardware: many times slower than float32"
        yield Finding(section, "bfloat16", "no", why)
    yield Finding(section, "float16", "no", "no fast CPU kernels: use float32 or bfloat16")


def _gpu() -> Iterator[Finding]:
    import torch

    if not torch.cuda.is_available():
        build = torch.version.cuda
        why = f"no device or driver; torch is built for CUDA {build}" if build else "torch for CPUs"
        yield Finding("gpu", "cuda", "no", why)
        return
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        size = f"{device.total_memory / 2**30:.0f} GiB, compute {device.major}.{device.minor}"
        yield Finding("gpu", f"cuda:{index}", "yes", f"{device.name}, {size}")
    bfloat16 = torch.cuda.is_bf16_supported()
    yield Finding("gpu", "bfloat16 on cuda", "yes" if bfloat16 else "no", "")


def _attention() -> Iterator[Finding]:
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel

    def attempt(backend: SDPBackend, device: str, dtype: torch.dtype) -> Callable[[], object]:
        def run() -> object:
            q = torch.zeros(1, 2, 16, 64, device=device, dtype=dtype)
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, q, q)

        return run

    everywhere = {SDPBackend.MATH: "math", SDPBackend.FLASH_ATTENTION: "flash"}
    cuda_only = {
        SDPBackend.EFFICIENT_ATTENTION: "memory-efficient",
        SDPBackend.CUDNN_ATTENTION: "cuDNN",
    }
    for backend, name in everywhere.items():
        yield _tried("attention", f"sdpa {name} on cpu", attempt(backend, "cpu", torch.float32))
    for backend, name in (everywhere | cuda_only).items():
        if torch.cuda.is_available():
            run = attempt(backend, "cuda", torch.bfloat16)
            yield _tried("attention", f"sdpa {name} on cuda", run)
        elif backend in cuda_only:
            yield Finding("attention", f"sdpa {name}", "no", "needs a CUDA device")
    if not torch.cuda.is_available():
        yield Finding("attention", "flash-attn", "no", "needs a CUDA device")
    else:
        yield _tried("attention", "flash-attn", lambda: importlib.import_module("flash_attn"))


def _codecs() -> Iterator[Finding]:
    for title, codec, container, pixels in (
        ("H.264 in .mp4", "libx264", "mp4", "yuv420p"),
        ("VP9 in .webm", "libvpx-vp9", "webm", "yuv420p"),
        ("FFV1 in .mkv", "ffv1", "matroska", "bgr0"),
    ):
        yield _tried("video codecs", title, partial(_encode, codec, container, pixels))


def _encode(codec: str, container: str, pixel_format: str) -> None:
    """Write two frames to memory and read them back.

    Raises:
        ValueError: If the frames that come back are not two.
    """
    import av
    import numpy as np

    memory = io.BytesIO()
    written: Any
    read: Any
    with av.open(memory, "w", format=container) as written:
        stream = written.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, pixel_format
        for level in (0, 255):
            pixels = np.full((64, 64, 3), level, np.uint8)
            written.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        written.mux(stream.encode(None))
    memory.seek(0)
    with av.open(memory) as read:
        count = len(list(read.decode(video=0)))
    if count != 2:
        raise ValueError(f"wrote 2 frames, read {count}")


def _scores() -> Iterator[Finding]:
    """Scores that need more than the core packages."""

    def optical_flow() -> None:
        from vdm.metrics.optical_flow import FlowEstimator

        FlowEstimator()

    def i3d_weights() -> None:
        from vdm.metrics.i3d import WEIGHTS

        WEIGHTS.find()

    def transnet_weights() -> None:
        from vdm.metrics.transnet import WEIGHTS

        WEIGHTS.find()

    yield _tried("scores", "fmd/flow, jitter", optical_flow)
    yield _tried("scores", "fvd", i3d_weights)
    yield _tried("scores", "fd/transnet", transnet_weights)


def _models() -> Iterator[Finding]:
    from vdm.pretrained import bundled

    for name in bundled():
        yield Finding("bundled models", name, "yes", "")


def _tried(section: str, name: str, attempt: Callable[[], object]) -> Finding:
    """What came of it: nothing but an exception says why something does not work."""
    import warnings

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            attempt()
        except Exception as error:
            reasons = [str(warning.message).split("(Triggered")[0] for warning in said]
            why = next((reason.strip() for reason in reasons if "not" in reason), "")
            return Finding(section, name, "no", why or describe_error(error))
    return Finding(section, name, "yes", "")
