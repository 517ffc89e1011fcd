"""A checkpoint is whole or absent, and a run goes on from the newest whole one."""

import pytest
import torch

from vdm.training.checkpoints import (
    AtomicCheckpointIO,
    Checkpoints,
    is_whole,
    newest_whole,
    remove_leftovers,
)


def write(folder, *steps):
    for step in steps:
        AtomicCheckpointIO().save_checkpoint(
            {"step": step, "weights": torch.randn(50, 40)}, folder / f"step-{step:08d}.ckpt"
        )


def test_there_is_no_checkpoint_where_there_is_no_folder(tmp_path):
    assert newest_whole(tmp_path / "none") is None


def test_the_newest_is_found(tmp_path):
    write(tmp_path, 5, 100, 20)
    assert newest_whole(tmp_path).name == "step-00000100.ckpt"


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped"])
def test_a_damaged_one_is_skipped_with_a_line(tmp_path, capsys, damage):
    write(tmp_path, 5, 10)
    bad = tmp_path / "step-00000010.ckpt"
    content = bytearray(bad.read_bytes())
    content[len(content) // 2] ^= 0xFF
    changed = {"cut": content[: len(content) // 2], "empty": b"", "flipped": bytes(content)}
    bad.write_bytes(changed[damage])
    assert not is_whole(bad)
    assert newest_whole(tmp_path).name == "step-00000005.ckpt"
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "step-00000010.ckpt: damaged, skipped" in printed


def test_what_a_killed_run_was_writing_is_no_checkpoint(tmp_path):
    write(tmp_path, 5)
    leftover = tmp_path / ".tmp-123-step-00000010.ckpt"
    leftover.write_bytes(b"half")
    assert newest_whole(tmp_path).name == "step-00000005.ckpt"
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005.ckpt"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    write(tmp_path, 5)
    path = tmp_path / "step-00000005.ckpt"
    before = path.read_bytes()
    with pytest.raises(AttributeError, match="pickle"):
        AtomicCheckpointIO().save_checkpoint({"bad": lambda: None}, path)
    assert path.read_bytes() == before


def test_at_least_one_is_kept():
    with pytest.raises(ValueError, match="got keep=0, expected at least 1"):
        Checkpoints(keep=0)
