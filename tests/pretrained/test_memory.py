"""Loading takes no more memory than the weights that it gives, whatever the files store."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.pretrained.tiny_models import modelscope
from vdm.models import unet3d_presets as presets
from vdm.models.unet3d_blocks import Heads
from vdm.pretrained.diffusers_folder import save_unet

LOAD = """
import ctypes, gc, sys
from pathlib import Path
import torch
import vdm
from vdm.pretrained import read
from vdm.pretrained.loading import Reading

def status(name):
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if name in x)
    return 1024 * int(line.split()[1])

def measure(folder, dtype):
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = status("VmRSS")
    generate = vdm.load(folder, dtype=dtype)
    growth = status("VmHWM") - before
    weights = sum(p.nbytes for m in generate.parts.modules.values() for p in m.parameters())
    assert {p.dtype for p in generate.network.parameters()} == {generate.dtype}
    print(dtype, growth, weights)

folder, *dtypes = sys.argv[1:]
read(folder, how=Reading(is_plan=True))  # imports everything, once for all
for dtype in dtypes:
    measure(folder, dtype)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # gives back what the last one took
"""
DTYPES = ("float16", "float32")
ALLOWED = 1.1
SLACK = 6 * 2**20  # of the interpreter itself


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network of a hundred megabytes, of zeros in half precision."""
    place = tmp_path_factory.mktemp("large") / "model"
    modelscope().save_pretrained(place)
    size = presets.Size(Heads(dim=64), 16, widths=(192, 384), depth=1, attention=(1, 0, 1))
    with torch.device("meta"):
        network = presets.modelscope(size)
    network.to_empty(device="cpu")
    for parameter in network.parameters():
        parameter.data.zero_()
    save_unet(network, place / "unet", torch.float16)
    return place


@pytest.fixture(scope="module")
def measured(folder):
    """For each format, by how much a process grows and the bytes of all weights."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells the peak of a part of a program")
    words = [sys.executable, "-c", LOAD, str(folder), *DTYPES]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    rows = [line.split() for line in done.stdout.splitlines()]
    return {dtype: (int(growth), int(weights)) for dtype, growth, weights in rows}


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_peak_is_that_of_the_weights(measured, dtype):
    growth, weights = measured[dtype]
    assert weights > 80e6
    assert weights / 2 < growth < ALLOWED * weights + SLACK
