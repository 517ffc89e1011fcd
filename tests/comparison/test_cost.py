"""What a run costs is what it costs alone."""

import subprocess
import sys

from vdm.comparison.cost import wait_for

WORK = "import time; held = b'x' * {size}; time.sleep(0.5)"
MEGA = 1_000_000


def test_the_peak_of_a_process_is_not_that_of_its_parent():
    held = b"x" * (300 * MEGA)
    peaks = []
    for size in (0, 80 * MEGA):
        process = subprocess.Popen([sys.executable, "-c", WORK.format(size=size)])
        peaks.append(wait_for(process))
        assert process.returncode == 0
    assert peaks[0] < 100 * MEGA < len(held)
    assert 70 * MEGA < peaks[1] - peaks[0] < 90 * MEGA


def test_the_end_of_a_process_is_waited_for():
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    wait_for(process)
    assert process.returncode == 3
