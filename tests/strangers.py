"""Run folders, sweeps and images as a stranger would make them to harm whoever reads them.

Each entry of `strangers` is a folder of its own with the command that a user would give.
H is the user's home, SECRET a variable of the environment.
"""

import copy
import io
import json
import os
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml

from imex_experiments.files import write_text
from imex_experiments.runs.checkpoint_io import checksum_of, read_checkpoint

BEST, LAST = "checkpoints/best.ckpt", "checkpoints/last.ckpt"
CONFIG, OVERRIDES = ".hydra/config.yaml", ".hydra/overrides.yaml"

EVALUATE, RESUME, COMPARE = "scripts/evaluate.py", "train.py", "scripts/compare.py"
PREDICT, EXPORT = "scripts/predict.py", "scripts/export.py"

OURS = "imex_experiments.callbacks"
NOTE = "+callbacks.hparams.hparams.x"


@dataclass(frozen=True)
class Stranger:
    """A command on a stranger's folder; `harmless` ones may end with 0."""

    script: str
    words: list[str]
    harmless: bool = False


WORDS = (
    # places
    "callbacks.history.path=H/.bashrc",
    "++callbacks.history.path='H/.bashrc'",
    "callbacks.history.path='${run_dir}/../../.bashrc'",
    "callbacks.history.path=${callbacks.hparams.hparams.model}",
    "callbacks.checkpoints.folder=H/.config",
    "logger.save_dir=H",
    "logger.name=../../home",
    "logger.version=..",
    "logger.csv.save_dir=H",
    "logger.mlflow.tracking_uri=http://localhost:1",
    "+logger.wandb.entity=stranger",
    "++logger={wandb:{project:stranger/x}}",
    "trainer.default_root_dir=H",
    "run_dir=H",
    "run_dir=null",
    f"+callbacks.more={{_target_:{OURS}.History,path:H/.bashrc}}",
    f"+callbacks.more={{_target_:{OURS}.Checkpoints,folder:H}}",
    f"{NOTE}={{_target_:{OURS}.RunLogger,save_dir:H}}",
    "++callbacks={history:{path:H/.bashrc}}",
    "logger=${callbacks.hparams.hparams.x}",
    # classes
    "logger._target_=pytorch_lightning.loggers.CSVLogger",
    "+callbacks.x={_target_:pytorch_lightning.callbacks.ModelCheckpoint,dirpath:H}",
    "+callbacks.x._target_=pytorch_lightning.callbacks.LambdaCallback",
    "trainer.profiler={_target_:pytorch_lightning.profilers.PyTorchProfiler,dirpath:H}",
    "trainer.profiler=${callbacks.history}",
    "++trainer.strategy={_target_:os.system,command:T}",
    "trainer._target_=os.system",
    "optimizer._target_=subprocess.Popen",
    "scheduler._target_=builtins.exec",
    f"data._target_={OURS}.RunLogger",
    "model._target_=imex_experiments.data.NyuSampleData",
    "model.layer._target_=torch.hub.load",
    "model._target_=torch.nn.Sequential",
    "allow=[os]",
    "++allow=[subprocess]",
    "+data@allow=qtips",
    # what is read
    f"{NOTE}=${{oc.env:SECRET}}",
    f"{NOTE}=$\\{{oc.env\\:SECRET\\}}",
    f"{NOTE}='${{oc.env:SECRET}}'",
    f"{NOTE}={{a:[${{oc.env:SECRET}}]}}",
    f"{NOTE}=${{${{seed}}:SECRET}}",
    f"{NOTE}=${{oc.decode:${{oc.env:SECRET}}}}",
    f"{NOTE}=${{hydra:runtime.cwd}}",
    f"{NOTE}=${{hydra.runtime.cwd}}",
    "+callbacks.hparams.hparams.${oc.env:SECRET}=1",
    "data.root=${oc.env:HOME}",
    # measure
    "data.train=100000000",
    "data.train=1e8",
    "data.train=1000000",
    "data.image_size=100000",
    "data.num_workers=100000",
    "trainer.devices=100000",
    "model.steps=100000000",
    "model.widths=[100000,100000]",
    f"{NOTE}={'x' * 20_000}",
    f"{NOTE}={'[' * 400}{']' * 400}",
)
"""Overrides of a run that is to be resumed."""

