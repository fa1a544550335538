"""Classes of one's own: allowed at the keyboard, by no folder; the example package works."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from conftest import ROOT, Command, relative_error, rounding
from omegaconf import OmegaConf

from imex_experiments import load_run
from imex_experiments.config.allow import again, at_keyboard, check_packages
from imex_experiments.config.arguments import options_first
from imex_experiments.config.build import TRAINING, locate
from imex_experiments.data import DataModule, Facts
from imex_experiments.errors import CheckpointError, ConfigError
from imex_experiments.integrators import System, TimeGrid, integrate
from imex_experiments.results import runs_table
from imex_experiments.runs.load import load_config, load_data
from imex_experiments.runs.resume import resumed_arguments
from imex_experiments.runs.strangers import taken_words
from imex_experiments.terms import IdentityDiffusion, LaplacianDiffusion
from imex_experiments.training.evaluation import evaluate

TRAIN = str(ROOT / "train.py")
EXAMPLE = ROOT / "docs/example_package"
SOURCE = Path("overrides.yaml")
TINY = ["data.train=8", "data.val=4", "data.test=4", "data.batch_size=4"]
TINY += ["data.image_size=16", "trainer.max_epochs=1", "trainer.log_every_n_steps=1"]
ALLOW = "allow=[my_package]"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example package outside of the repository."""
    return Path(shutil.copytree(EXAMPLE, tmp_path_factory.mktemp("own") / "package"))


