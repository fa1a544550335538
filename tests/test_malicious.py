"""No code from data: sixty files that want to be run, read as a user would read them.

They are read in a process with an audit hook, which sees commands and foreign pickles even
where nothing comes of them; a canary shows what was executed.
"""

import builtins
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from folder_sets import folder_data, write_set
from torch import Tensor

from imex_experiments import load_run
from imex_experiments.data.cache import cached
from imex_experiments.data.folder.published import read_image_folder
from imex_experiments.data.nyu.file import read_contents
from imex_experiments.errors import DataError, RunError
from imex_experiments.runs.checkpoint_io import (
    checksum_of,
    newest_verified,
    read_checkpoint,
    write_checkpoint,
)
from imex_experiments.runs.resume import resumed_arguments
from imex_experiments.sweeps.resume import resumed_sweep

BEST, CONFIG = "checkpoints/best.ckpt", ".hydra/config.yaml"
OVERRIDES = ".hydra/overrides.yaml"

WATCHED = {
    *("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen"),
    *("pickle.find_class", "socket.connect", "ctypes.dlopen"),
}


class Gadget:
    """Calls a function with some arguments when it is unpickled."""

    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call, self.arguments


def gadgets(canary: Path) -> dict[str, Gadget]:
    touch = f"touch '{canary}'"
    return {
        "a command": Gadget(os.system, touch),
        "a file": Gadget(open, str(canary), "w"),
        "source": Gadget(builtins.exec, f"open({str(canary)!r}, 'w')"),
        "a process": Gadget(subprocess.Popen, ["touch", str(canary)]),
    }


NETWORK = "imex_experiments.networks.DynamicNet"

FIELDS = (
    *("state_dict", "hyper_parameters", "callbacks", "loops", "optimizer_states"),
    *("lr_schedulers", "global_step", "epoch", "pytorch-lightning_version"),
    *("state_dict/network.head.weight", "hyper_parameters/facts", "an unknown key"),
)

TARGETS = (
    *(
        "os.system",
        "posix.system",
        "builtins.exec",
        "subprocess.Popen",
        "shutil.rmtree",
    ),
    *("imex_experiments.files.os.system", "torch.load", "torch.hub.load"),
    *("imex_experiments.runs.status.subprocess.Popen", "hydra.utils.instantiate"),
    *("imex_experiments.runs.load.load_run", "pytorch_lightning.Trainer"),
    *("torch.optim.SGD", "imex_experiments.config.build.build", "pickle.loads"),
)

WORDS = (
    "hydra.callbacks.x={_target_:os.system,command:T}",
    "+hydra.callbacks.x._target_=os.system",
    "++hydra.job_logging.handlers.x={'()':os.system,command:T}",
    "~hydra.callbacks.hooks",
    "hydra/job_logging=evil",
    "hydra.searchpath=[file:///tmp]",
    "callbacks@hydra.callbacks=default",
    "--config-dir=/tmp",
    "-cd=/tmp",
)

LAUNCHES = (
    "hydra.launcher.setup=[T]",
    "hydra.launcher._target_=os.system",
    "hydra.launcher.partition={_target_:os.system}",
    "hydra.sweeper._target_=os.system",
)

YAML_TAG = '!!python/object/apply:os.system ["T"]\n'


def edit(path: Path, change: Callable[[str], str]) -> None:
    path.write_text(change(path.read_text()))


