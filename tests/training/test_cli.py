"""Words become a run in one folder; wrong ones become one line."""

import json
import logging
import shutil
import signal
import typing

import pytest
import torch
from lightning.pytorch.callbacks import ProgressBar
from safetensors import safe_open

from vdm import cli
from vdm.autoencoder.image_vae import ImageVAE
from vdm.autoencoder.ltx_vae import LTXVAE
from vdm.autoencoder.opensora_vae import TwoStageVAE
from vdm.autoencoder.vae import VideoVAE
from vdm.cli_parsing import WrongWords
from vdm.pretrained.layout import write_folder
from vdm.pretrained.parts import Parts
from vdm.pretrained.sources import read
from vdm.training.autoencoder_module import AutoencoderModule
from vdm.training.averaging import EMA
from vdm.training.cli import build, main, quiet
from vdm.training.diffusion_module import DiffusionModule
from vdm.types import Autoencoder


def fit(smoke, folder, *words):
    return main(["fit", *smoke, f"--output={folder}", *words])


@pytest.fixture(scope="module")
def run(tmp_path_factory, finished):
    """A finished run, in a place of its own."""
    return shutil.copytree(finished, tmp_path_factory.mktemp("runs") / "smoke")


def tensors(path):
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118


def test_everything_that_a_run_writes_is_in_its_folder(run):
    names = {path.name for path in run.iterdir()}
    assert names == {"config.yaml", "checkpoints", "logs", "final.safetensors"}
    kept = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert kept == ["step-00000004.ckpt", "step-00000006.ckpt"]
    figures = (run / "logs" / "csv" / "version_0" / "metrics.csv").read_text()
    assert all(name in figures for name in ("train/loss", "val/loss", "val/loss_bin_0", "train/lr"))


def test_the_final_file_has_both_sets_of_weights_and_says_what_they_are(run):
    weights, metadata = tensors(run / "final.safetensors")
    card = json.loads(metadata["vdm"])
    assert set(card["parts"]) == {
        "network",
        "text_encoder",
        "schedule",
        "target",
        "preconditioning",
    }
    assert card["defaults"]["num_frames"] == 5
    assert card["envelope"]["height"] == [16, 16]
    raw = {key[4:]: value for key, value in weights.items() if key.startswith("raw.")}
    ema = {key[4:]: value for key, value in weights.items() if key.startswith("ema.")}
    assert raw.keys() == ema.keys()
    assert len(raw) + len(ema) == len(weights)
    assert any(not torch.equal(raw[key], ema[key]) for key in raw)


def test_a_run_and_its_checkpoints_load_by_name(run):
    checkpoint = run / "checkpoints" / "step-00000006.ckpt"
    for weights in ("ema", "raw"):
        final, last = read(run, weights), read(checkpoint, weights)
        for a, b in zip(
            final.network.state_dict().values(), last.network.state_dict().values(), strict=True
        ):
            assert torch.equal(a, b)


def test_a_module_comes_back_from_its_checkpoint_alone(run):
    checkpoint = run / "checkpoints" / "step-00000006.ckpt"
    module = DiffusionModule.load_from_checkpoint(checkpoint)
    averaged = read(run, "ema").network.state_dict()
    assert all(torch.equal(averaged[k], v) for k, v in module.network.state_dict().items())
    assert module.optimizer_plan.lr == 2e-3


def test_the_stored_recipe_makes_the_same_run(run, cache, tmp_path):
    words = ["fit", f"--config={run / 'config.yaml'}", f"--output={tmp_path}"]
    assert main([*words, "--trainer.default_root_dir=null"]) == 0
    assert (tmp_path / "final.safetensors").read_bytes() == (run / "final.safetensors").read_bytes()


def test_a_folder_that_holds_a_run_is_refused(run, smoke):
    with pytest.raises(WrongWords, match="holds a run, expected --resume or another --output"):
        fit(smoke, run)
    with pytest.raises(WrongWords, match="holds a run"):
        build([smoke[0].removeprefix("--config=")], smoke[1:], run)


