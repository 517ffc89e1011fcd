"""At which noise times a call samples."""

import argparse
from types import SimpleNamespace

import pytest
import torch

import vdm
from vdm.cli_parsing import time_grid
from vdm.diffusion import LinearPath, time_grids
from vdm.pipelines.request import Geometry
from vdm.pipelines.walk import read_walk
from vdm.pretrained.parts import Defaults

DEFAULTS = Defaults(steps=7, time_grid="shifted", time_grid_args={"shift": 3.0})
MODEL = SimpleNamespace(schedule=LinearPath(), geometry=Geometry((4, 8, 8), (1, 2, 2)))
LATENTS = (5, 6, 4)


def times(asked, steps=None):
    walk = read_walk(asked, steps, DEFAULTS)
    found = walk.times(MODEL, LATENTS)
    assert len(found) == walk.steps + 1
    return found


def test_what_is_not_said_is_the_models_own():
    own = time_grids.shifted(7, 3.0)
    assert torch.equal(times(None), own)
    assert torch.equal(times("shifted"), own)
    assert torch.equal(times({"name": "shifted", "shift": 2.0}, 4), time_grids.shifted(4, 2.0))
    assert torch.equal(times("uniform"), time_grids.uniform(7))
    assert torch.equal(times("karras", 5), time_grids.karras(5, LinearPath()))
    assert torch.equal(times("shifted_by_tokens"), time_grids.shifted_by_tokens(7, 6, 5))


def test_listed_times_are_taken_as_they_are_and_noted():
    listed = [1.0, 0.99, 0.7, 0.25, 0]
    assert times(listed).tolist() == listed
    assert read_walk(listed, 4, DEFAULTS).notes() == {"steps": 4, "time_grid": listed}
    expected = {"steps": 5, "time_grid": {"name": "shifted", "shift": 3.0}}
    assert read_walk(None, 5, DEFAULTS).notes() == expected


@pytest.mark.parametrize(
    ("asked", "steps", "message"),
    [
        ("uniforn", None, "got time grid 'uniforn', .*nearest: uniform"),
        ({"shift": 2.0}, None, "expected a name in it, e.g. 'name': 'uniform'"),
        ({"name": "uniform", "shift": 2.0}, None, "with shift, expected one of t_max, t_min"),
        ({"name": "trailing", "schedule": 1}, None, "'trailing' with schedule, expected one of"),
        ([0.5], None, "got 1 times from 0.5 to 0.5, expected at least 2, from at most 1 down to 0"),
        ([1.0, 0.5], None, "got 2 times from 1.0 to 0.5"),
        ([1.5, 0.5, 0], None, "got 3 times from 1.5 to 0.0"),
        ([1.0, 0.5, 0.6, 0], None, "got time 0.6 after 0.5, expected a smaller one"),
        ([1.0, 0.5, 0], 3, "got steps=3 and 3 times, expected 2 or none"),
        ("uniform", 0, "steps"),
    ],
)
def test_grids_that_cannot_be_are_refused_by_name(asked, steps, message):
    with pytest.raises(ValueError, match=message):
        read_walk(asked, steps, DEFAULTS)


def test_an_argument_that_a_grid_needs_is_asked_for():
    with pytest.raises(ValueError, match=r"'shifted' without shift, .*'shift': 1\.0"):
        read_walk("shifted", None, Defaults())


def test_a_clip_follows_its_times():
    generate = vdm.load("shapes-dit")
    same = {"seed": 3, "progress": False, "output": "latents"}
    listed = generate("a red circle moves left", time_grid=[1.0, 2 / 3, 1 / 3, 0], **same)
    assert torch.allclose(listed, generate("a red circle moves left", steps=3, **same), atol=1e-5)
    assert not torch.allclose(
        listed, generate("a red circle moves left", time_grid=[1.0, 0.8, 0.1, 0], **same)
    )


def test_the_command_line_has_a_word_for_each():
    assert time_grid("karras") == "karras"
    assert time_grid("1,0.5,0") == [1.0, 0.5, 0.0]
    assert time_grid('{"name": "shifted", "shift": 3}') == {"name": "shifted", "shift": 3}
    with pytest.raises(argparse.ArgumentTypeError, match="expected JSON"):
        time_grid("{shift: 3}")
