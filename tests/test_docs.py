"""README and docs/: every snippet and every command is run.

`docs` marks what takes long; it is run by `make docs-check`.
"""

import json
import re
import shlex
import shutil
from dataclasses import fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import QUICK, ROOT, Command
from dashboard import CHROMIUM
from folder_sets import write_stand_in
from sweep_folders import make_sweep

from imex_experiments.data.folder.published import write_image_folder
from imex_experiments.data.nyu.sample import make_nyu_sample, nyu_sample_path
from imex_experiments.data.qtips import QtipsRecipe, make_qtips
from imex_experiments.integrators import TimeGrid, integrate

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
TINY = [*QUICK, "trainer.max_epochs=1", "data.train=8", "data.val=4", "data.test=4"]
TINY += ["data.batch_size=4"]

TINY_DEPTH = ["trainer.max_epochs=1", "data.image_size=[24,32]", "model.widths=[4,8]"]

TINY_FOLDER = ["trainer.max_epochs=1", "data.batch_size=2", "model.widths=[2,4]"]
TINY_FOLDER += ["data.resize=[24,32]", "data.crop=16"]

TINY_BENCHMARK = ["shapes=[[1,2,32,32]]", "sides=[32,48]", "rounds=3", "seconds=0"]
TINY_BENCHMARK += ["epochs=0", "between=[16]"]
TINY_SCALING = ["sides=[32,64]", "channels=[8,32]", "batches=[2,4]", "rounds=3"]
TINY_SCALING += ["seconds=0", "far_sides=[64,128]", "far_channels=[16,64]"]
TINY_TOY = ["trainer.max_epochs=1", "trainer.check_val_every_n_epoch=1"]

SET_UP = ("python3 -m venv", "pip install")
"""Lines that make the environment in which this very test runs: `make setup` runs them."""


OWN_PACKAGE = {"PYTHONPATH": f"{ROOT}:{ROOT / 'docs/example_package'}"}
"""In place of the installation of the example package."""

OWN_SCHEMES = {"ralston": "README.md", "heun": "docs/integrators.md"}
"""Integrators that a page adds to the package: run where they have been added."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(
        rf"^```{language}\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL
    )


def commands() -> list[str]:
    found = []
    for page in PAGES:
        for block in blocks(page, "bash"):
            found += [
                line
                for line in block.replace("\\\n", " ").splitlines()
                if line.strip() and not line.startswith("#")
            ]
    return [
        line
        for line in found
        if not line.startswith(SET_UP) and not any(own in line for own in OWN_SCHEMES)
    ]


def overrides() -> list[str]:
    """The code spans in README's table of overrides, as words for train.py."""
    rows = re.findall(
        r"^\|[^|]*\|(.*)\|$", (ROOT / "README.md").read_text(), re.MULTILINE
    )
    spans = [span for row in rows for span in re.findall(r"`([^`]+)`", row)]
    return [span for span in spans if "=" in span]


def snippet(first_words: str, page: str = "README.md", language: str = "python") -> str:
    (found,) = [
        block
        for block in blocks(ROOT / page, language)
        if block.startswith(first_words)
    ]
    return found


def test_there_is_something_to_check() -> None:
    assert len(commands()) >= 12
    assert len(overrides()) >= 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images where the documentation says <folder>."""
    root = tmp_path_factory.mktemp("folder")
    for split in ("train", "val", "test"):
        write_image_folder(root / split, **make_qtips(8, QtipsRecipe(), 0))
    return root


@pytest.fixture(scope="module")
def depth_run(python: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run where the documentation says <depth run>."""
    cwd = tmp_path_factory.mktemp("depth")
    words = ["model=resnet_depth", "data=nyu_sample", *TINY_DEPTH]
    done = python(str(ROOT / "train.py"), *words, cwd=cwd)
    assert done.returncode == 0, done.stderr
    (run,) = (cwd / "outputs/nyu_sample/resnet_depth").iterdir()
    return run


