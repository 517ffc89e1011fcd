"""The tiny model as a generator, shared by the tests of the pipelines."""

import pytest
from tiny_model import make_parts

from vdm.pipelines import Generator


@pytest.fixture(scope="session")
def generate() -> Generator:
    return Generator(make_parts())
