"""Networks of parts of other people, and a plain one, trained from the encoder that a model of ours has.

ProtoPNet and PIP-Net are CaBRNet's: classifiers, losses, epochs of training, freezing and projection. Their settings
follow the library's own (CIFAR-10 for ProtoPNet, cars for PIP-Net), with three changes: far fewer epochs, so rates fall
by a cosine over all of them; a larger rate of the encoder, which is small; and small images, so each of the two views
that PIP-Net compares is moved by one pixel at most, half a step of the encoder, beside the library's changes of colour.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from slots.features.views import parse_views

RATE = 0.003  # of what is new, as the library has it
LAST = 0.001  # of ProtoPNet's last layer: ten times the library's, for a tenth of its epochs


@dataclass(frozen=True)
class Plan:
    """How long, and how fast.

    ``epochs`` are those in which all is trained; what comes before and after them is a share of them. ``rate`` is the
    encoder's.
    """

    epochs: int
    rate: float

    def share(self, part):
        """Epochs of a phase beside the main one."""
        return math.ceil(self.epochs / part)


class Batches:
    """Scaled images and labels, batch by batch, in the form in which the library reads them.

    ``augment`` names the views that one is drawn of. With ``pairs`` a batch holds two views of each image, the second
    ones behind the first: both flipped and moved alike by one pixel, then each by itself by one more, and before that
    changed by ``colours``, a function of one uint8 image with its channels first.
    """

    def __init__(self, x, y, preprocessing, *, size, augment="none", pairs=False, colours=None):
        self.x, self.y, self.preprocessing = x, torch.from_numpy(y).long(), preprocessing
        self.batch_size, self.shuffled = min(size, len(x)), augment != "none" or pairs
        self.augment, self.pairs, self.colours = parse_views(augment), pairs, colours
        self.alike, self.apart = parse_views("flip*shift1"), parse_views("shift1")

    def __len__(self):
        whole, rest = divmod(len(self.x), self.batch_size)
        return whole + (rest > 0 and not self.shuffled)  # the last batch of a training may be too small for statistics

    def __iter__(self):
        order = torch.randperm(len(self.x)) if self.shuffled else torch.arange(len(self.x))
        for at in order.split(self.batch_size)[: len(self)]:
            images = self.x[at.numpy()]
            x = self._pair(images) if self.pairs else self.augment.sample(self.preprocessing(images))
            yield x.contiguous(memory_format=torch.channels_last), self.y[at]  # the fastest order for convolutions here

    def _pair(self, images):
        seed = int(torch.randint(1 << 62, ()))
        views = []
        for _ in range(2):
            x = self.preprocessing(images if self.colours is None else self._coloured(images))
            views.append(self.apart.sample(self.alike.sample(x, torch.Generator().manual_seed(seed))))
        return torch.cat(views)

    def _coloured(self, images):
        changed = torch.stack([self.colours(image) for image in torch.from_numpy(images).permute(0, 3, 1, 2)])
        return changed.permute(0, 2, 3, 1).contiguous().numpy()


class Extractor(nn.Module):
    """An encoder and what is put on it, under the names that the library's settings have."""

    def __init__(self, convnet, add_on):
        super().__init__()
        self.convnet, self.add_on = convnet, add_on

    def forward(self, x, **_):
        """Maps of a batch, in the order of memory that the library's `view` needs."""
        return self.add_on(self.convnet(x)).contiguous()


def linear(encoder, width, classes, batches, plan):
    """Train a linear layer on the mean over all patches, as BagNet has it, then all; yield what it is at the end."""
    last = nn.Linear(width, classes)
    model = nn.Sequential(encoder, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last)
    learning = [parameter for parameter in encoder.parameters() if parameter.requires_grad]
    for epochs, together in ((plan.share(5), False), (plan.epochs, True)):
        groups = [{"params": last.parameters(), "lr": RATE}]
        if together:
            groups.append({"params": learning, "lr": plan.rate, "weight_decay": 0.001})
        optimizer = torch.optim.Adam(groups)
        loader = batches(augment="flip*shift2")
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(loader))
        for epoch in range(epochs):
            model.train()
            encoder.train(together)
            encoder.requires_grad_(False)
            for parameter in learning:
                parameter.requires_grad_(together)
            total = 0.0
            for x, y in loader:
                loss = functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                total += loss.item() / len(loader)
            said("linear", epoch + 1, epochs, {"loss": total})
    yield "", model


