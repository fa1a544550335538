"""The reader: frames as MATLAB means them, and one clear line for every defect."""

import math
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from conftest import ROOT
from nyu_files import (
    SCENES,
    cells,
    edit,
    ended,
    make,
    replace,
    write_small,
    write_subset,
)

from imex_experiments.data.nyu import file as nyu_file
from imex_experiments.data.nyu.data_module import NyuData
from imex_experiments.data.nyu.file import file_md5, read_contents, read_frames
from imex_experiments.errors import DataError

pytest_plugins = ("nyu_fixtures",)


def test_scenes_and_types_are_decoded(small: Path) -> None:
    contents = read_contents(small)
    assert contents.version == "v7.3"
    assert tuple(contents.scenes) == SCENES
    assert contents.scene_types is not None
    assert contents.scene_types[2:4] == ["office_kitchen", "kitchen"]


def test_a_mark_in_a_corner_stays_in_its_corner(small: Path) -> None:
    """Row 10, column 600 of a MATLAB picture is [column, row] in HDF5."""
    with h5py.File(small, "r+") as file:
        file["images"][1, 0, 600, 10] = 200
        file["depths"][1, 630, 20] = 9.5
    ((image, depth),) = read_frames(small, [1])
    assert image.shape == (3, 480, 640)
    assert depth.shape == (480, 640)
    assert np.argwhere(image == 200).tolist() == [[0, 10, 600]]
    assert np.argwhere(depth == 9.5).tolist() == [[20, 630]]


def test_frames_come_in_the_order_asked_for(small: Path) -> None:
    found = [(int(i[0, 0, 0]), d[0, 0]) for i, d in read_frames(small, [1, 3, 5])]
    assert found == [(10, 2), (30, 4), (50, 6)]


READ_BY_MATIO = ("images", "depths", "rawDepths", "scenes", "sceneTypes", "names")


def test_all_frames_equal_those_of_an_independent_reader(
    sample: Path,
    tmp_path: Path,
) -> None:
    words = [str(ROOT / "tests/matio_reader.py"), str(sample), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, *words, *READ_BY_MATIO], capture_output=True, text=True
    )
    if done.returncode == 77:
        pytest.skip("libmatio is not installed (Debian: libmatio11)")
    assert done.returncode == 0, done.stderr
    theirs = {name: np.load(tmp_path / f"{name}.npy") for name in READ_BY_MATIO}
    contents = read_contents(sample)
    assert contents.scenes == theirs["scenes"].tolist()
    assert contents.scene_types == theirs["sceneTypes"].tolist()
    assert theirs["names"].shape == (894,)
    assert theirs["names"][0] == "wall"
    assert theirs["images"].shape == (480, 640, 3, 8)
    for name in ("depths", "rawDepths"):
        for index, (image, depth) in enumerate(read_frames(sample, range(8), name)):
            np.testing.assert_array_equal(
                image.transpose(1, 2, 0), theirs["images"][..., index]
            )
            np.testing.assert_array_equal(depth, theirs[name][..., index])
        assert index == 7


# ------------------------------------------------------------------------- subsets


def test_v5_subset_is_read_in_matlab_axes(tmp_path: Path) -> None:
    images = np.zeros((6, 8, 3, 4), np.uint8)
    images[1, 7, 2, 3] = 200
    path = write_subset(tmp_path / "v5.mat", images=images)
    contents = read_contents(path)
    assert contents.version == "v5"
    assert contents.scene_types is None
    assert len(set(contents.scenes)) == 4
    ((image, depth),) = read_frames(path, [3])
    assert np.argwhere(image == 200).tolist() == [[2, 1, 7]]
    assert depth.dtype == np.float32
    assert (depth == 4).all()


def test_v5_subset_may_name_its_scenes_and_hold_one_frame(tmp_path: Path) -> None:
    named = write_subset(
        tmp_path / "named.mat",
        scenes=cells(["a", "a", "b", "c"]),
        sceneTypes=cells(["kitchen", "kitchen", "bedroom", "kitchen"]),
    )
    contents = read_contents(named)
    assert contents.scenes == ["a", "a", "b", "c"]
    assert contents.scene_types == ["kitchen", "kitchen", "bedroom", "kitchen"]
    one = write_subset(
        tmp_path / "one.mat",
        images=np.full((6, 8, 3), 7, np.uint8),
        depths=np.ones((6, 8)),
    )
    ((image, depth),) = read_frames(one, [0])
    assert image.shape == (3, 6, 8)
    assert depth.shape == (6, 8)