SWEEP_WORDS = (
    f"{NOTE}=${{oc.env:SECRET}}",
    "model.h=1,2,${oc.env:SECRET}",
    "callbacks.history.path=H/.bashrc,H/.profile",
    "seed=range(1000000000)",
    f"seed={','.join(map(str, range(2000)))} model.h=range(1,100)",
    f"{NOTE}=a/../../../../home,b/../../../../home",
    "logger.save_dir=choice(H,H/x)",
    "data.train=glob(*)",
)

LAUNCHES = (
    "hydra.sweep.subdir=../../home",
    "hydra.sweep.subdir=${oc.env:SECRET}",
    "hydra.launcher.partition=${oc.env:SECRET}",
    "hydra.launcher.setup=[T]",
    "hydra.launcher.n_jobs=65",
)

CONFIGS: dict[str, tuple[str, str]] = {
    "a resolver": ("seed: 0\n", "seed: ${oc.env:SECRET}\n"),
    "a resolver in the model": ("alpha: 100.0", "alpha: ${oc.env:SECRET}"),
    "a nested resolver": ("alpha: 100.0", "alpha: ${${seed}:SECRET}"),
    "a resolver for a class": ("DynamicNet", "${oc.env:SECRET}"),
    "a command for a task": ("imex_experiments.tasks.SegmentationTask", "os.system"),
    "a writer for a layer": ("imex_experiments.terms.DoubleLayer", f"{OURS}.RunLogger"),
    "a package for itself": ("allow: []", "allow: [os]"),
    "data for a layer": (
        "imex_experiments.terms.DoubleLayer",
        "imex_experiments.data.NyuSampleData",
    ),
    "a callback for data": ("imex_experiments.data.QtipsData", f"{OURS}.History"),
    "1e8 images": ("train: 48", "train: 1e8"),
    "100000000 images": ("train: 48", "train: 100000000"),
    "1e8 steps": ("steps: 1\n", "steps: 1e8\n"),
    "100000000 steps": ("steps: 1\n", "steps: 100000000\n"),
    "9999 steps": ("steps: 1\n", "steps: 9999\n"),
    "9999 channels": ("  - 16\n", "  - 9999\n"),
    "a large kernel": ("opening: 3", "opening: 9999"),
    "an endless integer": ("seed: 0\n", f"seed: 0x{'f' * 9000}\n"),
    "itself": ("alpha: 100.0", "alpha: ${model.alpha}"),
    "a chain": (
        "alpha: 100.0",
        "\n".join(["alpha: ${model.a0}"])
        + "".join(f"\n  a{n}: '" + f"${{model.a{n + 1}}}" * 10 + "'" for n in range(12))
        + "\n  a12: xxxxxxxxxx",
    ),
    "an alias": ("alpha: 100.0", "alpha: &a 100.0\n  b: *a"),
    "no model": ("model:\n", "modell:\n"),
}
"""What is replaced in a configuration that is evaluated."""

HARMLESS: dict[str, tuple[str, str]] = {
    "a profiler": (
        "profiler: null",
        "profiler: {_target_: pytorch_lightning.profilers.AdvancedProfiler, "
        "dirpath: H, filename: .bashrc}",
    ),
    "a trainer": ("pytorch_lightning.Trainer", "os.system"),
    "a cache": ("cache_dir: ${oc.env:IMEX_CACHE", "cache_dir: H/x/${oc.env:SECRET"),
    "callbacks": ("path: ${run_dir}/metrics.csv", "path: H/.bashrc"),
    "a run_dir": ("run_dir: ${hydra:runtime.output_dir}", "run_dir: H"),
}
"""What is replaced where it is not looked at: evaluated, and nothing of it happens."""


def yaml_bomb() -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{f'*a{n - 1}, ' * 10}]" for n in range(1, 12)]
    return "\n".join(lines)


