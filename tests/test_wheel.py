"""The wheel alone, in an empty folder: it has all it needs, and the command is `imex`."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from imex_experiments.data.image_folder import write_image_folder
from imex_experiments.data.qtips import QtipsRecipe, make_qtips

TINY = ["trainer.max_epochs=1", "data.train=8", "data.val=4", "data.test=4"]
TINY += ["data.batch_size=4", "model.widths=[2,4]"]
ROOMS = ["trainer.max_epochs=1", "data.image_size=[24,32]", "model.widths=[4,8]"]


def files_below(folder: Path) -> set[Path]:
    return {
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_wheel_has_every_file_of_the_package_and_of_conf(tmp_path: Path) -> None:
    subprocess.run(
        [
            *(
                sys.executable,
                "setup.py",
                "-q",
                "egg_info",
                "--egg-base",
                str(tmp_path),
            ),
            *("build_py", "--build-lib", str(tmp_path / "lib")),
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    package = files_below(ROOT / "imex_experiments")
    conf = {"conf" / path for path in files_below(ROOT / "conf")}
    assert files_below(tmp_path / "lib/imex_experiments") == package | conf
    assert [path.name for path in (tmp_path / "lib").iterdir()] == ["imex_experiments"]


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
def installed(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]
) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "-q"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*build, str(ROOT)], check=True)
    (wheel,) = folder.glob("*.whl")
    place = ["--target", str(folder / "site")]
    subprocess.run([*pip, "install", "--no-deps", *place, str(wheel)], check=True)
    (empty := folder / "empty").mkdir()
    return Installed(folder / "site", empty, environment)


@pytest.mark.slow
def test_wheel_trains_resumes_sweeps_evaluates_and_predicts(
    installed: Installed,
) -> None:
    code = "import imex_experiments; print(imex_experiments.__file__)"
    where = installed.run("-c", code).stdout
    assert where.startswith(str(installed.site))
    assert "  evaluate  " in installed.imex("--help")
    assert "train is powered by Hydra" in installed.imex("train", "--help")

    said = installed.imex("train", *TINY)
    (run,) = (installed.cwd / "outputs/qtips/imexnet").iterdir()
    name = str(run.relative_to(installed.cwd))
    for command in ("imex evaluate run=", "imex predict run=", "imex train resume="):
        assert f"{command}{name}" in said
    assert "python" not in said

    more = ["trainer.max_epochs=2", "resume_changed=true"]
    assert "epoch 2/2" in installed.imex("train", f"resume={name}", *more)
    assert "kept checkpoint" not in installed.imex("evaluate", f"run={name}")
    images = installed.cwd / "images"
    write_image_folder(images, **make_qtips(2, QtipsRecipe(), seed=0))
    out = installed.cwd / "predicted"
    installed.imex("predict", f"run={name}", f"images={images}/images", f"out={out}")
    assert len(list((out / "labels").glob("*.png"))) == 2

    installed.imex("train", "-m", "seed=0,1", *TINY)
    (sweep,) = (installed.cwd / "outputs/sweeps").iterdir()
    assert "imex train -m" in (sweep / "summary.md").read_text()
    installed.imex("train", "data=nyu_sample", "model=resnet_depth", *ROOMS)
    made = {path.name for path in installed.cwd.iterdir()}
    assert made == {"outputs", "images", "predicted"}