# ------------------------------------------------------------------------- defects


def keep(size: int) -> Callable[[Path], object]:
    return lambda path: os.truncate(path, size)


def external_storage(file: h5py.File) -> None:
    del file["depths"]
    file.create_dataset(
        "depths", (6, 640, 480), "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
    )


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((6, 640, 480), "f4")
    layout[:] = h5py.VirtualSource("other.mat", "depths", (6, 640, 480))
    del file["depths"]
    file.create_virtual_dataset("depths", layout)


def link(target: object) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        del file["depths"]
        file["depths"] = target

    return edit(change)


def shorten(file: h5py.File) -> None:
    references = file["scenes"][:, :4]
    del file["scenes"]
    file["scenes"] = references


def superblock(at: int) -> Callable[[Path], object]:
    """Damage one byte of the HDF5 superblock."""

    def change(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[512 + at] ^= 77
        path.write_bytes(content)

    return change


V5: dict[str, object] = {"images": None, "depths": None, "other": np.ones(3)}

DEFECTS: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "missing": (Path.unlink, ["no such file", nyu_file.PUBLISHED_MD5, nyu_file.SOURCE]),
    "a folder": (lambda p: (p.unlink(), p.mkdir()), ["a folder, not a .mat file"]),
    "a socket": (
        lambda p: (p.unlink(), socket.socket(socket.AF_UNIX).bind(str(p))),
        ["not a regular file"],
    ),
    "empty": (keep(0), ["empty;", nyu_file.PUBLISHED_MD5]),
    "HTML": (
        lambda p: p.write_text("\n<!DOCTYPE html><html>404</html>"),
        ["an HTML page"],
    ),
    "other bytes": (lambda p: p.write_bytes(b"\x00" * 999), ["neither a MATLAB v7.3"]),
    "truncated": (keep(3000), ["truncated", "bytes expected and 3,000 found"]),
    "superblock version": (superblock(8), ["superblock version 77"]),
    "superblock flags": (
        superblock(20),
        ["damaged, it cannot be read", "bad flag value for superblock"],
    ),
    "v5 without images": (
        lambda p: write_subset(p, **V5),
        ["MATLAB v5", "it holds: other", "save(..., '-v7.3')"],
    ),
    "v5 larger than memory": (
        lambda p: write_subset(p, images=np.zeros((12000, 16000, 3, 1), np.uint8)),
        ["MATLAB v5 file of 576,001,536 bytes", "save(..., '-v7.3')"],
    ),
    "v5 axes": (
        lambda p: write_subset(p, images=np.zeros((4, 3, 6, 8), np.uint8)),
        ["'images' is uint8 (4, 3, 6, 8), expected uint8 (H, W, 3, N)"],
    ),
    "v5 counts": (
        lambda p: write_subset(p, depths=np.zeros((6, 8, 3))),
        ["numbers of frames differ: {'images': 4, 'depths': 3}"],
    ),
    "no depths": (
        edit(lambda f: f.pop("depths")),
        ["no data set 'depths'", "#refs#, images, rawDepths, sceneTypes, scenes"],
    ),
    "group": (
        edit(lambda f: (f.pop("depths"), f.create_group("depths"))),
        ["'depths' is a group", "the file holds: #refs#, depths, images"],
    ),
    "dtype": (
        replace("depths", data=np.ones((6, 640, 480), "f8"), compression=1),
        ["'depths' is float64 (6, 640, 480), expected float32 (N, 640, 480)"],
    ),
    "rank": (
        replace("depths", data=np.ones((640, 480), "f4"), compression=1),
        ["'depths' is float32 (640, 480), expected float32 (N, 640, 480)"],
    ),
    "axis order": (
        replace("images", data=np.ones((6, 480, 640, 3), "u1"), compression=1),
        ["'images' is uint8 (6, 480, 640, 3)", "its axes are in another order"],
    ),
    "numbers for scenes": (
        replace("scenes", data=np.ones((1, 6))),
        ["'scenes' is float64 (1, 6), expected object references (1, N)"],
    ),
    "counts": (
        edit(shorten),
        ["differ: {'images': 6, 'depths': 6, 'scenes': 4, 'sceneTypes': 6}"],
    ),
    "soft link": (
        link(h5py.SoftLink("/rawDepths")),
        ["'depths' is a soft link; refused"],
    ),
    "external link": (
        link(h5py.ExternalLink("other.mat", "/depths")),
        ["'depths' is a link to another file; refused"],
    ),
    "external storage": (edit(external_storage), ["'depths' is kept in other files"]),
    "virtual": (edit(virtual), ["'depths' is a virtual data set; refused"]),
    "terabytes in chunks": (
        replace("depths", shape=(10**6, 640, 480), dtype="f4", chunks=(1, 640, 480)),
        ["'depths' claims 1,228,800,000,000 bytes", "but 0 are stored"],
    ),
    "terabytes of scenes": (
        replace("scenes", shape=(1, 10**12), dtype=h5py.ref_dtype, chunks=(1, 1000)),
        ["'scenes' claims 8,000,000,000,000 bytes", "but 0 are stored"],
    ),
    "giant chunk": (
        replace(
            "depths",
            data=np.ones((300, 640, 480), "f4"),
            chunks=(300, 640, 480),
            compression=1,
        ),
        ["has chunks of (300, 640, 480)", "smaller ones"],
    ),
    "foreign filter": (
        replace("depths", data=np.ones((6, 640, 480), "f4"), compression="lzf"),
        ["'depths' needs HDF5 filter 32000; re-save it with gzip"],
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_ends_with_code_3_and_one_line(
    defect: str,
    small: Path,
    tmp_path: Path,
) -> None:
    spoil, expected = DEFECTS[defect]
    spoil(small)
    start = time.monotonic()
    code, said = ended(lambda: make(small), tmp_path)
    assert time.monotonic() - start < 10
    assert code == 3, said
    assert said.startswith(f"error: {small}: ")
    assert said.count("\n") == 1
    for words in expected:
        assert words in said
    assert not (tmp_path / "cache").exists()


def test_damaged_pixels_are_one_line(small: Path, tmp_path: Path) -> None:
    with h5py.File(small) as file:
        at = file["images"].id.get_chunk_info(2).byte_offset
    content = bytearray(small.read_bytes())
    content[at : at + 40] = b"\xff" * 40
    small.write_bytes(content)
    code, said = ended(lambda: make(small), tmp_path)
    assert code == 3
    assert "damaged, it cannot be read" in said
    assert said.count("\n") == 1


def test_a_reader_that_crashes_or_stalls_is_one_line(
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    crash, stall = tmp_path / "crash.py", tmp_path / "stall.py"
    crash.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    stall.write_text("import time; time.sleep(60)")
    monkeypatch.setattr(nyu_file, "_READER", crash)
    with pytest.raises(DataError, match="ended with signal SIGSEGV; it is damaged"):
        read_contents(small)
    monkeypatch.setattr(nyu_file, "_READER", stall)
    monkeypatch.setattr(nyu_file, "SILENCE", 0.5)
    start = time.monotonic()
    with pytest.raises(DataError, match="no data for 0 s while it was read"):
        read_contents(small)
    assert time.monotonic() - start < 5


def test_a_frame_cut_off_by_a_crash_is_no_frame(
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut = tmp_path / "cut.py"
    cut.write_text(
        """print('{"shapes": [[3, 480, 640], [480, 640]]}'); print("x" * 999)"""
    )
    monkeypatch.setattr(nyu_file, "_READER", cut)
    with pytest.raises(DataError, match="ended with exit code 0; it is damaged"):
        list(read_frames(small, [0]))


def test_verify_accepts_only_the_published_bytes(
    small: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, said = ended(lambda: make(small, verify=True), tmp_path)
    assert code == 3
    assert f"MD5 {file_md5(small)}, but the published file has" in said
    assert nyu_file.SOURCE in said
    monkeypatch.setattr(nyu_file, "PUBLISHED_MD5", file_md5(small))
    make(small, verify=True)
    content = bytearray(small.read_bytes())
    content[-1] ^= 1
    small.write_bytes(content)
    with pytest.raises(DataError, match="but the published file has"):
        make(small, verify=True)


def test_a_file_locked_by_a_writer_is_retried_then_told(
    small: Path,
    tmp_path: Path,
) -> None:
    with h5py.File(small, "r+"):
        start = time.monotonic()
        code, said = ended(lambda: make(small), tmp_path)
    assert time.monotonic() - start > 2
    assert code == 3
    assert "locked by a program that writes to it" in said
    assert "HDF5_USE_FILE_LOCKING=FALSE" in said


def test_a_lock_that_goes_away_in_time_is_no_error(small: Path) -> None:
    words = (
        "import h5py, sys, time; f = h5py.File(sys.argv[1], 'r+'); print('open', "
        "flush=True); time.sleep(1.2)"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", words, str(small)], stdout=subprocess.PIPE
    )
    assert writer.stdout is not None
    with writer:
        writer.stdout.readline()
        assert len(read_contents(small).scenes) == 6


def test_nothing_is_written_beside_the_file(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "read only"
    folder.mkdir()
    path = small.rename(folder / "small.mat")
    before = path.stat()
    folder.chmod(0o555)
    try:
        data = NyuData(str(tmp_path / "cache"), str(path), batch_size=1)
        data.setup()
    finally:
        folder.chmod(0o755)
    assert len(data.splits["train"]) == 4
    assert [p.name for p in folder.iterdir()] == ["small.mat"]
    assert len(list((tmp_path / "cache").iterdir())) == 1
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (
        before.st_mtime_ns,
        before.st_size,
    )


@pytest.mark.parametrize("kind", ["symlink", "long", "non-ASCII", "words", "bytes"])
def test_unusual_paths_work(kind: str, small: Path) -> None:
    name = {
        "symlink": "link.mat",
        "long": "/".join(["d" * 200] * 4) + "/n.mat",
        "non-ASCII": "küche/厨房 🍳.mat",
        "words": "a b,c=(d)'\"\n.mat",
        "bytes": os.fsdecode(b"\xff\xfe.mat"),
    }[kind]
    path = small.parent / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "symlink":
        path.symlink_to(small)
    else:
        small.rename(path)
    assert len(read_contents(path).scenes) == 6


def test_the_command_itself_ends_with_code_3(small: Path) -> None:
    """As a user starts it: a fresh interpreter, nothing inherited."""
    os.truncate(small, 2000)
    words = (
        "import sys; from imex_experiments.process.command import run_command; "
        "from imex_experiments.data.nyu.data_module import NyuData; "
        "run_command(lambda: NyuData(sys.argv[2], sys.argv[1]).setup())"
    )
    done = subprocess.run(
        [sys.executable, "-c", words, str(small), str(small.parent / "cache")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3
    assert done.stderr.startswith(f"error: {small}: truncated")
    assert done.stderr.count("\n") == 1


MEMORY = """
import sys
from pathlib import Path
from imex_experiments.data.nyu.data_module import NyuData
import resource
data = NyuData(sys.argv[2], sys.argv[1], counts=[8, 2, 1], image_size=[480, 640])
data.setup()
assert [len(data.splits[k]) for k in ("train", "val", "test")] == [8, 2, 1]
status = Path("/proc/self/status").read_text()
own = int(status.split("VmHWM:")[1].split()[0])
children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(own / 1e6, children / 1e6)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_eleven_frames_of_1449_take_less_than_a_gigabyte(tmp_path: Path) -> None:
    path = tmp_path / "sparse.mat"
    number = 1449
    used = [*range(8), 100, 101, 1448]
    kinds = ["kitchen" if i in used else "bedroom" for i in range(number)]
    scenes = [f"s_{i}" for i in range(number)]
    write_small(path)
    with h5py.File(path, "r+") as file:
        for name, dtype, inner in (
            ("images", "u1", (3, 640, 480)),
            ("depths", "f4", (640, 480)),
        ):
            del file[name]
            data = file.create_dataset(name, (number, *inner), dtype, fill_time="never")
            for index in used:
                data[index] = 1
        for name, words in (("scenes", scenes), ("sceneTypes", kinds)):
            known = {}
            for word in set(words):
                codes = np.array([[ord(letter)] for letter in word], "u2")
                text = file.create_dataset(f"#refs#/{name}_{word}", data=codes)
                known[word] = text.ref
            del file[name]
            cell = file.create_dataset(name, (1, number), h5py.ref_dtype)
            cell[0] = [known[word] for word in words]
    assert path.stat().st_size > 3e9
    assert path.stat().st_blocks * 512 < 1e8
    words = [MEMORY.replace("counts=", "scene_types=['kitchen'], counts=")]
    words += [str(path), str(tmp_path / "cache")]
    done = subprocess.run(
        [sys.executable, "-c", *words], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    own, children = map(float, done.stdout.split())
    print(f"data module {own:.2f} GB, reader at most {children:.2f} GB")
    assert 0.1 < own < 1
    assert 0.05 < children < 1


# ---------------------------------------------------------------------------- fuzz


def mutated(content: bytes, path: Path, rng: np.random.Generator) -> None:
    """Write one damaged copy: flipped bits, a cut, overwritten words, shapes or links."""
    kind = rng.choice(["bits", "cut", "words", "shape", "link", "near"])
    damaged = bytearray(content)
    if kind == "bits":
        for at in rng.integers(0, len(damaged), rng.integers(1, 30)):
            damaged[at] ^= 1 << rng.integers(8)
    elif kind == "near":  # metadata lie at the beginning
        for at in rng.integers(512, 4096, rng.integers(1, 6)):
            damaged[at] = rng.integers(256)
    elif kind == "words":
        value = rng.choice([0, 1, 2**32 - 1, 2**63 - 1, len(damaged)])
        at = int(rng.integers(64, len(damaged) // 8)) * 8
        struct.pack_into("<Q", damaged, at, int(value))
    elif kind == "cut":
        del damaged[rng.integers(0, len(damaged)) :]
    path.write_bytes(damaged)
    if kind in ("shape", "link"):
        name = rng.choice(["images", "depths", "scenes", "sceneTypes"])
        with h5py.File(path, "r+") as file:
            del file[name]
            if kind == "link":
                file[name] = rng.choice(
                    [h5py.SoftLink("/rawDepths"), h5py.ExternalLink("/etc/passwd", "x")]
                )
            else:
                sizes = [1, 3, len(SCENES), 480, 640]
                shape = tuple(map(int, rng.choice(sizes, rng.integers(1, 5))))
                shape = shape if math.prod(shape) < 6e6 else shape[:2]
                data = np.ones(shape, rng.choice(["u1", "f4", "f8"]))
                file.create_dataset(name, data=data, compression=1)


def outcome(path: Path) -> str:
    """`read`, or the words of a DataError after the path."""
    start = time.monotonic()
    try:
        contents = read_contents(path)
        number = len(list(read_frames(path, range(len(contents.scenes)))))
        assert number == len(contents.scenes)
        told = "read"
    except DataError as error:
        told = str(error).removeprefix(f"{path}: ")
        assert "\n" not in told
        assert len(told) > 10
    assert time.monotonic() - start < 2 * nyu_file.SILENCE
    return told


def fuzz(folder: Path, number: int) -> list[str]:
    pristine = write_small(folder / "small.mat").read_bytes()
    subset = write_subset(folder / "v5.mat").read_bytes()
    scipy.io.loadmat(folder / "v5.mat")
    path = folder / "mutated.mat"
    told = []
    for seed in range(number):
        rng = np.random.default_rng(seed)
        if seed % 5 == 4:
            damaged = bytearray(subset)
            for at in rng.integers(116, len(damaged), rng.integers(1, 9)):
                damaged[at] = rng.integers(256)
            path.write_bytes(damaged)
        else:
            mutated(pristine, path, rng)
        told.append(outcome(path))
    return told


def test_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    told = fuzz(tmp_path, 30)
    assert sum(words == "read" for words in told) < 20
    assert len({words.split(",")[0] for words in told}) > 5


@pytest.mark.slow
def test_two_thousand_mutated_files_are_read_or_refused(tmp_path: Path) -> None:
    told = fuzz(tmp_path, 2000)
    assert any("refused, nothing was read" in words for words in told)
    assert any("truncated" in words for words in told)
