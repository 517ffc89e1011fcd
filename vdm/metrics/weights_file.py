"""Files of weights that users bring: named in protocol ids by what is in them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import nn

NAMED = re.compile(r"(?P<path>.+)@(?P<sha256>[0-9a-f]{8,64})")


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights.

    Args:
        path: Where it is.
        sha256: Of all of it.
    """

    path: Path
    sha256: str

    @property
    def id(self) -> str:
        """How protocol ids name it."""
        return self.sha256[:8]

    @classmethod
    def of(cls, source: str | Path) -> WeightsFile:
        """A file by its path, or by ``PATH@SHA256`` (8 digits or more) if it must be a certain one.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If its hash is another.
        """
        named = NAMED.fullmatch(str(source))
        expected = named["sha256"] if named and not Path(source).exists() else ""
        path = Path(named["path"]) if named and expected else Path(source)
        if not path.is_file():
            raise FileNotFoundError(f"got {path}, expected a file of weights")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if not found.startswith(expected):
            raise ValueError(f"{path}: got sha256 {found[: len(expected)]}, expected {expected}")
        return cls(path, found)


@contextmanager
def reading(problem: str, needed_by: str, extra: str = "metrics") -> Iterator[None]:
    """Say in one line what goes wrong with files of others, each of which does in its own way.

    Args:
        problem: What to say of a file that cannot be used.
        needed_by: What cannot be measured where a package is missing.
        extra: The dependencies of ``vdm`` that bring it.

    Raises:
        ImportError: If a package is missing.
        ValueError: If anything else goes wrong.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        message = f"{needed_by} needs {error.name}: pip install 'vdm[{extra}]'"
        raise ImportError(message) from error
    except Exception as error:
        said = " ".join(str(error).split())[:200]
        raise ValueError(f"{problem}: {said}") from error


def check_folder(source: str | Path) -> None:
    """Refuse a path that leads nowhere; other words are names on the hub.

    Raises:
        FileNotFoundError: If there is no such folder.
    """
    if str(source).startswith((".", "/", "~")) and not Path(source).is_dir():
        raise FileNotFoundError(f"no folder {source}")


def hash_of(module: nn.Module) -> str:
    """A hash of a network's weights, wherever they came from and whatever a library calls them."""
    about = (
        f"{value.dtype} {tuple(value.shape)} ".encode() + value.contiguous().numpy().tobytes()
        for value in module.state_dict().values()
    )
    digests = sorted(hashlib.sha256(weight).digest() for weight in about)
    return hashlib.sha256(b"".join(digests)).hexdigest()
