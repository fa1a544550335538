"""`from imex_experiments import train`: the command's run, without its effects on a process."""

import logging
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser

from imex_experiments import train
from imex_experiments.config.overrides import override
from imex_experiments.errors import ConfigError, DataError

TINY: dict[str, Any] = {
    "data__train": 8,
    "data__val": 4,
    "data__test": 4,
    "data__batch_size": 4,
    "data__image_size": 24,
    "data__lengths": [8, 12],
    "data__widths": [2, 4],
    "model__widths": [4],
    "trainer__max_epochs": 1,
    "logger": None,
    "callbacks__progress": None,
}


def surroundings() -> list[object]:
    """What of this process a training could change for its caller."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
    root = logging.getLogger()
    return [
        [*map(signal.getsignal, signals)],
        [*sys.argv],
        [*root.handlers],
        root.level,
        HydraConfig.initialized(),
        GlobalHydra.instance().is_initialized(),
        Path.cwd(),
    ]


def test_trains_again_and_again_also_after_an_error(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMEX_CACHE", str(cache))
    before = surroundings()
    run = train(model="imexnet", seed=1, **TINY, **{"model.h": 0.5})
    assert run.folder.parent == tmp_path / "outputs/qtips/imexnet"
    assert run.task.network.h == 0.5
    assert run.task.predict(torch.zeros(1, 1, 24, 24).byte()).shape == (1, 24, 24)
    assert run.history["val/miou"].tolist() == [run.metrics["last/val/miou"]]
    assert run.figures["segmentation"].is_file()
    assert "epoch 1/1" in (run.folder / "train.log").read_text()
    assert surroundings() == before

    with pytest.raises(ConfigError, match=r"model\.hh: unknown key"):
        train(**TINY, model__hh=1)
    with pytest.raises(DataError, match="no such folder") as failure:
        train(**TINY, data__root=tmp_path / "no, where")
    assert failure.value.__context__ is None
    assert surroundings() == before

    again = train("model=imexnet", "model.h=0.5", seed=1, **TINY)
    assert again.folder != run.folder
    assert again.metrics["val/loss"] == run.metrics["val/loss"]
    assert train(resume=run.folder).folder == run.folder  # which is finished


def test_classes_of_your_own_train_where_they_are_allowed(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IMEX_CACHE", str(cache))
    monkeypatch.syspath_prepend(tmp_path)
    code = "from imex_experiments.integrators import ForwardEuler\n\n\n"
    (tmp_path / "my_scheme.py").write_text(f"{code}class Mine(ForwardEuler): pass\n")
    own = {"model": "resnet", "model__integrator___target_": "my_scheme.Mine"}
    own["hydra__run__dir"] = str(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"my_scheme\.Mine"):
        train(**TINY, **own)
    run = train(**TINY, **own, allow=["my_scheme"])
    scheme = run.task.network.blocks[0].integrator
    assert type(scheme).__module__ == "my_scheme"


def test_what_only_the_command_can_do_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trains on one device"):
        train(trainer="ddp", hydra__run__dir=tmp_path / "run")
    with pytest.raises(ConfigError, match=r"sweep\.resume=x: a call trains one"):
        train(sweep__resume="x")
    with pytest.raises(ConfigError, match="check=true: this can be run"):
        train(**TINY, check=True, hydra__run__dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "value",
    [
        *(None, True, False, 3, -0.5, 1e-7, float("inf"), "resnet", "null", "1e3"),
        *("a (new), folder=1", "it's", r"back\slash", r"a\'b\\", "", "läuft", "on"),
        *([1, 2, 3], [], [0.5, "a b", None], {0: 0, "b": [1]}),
    ],
)
def test_a_value_reaches_the_configuration_as_it_is(value: object) -> None:
    parsed = OverridesParser.create().parse_override(override("key", value)).value()
    assert parsed == value
    assert type(parsed) is type(value)


def test_a_value_without_a_type_of_yaml_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"key=.*: a Tensor is no setting"):
        override("key", torch.ones(2))


def test_the_package_is_imported_in_a_moment() -> None:
    code = "import sys, imex_experiments; print({'torch', 'hydra'} & {*sys.modules})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert done.stdout == "set()\n", done.stderr
