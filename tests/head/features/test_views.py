"""Views do to pixels what their words say, in a fixed order, with the image itself first."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.views import flipped, shifted, turned

from slots.errors import UsageError
from slots.features.views import Views, _moved, _moves_of, parse_views


def images(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pixelwise(change, x):
    """Apply a change of one image, written as nested lists, to each channel of each image."""
    return torch.tensor([[change(channel) for channel in image] for image in x.tolist()], dtype=x.dtype)


def wanted_shift(n):
    offsets = [(d, r) for d in range(-n, n + 1) for r in range(-n, n + 1) if (d, r) != (0, 0)]
    return [lambda image, d=d, r=r: shifted(image, d, r) for d, r in offsets]


WANTED = {
    "none": [],
    "flip": [flipped],
    "shift1": wanted_shift(1),
    "shift2": wanted_shift(2),
    "cross2": [lambda i, d=d, r=r: shifted(i, d, r) for d, r in ((-2, 0), (0, -2), (0, 2), (2, 0))],
    "rotate10": [lambda i: turned(i, 10, 1), lambda i: turned(i, -10, 1)],
    "rotate7.5": [lambda i: turned(i, 7.5, 1), lambda i: turned(i, -7.5, 1)],
    "rotate170": [lambda i: turned(i, 170, 1), lambda i: turned(i, -170, 1)],
    "zoom20": [lambda i: turned(i, 0, 0.8), lambda i: turned(i, 0, 1.2)],
}


@pytest.mark.parametrize("spec", WANTED)
@pytest.mark.parametrize("size", [(6, 6), (5, 8), (7, 4)])
def test_each_word_does_what_it_says(spec, size):
    x = images(2, 3, *size)
    views = parse_views(spec)
    seen = views(x)
    assert seen.shape == (2, views.n_views, 3, *size)
    assert views.n_views == 1 + len(WANTED[spec])
    assert torch.equal(seen[:, 0], x)
    for view, change in enumerate(WANTED[spec], start=1):
        torch.testing.assert_close(seen[:, view], pixelwise(change, x), rtol=0, atol=1e-12)


def test_a_comma_adds_and_a_star_combines():
    x = images(2, 1, 5, 5)
    union = parse_views("flip, cross1")(x)
    assert union.shape[1] == 6
    assert torch.equal(union[:, 1], x.flip(-1))
    assert torch.equal(union[:, 2:], parse_views("cross1")(x)[:, 1:])
    product = parse_views("flip*cross1")(x)
    assert product.shape[1] == 10
    assert torch.equal(product[:, :5], parse_views("cross1")(x))
    assert torch.equal(product[:, 5:], parse_views("cross1")(x.flip(-1)))
    assert parse_views("flip*shift1,rotate10").n_views == 20


def test_a_view_named_twice_is_there_once():
    assert parse_views("flip,flip").steps == parse_views("flip").steps
    assert parse_views("shift1,cross1").n_views == 9
    assert parse_views("none").n_views == parse_views("none,none*none").n_views == 1


def test_a_quarter_turn_is_counter_clockwise():
    x = images(1, 1, 6, 6)
    seen = parse_views("rotate90")(x)[0, :, 0]
    torch.testing.assert_close(seen[1], torch.rot90(x[0, 0], 1), rtol=0, atol=1e-12)
    torch.testing.assert_close(seen[2], torch.rot90(x[0, 0], -1), rtol=0, atol=1e-12)


TERMS = st.sampled_from([*WANTED, "cross1", "zoom5", "rotate3"])
PRODUCTS = st.lists(TERMS, min_size=1, max_size=2).map("*".join)
SPECS = st.lists(PRODUCTS, min_size=1, max_size=3).map(" , ".join).filter(lambda spec: spec.count("shift2") < 2)


@given(spec=SPECS)
def test_words_come_back(spec):
    views = parse_views(spec)
    assert parse_views(views.spec) == views
    assert " " not in views.spec
    assert len(set(views.steps)) == views.n_views
    assert views.steps[0] == ()


@given(spec=SPECS, seed=st.integers(0, 99))
def test_an_image_looks_the_same_alone_and_in_a_batch(spec, seed):
    x = images(3, 1, 5, 4, seed=seed)
    views = parse_views(spec)
    torch.testing.assert_close(views(x)[1:2], views(x[1:2]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_precision_is_kept(dtype):
    x = images(2, 1, 20, 20)
    views = parse_views("flip,cross1,rotate10,zoom10")
    seen = views(x.to(dtype))
    assert seen.dtype == dtype
    torch.testing.assert_close(seen.double(), views(x), rtol=0, atol=16 * torch.finfo(dtype).eps + 1e-6)


def test_gradients_are_right():
    x = images(1, 1, 3, 4).requires_grad_()
    assert torch.autograd.gradcheck(parse_views("flip*cross1,rotate10,zoom20"), x)
    views = parse_views("flip,cross1")
    assert torch.autograd.gradcheck(lambda x: views.sample(x, torch.Generator().manual_seed(1)), x)


# One view each


def test_a_sample_is_one_view_of_each_image_drawn_evenly():
    views = parse_views("flip,cross1,rotate10")
    x = images(4000, 1, 3, 3)
    drawn = views.sample(x, torch.Generator().manual_seed(0))
    same = (drawn[:, None] == views(x)).flatten(2).all(2)
    assert same.sum(1).tolist() == [1] * 4000
    counts = same.sum(0)
    assert (counts - 500).abs().max() < 5 * 500**0.5
    # Neighbours are independent: the draw of one image does not tell the draw of the next.
    which = same.int().argmax(1)
    pairs = torch.bincount(which[:-1] * 8 + which[1:], minlength=64)
    assert (pairs - 4000 / 64).abs().max() < 5 * (4000 / 64) ** 0.5


def test_equal_generators_draw_equal_views():
    views, x = parse_views("shift1"), images(50, 2, 4, 4)
    one, two, other = (views.sample(x, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    torch.manual_seed(5)
    first = views.sample(x)
    torch.manual_seed(5)
    assert torch.equal(first, views.sample(x))


@pytest.mark.parametrize("spec", ["none", "flip*shift2", "shift1*flip", "flip,shift3", "cross2*flip*flip"])
@pytest.mark.parametrize("size", [(5, 4), (4, 7)])
def test_flips_and_shifts_as_one_gather(spec, size):
    views = parse_views(spec)
    x = images(len(views.steps), 3, *size)
    moves = _moves_of(views.steps, size)
    assert torch.equal(_moved(x, torch.tensor(moves)), torch.stack([views(x)[i, i] for i in range(len(x))]))


@pytest.mark.parametrize("spec", ["rotate5", "shift1*shift1", "shift4"])
def test_other_views_are_no_gather(spec):
    assert _moves_of(parse_views(spec).steps, (4, 9)) is None


@pytest.mark.parametrize("spec", ["none", "flip,shift1,rotate10"])
def test_no_images(spec):
    views = parse_views(spec)
    assert views(torch.empty(0, 3, 5, 4)).shape == (0, views.n_views, 3, 5, 4)
    assert views.sample(torch.empty(0, 3, 5, 4)).shape == (0, 3, 5, 4)


@pytest.mark.gpu
def test_views_on_the_gpu_are_those_of_the_cpu():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    views, x = parse_views("flip*shift1,rotate10,zoom20"), images(4, 3, 9, 8, dtype=torch.float32)
    torch.testing.assert_close(views(x.cuda()).cpu(), views(x), rtol=0, atol=1e-5)
    drawn = views.sample(x.cuda(), torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn.cpu(), views.sample(x, torch.Generator().manual_seed(0)), rtol=0, atol=1e-5)


# Messages


@pytest.mark.parametrize(
    "spec", ["", "flop", "shift", "shift-1", "shift1.5", "flip,", "flip**flip", "FLIP", "rotate1e2"]
)
def test_unknown_words_name_the_choices(spec):
    message = (
        r"`views` must be made of none, flip, shiftN, crossN, rotateD, zoomP \(.*\), joined by , or \*, got '.*' in '"
    )
    with pytest.raises(UsageError, match=message):
        parse_views(spec)


@pytest.mark.parametrize(
    ("spec", "most"),
    [("shift0", "999"), ("cross0", "999"), ("rotate0", "180"), ("rotate181", "180"), ("zoom100", "99.9")],
)
def test_numbers_out_of_range(spec, most):
    with pytest.raises(UsageError, match=rf"`views` must have numbers above 0 and up to {most}, got '{spec}'"):
        parse_views(spec)


@pytest.mark.parametrize("spec", ["shift16", "shift999", "shift5*shift5", "shift15,shift14*flip"])
def test_too_many_views(spec):
    with pytest.raises(UsageError, match="`views` must make at most 1024 views, got more from "):
        parse_views(spec)


@pytest.mark.parametrize("call", [Views.__call__, Views.sample])
def test_what_is_no_batch_of_images(call):
    with pytest.raises(UsageError, match=r"`x` must be floats of shape .*, got torch.float32 of shape \(3, 4\)"):
        call(parse_views("flip"), torch.zeros(3, 4))
    with pytest.raises(UsageError, match=r"got torch.uint8 of shape \(1, 1, 3, 4\)"):
        call(parse_views("flip"), torch.zeros(1, 1, 3, 4, dtype=torch.uint8))
    with pytest.raises(UsageError, match="`x` must be larger than the shifts of its views, got 3 x 4 for a shift of 3"):
        call(parse_views("cross3"), torch.zeros(1, 1, 3, 4))
