import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from protocols.pages.pictures import data_uri, diverging, in_colour, png, shrink, side_by_side, signed_sum

SIZES = st.tuples(st.integers(1, 12), st.integers(1, 12))
IMAGES = SIZES.flatmap(
    lambda size: st.sampled_from([size, (*size, 1), (*size, 3)]).flatmap(lambda shape: arrays.arrays(np.uint8, shape))
)
VALUES = SIZES.flatmap(
    lambda size: arrays.arrays(np.float64, size, elements=st.floats(-1e6, 1e6, allow_subnormal=False))
)
RED, BLUE, WHITE = [198, 40, 32], [32, 40, 198], [255, 255, 255]


def decoded(picture, mode):
    return np.asarray(Image.open(io.BytesIO(picture)).convert(mode))


class TestPng:
    @given(IMAGES)
    def test_decodes_to_the_same_pixels(self, pixels):
        if pixels.ndim == 3 and pixels.shape[2] == 3:
            np.testing.assert_array_equal(decoded(png(pixels), "RGB"), pixels)
        else:
            np.testing.assert_array_equal(decoded(png(pixels), "L"), pixels.reshape(pixels.shape[:2]))

    def test_many_colours_survive(self):
        pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 256
        np.testing.assert_array_equal(decoded(png(pixels), "RGB"), pixels)

    def test_few_colours_are_stored_by_palette_and_in_fewer_bytes(self):
        pixels = diverging(np.random.default_rng(0).normal(size=(28, 28)))
        plain = io.BytesIO()
        Image.fromarray(pixels).save(plain, "PNG", optimize=True)
        assert Image.open(io.BytesIO(png(pixels))).mode == "P"
        assert len(png(pixels)) < 0.7 * len(plain.getvalue())

    def test_a_view_with_other_strides_is_no_obstacle(self):
        pixels = np.arange(48, dtype=np.uint8).reshape(3, 4, 4).transpose(1, 2, 0)
        np.testing.assert_array_equal(decoded(png(pixels), "RGB"), pixels)

    @pytest.mark.parametrize(
        "pixels",
        [np.zeros((2, 2)), np.zeros(4, np.uint8), np.zeros((2, 2, 4), np.uint8), np.zeros((1, 2, 2, 3), np.uint8)],
    )
    def test_other_arrays_are_refused(self, pixels):
        with pytest.raises(ValueError, match=r"`pixels` must be uint8 .* got .* of shape .*\. Scale it"):
            png(pixels)

    @pytest.mark.parametrize("shape", [(0, 3), (3, 0, 3)])
    def test_an_image_without_pixels_is_refused(self, shape):
        with pytest.raises(ValueError, match=r"`pixels` must not be empty, got shape .*\. Leave the picture out\."):
            png(np.zeros(shape, np.uint8))


def test_a_data_uri_holds_the_bytes():
    head, tail = data_uri(b"\x89PNG\x00\xff").split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(tail, validate=True) == b"\x89PNG\x00\xff"


class TestDiverging:
    def test_zero_is_white_one_side_red_the_other_blue(self):
        assert diverging(np.array([[0.0, 3.0], [-3.0, 0.0]])).tolist() == [[WHITE, RED], [BLUE, WHITE]]

    def test_all_zeros_are_white(self):
        assert (diverging(np.zeros((3, 2))) == 255).all()

    @given(VALUES)
    def test_the_negative_is_the_same_picture_with_red_and_blue_exchanged(self, values):
        np.testing.assert_array_equal(diverging(-values), diverging(values)[..., ::-1])

    @given(VALUES, st.sampled_from([0.5, 4.0, 1024.0]))
    def test_the_scale_does_not_matter(self, values, factor):
        np.testing.assert_array_equal(diverging(values * factor), diverging(values))

    @given(VALUES)
    def test_larger_is_redder(self, values):
        redness = diverging(values)[..., 0].astype(int) - diverging(values)[..., 2]
        order = np.argsort(values, axis=None)
        assert (np.diff(redness.ravel()[order]) >= 0).all()

    def test_an_extreme_pixel_does_not_make_the_rest_pale(self):
        values = np.full((30, 30), 1.0)
        values[0, 0] = 1e6
        assert diverging(values)[5, 5].tolist() == RED
        assert diverging(values)[0, 0].tolist() == RED

    def test_one_lit_pixel_among_very_many_is_still_seen(self):
        values = np.zeros((40, 40))
        values[7, 9] = -0.25
        assert diverging(values)[7, 9].tolist() == BLUE
        assert (diverging(values) != 255).any(axis=2).sum() == 1

    def test_messages(self):
        with pytest.raises(ValueError, match=r"`values` must have shape \(height, width\), got \(3, 2, 2\)\. Sum the"):
            diverging(np.zeros((3, 2, 2)))
        with pytest.raises(ValueError, match=r"A template must be finite, got NaN or infinity\. Check the backbone"):
            diverging(np.array([[0.0, np.inf]]))


class TestColours:
    def test_zero_is_grey_and_a_channel_stands_for_itself(self):
        template = np.zeros((3, 1, 3))
        template[0, 0, 0], template[2, 0, 1] = 2.0, -2.0
        assert in_colour(template).tolist() == [[[255, 128, 128], [128, 128, 1], [128, 128, 128]]]

    def test_needs_three_channels(self):
        with pytest.raises(ValueError, match=r"`template` must have shape \(3, height, width\), got \(1, 2, 2\)\. Use"):
            in_colour(np.zeros((1, 2, 2)))

    def test_signed_sum_lets_channels_cancel(self):
        template = np.array([[[1.0, 2.0]], [[-1.0, 0.5]], [[0.0, -4.0]]], dtype=np.float32)
        assert signed_sum(template).tolist() == [[0.0, -1.5]]


class TestLayout:
    @given(st.integers(1, 4), st.integers(0, 3), st.sampled_from([1, 3]))
    def test_side_by_side_keeps_every_image_and_white_between(self, n, gap, channels):
        images = np.random.default_rng(n).integers(0, 255, (n, 3, 4, channels), dtype=np.uint8)
        row = side_by_side(images, gap=gap)
        assert row.shape == (3, 4 * n + gap * (n - 1), channels)
        for i, image in enumerate(images):
            np.testing.assert_array_equal(row[:, i * (4 + gap) : i * (4 + gap) + 4], image)
        assert (row == 255).sum() == gap * (n - 1) * 3 * channels

    @pytest.mark.parametrize("channels", [1, 3])
    def test_shrink_averages_whole_blocks(self, channels):
        image = np.random.default_rng(0).integers(0, 256, (8, 4, channels), dtype=np.uint8)
        small = shrink(image, 4)
        literal = image.reshape(4, 2, 2, 2, channels).astype(float).mean(axis=(1, 3))
        assert small.shape == (4, 2, channels)
        assert np.abs(small - literal).max() <= 1  # Pillow rounds rows and columns one after the other

    def test_shrink_leaves_small_images_alone(self):
        image = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
        assert shrink(image, 4) is image

    def test_a_thin_image_keeps_a_pixel(self):
        assert shrink(np.full((1, 500, 3), 7, np.uint8), 50).shape == (1, 50, 3)
