"""Rendered rooms: geometry against closed forms, and the layout of the published file."""

import re
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import h5py
import matplotlib
import numpy as np
import pytest
from nyu_files import ended
from PIL import Image

from imex_experiments.data.nyu.camera import (
    DISPARITY_STEP,
    FARTHEST,
    FOCAL,
    NEAREST,
    WHITE_BORDER,
    Camera,
    View,
    place_cameras,
    render,
)
from imex_experiments.data.nyu.file import file_md5
from imex_experiments.data.nyu.rooms import NAMES, SCENE_TYPES, Paint, Room, make_room
from imex_experiments.data.nyu.sample import make_nyu_sample
from imex_experiments.plots.contact_sheet import colour_depth, contact_sheet

pytest_plugins = ("nyu_fixtures",)

GREY = Paint((0.5, 0.5, 0.5))
STEP = DISPARITY_STEP  # a depth z is told to within STEP z^2 / 2


def bare(size: tuple[float, float, float] = (6.0, 8.0, 3.0)) -> Room:
    return Room(size, (GREY,) * 4, GREY, GREY, (3.0, 2.0, 2.8))


def view(room: Room, camera: Camera) -> View:
    return render(room, camera, np.random.default_rng(0))


def test_a_wall_ahead_has_one_depth_whatever_the_ray() -> None:
    """Depth is z, not the length of the ray: a frontal wall is flat."""
    found = view(bare(), Camera((3.0, 4.0, 1.5), np.pi / 2, 0.0))
    wall = found.depth[(found.labels == 1 + NAMES.index("wall"))]
    middle = found.depth[200:280, 200:440]
    assert middle == pytest.approx(4.0, abs=STEP * 8.1)
    assert wall.min() >= 4 - STEP * 8.1


def test_the_floor_lies_where_a_pinhole_sees_it() -> None:
    """Row v below the horizon sees the floor at depth FOCAL height / v."""
    found = view(bare((60.0, 8.0, 3.0)), Camera((30.0, 0.5, 1.5), np.pi / 2, 0.0))
    for row in (380, 420, 470):
        expected = FOCAL * 1.5 / (row + 0.5 - 240)
        assert found.depth[row, 320] == pytest.approx(expected, abs=STEP * expected**2)
        assert found.labels[row, 320] == 1 + NAMES.index("floor")


def test_right_is_right_and_up_is_up() -> None:
    room = bare()
    room.add("box", (3.5, 6.0, 1.9), (3.9, 6.4, 2.2), Paint((0.9, 0.0, 0.0)))
    found = view(room, Camera((3.0, 2.0, 1.5), np.pi / 2, 0.0))
    rows, columns = np.nonzero(found.labels == 1 + NAMES.index("box"))
    assert (rows.min(), rows.max()) == pytest.approx(
        (240 - FOCAL * 0.7 / 4, 240 - FOCAL * 0.4 / 4.4), abs=1
    )
    assert (columns.min(), columns.max()) == pytest.approx(
        (320 + FOCAL * 0.5 / 4.4, 320 + FOCAL * 0.9 / 4), abs=1
    )
    assert found.depth[rows, columns].min() == pytest.approx(4.0, abs=STEP * 8.1)
    red = found.image[:, rows, columns].mean(1)
    assert red[0] > 3 * red[1]


def test_boxes_hide_what_is_behind_them_whatever_their_order() -> None:
    depths = []
    boxes = [
        ("box", (2.5, 4.0, 1.2), (3.5, 4.5, 1.8), GREY),
        ("sofa", (2.0, 6.0, 1.0), (4.0, 6.5, 2.0), GREY),
    ]
    for order in (boxes, boxes[::-1]):
        room = bare()
        for box in order:
            room.add(*box)
        found = view(room, Camera((3.0, 1.0, 1.5), np.pi / 2, 0.0))
        assert found.labels[240, 320] == 1 + NAMES.index("box")
        depths.append(found.depth)
    np.testing.assert_array_equal(*depths)
    assert depths[0][240, 320] == pytest.approx(3.0, abs=STEP * 4.6)


def test_a_box_beside_the_camera_is_seen_on_its_side_alone() -> None:
    """It reaches behind the camera, where lines meet it that rays do not."""
    room = bare()
    room.add("box", (3.8, 1.0, 1.2), (4.2, 6.0, 1.8), GREY)
    found = view(room, Camera((3.0, 4.0, 1.5), np.pi / 2, 0.0))
    _, columns = np.nonzero(found.labels == 1 + NAMES.index("box"))
    assert columns.size
    assert columns.min() > 320


@pytest.mark.parametrize("kind", sorted(set(SCENE_TYPES)))
def test_rooms_look_as_a_kinect_sees_them(kind: str) -> None:
    rng = np.random.default_rng(5)
    room = make_room(kind, rng)
    first, second = (render(room, c, rng) for c in place_cameras(room, 2, rng))
    assert first.image.shape == (3, 480, 640)
    assert first.image.dtype == np.uint8
    assert not np.array_equal(first.depth, second.depth)
    assert float(first.depth.min()) >= NEAREST
    assert float(first.depth.max()) <= FARTHEST
    assert first.depth.std() > 0.3
    assert first.image[:, 20:-20, 20:-20].std() > 15
    holes = first.raw_depth == 0
    assert 0.03 < holes.mean() < 0.3
    np.testing.assert_array_equal(first.raw_depth[~holes], first.depth[~holes])
    frame = first.image.copy()
    frame[:, WHITE_BORDER:-WHITE_BORDER, WHITE_BORDER:-WHITE_BORDER] = 255
    assert (frame == 255).all()
    assert len(np.unique(first.labels)) > 5


