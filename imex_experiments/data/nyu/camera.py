"""Render image, depth and labels of a room as a Kinect records them, by casting rays.

World axes: x right, y ahead, z up, as in `rooms`. Camera axes: x right, y down, z ahead. A
depth is the z of a point in camera axes, not its distance.

Shapes: image (3, H, W) uint8; depth (H, W) float32; labels (H, W) uint16, an index into NAMES
counted from 1; instances (H, W) uint8, counted from 1 among equal labels.
"""

from dataclasses import dataclass

import numpy as np

from imex_experiments.data.nyu.rooms import (
    CHECKER,
    NAMES,
    NOISE,
    STRIPES,
    TILES,
    Box,
    Paint,
    Room,
    Vector,
)

SIZE = (480, 640)
FOCAL = 519.0
"""Focal length of the Kinect's colour camera, in pixels of a 640 x 480 image."""

NEAREST, FARTHEST = 0.7, 10.0
WHITE_BORDER = 8
"""Pixels of white around each image, as in the published frames."""

DISPARITY_STEP = 0.0028
"""Resolution of depths, in 1/m: the Kinect resolves this step times z^2 at depth z."""

SHADOW = 0.075 * FOCAL
"""Baseline times focal length: the shadow of the projector at a jump from depth z to Z is
SHADOW (1/z - 1/Z) pixels wide."""


@dataclass(frozen=True)
class Camera:
    """A position, and angles in radians: yaw from x towards y, pitch downwards."""

    position: Vector
    yaw: float
    pitch: float

    @property
    def axes(self) -> np.ndarray:
        """Camera axes right, down, ahead in world axes, one a row, (3, 3)."""
        cosine, sine = np.cos(self.yaw), np.sin(self.yaw)
        ahead = np.array(
            [
                cosine * np.cos(self.pitch),
                sine * np.cos(self.pitch),
                -np.sin(self.pitch),
            ]
        )
        right = np.array([sine, -cosine, 0.0])
        return np.stack([right, np.cross(ahead, right), ahead])


def place_cameras(room: Room, number: int, rng: np.random.Generator) -> list[Camera]:
    """Return cameras that look along the room, not inside or close to furniture."""
    width, length, _ = room.size
    cameras: list[Camera] = []
    for _ in range(100 * number):
        position = (
            width * rng.uniform(0.3, 0.7),
            length * rng.uniform(0.06, 0.22),
            rng.uniform(1.25, 1.6),
        )
        near = [_distance(box, position) for box in room.boxes]
        if min(near, default=NEAREST) >= NEAREST:
            yaw = np.pi / 2 + rng.uniform(-0.4, 0.4)
            cameras.append(Camera(position, yaw, rng.uniform(0.08, 0.26)))
        if len(cameras) == number:
            return cameras
    raise AssertionError("the front of a room is never furnished")


def _distance(box: Box, position: Vector) -> float:
    outside = np.maximum(
        np.subtract(box.low, position), np.subtract(position, box.high)
    )
    return float(np.linalg.norm(outside.clip(min=0)))


# ------------------------------------------------------------------------ casting


@dataclass
class Hits:
    """The first face on each ray: its depth, axis and surface number."""

    depth: np.ndarray
    axis: np.ndarray
    surface: np.ndarray


@dataclass(frozen=True)
class View:
    """A rendered frame."""

    image: np.ndarray
    depth: np.ndarray
    raw_depth: np.ndarray
    labels: np.ndarray
    instances: np.ndarray


