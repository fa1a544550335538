"""No override is ignored: a key that nothing reads is refused, however it is spelt."""

import copy
import inspect
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any

import hydra
import pytest
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf

from imex_experiments.config.arguments import rewritten
from imex_experiments.config.build import build
from imex_experiments.config.keys import check_keys
from imex_experiments.config.preflight import preflight
from imex_experiments.config.trainer import check_trainer
from imex_experiments.errors import ConfigError, exit_code
from imex_experiments.process.command import reported
from imex_experiments.training.trainer import build_loggers

FREE = (
    "callbacks.hparams.hparams",  # columns of a table
    *("hydra.job.env_set", "hydra.runtime.choices"),
    *("hydra.job_logging.formatters", "hydra.job_logging.loggers"),
    "hydra.job_logging.handlers",  # arguments of a class, which refuses them
)
"""Where a user may invent names."""


@pytest.fixture(scope="module", autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        yield


@pytest.fixture(scope="module")
def main_job(_hydra: None) -> DictConfig:
    return compose("train", return_hydra_config=True)


@pytest.fixture(scope="module")
def levels(main_job: DictConfig) -> dict[str, set[str]]:
    """Every node of the main job by its dotted path, with the names that it may hold."""
    found: dict[str, set[str]] = {}

    def visit(node: Any, path: str) -> None:
        if not isinstance(node, dict) or path.startswith(FREE):
            return
        found[path] = set(map(str, node))
        if "_target_" in node:
            target = hydra.utils.get_class(node["_target_"])
            found[path] |= inspect.signature(target).parameters.keys()
        for name, below in node.items():
            visit(below, f"{path}.{name}" if path else str(name))

    visit(OmegaConf.to_container(main_job), "")
    found[""] |= {"experiment"}
    return found


def with_override(config: DictConfig, override: str) -> DictConfig:
    """The configuration with one more override, without reading all files again."""
    config = copy.deepcopy(config)
    overrides = OverridesParser.create().parse_overrides([override])
    ConfigLoaderImpl._apply_overrides_to_config(overrides, config)
    return config


def refused(make: Callable[[], DictConfig]) -> str:
    """The line that a user reads; fails if the configuration is accepted."""
    with pytest.raises((ConfigError, HydraException)) as caught:
        check_keys(make())
    error = reported(caught.value)
    assert exit_code(error) == 2
    return str(error)


@settings(
    max_examples=50,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(data=st.data())
def test_random_keys_are_refused_at_every_level(
    main_job: DictConfig, levels: dict[str, set[str]], data: st.DataObject
) -> None:
    """Foreign words and misspelt ones, as four spellings write them."""
    level = data.draw(st.sampled_from(sorted(levels)))
    known = levels[level]
    key = data.draw(st.from_regex(r"[a-z_][a-z0-9_]{1,9}", fullmatch=True))
    if data.draw(st.booleans()):  # a letter twice
        name = data.draw(st.sampled_from(sorted(known)))
        at = data.draw(st.integers(0, len(name) - 1))
        key = name[:at] + name[at] + name[at:]
    assume(key not in known)
    path = f"{level}.{key}" if level else key
    spelling = data.draw(st.sampled_from(["", "+", "++", "~"]))
    values = ["1", "true", "null", "abc", "[1]", "{a:1}", "{a:{b:1}}"]
    value = "" if spelling == "~" else f"={data.draw(st.sampled_from(values))}"
    assert key in refused(lambda: with_override(main_job, f"{spelling}{path}{value}"))


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("+sed=1", "sed: unknown key, did you mean 'seed'?"),
        (
            "++trainer.max_epoch=3",
            "trainer.max_epoch: unknown key, did you mean 'max_e",
        ),
        (
            "+trainer.compil=true",
            "trainer.compil: unknown key, did you mean 'compile'?",
        ),
        ("~callbacks.histry", "callbacks.histry: unknown key, did you mean 'history'?"),
        ("+callbacks.histry=null", "callbacks.histry: unknown key, did you mean 'hist"),
        ("+model/layr=double", "model/layr: unknown key"),
        ("+hydra.job.nam=x", "hydra.job.nam: unknown key, did you mean 'name'?"),
        # what the program gives itself would win over these
        ("+model.in_channels=5", "model.in_channels: set by train.py"),
        ("+scheduler.total_steps=5", "scheduler.total_steps: set by train.py"),
        ("+scheduler.epochs=5", "scheduler.epochs: set by train.py"),
        ("+trainer.logger=false", "trainer.logger: set by train.py"),
        ("+trainer.max_epochs=3", "trainer.max_epochs: has a value already"),
        # and these would take away what a run cannot do without
        ("~data", "data: missing, give it as data=<value>"),
        ("~seed", "seed: missing, give it as seed=<value>"),
        ("~optimizer.lr", "optimizer.lr: missing, scheduler.max_lr needs it"),
        ("check=maybe", "check=maybe: expected bool, got str"),
        ("+model/layer@callbacks.x=double", "DoubleLayer: expected a Callback"),
        (
            "+callbacks.history._partial_=true",
            "callbacks.history._partial_: expected f",
        ),
        ("+logger.csvv=null", "logger.csvv: unknown key, did you mean 'csv'?"),
        ("+logger.tensorboard.prefx=a", "logger.tensorboard.prefx: unknown key"),
        ("logger.tensorboard=1", "logger.tensorboard=1: expected null or a node"),
    ],
)
def test_refusals_name_the_key_and_the_nearest(override: str, complaint: str) -> None:
    assert complaint in refused(
        lambda: compose("train", [override], return_hydra_config=True)
    )


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_a_logger_without_its_package_is_refused_with_the_install_line(
    name: str,
) -> None:
    if find_spec(name) is not None:
        pytest.skip(f"{name} is installed")
    cfg = compose("train", [f"logger=[tensorboard,{name}]", "run_dir=x"])
    install = r"pytorch_lightning\.loggers\.\w+: .*pip install"
    with pytest.raises(ConfigError, match=rf"^logger\.{name}\._target_={install}"):
        check_keys(cfg)
    with pytest.raises(ConfigError, match=rf"^logger: .*{name}"):
        build(cfg.logger[name], "logger")


