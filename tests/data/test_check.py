"""Every file gets one line: what it is, or why it was dropped."""

import av
import numpy as np
import pytest

from vdm.data.check import check_folder


@pytest.fixture
def verdict_of(tmp_path):
    def look(name):
        verdicts = {verdict.name: verdict for verdict in check_folder(tmp_path)}
        assert "\n" not in str(verdicts[name])
        return verdicts[name]

    return look


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv", ".gif"])
def test_sound_clip_is_kept_and_described(tmp_path, make_video, verdict_of, suffix):
    make_video(tmp_path / f"clip{suffix}")
    verdict = verdict_of(f"clip{suffix}")
    assert verdict.kept
    assert "52x36, 13 frames at 8" in verdict.reason
    assert verdict.num_frames == 13
    assert verdict.fps == pytest.approx(8, rel=0.01)
    assert verdict.caption == ""


@pytest.mark.parametrize(
    ("content", "caption"),
    [
        (b"a red circle", "a red circle"),
        (b"\xef\xbb\xbfa red circle\r\nmoves left\r\n", "a red circle moves left"),
        ("gr\u00fcner Kreis\n".encode(), "gr\u00fcner Kreis"),
        (b"", ""),
    ],
    ids=["plain", "mark and CRLF", "utf-8", "empty"],
)
def test_caption_of_the_same_name_is_read(tmp_path, make_video, verdict_of, content, caption):
    make_video(tmp_path / "clip.mp4")
    (tmp_path / "clip.txt").write_bytes(content)
    assert verdict_of("clip.mp4").caption == caption
    assert verdict_of("clip.mp4").reason.endswith(", caption")


def test_caption_that_is_no_text_drops_the_clip(tmp_path, make_video, verdict_of):
    make_video(tmp_path / "clip.mp4")
    (tmp_path / "clip.txt").write_bytes(b"caf\xe9")
    assert verdict_of("clip.mp4")[:3] == ("clip.mp4", False, "its caption is not utf-8 (byte 3)")


def test_caption_without_a_clip_is_named(tmp_path, make_video, verdict_of):
    make_video(tmp_path / "clip.mp4")
    (tmp_path / "lost.txt").write_text("a red circle")
    assert verdict_of("lost.txt")[1:3] == (False, "a caption without a clip")


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv", ".gif"])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_truncated_clip_is_dropped(tmp_path, make_video, verdict_of, suffix, share):
    path = make_video(tmp_path / f"clip{suffix}", num_frames=40)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert not verdict_of(path.name).kept


def test_damaged_clip_is_dropped(tmp_path, make_video, verdict_of):
    path = make_video(tmp_path / "clip.mp4", num_frames=40)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    path.write_bytes(content)
    verdict = verdict_of("clip.mp4")
    assert not verdict.kept
    assert verdict.reason.startswith("damaged: ")
    assert "of 40 frames decode" in verdict.reason


def test_empty_file_is_dropped(tmp_path, verdict_of):
    (tmp_path / "zero.mp4").touch()
    assert verdict_of("zero.mp4")[1:3] == (False, "empty file (0 bytes)")


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mpg", ".ts", ".gif", ".flv", ".m1v"])
def test_text_with_the_name_of_a_video_is_dropped(tmp_path, verdict_of, suffix):
    (tmp_path / f"text{suffix}").write_text("this is no video\n" * 300)
    assert not verdict_of(f"text{suffix}").kept


def test_single_frame_is_dropped(tmp_path, make_video, verdict_of):
    make_video(tmp_path / "still.mp4", num_frames=1)
    assert verdict_of("still.mp4")[1:3] == (False, "a single frame, expected at least 2")


def test_sound_without_picture_is_dropped(tmp_path, verdict_of):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        samples = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert verdict_of("sound.mp4")[1:3] == (False, "no video in it, only audio")


def test_codec_that_nobody_knows_is_dropped(tmp_path, make_video, verdict_of):
    path = make_video(tmp_path / "odd.mp4")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz9").replace(b"avcC", b"zzzC"))
    verdict = verdict_of("odd.mp4")
    assert not verdict.kept
    assert "codec" in verdict.reason or "not a readable video" in verdict.reason


def test_folder_is_searched_to_any_depth_in_order(tmp_path, make_video):
    (tmp_path / "b" / "c").mkdir(parents=True)
    make_video(tmp_path / "z.mp4")
    make_video(tmp_path / "b" / "c" / "y.MP4".lower())
    make_video(tmp_path / ".hidden.mp4")
    (tmp_path / "notes.md").write_text("not a clip")
    assert [verdict.name for verdict in check_folder(tmp_path)] == ["b/c/y.mp4", "z.mp4"]


def test_single_file_can_be_asked_for(tmp_path, make_video):
    make_video(tmp_path / "a.mp4")
    make_video(tmp_path / "b.mp4")
    assert [verdict.name for verdict in check_folder(tmp_path / "b.mp4")] == ["b.mp4"]


def test_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        check_folder(tmp_path / "gone")


def test_remembered_files_are_not_decoded_again_until_they_change(tmp_path, make_video):
    memory = tmp_path / "memory" / "files.json"
    folder = tmp_path / "clips"
    make_video(folder / "a.mp4")
    make_video(folder / "b.mp4")
    first = check_folder(folder, memory=memory)
    text = memory.read_text()
    memory.write_text(text.replace("52x36", "as remembered"))
    again = check_folder(folder, memory=memory)
    assert ["as remembered" in verdict.reason for verdict in again] == [True, True]
    (folder / "a.txt").write_text("new words")
    (folder / "b.mp4").write_bytes(b"")
    changed = check_folder(folder, memory=memory)
    assert changed[0].caption == "new words"
    assert changed[1].reason == "empty file (0 bytes)"
    memory.write_text("{")
    assert check_folder(folder, memory=memory) == changed
    assert first != changed
