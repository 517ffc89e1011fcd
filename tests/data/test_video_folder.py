"""A folder of video files: each sound file gives its own clip, no bad file gives another's."""

import pytest
import torch
from counted_frames import numbers

from vdm.data.video_folder import VideoFolder


@pytest.fixture
def folder(clips):
    (clips / "bad.mp4").write_bytes(b"no video")
    return clips


def open_folder(folder, **options):
    return VideoFolder(folder, **{"num_frames": 4, "size": (36, 36), **options})


def test_samples_are_those_of_the_sound_files(folder):
    data = open_folder(folder)
    assert [clip.name for clip in data.clips] == ["a.mkv", "b.mkv", "c.mkv"]
    for index, caption in enumerate(["", "the second clip", ""]):
        sample = data[index]
        assert sample["video"].shape == (3, 4, 36, 36)
        assert sample["video"].abs().max() <= 1
        assert sample["caption"] == caption
        assert sample["index"] == index


def test_dropped_files_are_named_with_reasons(folder):
    dropped = {verdict.name: verdict.reason for verdict in open_folder(folder).dropped}
    assert dropped["short.mkv"] == "too short: 3 frames, expected 4"
    assert "not a readable video" in dropped["bad.mp4"]
    assert set(dropped) == {"short.mkv", "bad.mp4"}


def test_frames_are_consecutive_and_differ_between_passes(folder):
    data = open_folder(folder)
    starts = set()
    for epoch in range(12):
        frames = numbers(data[epoch * 3 + 2])
        assert frames == list(range(frames[0], frames[0] + 4))
        starts.add(frames[0])
    assert len(starts) > 4


def test_samples_are_addressed_by_seed_pass_and_file(folder):
    first, again, other = (open_folder(folder, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first[5]["video"], again[5]["video"])
    picks = [[numbers(data[3 * k + 2])[0] for k in range(8)] for data in (first, other)]
    assert picks[0] != picks[1]


def test_without_a_seed_clips_start_at_the_first_frame(folder):
    data = open_folder(folder, seed=None)
    assert [numbers(data[key]) for key in (0, 3, 4)] == [[0, 1, 2, 3]] * 3


def test_rate_goes_by_time_stamps(folder):
    data = open_folder(folder, seed=None, fps=4.0)
    assert numbers(data[0]) == [0, 2, 4, 6]  # 8 frames a second
    assert numbers(data[2]) == [0, 4, 8, 12]  # 16 frames a second
    assert open_folder(folder, fps=2.0, num_frames=5).clips[0].name == "b.mkv"  # a lasts 1.1 s


def test_windows_at_a_rate_stay_inside(folder):
    data = open_folder(folder, fps=4.0)
    seen = [numbers(data[3 * epoch]) for epoch in range(20)]
    assert {frames[0] for frames in seen} == {0, 1, 2}
    assert all(frames == list(range(frames[0], frames[0] + 8, 2)) for frames in seen)


def test_a_file_that_just_lasts_long_enough_has_one_clip(tmp_path, make_video):
    make_video(tmp_path / "short.mkv", num_frames=4, fps=10.0)
    data = open_folder(tmp_path, fps=10.0)
    assert [numbers(data[key]) for key in range(3)] == [[0, 1, 2, 3]] * 3


def test_parts_are_disjoint_and_together_everything(tmp_path, make_video):
    for number in range(12):
        make_video(tmp_path / f"{number}.mkv", num_frames=4)
    parts = {
        part: {clip.name for clip in open_folder(tmp_path, part=part, val_share=0.3).clips}
        for part in ("all", "train", "val")
    }
    assert parts["train"] | parts["val"] == parts["all"]
    assert not parts["train"] & parts["val"]
    assert 1 <= len(parts["val"]) <= 8
    make_video(tmp_path / "more.mkv", num_frames=4)
    later = {clip.name for clip in open_folder(tmp_path, part="val", val_share=0.3).clips}
    assert later - {"more.mkv"} == parts["val"]


def test_something_is_held_out_of_two_files(folder):
    data = open_folder(folder, part="val", val_share=0.001)
    assert len(data) == 1
    assert len(open_folder(folder, part="train", val_share=0.001)) == 2


def test_folder_without_clips_is_refused_with_a_reason(tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"1 files dropped, the first because empty file"):
        open_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="gone"):
        open_folder(tmp_path / "gone")


def test_file_that_broke_since_is_an_error_not_another_clip(folder):
    data = open_folder(folder)
    (folder / "a.mkv").write_bytes(b"now it is broken")
    with pytest.raises(ValueError, match=r"a\.mkv"):
        data[0]


def test_share_out_of_range_is_refused(folder):
    with pytest.raises(ValueError, match="val_share=1"):
        open_folder(folder, part="train", val_share=1.0)