def protopnet(encoder, width, classes, batches, plan):
    """Train a ProtoPNet; yield it before its projection, right after, and with the last layer trained for it."""
    from cabrnet.archs.generic.conv_extractor import ConvExtractor
    from cabrnet.archs.protopnet.decision import ProtoPNetClassifier
    from cabrnet.archs.protopnet.model import ProtoPNet
    from cabrnet.core.utils.optimizers import OptimizerManager

    pointwise = {"type": "Conv2d", "params": {"out_channels": 128, "kernel_size": 1}}
    layers = {"conv1": pointwise, "act1": {"type": "ReLU"}}
    layers |= {"conv2": {**pointwise, "params": {**pointwise["params"]}}, "act2": {"type": "Sigmoid"}}
    add_on, channels = ConvExtractor.create_add_on({"init_mode": "PROTOPNET", **layers}, width)
    head = ProtoPNetClassifier({"name": "LegacyProtoPNetSimilarity"}, classes, channels, 10, proto_init_mode="UNIFORM")
    model = ProtoPNet(Extractor(encoder, add_on), head)
    warm, joint = plan.share(5), plan.share(5) + plan.epochs
    total = joint + plan.share(5)
    # In cycles, as its authors have it: patches take the prototypes' place once half way, and then at the end.
    middle = warm + plan.epochs // 2 - 1 if plan.epochs > 3 else total
    model.projection_config = {"start_epoch": middle, "frequency": total, "num_ft_epochs": plan.share(10)}
    new = {"addons": {"lr": RATE, "weight_decay": 0.001}, "prototypes": {"lr": RATE}}
    cosine = {"type": "CosineAnnealingLR", "params": {"T_max": plan.epochs}}
    everything = {"backbone": {"lr": plan.rate, "weight_decay": 0.001}, **new}
    settings = {
        "param_groups": {
            "backbone": {"include": "extractor.convnet", "exclude": fixed(encoder)},
            "addons": "extractor.add_on",
            "prototypes": "classifier.prototypes",
            "last_layer": "classifier.last_layer",
        },
        "optimizers": {
            "warmup_optimizer": {"type": "Adam", "groups": new},
            "joint_optimizer": {"type": "Adam", "groups": everything, "scheduler": cosine},
            "last_layer_optimizer": {"type": "Adam", "groups": {"last_layer": {"lr": LAST}}},
        },
        "num_epochs": total,
        "periods": {
            "warmup": {"num_epochs": warm, "freeze": ["backbone", "last_layer"], "optimizers": "warmup_optimizer"},
            "joint": {"num_epochs": plan.epochs, "freeze": "last_layer", "optimizers": "joint_optimizer"},
            "last": {
                "num_epochs": total - joint,
                "freeze": ["backbone", "addons", "prototypes"],
                "optimizers": "last_layer_optimizer",
            },
        },
    }
    manager = OptimizerManager.build_from_config(settings, model)
    loaders = {"train_set": batches(augment="flip*shift2"), "projection_set": batches()}
    trained(model, manager, loaders, range(joint), total)
    yield "before_projection", model
    model.project(loaders["projection_set"], device="cpu")
    yield "after_projection", model
    trained(model, manager, loaders, range(joint, total), total)
    yield "", model


def pipnet(encoder, width, classes, batches, plan, *, channels=200, colours=True):
    """Train a PIP-Net: views aligned, then the classifier alone, then all; yield what it is at the end."""
    from cabrnet.archs.generic.conv_extractor import ConvExtractor
    from cabrnet.archs.pipnet.decision import PIPNetClassifier
    from cabrnet.archs.pipnet.model import PIPNet
    from cabrnet.core.utils.custom_preprocess import TrivialAugmentWideNoShape
    from cabrnet.core.utils.optimizers import OptimizerManager

    layer = {"type": "Conv2d", "params": {"out_channels": channels, "kernel_size": 1}}
    add_on, channels = ConvExtractor.create_add_on({"init_mode": "XAVIER_UNIFORM", "conv": layer}, width)
    model = PIPNet(Extractor(encoder, add_on), PIPNetClassifier(classes, channels))
    pairs = batches(pairs=True, colours=TrivialAugmentWideNoShape() if colours else None)
    first, alone = plan.share(4), plan.share(16)
    net = {"backbone": {"lr": plan.rate}, "add_on": {"lr": 0.005}}
    falling = {"T_max": plan.epochs * len(pairs), "eta_min": plan.rate / 100}
    restarts = {"T_0": alone + plan.epochs, "eta_min": 0.001}
    settings = {
        "param_groups": {
            "backbone": {"include": "extractor.convnet", "exclude": fixed(encoder)},
            "add_on": "extractor.add_on",
            "classifier": "classifier.last_layer.weight",
        },
        "optimizers": {
            "optimizer_net": {
                "type": "AdamW",
                "params": {"weight_decay": 0.0},
                "groups": net,
                "scheduler": {"type": "CosineAnnealingLR", "trigger": "batch", "params": falling},
            },
            "optimizer_classifier": {
                "type": "Adam",
                "groups": {"classifier": {"lr": 0.05}},
                "scheduler": {"type": "CosineAnnealingWarmRestarts", "trigger": "batch", "params": restarts},
            },
        },
        "num_epochs": first + alone + plan.epochs,
        "periods": {
            "pretrain": {"num_epochs": first, "freeze": "classifier", "optimizers": "optimizer_net"},
            "fine_tuning": {
                "num_epochs": alone,
                "freeze": ["backbone", "add_on"],
                "optimizers": "optimizer_classifier",
            },
            "main": {"num_epochs": plan.epochs, "optimizers": ["optimizer_net", "optimizer_classifier"]},
        },
    }
    manager = OptimizerManager.build_from_config(settings, model)
    total = settings["num_epochs"]
    trained(model, manager, {"pretrain_set": pairs, "train_set": pairs}, range(total), total)
    yield "", model


KINDS = {"linear": linear, "protopnet": protopnet, "pipnet": pipnet}


def fixed(encoder):
    """Names of what is looked up and not trained: the library would set it free together with its group."""
    return [f"extractor.convnet.{name}" for name, value in encoder.named_parameters() if not value.requires_grad]


def trained(model, manager, loaders, epochs, total):
    """Some epochs of the library's training."""
    for epoch in epochs:
        manager.freeze(epoch)
        found = model.train_epoch(loaders, manager, device="cpu", epoch_idx=epoch)
        manager.scheduler_step(epoch, found["train_set/loss"])
        shown = {name.removeprefix("train_set/"): value for name, value in found.items() if "time" not in name}
        said(f"{type(model).__name__} ({', '.join(manager.get_active_periods(epoch))})", epoch + 1, total, shown)


def said(name, epoch, epochs, found):
    """One line of progress."""
    figures = ", ".join(f"{key} {value:.3f}" for key, value in found.items())
    print(f"{name}: epoch {epoch} of {epochs}: {figures}", file=sys.stderr, flush=True)
