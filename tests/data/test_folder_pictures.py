"""Every format through one door: what is read, what is refused, and that nothing runs."""

import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from folder_sets import pixels, save
from PIL import ExifTags, Image

from imex_experiments.data.folder import pictures
from imex_experiments.data.folder.pictures import read_depth, read_image, read_labels
from imex_experiments.errors import DataError

GREY, COLOUR = pixels(5, 7), pixels(5, 7, 3)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".npy", ".gif"])
def test_grey_images_are_read_exactly(suffix: str, tmp_path: Path) -> None:
    path = save(tmp_path / f"a{suffix}", GREY)
    found = read_image(path)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, GREY[None])


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".npy", ".webp", ".PNG"])
def test_colour_images_are_read_exactly(suffix: str, tmp_path: Path) -> None:
    options = {"lossless": True} if suffix == ".webp" else {}
    path = save(tmp_path / f"a{suffix}", COLOUR, **options)
    np.testing.assert_array_equal(read_image(path, 3), COLOUR.transpose(2, 0, 1))


def test_jpeg_is_close(tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.arange(0, 256, 8, dtype=np.uint8), (32, 32)).copy()
    found = read_image(save(tmp_path / "a.jpg", smooth, quality=95))
    assert np.abs(found[0].astype(int) - smooth).max() <= 8


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_picture_of_a_camera_held_upright_is_turned(
    suffix: str, tmp_path: Path
) -> None:
    """Orientation 6: the first row of the file is the right side of the picture."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    path = tmp_path / f"a{suffix}"
    Image.fromarray(GREY).save(path, exif=exif)
    turned = np.rot90(GREY, -1)
    np.testing.assert_array_equal(read_image(path)[0], turned)
    np.testing.assert_array_equal(read_labels(path), turned)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_sixteen_bits_are_numbers(suffix: str, tmp_path: Path) -> None:
    deep = pixels(5, 7, high=65536)
    path = save(tmp_path / f"a{suffix}", deep)
    found = read_image(path)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0], deep)
    np.testing.assert_array_equal(read_depth(path), deep)
    np.testing.assert_array_equal(read_labels(path), deep)


def test_alpha_is_left_out_and_a_palette_becomes_colours(tmp_path: Path) -> None:
    image = Image.fromarray(COLOUR)
    rgba = image.copy()
    rgba.putalpha(100)
    rgba.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], COLOUR[..., 0])
    few = image.quantize(4)
    few.save(tmp_path / "p.png")
    expected = np.array(few.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_image(tmp_path / "p.png"), expected)


def test_a_palette_of_colours_gives_indices_and_one_of_greys_gives_greys(
    tmp_path: Path,
) -> None:
    indices = pixels(6, 6, high=3)
    label = Image.fromarray(indices, "P")
    label.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
    label.save(tmp_path / "colours.png")
    np.testing.assert_array_equal(read_labels(tmp_path / "colours.png"), indices)

    mask = np.where(indices > 0, 255, 0).astype(np.uint8)
    for name, picture in {
        "grey.gif": mask,  # GIF has nothing but palettes
        "white.gif": np.full((6, 6), 255, np.uint8),
        "three.png": np.repeat(mask[..., None], 3, axis=2),
    }.items():
        path = save(tmp_path / name, picture)
        expected = picture if picture.ndim == 2 else mask
        np.testing.assert_array_equal(read_labels(path), expected)
    Image.fromarray(mask > 0).save(tmp_path / "bits.png")  # one bit a pixel
    np.testing.assert_array_equal(read_labels(tmp_path / "bits.png"), mask)


def refused(path: Path, read: object = read_image) -> str:
    with pytest.raises(DataError) as caught:
        read(path)  # type: ignore[operator]
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 3
    return str(caught.value)


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("<html>")
    assert "not a readable image" in refused(tmp_path / "a.png")
    (tmp_path / "b.npy").write_text("no array")
    assert "not a readable image" in refused(tmp_path / "b.npy")
    whole = save(tmp_path / "c.png", pixels(64, 64)).read_bytes()
    (tmp_path / "c.png").write_bytes(whole[: len(whole) // 2])
    assert "not a readable image" in refused(tmp_path / "c.png")
    assert "no such file" in refused(tmp_path / "d.png")
    save(tmp_path / "e.png", COLOUR)
    assert "labels as colours" in refused(tmp_path / "e.png", read_labels)
    assert "a depth has one channel" in refused(tmp_path / "e.png", read_depth)
    frames = [Image.fromarray(pixels(4, 4, seed=i)) for i in range(3)]
    frames[0].save(tmp_path / "f.tif", save_all=True, append_images=frames[1:])
    assert "3 pages" in refused(tmp_path / "f.tif")
    save(tmp_path / "g.npy", np.array([[1.0, np.nan]]))
    assert "NaN or Inf" in refused(tmp_path / "g.npy")
    assert np.isnan(read_depth(tmp_path / "g.npy")).any()
    save(tmp_path / "h.npy", np.array([[0.5, 1.0]]))
    assert "not whole numbers" in refused(tmp_path / "h.npy", read_labels)


def test_links_and_pipes_are_refused_without_waiting(tmp_path: Path) -> None:
    save(tmp_path / "a.png", GREY)
    (tmp_path / "link.png").symlink_to(tmp_path / "a.png")
    assert "a link" in refused(tmp_path / "link.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert "not a regular file" in refused(tmp_path / "pipe.png")


def test_bombs_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture of many pixels in few bytes; an array whose header promises a terabyte."""
    monkeypatch.setattr(pictures, "MOST_PIXELS", 100)
    path = save(tmp_path / "a.png", np.zeros((20, 20), np.uint8))
    assert "400 pixels" in refused(path)
    with (tmp_path / "b.npy").open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (2**20, 2**20)}
        )
    assert "1,099,511,627,776 pixels" in refused(tmp_path / "b.npy")


def test_arrays_are_read_without_pickle(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    assert "expected numbers" in refused(tmp_path / "a.npy")
    with zipfile.ZipFile(tmp_path / "b.npy", "w") as file:
        file.writestr("x.npy", "x")
    assert "not a readable image" in refused(tmp_path / "b.npy")


def test_other_formats_are_not_opened_under_a_known_name(tmp_path: Path) -> None:
    """Pillow hands EPS to Ghostscript."""
    eps = (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
    )
    (tmp_path / "a.png").write_bytes(eps)
    assert "not a readable image" in refused(tmp_path / "a.png")
