"""An ingest keeps what is sound as it was, says why of the rest, and survives being stopped."""

import hashlib
import json
import tarfile

import numpy as np
import pytest

from vdm.data.ingest import check_listing, ingest
from vdm.data.ingested import IngestedClips
from vdm.data.listing import read_listing
from vdm.data.listing_rows import Listed
from vdm.utils.video_io import to_uint8, write_video
from vdm.utils.video_reader import VideoReader


@pytest.fixture
def folder(tmp_path, make_video):
    root = tmp_path / "clips"
    (root / "run").mkdir(parents=True)
    for number, name in enumerate(("a.mp4", "run/b.webm", "run/c.d.mp4")):
        make_video(root / name, num_frames=9 + number)
    (root / "run" / "b.txt").write_text("a dog runs\n")
    (root / "z.mp4").write_bytes((root / "a.mp4").read_bytes()[:900])
    return root


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_sound_clips_are_kept_as_they_were_and_the_rest_has_a_reason(folder, tmp_path):
    listing = read_listing(folder)
    out = tmp_path / "out"
    seen = []
    counts = ingest(listing, out, report=lambda *at: seen.append(at))
    assert (counts.kept, counts.dropped) == (3, 1)
    assert seen == [(1, 4, 0), (2, 4, 0), (3, 4, 0), (4, 4, 1)]
    (lost,) = rows(out / "quarantine.jsonl")
    assert lost["name"] == "z.mp4"
    assert lost["reason"]
    found = rows(out / "index.jsonl")
    assert [row["name"] for row in found] == ["a.mp4", "run/b.webm", "run/c.d.mp4"]
    assert [row["frames"] for row in found] == [9, 10, 11]
    assert found[1]["captions"] == ["a dog runs"]
    for row in found:
        place = row["place"]
        with (out / place["file"]).open("rb") as file:
            file.seek(place["first"])
            content = file.read(place["bytes"])
        assert content == (folder / row["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == place["sha256"]
        with VideoReader(folder / row["name"]) as reader:
            assert row["pts"] == list(reader.index.pts)
    assert sorted(path.name for path in out.iterdir()) == [
        "dataset.json",
        "index.jsonl",
        "quarantine.jsonl",
        "shards",
    ]


def test_shards_are_tar_files_that_list_as_the_same_clips(folder, tmp_path):
    out = tmp_path / "out"
    ingest(read_listing(folder), out, shard_bytes=1)
    shards = sorted((out / "shards").glob("*.tar"))
    assert len(shards) == 3
    with tarfile.open(shards[1]) as archive:
        kinds = [member.name.split(".", 1)[1] for member in archive]
    assert kinds == ["txt", "json", "webm"]
    again = read_listing(out / "shards")
    assert [clip.captions for clip in again.clips] == [(), ("a dog runs",), ()]
    for name, clip in zip(("a.mp4", "run/b.webm", "run/c.d.mp4"), again.clips, strict=True):
        with VideoReader(folder / name) as here, VideoReader(clip.path, part=clip.part) as there:
            assert np.array_equal(here.read([2, 7]), there.read([2, 7]))


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_a_stopped_ingest_goes_on_and_gives_the_same_bytes(folder, tmp_path, stop_after):
    listing, whole, out = read_listing(folder), tmp_path / "whole", tmp_path / "out"
    ingest(listing, whole, shard_bytes=2000)

    def stop(done, total, dropped):
        if done == stop_after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(listing, out, shard_bytes=2000, report=stop)
    assert not (out / "index.jsonl").exists()
    last = sorted((out / "shards").glob("*.tar"))[-1]
    last.write_bytes(last.read_bytes() + b"half a clip")
    with (out / "journal.jsonl").open("a") as journal:
        journal.write('{"name": "half a li')
    looked = []
    ingest(listing, out, shard_bytes=2000, report=lambda *at: looked.append(at))
    assert len(looked) == 4 - stop_after
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(out) for path in out.rglob("*") if path.is_file())
    assert all((whole / name).read_bytes() == (out / name).read_bytes() for name in files)
    counts = ingest(listing, out, report=stop)  # whole: nothing is looked at again
    assert (counts.kept, counts.dropped) == (3, 1)


def test_places_in_one_video_share_its_bytes(tmp_path, make_video):
    make_video(tmp_path / "long.mp4", num_frames=24)  # 3 s at 8 frames a second
    rows_ = "videoID,url,timestamp,caption\nlong,u,\"[['0:00:00.0','0:00:01.0'],"
    rows_ += "['0:00:01.5','0:00:03.0'],['0:00:02.0','0:00:09.0']]\",\"['x','y','z']\"\n"
    (tmp_path / "panda.csv").write_text(rows_)
    out = tmp_path / "out"
    counts = ingest(read_listing(tmp_path / "panda.csv"), out)
    first, second = rows(out / "index.jsonl")
    assert first["place"] == second["place"]
    assert (first["frames"], second["frames"]) == (8, 12)
    (lost,) = rows(out / "quarantine.jsonl")
    assert lost == {"name": "long/2", "reason": "its place 2 to 9 s is not in 3.0 s"}
    assert counts.kept == 2


def test_files_may_stay_where_they_are(folder, tmp_path):
    out = tmp_path / "out"
    ingest(read_listing(folder), out, in_place=True)
    assert not list((out / "shards").iterdir())
    for row in rows(out / "index.jsonl"):
        assert row["place"]["file"] == str(folder / row["name"])
        assert row["place"]["first"] == 0


def test_a_folder_of_something_else_is_left_alone(folder, tmp_path):
    listing, out = read_listing(folder), tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    with pytest.raises(ValueError, match="expected a new or empty folder"):
        ingest(listing, out)
    (out / "mine.txt").unlink()
    ingest(listing, out)
    listing.clips.pop()
    with pytest.raises(ValueError, match="holds clips of another listing"):
        ingest(listing, out)
    with pytest.raises(ValueError, match="holds clips of another in_place"):
        ingest(read_listing(folder), out, in_place=True)


def test_checking_a_listing_gives_a_line_for_every_clip(folder):
    listing = read_listing(folder)
    listing.missing.append("gone.mp4")
    listing.clips.append(Listed("gone2.mp4", folder / "gone2.mp4"))
    verdicts = list(check_listing(listing))
    assert [v.kept for v in verdicts] == [True, True, True, False, False, False]
    assert verdicts[1].reason.endswith("52x36, 10 frames at 8 fps, caption")
    assert str(verdicts[-1]) == "dropped  gone.mp4: its file is not there"
    assert all("\n" not in str(verdict) for verdict in verdicts)


class LevelCuts:
    """A shot ends where the picture's corner changes by much."""

    id = "levels"

    def __init__(self):
        self.asked = []

    def __call__(self, reader):
        self.asked.append(reader.path.name)
        corners = reader.read(range(len(reader)))[:, 0, 0, 0].astype(int)
        ends = [k + 1 for k in range(len(corners) - 1) if abs(corners[k + 1] - corners[k]) > 15]
        return list(zip([0, *ends], [*ends, len(corners)], strict=True))


@pytest.fixture
def films(tmp_path, make_video):
    """One of three shots, the middle one of a single frame, and one that is a single shot."""
    root = tmp_path / "films"
    make_video(root / "plain.mkv", num_frames=6)
    with VideoReader(root / "plain.mkv") as reader:
        frames = reader.read(range(6))
    parts = (frames, frames[:1] // 4, frames[2:])
    write_video(np.concatenate(parts), root / "cut.mkv", 8.0)
    (root / "cut.txt").write_text("a film")
    return root


def test_each_shot_is_a_clip_and_the_film_is_written_once(films, tmp_path):
    out = tmp_path / "out"
    counts = ingest(read_listing(films), out, scene_cuts=LevelCuts())
    assert (counts.kept, counts.dropped) == (3, 1)
    first, second, plain = rows(out / "index.jsonl")
    assert [row["name"] for row in (first, second, plain)] == [
        "cut.mkv/0",
        "cut.mkv/2",
        "plain.mkv",
    ]
    assert [row["frames"] for row in (first, second, plain)] == [6, 4, 6]
    assert (first["start"], first["end"]) == (0, 0.75)
    assert (second["start"], second["end"]) == (0.875, None)
    assert first["group"] == second["group"] == "cut.mkv"
    assert first["place"] == second["place"]
    assert second["captions"] == ["a film"]
    assert rows(out / "quarantine.jsonl") == [
        {"name": "cut.mkv/1", "reason": "a shot of 1 frame, expected at least 2"}
    ]
    samples = IngestedClips(out, num_frames=4, size=(36, 52), seed=None)
    with VideoReader(films / "cut.mkv") as reader:
        expected = reader.read([7, 8, 9, 10])
    found = to_uint8(samples[1]["video"]).numpy()
    assert np.array_equal(found, expected)


def test_a_stopped_ingest_of_shots_goes_on_and_is_of_these_cuts(films, tmp_path):
    listing, whole, out = read_listing(films), tmp_path / "whole", tmp_path / "out"
    ingest(listing, whole, scene_cuts=LevelCuts())

    def stop(done, total, dropped):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(listing, out, scene_cuts=LevelCuts(), report=stop)
    other = LevelCuts()
    other.id = "others"
    for cuts in (None, other):
        with pytest.raises(ValueError, match="holds clips of another scene_cuts"):
            ingest(listing, out, scene_cuts=cuts)
    again = LevelCuts()
    ingest(listing, out, scene_cuts=again)
    assert again.asked == ["plain.mkv"]
    files = sorted(path.relative_to(whole) for path in whole.rglob("*") if path.is_file())
    assert all((whole / name).read_bytes() == (out / name).read_bytes() for name in files)
