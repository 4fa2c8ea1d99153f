"""`LinfDistanceSlots`: the nearest centre by the largest entry of a difference, and how far its label is safe."""

from __future__ import annotations

import io
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from slots.errors import ModelError
from slots.features.preprocessing import Kind, Preprocessing, raw_inputs
from slots.robust.box_kernels import Space
from slots.robust.linf_distance.kernels import Centres, Stays, fill_label_radii, fill_nearest
from slots.robust.nearest_slot import Box, NearestSlotRadii
from slots.shapes import Ids, RawInputs
from slots.storage.atomic import write_file

_ROUNDING = 1e-12  # of a distance, over the largest number that enters it; far above float64's


@dataclass(frozen=True)
class LinfDistanceSlots:
    """Slots that are centres: the nearest one by ``max_p |x_p - c_p|`` names the label.

    They are no slots of `SlotModel`, whose slots are unit vectors, compared by cosine, with caps: cosines run out of
    certificates near 0.3 a pixel. There is no match rule here, and nothing is *unmatched*.

    Parameters
    ----------
    centres : float32 array of shape (slot, feature)
        They may lie outside the range of inputs: an entry that must be black is best punished from below 0.
    labels : int64 array of shape (slot,)
        Of each, at least two different.
    box : pair of float or None
        Range that inputs stay in whoever changes them; None for any.
    preprocessing : Preprocessing
        Checks inputs and scales them.

    Notes
    -----
    Inputs within ``r`` of ``x``, cut to the box, have entries between ``l_p`` and ``h_p``. Over these a centre's
    largest distance is ``u(c) = max_p max(|l_p - c_p|, |h_p - c_p|)``, and its smallest is
    ``d(c) = max_p max(0, l_p - c_p, c_p - h_p)``. The label stays while the least ``u`` of its own centres is below the
    least ``d`` of all others. Without a box that is ``r < (d_other - d_own) / 2``, the certificate of Saralajew et al.
    2020 ("Fast adversarial robustness certification of nearest prototype classifiers for arbitrary seminorms"), and
    one layer of Zhang et al. 2021 ("Towards certifying l-infinity robustness using neural networks with l-inf-dist
    neurons"). The box adds much: an entry of 0.5 in a centre is never farther than 0.5 from a pixel, whoever changes
    it, so what a centre does not care about never adds to ``u``.
    """

    centres: npt.NDArray[np.float32]
    labels: Ids
    box: Box | None
    preprocessing: Preprocessing

    def rows(self, x: RawInputs) -> npt.NDArray[np.float64]:
        """Inputs scaled as the centres are, float64 of shape (example, feature).

        Raises
        ------
        DataError
            If ``x`` is not what the slots were fitted on.
        """
        x = raw_inputs(x)
        self.preprocessing.check(x)
        return self.preprocessing(x).flatten(1).double().numpy()

    def predict(self, x: RawInputs) -> Ids:
        """Labels of raw inputs, int64 of shape (example,); of equally near centres the first names it."""
        return self.labels[self._nearest(*self._ordered(self.rows(x)))]

    def certify(self, x: RawInputs) -> NearestSlotRadii:
        """Labels of raw inputs, and by how much every entry may be changed before they can change.

        Parameters
        ----------
        x : array of shape (example, ...)
            As the slots were fitted on.

        Returns
        -------
        NearestSlotRadii
            Its radii are by the largest entry, 0 for ties; it has no changes.
        """
        return self.certify_rows(self.rows(x))

    def certify_rows(self, rows: npt.NDArray[np.float64]) -> NearestSlotRadii:
        """The same of scaled rows, float64 of shape (example, feature)."""
        ordered, slots = self._ordered(rows)
        nearest, space = self._nearest(ordered, slots), self._space
        found = Stays(np.zeros(len(rows)), np.full(len(rows), -1))
        fill_label_radii(ordered, slots, space, nearest, found)
        return NearestSlotRadii(self.labels[nearest], found.radii * (1 - 1e-9), found.rivals, None)

    def save(self, path: str | Path) -> Path:
        """Write the slots as one ``.npz`` file of plain arrays, whole or not at all.

        Raises
        ------
        StorageError
            If it cannot be written; what was there before is still whole.
        """
        file, shape = io.BytesIO(), self.preprocessing.shape
        box = np.array(self.box or (), np.float64)
        np.savez(file, centres=self.centres, labels=self.labels, box=box, shape=np.array(shape, np.int64))
        write_file(path, file.getvalue())
        return Path(path)

    @staticmethod
    def load(path: str | Path) -> LinfDistanceSlots:
        """Read slots that `save` wrote; nothing in the file is run.

        Raises
        ------
        ModelError
            If the file is missing, damaged or another one.
        """
        try:
            centres, labels, box, shape = _arrays_of(Path(path).read_bytes())
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            said = " ".join(str(error).split())[:200]
            raise ModelError(f"`path` must be a file that `save` wrote, got {path}: {said}. Save it again.") from error
        kind: Kind = "images" if len(shape) == 3 else "features"
        return LinfDistanceSlots(centres, labels, (box[0], box[1]) if box else None, Preprocessing(kind, shape))

    def _nearest(self, ordered: npt.NDArray[np.float64], slots: Centres) -> Ids:
        found = np.zeros(len(ordered), np.int64)
        fill_nearest(ordered, slots, self._space, found)
        return found

    def _ordered(self, rows: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], Centres]:
        """Rows and centres with the entries in which centres differ most first, where most can be told apart early."""
        order = np.argsort(-self.centres.var(axis=0), kind="stable")
        largest = max(np.abs(self.centres).max(), np.abs(rows).max(initial=0.0), 1.0)
        places = np.ascontiguousarray(self.centres[:, order].astype(np.float64))
        slots = Centres(places, self.labels, float(_ROUNDING * largest))
        return np.ascontiguousarray(rows[:, order].astype(np.float64)), slots

    @property
    def _space(self) -> Space:
        return Space(*(self.box or (-math.inf, math.inf)), infinity=True)


def _arrays_of(data: bytes) -> tuple[npt.NDArray[np.float32], Ids, tuple[float, ...], tuple[int, ...]]:
    """Centres, labels, box and shape of a file's content; `ValueError` where they do not fit each other."""
    with np.load(io.BytesIO(data), allow_pickle=False) as held:
        centres, labels = held["centres"], held["labels"]
        box, shape = tuple(map(float, held["box"])), tuple(map(int, held["shape"]))
    fits = centres.dtype == np.float32 and labels.dtype == np.int64 and len(labels) > 0
    if not fits or centres.shape != (len(labels), math.prod(shape)) or len(shape) not in {1, 3}:
        raise ValueError("its arrays do not fit each other")
    if len(box) not in {0, 2} or not np.isfinite(centres).all() or not np.isfinite(box).all():
        raise ValueError("its numbers are not finite")
    return centres, labels, box, shape
