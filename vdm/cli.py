"""The command ``vdm``: finds the sub-command, turns every failure into one line and an exit status.

Nothing heavy is imported before a sub-command is known, so ``vdm --help`` is instant. Exit status:
0 done, 1 the work failed, 2 the words were wrong; 130 interrupted, 141 nobody reads the output,
143 terminated.
"""

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import vdm
from vdm.cli_parsing import Terminated, WrongWords, describe_error, nearest


@dataclass(frozen=True)
class Command:
    """A sub-command, imported when it is called.

    Args:
        summary: One line for the help.
        home: ``module:function`` of what runs it: takes the words after the command, returns a
            status or nothing for 0.
        leading: Words put before those of the user, where one function runs several commands.
    """

    summary: str
    home: str
    leading: tuple[str, ...] = ()

    def run(self, words: Sequence[str]) -> int:
        """Import and run it."""
        module, _, function = self.home.partition(":")
        return getattr(importlib.import_module(module), function)([*self.leading, *words]) or 0


LIGHTNING = "vdm.training.words:main"
COMMANDS = {
    "fit": Command("train a model from a recipe", LIGHTNING, ("fit",)),
    "validate": Command("losses of a model on its validation data", LIGHTNING, ("validate",)),
    "test": Command("losses of a model on its test data", LIGHTNING, ("test",)),
    "predict": Command("run a model over its data", LIGHTNING, ("predict",)),
    "sample": Command("words (and images) to video clips", "vdm.cli_sample:main"),
    "evaluate": Command("scores of a model or of a folder of clips", "vdm.cli_evaluate:main"),
    "compare": Command("the arms of an experiment: table and plots", "vdm.cli_compare:main"),
    "plan": Command("memory, FLOPs and time of a model before loading it", "vdm.cli_commands:plan"),
    "convert": Command("rewrite a model in another layout", "vdm.cli_commands:convert"),
    "data": Command("check clips, one line each, or ingest them", "vdm.cli_data:main"),
    "doctor": Command("what is installed, which kernels and codecs are active", "vdm.doctor:main"),
    "demo": Command("the main job from words to scores, in minutes", "vdm.demo:main"),
}


def __getattr__(name: str) -> Any:
    """``vdm.cli.build``: what a recipe describes, for notebooks; imported when used."""
    if name == "build":
        return importlib.import_module("vdm.training.cli").build
    raise AttributeError(f"module 'vdm.cli' has no attribute {name!r}")


def usage() -> str:
    """What ``vdm --help`` prints."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {command.summary}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            f"vdm {vdm.__version__}: video diffusion models, from data to score",
            "",
            "usage: vdm COMMAND [...]       vdm COMMAND --help shows a command's words",
            "",
            *lines,
            "",
            "  --debug    anywhere: show the traceback of an error",
            "  --version  the version alone",
        ]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: The words after ``vdm``; by default those of this process.

    Returns:
        The exit status.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    speaker = " ".join(["vdm", *words[:1]]) if words and words[0] in COMMANDS else "vdm"
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda said, *_: print(f"{speaker}: {said}", file=sys.stderr)
            status = _dispatch(words)
        sys.stdout.flush()
        return status
    except SystemExit as leave:
        if leave.code is None or isinstance(leave.code, int):
            return leave.code or 0
        return _fail(speaker, str(leave.code), 1)
    except BrokenPipeError:
        # Nobody reads on: leave nothing for the interpreter to flush at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        return _fail(speaker, "interrupted", 130)
    except Terminated:
        return _fail(speaker, "terminated", 143)
    except Exception as error:
        if debug:
            traceback.print_exc()
        return _fail(speaker, describe_error(error), 2 if isinstance(error, WrongWords) else 1)


def _dispatch(words: list[str]) -> int:
    """Find the command and run it.

    Raises:
        WrongWords: If there is no such command.
    """
    if words and words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if words and words[0] == "--version":
        print(vdm.__version__)
        return 0
    if not words:
        raise WrongWords(f"got no command, {nearest('', COMMANDS)}")
    if words[0] not in COMMANDS:
        what = "flag" if words[0].startswith("-") else "command"
        raise WrongWords(f"got {what} {words[0]!r}, {nearest(words[0], COMMANDS)}")
    return COMMANDS[words[0]].run(words[1:])


def _fail(speaker: str, message: str, status: int) -> int:
    print(f"{speaker}: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
