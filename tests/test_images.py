"""Reading every kind of image, refusing every kind of bad one, crops and compression."""

import io
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from fpkit.folders import list_images, list_models
from fpkit.images import (
    ImageReadError,
    decode_image,
    grid_crops,
    jpeg,
    quantise,
    random_crop,
    read_image,
    read_images,
    write_png,
)

COLOURS = np.array(
    [
        [[255, 0, 0], [0, 255, 0], [0, 0, 255]],
        [[0, 0, 0], [255, 255, 255], [10, 100, 200]],
    ],
    dtype=np.uint8,
)  # 2 rows, 3 columns: a transposed or flipped result cannot pass


def expected(rgb: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rgb.astype(np.float32).transpose(2, 0, 1) / 255)


def saved(path, image: Image.Image, **options):
    image.save(path, **options)
    return path


# ---- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif", "webp"])
def test_lossless_formats_give_the_stored_values(tmp_path, suffix):
    options = {"lossless": True} if suffix == "webp" else {}
    image = read_image(saved(tmp_path / f"a.{suffix}", Image.fromarray(COLOURS), **options))
    assert image.shape == (3, 2, 3) and image.dtype == torch.float32
    assert torch.equal(image, expected(COLOURS))


def test_content_decides_the_format_not_the_name(tmp_path):
    path = saved(tmp_path / "really_a_png.jpg", Image.fromarray(COLOURS), format="PNG")
    assert torch.equal(read_image(str(path)), expected(COLOURS))