@pytest.fixture(scope="module")
def own_run(python: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run where the documentation says <own run>."""
    cwd = tmp_path_factory.mktemp("own")
    conf = f"--config-dir={ROOT}/docs/example_package/conf"
    words = [str(ROOT / "train.py"), conf, "experiment=blobs", *TINY]
    done = python(*words, cwd=cwd, **OWN_PACKAGE)
    assert done.returncode == 0, done.stderr
    (run,) = (cwd / "outputs/blobs/split_net").iterdir()
    return run


@pytest.fixture(scope="module")
def sweep(python: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep where the documentation says <sweep>."""
    cwd = tmp_path_factory.mktemp("sweep")
    done = python(str(ROOT / "train.py"), "-m", "seed=0,1", *TINY, cwd=cwd)
    assert done.returncode == 0, done.stderr
    (folder,) = (cwd / "outputs/sweeps").iterdir()
    return folder


def test_commands_give_arguments_that_their_scripts_have() -> None:
    checked = 0
    for command in commands():
        first, *words = shlex.split(command)
        script = Path(words[0])
        if first != "python" or script.parts[0] != "scripts":
            continue
        moved = script.parts[1] == script.name  # its body is in the package
        package = "imex_experiments.commands." if moved else ""
        arguments = getattr(import_module(package + script.stem), "Arguments", None)
        given = [word.partition("=")[0] for word in words[1:] if "=" in word]
        if arguments is not None and script.stem != "tune":  # which takes overrides too
            assert {*given} <= {field.name for field in fields(arguments)}, command
            checked += 1
    assert checked >= 20


@pytest.mark.docs
@pytest.mark.parametrize("command", commands())
def test_command(
    command: str,
    python: Command,
    trained: Path,
    folder: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    if "<depth run>" in command:
        run = request.getfixturevalue("depth_run")
        command = command.replace("<depth run>", str(run))
    if "<own run>" in command:
        command = command.replace("<own run>", str(request.getfixturevalue("own_run")))
    command = command.replace("docs/example", f"{ROOT}/docs/example")
    if "<nyu_depth_v2_labeled.mat>" in command:
        path = nyu_sample_path(tmp_path, 24, 0)
        make_nyu_sample(path, 24, 0)
        command = command.replace("<nyu_depth_v2_labeled.mat>", str(path))
    if own := re.search(r"<(em_membranes|camvid|nyu_kitchens)>", command):
        root = write_stand_in(tmp_path / own[1], own[1])
        command = command.replace(own[0], str(root))
    if "<sweep>" in command:
        command = command.replace("<sweep>", str(request.getfixturevalue("sweep")))
    command = command.replace("<run>", str(trained)).replace("<partition>", "gpu")
    command = command.replace("images=<folder>", f"images={folder}/test/images")
    command = command.replace("out=<folder>", f"out={tmp_path}/out")
    command = command.replace("<file>", f"{tmp_path}/file")
    command = command.replace("<project>", "imex")
    command = command.replace("<this repository>", str(ROOT))
    first, *words = shlex.split(command)
    if first == "make":
        assert (ROOT / "Makefile").read_text().count(f"\n{words[0]}:") == 1
        return
    if first == "git":
        assert words[0] == "clone"
        assert words[-2:] == ["cd", "imex-experiments"]
        return
    if first == "imex":
        name, *words = words
        if name == "--help":
            return
        first, words = "python", [f"scripts/{name}.py", *words]
        words[0] = words[0].replace("scripts/train.py", "train.py")
    assert first == "python", command
    for package in ("wandb", "mlflow"):
        if package in command and find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install -e '.[loggers]'")
    if words[0] == "train.py":
        resumed = any("resume=" in word for word in words)
        small = TINY_DEPTH if "nyu" in command else TINY
        small = TINY_FOLDER if "data=folder" in command else small
        small = TINY_TOY if "experiment=implicit" in command else small
        words += [] if resumed or "--cfg" in words else small
        if "resume_changed" in command:
            run = shutil.copytree(trained, tmp_path / "changed")
            words = [word.replace(str(trained), str(run)) for word in words]
            words.append("trainer.max_epochs=3")
        if "init.address=" in command or "slurm" in command:
            # No cluster here: only what it would be asked for.
            words = [word for word in words if word not in ("-m", "seed=0,1,2")]
            words += ["--cfg", "hydra"]
        if "trainer=ddp" in command and not torch.cuda.is_available():
            words += ["trainer.accelerator=cpu", "trainer.devices=2"]
    if words[0] == "scripts/tune.py":
        words = [w for w in words if not w.startswith("trials=")] + ["trials=1", *TINY]
    if words[0] == "scripts/reproduce.py" and "run=false" not in words:
        small = {"nyu": TINY_DEPTH, "table1": [*TINY, "model.widths=[2,4]"]}
        words += [*small.get(words[1], TINY), "check=true"]
    if words[0] == "scripts/maintenance/torture.py" and "--at" in words:
        words += ["--sample", "1"]
    elif words[0] == "scripts/maintenance/torture.py":
        words = [
            words[0],
            "--kills",
            "1",
            "--inside",
            "1",
            "--fuzzed",
            "9",
            "--rounds",
            "1",
        ]
    if words[0] == "scripts/benchmarks/cost_of_safety.py":
        words += ["pairs=2", "train=32"]
    if words[0] == "scripts/benchmarks/job_overhead.py":
        words = [words[0], "jobs=2"]
    if words[0] == "scripts/benchmarks/solve.py":
        words += TINY_BENCHMARK
        if "device=cuda" in words and not torch.cuda.is_available():
            words.append("device=cpu")
    if words[0] == "scripts/benchmarks/scaling.py":
        words += TINY_SCALING
    if words[0] == "scripts/robustness.py":
        words += ["images=2", "steps=2", "restarts=1", "linf=[1]", "l2=[1]"]
    if words[0] == "scripts/field_of_view.py":
        words += ["seeds=1", "images=2"]
    if words[0] == "scripts/side_by_side.py":
        words = [*(w for w in words if not w.startswith("images=")), "images=[0,1]"]
    if "screenshot" in words[0] and not any(map(shutil.which, CHROMIUM)):
        pytest.skip("no Chromium: apt-get install chromium")
    env = {**OWN_PACKAGE, "WANDB_MODE": "offline"}
    done = python(str(ROOT / words[0]), *words[1:], cwd=tmp_path, **env)
    assert done.returncode == 0, done.stderr


@pytest.mark.docs
@pytest.mark.parametrize("words", overrides())
def test_override(
    words: str,
    python: Command,
    folder: Path,
    tmp_path: Path,
    trained: Path,
    request: pytest.FixtureRequest,
) -> None:
    if "gpu" in words and not torch.cuda.is_available():
        pytest.skip("trainer=gpu needs a CUDA device")
    if "/a (new), folder=1" in words:
        shutil.copytree(folder, tmp_path / "a (new), folder=1")
        words = words.replace("/a (new), folder=1", f"{tmp_path}/a (new), folder=1")
    words = words.replace("<run>", str(trained)).replace("<folder>", str(folder))
    done = python(
        str(ROOT / "train.py"),
        *TINY,
        *shlex.split(words),
        "trainer.max_epochs=1",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", OWN_SCHEMES)
def test_integrator_of_a_page_trains_and_has_its_order(
    name: str, python: Command, tmp_path: Path
) -> None:
    """The snippet as it stands: order 2 on Y' = (t + Y) / 2, then the command below it."""
    page = OWN_SCHEMES[name]
    code = snippet(f"# imex_experiments/integrators/{name}.py", page)
    names: dict[str, type] = {}
    exec(code, names)
    growth = SimpleNamespace(f=lambda t, y: (t + y) / 2)  # Y = 3 exp(t/2) - t - 2
    growth.during = lambda t0, t1: growth
    exact = 3 * torch.tensor(0.5, dtype=torch.float64).exp() - 3
    scheme = names[name.capitalize()]()
    errors = [
        abs(
            integrate(scheme, growth, TimeGrid.uniform(1 / n, n), exact * 0 + 1) - exact
        )
        for n in (20, 40)
    ]
    assert float(torch.log2(errors[0] / errors[1])) == pytest.approx(2, abs=0.05)

    for folder in ("imex_experiments", "hydra_plugins", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "train.py", tmp_path)
    (tmp_path / f"imex_experiments/integrators/{name}.py").write_text(code)
    for block in blocks(ROOT / page, "yaml"):
        path, _, content = block.removeprefix("# ").partition("\n")
        (tmp_path / path).write_text(content)
    (command,) = re.findall(
        rf"^python (train\.py .*{name}.*)$", (ROOT / page).read_text(), re.M
    )
    done = python(*shlex.split(command), *TINY, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert done.returncode == 0, done.stderr


def test_refining_snippet_runs(python: Command, tmp_path: Path) -> None:
    words = ["model=rk4", "model.interpolation=linear", *TINY]
    done = python(str(ROOT / "train.py"), *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs/qtips/rk4").iterdir()
    code = snippet("from imex_experiments import load_run", "docs/integrators.md")
    names: dict[str, torch.nn.Module] = {}
    exec(code.replace("<run>", str(run)), names)
    network, finer, richer = (names[n] for n in ("network", "finer", "richer"))
    assert (
        len(finer.blocks[0].grid.points) == 2 * len(network.blocks[0].grid.points) - 1
    )
    images = torch.randn(2, 1, 24, 24)
    torch.testing.assert_close(richer(images), network(images))


def test_drop_in_layer_of_the_readme_runs() -> None:
    names: dict[str, torch.Tensor] = {}
    exec(
        snippet("import torch\nfrom imex_experiments import ImplicitConv2d"),
        names,
    )
    assert names["features"].shape == (8, 64, 56, 56)


def test_loading_snippet_of_the_readme_runs(trained: Path) -> None:
    code = snippet("from imex_experiments import load_run")
    images = make_qtips(3, QtipsRecipe(), 0)["images"]
    names: dict[str, object] = {"images": images}
    exec(code.replace("<run>", str(trained)), names)
    assert names["labels"].shape == (3, 64, 64)


@pytest.mark.docs
def test_training_snippet_of_the_readme_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(snippet("from imex_experiments import train"), names)
    assert len(names["run"].history) == 2


@pytest.mark.docs
def test_quickstart_notebook_runs(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every cell as it stands, in one process, and what the text says of its results."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IMEX_CACHE", str(cache))
    notebook = json.loads((ROOT / "docs/quickstart.ipynb").read_text())
    cells = [
        "".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"
    ]
    names: dict[str, Any] = {}
    for cell in cells:
        exec(cell, names)
    implicit, explicit = (names[n].metrics["test/miou"] for n in ("imexnet", "resnet"))
    assert implicit > explicit + 0.1
    assert names["seen"] == 33 * 33


def test_stored_outputs_of_the_notebook_are_small_and_without_errors() -> None:
    path = ROOT / "docs/quickstart.ipynb"
    assert path.stat().st_size < 200_000
    kinds = {
        output["output_type"]
        for cell in json.loads(path.read_text())["cells"]
        for output in cell.get("outputs", ())
    }
    assert kinds == {"stream", "display_data", "execute_result"}


def test_trained_network_snippet_runs() -> None:
    code = snippet("from imex_experiments import load_pretrained", "docs/backbones.md")
    images = make_qtips(3, QtipsRecipe(), 0)["images"]
    names: dict[str, object] = {"images": images}
    exec(code, names)
    assert names["labels"].shape == (3, 64, 64)


def test_table_snippet_of_the_readme_runs(tmp_path: Path) -> None:
    """A setting per row, its seeds counted; a failed run is left out."""
    jobs: list[dict[str, Any]] = [{"seed": 0, "score": 0.2}, {"seed": 1, "score": 0.4}]
    jobs += [{"model": "resnet", "seed": 0, "score": 0.1}]
    jobs += [{"model": "resnet", "seed": 1, "state": "failed"}]
    code = snippet("from imex_experiments import runs_table")
    names: dict[str, Any] = {}
    exec(code.replace("<sweep>", str(make_sweep(tmp_path, jobs, []))), names)
    assert names["scores"]["count"].to_dict() == {
        ("imexnet", 1.0, 1.0): 2,
        ("resnet", 0.0, 1.0): 1,
    }
    assert names["scores"]["mean"].tolist() == pytest.approx([0.3, 0.1])


def test_pictures_and_links_of_the_pages_exist() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_imexify_snippet_runs() -> None:
    names: dict[str, Any] = {}
    page = "docs/analysis.md"
    exec(snippet("import torch\nfrom torch import nn", page), names)
    images = torch.randn(2, 3, 16, 16)
    assert names["coupled"](images).shape == (2, 16, 16, 16)
    assert not torch.allclose(names["coupled"](images), names["network"](images))
    unknown = names["coupled"].load_state_dict(
        names["network"].state_dict(), strict=False
    )
    assert unknown.unexpected_keys == []
    assert [key.rpartition(".")[2] for key in unknown.missing_keys] == ["B"]
