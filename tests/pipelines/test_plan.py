"""What is planned on the meta device is what happens on a real one."""

import json

import pytest
import torch

from vdm.autoencoder.vae import VideoVAE
from vdm.conditioning.text import WordTextEncoder
from vdm.diffusion.schedules import LinearPath
from vdm.diffusion.targets import Velocity
from vdm.layers.positions import forget_tables
from vdm.models.dit import VideoDiT
from vdm.pipelines.plan import Machine, MemoryMeter, Stage, measure_machine, plan, read_description
from vdm.pretrained.layout import write_folder
from vdm.pretrained.parts import Defaults, Parts
from vdm.types import Conditioning


@pytest.fixture(scope="module")
def parts():
    return Parts(
        "tiny",
        network=VideoDiT(3, dim=32, depth=2, num_heads=2, text_dim=8),
        text_encoder=WordTextEncoder(8, 1, 2),
        autoencoder=VideoVAE(3, (8, 16), ((2, 2, 2),), (1, 1), (1, 1)),
        schedule=LinearPath(),
        target=Velocity(),
        defaults=Defaults(num_frames=5, height=32, width=48, steps=4, guidance_scale=2.0),
    )


@pytest.fixture(scope="module")
def description(parts):
    return {"format": "vdm/1", **parts.describe()}


def stages(description, **arguments) -> dict[str, Stage]:
    return {stage.name: stage for stage in plan(description, **arguments)}


def test_weights_and_activations_are_those_of_a_real_run(parts, description):
    planned = stages(description, batch=2)
    for name in ("network", "text_encoder"):
        module = getattr(parts, name)
        assert planned[name].num_parameters == sum(p.numel() for p in module.parameters())
    latents = torch.randn(2, 3, 3, 4, 6)
    text = torch.randn(2, 32, 8)
    forget_tables()
    with (
        torch.no_grad(),
        MemoryMeter(list(parts.network.parameters())) as meter,
    ):
        parts.network.eval()(latents, torch.rand(2), Conditioning(text=text))
    assert meter.peak == pytest.approx(planned["network"].activation_bytes, rel=0.02)
    weights = list(parts.autoencoder.parameters())
    with torch.no_grad(), MemoryMeter(weights) as meter:
        parts.autoencoder.eval().decode(latents, num_frames=5)
    assert meter.peak == pytest.approx(planned["decoder"].activation_bytes, rel=0.02)


def test_the_same_is_planned_again(description):
    assert plan(description, batch=2) == plan(description, batch=2)


def test_a_product_counts_two_operations_per_multiplication():
    linear = torch.nn.Linear(7, 5, bias=False)
    from vdm.pipelines.plan import _measure

    stage = _measure("linear", linear, lambda: linear(torch.ones(3, 7)), 4)
    assert stage.flops == 2 * 3 * 7 * 5
    assert stage.weight_bytes == 4 * 7 * 5
    assert stage.num_calls == 4


def test_freed_tensors_stop_counting():
    with MemoryMeter([]) as meter:
        for _ in range(3):
            torch.zeros(1000)
        kept = torch.zeros(10)
    assert meter.peak == 4000 + 40 or meter.peak == 4000
    assert meter.live == kept.nbytes


def test_longer_clips_cost_more_and_guidance_doubles_the_calls(description):
    short, long = stages(description), stages(description, num_frames=9)
    assert long["network"].flops > short["network"].flops
    assert long["decoder"].flops > short["decoder"].flops
    assert stages(description, guidance_scale=1.0)["network"].num_calls == 4
    assert short["network"].num_calls == 8
    assert stages(description, sampler="heun", steps=3)["network"].num_calls == 2 * (2 * 3 - 1)


def test_half_the_bytes_per_number_is_half_the_memory(description):
    full, half = stages(description), stages(description, dtype=torch.bfloat16)
    for name in full:
        assert half[name].weight_bytes == full[name].weight_bytes / 2
    assert half["network"].activation_bytes < full["network"].activation_bytes


def test_decoding_in_chunks_takes_less_memory(description):
    whole = stages(description, num_frames=33)["decoder"]
    chunked = stages(description, num_frames=33, decode_frames=1)["decoder"]
    assert chunked.flops == whole.flops
    assert chunked.activation_bytes <= whole.activation_bytes


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"height": 33}, "nearest: 32"),
        ({"height": 0}, "height=0, expected"),
        ({"width": 0}, "width=0, expected"),
        ({"num_frames": 0}, "at least 1"),
        ({"steps": 0}, "steps=0"),
        ({"sampler": "eulr"}, "sampler 'eulr', .*nearest: euler"),
        ({"sampler": ""}, "sampler ''"),
    ],
)
def test_sizes_that_the_model_cannot_make_are_refused(description, arguments, said):
    with pytest.raises(ValueError, match=said):
        plan(description, **arguments)


def test_a_model_without_network_is_refused(parts):
    only = {"format": "vdm/1", **Parts("vae", autoencoder=parts.autoencoder).describe()}
    with pytest.raises(ValueError, match="no network"):
        plan(only)


def test_descriptions_are_read_from_models_and_refused_elsewhere(parts, description, tmp_path):
    write_folder(parts, tmp_path / "tiny")
    assert read_description(tmp_path / "tiny")["name"] == "tiny"
    checkpoint = {"vdm": json.dumps(description), "state_dict": {}}
    torch.save(checkpoint, tmp_path / "last.ckpt")
    assert read_description(tmp_path / "last.ckpt") == description
    with pytest.raises(ValueError, match="expected a file, a folder or a bundled name"):
        read_description("no-such-model")
    with pytest.raises(ValueError, match="no description"):
        read_description(tmp_path / "tiny" / "network.safetensors")
    (tmp_path / "bad.safetensors").write_bytes(b"\0" * 7)
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_description(tmp_path / "bad.safetensors")


def test_the_roofline_is_bound_by_arithmetic_or_by_memory():
    machine = Machine("cpu", flops=100.0, bandwidth=10.0)
    assert machine.seconds(Stage("x", 1, 4, 4, flops=500, traffic_bytes=1, num_calls=2)) == 10.0
    assert machine.seconds(Stage("x", 1, 4, 4, flops=1, traffic_bytes=30, num_calls=2)) == 6.0


def test_this_machine_can_be_measured():
    machine = measure_machine("cpu")
    assert machine.flops > 1e8
    assert machine.bandwidth > 1e7


def test_the_command_prints_the_same_numbers(parts, description, tmp_path, capsys):
    from vdm.cli import main

    write_folder(parts, tmp_path / "tiny")
    words = ["plan", str(tmp_path / "tiny"), "--num-frames", "9", "--batch-size", "2"]
    assert main([*words, "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    expected = stages(description, num_frames=9, batch=2)
    assert [row["flops"] for row in printed["stages"]] == [s.flops for s in expected.values()]
    assert main(words) == 0
    assert "peak memory" in capsys.readouterr().out
    assert main(["plan", "no-such-model"]) == 2
    assert main([*words, "--height", "33"]) == 2
    assert "nearest: 32" in capsys.readouterr().err
    assert main([*words, "--device", "cpuu"]) == 2
    assert "--device: got 'cpuu', nearest cpu" in capsys.readouterr().err
