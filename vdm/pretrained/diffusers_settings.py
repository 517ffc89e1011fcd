"""Settings that come from elsewhere: each is read, is what goes without saying, or is refused."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def reading_settings(where: str) -> Iterator[None]:
    """While settings of others become objects: whatever goes wrong names their file.

    Args:
        where: The file, for messages.

    Raises:
        ValueError: In place of what goes wrong.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        said = str(error)
        if said.startswith(where):
            raise
        raise ValueError(f"{where}: {said or type(error).__name__}") from error


class ForeignConfig:
    """Settings of which every one must be read or have the value that goes without saying.

    Args:
        data: Settings by name; names that begin with an underscore are notes.
        where: The file they come from, for messages.
    """

    def __init__(self, data: Mapping[str, Any], where: str) -> None:
        self.data, self.where = data, where
        self._read: set[str] = set()

    def take(self, name: str, default: Any) -> Any:
        """The value of a setting."""
        self._read.add(name)
        return self.data.get(name, default)

    def expect(self, **values: Any) -> None:
        """Refuse settings that have other values than these.

        Raises:
            ValueError: If one has.
        """
        for name, value in values.items():
            found = self.take(name, value)
            if found != value and list(_sequence(found)) != list(_sequence(value)):
                raise ValueError(f"{self.where}: got {name}={found!r}, expected {value!r}")

    def close(self) -> None:
        """Refuse settings that nothing has read, unless they say that something is off.

        Raises:
            ValueError: If there is one.
        """
        for name, value in self.data.items():
            if not name.startswith("_") and name not in self._read and value not in (None, False):
                raise ValueError(f"{self.where}: got {name}={value!r}, which nothing reads")


def _sequence(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]
