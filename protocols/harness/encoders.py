"""The features that every method of a run sees: made once, from what may be seen, by one network or none."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name

import backbones
from protocols.harness.protocol import Setting
from protocols.recipes.building import load_model
from slots.errors import DataError, UsageError
from slots.features.preprocessing import Preprocessing
from slots.progress import Progress, silent
from slots.shapes import RawInputs
from slots.storage.atomic import write_file

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
EPOCHS, LEAST_STEPS, BATCH = 3, 600, 128
_WORTH_KEEPING = 1000
_BLOCK = 128  # images whose maps stay in the cache


@dataclass
class Encoder:
    """A frozen feature extractor: from raw inputs to feature rows.

    Parameters
    ----------
    name : str
        What the features are, for tables and for the name of the cache.
    preprocessing : Preprocessing
        From raw inputs to what the module takes.
    module : nn.Module
        From preprocessed inputs to features (batch, feature); differentiable.
    linear : nn.Linear, optional
        The classifier that it was trained with; None where nothing was trained.
    device : str
        Where the module lies and runs; features come back to the CPU.
    cache : Path, optional
        Folder where the features of `_WORTH_KEEPING` inputs and more are kept: for a network that is the same in every
        seed, and far costlier than reading a file.
    """

    name: str
    preprocessing: Preprocessing
    module: nn.Module
    linear: nn.Linear | None = None
    device: str = "cpu"
    cache: Path | None = None

    def __call__(self, x: RawInputs) -> Features:
        """Features of raw inputs, float32 of shape (example, feature); not normalised."""
        self.preprocessing.check(x)
        if self.cache is None or len(x) < _WORTH_KEEPING:
            return self._compute(x)
        path = self.cache / f"{self.name.replace(':', '-')}-{self._digest(x)}.npy"
        if path.exists():
            kept: Features = np.load(path)
            return kept
        found, file = self._compute(x), io.BytesIO()
        np.save(file, found)
        write_file(path, file.getvalue())
        return found

    def _digest(self, x: RawInputs) -> str:
        """A name for network and inputs together."""
        sha = hashlib.sha256(f"{self.preprocessing} {tuple(x.shape)} {self.device.split(':')[0]}".encode())
        for tensor in (*self.module.state_dict().values(), torch.as_tensor(x)):
            sha.update(tensor.cpu().contiguous().numpy().reshape(-1).view(np.uint8).data)
        return sha.hexdigest()[:16]

    @torch.no_grad()
    def _compute(self, x: RawInputs) -> Features:
        self.module.eval()
        rows = range(0, max(1, len(x)), _BLOCK)
        parts = [self.module(self.preprocessing(x[i : i + _BLOCK], self.device)) for i in rows]
        found: Features = torch.cat(parts).float().cpu().numpy()
        return found

    def logits(self, features: Features) -> Features:
        """Outputs of the classifier that it was trained with, float32 of shape (example, class)."""
        if self.linear is None:
            raise ValueError(f"`linear` must be there, got none in {self.name!r}. Fit `linear_probe` first.")
        weight, bias = (it.detach().cpu().numpy() for it in (self.linear.weight, self.linear.bias))
        found: Features = features @ weight.T + bias
        return found


def make_encoder(setting: Setting, x: RawInputs, y: Labels, seed: int, progress: Progress | None = None) -> Encoder:
    """The features of a setting, learned from nothing but ``x`` and ``y``.

    Parameters
    ----------
    setting : Setting
        ``none`` and ``pixels`` learn nothing; a network with ``weights`` and a fitted model stay as they are, and may
        have seen more than ``x``; every other backbone is trained here with a linear layer and cross-entropy
        (three epochs, or more until there are 600 steps; Adam, one-cycle rate), so that the features favour no method.
    x : array of shape (example, ...)
        Raw inputs that may be learned from.
    y : int64 array of shape (example,)
        Labels >= 0; gaps are allowed.
    seed : int
        Of the network's first weights and the order of training.
    progress : callable, optional
        ``progress(step, share)`` of the training. Default: nobody is told.

    Returns
    -------
    Encoder

    Raises
    ------
    UsageError
        If the backbone does not suit the data.
    """
    preprocessing = Preprocessing.of(x)
    if setting.model is not None:
        return _of_model(setting, x)
    if preprocessing.kind == "features":
        if backbones.is_text_name(setting.backbone):
            return Encoder(setting.backbone, preprocessing, nn.Identity())
        if setting.backbone != "none":
            raise UsageError(f"`backbone` must be none for feature rows, got {setting.backbone!r}. Leave it out.")
        return Encoder("none", preprocessing, nn.Identity())
    if setting.backbone == "none":
        raise UsageError("`backbone` must be a network or pixels for images, got 'none'. Try cnn.")
    torch.manual_seed(seed)
    name, options = setting.backbone, {}
    if backbones.is_network_name(name):
        if setting.weights is None:
            raise UsageError("`weights` must be given for a frozen network, got none. Pass --weights FILE or default.")
        name, options = "pretrained", {"network": name, "weights": setting.weights}
    try:
        net = backbones.build(name, input_shape=preprocessing.shape, **options)  # type: ignore[arg-type]
    except ValueError as error:
        raise UsageError(str(error)) from error
    encoder = Encoder(setting.backbone, preprocessing, net.to(setting.device), device=setting.device)
    if any(parameter.requires_grad for parameter in net.parameters()):
        _load_or_train(encoder, setting, x, y, seed=seed, progress=progress or silent)
    elif any(True for _ in net.parameters()):
        encoder.cache = setting.cache
    net.requires_grad_(False).eval()
    return encoder


def _of_model(setting: Setting, x: RawInputs) -> Encoder:
    """The backbone of a fitted model."""
    assert setting.model is not None
    model = load_model(setting.model, device=setting.device)
    try:
        model.preprocessing.check(x[:1])
    except DataError as error:
        raise UsageError(f"`model` must have been fitted on such data: {error}") from error
    model.eval().requires_grad_(False)
    return Encoder(str(setting.model), model.preprocessing, model.backbone, device=str(model.device))


def _load_or_train(
    encoder: Encoder, setting: Setting, x: RawInputs, y: Labels, *, seed: int, progress: Progress
) -> None:
    """Train the encoder, or take what an earlier run with equal data, network and seed kept."""
    classes = np.unique(y)
    targets = torch.from_numpy(np.searchsorted(classes, y))
    features = encoder.module(torch.zeros(1, *encoder.preprocessing.shape, device=encoder.device)).shape[1]
    encoder.linear = nn.Linear(features, len(classes)).to(encoder.device)
    kept = _kept_file(encoder, setting, x, y, seed)
    both = nn.ModuleList([encoder.module, encoder.linear])
    if kept is not None and kept.exists():
        both.load_state_dict(load_file(kept, device=encoder.device))
    else:
        _train(encoder, both, x, targets, seed=seed, progress=progress)
        if kept is not None:
            write_file(kept, save({name: it.contiguous() for name, it in both.state_dict().items()}))
    both.requires_grad_(False)


def _train(encoder: Encoder, both: nn.Module, x: RawInputs, targets: Tensor, *, seed: int, progress: Progress) -> None:
    """Cross-entropy by Adam with a one-cycle rate."""
    assert encoder.linear is not None
    generator = torch.Generator().manual_seed(seed)
    both.train().to(memory_format=torch.channels_last)  # a third quicker on a CPU
    optimizer = torch.optim.Adam(both.parameters(), 1e-3)
    batches = -(-len(x) // BATCH)
    epochs = max(EPOCHS, -(-LEAST_STEPS // batches))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=epochs * batches)
    for epoch in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for i, rows in enumerate(order.split(BATCH)):
            inputs = encoder.preprocessing(x[rows.numpy()], encoder.device)
            optimizer.zero_grad()
            logits = encoder.linear(encoder.module(inputs))
            F.cross_entropy(logits, targets[rows].to(encoder.device)).backward()
            optimizer.step()
            schedule.step()
            if i % 50 == 0:
                progress("training the features", (epoch + i / batches) / epochs)
    both.eval()


def _kept_file(encoder: Encoder, setting: Setting, x: RawInputs, y: Labels, seed: int) -> Path | None:
    """Where such weights are kept: named by all that decides them."""
    if setting.cache is None:
        return None
    sha = hashlib.sha256(f"2 {encoder.name} {EPOCHS} {LEAST_STEPS} {BATCH} {seed} {x.shape}".encode())
    for array in (np.asarray(x), y):
        sha.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return setting.cache / f"{encoder.name}-{sha.hexdigest()[:16]}.safetensors"
