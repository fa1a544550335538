"""What a user of Lightning expects of trainer, task and data."""

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from conftest import ROOT
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from torture import SMALL

from imex_experiments.config.parts import build_parts, build_task
from imex_experiments.config.trainer import check_own_keys, check_trainer, lightning
from imex_experiments.errors import ConfigError
from imex_experiments.runs.checkpoint_io import load_weights
from imex_experiments.training.evaluation import evaluate
from imex_experiments.training.trainer import build_callbacks, build_trainer

Training = Callable[..., tuple[Any, Any, Any]]


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield


@pytest.fixture
def training(tmp_path: Path) -> Training:
    """Build trainer, task and data of a configuration, as train.py does."""

    def build(*words: str, more: tuple[pl.Callback, ...] = ()) -> tuple[Any, Any, Any]:
        cfg = composed(*SMALL, "callbacks.hparams=null", f"run_dir={tmp_path}", *words)
        parts = build_parts(cfg)
        parts.data.cache_dir = tmp_path / "cache"
        parts.data.prepare_data()
        parts.data.setup()
        callbacks = [*build_callbacks(cfg, otherwise=pl.Callback()), *more]
        trainer = build_trainer(cfg, callbacks, [])
        return trainer, build_task(cfg, parts), parts.data

    return build


def composed(*words: str) -> DictConfig:
    return compose("train", list(words))


def test_best_last_and_predict_after_a_training(
    training: Training, tmp_path: Path
) -> None:
    """The task has other weights by then: those of the checkpoints are loaded."""
    trainer, task, data = training("trainer.max_epochs=3")
    trainer.fit(task, data)
    kept = Path(trainer.checkpoint_callback.best_model_path)
    assert kept == tmp_path / "checkpoints/best.ckpt"
    last = float(trainer.callback_metrics["val/loss"])
    before = {path: path.stat().st_mtime_ns for path in kept.parent.iterdir()}

    def spoil() -> None:
        with torch.no_grad():
            for weight in task.parameters():
                weight.fill_(0.1)

    spoil()
    (found,) = trainer.validate(task, data, ckpt_path="last", verbose=False)
    assert found["val/loss"] == pytest.approx(last, rel=1e-6)
    spoil()
    (tested,) = trainer.test(task, data, ckpt_path="best", verbose=False)
    predicted = torch.cat(trainer.predict(task, data))
    load_weights(task, tmp_path)
    images, _ = data.samples("test", 4)
    assert torch.equal(predicted, task.predict(images))
    scores = evaluate(task, data, composed(*SMALL, f"run_dir={tmp_path}").trainer)
    assert tested == {k: v for k, v in scores.items() if k.startswith("test/")}
    assert before == {path: path.stat().st_mtime_ns for path in kept.parent.iterdir()}


def test_data_without_a_test_split_predict_their_validation_split(
    training: Training,
) -> None:
    trainer, task, data = training()
    del data.splits["test"]
    images, _ = data.samples("val", 4)
    assert torch.equal(torch.cat(trainer.predict(task, data)), task.predict(images))


class Seen(pl.Callback):
    """The batches of a training, and its losses."""

    def __init__(self) -> None:
        self.batches: list[torch.Tensor] = []
        self.losses: list[float] = []

    def on_train_batch_end(
        self, trainer: Any, task: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.batches.append(batch[0].clone())
        self.losses.append(float(outputs["loss"]))


def test_overfitting_repeats_its_first_batches(training: Training) -> None:
    seen = Seen()
    words = ["debug=overfit", "trainer.overfit_batches=2", "trainer.max_epochs=3"]
    trainer, task, data = training(*words, more=(seen,))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*shuffling.*")
        trainer.fit(task, data)
    first, second = seen.batches[:2]
    assert not torch.equal(first, second)
    assert len(seen.batches) == 6
    assert all(map(torch.equal, seen.batches, 3 * [first, second]))


@pytest.mark.slow
def test_overfitting_fits_one_batch(training: Training) -> None:
    seen = Seen()
    words = [
        "debug=overfit",
        "model.widths=[4,8]",
        "callbacks.checkpoints.every_steps=null",
    ]
    trainer, task, data = training(*words, "trainer.max_epochs=200", more=(seen,))
    trainer.fit(task, data)
    assert seen.losses[-1] < 0.05 * seen.losses[0]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            ["debug=overfit", "trainer.limit_val_batches=3"],
            r"limit_val_batches=3: trainer.overfit_batches=1 decides",
        ),
        (["trainer.overfit_batches=-1"], r"invalid value -1 for overfit_batches"),
        (["trainer.overfit_batches=1.5"], r"invalid value 1.5 for overfit_batches"),
    ],
)
def test_overfitting_that_could_not_be_is_refused(
    words: list[str], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        check_trainer(composed(*words, "run_dir=x").trainer)


def test_batch_norms_are_synchronised_on_gpus_alone() -> None:
    for words, expected in (
        (["trainer=ddp", "trainer.accelerator=cpu"], False),
        (["trainer=ddp", "trainer.accelerator=gpu"], True),
        (["trainer=ddp"], torch.cuda.is_available()),
        (["trainer=gpu"], False),
    ):
        trainer = composed(*words, "run_dir=x").trainer
        check_own_keys(trainer)
        assert lightning(trainer).sync_batchnorm is expected
    cfg = composed("trainer=cpu", "trainer.sync_batchnorm=true", "run_dir=x")
    with pytest.raises(
        ConfigError, match=r"trainer\.sync_batchnorm=true: GPUs have it"
    ):
        check_own_keys(cfg.trainer)


def test_devices_that_torchrun_did_not_start_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "4")
    check_own_keys(
        composed("trainer=ddp", "trainer.devices=2", "trainer.num_nodes=2").trainer
    )
    with pytest.raises(ConfigError, match=r"devices=1 .*has started 4 processes; give"):
        check_own_keys(composed().trainer)