FILES: dict[str, Callable[[Path], object]] = {
    "a YAML bomb": lambda path: path.write_text(yaml_bomb()),
    "a FIFO": lambda path: (path.unlink(), os.mkfifo(path)),
    "/dev/zero": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
    "100 GB": lambda path: os.truncate(path, 10**11),
    "brackets": lambda path: path.write_text("[" * 100_000),
    "a list of lists": lambda path: path.write_text("- [a, {b: c}]\n- 3\n"),
    "no text": lambda path: path.write_bytes(bytes(range(256))),
    "nothing": lambda path: path.write_text(""),
}
"""What stands where a YAML file of a run is read."""


def set_at(*keys: Any, value: Any) -> Callable[[dict[str, Any]], object]:
    def change(state: dict[str, Any]) -> None:
        node: Any = state
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value

    return change


def of_history(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda state: state["callbacks"]["History"].update(changes)


LOOP = ("loops", "fit_loop", "epoch_progress")
SCHEDULER = ("lr_schedulers", 0)
OPTIMIZER = ("optimizer_states", 0)
WIDE = torch.zeros(1).expand(10**12)

STATES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a command for a column": of_history(rows=[{"touch PWNED #": 1.0}]),
    "text for a number": of_history(rows=[{"epoch": "$(touch PWNED)"}]),
    "no rows": lambda state: state["callbacks"]["History"].pop("losses"),
    "a score of text": set_at("callbacks", "Checkpoints", "best_score", value="1"),
    "no random words": set_at("callbacks", "RandomState", "python", 1, value=[1]),
    "counts of text": set_at("callbacks", "SolverLog", "counts", value="abc"),
    "a loop of text": set_at(*LOOP, value="x"),
    "a negative epoch": set_at(*LOOP, "current", "ready", value=-1),
    "a step of text": set_at("global_step", value="6"),
    "loops of none": set_at("loops", value=None),
    "a schedule with a method": set_at(*SCHEDULER, "step", value=5),
    "a schedule of text": set_at(*SCHEDULER, "last_epoch", value="6"),
    "moments of another shape": set_at(
        *OPTIMIZER, "state", 0, "exp_avg", value=torch.ones(7)
    ),
    "a rate of text": set_at(*OPTIMIZER, "param_groups", 0, "lr", value="fast"),
    "two optimizers": lambda state: state["optimizer_states"].append({}),
    "a tensor without end": set_at("state_dict", "network.x", value=WIDE),
}
"""Checkpoints that a run is to go on from."""


