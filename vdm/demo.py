"""``vdm demo``: the main job from words to scores, in minutes, shown on one page.

Every stage is measured on what it shows. A stage that lacks what it needs (real video and no
network) says so in one line, and takes the embedded world instead.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vdm.cli_parsing import Parser, describe_error, positive, reading_words, whole

NUM_STAGES = 5
WORLD = "a clip of the embedded world"


def main(words: list[str]) -> int:
    """Run the demo.

    Args:
        words: What stands after ``vdm demo``.

    Returns:
        The exit status.
    """
    asked = _parser().read(words)
    with reading_words(asked.model):
        demo = Demo(asked.model, asked.output, asked.seed)
        demo.check(asked.prompt, asked.train_seconds)
    demo.words_to_video(asked.prompt)
    demo.continue_frame()
    real = demo.through_autoencoder(asked.real, asked.fetch)
    demo.train(real, asked.train_seconds)
    demo.score(asked.num_scored)
    demo.finish()
    return 0


def _parser() -> Parser:
    parser = Parser(prog="vdm demo", description="Words to video, training and scores, on a page.")
    parser.add_argument("--prompt", action="append", default=[], help="a caption of yours as well")
    parser.add_argument("--model", default="moving-shapes", help="what vdm.load takes")
    parser.add_argument("--output", type=Path, default=Path("outputs/demo"), metavar="DIR")
    parser.add_argument("--seed", type=whole, default=0, help="of the first clip")
    parser.add_argument(
        "--real", type=Path, default=Path("outputs/real_clips"), metavar="DIR", help="real clips"
    )
    parser.add_argument("--no-fetch", dest="fetch", action="store_false", help="use no network")
    parser.add_argument("--train-seconds", type=whole, default=60, help="0 leaves training out")
    parser.add_argument("--num-scored", type=positive, default=12, help="clips per data set")
    return parser


class Demo:
    """The stages, in order, and what they found.

    Args:
        model: What ``vdm.load`` takes.
        output: Folder for everything that is written.
        seed: Of the first clip.
    """

    def __init__(self, model: str, output: Path, seed: int) -> None:
        from rich.console import Console

        from vdm.pipelines import load
        from vdm.pipelines.report import Report

        self.console = Console(highlight=False)
        self.output, self.seed, self.model = output, seed, model
        self.begin, self.stage = time.perf_counter(), 0
        self.metrics: dict[str, Any] = {"model": model, "seed": seed, "seconds": {}}
        self.generate = load(model)
        self.console.print(f"[bold]{self.generate}[/]")
        parts, defaults = self.generate.parts, self.generate.parts.defaults
        self.report = Report(
            f"vdm demo: {parts.name}",
            f"{defaults.num_frames} frames of {defaults.height}x{defaults.width} at "
            f"{defaults.fps:g} frames per second, {defaults.steps} steps of {defaults.sampler}, "
            f"guidance scale {defaults.guidance_scale}.",
        )
        output.mkdir(parents=True, exist_ok=True)

    def check(self, prompts: list[str], seconds: int) -> None:
        """Refuse now what would end the demo half-way.

        Args:
            prompts: Captions of the user.
            seconds: Of training.

        Raises:
            ValueError: If the model does not read a caption, or there is a run where one is to be.
        """
        from vdm.demo_training import check_folder

        if prompts:
            self.generate.check_prompt(prompts)
        if seconds:
            check_folder(self.output / "training")

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        """Announce a stage and say how long it took."""
        self.stage += 1
        self.console.print(f"\n[bold cyan]{self.stage}/{NUM_STAGES}[/] [bold]{name}[/]")
        begin = time.perf_counter()
        yield
        seconds = time.perf_counter() - begin
        self.metrics["seconds"][name] = round(seconds, 1)
        self.console.print(f"    [dim]{seconds:.1f} s[/]")

    def words_to_video(self, prompts: list[str]) -> None:
        """The captions of the README, and those of the user."""
        from vdm.pipelines.sample_files import slug
        from vdm.pipelines.showcase import CAPTIONS, gather, moving_picture, words_to_video

        with self._stage("words to video"):
            shown = words_to_video(self.generate, [*CAPTIONS, *prompts], self.seed)
            for one in shown:
                marks = "  ".join(_mark(name, ok) for name, ok in one.to_dict()["right"].items())
                self.console.print(f"    {one.prompt}\n      [dim]{one.seconds:.1f} s[/]  {marks}")
                one.clip.save(self.output / "clips" / f"{slug(one.prompt)}.mp4")
            moving_picture(shown).save(self.output / "words_to_video.gif")
            gather([one.clip for one in shown]).save(self.output / "contact_sheet.png")
            self.metrics["words_to_video"] = [one.to_dict() for one in shown]
            self.report.section(
                "Words to video",
                "Each clip is read back by a program that learnt nothing; what it found right and "
                "wrong stands below the caption.",
            )
            self.report.clips(
                (f"{one.prompt}: {_words(one.to_dict()['right'])}", one.clip) for one in shown
            )

    def continue_frame(self) -> None:
        """Image to video: the first frame of a clip that the model never saw."""
        from vdm.pipelines.showcase import continue_frame
        from vdm.world import SPLITS

        with self._stage("a first frame, continued"):
            index = self.seed % SPLITS["test-iid"]
            shown, truth = continue_frame(self.generate, index, "test-iid", seed=self.seed)
            drift = float((shown.clip.frames[:, :, 0] - truth.frames[:, :, 0]).abs().mean())
            self.console.print(f"    {shown.prompt}\n    first frame kept within {drift:.3f} of 1")
            shown.clip.save(self.output / "clips" / "first_frame_continued.mp4")
            self.metrics["first_frame"] = {**shown.to_dict(), "drift": drift}
            self.report.section("A first frame, continued", shown.prompt)
            self.report.clips([("the clip that the frame is from", truth), ("made", shown.clip)])

    def through_autoencoder(self, folder: Path, fetch: bool) -> Path | None:
        """A real clip beside what is left of it; the folder of real clips, if there are any."""
        from vdm.pipelines.showcase import as_clip, through_autoencoder

        with self._stage("a real clip through the autoencoder"):
            real, why = _real_clips(folder, fetch)
            if why:
                self.console.print(f"    {why}")
                self.report.note(why)
            frames, name = _clip_of(real, self.generate.geometry.strides)
            result = through_autoencoder(self.generate, frames)
            self.console.print(
                f"    {name}: {result.compression:.0f} numbers become 1, "
                f"PSNR {result.psnr:.1f} dB, SSIM {result.ssim:.3f}"
            )
            both = as_clip(_beside(result.original.uint8()[0], result.decoded.uint8()[0]))
            both.save(self.output / "clips" / "autoencoder.mp4")
            self.metrics["autoencoder"] = {"clip": name, **result.to_dict()}
            self.report.section(
                "A real clip through the autoencoder",
                f"{name}; the autoencoder was trained on the embedded world alone. "
                f"PSNR {result.psnr:.1f} dB, SSIM {result.ssim:.3f}.",
            )
            self.report.clips([("original", result.original), ("decoded", result.decoded)], 320)
        return real

    def train(self, real: Path | None, seconds: int) -> None:
        """Train a small network for a minute, and show that it learnt."""
        from vdm.demo_training import first_minute

        with self._stage("training a small transformer"):
            if not seconds:
                self.console.print("    left out")
                return
            self.report.section("A minute of training")
            try:
                run = first_minute(self.model, real, self.output / "training", seconds)
            except (RuntimeError, ValueError, OSError) as error:
                self.console.print(f"    {describe_error(error)}", markup=False)
                self.report.note(describe_error(error))
                return
            said = f"validation loss {run.said()}"
            self.console.print(f"    {said}")
            self.metrics["training"] = {"data": "real" if real else "world", "val_loss": run.losses}
            self.report.note(f"On {run.data}: {said}.")
            self.report.curve(run.losses, "step", "validation loss")
            self.report.clips(run.clips)

    def score(self, count: int) -> None:
        """Score some clips now, and quote the scores that came with the model."""
        from vdm.pipelines.evaluate import evaluate
        from vdm.pipelines.results_table import results_rows
        from vdm.pretrained.sources import locate

        with self._stage("scores"):
            result = evaluate(self.generate, "test-iid", n=count, progress=True, num_resamples=200)
            self.metrics["scores"] = result.to_dict()
            head, *rows = results_rows(self.metrics["scores"])
            self.console.print(_table(head, rows))
            self.report.section("Scores of this run", f"{count} clips per column, 95 % intervals.")
            self.report.table(head, rows)
            stored = locate(self.model) / "scores.json"
            if stored.is_file():
                head, *rows = results_rows(json.loads(stored.read_text(encoding="utf-8")))
                self.report.section("Scores that came with the model", "Over many more clips.")
                self.report.table(head, rows)

    def finish(self) -> None:
        """Write the page and say where it is."""
        from vdm.data.block_store import write_text

        seconds = time.perf_counter() - self.begin
        self.metrics["seconds"]["all"] = round(seconds, 1)
        write_text(self.output / "metrics.json", [json.dumps(self.metrics, indent=1)])
        page = self.report.save(self.output / "report.html")
        self.console.print(f"\nall of it, in {seconds:.0f} s:")
        self.console.print(f"[bold]{page}[/]", soft_wrap=True)


def _table(head: list[str], rows: list[list[str]]) -> Any:
    """A table for the terminal."""
    from rich.table import Table

    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    return table


def _mark(name: str, ok: bool) -> str:
    return f"[green]{name} ✓[/]" if ok else f"[red]{name} ✗[/]"


def _words(right: dict[str, bool]) -> str:
    """What was found right and wrong."""
    wrong = [name for name, ok in right.items() if not ok and name != "whole"]
    if not right:
        return "outside the grammar, not read back"
    return f"{', '.join(wrong)} wrong" if wrong else "all right"


def _beside(left: Any, right: Any) -> Any:
    """Two clips of the same size, side by side."""
    import numpy as np

    return np.concatenate([left, right], axis=2)


def _real_clips(folder: Path, fetch: bool) -> tuple[Path | None, str]:
    """The folder of real clips, fetched if need be; and one line where there are none."""
    from vdm.data.real_clips import RealClips
    from vdm.data.real_clips import fetch as fetch_clips

    why = "" if fetch else f"no real clips in {folder}"
    if fetch:
        try:
            fetch_clips(folder)
        except (RuntimeError, ValueError, OSError) as error:
            why = " ".join(str(error).split())
    try:
        RealClips(folder, "val", count=1)
        RealClips(folder, "train", count=1)
    except ValueError:
        return None, f"{why or f'no real clips in {folder}'}; going on with {WORLD}"
    return folder, ""


def _clip_of(real: Path | None, strides: tuple[int, int, int]) -> tuple[Any, str]:
    """A held-out real clip, as large as the autoencoder takes it; else one of the world."""
    from vdm import world
    from vdm.data.real_clips import RealClips

    if real is None:
        return world.render(world.scene("test-iid", 0, 0)), WORLD
    size = 128 // strides[1] * strides[1]
    source = RealClips(real, "val", count=1, size=size, strides=(2,))
    return source.clip(0)[0], f"{source.entries[0]['name']}, {size}x{size}"