def inputs(run: Path, folder: Path, canary: Path) -> dict[str, Callable[[], object]]:
    """Name -> what a user does with the file; each file lies in a folder of its own."""
    found: dict[str, Callable[[], object]] = {}
    touch = f"touch {canary}"

    def copy(name: str) -> Path:
        return Path(shutil.copytree(run, folder / str(len(found)) / name))

    for field in FIELDS:
        evil = copy("field")
        state: Any = read_checkpoint(evil / BEST)
        *outer, inner = field.split("/")
        node = state
        for key in outer:
            node = node[key]
        kind = list(gadgets(canary))[len(found) % 4]
        node[inner] = gadgets(canary)[kind]
        write_checkpoint(state, evil / BEST)
        found[f"{kind} in {field} of a checkpoint"] = lambda r=evil: load_run(r)
    for kind, gadget in gadgets(canary).items():
        evil = copy("raw")
        for raw in (evil / BEST, evil / "checkpoints/last.ckpt"):
            raw.write_bytes(pickle.dumps({"global_step": gadget}))
            _sign(raw)
        (evil / "checkpoints/previous.ckpt").unlink()
        found[f"{kind} in a plain pickle"] = lambda r=evil: newest_verified(r)
        evil = copy("old")
        torch.save(gadget, evil / BEST, _use_new_zipfile_serialization=False)
        _sign(evil / BEST)
        found[f"{kind} in a checkpoint of the old format"] = lambda r=evil: load_run(r)
    for target in TARGETS:
        evil = copy("target")
        edit(evil / CONFIG, lambda t, new=target: t.replace(NETWORK, new))
        found[f"_target_ {target}"] = lambda r=evil: load_run(r)
    for word in WORDS:
        evil = copy("word")
        edit(evil / OVERRIDES, lambda t, w=word: f"{t}- {json.dumps(w)}\n")
        found[f"{word} in a run"] = lambda r=evil: resumed_arguments([f"resume={r}"])
    for word in LAUNCHES:
        evil = folder / str(len(found))
        evil.mkdir()
        words = json.dumps({"hydra": {"overrides": {"hydra": [word], "task": []}}})
        (evil / "multirun.yaml").write_text(words)
        found[f"{word} in a sweep"] = lambda s=evil: resumed_sweep(
            [f"sweep.resume={s}"]
        )
    sweep = folder / str(len(found))
    sweep.mkdir()
    (sweep / "multirun.yaml").write_text(YAML_TAG.replace("T", touch))
    found["a YAML tag in a sweep"] = lambda: resumed_sweep([f"sweep.resume={sweep}"])
    for name, read in (
        (CONFIG, load_run),
        (OVERRIDES, lambda r: resumed_arguments([f"resume={r}"])),
    ):
        evil = copy("tag")
        (evil / name).write_text(YAML_TAG.replace("T", touch))
        found[f"a YAML tag in {name}"] = lambda r=evil, read=read: read(r)
    found |= {
        f"{kind} in a cache": lambda k=kind: _read_cache(
            folder / "cache" / k, k, canary
        )
        for kind in ("pickle", "torch", "npz")
    }
    found |= {
        f"an npz of objects as {kind}": lambda k=kind: _read_image(
            folder / k, k, canary
        )
        for kind in ("images", "labels")
    }
    found |= {
        f"{kind} among pictures": lambda k=kind: _read_pictures(folder / k, k, canary)
        for kind in ("pickled objects", "an npz", "PostScript", "a link")
    }
    found |= {
        f"HDF5: {kind}": lambda k=kind: _read_mat(folder / f"{k}.mat", k)
        for kind in ("soft link", "external link", "external storage", "virtual")
    }
    return found


def _sign(path: Path) -> None:
    import hashlib

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    checksum_of(path).write_text(f"{digest}  {path.name}\n")


def _read_cache(folder: Path, kind: str, canary: Path) -> None:
    made: list[int] = []

    def make() -> dict[str, Tensor]:
        made.append(1)
        return {"a": torch.ones(2)}

    cached(folder, "x", {}, make, {"a": ("F32", 2)})
    (path,) = folder.glob("*.safetensors")
    gadget = gadgets(canary)["a file"]
    if kind == "pickle":
        path.write_bytes(pickle.dumps(gadget))
    elif kind == "torch":
        torch.save(gadget, path)
    else:
        _save_objects(path, gadget)
    cached(folder, "x", {}, make, {"a": ("F32", 2)})
    if len(made) == 2:
        raise DataError("set aside and made anew")


def _read_image(root: Path, kind: str, canary: Path) -> None:
    for name in ("images", "labels"):
        (root / name).mkdir(parents=True)
        _save_objects(root / name / "a.png", gadgets(canary)["a file"])
    (root / "filenames.txt").write_text("a.png")
    read_image_folder(root, classes=4)


