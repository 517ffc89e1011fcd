"""Clips of the world by number; what a mirror and a paraphrase may do to their captions."""

import subprocess
import sys

import numpy as np
import pytest

from vdm import world
from vdm.data.clip_cache import build_clip_cache
from vdm.data.sources import Paraphrase, ShapesSource, mirror_caption
from vdm.world.attributes import is_held_out


def source(**options):
    return ShapesSource(**{"split": "train", "count": 5, "size": 16, "num_frames": 3, **options})


def test_clip_is_that_of_the_world():
    frames, caption = source(seed=4).clip(3)
    scene = world.scene("train", 4, 3)
    assert caption == world.print_caption(scene)
    assert np.array_equal(frames, world.render(scene, 16, 3, 8.0))


def test_processes_that_draw_clips_do_not_wait_for_torch():
    code = "import sys, vdm.data.sources, vdm.data.clip_cache, vdm.data.check, vdm.data.real_clips"
    command = [sys.executable, "-c", f"{code}; sys.exit('torch' in sys.modules)"]
    assert subprocess.run(command, check=False).returncode == 0


def test_number_of_objects_can_be_asked_for():
    for count in (1, 2):
        clips = source(split="test-iid", num_objects=count)
        assert {len(clips.scene(index).objects) for index in range(5)} == {count}


def test_every_argument_is_in_the_description():
    described = source().describe()
    for change in ({"seed": 1}, {"size": 32}, {"num_frames": 4}, {"fps": 4.0}, {"split": "val"}):
        assert source(**change).describe() != described
    assert source(count=6).describe() == described


def test_misuse_is_refused():
    with pytest.raises(ValueError, match="split 'tran', expected one of train"):
        source(split="tran")
    with pytest.raises(ValueError, match="num_frames=0"):
        source(num_frames=0)


def test_workers_draw_the_same_clips(tmp_path):
    alone = build_clip_cache(source(), tmp_path / "a", block_size=2, progress=False)
    shared = build_clip_cache(source(), tmp_path / "b", 2, block_size=2, progress=False)
    assert shared.key == alone.key
    assert np.array_equal(shared.clips, alone.clips)
    assert shared.captions == alone.captions


@pytest.mark.parametrize(
    ("caption", "mirrored"),
    [
        ("a small red square moves left slowly.", "a small red square moves right slowly."),
        ("a red star spins clockwise.", "a red star spins counterclockwise."),
        ("a large blue square grows.", "a large blue square grows."),
        (
            "a green bar moves up and a red cross moves in a circle counterclockwise quickly,"
            " the camera pans left.",
            "a green bar moves up and a red cross moves in a circle clockwise quickly,"
            " the camera pans right.",
        ),
    ],
)
def test_mirrored_caption(caption, mirrored):
    assert mirror_caption(caption) == mirrored
    assert mirror_caption(mirrored) == caption


def test_no_held_out_pair_comes_back_through_the_mirror():
    refused = 0
    for index in range(50):
        caption = world.print_caption(world.scene("train", 0, index))
        mirrored = mirror_caption(caption)
        if mirrored is None:
            refused += 1
            continue
        for thing in world.parse_caption(mirrored).objects:
            assert not is_held_out(thing.colour, thing.shape, thing.motion)
    assert 0 < refused < 25


def test_mirrored_pixels_are_those_of_the_mirrored_words():
    for index in range(40):
        scene = world.scene("train", 0, index, 1)
        if scene.objects[0].motion != "left" or scene.camera.motion != "static":
            continue
        frames = world.render(scene, 32, 8)[:, :, ::-1].astype(float)
        colour = frames.max(-1) - frames.min(-1) > 60
        columns = [np.nonzero(mask)[1].mean() for mask in colour]
        assert columns[-1] > columns[0]  # to the right
        return
    pytest.fail("no such clip among 40")


def test_paraphrase_is_addressed_and_keeps_what_must_be_said():
    caption = "a small striped red square moves left slowly and a large blue star grows quickly."
    said = {Paraphrase(1)(caption, index, epoch) for index in range(6) for epoch in range(6)}
    assert len(said) > 20
    for words in said:
        objects = world.parse_caption(words).objects
        assert [(o.colour, o.shape, o.motion) for o in objects] == [
            ("red", "square", "left"),
            ("blue", "star", "grow"),
        ]
    assert Paraphrase(1)(caption, 2, 3) == Paraphrase(1)(caption, 2, 3)