def test_a_complete_run_resumed_changes_nothing(run, smoke):
    before = (run / "final.safetensors").read_bytes()
    (run / "final.safetensors").unlink()
    assert fit(smoke, run, "--resume") == 0
    assert (run / "final.safetensors").read_bytes() == before


@pytest.mark.parametrize("command", ["validate", "test", "predict"])
def test_a_run_can_be_looked_at(run, smoke, command, capsys):
    stale = run / "predictions" / "batch-000099-0.safetensors"
    if command == "predict":
        stale.parent.mkdir(exist_ok=True)
        stale.write_bytes(b"of a call with more batches")
    before = set(run.rglob("*.*"))
    assert main([command, *smoke, f"--output={run}", "--resume"]) == 0
    written = sorted(set(run.rglob("*.*")) - before)
    assert stale.exists() is False
    if command == "predict":
        shapes = [tuple(tensors(path)[0]["predictions"].shape) for path in written]
        assert shapes == [(4, 3, 5, 16, 16), (2, 3, 5, 16, 16)]
    else:
        assert not written
        assert {"validate": "val/loss", "test": "test/loss"}[command] in capsys.readouterr().out


def test_looking_at_nothing_is_refused(smoke, tmp_path):
    with pytest.raises(WrongWords, match=r"got no checkpoint in .*expected --output"):
        main(["validate", *smoke, f"--output={tmp_path}"])


WRONG = {
    "--trainer.max_step=3": "got trainer.max_step, nothing reads it; nearest trainer.max_steps",
    "--traner.max_steps=3": "got traner.max_steps, nothing reads it; nearest trainer",
    "--model.nework.dim=3": "got model.nework.dim, nothing reads it; nearest network",
    "--model.network.dimm=3": "got model.network.dimm, nothing reads it; nearest dim",
    "--model.loss.target=Epss": "model.loss.target: got 'Epss', nearest Eps",
    "--model.network.dim=wide": "model.network.dim: Expected a int",
    "--trainer.max_steps=many": "trainer.max_steps: Expected a int. Got value: many",
    "--model.num_bins=0": "got num_bins=0, expected at least 1",
    "--resum": "got resum, nothing reads it; nearest resume",
    "--model=DiffusionModul": "model: got 'DiffusionModul', nearest DiffusionModule",
    "--data=ShapesClip": "data: got 'ShapesClip', nearest ShapesClips",
    "--trainer.callbacks=EMAA": "trainer.callbacks: got 'EMAA', nearest EMA",
    "--trainer.plugins=Nonsense": "trainer.plugins: got 'Nonsense', expected the path of a class",
    "--trainer.default_root_dir=there": "got trainer.default_root_dir=there, expected --output",
    "--model.defaults.height=32": "got defaults.height=32, nothing reads it",
    "--model.init_args.start=nowhere.ckpt": "no file or folder nowhere.ckpt",
}


@pytest.mark.parametrize("word", WRONG)
def test_a_wrong_word_is_one_line_with_the_nearest_legal_one(smoke, tmp_path, word):
    with pytest.raises(WrongWords) as caught:
        fit(smoke, tmp_path / "run", word)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(WRONG[word])
    assert not (tmp_path / "run").exists()


