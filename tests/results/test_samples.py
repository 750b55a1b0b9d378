import pytest
import torch
from PIL import Image, ImageFont

from dreamquant.errors import ResultError
from dreamquant.networks.spec import InputSpec
from dreamquant.results.samples import _class_name, _columns, _shortened, save_samples


def spec(channels=3, side=32, names=()):
    return InputSpec((channels, side, side), (0.5,) * channels, (0.25,) * channels, 10, names)


def save(path, images, spec):
    count = len(images)
    save_samples(path, images, spec, torch.arange(count) % 10, torch.linspace(0, 1, count))
    with Image.open(path) as image:
        return image.convert("RGB")


@pytest.mark.parametrize(
    ("side", "tile"), [(8, 112), (28, 112), (32, 128), (64, 128), (96, 192), (224, 224), (299, 224)]
)
def test_tiles_are_legible_and_not_huge(tmp_path, side, tile):
    picture = save(tmp_path / "samples.png", torch.zeros(4, 3, side, side), spec(side=side))
    assert picture.width == 2 * tile + 3 * 12


def test_pixels_are_those_the_network_saw(tmp_path):
    pixels = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    picture = save(tmp_path / "samples.png", (pixels - 0.5) / 0.25, spec(side=8))
    for row, column in [(0, 0), (0, 7), (7, 0), (3, 5)]:
        shown = picture.getpixel((12 + 14 * column + 7, 12 + 14 * row + 7))
        assert shown == tuple((pixels[0, :, row, column] * 255).round().int().tolist())


@pytest.mark.parametrize("channels", [1, 4])
def test_other_than_three_channels_are_grey(tmp_path, channels):
    picture = save(tmp_path / "samples.png", torch.zeros(1, channels, 8, 8), spec(channels, 8))
    assert picture.getpixel((60, 60)) == (128, 128, 128)


def test_values_beyond_white_stay_white(tmp_path):
    picture = save(tmp_path / "samples.png", torch.full((1, 3, 8, 8), 99.0), spec(side=8))
    assert picture.getpixel((60, 60)) == (255, 255, 255)


def test_captions_are_drawn_under_tiles_only(tmp_path):
    picture = save(tmp_path / "samples.png", torch.zeros(1, 3, 8, 8), spec(side=8))
    caption = picture.crop((12, 126, 124, picture.height))
    assert min(caption.convert("L").tobytes()) < 64
    margin = picture.crop((126, 0, picture.width, picture.height))
    assert set(margin.convert("L").tobytes()) == {255}


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (2, 2), (10, 5), (11, 4), (16, 4), (64, 8)])
def test_rows_are_full_where_they_can_be(count, columns):
    assert _columns(count) == columns


def test_class_names():
    names = ("tench, Tinca tinca", "Vélo", "猫", *"3456789")
    assert [_class_name(i, spec(names=names)) for i in range(3)] == ["tench", "Velo", "class 2"]
    assert _class_name(7, spec()) == "class 7"


def test_long_names_are_shortened_to_the_tile():
    font = ImageFont.load_default(size=13)
    name = _shortened("American Staffordshire terrier", 80, font)
    assert name.startswith("American")
    assert name.endswith("…")
    assert font.getlength(name) <= 80
    assert _shortened("cat", 80, font) == "cat"


def test_unequal_counts_are_refused(tmp_path):
    with pytest.raises(ValueError):
        save_samples(
            tmp_path / "x", torch.zeros(2, 3, 8, 8), spec(), torch.zeros(1), torch.zeros(2)
        )


def test_missing_folder(tmp_path):
    with pytest.raises(ResultError, match=r"cannot write samples\.png"):
        save(tmp_path / "missing" / "samples.png", torch.zeros(1, 3, 8, 8), spec(side=8))


def test_input_is_left_alone(tmp_path):
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    save(tmp_path / "samples.png", images, spec(side=8))
    assert torch.equal(images, before)
