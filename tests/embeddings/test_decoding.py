from __future__ import annotations

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image, PngImagePlugin

from embeddings.decoding import DecodeLimits, decode, fingerprint
from embeddings.errors import DecodeError
from embeddings.preprocess import Preprocess
from tests.embeddings.conftest import drawing, encoded

EXACT = Preprocess(16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, *, before: bytes = b"") -> bytes:
    """A PNG whose header says anything at all."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + before + body


def flat(image: Image.Image, format_name: str = "PNG", **options: object) -> list[int]:
    """The colour at the centre after decoding."""
    pixels = decode(encoded(image, format_name, **options), EXACT).pixels
    return list(pixels[8, 8].tolist())


def refusal(data: bytes, limits: DecodeLimits | None = None) -> str:
    with pytest.raises(DecodeError) as caught:
        decode(data, EXACT, limits or DecodeLimits())
    return caught.value.reason


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("shape", [(64, 48), (31, 90), (20, 20), (300, 211)])
def test_pixels_are_open_clips(mode: str, interpolation: str, shape: tuple[int, int]) -> None:
    cfg = PreprocessCfg(size=48, interpolation=interpolation, resize_mode=mode, fill_color=9)
    theirs = image_transform_v2(cfg, is_train=False)
    ours = Preprocess(48, cfg.mean, cfg.std, interpolation, mode, 9)  # type: ignore[arg-type]
    image = drawing(1, *shape)
    tensor = (decode(encoded(image), ours).pixels / 255 - cfg.mean) / cfg.std
    np.testing.assert_allclose(tensor.transpose(2, 0, 1), theirs(image).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("format_name", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 98, "subsampling": 0}, 4),
        ("GIF", {}, 4),
    ],
)
def test_every_allowed_format_decodes(format_name: str, options: dict[str, object], tolerance: int) -> None:
    color = flat(Image.new("RGB", (40, 30), (200, 40, 90)), format_name, **options)
    assert np.abs(np.subtract(color, (200, 40, 90))).max() <= tolerance


def test_transparency_is_composed_on_white() -> None:
    half = Image.new("RGBA", (20, 20), (255, 0, 0, 128))
    assert flat(half) == [255, 127, 127]
    assert flat(Image.new("LA", (20, 20), (0, 0))) == [255, 255, 255]
    palette = Image.new("P", (20, 20), 1)
    palette.putpalette([0, 0, 0, 10, 20, 30])
    assert flat(palette) == [10, 20, 30]
    assert flat(palette, transparency=1) == [255, 255, 255]
    assert flat(Image.new("RGB", (20, 20), (1, 2, 3)), transparency=(1, 2, 3)) == [255, 255, 255]


def test_cmyk_and_bilevel() -> None:
    red = flat(Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG")
    assert np.abs(np.subtract(red, (255, 0, 0))).max() <= 4
    assert flat(Image.new("1", (20, 20), 1)) == [255, 255, 255]


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(format_name: str) -> None:
    for value, expected in ((0, 0), (257 * 60, 60), (257 * 200, 200), (65_535, 255)):
        grey = Image.fromarray(np.full((20, 20), value, np.uint16))
        assert flat(grey, format_name) == [expected] * 3


def test_deeper_grey_is_stretched() -> None:
    ramp = np.linspace(-3, 7, 256, dtype=np.float32).reshape(16, 16)
    pixels = decode(encoded(Image.fromarray(ramp), "TIFF"), EXACT).pixels
    assert pixels[0, 0, 0] == 0
    assert pixels[-1, -1, 0] == 255
    ramp[3, 3] = np.nan
    assert decode(encoded(Image.fromarray(ramp), "TIFF"), EXACT).pixels.max() == 255
    assert flat(Image.fromarray(np.full((20, 20), 70_000, np.int32)), "TIFF") == [0, 0, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP"])
def test_exif_orientation_is_undone(format_name: str, orientation: int) -> None:
    upright = drawing(2, 40, 40)
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    seen = decode(encoded(stored, format_name, exif=exif, quality=95), EXACT).pixels
    expected = decode(encoded(upright), EXACT).pixels
    assert np.abs(seen.astype(int) - expected).mean() < 4


def test_broken_exif_is_ignored() -> None:
    data = encoded(drawing(2), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\xff garbage")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert decode(data, EXACT).pixels.shape == (16, 16, 3)


def test_an_animation_gives_its_first_frame() -> None:
    red, blue = Image.new("RGB", (20, 20), "red"), Image.new("RGB", (20, 20), "blue")
    for format_name in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encoded(red, format_name, save_all=True, append_images=[blue])
        color = decode(data, EXACT).pixels[8, 8]
        assert color[0] > 240
        assert color[2] < 15


def test_one_pixel_is_a_picture() -> None:
    assert flat(Image.new("RGB", (1, 1), (9, 8, 7))) == [9, 8, 7]


def test_limits_hold_before_allocation() -> None:
    assert "too many pixels" in refusal(png(20_000, 20_000))
    assert "10,000 × 6,000" in refusal(png(10_000, 6_000))
    small = DecodeLimits(max_pixels=24, max_bytes=1000)
    assert "5 × 5 pixels, over the limit of 24" in refusal(encoded(drawing(1, 5, 5)), small)
    assert "over the limit of 1,000" in refusal(b"x" * 1001, small)


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_a_sliver_does_not_grow_beyond_bounds(mode: str) -> None:
    preprocess = Preprocess(160, (0.5,) * 3, (0.5,) * 3, "bicubic", mode)  # type: ignore[arg-type]
    for shape in ((1, 40_000), (40_000, 1), (1, 1000)):
        with pytest.raises(DecodeError, match="long and narrow"):
            decode(encoded(Image.new("RGB", shape)), preprocess)
    assert decode(encoded(Image.new("RGB", (2, 500))), preprocess).pixels.shape == (160, 160, 3)


def test_a_zip_bomb_in_a_text_chunk_is_refused() -> None:
    bomb = chunk(b"zTXt", b"comment\0\0" + zlib.compress(b"\0" * 50_000_000))
    assert "too large" in refusal(png(4, 4, before=bomb))
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "harmless", zip=True)
    assert decode(encoded(drawing(1), pnginfo=text), EXACT).pixels.shape == (16, 16, 3)


def test_what_is_no_picture_is_refused() -> None:
    assert "empty" in refusal(b"")
    assert "allowed format" in refusal(b"GET / HTTP/1.1\r\n")
    assert "allowed format" in refusal(b"\x89PNG\r\n\x1a\n")
    ppm = encoded(drawing(1), "PPM")  # Pillow could read it; it is not on the list
    assert "allowed format" in refusal(ppm)
    assert "PNG" in refusal(encoded(drawing(1), "JPEG"), DecodeLimits(formats=("PNG",)))


@pytest.mark.parametrize("format_name", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_truncated_files_are_refused(format_name: str) -> None:
    data = encoded(drawing(3, 200, 150), format_name)
    refusal(data[: len(data) // 2])


@pytest.mark.filterwarnings("ignore")  # Pillow warns of what it repairs; -W error would make those exceptions
@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_files_give_a_picture_or_a_decode_error(data: st.DataObject) -> None:
    options: dict[str, dict[str, object]] = {
        "GIF": {"save_all": True, "append_images": [drawing(5)]},
        "TIFF": {"compression": "tiff_deflate"},
    }
    format_name = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]))
    blob = bytearray(encoded(drawing(4, 24, 20), format_name, **options.get(format_name, {})))
    for _ in range(data.draw(st.integers(1, 8))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    try:
        picture = decode(bytes(blob[: data.draw(st.integers(1, len(blob)))]), EXACT)
    except DecodeError:
        return
    assert picture.pixels.shape == (16, 16, 3)


def bits(first: Image.Image, second: Image.Image) -> int:
    return (fingerprint(first) ^ fingerprint(second)).bit_count()


def test_fingerprints_of_near_duplicates_are_near() -> None:
    generator = np.random.default_rng(0)
    for seed in range(10):
        image = drawing(seed, 160, 120)
        noisy = np.asarray(image) + generator.normal(0, 3, (120, 160, 3))
        assert bits(image, Image.open(io.BytesIO(encoded(image, "JPEG", quality=75)))) <= 6
        assert bits(image, Image.fromarray(noisy.clip(0, 255).astype(np.uint8))) <= 10
        assert bits(image, image.resize((80, 60))) <= 6


def test_fingerprints_of_different_pictures_are_far() -> None:
    generator = np.random.default_rng(0)
    noise = [Image.fromarray(generator.integers(0, 256, (64, 64, 3), np.uint8)) for _ in range(40)]
    distances = [bits(first, second) for i, first in enumerate(noise) for second in noise[:i]]
    assert min(distances) > 10
    assert abs(float(np.mean(distances)) - 32) < 3


def test_a_constant_picture_has_fingerprint_zero() -> None:
    assert {fingerprint(Image.new("RGB", (37, 5), colour)) for colour in ("black", "white", "teal")} == {0}


def test_content_tells_exact_duplicates() -> None:
    data = encoded(drawing(1))
    assert decode(data, EXACT).content == decode(bytes(data), EXACT).content
    assert decode(data, EXACT).content != decode(encoded(drawing(1), optimize=True) + b" ", EXACT).content
    assert len(decode(data, EXACT).content) == 16


def test_no_memory_for_the_pixels_is_the_fault_of_the_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    def fit(self: Preprocess, picture: Image.Image) -> None:
        raise MemoryError

    monkeypatch.setattr(Preprocess, "fit", fit)
    with pytest.raises(DecodeError, match="broken picture: MemoryError"):
        decode(encoded(drawing(0)), EXACT)
