"""The command line answers at once, in one line, with the agreed exit status."""

import argparse
import importlib
import json
import subprocess
import sys
import warnings

import numpy as np
import pytest

from vdm import cli, cli_parsing, doctor
from vdm.cli import COMMANDS, Command, main
from vdm.cli_parsing import Parser, Terminated, WrongWords
from vdm.utils.video_io import write_video


@pytest.fixture
def command(monkeypatch):
    """Makes ``vdm sample`` do what a test wants."""

    def become(function):
        module = type(sys)("pretended_command")
        module.run = function
        monkeypatch.setitem(sys.modules, "pretended_command", module)
        monkeypatch.setitem(COMMANDS, "sample", Command("", "pretended_command:run"))

    return become


def raising(error):
    def run(words):
        raise error

    return run


def only_line(capsys) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err.strip()


def test_help_lists_every_command(capsys):
    assert main(["--help"]) == 0
    printed = capsys.readouterr().out
    for name, listed in COMMANDS.items():
        assert f"  {name} " in printed
        assert listed.summary in printed


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_listed_command_exists_and_explains_itself(name, capsys):
    module, _, function = COMMANDS[name].home.partition(":")
    assert callable(getattr(importlib.import_module(module), function))
    assert main([name, "--help"]) == 0
    assert "usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "nearest"),
    [(["smaple"], "nearest sample"), (["--hlep"], "expected one of"), ([], "expected one of")],
)
def test_unknown_command_names_the_nearest(words, nearest, capsys):
    assert main(words) == 2
    assert nearest in only_line(capsys)


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (WrongWords("got 3, expected 4"), 2, "vdm sample: got 3, expected 4"),
        (ValueError("got 3,\n expected 4"), 1, "vdm sample: got 3, expected 4"),
        (RuntimeError("out of memory"), 1, "vdm sample: RuntimeError: out of memory"),
        (AttributeError(), 1, "vdm sample: AttributeError"),
        (KeyboardInterrupt(), 130, "vdm sample: interrupted"),
        (Terminated(), 143, "vdm sample: terminated"),
        (SystemExit("no data"), 1, "vdm sample: no data"),
    ],
)
def test_every_failure_is_one_line_and_a_status(error, status, message, command, capsys):
    command(raising(error))
    assert main(["sample"]) == status
    assert only_line(capsys) == message


@pytest.mark.parametrize(("code", "status"), [(None, 0), (0, 0), (2, 2)])
def test_a_command_that_leaves_keeps_its_status(code, status, command):
    command(raising(SystemExit(code)))
    assert main(["sample"]) == status


def test_debug_shows_the_traceback_and_is_no_word_of_the_command(command, capsys):
    seen = []
    command(seen.append)
    assert main(["sample", "a", "--debug", "b"]) == 0
    assert seen == [["a", "b"]]
    command(raising(ValueError("got 3, expected 4")))
    assert main(["sample", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_warning_is_one_line(command, capsys):
    def run(words):
        warnings.warn("not trained on 64 frames", stacklevel=1)

    command(run)
    assert main(["sample"]) == 0
    assert only_line(capsys) == "vdm sample: not trained on 64 frames"


def test_a_reader_that_goes_away_leaves_no_traceback():
    code = (
        "import sys, vdm.cli as cli\n"
        "class C:\n"
        "    def run(self, words):\n"
        "        for k in range(100000): print('line', k)\n"
        "cli.COMMANDS['sample'] = C()\n"
        "sys.exit(cli.main(['sample']))"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert writer.stdout.readline() == "line 0\n"
    writer.stdout.close()
    assert writer.wait(timeout=60) == 141
    assert writer.stderr.read() == ""
    writer.stderr.close()


def test_a_missing_file_is_named():
    try:
        open("no/such/file")  # noqa: SIM115
    except FileNotFoundError as error:
        said = cli_parsing.describe_error(error)
    assert said == "got no/such/file, expected a file or folder that exists"


@pytest.fixture
def parser():
    made = Parser(prog="vdm try")
    made.add_argument("model", metavar="MODEL")
    made.add_argument("prompts", nargs="*")
    made.add_argument("--steps", type=cli_parsing.positive)
    made.add_argument("--out", required=True)
    made.add_argument("--format", type=cli_parsing.choice("mp4", "webm"))
    return made


def test_flags_and_words_stand_in_any_order(parser):
    read = parser.read(["m", "--out", "d", "one", "--steps", "3", "two"])
    assert (read.model, read.prompts, read.out, read.steps) == ("m", ["one", "two"], "d", 3)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["m", "--out", "d", "--step", "3"], "got --step, no flag of vdm try; nearest --steps"),
        (["m", "--out", "d", "--ste=3"], "got --ste, no flag of vdm try; nearest --steps"),
        (["m"], "got no --out"),
        (["m", "--out"], "--out: got nothing, expected one value"),
        (["m", "--out", "d", "--steps", "x"], "--steps: got 'x', expected a whole number"),
        (["m", "--out", "d", "--steps", "0"], "--steps: got 0, expected at least 1"),
        (["m", "--out", "d", "--format", "webn"], "--format: got 'webn', nearest webm"),
        (["m", "--out", "d", "--format", "zzz"], "--format: got 'zzz', expected one of mp4, webm"),
    ],
)
def test_wrong_words_are_answered_with_the_nearest(parser, words, said):
    with pytest.raises(WrongWords, match="^" + said.replace("(", r"\(")):
        parser.read(words)


def test_a_word_too_many_is_refused():
    parser = Parser(prog="vdm try")
    parser.add_argument("model")
    with pytest.raises(WrongWords, match="got 'b', one word too many"):
        parser.read(["a", "b"])


