"""How the words of a command line are read; a wrong one gets one line with the nearest legal."""

import argparse
import difflib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn


class WrongWords(ValueError):
    """The command line cannot mean anything: exit status 2."""


class Terminated(BaseException):
    """The process was asked to end (SIGTERM): exit status 143."""


def nearest(word: str, legal: Iterable[str]) -> str:
    """The end of an error message: the legal word that ``word`` was meant to be, or all of them.

    Args:
        word: What was got.
        legal: What could have been.
    """
    choices = sorted(legal)
    close = difflib.get_close_matches(word, choices, n=1, cutoff=0.6)
    return f"nearest {close[0]}" if close else f"expected one of {', '.join(choices)}"


@contextmanager
def reading_words(*files: str | Path | None) -> Iterator[None]:
    """While words are still being interpreted, a refused value is a wrong word, not failed work.

    Args:
        files: Files and folders that the user named. An error that begins with the name of one that
            exists, or misses a file in it, speaks of what is in it, and stays as it is.

    Raises:
        WrongWords: In place of a ``ValueError``, a ``TypeError`` or a path that does not exist.
    """
    try:
        yield
    except WrongWords:
        raise
    except (ValueError, TypeError, FileNotFoundError, NotADirectoryError) as error:
        said = describe_error(error)
        for path in (Path(file) for file in files if file is not None):
            is_inside = isinstance(error, FileNotFoundError) and str(path) in said
            if path.exists() and (is_inside or said.startswith((str(path), f"{path.name}:"))):
                raise
        raise WrongWords(said) from error


def describe_error(error: BaseException) -> str:
    """One line for an error, its type in front unless the message was written to stand alone."""
    if isinstance(error, FileNotFoundError) and error.filename is not None:
        return f"got {error.filename}, expected a file or folder that exists"
    text = " ".join(str(error).split())
    if not text:
        return type(error).__name__
    spoken = (ValueError, TypeError, WrongWords, FileNotFoundError, FileExistsError)
    return text if isinstance(error, spoken) else f"{type(error).__name__}: {text}"


class Parser(argparse.ArgumentParser):
    """An argument parser that answers a wrong word with one line and takes no abbreviations."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(allow_abbrev=False, **arguments)

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving.

        Raises:
            WrongWords: Always.
        """
        required = re.fullmatch(r"the following arguments are required: (.*)", message)
        if required:
            message = f"got no {required[1]}, expected it: {self.prog} --help shows how"
        message = re.sub(r"^argument ([^:]*): ", r"\1: ", message)
        message = message.replace(": expected one argument", ": got nothing, expected one value")
        raise WrongWords(message)

    def flags(self) -> list[str]:
        """Every flag in its long form."""
        return [flag for flag in self._option_string_actions if flag.startswith("--")]

    def read(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse all words; flags and other words may stand in any order.

        Raises:
            WrongWords: If a word is unknown, missing or cannot be read.
        """
        for flag in (word.split("=")[0] for word in words if word.startswith("--")):
            if flag not in self._option_string_actions:
                raise WrongWords(
                    f"got {flag}, no flag of {self.prog}; {nearest(flag, self.flags())}"
                )
        arguments, surplus = self.parse_known_intermixed_args(list(words))
        if surplus:
            raise WrongWords(f"got {surplus[0]!r}, one word too many: {self.prog} --help shows how")
        return arguments


def choice(*legal: str) -> Callable[[str], str]:
    """An argument type: one of a few words."""

    def read(word: str) -> str:
        if word not in legal:
            raise argparse.ArgumentTypeError(f"got {word!r}, {nearest(word, legal)}")
        return word

    return read


def whole(word: str) -> int:
    """An argument type: a whole number."""
    try:
        return int(word)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {word!r}, expected a whole number") from None


def positive(word: str) -> int:
    """An argument type: a whole number from 1."""
    if (value := whole(word)) < 1:
        raise argparse.ArgumentTypeError(f"got {word}, expected at least 1")
    return value


def number(word: str) -> float:
    """An argument type: a number."""
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if value != value or value in (float("inf"), float("-inf")):
        raise argparse.ArgumentTypeError(f"got {word!r}, expected a number")
    return value


def file_and_scale(word: str) -> tuple[str, float]:
    """An argument type: a file or name, and a number after an equals sign; 1 if there is none."""
    name, equals, scale = word.rpartition("=")
    return (name, number(scale)) if equals else (word, 1.0)


def whole_or_list(word: str) -> int | list[int]:
    """An argument type: a whole number, or several with commas between."""
    values = [whole(part) for part in word.split(",")]
    return values if len(values) > 1 else values[0]


def number_or_pair(word: str) -> float | tuple[float, float]:
    """An argument type: a number, or two with a comma between."""
    values = [number(part) for part in word.split(",")]
    if len(values) > 2:
        raise argparse.ArgumentTypeError(f"got {word!r}, expected a number or two: 4 or 1,3")
    return (values[0], values[1]) if len(values) == 2 else values[0]


def time_grid(word: str) -> str | dict[str, Any] | list[float]:
    """An argument type: a name, a JSON object with a ``name`` in it, or times with commas."""
    if "," in word and not word.startswith("{"):
        return [number(part) for part in word.split(",")]
    if not word.startswith("{"):
        return word
    try:
        return json.loads(word)
    except json.JSONDecodeError as error:
        example = '{"name": "shifted", "shift": 3}'
        raise argparse.ArgumentTypeError(f"got {word!r}, expected JSON: {example}") from error
