"""Clips survive the way into files and back, frame by frame, with what is noted in them."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from vdm.utils.video_io import (
    contact_sheet,
    from_uint8,
    read_metadata,
    read_video,
    to_uint8,
    write_video,
)
from vdm.utils.video_reader import VideoReader

NOTE = {"prompt": 'a "red" circle, gr\u00f6\u00dfer', "seed": [3, 4], "config": {"steps": 25}}


def moving_square(num_frames=13, height=34, width=46):
    """Every frame has a grey level of its own, and a square that moves."""
    frames = np.zeros((num_frames, height, width, 3), np.uint8)
    for number, frame in enumerate(frames):
        frame[:] = 40 + 5 * number
        frame[5:15, 2 * number : 2 * number + 10] = (215, 40, 40)
    return torch.from_numpy(frames)


def levels(frames):
    """The grey levels of a corner, by which a frame is known."""
    return frames[:, -4:, -4:].float().mean((1, 2, 3))


def numbers(frames):
    return ((levels(frames) - 40) / 5).round().int().tolist()


@pytest.fixture
def clip():
    return moving_square()


def test_levels_round_trip():
    every = torch.arange(256, dtype=torch.uint8).expand(3, 256).T.reshape(2, 8, 16, 3)
    video = from_uint8(every)
    assert video.shape == (3, 2, 8, 16)
    assert video.min() == -1
    assert video.max() == 1
    assert torch.equal(to_uint8(video), every)
    assert torch.equal(to_uint8(torch.stack([video, video])), torch.stack([every, every]))


def test_rounding_is_half_to_even_and_out_of_range_is_clamped():
    video = torch.tensor([0.0, -1.3, 1.2, 0.7 / 127.5 - 1]).reshape(1, 1, 1, 4).expand(3, 1, 1, 4)
    assert to_uint8(video)[0, 0, :, 0].tolist() == [128, 0, 255, 1]  # 127.5 goes to 128


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv", ".gif", ".npz"])
@pytest.mark.parametrize("size", [(34, 46), (33, 47)], ids=["even", "odd"])
def test_clip_survives(tmp_path, suffix, size):
    clip = moving_square(13, *size)
    path = write_video(clip, tmp_path / f"clip{suffix}", fps=8.0)
    frames, fps = read_video(path)
    assert frames.shape == clip.shape
    assert fps == pytest.approx(8.0, rel=0.01)
    error = (frames.int() - clip.int()).abs().float()
    if suffix in (".mkv", ".npz"):
        assert error.max() == 0
    else:
        assert error.mean() < 4
        assert numbers(frames) == list(range(13))


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv", ".gif", ".png", ".npz"])
def test_metadata_round_trips(clip, tmp_path, suffix):
    path = write_video(clip, tmp_path / f"clip{suffix}", fps=12.5, metadata=NOTE)
    assert read_metadata(path) == {**NOTE, "fps": 12.5, "height": 34, "width": 46}


def test_other_files_have_no_metadata(tmp_path):
    Image.new("RGB", (5, 7)).save(tmp_path / "plain.png")
    assert read_metadata(tmp_path / "plain.png") == {}


def test_colours_are_kept_by_lossy_codecs(tmp_path):
    colours = [(215, 40, 40), (45, 175, 65), (45, 90, 220), (245, 222, 45), (0, 0, 0)]
    clip = torch.tensor(colours, dtype=torch.uint8).reshape(5, 1, 1, 3).expand(5, 32, 32, 3)
    for suffix in (".mp4", ".webm"):
        frames, _ = read_video(write_video(clip, tmp_path / f"c{suffix}"))
        assert (frames.int() - clip.int()).abs().max() <= 4


@pytest.mark.parametrize("fps", [24000 / 1001, 7.0, 29.97])
def test_frame_rate_survives(clip, tmp_path, fps):
    for suffix in (".mp4", ".mkv"):
        _, rate = read_video(write_video(clip, tmp_path / f"clip{suffix}", fps=fps))
        assert rate == pytest.approx(fps, rel=2e-3)


def test_gif_lasts_as_long_as_the_clip(clip, tmp_path):
    path = write_video(clip, tmp_path / "clip.gif", fps=7.0)
    with Image.open(path) as image:
        shown = []
        for number in range(image.n_frames):
            image.seek(number)
            shown.append(image.info["duration"])
    assert sum(shown) == pytest.approx(1000 * 13 / 7, abs=10)


@pytest.mark.parametrize("numbers", [[3] * 9, [0, 0, 0, 1, 2, 2, 3, 3, 3, 3], [5, 5], [5]])
@pytest.mark.parametrize("is_noisy", [False, True])
def test_gif_keeps_frames_that_do_not_move(tmp_path, numbers, is_noisy):
    pictures = moving_square(6)
    if is_noisy:  # more colours than the format has
        pictures = torch.randint(0, 256, pictures.shape, dtype=torch.uint8)
    clip = pictures[numbers]
    frames, fps = read_video(write_video(clip, tmp_path / "clip.gif", fps=8.0))
    assert frames.shape == clip.shape
    assert fps == pytest.approx(8.0 if len(clip) > 1 else 0.0, rel=0.05)
    for before, after in pairwise(range(len(clip))):
        is_still = numbers[before] == numbers[after]
        assert torch.equal(frames[before], frames[after]) is is_still
    if not is_noisy:
        assert torch.equal(frames, clip)


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".mkv"])
def test_any_frame_alone_is_the_frame_of_the_whole(tmp_path, suffix):
    clip = moving_square(40)
    path = write_video(clip, tmp_path / f"clip{suffix}", fps=25.0)
    with VideoReader(path) as reader:
        whole = reader.read(range(40))
        for frame in (39, 0, 17, 18, 3):
            assert np.array_equal(reader.read([frame])[0], whole[frame])
        mixed = [30, 2, 30, 11]
        assert np.array_equal(reader.read(mixed), whole[mixed])


def test_every_frame_of_a_file_with_many_key_frames_and_reordering(tmp_path):
    path = tmp_path / "b.mp4"
    with av.open(str(path), "w") as container:
        options = {"g": "7", "bf": "3", "b_strategy": "0"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 46, 34, "yuv420p"
        for rgb in moving_square(40).numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())
    with VideoReader(path) as reader:
        assert len(reader.index.key_pts) >= 6
        whole = reader.read(range(40))
        for frame in range(40):
            assert np.array_equal(reader.read([frame])[0], whole[frame])


@pytest.mark.parametrize(("suffix", "codec"), [(".mpg", "mpeg2video"), (".avi", "mpeg4")])
def test_containers_without_exact_seeks_or_time_stamps(tmp_path, suffix, codec):
    path = tmp_path / f"clip{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": "6", "bf": "2"})
        stream.width, stream.height, stream.pix_fmt = 46, 34, "yuv420p"
        stream.bit_rate = 4_000_000
        for rgb in moving_square(18).numpy():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())
    with VideoReader(path) as reader:
        whole = reader.read(range(18))
        assert numbers(torch.from_numpy(whole)) == list(range(18))
        for frame in (17, 5, 6, 0, 12):
            assert np.array_equal(reader.read([frame])[0], whole[frame])


def test_start_stride_and_number_of_frames(clip, tmp_path):
    for suffix in (".mkv", ".npz"):
        path = write_video(clip, tmp_path / f"clip{suffix}", fps=8.0)
        frames, fps = read_video(path, start=2, num_frames=4, stride=3)
        assert numbers(frames) == [2, 5, 8, 11]
        assert fps == pytest.approx(8 / 3)
        with pytest.raises(ValueError, match="got 4 frames from number 2 on, expected 5"):
            read_video(path, start=2, num_frames=5, stride=3)
        with pytest.raises(ValueError, match="got 0 frames from number 13"):
            read_video(path, start=13)


def test_rate_goes_by_time_stamps(tmp_path):
    path = tmp_path / "uneven.mkv"
    shown = [0, 100, 200, 600, 700, 1000]  # milliseconds
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 46, 34, "bgr0"
        stream.codec_context.time_base = Fraction(1, 1000)
        for rgb, milliseconds in zip(moving_square(6).numpy(), shown, strict=True):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = milliseconds, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames, fps = read_video(path, fps=5.0)
    assert fps == 5.0
    assert numbers(frames) == [0, 2, 2, 3, 4, 5]  # at 0, 200, 400, 600, 800 and 1000 ms
    assert read_video(path)[1] == pytest.approx(5.0)


def test_size_covers_and_crops_the_centre(tmp_path):
    clip = torch.zeros(2, 40, 80, 3, dtype=torch.uint8)
    clip[:, :, 20:60] = 200  # the middle square is bright
    path = write_video(clip, tmp_path / "wide.mkv")
    frames, _ = read_video(path, size=(20, 20))
    assert frames.shape == (2, 20, 20, 3)
    assert frames[:, :, 1:-1].min() >= 198
    frames, _ = read_video(path, size=(10, 20))
    assert frames.shape == (2, 10, 20, 3)
    assert frames[:, :, :4].max() <= 2
    assert frames[:, :, 6:14].min() >= 198


def test_shrinking_averages_areas(tmp_path):
    clip = torch.zeros(1, 32, 48, 3, dtype=torch.uint8)
    clip[:, ::2, ::2] = 200
    frames, _ = read_video(write_video(clip, tmp_path / "fine.mkv"), size=(8, 12))
    assert (frames.int() - 50).abs().max() <= 1


@pytest.mark.parametrize(("degrees", "turns"), [(90, 3), (180, 2), (270, 1)])
def test_rotation_noted_in_the_file_is_applied(clip, tmp_path, degrees, turns):
    path = write_video(clip, tmp_path / "clip.mp4")
    upright, _ = read_video(path)
    turn_header(path, degrees)
    with VideoReader(path) as reader:
        frames = reader.read(range(13))
    assert np.array_equal(frames, np.rot90(upright.numpy(), turns, axes=(1, 2)))
    with VideoReader(path, size=(23, 17)) as reader:
        assert reader.read([0]).shape == (1, 23, 17, 3)


def turn_header(path: Path, clockwise: int) -> None:
    """Write a display rotation into the track header of an mp4 file (ISO 14496-12, 8.3.2)."""
    cos, sin = {90: (0, 1), 180: (-1, 0), 270: (0, -1)}[clockwise]
    one = 1 << 16
    matrix = [cos * one, sin * one, 0, -sin * one, cos * one, 0, 0, 0, 1 << 30]
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 4 + 32 + 4
    content[at : at + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in matrix)
    path.write_bytes(content)


def test_contact_sheet_shows_all_frames_in_reading_order(clip, tmp_path):
    path = write_video(clip, tmp_path / "clip.png")
    sheet = np.asarray(Image.open(path))
    assert np.array_equal(sheet, contact_sheet(clip.numpy()))
    columns = (sheet.shape[1] + 2) // (46 + 2)
    for number in range(13):
        row, column = divmod(number, columns)
        cell = sheet[row * 36 : row * 36 + 34, column * 48 : column * 48 + 46]
        assert np.array_equal(cell, clip[number].numpy())


def test_failed_write_keeps_the_old_file_and_leaves_nothing(clip, tmp_path, monkeypatch):
    path = write_video(clip, tmp_path / "clip.mp4", metadata={"seed": 1})

    def broken(*_args, **_kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(av.VideoFrame, "from_ndarray", broken, raising=True)
    with pytest.raises(OSError, match="disk full"):
        write_video(clip, path, metadata={"seed": 2})
    assert read_metadata(path)["seed"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_arrays_are_taken_and_folders_made(clip, tmp_path):
    path = write_video(clip.numpy(), tmp_path / "new" / "folder" / "clip.npz")
    assert torch.equal(read_video(path)[0], clip)


def test_misuse_is_refused(clip, tmp_path):
    with pytest.raises(ValueError, match=r"suffix '.mov', expected one of .mp4"):
        write_video(clip, tmp_path / "clip.mov")
    with pytest.raises(ValueError, match="at least 1 frame"):
        write_video(clip[:0], tmp_path / "clip.mp4")
    with pytest.raises(ValueError, match="fps=0"):
        write_video(clip, tmp_path / "clip.mp4", fps=0)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="stride=0"):
        read_video(tmp_path / "clip.mp4", stride=0)


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("empty.mp4", b"", "empty.mp4: empty file"),
        ("text.mp4", b"this is no video\n" * 50, "text.mp4: not a readable video"),
        ("text.npz", b"this is no clip", "text.npz: not a clip"),
        ("text.png", b"this is no picture", "text.png: not a readable image"),
    ],
)
def test_bad_file_gives_one_line_with_its_name(tmp_path, name, content, error):
    (tmp_path / name).write_bytes(content)
    read = read_metadata if name.endswith(".png") else read_video
    with pytest.raises(ValueError, match=error) as caught:
        read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path):
    for read in (read_video, read_metadata):
        for name in ("gone.mp4", "gone.npz"):
            with pytest.raises(FileNotFoundError, match=name):
                read(tmp_path / name)


def test_clip_without_moving_picture_is_refused(tmp_path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        samples = np.zeros((1, 1024), np.float32)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(ValueError, match=r"sound.mp4: no video in it, only audio"):
        read_video(tmp_path / "sound.mp4")


def test_frame_that_does_not_exist_is_refused(clip, tmp_path):
    with VideoReader(write_video(clip, tmp_path / "clip.mkv")) as reader:
        with pytest.raises(ValueError, match="got frame 13, expected 0 to 12"):
            reader.read([0, 13])
        with pytest.raises(ValueError, match="got frame none"):
            reader.read([])