def of_facts(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda state: state["hyper_parameters"]["facts"].update(changes)


FACTS: dict[str, Callable[[dict[str, Any]], object]] = {
    "no facts": set_at("hyper_parameters", value=None),
    "channels of text": of_facts(in_channels="1"),
    "channels without end": of_facts(in_channels=10**9),
    "no mean": of_facts(mean=None),
    "weights without end": set_at("state_dict", "network.x", value=WIDE),
    "a nest": lambda state: state.update(nest=nested(100)),
}
"""Checkpoints that are evaluated."""


def nested(depth: int) -> list[Any]:
    node: list[Any] = []
    for _ in range(depth):
        node = [node, node]
    return node


def sign(path: Path) -> None:
    import hashlib

    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    write_text(checksum_of(path), f"{digest}  {path.name}\n")


def save(state: object, path: Path) -> None:
    torch.save(state, path)
    sign(path)


def compress(path: Path) -> None:
    """A checkpoint of a megabyte that unpacks to a gigabyte."""
    content = io.BytesIO()
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(content, "w") as target:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("data/0"):
                data = bytes(2**30)
            target.writestr(name, data, zipfile.ZIP_DEFLATED, 1)
    path.write_bytes(content.getvalue())
    sign(path)


def png(width: int, height: int, *more: bytes) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(10_000))
    text = b"".join(chunk(b"zTXt", b"a\0\0" + data) for data in more)
    parts = (chunk(b"IHDR", head), text, chunk(b"IDAT", pixels), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 64 64
%ImageData: 64 64 8 1 0 1 1 "image"
(T) (w) file closefile
%%EOF
"""

IMAGES: dict[str, Callable[[Path], object]] = {
    "a bomb of pixels": lambda path: path.write_bytes(png(60_000, 60_000)),
    "a smaller bomb": lambda path: path.write_bytes(png(12_000, 12_000)),
    "a bomb of text": lambda path: path.write_bytes(
        png(64, 64, zlib.compress(bytes(2**27)))
    ),
    "PostScript": lambda path: path.write_bytes(EPS),
    "a FIFO as image": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
}
"""Images of a data folder."""


def data_folder(root: Path, write: Callable[[Path], object], names: bytes) -> None:
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
        write(root / kind / "a.png")
    (root / "filenames.txt").write_bytes(names)


LINKS = ("train.log", "metrics.csv", ".lock", "status.json", "figures/x.png")
FOLDER_LINKS = ("checkpoints", "figures", "tensorboard", ".hydra")

STATUSES: dict[str, Callable[[Path], object]] = {
    "an empty status": lambda run: (run / "status.json").write_text(""),
    "a status of a list": lambda run: (run / "status.json").write_text("[]"),
    "a monitor that is no name": lambda run: edit_json(
        run / "status.json", monitor=["val/miou"]
    ),
    "a deep status": lambda run: (run / "status.json").write_text("[" * 10**5),
    "a FIFO as metrics": lambda run: (
        (run / "metrics.json").unlink(),
        os.mkfifo(run / "metrics.json"),
    ),
    "a metric without end": lambda run: edit_json(
        run / "metrics.json", **{"val/miou": 10**400}
    ),
    "a metric named so": lambda run: edit_json(
        run / "metrics.json", **{"touch PWNED #\n": 1}
    ),
    "a secret for a model": lambda run: edit(
        run / ".hydra/hydra.yaml", "model: imexnet", "model: ${oc.env:SECRET}"
    ),
}
"""Finished runs that are compared."""


def forge(config: Path, word: str) -> None:
    """Let the configuration of a run say what one of its overrides says."""
    content = yaml.load(config.read_text(), yaml.CSafeLoader)
    key, _, value = word.lstrip("+").partition("=")
    if ("{" in value and "${" not in value) or "${" in key or "[[" in value:
        return  # no stranger's work is needed: it is refused for what it is
    *outer, last = key.split(".")
    node = content
    for name in outer:
        node = node.setdefault(name, {})
    node[last] = yaml.safe_load(value.strip("'")) if "$" not in value else value
    config.write_text(yaml.dump(content, Dumper=yaml.CSafeDumper, sort_keys=False))


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, old
    path.write_text(text.replace(old, new))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def strangers(trained: Path, folder: Path, home: Path) -> dict[str, Stranger]:
    """Write all folders; return name -> command."""
    found: dict[str, Stranger] = {}
    best, last = (read_checkpoint(trained / name) for name in (BEST, LAST))

    def here(text: str) -> str:
        """The text with the user's home and a command in place of H and T."""
        text = re.sub(r"\bH\b", str(home), text)
        return re.sub(r"\bT\b", f"touch {home}/PWNED", text)

    def run() -> Path:
        return Path(shutil.copytree(trained, folder / str(len(found)) / "run"))

    def unfinished() -> Path:
        copied = run()
        edit_json(copied / "status.json", state="interrupted")
        return copied

    def add(name: str, script: str, words: list[str], harmless: bool = False) -> None:
        assert name not in found, name
        found[name] = Stranger(script, words, harmless)

    def evaluate(name: str, copied: Path, harmless: bool = False) -> None:
        add(f"evaluated: {name}", EVALUATE, [f"run={copied}"], harmless)

    def resume(name: str, copied: Path) -> None:
        add(f"resumed: {name}", RESUME, [f"resume={copied}"])

    for word in WORDS:
        copied = unfinished()
        with (copied / OVERRIDES).open("a") as file:
            file.write(f"- {json.dumps(here(word))}\n")
        forge(copied / CONFIG, here(word))
        resume(word[:60] + str(len(word)), copied)
    for name, write in FILES.items():
        copied = unfinished()
        write(copied / OVERRIDES)
        resume(f"{name} for overrides", copied)
        copied = run()
        write(copied / CONFIG)
        evaluate(f"{name} for a configuration", copied)
    for table, harmless in ((CONFIGS, False), (HARMLESS, True)):
        for name, (old, new) in table.items():
            copied = run()
            edit(copied / CONFIG, old, here(new))
            evaluate(name, copied, harmless)
    for name, change in STATES.items():
        copied, state = unfinished(), copy.deepcopy(last)
        change(state)
        for path in (LAST, "checkpoints/previous.ckpt", BEST):
            save(state, copied / path)
        resume(name, copied)
    for name, change in FACTS.items():
        copied, state = run(), copy.deepcopy(best)
        change(state)
        save(state, copied / BEST)
        evaluate(name, copied, harmless=name == "a nest")
    for name in ("a FIFO", "/dev/zero"):
        copied = run()
        FILES[name](copied / BEST)
        evaluate(f"{name} for a checkpoint", copied)
    copied = run()
    compress(copied / BEST)
    evaluate("a compressed checkpoint", copied)
    for name in LINKS:
        copied = unfinished()
        (copied / name).unlink(missing_ok=True)
        (copied / name).symlink_to(home / ".bashrc")
        resume(f"a link for {name}", copied)
    for name in FOLDER_LINKS:
        copied = unfinished()
        shutil.move(copied / name, home.parent / f"{len(found)}")
        (copied / name).symlink_to(home.parent / f"{len(found)}")
        resume(f"a link for {name}", copied)
    sweeps = [([], words.split(" ")) for words in SWEEP_WORDS]
    sweeps += [([here(word)], ["seed=0,1"]) for word in LAUNCHES]
    for hydra, task in sweeps:
        sweep = folder / str(len(found)) / "sweep"
        sweep.mkdir(parents=True)
        overrides = {
            "hydra": ["hydra.mode=MULTIRUN", *hydra],
            "task": [*map(here, task)],
        }
        (sweep / "multirun.yaml").write_text(
            json.dumps({"hydra": {"overrides": overrides}})
        )
        add(f"sweep: {hydra}{task}"[:80], RESUME, [f"sweep.resume={sweep}"])
    for name, damage in STATUSES.items():
        copied = run()
        damage(copied)
        out = folder / f"{len(found)}" / "out"
        add(f"compared: {name}", COMPARE, [str(copied), f"out={out}"], harmless=True)
    sweep = folder / str(len(found)) / "sweep"
    shutil.copytree(trained, sweep / "0_seed=0")
    (sweep / "multirun.yaml").write_text("hydra: {overrides: {hydra: [], task: []}}")
    (sweep / "learning_curves.png").symlink_to(home / ".bashrc")
    add("compared: a link for a picture", COMPARE, [str(sweep)])
    for name, write in IMAGES.items():
        copied = run()
        root = copied.parent / "data"
        data_folder(root, write, b"a.png")
        words = [f"run={copied}", f"images={root / 'images'}"]
        add(f"predicted: {name}", PREDICT, [*words, f"out={copied.parent / 'out'}"])
        edit(copied / CONFIG, "root: null", f"root: {root}")
        evaluate(f"data with {name}", copied)
    for name, names in {"NUL": b"a\0.png", "no UTF-8": b"\xff\xfe.png"}.items():
        copied = run()
        root = copied.parent / "data"
        data_folder(root, partial(Path.write_bytes, data=png(64, 64)), names)
        edit(copied / CONFIG, "root: null", f"root: {root}")
        evaluate(f"{name} in filenames.txt", copied)
    copied = run()
    edit(copied / CONFIG, "steps: 1\n", "steps: ${oc.env:SECRET}\n")
    words = [f"run={copied}", "format=torch", f"out={copied.parent / 'x.pt2'}"]
    add("exported: a resolver", EXPORT, words)
    return found
