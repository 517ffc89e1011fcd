"""The files that public data sets come with, as :class:`vdm.data.listing.Listed` rows."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from vdm.data.listing_rows import Listed, Media, Rows, one_line, read_json, read_table, unique

UCF_LISTS = "ucfTrainTestlist"
UCF_NAME = re.compile(r"v_(?P<label>\w+)_g(?P<group>\d+)_c(?P<clip>\d+)")
"""Clips of one class and group are cut from the same footage."""


def ucf101(path: Path, media: Media) -> Rows:
    """``CLASS/v_CLASS_gGG_cCC.avi`` and ``ucfTrainTestlist/{train,test}list0{1,2,3}.txt``.

    A clip is of all the splits that list it, e.g. ``train01,test02,train03``; of none
    if there are no lists.

    Source:
        Soomro, Zamir and Shah 2012, arXiv:1212.0402.
    """
    splits: dict[str, list[str]] = {}
    for place in (path, *path.glob("*"), path.parent):
        for file in sorted((place / UCF_LISTS).glob("*list0*.txt")):
            for line in file.read_text(encoding="utf-8-sig").splitlines():
                if line.strip():
                    splits.setdefault(Path(line.split()[0]).stem, []).append(
                        file.stem.replace("list", "")
                    )
        if splits:
            break
    there = {file.stem: file for file in sorted(media.root.rglob("v_*_g*_c*.avi"))}
    for stem in sorted(there.keys() | splits.keys()):
        parts = UCF_NAME.fullmatch(stem)
        if parts is None:
            raise ValueError(f"{path}: got {stem}, expected v_CLASS_gGG_cCC")
        yield Listed(
            stem,
            there.get(stem, media.root / parts["label"] / f"{stem}.avi"),
            label=parts["label"],
            split=",".join(unique(splits.get(stem, []))),
            group=f"{parts['label']}/g{parts['group']}",
        )


def kinetics(path: Path, media: Media) -> Rows:
    """``label,youtube_id,time_start,time_end,split``; ``ID_SSSSSS_EEEEEE.mp4``, or whole videos.

    Source:
        Kay et al. 2017, arXiv:1705.06950; Carreira et al. 2018 and 2019, arXiv:1808.01340 and
        arXiv:1907.06987.
    """
    for number, row in enumerate(read_table(path), 2):
        times = row["timestart"], row["timeend"]
        try:
            start, end = map(float, times)
        except ValueError:
            raise ValueError(
                f"{path}:{number}: got times {times[0]} and {times[1]}, expected seconds"
            ) from None
        name = f"{row['youtubeid']}_{int(start):06d}_{int(end):06d}"
        file, whole = media.named(name), media.named(row["youtubeid"])
        is_cut = file.is_file() or not whole.is_file()
        yield Listed(
            name,
            file if is_cut else whole,
            label=row.get("label", ""),
            split=row.get("split", ""),
            group=row["youtubeid"],
            start=0.0 if is_cut else start,
            end=None if is_cut else end,
        )


def msr_vtt(path: Path, media: Media) -> Rows:
    """``{videos: [...], sentences: [...]}``: every video with its twenty sentences.

    Source:
        Xu et al. 2016, "MSR-VTT: A Large Video Description Dataset for Bridging Video and
        Language", CVPR.
    """
    content = read_json(path)
    said: dict[str, list[str]] = {}
    for sentence in content["sentences"]:
        said.setdefault(sentence["video_id"], []).extend(one_line(sentence["caption"]))
    for video in content["videos"]:
        name = video["video_id"]
        yield Listed(
            name,
            media.named(name),
            None,
            tuple(said.get(name, ())),
            str(video.get("category", "")),
            str(video.get("split", "")),
            str(video.get("url", "")).partition("&")[0],
        )


def msr_vtt_1k(path: Path, media: Media) -> Rows:
    """The 1k-A split: a table of ``key,vid_key,video_id,sentence``, or of ``video_id`` alone.

    Source:
        Yu, Kim and Kim 2018, "A Joint Sequence Fusion Model for Video Question Answering and
        Retrieval", arXiv:1808.02559.
    """
    for row in read_table(path):
        yield Listed(
            row["videoid"], media.named(row["videoid"]), None, one_line(row.get("sentence", ""))
        )


def something(path: Path, media: Media) -> Rows:
    """A list of ``{id, label, template}``; the class is the template, ``labels.json`` its number.

    Source:
        Goyal et al. 2017, "The 'something something' video database", arXiv:1706.04261.
    """
    for row in read_json(path):
        name = str(row["id"])
        template = str(row.get("template", "")).replace("[", "").replace("]", "")
        caption = one_line(str(row.get("label", "")))
        yield Listed(name, media.at(f"{name}.webm"), None, caption, template, path.stem)


def webvid(path: Path, media: Media) -> Rows:
    """``videoid,contentUrl,duration,page_dir,name``; files ``page_dir/videoid.mp4``.

    Source:
        Bain et al. 2021, "Frozen in Time", arXiv:2104.00650.
    """
    for row in read_table(path):
        name = f"{row['pagedir']}/{row['videoid']}.mp4"
        yield Listed(name, media.at(name, f"videos/{name}"), None, one_line(row["name"]))


def panda(path: Path, media: Media) -> Rows:
    """``videoID,url,timestamp,caption``: lists of places in a whole video and what is seen there.

    Source:
        Chen et al. 2024, "Panda-70M", arXiv:2402.19479.
    """
    for number, row in enumerate(read_table(path), 2):
        try:
            times = ast.literal_eval(row["timestamp"])
            said = ast.literal_eval(row["caption"])
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"{path}:{number}: expected lists of times and captions") from error
        if len(times) != len(said):
            raise ValueError(f"{path}:{number}: got {len(times)} times, {len(said)} captions")
        name = row["videoid"]
        file = media.named(name)
        for index, ((start, end), caption) in enumerate(zip(times, said, strict=True)):
            place = (_seconds(start), _seconds(end))
            yield Listed(f"{name}/{index}", file, None, one_line(caption), "", "", name, *place)


def _seconds(stamp: str) -> float:
    """Of ``H:MM:SS.sss``."""
    hours, minutes, seconds = stamp.split(":")
    return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
