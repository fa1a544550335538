"""The wheel alone, in an empty folder: it has all it needs, and the command is `imex`."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from imex_experiments import installed
from imex_experiments.commands import entry, evaluate
from imex_experiments.config.arguments import usage_of
from imex_experiments.data.folder.published import write_image_folder
from imex_experiments.data.qtips import QtipsRecipe, make_qtips
from imex_experiments.runs.layout import resume_command

TINY = ["trainer.max_epochs=1", "data.train=8", "data.val=4", "data.test=4"]
TINY += ["data.batch_size=4", "model.widths=[2,4]"]
PLUGINS = "hydra_plugins"
ROOMS = ["trainer.max_epochs=1", "data.image_size=[24,32]", "model.widths=[4,8]"]


def files_below(folder: Path) -> set[Path]:
    return {
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_has_every_file_of_the_package_and_of_conf(tmp_path: Path) -> None:
    words = f"egg_info --egg-base {tmp_path} build_py --build-lib {tmp_path}/lib"
    command = [sys.executable, "setup.py", "-q", *words.split()]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    package = files_below(ROOT / "imex_experiments")
    conf = {"conf" / path for path in files_below(ROOT / "conf")}
    assert files_below(tmp_path / "lib/imex_experiments") == package | conf
    assert files_below(tmp_path / "lib/hydra_plugins") == files_below(ROOT / PLUGINS)
    assert {path.name for path in (tmp_path / "lib").iterdir()} == {
        "imex_experiments",
        PLUGINS,
    }


def test_printed_commands_are_those_of_the_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = ("train", "evaluate")
    here = [installed.command_line(name) for name in names]
    assert here == ["python train.py", "python scripts/evaluate.py"]
    assert (
        installed.install_line("tune") == "pip install -c constraints.txt -e '.[tune]'"
    )
    assert resume_command(Path("a b")) == """python train.py 'resume='"'"'a b'"'"''"""
    monkeypatch.setattr(installed, "INSTALLED", True)
    assert [*map(installed.command_line, names)] == ["imex train", "imex evaluate"]
    assert installed.install_line("tune") == "pip install 'imex-experiments[tune]'"
    assert resume_command(Path("run")) == "imex train resume=run"
    assert "`imex evaluate run=outputs" in usage_of(evaluate.Arguments)


def test_imex_lists_its_commands_and_refuses_others(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["imex"])
    entry.main()
    lines = capsys.readouterr().out.splitlines()[2:]
    scripts = [path.stem for path in sorted((ROOT / "scripts").glob("*.py"))]
    assert [line.split()[0] for line in lines] == sorted([*scripts, "train"])
    assert all(line.split()[1][0].isupper() for line in lines)
    monkeypatch.setattr(sys, "argv", ["imex", "trian"])
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == 2
    line = "error: trian: no such command, did you mean 'train'?\n"
    assert capsys.readouterr().err == line


class Installed:
    """The wheel in a folder of its own, before all other packages, and an empty place."""

    def __init__(self, site: Path, cwd: Path, environment: dict[str, str]) -> None:
        self.site, self.cwd = site, cwd
        self.environment = environment | {"PYTHONPATH": str(site)}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=self.cwd,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stderr
        return done

    def imex(self, *words: str) -> str:
        """What `imex <words>` prints on stdout."""
        return self.run(str(self.site / "bin/imex"), *words).stdout


@pytest.fixture(scope="module")
def wheel(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*build, str(ROOT)], check=True)
    (built,) = folder.glob("*.whl")
    place = ["--target", str(folder / "site")]
    subprocess.run([*pip, "install", "--no-deps", *place, str(built)], check=True)
    (empty := folder / "empty").mkdir()
    return Installed(folder / "site", empty, environment)


@pytest.mark.slow
def test_wheel_trains_resumes_sweeps_evaluates_and_predicts(
    wheel: Installed,
) -> None:
    code = "import imex_experiments; print(imex_experiments.__file__)"
    where = wheel.run("-c", code).stdout
    assert where.startswith(str(wheel.site))
    assert "  evaluate  " in wheel.imex("--help")
    assert "train is powered by Hydra" in wheel.imex("train", "--help")

    said = wheel.imex("train", *TINY)
    (run,) = (wheel.cwd / "outputs/qtips/imexnet").iterdir()
    name = str(run.relative_to(wheel.cwd))
    for command in ("imex evaluate run=", "imex predict run=", "imex train resume="):
        assert f"{command}{name}" in said
    assert "python" not in said

    more = ["trainer.max_epochs=2", "resume_changed=true"]
    assert "epoch 2/2" in wheel.imex("train", f"resume={name}", *more)
    assert "kept checkpoint" not in wheel.imex("evaluate", f"run={name}")
    images = wheel.cwd / "images"
    write_image_folder(images, **make_qtips(2, QtipsRecipe(), seed=0))
    out = wheel.cwd / "predicted"
    wheel.imex("predict", f"run={name}", f"images={images}/images", f"out={out}")
    assert len(list((out / "labels").glob("*.png"))) == 2

    shipped = ["pretrained=imexnet-qtips", f"images={images}/images", f"out={out}2"]
    wheel.imex("predict", *shipped)
    assert len(list((out.with_name("predicted2") / "labels").glob("*.png"))) == 2

    for launcher in ("basic", "processes"):
        chosen = [f"hydra/launcher={launcher}", f"hydra.sweep.dir=outputs/{launcher}"]
        wheel.imex("train", "-m", "seed=0,1", *chosen, *TINY)
        summary = (wheel.cwd / "outputs" / launcher / "summary.md").read_text()
        assert "imex train -m" in summary
    wheel.imex("train", "data=nyu_sample", "model=resnet_depth", *ROOMS)
    made = {path.name for path in wheel.cwd.iterdir()}
    assert made == {"outputs", "images", "predicted", "predicted2"}
