"""``vdm fit | validate | test | predict``: recipes, overlays and keys to a run in one folder."""

from __future__ import annotations

import argparse
import functools
import importlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ProgressBar as AnyProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from vdm.cli_parsing import Terminated, WrongWords, describe_error
from vdm.training.callbacks import ProgressBar, Throughput
from vdm.training.checkpoints import (
    FOLDER,
    AtomicCheckpointIO,
    Checkpoints,
    newest_whole,
    remove_leftovers,
)
from vdm.training.cli_errors import one_line
from vdm.training.final import FILE, FinalWeights, Predictions
from vdm.training.sources import read_autoencoder
from vdm.training.words import read_words
from vdm.utils.hardware import has_bfloat16

CONFIG = "config.yaml"
CHOICES = (
    "vdm.autoencoder.losses",
    "vdm.autoencoder.vae",
    "vdm.conditioning.frames",
    "vdm.conditioning.given",
    "vdm.conditioning.labels",
    "vdm.conditioning.picture",
    "vdm.conditioning.text",
    "vdm.data.datamodules",
    "vdm.diffusion",
    "vdm.diffusion.frame_times",
    "vdm.diffusion.preconditioning",
    "vdm.diffusion.times",
    "vdm.diffusion.weighting",
    "vdm.layers.factorization",
    "vdm.models.dit",
    "vdm.models.unet3d",
    "vdm.models.unet3d_temporal",
    "vdm.training.autoencoder_module",
    "vdm.training.averaging",
    "vdm.training.diffusion_module",
    "vdm.training.fine_tuning",
    "vdm.training.optimizers",
    "vdm.training.rates",
    "vdm.training.sample_grid",
    "vdm.training.scores",
)
"""Modules whose classes a recipe may name without their path."""
_NO_NEWS = (
    ".*treespec.*",  # a deprecation inside Lightning
    ".*does not have many workers.*",  # clips come from a mapped file
    ".*LightningCLI's args parameter.*",
    ".*Checkpoint directory .* exists and is not empty.*",
    ".*callbacks used to create the checkpoint.*",  # a look at a run needs none
    ".*module.s. in eval mode at the start.*",  # the frozen autoencoder
)