def test_bytes_are_read_as_files_are(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(COLOURS))
    assert torch.equal(decode_image(path.read_bytes(), name="a.png"), expected(COLOURS))


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty"), (b"text", "not an image"), (None, "damaged")]
)
def test_errors_of_bytes_name_the_upload(tmp_path, data, reason):
    whole = saved(tmp_path / "a.png", Image.effect_noise((64, 64), 50)).read_bytes()
    with pytest.raises(ImageReadError, match=f"^photo 1.png: .*{reason}"):
        decode_image(whole[: len(whole) // 2] if data is None else data, name="photo 1.png")
    with pytest.raises(ImageReadError, match="^photo 1.png: 64x64 pixels, more than the limit"):
        decode_image(whole, name="photo 1.png", max_pixels=1000)


def test_jpeg_is_near(tmp_path):
    grey = np.full((16, 24, 3), 77, np.uint8)
    image = read_image(saved(tmp_path / "a.jpg", Image.fromarray(grey), quality=95))
    assert image.shape == (3, 16, 24)
    assert (image - 77 / 255).abs().max() <= 1 / 255 + 1e-6


@pytest.mark.parametrize("mode", ["L", "LA", "1"])
def test_grey_modes_repeat_in_three_channels(tmp_path, mode):
    levels = np.array([[0, 255, 255], [255, 0, 0]], np.uint8)
    image = read_image(saved(tmp_path / "a.png", Image.fromarray(levels).convert(mode)))
    assert torch.equal(image, torch.from_numpy(levels / 255).float().expand(3, 2, 3))


def test_transparency_is_dropped_not_blended(tmp_path):
    rgba = np.dstack([COLOURS, np.array([[0, 10, 255], [0, 0, 128]], np.uint8)])
    image = read_image(saved(tmp_path / "a.png", Image.fromarray(rgba)))
    assert torch.equal(image, expected(COLOURS))
    levels = np.array([[7, 200]], np.uint8)
    grey = Image.merge("LA", [Image.fromarray(levels), Image.fromarray(0 * levels)])
    assert torch.equal(
        read_image(saved(tmp_path / "b.png", grey))[0], torch.from_numpy(levels / 255).float()
    )


@pytest.mark.parametrize("transparency", [0, b"\x00\x80\xff"])
def test_palette_with_transparency(tmp_path, transparency):
    palette = Image.new("P", (3, 1))
    palette.putpalette([255, 0, 0, 0, 255, 0, 10, 100, 200])
    palette.frombytes(bytes([0, 1, 2]))
    path = saved(tmp_path / "a.png", palette, transparency=transparency)
    with Image.open(path) as stored:
        assert stored.mode == "P" and "transparency" in stored.info
    colours = np.array([[[255, 0, 0], [0, 255, 0], [10, 100, 200]]], np.uint8)
    assert torch.equal(read_image(path), expected(colours))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_grey_keeps_its_precision(tmp_path, suffix):
    levels = np.array([[0, 1, 256], [32768, 65534, 65535]], np.uint16)
    image = read_image(saved(tmp_path / f"a.{suffix}", Image.fromarray(levels)))
    assert torch.equal(image[1], torch.from_numpy((levels / 65535).astype(np.float32)))
    assert torch.equal(image[0], image[2])


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_bytes(width: int, height: int, *, depth: int, colour: int, rows: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(rows))
        + png_chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("colour", [2, 6], ids=["RGB", "RGBA"])
def test_sixteen_bit_colour_png(tmp_path, colour):
    pixels = np.array([[[0, 257 * 20, 65535], [257 * 200, 0, 257]]], ">u2")  # 257 n is n in 8 bits
    if colour == 6:
        pixels = np.concatenate([pixels, np.full((1, 2, 1), 999, ">u2")], axis=2)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    (tmp_path / "a.png").write_bytes(png_bytes(2, 1, depth=16, colour=colour, rows=rows))
    image = read_image(tmp_path / "a.png")
    assert torch.equal(image, expected(np.array([[[0, 20, 255], [200, 0, 1]]], np.uint8)))


def test_floating_point_tiff_in_and_out_of_range(tmp_path):
    values = np.array([[0.0, 0.25, 1.0]], np.float32)
    image = read_image(saved(tmp_path / "a.tif", Image.fromarray(values)))
    assert torch.equal(image[0], torch.from_numpy(values))
    for bad in (1.5, -0.1, np.nan):
        path = saved(tmp_path / "b.tif", Image.fromarray(np.full((1, 1), bad, np.float32)))
        with pytest.raises(ImageReadError, match="rescale"):
            read_image(path)


def test_thirty_two_bit_integers_are_refused_not_clipped(tmp_path):
    path = saved(tmp_path / "a.tif", Image.fromarray(np.array([[0, 70000]], np.int32)))
    with pytest.raises(ImageReadError, match="from 0 to 70000"):
        read_image(path)


def test_cmyk_jpeg(tmp_path):
    cmyk = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # no cyan, all magenta and yellow: red
    image = read_image(saved(tmp_path / "a.jpg", cmyk, quality=95))
    assert image.shape == (3, 16, 16)
    red = torch.tensor([1.0, 0.0, 0.0])[:, None, None]
    assert (image - red).abs().max() < 0.03


def test_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (4, 2), colour) for colour in ("red", "lime", "blue")]
    path = saved(tmp_path / "a.gif", frames[0], save_all=True, append_images=frames[1:])
    with Image.open(path) as stored:
        assert stored.n_frames == 3
    assert torch.equal(read_image(path)[:, 0, 0], torch.tensor([1.0, 0.0, 0.0]))


def test_exif_orientation_is_left_as_stored(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to view
    path = saved(tmp_path / "a.png", Image.fromarray(COLOURS), exif=exif)
    with Image.open(path) as stored:
        assert stored.getexif()[0x0112] == 6
    assert torch.equal(read_image(path), expected(COLOURS))


def test_one_pixel(tmp_path):
    image = read_image(saved(tmp_path / "a.png", Image.new("RGB", (1, 1), (51, 0, 255))))
    assert torch.equal(image, torch.tensor([0.2, 0.0, 1.0])[:, None, None])


# ---- refusing ----------------------------------------------------------------------------------


def test_decompression_bomb_is_refused_before_decoding(tmp_path):
    # 30000 x 30000 by its header, 100 bytes of data: decoding would fail in another way
    bomb = png_bytes(30000, 30000, depth=8, colour=2, rows=b"\0")
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(ImageReadError, match=r"bomb\.png: .*limit of 64000000 pixels"):
        read_image(tmp_path / "bomb.png")


def test_pixel_limit_is_exact_and_can_be_raised(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(COLOURS))
    assert read_image(path, max_pixels=6).shape == (3, 2, 3)
    with pytest.raises(ImageReadError, match="3x2 pixels, more than the limit of 5 pixels"):
        read_image(path, max_pixels=5)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "gif", "bmp"])