def _read_pictures(root: Path, kind: str, canary: Path) -> None:
    first = write_set(root) / "train/images/0.png"
    evil = first.with_suffix(".npy")
    gadget = gadgets(canary)["a file"]
    first.unlink()
    if kind == "an npz":
        _save_objects(evil, gadget)
    elif kind == "pickled objects":
        np.save(evil, np.array([[gadget]], dtype=object), allow_pickle=True)
    elif kind == "a link":
        first.symlink_to("/etc/passwd")
    else:
        size = "%%BoundingBox: 0 0 9 9\n%%EndComments\n"
        first.write_text(f"%!PS-Adobe-3.0 EPSF-3.0\n{size}({canary}) (w) file\n")
    folder_data(root)


def _save_objects(path: Path, gadget: Gadget) -> None:
    with path.open("wb") as file:
        np.savez(file, images=np.array([gadget], dtype=object))
    assert zipfile.is_zipfile(path)


def _read_mat(path: Path, kind: str) -> None:
    with h5py.File(path, "w", userblock_size=512) as file:
        file["images"] = np.zeros((2, 3, 640, 480), np.uint8)
        if kind == "soft link":
            file["depths"] = h5py.SoftLink("/images")
        elif kind == "external link":
            file["depths"] = h5py.ExternalLink("/etc/passwd", "/x")
        elif kind == "virtual":
            layout = h5py.VirtualLayout((2, 640, 480), "f4")
            layout[:] = h5py.VirtualSource("/etc/passwd", "x", (2, 640, 480))
            file.create_virtual_dataset("depths", layout)
        else:
            outside = [("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
            file.create_dataset("depths", (2, 640, 480), "f4", external=outside)
    read_contents(path, "depths")


def read_all(table: dict[str, Callable[[], object]], out: Path) -> None:
    """In a process of its own, because a hook stays for ever: what came of each input."""
    events: list[str] = []
    reader = str(Path("imex_experiments/data/nyu/reader"))

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event in WATCHED and reader not in str(arguments):
            events.append(f"{event} {arguments}"[:200])

    sys.addaudithook(watch)
    answers = {}
    for name, read in table.items():
        events.clear()
        try:
            answers[name] = f"accepted: {read()}"
        except (RunError, DataError) as error:
            answers[name] = f"refused with {error.exit_code}"
        except BaseException as error:
            answers[name] = f"failed: {type(error).__name__} {error}"
        answers[name] += "".join(f", {event}" for event in events)
    out.write_text(json.dumps(answers))


def test_sixty_malicious_files_are_refused_and_nothing_is_run(
    trained: Path, tmp_path: Path
) -> None:
    canary, out = tmp_path / "canary", tmp_path / "answers.json"
    table = inputs(trained, tmp_path, canary)
    assert len(table) >= 60
    process = multiprocessing.get_context("fork").Process(
        target=read_all, args=(table, out)
    )
    process.start()
    process.join(120)
    answers = json.loads(out.read_text())
    assert not canary.exists()
    expected = dict.fromkeys(table, "refused with")
    assert {name: answer[:12] for name, answer in answers.items()} == expected
    noticed = {name: answer for name, answer in answers.items() if "," in answer}
    assert noticed == {}


@pytest.mark.parametrize("kind", ["a command", "a file", "source", "a process"])
def test_the_gadgets_and_the_watch_work(kind: str, tmp_path: Path) -> None:
    """Somebody who unpickles them is caught by the canary and by the hook."""
    canary, out = tmp_path / "canary", tmp_path / "answers.json"
    evil = pickle.dumps(gadgets(canary)[kind])

    def unpickle() -> str:
        answer = pickle.loads(evil)
        if isinstance(answer, subprocess.Popen):
            answer.wait()
        return "done"

    process = multiprocessing.get_context("fork").Process(
        target=read_all, args=({kind: unpickle}, out)
    )
    process.start()
    process.join(60)
    assert canary.exists()
    assert "pickle.find_class" in json.loads(out.read_text())[kind]
