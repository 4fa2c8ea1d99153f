"""What data sets give as inputs and labels, as the arrays that models take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from slots.errors import DataError
from slots.sources.spooling import Form

if TYPE_CHECKING:
    from PIL import Image

_GREY = ("1", "L", "LA")


def input_array(x: Any, form: Form | None) -> npt.NDArray[Any]:
    """A batch of inputs as an array.

    Parameters
    ----------
    x : tensor, array, or list of tensors, arrays, pictures or strings
        One batch.
    form : tuple, optional
        Type and shape of the examples before it: whether pictures are grey or in colour. Default: none came before.

    Returns
    -------
    array
        uint8 images (example, height, width[, channel]), float32 rows (example, feature), or strings (example,).

    Raises
    ------
    DataError
        If it is none of these, or not of one shape.
    """
    if isinstance(x, (list, tuple)) and x and hasattr(x[0], "getexif"):
        return _pictures(x, form)
    if isinstance(x, (list, tuple)) and x and all(isinstance(it, str) for it in x):
        texts = np.empty(len(x), dtype=object)
        texts[:] = x
        return texts
    array = _array(x)
    if array.ndim == 1 and array.dtype.kind in "UO" and all(isinstance(it, str) for it in array):
        return array.astype(object)
    if array.ndim == 2 and array.dtype.kind in "fiub":
        return array.astype(np.float32)
    if array.ndim in (3, 4) and array.dtype.kind in "fu":
        return _bytes(array)
    raise DataError(
        "`x` must give images (PIL, uint8 or floats in [0, 1]), rows of numbers, or strings, got "
        f"{array.dtype} of shape {array.shape}. Convert it in the data set."
    )


def label_array(y: Any, n: int) -> npt.NDArray[Any]:
    """Labels of a batch of ``n`` examples.

    Parameters
    ----------
    y : tensor, array or list
        Numbers or names.
    n : int
        Number of inputs.

    Returns
    -------
    array of shape (example,)

    Raises
    ------
    DataError
        If there is not one for each.
    """
    found = _array(y)
    if found.shape != (n,):
        raise DataError(f"`x` must give one label an example, got labels of shape {found.shape} for {n} inputs.")
    return found.astype(str) if found.dtype == object and all(isinstance(it, str) for it in found) else found


def _array(x: Any) -> npt.NDArray[Any]:
    """A tensor, an array, or a list of either, of numbers or of strings."""
    from torch import Tensor

    if isinstance(x, Tensor):
        return np.asarray(x.numpy(force=True))
    try:
        if isinstance(x, (list, tuple)) and any(isinstance(it, Tensor) for it in x):
            return np.stack([it.numpy(force=True) if isinstance(it, Tensor) else np.asarray(it) for it in x])
        return np.asarray(x)
    except (TypeError, ValueError) as error:
        raise DataError(f"`x` must give examples of one shape, got: {error}. Resize or pad them.") from error


def _bytes(images: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Images as bytes, the channel last."""
    if images.dtype.kind == "f":
        if not bool(((images >= 0) & (images <= 1)).all()):
            raise DataError(
                "`x` must give images as bytes or as floats in [0, 1], got others. Leave Normalize out of the "
                "transforms: a backbone knows its own mean and deviation."
            )
        images = np.rint(images * 255).astype(np.uint8)
    elif images.dtype != np.uint8:
        raise DataError(f"`x` must give images of 8 bits a channel, got {images.dtype}. Convert them.")
    if images.ndim == 4 and images.shape[3] not in (1, 3) and images.shape[1] in (1, 3):
        images = np.moveaxis(images, 1, 3)
    return np.ascontiguousarray(images)


def _pictures(images: Sequence[Image.Image], form: Form | None) -> npt.NDArray[np.uint8]:
    """Pictures of PIL: grey where the first batch is, else in colour."""
    colours = [image for image in images if image.mode not in _GREY]
    grey = not colours if form is None else form[1][-1:] == (1,)
    if grey and colours:
        raise DataError("`x` must give pictures of one mode, got colour after grey. Convert them in the data set.")
    found = [np.asarray(image.convert("L" if grey else "RGB"), dtype=np.uint8) for image in images]
    sizes = sorted({it.shape[:2] for it in found})
    if len(sizes) > 1:
        some = " and ".join(f"{height} x {width}" for height, width in sizes[:2])
        raise DataError(f"`x` must give pictures of one size, got {some} (height x width). Resize them there.")
    return np.stack(found).reshape(len(found), *sizes[0], 1 if grey else 3)
