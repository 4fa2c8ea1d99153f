"""`HubModel`: a slot model in the form that huggingface_hub saves and loads, with a card, and without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn, Self

from torch import nn

from protocols.interfaces.model_card import model_card
from protocols.recipes.building import load_model
from slots.errors import MissingExtraError, UsageError
from slots.head.prediction import Prediction
from slots.model.slot_model import SlotModel
from slots.shapes import RawInputs

try:
    from huggingface_hub import PyTorchModelHubMixin, snapshot_download
except ImportError as error:
    raise MissingExtraError(
        f"`HubModel` needs the package {error.name or 'huggingface_hub'}. Install it: pip install 'neural-slots[hub]'"
    ) from error

_LIBRARY = "neural-slots"


class HubModel(nn.Module, PyTorchModelHubMixin, library_name=_LIBRARY):
    """A slot model with ``save_pretrained`` and ``from_pretrained``.

    Parameters
    ----------
    model : SlotModel
        It is held, not copied.

    Attributes
    ----------
    model : SlotModel

    Notes
    -----
    What is saved is a model folder, as `slots.SlotModel.save` writes it, with a model card beside it; every command
    takes it. ``save_pretrained(folder)`` writes a card where there is none, and never over one. The folder holds
    the examples that slots remember, which are training data: look at them before you give it away.

    No method reaches a network. ``push_to_hub`` is refused: upload a folder by ``hf upload`` after you have looked at
    it. `from_pretrained` takes a folder, or a model that ``hf download`` has brought into the cache.

    Examples
    --------
    >>> HubModel(model).save_pretrained("birds")                                   # doctest: +SKIP
    >>> model = HubModel.from_pretrained("birds").model                            # doctest: +SKIP
    """

    def __init__(self, model: SlotModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: RawInputs) -> Prediction:
        """Answer raw inputs, as `slots.SlotModel.predict` does."""
        return self.model.predict(x)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> Self:
        """Load a model from this machine.

        Parameters
        ----------
        pretrained_model_name_or_path : path or str
            A folder; or the name of a model in the local cache, ``OWNER/NAME``.
        **options
            ``revision`` and ``cache_dir`` of the cache; ``map_location``: the device, default ``"cpu"``.

        Returns
        -------
        HubModel

        Raises
        ------
        UsageError
            If there is no such folder, nor such a model in the cache.
        ModelError
            If it is no readable model.
        """
        folder = Path(pretrained_model_name_or_path)
        device = str(options.get("map_location", "cpu"))
        if not folder.is_dir():
            named = {key: options[key] for key in ("revision", "cache_dir") if key in options}
            try:
                found = snapshot_download(str(pretrained_model_name_or_path), local_files_only=True, **named)
            except (OSError, ValueError) as error:  # not in the cache, or no name that the hub would have
                raise UsageError(
                    f"`{pretrained_model_name_or_path}` must be a model folder, or a model in the local cache, and is "
                    "neither; nothing is downloaded here. Get it first: hf download OWNER/NAME."
                ) from error
            folder = Path(found)
        return cls(load_model(folder, device=device)).eval()

    def push_to_hub(self, *_: Any, **__: Any) -> NoReturn:
        """Refuse: what a model remembers is training data, which somebody should have looked at.

        Raises
        ------
        UsageError
            Always.
        """
        raise UsageError(
            "`push_to_hub` must not be called: slots uses no network, and a model holds training examples. Save it, "
            "look at the folder, and upload that: hf upload OWNER/NAME FOLDER."
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        self.model.save(save_directory)

    def generate_model_card(self, *_: Any, **options: Any) -> Any:
        """The card, as `protocols.interfaces.model_card.model_card` makes it.

        Parameters
        ----------
        *_ : ignored
            There for huggingface_hub.
        **options
            ``license``, ``language`` and other fields of the card's header.

        Returns
        -------
        ModelCard
        """
        return model_card(self.model, **options)