def render(room: Room, camera: Camera, rng: np.random.Generator) -> View:
    """Render one frame as a Kinect records it."""
    height, width = SIZE
    origin = np.array(camera.position, np.float32)
    across = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) / FOCAL
    down = (np.arange(height, dtype=np.float32) + 0.5 - height / 2) / FOCAL
    axes = camera.axes.astype(np.float32)
    # Rays have z = 1 in camera axes, so the parameter along a ray is the depth.
    rays = (
        axes[0, :, None, None] * across[None, None, :]
        + axes[1, :, None, None] * down[None, :, None]
        + axes[2, :, None, None]
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        hits = _meet_room(room, origin, rays)
        for number, box in enumerate(room.boxes):
            _meet_box(box, 6 + number, origin, rays, axes, hits)
    image = _shade(room, origin, rays, hits, rng)
    labels, instances = _name(room, hits.surface)
    true = hits.depth.clip(NEAREST, FARTHEST)
    raw, depth = _measure(true, rng)
    return View(image, depth, raw, labels, instances)


def _meet_room(room: Room, origin: np.ndarray, rays: np.ndarray) -> Hits:
    """Intersect rays with walls, floor and ceiling.

    Surfaces 0 ... 5 are low x, low y, low z, high x, high y, high z.
    """
    size = np.array(room.size, np.float32)
    forward = rays > 0
    ends = np.where(forward, size[:, None, None], 0) - origin[:, None, None]
    ways = np.where(rays == 0, np.inf, ends / rays)
    axis = ways.argmin(0)
    depth = np.take_along_axis(ways, axis[None], 0)[0]
    high = np.take_along_axis(forward, axis[None], 0)[0]
    return Hits(depth.astype(np.float32), axis, axis + 3 * high)


def _meet_box(
    box: Box,
    surface: int,
    origin: np.ndarray,
    rays: np.ndarray,
    axes: np.ndarray,
    hits: Hits,
) -> None:
    """Replace hits by those with a box where the box is nearer."""
    window = _window(box, origin, axes)
    if window is None:
        return
    part = rays[:, *window]
    low = (np.array(box.low, np.float32) - origin)[:, None, None] / part
    high = (np.array(box.high, np.float32) - origin)[:, None, None] / part
    entry, leave = np.minimum(low, high), np.maximum(low, high).min(0)
    axis = entry.argmax(0)
    depth = entry.max(0)
    nearer = (depth > 0) & (depth < leave) & (depth < hits.depth[window])
    hits.depth[window][nearer] = depth[nearer]
    hits.axis[window][nearer] = axis[nearer]
    hits.surface[window][nearer] = surface


def _window(
    box: Box, origin: np.ndarray, axes: np.ndarray
) -> tuple[slice, slice] | None:
    """Return rows and columns in which the box may be visible; None if it is not."""
    height, width = SIZE
    corners = np.stack(
        np.meshgrid(*zip(box.low, box.high, strict=True)), axis=-1
    ).reshape(-1, 3)
    x, y, z = axes @ (corners - origin).T
    if (z < 0.05).all():
        return None
    if (z < 0.05).any():
        return np.s_[0:height], np.s_[0:width]
    columns, rows = FOCAL * x / z + width / 2, FOCAL * y / z + height / 2
    top, bottom = max(0, int(rows.min()) - 1), min(height, int(rows.max()) + 2)
    left, right = max(0, int(columns.min()) - 1), min(width, int(columns.max()) + 2)
    if top >= bottom or left >= right:
        return None
    return np.s_[top:bottom], np.s_[left:right]


# ------------------------------------------------------------------------ shading


def _paints(room: Room) -> list[Paint]:
    left, near, right, far = room.walls
    faces = [left, near, room.floor, right, far, room.ceiling]
    return faces + [box.paint for box in room.boxes]


def _shade(
    room: Room,
    origin: np.ndarray,
    rays: np.ndarray,
    hits: Hits,
    rng: np.random.Generator,
) -> np.ndarray:
    points = origin[:, None, None] + hits.depth * rays
    paints = _paints(room)
    weight = _pattern(points, hits, paints, rng)
    first, second = (
        np.array([getattr(paint, name) for paint in paints], np.float32)[hits.surface]
        for name in ("colour", "other")
    )
    colour = first + weight[..., None] * (second - first)
    light = _lighting(room, points, rays, hits)
    tint = np.array([1.0, 0.96, 0.88], np.float32) * rng.uniform(0.95, 1.05, 3)
    linear = (colour * light[..., None] * tint).astype(np.float32)
    grey = 255 * np.sqrt(linear)  # the square root stands for a display's gamma
    grey += 4 * rng.standard_normal(grey.shape, np.float32)
    image = grey.clip(0, 250).astype(np.uint8)
    frame = WHITE_BORDER
    image[:frame], image[-frame:], image[:, :frame], image[:, -frame:] = (255,) * 4
    return image.transpose(2, 0, 1)


def _pattern(
    points: np.ndarray, hits: Hits, paints: list[Paint], rng: np.random.Generator
) -> np.ndarray:
    """Return the share of the second colour in each pixel, (H, W) in [0, 1]."""
    period = np.array([paint.period for paint in paints], np.float32)[hits.surface]
    kind = np.array([paint.pattern for paint in paints])[hits.surface]
    u = np.where(hits.axis == 0, points[1], points[0]) / period
    v = np.where(hits.axis == 2, points[1], points[2]) / period
    column, row = np.floor(u).astype(int), np.floor(v).astype(int)
    speckle = rng.random((64, 64), np.float32)[column % 64, row % 64]
    seam = (u - column < 0.05) | (v - row < 0.05)
    choices = [(column + row) % 2, column % 2, speckle, seam]
    kinds = [kind == pattern for pattern in (CHECKER, STRIPES, NOISE, TILES)]
    return np.select(kinds, choices, 0).astype(np.float32)


def _lighting(
    room: Room, points: np.ndarray, rays: np.ndarray, hits: Hits
) -> np.ndarray:
    """Return the light of a lamp and of the surroundings, darker in corners, (H, W)."""
    lamp = np.array(room.light, np.float32)[:, None, None] - points
    distance = np.sqrt((lamp**2).sum(0)) + 1e-3
    index = hits.axis[None]
    facing = -np.sign(np.take_along_axis(rays, index, 0)[0])
    cosine = (facing * np.take_along_axis(lamp, index, 0)[0] / distance).clip(min=0)
    size = np.array(room.size, np.float32)[:, None, None]
    gaps = np.minimum(points, size - points).clip(min=0)
    np.put_along_axis(gaps, index, np.inf, 0)
    corner = 1 - 0.45 * np.exp(-gaps.min(0) / 0.25)
    return corner * (0.3 + 1.1 * cosine / (1 + 0.12 * distance**2))


def _name(room: Room, surface: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    names = ["wall", "wall", "floor", "wall", "wall", "ceiling"]
    names += [box.name for box in room.boxes]
    labels = np.array([1 + NAMES.index(name) for name in names], np.uint16)
    instances = [1 + names[:at].count(name) for at, name in enumerate(names)]
    return labels[surface], np.array(instances, np.uint8)[surface]


# ---------------------------------------------------------------------- measuring


def _measure(
    true: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return quantised depths with holes of 0, and with the holes filled."""
    steps = np.rint(1 / (true * DISPARITY_STEP))
    quantised = (1 / (steps * DISPARITY_STEP)).astype(np.float32)
    quantised = quantised.clip(NEAREST, FARTHEST)
    holes = _shadows(true) | _blots(rng) | (true > 8)
    frame = WHITE_BORDER
    holes[:frame] = holes[-frame:] = True
    holes[:, :frame] = holes[:, -frame:] = True
    raw = np.where(holes, 0, quantised).astype(np.float32)
    return raw, np.where(holes, true, quantised).astype(np.float32)


def _shadows(depth: np.ndarray) -> np.ndarray:
    """Return the pixels that a nearer object on their right hides from the projector."""
    shadow = np.zeros(depth.shape, bool)
    for shift in range(1, 32):
        jump = SHADOW * (1 / depth[:, shift:] - 1 / depth[:, :-shift])
        shadow[:, :-shift] |= jump >= shift
    return shadow


def _blots(rng: np.random.Generator) -> np.ndarray:
    """Return random patches without a measurement, like dark or shiny surfaces."""
    height, width = SIZE
    rows, columns = np.ogrid[:height, :width]
    blots = np.zeros(SIZE, bool)
    for _ in range(int(rng.integers(4, 9))):
        row, column = rng.uniform(0, height), rng.uniform(0, width)
        tall, wide = rng.uniform(4, 26, 2)
        blots |= ((rows - row) / tall) ** 2 + ((columns - column) / wide) ** 2 < 1
    return blots & (rng.random(SIZE, np.float32) < 0.9)
