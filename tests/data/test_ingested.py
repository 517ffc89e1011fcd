"""An ingested folder gives the same frames as the files that it was made from."""

import json
from itertools import islice

import pytest
import torch
from counted_frames import numbers

from vdm.data.buckets import Bucket
from vdm.data.datamodules import VideoFolderClips
from vdm.data.ingest import ingest
from vdm.data.ingested import IngestedClips
from vdm.data.listing import read_listing
from vdm.data.video_folder import VideoFolder


@pytest.fixture
def folder(clips, tmp_path):
    ingest(read_listing(clips), tmp_path / "data")
    return tmp_path / "data"


OPTIONS = {"num_frames": 4, "size": (36, 36)}


@pytest.mark.parametrize("fps", [None, 5.0])
def test_samples_are_those_of_the_files_themselves(clips, folder, fps):
    ours = IngestedClips(folder, **OPTIONS, fps=fps, seed=None)
    theirs = VideoFolder(clips, **OPTIONS, fps=fps, seed=None)
    assert [row["name"] for row in ours.clips] == [clip.name for clip in theirs.clips]
    assert [verdict.name for verdict in ours.dropped] == ["short.mkv"]
    for index in range(len(ours)):
        assert torch.equal(ours[index]["video"], theirs[index]["video"])
        assert ours[index]["caption"] == theirs[index]["caption"]


def test_passes_begin_elsewhere_and_seeds_are_addresses(folder):
    data = IngestedClips(folder, **OPTIONS)
    starts = {numbers(data[epoch * 3 + 2])[0] for epoch in range(12)}
    assert len(starts) > 4
    assert torch.equal(data[7]["video"], IngestedClips(folder, **OPTIONS)[7]["video"])
    other = IngestedClips(folder, **OPTIONS, seed=1)
    assert any(numbers(other[k]) != numbers(data[k]) for k in range(6))


@pytest.fixture
def listed(tmp_path, make_video):
    """Two videos with places, captions and splits."""
    for name in ("u", "w"):
        make_video(tmp_path / f"{name}.mp4", num_frames=24)
    content = {
        "videos": [{"video_id": "u", "split": "train"}, {"video_id": "w", "split": "test"}],
        "sentences": [{"video_id": "u", "caption": f"caption {k}"} for k in range(5)],
    }
    (tmp_path / "list.json").write_text(json.dumps(content))
    ingest(read_listing(tmp_path / "list.json"), tmp_path / "listed")
    return tmp_path / "listed"


def test_captions_of_a_clip_take_turns(listed):
    data = IngestedClips(listed, **OPTIONS)
    said = {data[epoch * 2]["caption"] for epoch in range(20)}
    assert said == {f"caption {k}" for k in range(5)}
    assert IngestedClips(listed, **OPTIONS, seed=None)[4]["caption"] == "caption 0"


def test_a_place_in_a_video_gives_its_own_frames(tmp_path, make_video):
    make_video(tmp_path / "v.mp4", num_frames=24)
    rows = "label,youtube_id,time_start,time_end,split\nx,v,1,2,train\n"
    (tmp_path / "k.csv").write_text(rows)
    ingest(read_listing(tmp_path / "k.csv"), tmp_path / "out")
    data = IngestedClips(tmp_path / "out", **OPTIONS)
    seen = {frame for epoch in range(20) for frame in numbers(data[epoch])}
    assert seen == set(range(8, 16))
    with pytest.raises(ValueError, match="1 are too short"):
        IngestedClips(tmp_path / "out", num_frames=9)


def test_splits_are_those_of_the_listing(listed):
    assert [row["name"] for row in IngestedClips(listed, split="test", **OPTIONS).clips] == ["w"]
    with pytest.raises(ValueError, match="got split 'val', expected one of test, train"):
        IngestedClips(listed, split="val")
    size = {"num_frames": 4, "size": 36, "batch_size": 1}
    data = VideoFolderClips(str(listed), **size, train_split="train", val_split="test")
    assert [row["name"] for row in data.train_dataset().clips] == ["u"]
    assert [row["name"] for row in data.val_dataset().clips] == ["w"]
    with pytest.raises(ValueError, match="expected another train_split, not None"):
        VideoFolderClips(str(listed), val_split="test")


def test_footage_of_one_group_stays_on_one_side(folder):
    path = folder / "index.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    many = [{**rows[0], "name": f"{k}", "group": f"g{k % 7}"} for k in range(70)]
    path.write_text("".join(json.dumps(row) + "\n" for row in many))
    sides = [
        {row["group"] for row in IngestedClips(folder, **OPTIONS, part=part, val_share=0.4).clips}
        for part in ("train", "val")
    ]
    assert not sides[0] & sides[1]
    assert len(sides[0] | sides[1]) == 7


def test_a_folder_that_is_not_whole_says_so(folder, clips):
    (folder / "index.jsonl").unlink()
    with pytest.raises(ValueError, match=r"not a whole ingest, index\.jsonl is not there"):
        IngestedClips(folder)
    (folder / "dataset.json").write_text('{"format": "other"}')
    with pytest.raises(ValueError, match="got format other, expected vdm-clips/1"):
        IngestedClips(folder)
    with pytest.raises(ValueError, match="got a split, expected an ingested folder"):
        VideoFolderClips(str(clips), train_split="train").train_dataset()


def test_batches_of_several_shapes(tmp_path, make_video):
    for name, frames, height, width in (
        ("a", 20, 36, 36),
        ("b", 17, 40, 40),
        ("c", 20, 24, 48),
        ("d", 6, 36, 36),
    ):
        make_video(tmp_path / f"{name}.mp4", frames, height, width)
    ingest(read_listing(tmp_path), tmp_path / "data")
    shapes = [Bucket(5, 20, 20), Bucket(9, 20, 20), Bucket(9, 16, 32)]
    module = VideoFolderClips(str(tmp_path / "data"), 0.0, batch_size=2, buckets=shapes)
    data = module.train_dataset()
    assert [[data.clips[k]["name"] for k in group] for group in data.groups] == [
        ["d.mp4"],
        ["a.mp4", "b.mp4"],
        ["c.mp4"],
    ]
    seen = {tuple(batch["video"].shape) for batch in islice(module.train_dataloader(), 6)}
    assert seen == {(2, 3, one.num_frames, one.height, one.width) for one in shapes}
    assert module.state_dict()["buckets"] == [1, 2, 1]
    module.load_state_dict(module.state_dict() | {"buckets": None, "num_samples": None})
    module.load_state_dict(module.state_dict() | {"buckets": [4]})
    with pytest.raises(
        ValueError, match=r"got buckets=\[1, 2, 1\], expected \[4\] as in the check"
    ):
        module.train_dataloader()
    held = VideoFolderClips(str(tmp_path / "data"), 0.5, batch_size=2, buckets=shapes)
    assert sum(len(batch["video"]) for batch in held.val_dataloader()) == len(held.val_dataset())
    with pytest.raises(ValueError, match="got buckets, expected an ingested folder: vdm data ing"):
        VideoFolderClips(str(tmp_path), buckets=shapes).train_dataset()