def test_a_wrong_key_in_a_recipe_is_named(smoke, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("model: {init_args: {network: {init_args: {depht: 3}}}}")
    with pytest.raises(WrongWords, match=r"got model\.network\.depht, .*nearest depth"):
        fit([*smoke, f"--config={overlay}"], tmp_path / "run")


def test_an_overlay_states_only_what_differs(smoke, tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("model: {loss: {target: X0}, network: {dim: 24}}")
    recipes = [smoke[0].removeprefix("--config="), overlay]
    module, data, trainer = build(recipes, smoke[1:], tmp_path / "run")
    assert type(module.loss.target).__name__ == "X0"
    assert (module.network.dim, len(module.network.blocks)) == (24, 2)
    assert data.batch_size == 4
    assert trainer.max_steps == 6
    assert not (tmp_path / "run").exists()


def test_a_recipe_may_have_another_bar_and_another_logger_or_none(smoke, tmp_path):
    recipe, words = smoke[0].removeprefix("--config="), smoke[1:]
    none, theirs = "--trainer.enable_progress_bar=false", "lightning.pytorch.callbacks"
    table = f"{{class_path: CSVLogger, init_args: {{save_dir: {tmp_path / 'mine'}}}}}"
    for bar, logger, expected in [
        (none, "false", ([], [])),
        ("--trainer.max_steps=6", "true", (["ProgressBar"], ["TensorBoardLogger", "CSVLogger"])),
        (
            f"--trainer.callbacks+={theirs}.TQDMProgressBar",
            table,
            (["TQDMProgressBar"], ["CSVLogger"]),
        ),
    ]:
        asked = [*words, bar, f"--trainer.logger={logger}"]
        _, _, trainer = build([recipe], asked, tmp_path / "run")
        bars = [c for c in trainer.callbacks if isinstance(c, ProgressBar)]
        names = tuple([type(one).__name__ for one in found] for found in (bars, trainer.loggers))
        assert names == expected
    assert trainer.loggers[0].save_dir == str(tmp_path / "mine")


def test_the_stored_recipe_is_one_file_whatever_it_was_made_of(smoke, tmp_path):
    part = tmp_path / "part.yaml"
    part.write_text("{max_steps: 1, max_epochs: -1, enable_model_summary: false}")
    words = [smoke[0], f"--trainer={part}", *smoke[5:]]
    assert main(["fit", *words, f"--output={tmp_path / 'run'}"]) == 0
    assert not (tmp_path / "run" / "part.yaml").exists()
    assert "max_steps: 1\n" in (tmp_path / "run" / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("number", "status", "said"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_run_that_is_stopped_says_so(smoke, tmp_path, monkeypatch, capsys, number, status, said):
    def stop(self, batch: dict, batch_idx: int) -> None:
        signal.raise_signal(number)

    monkeypatch.setattr(DiffusionModule, "on_train_batch_start", stop)
    # A shell's background jobs, of which the tests may be one, start deaf to an interrupt.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert cli.main(["fit", *smoke, f"--output={tmp_path / 'run'}"]) == status
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err.splitlines()[-1] == f"vdm fit: {said}"


def test_every_row_of_the_table_is_on_disk_at_once(smoke, tmp_path, monkeypatch):
    table = tmp_path / "run" / "logs" / "csv" / "version_0" / "metrics.csv"
    seen = []
    monkeypatch.setattr(
        DiffusionModule,
        "on_train_batch_start",
        lambda self, batch, batch_idx: seen.append(rows(table)),
    )
    assert fit(smoke, tmp_path / "run") == 0
    assert seen == [0, 0, 1, 1, 3, 3]  # after steps 2 and 4, and a validation


def rows(table):
    return len(table.read_text().splitlines()) - 1 if table.exists() else 0


def test_a_failure_leaves_the_loggers_as_they_were():
    names = ("lightning.pytorch", "lightning.fabric")
    levels = [logging.getLogger(name).level for name in names]
    with pytest.raises(RuntimeError), quiet():
        raise RuntimeError
    assert [logging.getLogger(name).level for name in names] == levels


def test_shared_values_are_linked(smoke, tmp_path):
    vae = (
        "--model.autoencoder={class_path: VideoVAE, init_args: {latent_channels: 5, widths: [4], "
        "level_strides: [], encoder_blocks: [1], decoder_blocks: [1]}}"
    )
    words = [*smoke[1:], vae, "--model.text_encoder.dim=24", "--seed_everything=7"]
    module, data, _ = build([smoke[0].removeprefix("--config=")], words, tmp_path)
    assert module.network.in_channels == 5
    assert module.network.blocks[0].cross_attention.to_k.in_features == 24
    assert module.seed == data.seed == 7


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["fit"], "got no recipe, expected --config FILE"),
        (["fit", "--config", "nowhere.yaml"], "got --config nowhere.yaml, expected a file"),
        (["fit", "--config"], "got nothing, expected one value"),
    ],
)
def test_a_recipe_is_needed(words, expected, capsys):
    assert cli.main(words) == 2
    assert expected in capsys.readouterr().err


def test_help_does_not_need_a_recipe(capsys):
    assert main(["fit", "--help"]) == 0
    assert "--resume" in capsys.readouterr().out


def test_broken_yaml_is_one_line(tmp_path, capsys):
    (tmp_path / "broken.yaml").write_text("model: {a: [")
    assert cli.main(["fit", "--config", str(tmp_path / "broken.yaml")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_average_is_what_remains_after_fitting(smoke, tmp_path):
    module, data, trainer = build([smoke[0].removeprefix("--config=")], smoke[1:], tmp_path)
    trainer.fit(module, data)
    average = next(c for c in trainer.callbacks if isinstance(c, EMA))
    raw, ema = average.raw_and_averaged(module)
    assert ema is module
    weights, _ = tensors(tmp_path / "final.safetensors")
    assert torch.equal(weights["ema.network.patch_embed.weight"], ema.network.patch_embed.weight)
    assert torch.equal(weights["raw.network.patch_embed.weight"], raw.network.patch_embed.weight)


def test_an_autoencoder_that_does_not_exist_is_one_line(smoke, tmp_path):
    with pytest.raises(WrongWords) as caught:
        fit(smoke, tmp_path / "run", f"--model.autoencoder={tmp_path / 'nowhere.safetensors'}")
    assert "nowhere.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_can_use_the_autoencoder_of_another(smoke, cache, tmp_path):
    vae = VideoVAE(
        latent_channels=2,
        widths=(4, 6),
        level_strides=((2, 2, 2),),
        encoder_blocks=(1, 1),
        decoder_blocks=(1, 1),
        patch_size=2,
    )
    write_folder(Parts("vae", autoencoder=vae), tmp_path / "vae")
    words = [f"--model.autoencoder={tmp_path / 'vae'}", "--model.network.patch_size=[1, 1, 1]"]
    latents = "--data={class_path: ShapesLatents, init_args: {dtype: float32}}"
    assert fit([smoke[0], latents, *smoke[1:]], tmp_path / "run", *words) == 0
    (tmp_path / "vae" / "vdm.json").unlink()  # the run does not need it any more
    checkpoint = tmp_path / "run" / "checkpoints" / "step-00000006.ckpt"
    module = DiffusionModule.load_from_checkpoint(checkpoint)
    assert torch.equal(module.autoencoder.decoder[0].weight, vae.decoder[0].weight)
    weights, _ = tensors(tmp_path / "run" / "final.safetensors")
    name = "autoencoder.decoder.0.weight"
    assert torch.equal(weights[f"ema.{name}"], weights[f"raw.{name}"])


@pytest.mark.parametrize("module", [DiffusionModule, AutoencoderModule])
def test_only_autoencoders_are_looked_through_for_one_that_is_named(module):
    asked = typing.get_type_hints(module.__init__)["autoencoder"]
    assert Autoencoder in (asked, *typing.get_args(asked))
    assert torch.nn.Module not in (asked, *typing.get_args(asked))  # thousands are loaded
    assert all(issubclass(one, Autoencoder) for one in (VideoVAE, ImageVAE, LTXVAE, TwoStageVAE))


def test_recomputing_activations_changes_nothing(run, smoke, tmp_path):
    word = "--model.network.block.gradient_checkpointing=true"
    assert fit(smoke, tmp_path, word) == 0
    ours, theirs = (tensors(folder / "final.safetensors")[0] for folder in (tmp_path, run))
    assert all(torch.equal(ours[key], value) for key, value in theirs.items())


def test_half_precision_trains_full_precision_weights_and_is_said_to_be_slow_without_hardware(
    run, smoke, tmp_path, monkeypatch
):
    monkeypatch.setattr("vdm.training.cli.has_bfloat16", lambda: False)
    with pytest.warns(UserWarning, match="processor without bfloat16.*32-true"):
        assert fit(smoke, tmp_path, "--trainer.precision=bf16-mixed") == 0
    ours, theirs = (tensors(folder / "final.safetensors")[0] for folder in (tmp_path, run))
    assert all(value.dtype == theirs[key].dtype for key, value in ours.items())
    assert any(not torch.equal(value, theirs[key]) for key, value in ours.items())
    assert all(torch.isfinite(value).all() for value in ours.values())
