"""Runs small enough for a test: recipes shrunken by overrides, clips drawn once per session."""

from pathlib import Path

import pytest

from vdm.training.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Folder of clip caches that all runs share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def smoke(cache):
    """Words for a run of ``configs/smoke.yaml`` of six steps, a checkpoint after every second."""
    recipe = ROOT / "configs" / "smoke.yaml"
    callbacks = (
        "[{class_path: EMA, init_args: {decay: 0.5}}, "
        "{class_path: Checkpoints, init_args: {every_n_steps: 2}}]"
    )
    return [
        f"--config={recipe}",
        "--trainer.max_steps=6",
        "--trainer.val_check_interval=4",
        "--trainer.log_every_n_steps=2",
        f"--trainer.callbacks={callbacks}",
        f"--data.cache_dir={cache}",
        "--data.shapes.num_train=12",
        "--data.shapes.num_val=6",
        "--data.batch_size=4",
    ]


@pytest.fixture(scope="session")
def finished(tmp_path_factory, smoke):
    """Folder of the run that these words describe; to be read alone."""
    folder = tmp_path_factory.mktemp("finished") / "smoke"
    assert main(["fit", *smoke, f"--output={folder}"]) == 0
    return folder
