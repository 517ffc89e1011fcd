"""Files that people already have list their clips, and nothing is lost or doubled in silence."""

import io
import json
import tarfile

import pytest

from vdm.data.listing import LAYOUTS, layout_of, read_listing


def put(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not looked at")
    return root


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_a_folder_has_captions_beside_its_clips_and_classes_above_them(tmp_path):
    put(tmp_path, "run/b.mp4", "a.webm", ".hidden/c.mp4", "run/notes.md")
    write(tmp_path / "run" / "b.txt", b"\xef\xbb\xbfa dog\r\nruns\r\n")
    found = read_listing(tmp_path)
    assert found.layout == "folder"
    rows = [(clip.name, clip.captions, clip.label) for clip in found.clips]
    assert rows == [("a.webm", (), ""), ("run/b.mp4", ("a dog runs",), "run")]


def test_tables_are_read_whatever_their_columns_are_called(tmp_path):
    put(tmp_path, "a.mp4", "video/b.mp4", "c.mp4")
    write(tmp_path / "sora.csv", "\ufeffpath,text,num_frames\r\na.mp4,'tis,17\r\ngone.mp4,x,9\r\n")
    found = read_listing(tmp_path / "sora.csv")
    assert found.layout == "table"
    assert [(clip.name, clip.captions) for clip in found.clips] == [("a.mp4", ("'tis",))]
    assert found.missing == ["gone.mp4"]
    openvid = 'Video,Caption,aesthetic score\nb.mp4,"one, two",5.1\n'
    (clip,) = read_listing(write(tmp_path / "openvid.csv", openvid)).clips
    assert (clip.captions, clip.path) == (("one, two",), tmp_path / "video" / "b.mp4")
    hub = json.dumps({"file_name": "c.mp4", "prompt": "a cat", "label": 3, "more": None})
    (clip,) = read_listing(write(tmp_path / "metadata.jsonl", hub + "\n\n")).clips
    assert (clip.captions, clip.label) == (("a cat",), "3")


def test_pairs_of_lists_go_together_line_by_line(tmp_path):
    put(tmp_path, "videos/1.mp4", "videos/2.mp4")
    write(tmp_path / "videos.txt", "videos/1.mp4\nvideos/2.mp4\n")
    write(tmp_path / "prompts.txt", "one\ntwo\n")
    found = read_listing(tmp_path)
    assert [(c.name, c.captions) for c in found.clips] == [
        ("videos/1.mp4", ("one",)),
        ("videos/2.mp4", ("two",)),
    ]
    write(tmp_path / "prompts.txt", "one\n")
    with pytest.raises(ValueError, match="got 2 videos and 1 prompts"):
        read_listing(tmp_path)


def make_tar(path, members):
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_members_of_tar_files_are_one_clip_by_their_key(tmp_path):
    make_tar(tmp_path / "000.tar", {"x/7.mp4": b"first", "x/7.txt": b"seven", "8.txt": b"no video"})
    make_tar(tmp_path / "001.tar", {"7.json": b'{"caption": "other"}', "7.webm": b"second"})
    write(tmp_path / "000_stats.json", "{}")
    found = read_listing(tmp_path)
    assert found.layout == "webdataset"
    assert [(c.name, c.captions) for c in found.clips] == [
        ("000.tar/x/7.mp4", ("seven",)),
        ("001.tar/7.webm", ("other",)),
    ]
    for clip, content in zip(found.clips, (b"first", b"second"), strict=True):
        start, size = clip.part
        assert clip.path.read_bytes()[start : start + size] == content
    make_tar(tmp_path / "001.tar", {"7.mp4": b"v", "y/../7.mp4": b"w", "./7.mp4": b"v"})
    with pytest.raises(ValueError, match="twice"):
        read_listing(tmp_path)
    write(tmp_path / "001.tar", b"cut off")
    with pytest.raises(ValueError, match=r"001\.tar: not a whole tar file"):
        read_listing(tmp_path)


def test_ucf101_keeps_footage_together_and_names_all_splits(tmp_path):
    root = put(
        tmp_path / "UCF-101", "Archery/v_Archery_g01_c01.avi", "Archery/v_Archery_g01_c02.avi"
    )
    lists = tmp_path / "ucfTrainTestlist"
    write(lists / "trainlist01.txt", "Archery/v_Archery_g01_c01.avi 1\r\n")
    write(
        lists / "testlist02.txt", "Archery/v_Archery_g01_c01.avi\nArchery/v_Archery_g02_c01.avi\n"
    )
    write(lists / "classInd.txt", "1 Archery\n")
    for listing in (tmp_path, root):
        found = read_listing(listing, layout="ucf101")
        first, second = found.clips
        assert (first.split, first.label) == ("test02,train01", "Archery")
        assert second.split == ""
        assert first.group == second.group == "Archery/g01"
        assert found.missing == ["v_Archery_g02_c01"]
    assert layout_of(tmp_path) == "ucf101"


def test_kinetics_is_cut_already_or_a_place_in_a_whole_video(tmp_path):
    put(tmp_path, "train/yo yo/abc-_000005_000015.mp4", "whole/xyz.mkv")
    rows = (
        "label,youtube_id,time_start,time_end,split\nyo yo,abc-,5,15,train\nyo yo,xyz,3,13,train\n"
    )
    found = read_listing(write(tmp_path / "k400.csv", rows + "ski,gone,1,11,val\n"))
    assert found.layout == "kinetics"
    cut, whole = found.clips
    assert (cut.name, cut.start, cut.end) == ("abc-_000005_000015", 0, None)
    assert (whole.path.name, whole.start, whole.end) == ("xyz.mkv", 3, 13)
    assert (whole.label, whole.group, whole.split) == ("yo yo", "xyz", "train")
    assert found.missing == ["gone_000001_000011"]


def test_msr_vtt_has_twenty_captions_and_two_kinds_of_split(tmp_path):
    put(tmp_path / "TrainValVideo", "video0.mp4", "video1.mp4")
    url = "https://www.youtube.com/watch?v=9lZi22qLlEo"
    about = {"video_id": "video0", "category": 9, "url": f"{url}&t=3", "split": "train"}
    said = [{"sen_id": k, "video_id": f"video{k % 2}", "caption": f"caption {k}"} for k in range(3)]
    content = {"info": {}, "videos": [about, {"video_id": "video7"}], "sentences": said}
    found = read_listing(write(tmp_path / "train_val.json", json.dumps(content)))
    (clip,) = found.clips
    assert (clip.captions, clip.label, clip.group) == (("caption 0", "caption 2"), "9", url)
    assert found.missing == ["video7"]
    part = "key,vid_key,video_id,sentence\nret0,msr1,video1,a man sings\n"
    found = read_listing(write(tmp_path / "JSFUSION.csv", part), media=tmp_path / "TrainValVideo")
    assert found.layout == "msr-vtt-1k"
    assert [(c.name, c.captions) for c in found.clips] == [("video1", ("a man sings",))]


def test_something_something_has_templates_for_classes(tmp_path):
    put(tmp_path, "78.webm")
    row = {"id": "78", "label": "moving a cup up", "template": "Moving [something] up"}
    (clip,) = read_listing(write(tmp_path / "validation.json", json.dumps([row]))).clips
    assert (clip.label, clip.captions, clip.split) == (
        "Moving something up",
        ("moving a cup up",),
        "validation",
    )


def test_webvid_lies_in_pages_and_panda_in_places_of_whole_videos(tmp_path):
    put(tmp_path, "videos/p1/12.mp4", "full/Zx.mp4")
    rows = "videoid,contentUrl,duration,page_dir,name\n12,u,PT1S,p1,A cow\n13,u,PT1S,p1,B\n"
    found = read_listing(write(tmp_path / "webvid.csv", rows))
    assert [(c.name, c.captions) for c in found.clips] == [("p1/12.mp4", ("A cow",))]
    assert found.missing == ["p1/13.mp4"]
    times = "[['0:00:01.500', '0:00:04.000'], ['1:00:00.000', '1:00:02.25']]"
    rows = f'videoID,url,timestamp,caption\nZx,u,"{times}","[\'it\', ""she\'s""]"\n'
    first, second = read_listing(write(tmp_path / "panda.csv", rows)).clips
    assert (first.start, first.end, first.captions) == (1.5, 4.0, ("it",))
    assert (second.name, second.start, second.captions) == ("Zx/1", 3600.0, ("she's",))
    evil = 'videoID,url,timestamp,caption\nZx,u,"__import__(\'os\')","[]"\n'
    with pytest.raises(ValueError, match=r"panda\.csv:2: expected lists"):
        read_listing(write(tmp_path / "panda.csv", evil))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.csv", "path,text\na.mp4\n", r"x\.csv:2: got 1 cells, expected 2"),
        ("x.csv", "Path,path\n", "column 'path' twice"),
        ("x.csv", b"path\n\xff\n", "utf-8"),
        ("x.csv", "foo,bar\n1,2\n", "got columns bar, foo, expected e.g. path, text"),
        ("x.jsonl", "{}\n[1]\n", r"without path|x\.jsonl:2: got list"),
        ("x.jsonl", "{", r"x\.jsonl:1: not JSON"),
        ("x.json", "{}", "JSON of no known data set"),
        ("x.json", "{", r"x\.json: not JSON"),
        ("x.md", "", r"expected a folder or a \.csv"),
        ("x.csv", "path\na.mp4\na.mp4\n", "a.mp4 twice"),
        (
            "x.csv",
            "label,youtube_id,time_start,time_end\nl,i,b,c\n",
            r"x\.csv:2: got times b and c",
        ),
    ],
)
def test_a_damaged_listing_is_refused_in_one_line(tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message) as said:
        read_listing(write(tmp_path / name, content))
    assert "\n" not in str(said.value)


def test_what_is_not_there_or_unknown_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere, expected a folder or a listing"):
        read_listing(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=f"got layout 'ucf', expected one of {', '.join(LAYOUTS)}"):
        read_listing(tmp_path, layout="ucf")
    put(tmp_path, "a/x.mp4", "b/x.mp4")
    listing = write(tmp_path / "l.csv", "video_id,sentence\nx,words\n")
    with pytest.raises(ValueError, match="expected one x"):
        read_listing(listing)
    with pytest.raises(ValueError, match="not laid out as kinetics: KeyError"):
        read_listing(listing, layout="kinetics")