def test_several_loggers_are_built_by_their_names() -> None:
    """Any of them may be null, by its own key or with all the others."""
    several = ["logger=[tensorboard,csv]", "run_dir=x"]
    for more, names in (
        ([], ["RunLogger", "CsvLogger"]),
        (["logger.csv=null"], ["RunLogger"]),
        (["logger.tensorboard=null", "+logger.prefix={}"], None),
        (rewritten(["logger=null"]), []),
        (
            ["+logger.mine={_target_:imex_experiments.loggers.CsvLogger,save_dir:y}"],
            ["RunLogger", "CsvLogger", "CsvLogger"],
        ),
    ):
        cfg = compose("train", [*several, *more])
        if names is None:
            with pytest.raises(
                ConfigError, match=r"logger\.prefix: unknown key, known:"
            ):
                check_keys(cfg)
            continue
        check_keys(cfg)
        assert [type(logger).__name__ for logger in build_loggers(cfg)] == names


@pytest.mark.parametrize("argument", ["diffusion.alpha=5", "layer.padding=circular"])
def test_argument_that_the_network_would_override_is_refused(argument: str) -> None:
    cfg = compose("train", [f"+model.{argument}", "run_dir=x"])
    with pytest.raises(ConfigError, match="would be lost"):
        preflight(cfg)


def test_anything_that_is_not_needed_may_be_null(main_job: DictConfig) -> None:
    names = list(main_job.callbacks)
    for words in (
        [f"callbacks.{name}=null" for name in names],
        rewritten(["callbacks=null", "logger=null", "scheduler=null"]),
    ):
        preflight(compose("train", [*words, "run_dir=x"]))
    with pytest.raises(
        ConfigError, match=r"callbacks\.auto_alpha=null: model\.alpha=auto"
    ):
        preflight(compose("train", ["~callbacks", "model.alpha=auto", "run_dir=x"]))


@pytest.mark.parametrize(
    "setting",
    [
        *("limit_train_batches=2", "fast_dev_run=true", "gradient_clip_val=1"),
        *("accumulate_grad_batches=2", "max_time=00:01:00:00", "max_steps=3"),
        *("limit_test_batches=0", "val_check_interval=0.5", "profiler=simple"),
    ],
)
def test_known_arguments_of_the_trainer_need_no_plus(
    setting: str, main_job: DictConfig
) -> None:
    cfg = with_override(main_job, f"trainer.{setting}")
    check_keys(cfg)
    check_trainer(cfg.trainer)


@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("max_epochs=-1", "trainer.max_epochs=-1: expected an integer >= 1"),
        ("max_epochs=null", "trainer.max_epochs=None: expected an integer >= 1"),
        ("max_steps=0", "trainer.max_steps=0: expected -1"),
        (
            "limit_train_batches=0",
            "trainer.limit_train_batches=0: expected null or more",
        ),
        (
            "limit_val_batches=0.0",
            "trainer.limit_val_batches=0.0: expected null or more",
        ),
        ("check_val_every_n_epoch=0", "expected an integer >= 1"),
        ("limit_train_batches=1.5", "invalid value 1.5"),
        ("max_time=soon", "not a valid duration"),
        ("profiler=best", "trainer: "),
    ],
)
def test_training_that_could_not_end_is_refused(
    setting: str, complaint: str, main_job: DictConfig
) -> None:
    with pytest.raises(ConfigError) as caught:
        check_trainer(with_override(main_job, f"trainer.{setting}").trainer)
    assert complaint in str(caught.value)