def test_raw_depths_are_told_in_steps_of_disparity() -> None:
    found = view(bare(), Camera((3.0, 1.0, 1.5), 1.2, 0.1))
    raw = found.raw_depth[found.raw_depth > 0].astype(np.float64)
    steps = 1 / (raw * DISPARITY_STEP)
    np.testing.assert_allclose(steps, steps.round(), atol=1e-3)


def test_a_frame_takes_well_under_a_third_of_a_second() -> None:
    rng = np.random.default_rng(0)
    room = make_room("kitchen", rng)
    (camera,) = place_cameras(room, 1, rng)
    start = time.process_time()
    render(room, camera, rng)
    assert time.process_time() - start < 0.3


# -------------------------------------------------------------------------- layout

LAYOUT = {
    "images": ("uint8", (8, 3, 640, 480), "uint8"),
    "depths": ("float32", (8, 640, 480), "single"),
    "rawDepths": ("float32", (8, 640, 480), "single"),
    "labels": ("uint16", (8, 640, 480), "uint16"),
    "instances": ("uint8", (8, 640, 480), "uint8"),
    "accelData": ("float32", (4, 8), "single"),
    "scenes": ("object", (1, 8), "cell"),
    "sceneTypes": ("object", (1, 8), "cell"),
    "rawDepthFilenames": ("object", (1, 8), "cell"),
    "rawRgbFilenames": ("object", (1, 8), "cell"),
    "names": ("object", (1, 894), "cell"),
}


def test_layout_is_that_of_the_published_file(sample: Path) -> None:
    with h5py.File(sample) as file:
        assert set(file) == {*LAYOUT, "#refs#"}
        assert file.userblock_size == 512
        for name, (dtype, shape, matlab) in LAYOUT.items():
            data = file[name]
            found = (str(data.dtype), data.shape, data.attrs["MATLAB_class"].decode())
            assert found == (dtype, shape, matlab), name
        text = file[file["sceneTypes"][0, 2]]
        assert (text.dtype, text.shape) == (np.dtype("u2"), (14, 1))
        assert text.attrs["MATLAB_class"] == b"char"
        assert text.attrs["MATLAB_int_decode"] == 2
        assert bytes(text[:, 0]).decode("utf-16-le") == "office_kitchen"
    header = sample.read_bytes()[:512]
    assert header.startswith(b"MATLAB 7.3 MAT-file")
    assert header[124:128] == b"\x00\x02IM"
    assert not any(header[128:])


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        make_nyu_sample(tmp_path / name, frames=1, seed=seed)
    first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == again != other


# ------------------------------------------------------------------------- commands


def script(name: str, *words: str) -> Callable[[], None]:
    """The main of a script, called with words."""

    def act() -> None:
        sys.argv = [name, *words]
        import_module(f"imex_experiments.commands.{name}").main()

    return act


def test_the_commands_make_and_inspect_a_file(tmp_path: Path) -> None:
    made, sheet = tmp_path / "made.mat", tmp_path / "sheet.png"
    make = script("make_nyu_sample", f"out={made}", "frames=3", "seed=1")
    assert ended(make, tmp_path) == (0, "")
    assert "rendering rooms" in (tmp_path / "stdout.txt").read_text()
    assert ended(make, tmp_path) == (3, f"error: {made}: exists; choose a new file\n")
    assert ended(script("make_nyu_sample", "out=x", "frames=0"), tmp_path)[0] == 2

    words = [f"path={made}", f"out={sheet}", "frames=2", "depth=rawDepths"]
    assert ended(script("inspect_nyu", *words), tmp_path) == (0, "")
    told = (tmp_path / "stdout.txt").read_text()
    with h5py.File(made) as file:
        raw = file["rawDepths"][...]
    extent = f"rawDepths: {raw[raw > 0].min():.3f} ... {raw.max():.3f} m, "
    share = f"{100 * (raw == 0).mean():.2f} % of the pixels invalid"
    md5 = f"MD5 {file_md5(made)}: not the published file"
    for line in (extent + share, md5, "3 x 640 x 480"):
        assert line in told
    assert re.search(r"kitchen +│ 1 +│ 2 ", told)
    assert re.search(r"office_kitchen +│ 1 +│ 1 ", told)
    with Image.open(sheet) as image:
        assert image.width > 480
    nowhere = script("inspect_nyu", f"path={made}", f"out={made}/x.png")
    code, said = ended(nowhere, tmp_path)
    assert code == 6
    assert said.count("\n") == 1


# -------------------------------------------------------------------- contact sheet


def test_depths_are_coloured_by_metres_and_holes_stay_white() -> None:
    depth = np.array([[1.0, 3.0, 5.0, 0.0, np.nan]])
    colours = colour_depth(depth, 1.0, 5.0)[0]
    viridis = matplotlib.colormaps["viridis"]([0.0, 0.5, 1.0], bytes=True)[:, :3]
    np.testing.assert_array_equal(colours[:3], viridis)
    assert (colours[3:] == 255).all()


def test_sheet_shows_every_image_above_its_depth() -> None:
    images = [np.full((3, 48, 64), value, np.uint8) for value in (10, 90)]
    depths = [np.full((48, 64), value) for value in (1.0, 3.0)]
    sheet = contact_sheet(images, depths, ["a", "b"])
    image_at, depth_at = 60, 60 + 180 + 6
    for column, grey, share in ((100, 10, 0.0), (350, 90, 1.0)):
        assert sheet[image_at, column].tolist() == [grey] * 3
        colour = matplotlib.colormaps["viridis"](share, bytes=True)[:3]
        assert sheet[depth_at, column].tolist() == list(colour)


def test_sheet_without_a_valid_depth_can_be_drawn() -> None:
    sheet = contact_sheet([np.zeros((3, 8, 8), np.uint8)], [np.zeros((8, 8))], ["x"])
    assert sheet.shape[2] == 3
