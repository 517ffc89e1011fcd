"""What a run says of its speed."""

import csv
from types import SimpleNamespace

import lightning as L
import pytest
from lightning.pytorch.profilers import SimpleProfiler

from vdm.training import callbacks
from vdm.training.callbacks import WAITING, DataClock, Throughput
from vdm.training.cli import main


def test_the_clock_runs_while_data_is_waited_for_and_no_longer(monkeypatch):
    ticks = iter((10.0, 12.5, 30.0, 31.0))
    waiting = f"[_TrainingEpochLoop].{WAITING}"
    inner = SimpleProfiler()
    clock = DataClock(inner)
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    for action in (waiting, "run_training_batch", waiting):
        with clock.profile(action):
            pass
    assert clock.seconds == 2.5 + 1.0
    assert {name: len(times) for name, times in inner.recorded_durations.items()} == {
        waiting: 2,
        "run_training_batch": 1,
    }


def test_speed_and_waiting_are_logged(smoke, tmp_path, monkeypatch):
    usual = Throughput.__init__
    monkeypatch.setattr(Throughput, "__init__", lambda self: usual(self, every_n_steps=2))
    assert main(["fit", *smoke, f"--output={tmp_path}"]) == 0
    (path,) = (tmp_path / "logs" / "csv").glob("version_*/metrics.csv")
    with path.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["clips/s"]]
    assert len(rows) >= 2
    assert all(float(row["clips/s"]) > 0 and 0 < float(row["data wait %"]) < 100 for row in rows)


def test_the_trainer_gets_its_profiler_back():
    trainer = L.Trainer(logger=False, enable_checkpointing=False, accelerator="cpu")
    module, usual = L.LightningModule(), trainer.profiler
    callback = Throughput(3)
    callback.setup(trainer, module, "fit")
    assert isinstance(trainer.profiler, DataClock)
    callback.teardown(trainer, module, "fit")
    assert trainer.profiler is usual
    with pytest.raises(ValueError, match="got every_n_steps=0, expected at least 1"):
        Throughput(0)
