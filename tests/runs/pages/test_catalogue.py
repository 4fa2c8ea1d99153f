import numpy as np
import pytest

from protocols.pages.pictures import diverging, in_colour
from protocols.pages.slot_catalogue import catalogue

RED = [198, 40, 32]


def tiles(picture, count, side, *, columns, first):
    """The squares of a picture, in order."""
    down = right = side + 3
    return [picture[first + n // columns * (down + 3) :, 3 + n % columns * right :][:side, :side] for n in range(count)]


def test_the_most_used_come_first_and_equal_ones_keep_their_order():
    templates = np.arange(1, 5.0)[:, None, None, None] * np.ones((4, 1, 3, 3))
    templates[:, 0, 0, 0] = 5.0  # the scale of each tile: other pixels tell which slot it is
    picture = catalogue(templates, np.array([2, 9, 2, 5]), columns=2, zoom=1)
    found = [int(tile[2, 2, 0]) for tile in tiles(picture, 4, 3, columns=2, first=3)]
    assert found == [round(255 * slot / 5) for slot in (2, 4, 1, 3)]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (np.array([[[0.0, 2.0], [1.0, 4.0]]]), np.repeat(np.array([[0, 128], [64, 255]])[..., None], 3, 2)),
        (np.array([[[0.0, 2.0], [-2.0, 1.0]]]), diverging(np.array([[0.0, 2.0], [-2.0, 1.0]]))),
        (np.arange(12.0).reshape(3, 2, 2) - 4, in_colour(np.arange(12.0).reshape(3, 2, 2) - 4)),
    ],
)
def test_tiles_are_grey_signed_or_tinted_and_enlarged(template, expected):
    picture = catalogue(template[None], np.array([3]), zoom=2)
    np.testing.assert_array_equal(picture[3:7:2, 3:7:2], expected)
    np.testing.assert_array_equal(picture[4:8:2, 4:8:2], expected)


def test_bars_are_as_long_as_the_share_of_the_most_wins():
    picture = catalogue(np.ones((3, 1, 5, 5)), np.array([10, 5, 0]), zoom=2)
    bars = [int((picture[14, 3 + 13 * n : 16 + 13 * n] == RED).all(-1).sum()) for n in range(3)]
    assert bars == [10, 5, 0]


def test_a_limit_and_a_title():
    templates, wins = np.ones((5, 1, 4, 4)), np.arange(5)
    plain, titled = (catalogue(templates, wins, limit=2, title=title) for title in ("", "two slots"))
    assert plain.shape[1] == titled.shape[1] == catalogue(templates[:2], wins[:2]).shape[1]
    np.testing.assert_array_equal(titled[16:], plain[3:])
    assert int(titled[:16].min()) < 128


@pytest.mark.parametrize("shape", [(2, 1, 3), (0, 1, 3, 3), (2, 2, 3, 3), (3, 1, 3, 3)])
def test_other_templates_are_refused(shape):
    with pytest.raises(ValueError, match=r"`templates` must have shape .* got .* and \(2,\)\. Show other"):
        catalogue(np.zeros(shape), np.zeros(2, np.int64))


@pytest.mark.parametrize("options", [{"columns": 0}, {"zoom": 0}, {"limit": 0}])
def test_numbers_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=r"`columns`, `zoom` and `limit` must be >= 1, got .*\. Leave limit out"):
        catalogue(np.zeros((2, 1, 3, 3)), np.zeros(2, np.int64), **options)
