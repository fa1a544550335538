"""From configuration to objects: what is refused, and in which words."""

import inspect
import re
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from imex_experiments.config.build import REBUILDING, Part, build, check
from imex_experiments.errors import ConfigError
from imex_experiments.terms.diffusion import GramDiffusion

GRAM = {"_target_": "imex_experiments.terms.GramDiffusion", "channels": 3, "alpha": 2}


def test_nodes_become_objects() -> None:
    L = build(OmegaConf.create(GRAM), "model.diffusion")
    assert isinstance(L, GramDiffusion)
    assert L.alpha == 2
    make = build(OmegaConf.create({**GRAM, "_partial_": True}), "model.diffusion")
    assert make(init="laplacian").channels == 3
    assert build(None, "scheduler") is None


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"alhpa": 3}, "model.alhpa: unknown key, did you mean 'alpha'?"),
        (
            {"alpha": "abc"},
            "model.alpha=abc: expected float or Literal['auto', 'learned'], got str",
        ),
        ({"channels": 1.5}, "model.channels=1.5: expected int, got float"),
        ({"channels": True}, "model.channels=True: expected int, got bool"),
        (
            {"init": "zeros"},
            "model.init=zeros: expected Literal['uniform', 'laplacian']",
        ),
        ({"alpha": -1.0}, "model: alpha must be >= 0 and finite, got -1.0"),
        ({"kernel_size": 4}, "model: kernel_size must be odd and >= 3, got 4"),
        ({"alpha": "???"}, "model.alpha: Missing mandatory value"),
        (
            {"_target_": "imex_experiments.terms.GrammDiffusion"},
            "there is no such class",
        ),
    ],
)
def test_unsound_values_are_refused_with_key_and_value(
    change: dict[str, object], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(complaint)) as caught:
        build(OmegaConf.create({"model": {**GRAM, **change}}).model, "model")
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_missing_argument_is_named() -> None:
    node = OmegaConf.create({k: v for k, v in GRAM.items() if k != "alpha"})
    with pytest.raises(
        ConfigError, match=r"model\.alpha: missing, give it as model\.alpha="
    ):
        build(node, "model")


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.eval",
        "torch.load",
        "imex_experiments.runs.status.subprocess.Popen",  # an alias inside of the package
        "imex_experiments.files.os.system",
        "imex_experiments.config.build.build",  # a function
        "imex_experiments.terms",  # a module
        "imex_experiments_evil.Class",
        "pytorch_lightning.trainer.trainer.os.system",
        12,
    ],
)
def test_only_classes_of_the_allowed_packages_are_called(
    target: object, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    node = OmegaConf.create({"_target_": target, "command": f"touch {canary}"})
    for nested in (node, {"inner": [node]}):
        with pytest.raises(
            ConfigError, match=r"only classes of|there is no such class"
        ):
            check(OmegaConf.create(nested), "model")
        with pytest.raises(ConfigError):
            build(OmegaConf.create({**GRAM, "init": nested}), "model")
    assert not canary.exists()


def test_foreign_module_is_not_even_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "evil_module.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('canary').touch()\nclass C: pass"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="only classes of"):
        build(OmegaConf.create({"_target_": "evil_module.C"}), "model")
    assert not (tmp_path / "canary").exists()


def test_rebuilding_a_network_allows_this_package_alone() -> None:
    node = OmegaConf.create(
        {"_target_": "torch.optim.SGD", "_partial_": True, "lr": 0.1}
    )
    assert build(node, "optimizer").keywords == {"lr": 0.1}
    with pytest.raises(
        ConfigError, match="only classes of imex_experiments may be named"
    ):
        build(node, "optimizer", allowed=REBUILDING)


def test_lists_of_yaml_serve_where_a_tuple_is_asked_for() -> None:
    node = {"_target_": "torch.optim.AdamW", "_partial_": True, "betas": [0.8, 0.9]}
    assert build(OmegaConf.create(node), "optimizer").keywords == {"betas": [0.8, 0.9]}


def test_a_type_that_only_type_checkers_import_leaves_the_other_checks() -> None:
    """WandbLogger's `experiment` names a class of wandb, imported under TYPE_CHECKING."""
    node = {"_target_": "pytorch_lightning.loggers.WandbLogger", "project": "imex"}
    check(OmegaConf.create({**node, "log_model": "all", "offline": True}), "logger")
    for change, complaint in (
        ({"offline": "maybe"}, "logger.offline=maybe: expected bool, got str"),
        ({"log_model": 3}, "logger.log_model=3: expected"),
    ):
        with pytest.raises(ConfigError, match=re.escape(complaint)):
            check(OmegaConf.create({**node, **change}), "logger")


@pytest.mark.parametrize(
    ("target", "known", "unknown"),
    [
        ("loggers.TensorBoardLogger", "flush_secs", "flush_sec"),
        ("loggers.TensorBoardLogger", "max_queue", "log_dir"),
        ("callbacks.WeightAveraging", "multi_avg_fn", "avg_fnn"),
        ("callbacks.EMAWeightAveraging", "decay", "decai"),
        ("callbacks.ThroughputMonitor", "window_size", "windowsize"),
        ("callbacks.ModelSummary", "max_depth", "max_dept"),
        ("strategies.DDPStrategy", "static_graph", "static_graf"),
        ("profilers.PyTorchProfiler", "record_shapes", "record_shape"),
    ],
)
def test_keys_that_a_class_passes_on_are_those_of_their_reader(
    target: str, known: str, unknown: str
) -> None:
    """Lightning takes any, and the reader fails, or nobody reads it."""
    node = {"_target_": f"pytorch_lightning.{target}"}
    check(OmegaConf.create({**node, known: "???"}), "x", Part(object))
    with pytest.raises(ConfigError, match=f"x.{unknown}: unknown key, "):
        check(OmegaConf.create({**node, unknown: "???"}), "x", Part(object))


ABSENT = {"WandbLogger": "wandb", "CometLogger": "comet_ml"}
"""Loggers whose keys are read by a package, which may not be installed."""


@pytest.mark.parametrize(
    "module", ["callbacks", "loggers", "loggers.neptune", "profilers", "strategies"]
)
def test_no_class_of_lightning_takes_a_key_that_nobody_reads(module: str) -> None:
    """Nor one that says so of all its keys, `**kwargs`, and ignores them."""
    module = f"pytorch_lightning.{module}"
    for name, target in inspect.getmembers(import_module(module), inspect.isclass):
        own = target.__module__.startswith("pytorch_lightning.")
        if own and (name not in ABSENT or find_spec(ABSENT[name])):
            node = OmegaConf.create({"_target_": f"{module}.{name}", "invented": 1})
            with pytest.raises(ConfigError, match=r"x\.invented: unknown key, "):
                check(node, "x", Part(object))