def test_numbers_and_lists_are_read():
    assert cli_parsing.number_or_pair("4") == 4.0
    assert cli_parsing.number_or_pair("1,3.5") == (1.0, 3.5)
    assert cli_parsing.whole_or_list("7") == 7
    assert cli_parsing.whole_or_list("7,9,11") == [7, 9, 11]
    for reader, word in (
        (cli_parsing.number_or_pair, "1,2,3"),
        (cli_parsing.number, "nan"),
        (cli_parsing.number, "inf"),
        (cli_parsing.whole_or_list, "1,x"),
    ):
        with pytest.raises(argparse.ArgumentTypeError, match="expected"):
            reader(word)


def test_values_refused_while_words_are_read_are_wrong_words():
    for error in (ValueError("got 3, expected 4"), TypeError("x"), FileNotFoundError("no file")):
        with pytest.raises(WrongWords, match=str(error)), cli_parsing.reading_words():
            raise error
    with pytest.raises(RuntimeError), cli_parsing.reading_words():
        raise RuntimeError("the work failed")


def test_notebooks_build_recipes_through_the_command_line():
    from vdm.training.cli import build

    assert cli.build is build
    with pytest.raises(AttributeError, match="'biuld'"):
        cli.biuld  # noqa: B018


def test_doctor_finds_what_the_main_job_needs(capsys):
    assert main(["doctor", "--json"]) == 0
    findings = {found["name"]: found for found in json.loads(capsys.readouterr().out)}
    for name in (
        "torch",
        "lightning",
        "av",
        "H.264 in .mp4",
        "sdpa math on cpu",
        "fd/transnet",
        "fvd",
    ):
        assert findings[name]["state"] == "yes", findings[name]
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for name, found in findings.items():
        assert name in printed
        assert found["state"] == "yes" or found["detail"], f"{name}: no reason given"


def test_doctor_fails_where_a_core_package_is_missing(monkeypatch, capsys):
    missing = doctor.Finding("packages", "torch", "missing", "not installed")
    monkeypatch.setattr(doctor, "examine", lambda: [missing])
    assert main(["doctor"]) == 1
    assert "1 missing" in capsys.readouterr().out


def test_doctor_speaks_without_torch(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert main(["doctor", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    missing = {one["section"] for one in found if one["state"] == "missing"}
    assert missing == {"processor", "gpu", "attention"}
    assert {"machine", "packages", "video codecs"} <= {one["section"] for one in found}


def test_a_codec_that_cannot_work_says_why():
    def attempt():
        raise ValueError("wrote 2 frames, read 1")

    found = doctor._tried("video codecs", "H.264", attempt)
    assert (found.state, found.detail) == ("no", "wrote 2 frames, read 1")


def test_data_check_explains_every_file_and_fails_where_no_clip_is_left(tmp_path, capsys):
    write_video(np.zeros((3, 16, 24, 3), np.uint8), tmp_path / "good.mp4", fps=8)
    (tmp_path / "bad.mp4").write_bytes(b"not a video")
    assert main(["data", "check", str(tmp_path)]) == 0
    bad, good, count = capsys.readouterr().out.splitlines()
    assert bad.startswith("dropped  bad.mp4: ")
    assert good.startswith("kept     good.mp4: ")
    assert count == "kept 1 of 2"
    assert main(["data", "check", str(tmp_path), "--json"]) == 0
    assert [found["kept"] for found in json.loads(capsys.readouterr().out)] == [False, True]
    assert main(["data", "check", str(tmp_path / "bad.mp4")]) == 1
    assert main(["data", "check", str(tmp_path / "no-such-folder")]) == 2
    assert "no-such-folder" in capsys.readouterr().err
    assert main(["data", "chek", str(tmp_path)]) == 2
    assert "nearest check" in only_line(capsys)


def test_data_ingest_makes_a_folder_and_says_what_was_dropped(tmp_path, capsys):
    source, out = tmp_path / "clips", tmp_path / "out"
    source.mkdir()
    write_video(np.zeros((4, 16, 16, 3), np.uint8), source / "good.mp4", 8.0)
    (source / "bad.mp4").write_bytes(b"no video")
    assert main(["data", "ingest", str(source)]) == 2
    assert "expected --out DIR" in capsys.readouterr().err
    assert main(["data", "ingest", str(source), "--out", str(out)]) == 0
    printed = capsys.readouterr()
    assert "kept 1 clips" in printed.out
    assert f"dropped 1, each with its reason: {out / 'quarantine.jsonl'}" in printed.out
    assert "2/2" in printed.err
    (source / "good.mp4").unlink()
    words = ["data", "ingest", str(source), "--json", "--no-progress"]
    assert main([*words, "--out", str(out)]) == 2  # of another listing
    assert main([*words, "--out", str(tmp_path / "none")]) == 1
    assert json.loads(capsys.readouterr().out)["kept"] == 0


def test_data_check_reads_lists(tmp_path, capsys):
    write_video(np.zeros((4, 16, 16, 3), np.uint8), tmp_path / "a.mp4", 8.0)
    (tmp_path / "list.csv").write_text("path,text\na.mp4,hello\nb.mp4,gone\n")
    assert main(["data", "check", str(tmp_path / "list.csv")]) == 0
    assert "kept 1 of 2" in capsys.readouterr().out
    (tmp_path / "list.csv").write_text("foo\n1\n")
    assert main(["data", "check", str(tmp_path / "list.csv")]) == 2
    assert "got columns foo" in capsys.readouterr().err
