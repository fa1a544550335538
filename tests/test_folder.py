"""Folders of one's own pictures from the command line, as a user would have them."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, Command
from folder_sets import pixels, save, write_set
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from PIL import Image
from torch import nn

from imex_experiments.commands.predict import predict
from imex_experiments.sweeps.estimate import train_three_steps
from imex_experiments.tasks import SegmentationTask

TRAIN = str(ROOT / "train.py")
TINY = [
    *("model.widths=[2,4]", "trainer.max_epochs=1", "data.batch_size=2", "logger=null"),
    *("callbacks.progress=null", "callbacks.stability=null"),
]


def the_run(folder: Path) -> Path:
    (run,) = folder.glob("outputs/folder/*/*")
    return run


def test_camvid_like_folders_train_are_evaluated_and_predicted(
    forked: Command, tmp_path: Path
) -> None:
    """Colour, void, a label map, patterns whose quotes the shell took, another size."""
    for n, split in enumerate(("train", "val", "test")):
        for i in range(2):
            image = pixels(16, 20, 3, seed=10 * n + i)
            label = np.where(image[..., 0] < 128, 0, 255).astype(np.uint8)
            label[:4] = 11
            save(tmp_path / "set" / split / f"{i}.png", image)
            save(tmp_path / "set" / f"{split}annot" / f"{i}.png", label)
    words = [
        *("data=folder", f"data.root={tmp_path / 'set'}", "data.images={split}"),
        *("data.labels={split}annot", "data.label_map={0: 0, 255: 1}"),
        *("data.classes=[dark,bright]", "data.ignore_label=11", "data.crop=12"),
        *("model=unet", "model.widths=[2,3,4]", "data.augment.rotate=10", *TINY[1:]),
    ]
    done = forked(TRAIN, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = the_run(tmp_path)
    metrics = json.loads((run / "metrics.json").read_text())
    assert {"val/iou/dark", "test/iou/bright", "val/miou"} <= metrics.keys()
    assert not {"val/published_iou", "val/object_iou"} & metrics.keys()
    assert (run / "figures/segmentation.png").exists()

    evaluate = str(ROOT / "scripts/evaluate.py")
    out = tmp_path / "e.json"
    done = forked(evaluate, f"run={run}", f"out={out}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert all(metrics[name] == value for name, value in found.items())

    odd = pixels(19, 30, 3)  # of no multiple of 4
    save(tmp_path / "new/a.tif", odd)
    save(tmp_path / "new/b.webp", odd, lossless=True)
    script = str(ROOT / "scripts/predict.py")
    words = [f"run={run}", f"images={tmp_path / 'new'}"]
    for more in ([], ["tile=16"]):
        out = tmp_path / f"out{len(more)}"
        done = forked(script, *words, f"out={out}", *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        with Image.open(out / "labels/a.png") as label:
            assert label.size == (30, 19)
        assert {p.name for p in (out / "overlays").iterdir()} == {"a.png", "b.png"}


def test_the_cost_of_a_sweep_is_that_of_the_channels_in_the_files(
    tmp_path: Path,
) -> None:
    """Grey pictures, though a folder may have three channels until it is read."""
    words = [
        "data=folder",
        f"data.root={write_set(tmp_path / 'set')}",
        "data.classes=2",
    ]
    words += [
        f"data.cache_dir={tmp_path / 'cache'}",
        "model=unet",
        "model.widths=[2,3]",
    ]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", words)
    cfg.run_dir = str(tmp_path)
    plain = OmegaConf.to_container(OmegaConf.masked_copy(cfg, list(cfg)))
    assert train_three_steps(plain).seconds > 0


def test_a_prediction_sees_the_size_of_training(tmp_path: Path) -> None:
    """Training at half the size: the network sees half, the labels are of the whole."""
    seen: list[tuple[int, ...]] = []

    class Bright(nn.Module):
        def forward(self, y: torch.Tensor) -> torch.Tensor:
            seen.append(tuple(y.shape))
            return torch.cat([-y, y], dim=1)

    facts = {"in_channels": 1, "out_channels": 2, "mean": [100.0], "std": [1.0]}
    facts |= {"classes": ["a", "b"], "class_frequency": [0.5, 0.5], "resize": [4, 6]}
    image = np.repeat(np.arange(0, 240, 20, dtype=np.uint8)[None], 8, axis=0)
    path = save(tmp_path / "a.png", image)
    shown, labels = predict(SegmentationTask(Bright(), facts), path, None)
    assert seen == [(1, 1, 4, 6)]
    assert shown.shape == (1, 8, 12)
    assert labels.tolist() == [[0] * 6 + [1] * 6] * 8


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "npy", "tif"])
def test_depths_of_sixteen_bits_train(
    suffix: str, forked: Command, tmp_path: Path
) -> None:
    """Millimetres in one folder; images and depths of 16 bits; a third of them unknown."""
    for i in range(8):
        depth = pixels(16, 16, seed=i, high=5000)
        depth[::3] = 0
        save(tmp_path / f"set/images/{i}.tif", pixels(16, 16, seed=i, high=65536))
        save(tmp_path / f"set/depths/{i}.{suffix}", depth)
    words = [
        *("data=folder", f"data.root={tmp_path / 'set'}", "task=depth"),
        *("data.fold=1", "data.folds=4", "data.depth_scale=0.001", "data.crop=8"),
        *("model=imexnet_depth", "data.augment.scale=1.2", *TINY),
    ]
    done = forked(TRAIN, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    run = the_run(tmp_path)
    assert 0 < json.loads((run / "metrics.json").read_text())["test/rmse"] < 10
    assert (run / "figures/depth.png").exists()


MISTAKES = [
    (["data.classes=[a,b]", "data.crop=32"], 3, "smaller than data.crop=[32, 32]"),
    ([], 2, "classes: give their number, [names], or a file of them"),
]
MORE_MISTAKES = [
    (["data.classes=[a,b]", "data.augment.rotat=3"], 2, "did you mean 'rotate'?"),
    (["data.classes=[a,b]", "data.label_map={0: 1}"], 3, "label 1 is not in data"),
    (["data.classes=1"], 2, "classes must be 2 to 255"),
    (["data.classes=[a,b]", "data.augment.scale=0.5"], 2, "scale must be in 1"),
    (["data.classes=[a,b]", "data.split=[0.5,0.1]"], 2, "shares of train, val and"),
    (["task=depth"], 3, "train/depths: no such folder, but there are its"),
]


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [*MISTAKES, *(pytest.param(*m, marks=pytest.mark.slow) for m in MORE_MISTAKES)],
)
def test_mistakes_are_one_line_and_leave_no_folder(
    words: list[str], code: int, complaint: str, forked: Command, tmp_path: Path
) -> None:
    root = write_set(tmp_path / "set")
    done = forked(TRAIN, "data=folder", f"data.root={root}", *words, cwd=tmp_path)
    assert done.returncode == code, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert complaint in line
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


REAL = os.environ.get("IMEX_REAL_DATA")
SETS = {
    "em_membranes": ["data.label_map={0: 0, 255: 1}", "data.classes=[membrane,cell]"],
    "camvid": ["data.classes=11", "data.ignore_label=11", "data.resize=[60,80]"],
    "nyu_kitchens": [
        *("data.images=images", "data.depths=depths", "data.depth_scale=0.0392"),
        *("data.split=[0.7,0.15,0.15]", "data.groups=frames.csv:scene", "task=depth"),
        *("model=imexnet_depth", "data.resize=[60,80]"),
    ],
}


@pytest.mark.slow
@pytest.mark.skipif(REAL is None, reason="IMEX_REAL_DATA names no folder of real data")
@pytest.mark.parametrize("name", SETS)
def test_real_data_train_with_one_command(
    name: str, forked: Command, tmp_path: Path
) -> None:
    root = Path(REAL or "") / name
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    words = ["data=folder", f"data.root={root}", "data.crop=32", *SETS[name], *TINY]
    done = forked(TRAIN, *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    metrics = json.loads((the_run(tmp_path) / "metrics.json").read_text())
    score = "test/rmse" if "task=depth" in words else "test/miou"
    assert 0 < metrics[score] < 10
