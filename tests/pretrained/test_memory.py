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
import sys
from pathlib import Path
import torch
import vdm
from vdm.pretrained import read
from vdm.pretrained.loading import Reading

def status(name):
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if name in x)
    return 1024 * int(line.split()[1])

read(sys.argv[1], how=Reading(is_plan=True))  # imports everything
Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
before = status("VmRSS")
generate = vdm.load(sys.argv[1], dtype=sys.argv[2])
growth = status("VmHWM") - before
weights = sum(p.nbytes for m in generate.parts.modules.values() for p in m.parameters())
assert {p.dtype for p in generate.network.parameters()} == {generate.dtype}
print(growth, weights)
"""
ALLOWED = 1.1
SLACK = 4 * 2**20  # of the interpreter itself


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A network of some hundred megabytes, of zeros in half precision."""
    place = tmp_path_factory.mktemp("large") / "model"
    modelscope().save_pretrained(place)
    size = presets.Size(Heads(dim=64), 16, widths=(256, 512), depth=1, attention=(1, 0, 1))
    with torch.device("meta"):
        network = presets.modelscope(size)
    network.to_empty(device="cpu")
    for parameter in network.parameters():
        parameter.data.zero_()
    save_unet(network, place / "unet", torch.float16)
    return place


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_the_peak_is_that_of_the_weights(folder, dtype):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("only Linux tells the peak of a part of a program")
    words = [sys.executable, "-c", LOAD, str(folder), dtype]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    growth, weights = map(int, done.stdout.split())
    assert weights > 150e6
    assert weights / 2 < growth < ALLOWED * weights + SLACK
