"""What is kept of an evaluation, and when it may be gone on with."""

import pytest

from vdm.pipelines.evaluate_records import Records


def test_other_settings_are_refused_by_the_one_that_differs(tmp_path):
    path = tmp_path / "records.jsonl"
    Records(path, {"defaults": {"steps": 25, "sampler": "dpmpp_2m"}, "n": 3})
    Records(path, {"n": 3, "defaults": {"sampler": "dpmpp_2m", "steps": 25}})
    with pytest.raises(ValueError, match=r"with defaults\.sampler='dpmpp_2m', got .*'ancestral'"):
        Records(path, {"defaults": {"steps": 25, "sampler": "ancestral"}, "n": 3})
    with pytest.raises(ValueError, match=r"with defaults={.*}, got defaults=None"):
        Records(path, {"n": 3})
