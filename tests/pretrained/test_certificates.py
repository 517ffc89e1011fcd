"""What certificates say is what is measured."""

import pytest

from tests.pretrained import parity_vae
from tests.pretrained.parity import SYSTEMS, measure
from vdm.pretrained import systems
from vdm.pretrained.certificates import certificate

LIMITS = {"network": 1e-5, "autoencoder": 2e-5, "frames": 1e-4}
"""Of relative L2 differences; of the largest difference of frames as well."""


def test_every_system_has_a_certificate():
    assert [found.system for found in systems()] == list(SYSTEMS)
    for found in systems():
        assert found.system in str(found)
        assert found.version in str(found)
    assert certificate("a model of nobody") is None


@pytest.mark.parametrize("system", SYSTEMS)
def test_it_is_as_close_as_its_certificate_says(system):
    said = certificate(system).parts
    measured = measure(system)
    is_whole = system not in parity_vae.SYSTEMS
    assert measured.keys() == said.keys() == (LIMITS.keys() if is_whole else {"autoencoder"})
    for part in said:
        limit = LIMITS[part]
        assert measured[part]["max_rel"] <= limit, part
        assert said[part].max_rel <= limit, part
        # Another processor rounds otherwise, but not much more.
        assert measured[part]["max_abs"] <= 10 * max(said[part].max_abs, 1e-6), part
    assert not is_whole or measured["frames"]["max_abs"] <= LIMITS["frames"]