def main(argv: Sequence[str]) -> int:
    """Run one command line.

    Args:
        argv: Sub-command first, e.g. ``["fit", "--config", "configs/smoke.yaml"]``.

    Returns:
        The exit status.

    Raises:
        WrongWords: If a word, key or value cannot be read.
        Terminated: If the process was asked to end.
    """
    read = read_words(argv)
    if read is None:
        return 0
    command, (ours, words) = argv[0], read
    folder = Path(ours.output or Path("outputs") / Path(ours.config[0]).stem)
    resume = _check_folder(folder, ours.resume) if command == "fit" else _weights(folder, words)
    configs = [word for path in ours.config for word in ("--config", path)]
    with quiet(), _stopped():
        RunCLI([command, *configs, *words], folder, resume)
    if command == "fit":
        print(f"wrote {folder / FILE}")
    return 0


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back what Lightning says about itself; its warnings about the run still show."""
    loggers = [logging.getLogger(f"lightning.{name}") for name in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for text in _NO_NEWS:
                warnings.filterwarnings("ignore", message=text)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _stopped() -> Iterator[None]:
    """Say which signal stopped a run: Lightning makes a bare ``SystemExit`` of both."""
    try:
        yield
    except SIGTERMException as left:
        raise Terminated from left
    except SystemExit as left:
        if isinstance(left.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from left
        raise


def build(
    configs: Sequence[str | Path],
    overrides: Sequence[str] = (),
    output: str | Path | None = None,
) -> tuple[L.LightningModule, L.LightningDataModule, L.Trainer]:
    """What a command line would run, for notebooks and tests.

    Args:
        configs: Recipe first, then overlays.
        overrides: As on the command line: ``["--trainer.max_steps=10"]``.
        output: Folder of the run; ``outputs/<recipe>`` by default.

    Returns:
        Module, data module and trainer: ``trainer.fit(module, datamodule)`` runs it.

    Raises:
        WrongWords: If a key or value cannot be read, or the folder holds a run.
    """
    folder = Path(output or Path("outputs") / Path(configs[0]).stem)
    _check_folder(folder, resume=False)
    words = [word for path in configs for word in ("--config", str(path))]
    cli = RunCLI(["fit", *words, *overrides], folder, resume=None, run_now=False)
    return cli.model, cli.datamodule, cli.trainer


def _check_folder(folder: Path, resume: bool) -> Path | None:
    """The checkpoint to go on from, if any.

    Raises:
        WrongWords: If the folder holds a run that is not to be resumed.
    """
    used = [name for name in (CONFIG, FOLDER, FILE) if (folder / name).exists()]
    if not resume:
        if used:
            raise WrongWords(f"{folder} holds a run, expected --resume or another --output")
        return None
    remove_leftovers(folder / FOLDER)
    return newest_whole(folder / FOLDER)


def _weights(folder: Path, words: Sequence[str]) -> Path | None:
    """The checkpoint to look at: that of the folder, unless the words name one."""
    if any(word.split("=")[0] == "--ckpt_path" for word in words):
        return None
    found = newest_whole(folder / FOLDER)
    if found is None:
        raise WrongWords(
            f"got no checkpoint in {folder / FOLDER}, expected --output or --ckpt_path"
        )
    return found


class RunCLI(LightningCLI):
    """LightningCLI for one sub-command and one folder.

    Args:
        words: Sub-command, recipes, keys.
        folder: Where everything that the run writes goes.
        resume: Checkpoint to go on from.
        run_now: Run the sub-command; otherwise only build.
    """

    def __init__(
        self, words: Sequence[str], folder: Path, resume: Path | None, run_now: bool = True
    ) -> None:
        self.folder, self.resume, self.run_now = folder, resume, run_now
        self.command = words[0]
        for module in CHOICES:
            importlib.import_module(module)
        strict = {"exit_on_error": False, "allow_abbrev": False}
        super().__init__(
            L.LightningModule,
            L.LightningDataModule,
            save_config_callback=SaveConfig,
            save_config_kwargs={"overwrite": True},
            subclass_mode_model=True,
            subclass_mode_data=True,
            seed_everything_default=0,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # the modules see to it themselves
            parser_kwargs={**strict, self.command: dict(strict)},
            args=list(words),
        )

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """Only the one that is asked for: every further parser costs start-up time."""
        return {self.command: super().subcommands()[self.command]}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Values that several parts share are linked here and written nowhere else."""
        network = "model.init_args.network.init_args"
        parser.link_arguments("seed_everything", "model.init_args.seed")
        parser.link_arguments("seed_everything", "data.init_args.seed")
        parser.link_arguments(
            "model.init_args.autoencoder", f"{network}.in_channels", compute_fn=_latent_channels
        )
        parser.link_arguments(
            "model.init_args.text_encoder", f"{network}.text_dim", compute_fn=_text_dim
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Read the words; what is wrong with them is said in one line.

        Raises:
            WrongWords: If a word, key or value cannot be read.
        """
        try:
            self.config = parser.parse_args(args)
        except (argparse.ArgumentError, TypeError, ValueError, KeyError) as error:
            flags = [a.dest for a in self._subcommand_parsers[self.command]._actions]
            flags += ["output", "resume"]
            raise WrongWords(one_line(str(error), flags)) from error

    def _parse_ckpt_path(self) -> None:
        """The recipe says what is built, whatever a checkpoint says."""

    def instantiate_classes(self) -> None:
        """Build everything; a value that a part refuses is a wrong word.

        Raises:
            WrongWords: If a part refuses its arguments.
        """
        try:
            super().instantiate_classes()
        except FileNotFoundError as error:
            raise WrongWords(describe_error(error)) from error
        except (ValueError, TypeError, MisconfigurationException) as error:
            raise WrongWords(one_line(str(error))) from error

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """The trainer: the folder of a run and what every run has are not a matter of recipes.

        Raises:
            ValueError: If the recipe names a folder.
        """
        wanted = self._get(self.config_init, "trainer")
        if (place := wanted.get("default_root_dir")) is not None:
            raise ValueError(f"got trainer.default_root_dir={place}, expected --output {place}")
        logger = wanted.get("logger")
        logger = self.command == "fit" if logger is None else logger
        fixed: dict[str, Any] = {
            "default_root_dir": str(self.folder),
            "logger": _loggers(self.folder) if logger is True else logger,
        }
        if self.command == "fit":
            fixed["plugins"] = [AtomicCheckpointIO(), *_listed(wanted.get("plugins"))]
            fixed["use_distributed_sampler"] = False
            callbacks = self._callbacks(_listed(wanted.get("callbacks")))
        else:
            callbacks = [Predictions(self.folder)] if self.command == "predict" else []
        _warn_of_slow(wanted)
        has_bar = any(isinstance(callback, AnyProgressBar) for callback in callbacks)
        if not has_bar and wanted.get("enable_progress_bar") is not False:
            callbacks.insert(1, ProgressBar())  # after the speed, which it shows
        return super().instantiate_trainer(**{**kwargs, **fixed, "callbacks": callbacks})

    def _callbacks(self, chosen: list[Any]) -> list[Any]:
        """What the recipe chose, and what every run has."""
        if not any(isinstance(callback, Checkpoints) for callback in chosen):
            chosen.append(Checkpoints())
        for callback in chosen:
            if isinstance(callback, Checkpoints) and callback.dirpath is None:
                callback.dirpath = str(self.folder / FOLDER)
        return [Throughput(), *chosen, FinalWeights(self.folder)]

    def _run_subcommand(self, subcommand: str) -> None:
        if self.run_now:
            super()._run_subcommand(subcommand)

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        kwargs = super()._prepare_subcommand_kwargs(subcommand)
        if self.resume is not None:
            kwargs["ckpt_path"] = str(self.resume)
        if subcommand == "predict":
            kwargs["return_predictions"] = False
        return {**kwargs, "weights_only": True}


class SaveConfig(SaveConfigCallback):
    """Writes ``config.yaml`` once, when everything that could refuse to start has not."""

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Too early: the checkpoint to go on from is not restored yet."""

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Save when the first step is about to be taken."""
        if trainer.is_global_zero and not self.already_saved:
            folder = Path(trainer.default_root_dir)
            folder.mkdir(parents=True, exist_ok=True)
            temporary = folder / f".{CONFIG}"
            self.parser.save(
                self.config,
                str(temporary),
                skip_none=False,
                skip_validation=True,  # it was checked when it was read, which takes a while
                overwrite=True,
                multifile=False,
            )
            temporary.replace(folder / CONFIG)
            self.already_saved = True


def _warn_of_slow(trainer: Any) -> None:
    """Half precision on a processor without it works, but takes many times as long."""
    on_cpu = trainer.get("accelerator") == "cpu" or not torch.cuda.is_available()
    if str(trainer.get("precision") or "").startswith("bf16") and on_cpu and not has_bfloat16():
        warnings.warn(
            f"got trainer.precision={trainer.get('precision')} on a processor without bfloat16: "
            "many times slower than --trainer.precision 32-true",
            stacklevel=2,
        )


def _latent_channels(autoencoder: Any) -> int:
    """Channels that the network works on: those of the latents, or of pixels without."""
    if autoencoder is None:
        return 3
    if isinstance(autoencoder, str):
        return _channels_of(autoencoder)
    return int(autoencoder["init_args"]["latent_channels"])


@functools.lru_cache
def _channels_of(source: str) -> int:
    """Latent channels of a trained model; the parser asks several times."""
    return int(read_autoencoder(source).latent_channels)  # type: ignore[arg-type]


def _text_dim(text_encoder: Any) -> int | None:
    """Width of the text that a network reads; an encoder that gives labels has none."""
    width = None if text_encoder is None else text_encoder["init_args"].get("dim")
    return None if width is None else int(width)


def _listed(value: Any) -> list[Any]:
    """One, several or no parts, as a list."""
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def _loggers(folder: Path) -> list[Any]:
    """Figures for TensorBoard and as a table, which holds every row at any moment."""
    table = CSVLogger(folder / "logs", name="csv", flush_logs_every_n_steps=1)
    return [TensorBoardLogger(folder, name="logs", version=""), table]
