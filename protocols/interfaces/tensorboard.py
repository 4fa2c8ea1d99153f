"""`TensorBoardLog`: the curves of a training for TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

from slots.errors import MissingExtraError


class TensorBoardLog:
    """Writes the points of curves into a folder that ``tensorboard --logdir FOLDER`` shows.

    Parameters
    ----------
    folder : path
        Where the events go; a folder of its own for each training.

    Raises
    ------
    MissingExtraError
        If TensorBoard is not installed (extra ``tensorboard``).

    Notes
    -----
    It is a thin cover of `torch.utils.tensorboard.SummaryWriter`, whose ``add_scalar`` may be passed as ``log`` too;
    this one names the extra, and ``with`` closes its file.

    Examples
    --------
    >>> with TensorBoardLog("runs/curves") as log:                       # doctest: +SKIP
    ...     model, result = slots.fit(rows, labels, log=log)
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError(
                f"`TensorBoardLog` needs the package {error.name or 'tensorboard'}. "
                "Install it: pip install 'neural-slots[tensorboard]'"
            ) from error
        self.writer: Any = SummaryWriter(str(folder))
        """The writer, for whatever else belongs beside the curves."""

    def __call__(self, name: str, value: float, step: int) -> None:
        """Write a point of a curve.

        Parameters
        ----------
        name : str
            Of the curve, such as ``train/loss``.
        value : float
            How high.
        step : int
            How far along, >= 0.
        """
        self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is still in memory, and close the file."""
        self.writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