@pytest.fixture(autouse=True)
def _importable(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(package)


@pytest.fixture(scope="module")
def run(
    package: Path, forked: Command, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run with a network, data, task, layer, integrator, operator and callback of it."""
    cwd = tmp_path_factory.mktemp("run")
    done = forked(
        TRAIN,
        f"--config-dir={package}/conf",
        "experiment=blobs",
        *TINY,
        cwd=cwd,
        before=lambda: sys.path.insert(0, str(package)),
    )
    assert done.returncode == 0, done.stderr
    (found,) = (cwd / "outputs/blobs/split_net").iterdir()
    shown = "".join(done.stdout.split("\n"))
    assert f"--config-dir={package}/conf '{ALLOW}'" in shown
    return found


def test_a_run_of_own_classes_is_loaded_and_evaluated_with_allow(run: Path) -> None:
    task = load_run(run, allow=["my_package"])
    kinds = [type(x).__module__ for x in (task, task.network.blocks[0].integrator)]
    assert kinds == ["my_package.task", "my_package.integrator"]
    assert task.predict(torch.randn(2, 1, 16, 16)).shape == (2, 16, 16)
    data = load_data(run, allow=["my_package"])
    cfg = load_config(run, allow=["my_package"])
    metrics = json.loads((run / "metrics.json").read_text())
    assert evaluate(task, data, cfg.trainer)["test/loss"] == metrics["test/loss"]
    status = json.loads((run / "status.json").read_text())
    assert (status["h"], status["alpha"]) == (1.0, 10.0)
    row = runs_table(run, allow=["my_package"]).iloc[0]
    assert (row["integrator"], row["state"]) == ("SplitEuler", "finished")


def test_a_run_of_own_classes_is_refused_without_allow(run: Path) -> None:
    """Neither what its files allow, nor another package, counts."""
    with pytest.raises(
        ConfigError, match=r"is not taken from a folder.*'allow=\[my_pa"
    ):
        load_run(run)
    with pytest.raises(
        ConfigError, match=r"only classes of imex_experiments.*may be na"
    ):
        load_run(run, allow=["torch"])


def test_a_foreign_class_without_allow_in_the_folder_names_the_remedy(
    run: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    config = copied / ".hydra/config.yaml"
    text = config.read_text()
    assert "allow:\n- my_package\n" in text
    config.write_text(text.replace("allow:\n- my_package\n", ""))
    with pytest.raises(
        ConfigError, match=r"package of yours, give allow=\[my_package\]"
    ):
        load_run(copied)


def test_resume_needs_allow_again_and_says_the_command(
    run: Path, tmp_path: Path
) -> None:
    copied = Path(shutil.copytree(run, tmp_path / "run"))
    with (copied / ".hydra/overrides.yaml").open("a") as file:
        file.write("- model._target_=my_package.PlainNet\n- allow=[my_package]\n")
    words = [f"resume={copied}"]
    with pytest.raises(ConfigError) as caught:
        resumed_arguments(words)
    assert f"python train.py resume={copied} '{ALLOW}'" in str(caught.value)
    resumed = resumed_arguments([*words, ALLOW])
    assert "model._target_=my_package.PlainNet" in resumed
    assert [word for word in resumed if word.startswith("allow")] == [ALLOW]


@pytest.mark.parametrize("word", ["+allow=[os]", "++allow=[os]", "~allow", "allow=x"])
def test_no_folder_allows_anything(word: str) -> None:
    with pytest.raises(ConfigError, match="is not taken from a folder"):
        taken_words([word], SOURCE, ["resume=run"])
    assert taken_words([word], SOURCE, ["resume=run", ALLOW]) == []


@pytest.mark.parametrize(
    "word", ["allow.0=os", "+allow@x=[os]", "model._target_=my_package2.Net"]
)
def test_no_folder_adds_to_what_the_keyboard_allows(word: str) -> None:
    with pytest.raises(CheckpointError, match="is not taken from a folder"):
        taken_words([word], SOURCE, ["resume=run", ALLOW])


def test_packages_are_names_of_what_is_installed() -> None:
    check_packages(["my_package", "torch.nn"])
    for packages, complaint in (
        ("my_package", r"allow=my_package: expected a list, as allow=\[my_package\]"),
        (["my-package"], r"allow=my-package: expected names"),
        ([3], r"allow=3: expected names"),
        (["my_pakage"], r"allow=\[my_pakage\]: no such package .* PYTHONPATH"),
    ):
        with pytest.raises(ConfigError, match=complaint):
            check_packages(packages)


def test_a_module_that_does_not_import_says_why(package: Path) -> None:
    (package / "my_package/broken.py").write_text("import no_such_module\n")
    allowed = (*TRAINING, "my_package")
    with pytest.raises(ConfigError, match=r"no such class .*named 'no_such_module'"):
        locate("my_package.broken.Net", "model._target_", allowed)
    with pytest.raises(ConfigError, match=r"no such class$"):
        locate("my_package.PlainNett", "model._target_", allowed)
    with pytest.raises(ConfigError, match="only classes of"):
        locate("my_package.task.focal_loss", "model._target_", allowed)  # a function
    with pytest.raises(ConfigError, match="only classes of"):
        locate("my_package.data.Dataset", "model._target_", allowed)  # torch's


def test_arguments_that_jobs_and_resumed_runs_get_again() -> None:
    source = {"provider": "command-line", "path": "/a/conf"}
    hydra = OmegaConf.create({"runtime": {"config_sources": [source]}})
    words = at_keyboard(OmegaConf.create({"allow": ["a", "b"]}), hydra)
    assert words == ["--config-dir=/a/conf", "allow=[a,b]"]
    assert again(["seed=1", *words, "model.allow=2"]) == words
    assert at_keyboard(OmegaConf.create({"allow": []}), hydra) == words[:1]


def test_options_come_before_overrides_as_the_parser_of_hydra_needs_it() -> None:
    given = ["a=1", "-cd", "conf", "b=2", "--config-name=x", "c=3", "-m"]
    expected = ["-cd", "conf", "--config-name=x", "-m", "a=1", "b=2", "c=3"]
    assert options_first(given) == expected


class Decay(System):
    """Y' = t / 2 - Y / 2 as f - L Y, f = (t + Y) / 2 and L = I."""

    def f(self, t: float, y: torch.Tensor) -> torch.Tensor:
        return (t + y) / 2

    def L(self, t: float) -> IdentityDiffusion:
        return IdentityDiffusion(1, 1.0)

    def during(self, t0: float, t1: float) -> "Decay":
        return self


def test_the_integrator_of_the_example_has_its_order() -> None:
    """Y = t - 2 + 3 exp(-t / 2)."""
    from my_package import SplitEuler

    y0 = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    exact = 3 * torch.tensor(-0.5, dtype=torch.float64).exp() - 1
    errors = [
        float((integrate(SplitEuler(), Decay(), grid, y0) - exact).abs())
        for grid in (TimeGrid.uniform(1 / n, n) for n in (40, 80))
    ]
    assert errors[0] / errors[1] == pytest.approx(2, abs=0.1)


def test_the_operator_of_the_example_is_a_power_of_the_laplacian() -> None:
    from my_package import FractionalDiffusion

    y = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    half, whole = FractionalDiffusion(3, 2.0), LaplacianDiffusion(3, 4.0)
    error = relative_error(half(half(y)), whole(y))
    assert error < rounding(torch.float32, 9 + 2)  # taps of float32, two powers


def test_the_page_names_the_whole_contract() -> None:
    page = (ROOT / "docs/your_own.md").read_text()
    named = {*Facts.__annotations__, *DataModule.__annotations__}
    named |= DataModule.__abstractmethods__
    assert {name for name in named if f"`{name}" not in page} == set()


@pytest.mark.slow
def test_the_installed_package_trains_resumes_and_sweeps(
    python: Command, package: Path, tmp_path: Path
) -> None:
    """As its README says: installed, named on the command line, in the jobs of a sweep."""
    site = tmp_path / "site"
    install = ["-m", "pip", "install", "--no-deps", "--no-build-isolation", "--quiet"]
    done = python(*install, f"--target={site}", str(package), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    env = {"PYTHONPATH": f"{ROOT}:{site}"}
    words = ["data=qtips", "data.lengths=[8,12]", "data.widths=[2,4]", *TINY]
    words += ["model=resnet", "model.integrator._target_=my_package.SplitEuler"]
    run = tmp_path / "run"
    done = python(TRAIN, *words, f"hydra.run.dir={run}", cwd=tmp_path, **env)
    assert done.returncode == 2
    assert "if my_package is a package of yours, give allow=[my_package]" in done.stderr
    done = python(TRAIN, *words, f"hydra.run.dir={run}", ALLOW, cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr

    more = ["trainer.max_epochs=2", "resume_changed=true"]
    done = python(TRAIN, f"resume={run}", *more, cwd=tmp_path, **env)
    assert done.returncode == 2
    assert f"resume={run} trainer.max_epochs=2" in done.stderr
    done = python(TRAIN, f"resume={run}", *more, ALLOW, cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    for script, extra in (
        ("evaluate", []),
        ("export", ["format=torch", f"out={tmp_path}/net.pt2"]),
    ):
        path = str(ROOT / f"scripts/{script}.py")
        done = python(path, f"run={run}", *extra, cwd=tmp_path, **env)
        assert done.returncode == 2, done.stderr
        done = python(path, f"run={run}", *extra, ALLOW, cwd=tmp_path, **env)
        assert done.returncode == 0, done.stderr

    conf = f"--config-dir={package}/conf"
    sweep = ["-m", "experiment=blobs", "model=plain_net,split_net", *TINY]
    folder = tmp_path / "sweep"
    done = python(TRAIN, conf, *sweep, f"hydra.sweep.dir={folder}", cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr
    runs = runs_table(folder, allow=["my_package"])
    assert [*runs["state"]] == ["finished"] * 2
    assert runs["alpha"].isna().tolist() == [True, False]
