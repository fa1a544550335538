"""The user-facing commands of scripts/, run as child processes."""

import ast
import csv
import json
import math
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import QUICK, ROOT, Command, rounding
from omegaconf import OmegaConf
from PIL import Image
from sweep_folders import make_sweep

from imex_experiments import load_run
from imex_experiments.data.folder.published import read_image_folder, write_image_folder
from imex_experiments.data.qtips import QtipsRecipe, make_qtips, split_seed
from imex_experiments.runs.load import load_data


def script(name: str) -> str:
    return str(ROOT / "scripts" / f"{name}.py")


@pytest.fixture(scope="module")
def folder(forked: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "qtips"
    sizes = ["train=6", "val=3", "test=3"]
    done = forked(script("make_qtips"), f"out={out}", *sizes)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def unet(forked: Command, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a quick run of the U-Net."""
    cwd = tmp_path_factory.mktemp("unet")
    done = forked(str(ROOT / "train.py"), "model=unet", *QUICK, cwd=cwd)
    assert done.returncode == 0, done.stderr
    (run,) = (cwd / "outputs/qtips/unet").iterdir()
    return run


def test_make_qtips_writes_the_images_of_the_generator(folder: Path) -> None:
    for split, number in (("train", 6), ("val", 3), ("test", 3)):
        found = read_image_folder(folder / split, 4)
        expected = make_qtips(number, QtipsRecipe(), split_seed(0, split))
        assert (found["images"] == expected["images"]).all()
        assert (found["labels"] == expected["labels"]).all()


def test_evaluate_repeats_the_recorded_numbers(
    forked: Command, trained: Path, tmp_path: Path
) -> None:
    before = {p: p.stat().st_mtime_ns for p in trained.rglob("*")}
    done = forked(script("evaluate"), f"run={trained}", f"out={tmp_path / 'e.json'}")
    assert done.returncode == 0, done.stderr
    recorded = json.loads((trained / "metrics.json").read_text())
    evaluated = json.loads((tmp_path / "e.json").read_text())
    assert evaluated
    assert all(recorded[name] == value for name, value in evaluated.items())
    assert re.search(r"miou\s+│\s+0\.\d{4} │ 0\.\d{4}", done.stdout)
    assert {p: p.stat().st_mtime_ns for p in trained.rglob("*")} == before


def test_predict_writes_labels_and_overlays(
    forked: Command, trained: Path, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out put"
    words = [f"run={trained}", f"images={folder / 'test/images'}", f"out={out}"]
    done = forked(script("predict"), *words)
    assert done.returncode == 0, done.stderr
    assert len(list((out / "labels").iterdir())) == 3
    with Image.open(out / "labels/000000.png") as labels:
        assert labels.mode == "L"
        assert np.array(labels).max() < 4
    with Image.open(out / "overlays/000002.png") as overlay:
        assert overlay.mode == "RGB"
        assert overlay.size == (64, 64)
    again = forked(script("predict"), *words)
    assert again.returncode == 3
    assert "not an empty folder" in again.stderr


COMMANDS = sorted(
    path.stem
    for path in (ROOT / "scripts").glob("*.py")
    if "__main__" in path.read_text()
)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_the_usage(name: str, forked: Command, tmp_path: Path) -> None:
    done = forked(script(name), "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    body = ROOT / f"imex_experiments/commands/{name}.py"
    module = ast.parse(body.read_text())
    first, *_ = (ast.get_docstring(module) or "").splitlines()
    assert first in done.stdout
    assert re.search(r"^  (-{2})?\w+[= ]", done.stdout, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words", "code", "complaint"),
    [
        ("evaluate", [], 2, "run: missing; usage: run=... checkpoint=... out=..."),
        ("evaluate", ["rnu=x"], 2, "rnu: unknown key, did you mean 'run'?"),
        ("evaluate", ["outputs/x"], 2, "expected key=value; usage"),
        ("evaluate", ["run=/no/where"], 4, "/no/where: not a run folder"),
        ("predict", ["run=x", "images=/no/where", "out=y"], 3, "no such folder"),
        ("predict", ["run=x", "images=.", "out=y", "tile=2"], 2, "at least 8"),
        ("compare", [], 2, "runs: missing; usage: runs=... out=... metric=..."),
        ("compare", ["."], 4, ".: an empty folder; give a run's or a sweep's"),
        ("make_qtips", ["out=o", "train=many"], 2, "train: "),
        ("export", ["run=x", "format=tf", "out=y"], 2, "expected onnx or torch"),
        ("export", ["run=x", "format=torch", "out=y.onnx"], 2, "ends in .pt2"),
        ("benchmarks/solve", ["out=b.json", "device=tpu"], 2, "expected cpu or cuda"),
        (
            "benchmarks/solve",
            ["out=b.json", "dtype=half"],
            2,
            "expected float32 or bfloat16",
        ),
        (
            "benchmarks/solve",
            ["out=b.json", "without=[solv]"],
            2,
            "did you mean 'solve'?",
        ),
        ("make_qtips", ["out=o", "lengths=[9,5]"], 2, "lengths must be"),
        ("linear_stability", ["out=o", "h=0"], 2, "h and turns must be > 0"),
        ("linear_stability", ["out=o", "alpha=-1"], 2, "alpha must be >= 0"),
        (
            "robustness",
            ["out=o", "run=[x]", "linf=[-1]"],
            2,
            "linf and l2 must be >= 0",
        ),
        ("robustness", ["out=o", "run=[x]", "steps=0"], 2, "steps must be >= 1"),
        ("robustness", ["out=o", "run=[]"], 2, "run: give one or more"),
        ("robustness", ["out=o", "run=[/no/where]"], 4, "not a run folder"),
        ("stability", ["out=o", "alphas=[-1]"], 2, "alphas must be >= 0"),
        ("stability", ["out=o", "h=0"], 2, "h must be > 0"),
        ("stability", ["out=o", "run=/no/where"], 4, "not a run folder"),
        ("field_of_view", ["out=o", "seeds=0"], 2, "seeds and images must be >= 1"),
        ("field_of_view", ["out=o", "alpha=-1"], 2, "alpha must be >= 0"),
        ("field_of_view", ["out=o", "run=[/no/where]"], 4, "not a run folder"),
    ],
)
def test_mistakes_are_one_line_and_an_exit_code(
    name: str,
    words: list[str],
    code: int,
    complaint: str,
    forked: Command,
    tmp_path: Path,
) -> None:
    done = forked(script(name), *words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: ")
    assert complaint in line
    assert list(tmp_path.iterdir()) == []


def test_predict_writes_depths_in_millimetres(forked: Command, tmp_path: Path) -> None:
    """A depth run of a few steps; its PNGs hold what `predict` gives."""
    tiny = ["data.frames=6", "data.counts=[2,2,2]", "data.image_size=[24,32]"]
    tiny += ["data.batch_size=2", "model.widths=[4,8]", "trainer.max_epochs=1"]
    words = ["model=imexnet_depth", "data=nyu_sample", *tiny]
    done = forked(str(ROOT / "train.py"), *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs/nyu_sample/imexnet_depth").iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    for name in ("misfit", "rmse", "abs_rel", "delta1", "silog", "empty"):
        assert metrics[f"test/{name}"] >= 0
    assert (run / "figures/depth.png").exists()

    images = tmp_path / "images"
    images.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(images / "room.png")
    out = tmp_path / "out"
    done = forked(script("predict"), f"run={run}", f"images={images}", f"out={out}")
    assert done.returncode == 0, done.stderr
    depth = load_run(run).predict(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    with Image.open(out / "depths/room.png") as image:
        written = np.array(image).astype(float) / 1000
    np.testing.assert_allclose(written, depth[0, 0].numpy(), atol=6e-4)
    assert (out / "colours/room.png").exists()
    Image.fromarray(pixels[..., 0]).save(images / "grey.png")
    done = forked(
        script("predict"), f"run={run}", f"images={images}", f"out={tmp_path / 'o'}"
    )
    assert done.returncode == 0, done.stderr
    assert "grey.png: expected a colour image, got a grey one" in done.stderr
    assert [p.name for p in (tmp_path / "o/depths").iterdir()] == ["room.png"]


def test_foreign_files_are_named_and_left_out(
    forked: Command, trained: Path, tmp_path: Path
) -> None:
    """Of another kind, damaged, too small; alone they are an error, and nothing is written."""
    images, out = tmp_path / "images", tmp_path / "out"
    images.mkdir()
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(images / "b.png")
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(images / "c.png")
    (images / "d.png").write_text("no image")
    (images / "notes.txt").write_text("foreign")
    words = [f"run={trained}", f"images={images}", f"out={out}"]
    done = forked(script("predict"), *words)
    assert done.returncode == 3
    (line,) = done.stderr.splitlines()
    assert "nothing to predict for" in line
    assert "b.png: expected a grey image" in line
    assert not out.exists()

    Image.fromarray(np.zeros((64, 64), np.uint8)).save(images / "a.png")
    Image.fromarray(np.zeros((40, 48), np.uint8)).save(images / "e.png")
    done = forked(script("predict"), *words)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in out.rglob("*.png")) == [
        "a.png",
        "a.png",
        *["e.png"] * 2,
    ]
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    for line, name, reason in zip(
        lines,
        ("b.png", "c.png", "d.png", "notes.txt"),
        ("expected a grey image", "smaller than the kernel", "not a", "not of jpg"),
        strict=True,
    ):
        assert line.startswith(f"warning: skipped {images / name}: ")
        assert reason in line


def test_side_by_side_and_convergence_draw_runs(
    forked: Command, trained: Path, tmp_path: Path
) -> None:
    runs = f"runs=[{trained},{trained}]"
    sheet, curves = tmp_path / "sheet.png", tmp_path / "curves.png"
    done = forked(
        script("side_by_side"), f"runs=[{trained}]", f"out={sheet}", "images=[3,0]"
    )
    assert done.returncode == 0, done.stderr
    with Image.open(sheet) as image:
        assert image.size[0] == 6 + 3 * (128 + 6)
    words = [runs, f"out={curves}", "metrics=[train/loss,val/miou]"]
    done = forked(script("plot_convergence"), *words)
    assert done.returncode == 0, done.stderr
    with Image.open(curves) as image:
        assert image.size[0] > 1000
    lines = curves.with_suffix(".csv").read_text().splitlines()
    assert lines[0] == "run,model,epoch,train/loss,val/miou"
    assert len(lines) == 1 + 2 * 2


def test_compare_answers_for_real_runs(
    forked: Command, trained: Path, tmp_path: Path
) -> None:
    """A real run and a copy of it that pretends to be of another alpha and seed."""
    twin = tmp_path / "0_model.alpha=3,seed=1 (twin)"  # a name as Hydra makes them
    shutil.copytree(trained, twin)
    status = json.loads((twin / "status.json").read_text())
    (twin / "status.json").write_text(json.dumps(status | {"alpha": 3.0}))
    done = forked(script("compare"), str(trained), twin.name, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Best setting of each model" in done.stdout
    metrics = json.loads((trained / "metrics.json").read_text())
    with (tmp_path / "comparison/results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["alpha"] for row in rows} == {str(float(status["alpha"])), "3.0"}
    for name in ("val/miou", "test/miou", "parameters"):
        assert [float(row[name]) for row in rows] == [metrics[name]] * 2
    summary = (tmp_path / "comparison/summary.md").read_text()
    assert f"{metrics['test/miou']:.4f}" in summary
    for name in re.findall(r"!\[.*?\]\((.*?)\)", summary):
        with Image.open(tmp_path / "comparison" / name) as image:
            image.verify()
    words = [str(trained), "metric=test/moiu", f"out={tmp_path / 'other'}"]
    done = forked(script("compare"), *words)
    assert done.returncode == 2
    assert "metric=test/moiu: unknown, did you mean 'test/miou'?" in done.stderr
    assert not (tmp_path / "other").exists()


def test_compare_writes_into_the_folder_of_its_sweep(
    python: Command, tmp_path: Path
) -> None:
    """One corrupt metrics.json is a warning; the rest is compared."""
    jobs: list[dict[str, object]] = [{"seed": 0}, {"seed": 1}, {"model": "resnet"}]
    sweep = make_sweep(tmp_path / "sweep", jobs, ["seed=0,1"])
    (sweep / "1_seed=1/metrics.json").write_text("{")
    done = python(script("compare"), str(sweep))
    assert done.returncode == 0, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "skipped" in line
    assert "1_seed=1/metrics.json: not readable" in line
    assert "1 of 3 jobs have no result" in done.stdout
    assert "1_seed=1 | unreadable" in (sweep / "summary.md").read_text()


@pytest.mark.parametrize(
    ("name", "words", "code", "complaint"),
    [
        (
            "side_by_side",
            ["images=[99]"],
            2,
            "images=[99]: the test split has 0 ... 15",
        ),
        ("plot_convergence", ["metrics=[val/mioo]"], 2, "did you mean 'val/miou'?"),
    ],
)
def test_drawing_what_is_not_there_is_refused(
    name: str,
    words: list[str],
    code: int,
    complaint: str,
    forked: Command,
    trained: Path,
    tmp_path: Path,
) -> None:
    done = forked(
        script(name), f"runs=[{trained}]", f"out={tmp_path / 'x.png'}", *words
    )
    assert done.returncode == code
    assert complaint in done.stderr
    assert list(tmp_path.iterdir()) == []


Export = tuple[Path, Callable[[torch.Tensor], torch.Tensor], str]
"""The run, what its file computes, and what the command said."""

FORMATS = [
    f"{run}, {kind}" for run in ("imexnet", "unet") for kind in ("torch", "onnx")
]


@pytest.fixture(scope="module")
def of_a_folder(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run as if trained on a folder of 48 x 48 images, not on the 64 x 64 of the recipe."""
    root, run = (tmp_path_factory.mktemp("small") / name for name in ("images", "run"))
    recipe = QtipsRecipe(image_size=48, lengths=(16, 30))
    for split in ("train", "val"):
        write_image_folder(root / split, **make_qtips(16, recipe, 0))
    shutil.copytree(trained, run)
    config = OmegaConf.load(run / ".hydra/config.yaml")
    OmegaConf.update(config, "data.root", str(root))
    OmegaConf.save(config, run / ".hydra/config.yaml")
    return run


@pytest.fixture(scope="module", params=FORMATS)
def exported(
    request: pytest.FixtureRequest,
    forked: Command,
    of_a_folder: Path,
    unet: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Export:
    name, _, kind = request.param.partition(", ")
    run = {"imexnet": of_a_folder, "unet": unet}[name]
    out = tmp_path_factory.mktemp("out") / {"torch": "n.pt2", "onnx": "n.onnx"}[kind]
    if kind == "onnx":
        for package in ("onnx", "onnxruntime", "onnxscript"):
            pytest.importorskip(package, reason="pip install -e '.[export]'")
    done = forked(script("export"), f"run={run}", f"format={kind}", f"out={out}")
    assert done.returncode == 0, done.stderr
    if kind == "torch":
        return run, torch.export.load(out).module(), done.stdout
    session = pytest.importorskip("onnxruntime").InferenceSession(out)
    return (
        run,
        lambda x: torch.from_numpy(session.run(None, {"images": x.numpy()})[0]),
        done.stdout,
    )


def same_elsewhere(exported: Export, images: torch.Tensor) -> None:
    run, computed, _ = exported
    task, logits = load_run(run), computed(images)
    with torch.no_grad():
        expected = task(images)
    # One sum after the other: over the inputs of each convolution, rows and columns.
    inputs = sum(p[0].numel() for p in task.parameters() if p.ndim == 4)
    allowed = rounding(torch.float32, inputs + 8 * sum(images.shape[-2:]))
    allowed *= float(expected.abs().max())
    assert (logits - expected).abs().max() <= allowed
    first, second = expected.topk(2, 1).values.unbind(1)
    clear = first - second > 2 * allowed  # else rounding chooses
    labels = logits.argmax(1).to(torch.uint8)
    assert torch.equal(labels[clear], task.predict(images)[clear])
    assert clear.float().mean() > 0.5  # of noise a network is less sure


def test_export_gives_the_same_labels_elsewhere(exported: Export) -> None:
    """On images of the size that the run's data have, and not their configuration."""
    same_elsewhere(exported, load_data(exported[0]).samples("val", 5)[0])


def test_export_leaves_height_and_width_free(exported: Export) -> None:
    """A U-Net of four levels continues 73 pixels to 80."""
    _, _, said = exported
    assert "height and width are free" in said
    generator = torch.Generator().manual_seed(0)
    for shape in ((1, 1, 40, 64), (3, 1, 73, 25), (2, 1, 32, 57)):
        images = torch.randint(0, 256, shape, generator=generator)
        same_elsewhere(exported, images.to(torch.uint8))


def test_benchmark_measures_and_draws(forked: Command, tmp_path: Path) -> None:
    out = tmp_path / "cost.json"
    sizes = [
        "shapes=[[2,2,32,32]]",
        "sides=[32,48]",
        "between=[16,17]",
        "rounds=3",
        "seconds=0",
        "epochs=0",
    ]
    done = forked(script("benchmarks/solve"), f"out={out}", "dtype=bfloat16", *sizes)
    assert done.returncode == 0, done.stderr
    results = json.loads(out.read_text())
    (row,) = results["shapes"]
    allowed = rounding(torch.bfloat16, 1)  # of the result; the solve is float32
    assert all(0 < error < allowed for error in row["errors"].values())
    assert row["forward"]["solve"]["share_of_copy"] > 0
    both = row["forward and backward"]
    assert {"ResNet block", "IMEX block", "solve", "Algorithm 1"} <= both.keys()
    assert all(t["median"] > 0 and t["runs"] == 3 for t in both.values())
    assert both["IMEX block"]["peak_bytes"] > both["solve"]["peak_bytes"] > 0
    assert [p["side"] for p in results["growth"]["fft"]] == [32, 48]
    assert results["machine"]["torch"] == torch.__version__
    with Image.open(out.with_suffix(".png")) as image:
        assert image.size == (1650, 600)


def test_linear_stability_agrees_with_the_closed_forms(
    forked: Command, tmp_path: Path
) -> None:
    """Radii and |R| to rounding: 5 stages of 3 terms, each at most 65 (RK4 at |z| = 5)."""
    out, alpha = tmp_path / "out", 0.5
    words = [f"out={out}", f"alpha={alpha}", "points=13", "turns=1"]
    done = forked(script("linear_stability"), *words)
    assert done.returncode == 0, done.stderr
    with (out / "radii.csv").open() as file:
        radii = list(csv.DictReader(file))
    steps = [float(row["h"]) for row in radii]
    atol = rounding(torch.float64, 5 * 3, 65)
    assert steps == [k / 4 for k in range(1, 13)]
    for h, row in zip(steps, radii, strict=True):
        closed = {
            "forward Euler": math.sqrt(1 + h**2),
            "backward Euler": 1 / math.sqrt(1 + h**2),
            "trapezoidal": 1.0,
            "Verlet": 1.0 if h <= 2 else h**2 / 2 - 1 + h * math.sqrt(h**2 / 4 - 1),
            "IMEX, alpha = 0.5": math.sqrt(1 + (h / (1 + alpha * h)) ** 2),
        }
        for name, radius in closed.items():
            assert float(row[name]) == pytest.approx(radius, abs=atol), (name, h)
    with (out / "regions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 13**2
    for row in rows:
        z = complex(float(row["re"]), float(row["im"]))
        closed = {
            "forward Euler": 1 + z,
            "backward Euler": 1 / (1 - z) if z != 1 else None,
            "trapezoidal": (1 + z / 2) / (1 - z / 2) if z != 2 else None,
            "IMEX, alpha = 0.5": 1 + z / (1 + alpha),
            "midpoint": 1 + z + z**2 / 2,
            "RK4": 1 + z + z**2 / 2 + z**3 / 6 + z**4 / 24,
        }
        for name, R in closed.items():
            if R is not None:
                assert float(row[name]) == pytest.approx(abs(R), abs=atol), (name, z)
    with (out / "trajectories.csv").open() as file:
        assert {row["scheme"] for row in csv.DictReader(file)} == set(radii[0]) - {"h"}
    for name in ("trajectories", "radii", "regions"):
        with Image.open(out / f"{name}.png") as image:
            assert image.size[0] > 800


def test_field_of_view_draws_impulses_and_counts_their_energy(
    forked: Command, tmp_path: Path
) -> None:
    """IMEX with 5 steps sees further than the ResNet with 20 (IMEXnet, Fig. 1)."""
    done = forked(script("field_of_view"), f"out={tmp_path}", "seeds=1")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "impulses.csv").open() as file:
        rows = list(csv.DictReader(file))
    last = {row["network"]: float(row["share beyond 10 px"]) for row in rows}
    resnet, _, imex = last.values()
    assert imex > 100 * resnet > 0
    with Image.open(tmp_path / "impulses.gif") as animation:
        assert animation.n_frames == 21
    assert (tmp_path / "impulses.png").exists()
    assert (tmp_path / "share.png").exists()


def test_field_of_view_of_a_run(forked: Command, trained: Path, tmp_path: Path) -> None:
    words = [f"run=[{trained}]", f"out={tmp_path / 'o'}", "images=2"]
    done = forked(script("field_of_view"), *words)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "o/fields.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["part"] for row in rows][-1] == "head"
    assert all(0 < float(row["radius [px]"]) < 46 for row in rows)
    assert (tmp_path / "o/fields.png").exists()
    done = forked(script("field_of_view"), *words, "names=[a,b]")
    assert done.returncode == 2
    assert "names: give one per run, 1, or none; got 2" in done.stderr


def test_stability_draws_the_theorem_and_measures_it(
    forked: Command, tmp_path: Path
) -> None:
    """A change grows beyond the limit of Theorem 1 and nowhere else."""
    done = forked(script("stability"), f"out={tmp_path}", "alphas=[0,2]", "h=0.5")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "regions.csv").open() as file:
        assert [row["radius"] for row in csv.DictReader(file)] == ["2.0", "4.0"]
    with (tmp_path / "atlas.csv").open() as file:
        rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    for row in rows:
        if row["h"] < row["limit of h"]:
            assert row["growth"] <= 1 + 1e-6
    assert all(r["growth"] > 1 for r in rows if r["h"] > 4 * r["limit of h"])
    for name in ("regions", "atlas"):
        assert (tmp_path / f"{name}.png").exists()


def test_stability_of_a_run(
    forked: Command, trained: Path, unet: Path, tmp_path: Path
) -> None:
    done = forked(script("stability"), f"out={tmp_path}", f"run={trained}")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "steps.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["alpha"] for row in rows] == ["100.0"] * 3
    assert all(float(r["norm of step"]) <= float(r["bound of step"]) for r in rows)
    for name in ("regions", "atlas", "growth"):
        assert (tmp_path / f"{name}.png").exists()
        assert (tmp_path / f"{name}.csv").exists()
    done = forked(script("stability"), f"out={tmp_path / 'o'}", f"run={unet}")
    assert done.returncode == 2
    assert "a UNet has no time steps" in done.stderr
    assert not (tmp_path / "o").exists()


def test_robustness_of_two_runs(
    forked: Command, trained: Path, unet: Path, tmp_path: Path
) -> None:
    """Disturbance 0 gives the clean score, PGD is never the weaker, and damage is refused."""
    small = ["images=4", "steps=2", "linf=[0,8]", "l2=[0,1]", "restarts=1"]
    out = tmp_path / "o"
    words = [f"out={out}", f"run=[{trained},{unet}]", *small]
    done = forked(script("robustness"), *words)
    assert done.returncode == 0, done.stderr
    with (out / "noise.csv").open() as file:
        noise = list(csv.DictReader(file))
    for name in ("imexnet", "unet"):
        clean = {
            r["miou"] for r in noise if r["name"] == name and float(r["level"]) == 0
        }
        assert len(clean) == 1
    assert {r["name"] for r in noise if "change of h" in r["disturbance"]} == {
        "imexnet"
    }
    with (out / "checks.csv").open() as file:
        checks = list(csv.DictReader(file))
    assert len(checks) == 2 * 2 * 2 * 3
    assert all(c["holds"] == "True" for c in checks if "random" not in c["beside"])
    for name in ("noise.png", "attacks.png", "attacks.csv"):
        assert (out / name).exists()

    broken = tmp_path / "broken"
    shutil.copytree(trained, broken)
    (broken / "checkpoints/best.ckpt").unlink()
    words = [f"out={tmp_path / 'p'}", f"run=[{broken}]", *small]
    done = forked(script("robustness"), *words)
    assert done.returncode == 4
    assert "best.ckpt: no such checkpoint" in done.stderr
    assert not (tmp_path / "p").exists()


def test_runs_without_an_answer_per_pixel_are_refused(
    forked: Command, trained: Path, tmp_path: Path
) -> None:
    words = ["experiment=implicit_function1d", "model.steps=1", "trainer.max_epochs=1"]
    words += ["trainer.check_val_every_n_epoch=1"]
    done = forked(str(ROOT / "train.py"), *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "outputs/function1d").glob("*/*")
    for name in ("field_of_view", "robustness"):
        done = forked(script(name), f"out={tmp_path / 'o'}", f"run=[{trained},{run}]")
        assert done.returncode == 2
        assert "a run of RegressionTask, not of segmentation or depth" in done.stderr
        assert not (tmp_path / "o").exists()


def test_scaling_measures_predicts_and_extrapolates(
    forked: Command, tmp_path: Path
) -> None:
    """Every measured point has a prediction; convolutions win with the channels."""
    small = ["sides=[32,64]", "channels=[8,32]", "batches=[2,4]", "rounds=3"]
    small += ["seconds=0", "far_sides=[64,128]", "far_channels=[16,512]", "launch=0"]
    done = forked(script("benchmarks/scaling"), f"out={tmp_path}", *small)
    assert done.returncode == 0, done.stderr

    def rows(name: str) -> list[dict[str, str]]:
        with (tmp_path / f"scaling_{name}.csv").open() as file:
            return list(csv.DictReader(file))

    measured = rows("measured")
    points = {tuple(row[k] for k in ("side", "channels", "batch")) for row in measured}
    assert points == {
        *(("32", "32", "4"), ("64", "32", "4")),
        *(("64", "8", "4"), ("64", "32", "2")),
    }
    assert len(measured) == 3 * len(points)
    assert all(0.2 < float(row["ratio"]) < 50 for row in measured)
    few, many = rows("over_channels")
    share = [float(row["FFT"]) / float(row["convolutions"]) for row in (few, many)]
    assert share[1] < share[0] / 10
    for name in ("measured", "extrapolated"):
        with Image.open(tmp_path / f"scaling_{name}.png") as image:
            image.verify()
