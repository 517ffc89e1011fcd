"""A clip cache can be missed but never mistaken: not for another, not for a whole one."""

import json
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from vdm.data.block_store import find_store
from vdm.data.clip_cache import ClipCache, build_clip_cache, describe_source

KILLED = """
import os, signal, sys
import numpy as np
from vdm.data.clip_cache import build_clip_cache

class Clips:
    def __len__(self): return 11
    def describe(self): return {"about": "a"}
    def clip(self, index):
        if index == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return np.full((5, 4, 6, 3), index, np.uint8), f"clip {index}"

build_clip_cache(Clips(), sys.argv[1], block_size=3, progress=False)
"""


def found(source, root):
    return find_store(root, "clips", describe_source(source))


def build(source, root, **kwargs):
    return build_clip_cache(source, root, progress=False, **kwargs)


def test_cache_holds_what_the_source_yields(make_clips, tmp_path):
    source = make_clips()
    cache = build(source, tmp_path, block_size=4)
    assert len(cache) == 11
    for index in range(11):
        clip, caption = cache.clip(index)
        assert np.array_equal(clip, source.clip(index)[0])
        assert caption == f"clip {index}"
    cache.store.verify()


def test_second_build_draws_only_the_probe(make_clips, tmp_path):
    build(make_clips(), tmp_path)
    again = make_clips()
    build(again, tmp_path)
    assert again.asked == [0, 10]


def test_clips_are_mapped_and_read_only(make_clips, tmp_path):
    cache = build(make_clips(), tmp_path)
    assert isinstance(cache.clips, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        cache.clip(0)[0][:] = 1


def test_pickles_as_a_path(make_clips, tmp_path):
    cache = build(make_clips(count=50), tmp_path)
    pickled = pickle.dumps(cache)
    assert len(pickled) < 2000
    assert np.array_equal(pickle.loads(pickled).clip(3)[0], cache.clip(3)[0])


@pytest.mark.parametrize(
    "change",
    [{"about": "b"}, {"count": 12}, {"shape": (5, 4, 7, 3)}],
    ids=lambda change: next(iter(change)),
)
def test_any_difference_is_a_miss(make_clips, tmp_path, change):
    build(make_clips(), tmp_path)
    assert found(make_clips(), tmp_path) is not None
    assert found(make_clips(**change), tmp_path) is None


def test_renderer_that_changed_without_saying_so_is_a_miss(make_clips, tmp_path):
    class Brighter(make_clips):
        def clip(self, index):
            frames, caption = super().clip(index)
            return frames + np.uint8(1), caption

    build(make_clips(), tmp_path)
    assert found(Brighter(), tmp_path) is None


@pytest.mark.parametrize("harm", ["truncate", "no_meta", "half_meta", "description", "empty"])
def test_damaged_folder_is_rebuilt(make_clips, tmp_path, harm):
    folder = build(make_clips(), tmp_path).store.folder
    meta = folder / "meta.json"
    if harm == "truncate":
        with (folder / "rows.npy").open("r+b") as file:
            file.truncate(500)
    elif harm == "no_meta":
        meta.unlink()
    elif harm == "half_meta":
        meta.write_text(meta.read_text()[:100])
    elif harm == "description":
        content = json.loads(meta.read_text())
        content["description"]["source"]["about"] = "b"
        meta.write_text(json.dumps(content))
    else:
        for path in folder.iterdir():
            path.unlink()
    with pytest.raises(ValueError, match=r"store|key|rows"):
        ClipCache(folder)
    assert found(make_clips(), tmp_path) is None
    assert build(make_clips(), tmp_path).clip(7)[0].max() == 7


def test_changed_pixels_are_found_by_verify(make_clips, tmp_path):
    cache = build(make_clips(), tmp_path, block_size=4)
    rows = np.load(cache.store.folder / "rows.npy", mmap_mode="r+")
    rows[5, 0, 0, 0, 0] = 99
    rows.flush()
    with pytest.raises(ValueError, match="from number 4 on"):
        ClipCache(cache.store.folder).store.verify()


def test_killed_build_is_no_cache_and_goes_on_where_it_stopped(make_clips, tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path), "7"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert found(make_clips(), tmp_path) is None
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and path.suffix != ".partial"]
    source = make_clips()
    cache = build(source, tmp_path, block_size=3)
    assert source.asked == [0, 10, 6, 7, 8, 9, 10]  # the probe, then the blocks that were missing
    assert [int(clip.max()) for clip in cache.clips] == list(range(11))
    assert cache.captions == [f"clip {index}" for index in range(11)]
    assert [path.name for path in tmp_path.iterdir()] == [cache.store.folder.name]
    assert sorted(path.name for path in cache.store.folder.iterdir()) == ["meta.json", "rows.npy"]


def test_block_that_was_recorded_but_not_written_is_drawn_again(make_clips, tmp_path):
    command = [sys.executable, "-c", KILLED, str(tmp_path), "7"]
    subprocess.run(command, check=False)
    (partial,) = tmp_path.glob("*.partial")
    rows = np.load(partial / "rows.npy", mmap_mode="r+")
    rows[1] = 0  # as after a power cut that lost the page but kept the record
    rows.flush()
    source = make_clips()
    assert build(source, tmp_path, block_size=3).clip(1)[0].max() == 1
    assert 1 in source.asked


def test_two_builders_share_the_work(make_clips, tmp_path):
    sources = [make_clips(), make_clips()]
    with ThreadPoolExecutor() as pool:
        first, second = pool.map(lambda source: build(source, tmp_path), sources)
    assert first.store.folder == second.store.folder
    drawn = sum(len(source.asked) for source in sources)
    assert drawn == 2 * 2 + 11  # two probes of two clips; the clips once
    assert [path.name for path in tmp_path.iterdir()] == [first.store.folder.name]


def test_clip_of_another_shape_is_refused(make_clips, tmp_path):
    class Odd(make_clips):
        def clip(self, index):
            frames, caption = super().clip(index)
            return (frames[1:], caption) if index == 4 else (frames, caption)

    with pytest.raises(ValueError, match=r"clip 4: got shape \(4, 4, 6, 3\)"):
        build(Odd(), tmp_path)
    assert found(make_clips(), tmp_path) is None


def test_empty_source_is_refused(make_clips, tmp_path):
    with pytest.raises(ValueError, match="empty"):
        build(make_clips(count=0), tmp_path)


def test_description_is_plain_data(make_clips):
    description = describe_source(make_clips())
    assert json.loads(json.dumps(description)) == description


def test_root_is_made(make_clips, tmp_path: Path):
    assert len(build(make_clips(), tmp_path / "a" / "b")) == 11