def test_truncated(tmp_path, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format={"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix))
    path = tmp_path / f"half.{suffix}"
    path.write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    with pytest.raises(ImageReadError, match=rf"half\.{suffix}: "):
        read_image(path)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.png", b"", "the file is empty"),
        ("text.png", b"this is no image\n" * 50, "not an image that fpkit reads"),
        ("script.gif", b"GIF89a", "not an image|cannot be decoded"),
        ("page.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    ],
)
def test_no_image_is_named_with_its_reason(tmp_path, name, content, reason):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageReadError, match=f"{name}: .*({reason})"):
        read_image(tmp_path / name)


def test_missing_and_folder(tmp_path):
    with pytest.raises(ImageReadError, match=r"nowhere\.png: no such file"):
        read_image(tmp_path / "nowhere.png")
    with pytest.raises(ImageReadError, match="is a folder"):
        read_image(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ImageReadError, match="cannot be opened"):
        read_image(tmp_path / "file" / "below.png")


def test_read_images_reports_and_goes_on(tmp_path):
    good = saved(tmp_path / "a.png", Image.fromarray(COLOURS))
    (tmp_path / "b.png").write_text("no")
    paths = [good, tmp_path / "b.png", tmp_path / "c.png", good]
    errors: list[ImageReadError] = []
    read = list(read_images(paths, on_error=errors.append))
    assert [path.name for path, _ in read] == ["a.png", "a.png"]
    assert ["b.png" in str(errors[0]), "c.png" in str(errors[1]), len(errors)] == [True, True, 2]
    with pytest.raises(ImageReadError, match="b.png"):
        list(read_images(paths))


# ---- folders -----------------------------------------------------------------------------------


def test_list_images_sorts_and_filters(tmp_path):
    names = ["b.PNG", "a.jpg", "c.JPEG", "d.webp", "e.bmp", "f.tif", "g.TIFF", "h.gif"]
    for name in [*names, ".hidden.png", "notes.txt", "manifest.csv"]:
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == sorted(names)


def test_list_models(tmp_path):
    for name in ("beta/1.png", "beta/0.png", "alpha/0.jpg", ".git/0.png", "beside.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    models = list_models(tmp_path)
    assert list(models) == ["alpha", "beta", "empty"]
    assert [path.name for path in models["beta"]] == ["0.png", "1.png"]
    assert models["empty"] == []


def test_folders_that_are_no_model_tree(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        list_models(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no images"):
        list_models(tmp_path)
    (tmp_path / "a.png").touch()
    with pytest.raises(ValueError, match="holds 1 images directly.*<model>"):
        list_models(tmp_path)
    with pytest.raises(NotADirectoryError, match="is a file"):
        list_images(tmp_path / "a.png")


# ---- crops -------------------------------------------------------------------------------------


def coordinates(height: int, width: int) -> torch.Tensor:
    """A (2, h, w) image that holds its own row and column numbers."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns]).float()


def corners(crops: torch.Tensor) -> list[tuple[int, int]]:
    return [tuple(crop[:, 0, 0].int().tolist()) for crop in crops]


def test_grid_crops_are_even_and_on_the_pixel_grid():
    crops = grid_crops(coordinates(512, 304))
    assert crops.shape == (9, 2, 128, 128)
    assert corners(crops) == [(t, x) for t in (0, 192, 384) for x in (0, 88, 176)]
    assert crops[-1, :, -1, -1].tolist() == [511, 303]
    places = corners(grid_crops(coordinates(333, 259), grid=4))
    assert all(place % 8 == 0 for corner in places for place in corner)
    assert max(places) == (200, 128)  # at most 7 pixels short of the border


def test_grid_crops_cover_an_image_of_three_crops():
    seen = {tuple(pixel) for crop in grid_crops(coordinates(24, 24), size=8).flatten(2)
            for pixel in crop.T.int().tolist()}  # fmt: skip
    assert len(seen) == 24 * 24


@pytest.mark.parametrize(
    ("shape", "count"),
    [((128, 128), 1), ((128, 135), 1), ((128, 136), 2), ((136, 136), 4), ((128, 144), 3),
     ((256, 256), 9), ((257, 256), 12)],
)  # fmt: skip
def test_crops_differ_and_overlap_by_half_at_most(shape, count):
    crops = grid_crops(coordinates(*shape), grid=4)
    assert len(crops) == count == len(set(corners(crops)))


def test_one_crop_per_axis_is_central():
    assert corners(grid_crops(coordinates(145, 153), grid=1)) == [(8, 8)]


def test_crops_of_too_small_or_wrong_images():
    with pytest.raises(ValueError, match="image is 40x30, smaller than one 128x128 crop"):
        grid_crops(torch.zeros(3, 30, 40))
    with pytest.raises(ValueError, match="smaller than one 64x64"):
        random_crop(torch.zeros(3, 63, 640), 64, generator=torch.Generator())
    with pytest.raises(ValueError, match=r"\(c, h, w\), got shape \(1, 3, 200, 200\)"):
        grid_crops(torch.zeros(1, 3, 200, 200))
    with pytest.raises(ValueError, match="grid must be at least 1"):
        grid_crops(torch.zeros(3, 200, 200), grid=0)


def test_random_crop_reaches_every_place_and_follows_its_generator():
    image = coordinates(5, 6)
    generator = torch.Generator().manual_seed(0)
    places = {
        tuple(random_crop(image, 4, generator=generator)[:, 0, 0].int().tolist())
        for _ in range(200)
    }
    assert places == {(row, column) for row in range(2) for column in range(3)}
    again = [random_crop(image, 4, generator=torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*again) and again[0].shape == (2, 4, 4)


# ---- eight bits and JPEG -----------------------------------------------------------------------


def test_quantise_rounds_and_clips():
    images = torch.tensor([-0.5, 0.4 / 255, 0.6 / 255, 100.4 / 255, 2.0])
    assert torch.equal(quantise(images), torch.tensor([0, 0, 1, 100, 255]) / 255)
    assert torch.equal(quantise(quantise(images)), quantise(images))


def test_png_round_trip_is_quantise(tmp_path):
    image = torch.rand(3, 9, 5, generator=torch.Generator().manual_seed(1))
    write_png(tmp_path / "a.png", image)
    assert torch.equal(read_image(tmp_path / "a.png"), quantise(image))


def test_jpeg_equals_a_file_of_that_quality(tmp_path):
    image = torch.rand(3, 33, 47, generator=torch.Generator().manual_seed(2))
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    saved(tmp_path / "a.jpg", Image.fromarray(pixels), quality=60, subsampling=0)
    assert torch.equal(jpeg(image, 60, subsampling=0), read_image(tmp_path / "a.jpg"))


def test_jpeg_loses_more_with_lower_quality_and_coarser_colour():
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(3))
    loss = {
        options: float((jpeg(image, *options) - image).square().mean())
        for options in ((95, 0), (95, 2), (50, 0), (50, 2))
    }
    assert loss[95, 0] < loss[95, 2] < loss[50, 2] and loss[95, 0] < loss[50, 0] < loss[50, 2]
    flat = torch.full((3, 16, 16), 128 / 255)  # a DC coefficient on the quantiser's grid
    assert torch.equal(jpeg(flat, 75), flat)


@pytest.mark.parametrize("quality", [0, 101])
def test_jpeg_quality_range(quality):
    with pytest.raises(ValueError, match="quality must be 1 to 100"):
        jpeg(torch.zeros(3, 8, 8), quality)


def test_images_out_of_range_or_shape_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"got 0 to 255: divide by 255\?"):
        jpeg(torch.tensor([0.0, 255.0, 1.0]).reshape(3, 1, 1), 90)
    with pytest.raises(ValueError, match="got -0.1 to 1"):
        write_png(tmp_path / "a.png", torch.tensor([-0.1, 0.0, 1.0]).reshape(3, 1, 1))
    with pytest.raises(ValueError, match=r"\(3, h, w\), got shape \(1, 8, 8\)"):
        write_png(tmp_path / "a.png", torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match="subsampling"):
        jpeg(torch.zeros(3, 8, 8), 90, subsampling=3)
