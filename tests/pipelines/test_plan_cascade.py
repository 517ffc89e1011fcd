"""A cascade's plan is what its call computes."""

import json

import pytest
from torch.utils.flop_counter import FlopCounterMode

from tests.pipelines.test_cascade import RED, model
from vdm.cli import main
from vdm.conditioning.given import Hint, Showing
from vdm.pipelines.cascade import Cascade, Interpolate, MakeKeyframes, Upscale
from vdm.pipelines.plan import plan, read_description
from vdm.pipelines.plan_cascade import plan_source
from vdm.pretrained.layout import write_folder


@pytest.fixture
def keyframes():
    return MakeKeyframes(model(1, ["fps"]))


@pytest.fixture
def filler():
    return Interpolate(model(2))


@pytest.mark.parametrize(
    ("order", "size"),
    [(1, {}), (-1, {"num_frames": 7, "height": 32, "width": 48})],
    ids=["interpolate first", "upscale first, another size"],
)
def test_as_much_is_planned_as_is_computed(keyframes, filler, order, size, tmp_path, monkeypatch):
    rest = [filler, Upscale(model(3, given=Showing(Hint())))]
    cascade = Cascade([keyframes, *rest[::order]])
    cascade.save(tmp_path)
    words = cascade.parts.text_encoder([RED]).text.shape[1]
    monkeypatch.setattr("vdm.pipelines.plan.TEXT_LENGTH", words)
    planned = plan_source(tmp_path, **size)
    with FlopCounterMode(display=False) as counter:
        cascade(RED, seed=0, progress=False, **size)
    total = sum(stage.flops * stage.num_calls for stage in planned)
    assert total == pytest.approx(counter.get_total_flops(), rel=0.02)


def test_stages_are_named_by_their_task(keyframes, filler, tmp_path, capsys):
    Cascade([keyframes, filler]).save(tmp_path)
    assert main(["plan", str(tmp_path), "--steps", "3", "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert [stage["name"] for stage in stages] == [
        "keyframes: text_encoder",
        "keyframes: network",
        "interpolate: text_encoder",
        "interpolate: network",
        "interpolate: decoder",
    ]
    assert [stage["num_calls"] for stage in stages if "network" in stage["name"]] == [6, 6]


def test_one_model_is_planned_as_before(keyframes, tmp_path):
    write_folder(keyframes.model.parts, tmp_path)
    assert plan_source(tmp_path, batch=3) == plan(read_description(tmp_path), batch=3)
