"""Features for `benchmarks/novelty.py`: pixels, a small network trained here, and CIFAR-10 ResNets with given weights.

Each gives what a detector may learn from (``train``), familiar examples that neither the network nor the detector saw
(``held_out``, to calibrate on; ``test``, to measure on) and foreign sets.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # its usual name

FAR = {
    "mnist": ("fashion_mnist", "notmnist"),
    "fashion_mnist": ("mnist", "notmnist"),
    "cifar10": ("mnist", "fashion_mnist", "notmnist"),
}
N_UNKNOWN = 4  # classes left out in the held-out settings
N_HELD_OUT = 5000
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@dataclass
class Features:
    """Rows of features; ``weight`` and ``bias`` of the network's last layer, None for pixels."""

    train: np.ndarray
    y_train: np.ndarray
    held_out: np.ndarray
    test: np.ndarray
    far: dict
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    accuracy: float | None = None


class SmallNet(nn.Module):
    """Two convolutions and 128 features."""

    def __init__(self, n_classes):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(16, 32, 3, padding=1)
        self.hidden, self.linear = nn.Linear(32 * 49, 128), nn.Linear(128, n_classes)

    def features(self, x):
        """Before the last layer."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        return F.relu(self.hidden(x.flatten(1)))


class Block(nn.Module):
    """Basic block of He et al. 2015 with the parameter-free shortcut (their option A)."""

    def __init__(self, n_in, n_out, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False), nn.BatchNorm2d(n_out)
        self.conv2, self.bn2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False), nn.BatchNorm2d(n_out)
        self.wider = n_out - n_in

    def forward(self, x):
        """One step."""
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.wider:
            x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.wider // 2, self.wider // 2))
        return F.relu(x + y)


class ResNet(nn.Module):
    """ResNet of 6 n + 2 layers for 32 x 32 pixels; 64 features."""

    def __init__(self, n):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)

        def layer(n_in, n_out, stride):
            return nn.Sequential(Block(n_in, n_out, stride), *[Block(n_out, n_out, 1) for _ in range(n - 1)])

        self.layer1, self.layer2, self.layer3 = layer(16, 16, 1), layer(16, 32, 2), layer(32, 64, 2)
        self.linear = nn.Linear(64, 10)

    def features(self, x):
        """Before the last layer."""
        x = F.relu(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))


def load(folder, name):
    """Arrays of one archive."""
    with np.load(folder / f"{name}.npz") as data:
        return {key: data[key] for key in ("x_train", "y_train", "x_test", "y_test") if key in data}


def noises(images, n, rng):
    """Gaussian noise of the pixels' mean and spread, and uniform noise, in their shape."""
    shape = (n, *images.shape[1:])
    mean, std = images.mean(), images.std()
    gauss = np.clip(rng.normal(mean, std, shape).round(), 0, 255).astype(np.uint8)
    return {"gaussian noise": gauss, "uniform noise": rng.integers(0, 256, shape, dtype=np.uint8)}


def image_sets(folder, name, seed, *, near, n_test, n_train):
    """Raw images: train, y_train, held_out, test, y_test, far; labels renumbered where classes are left out."""
    data, rng = load(folder, name), np.random.default_rng(seed)
    foreign = {}
    if near:
        known = np.sort(rng.permutation(10)[N_UNKNOWN:])
        outside = ~np.isin(data["y_test"], known)
        foreign["held-out classes"] = data["x_test"][outside]
        for part in ("train", "test"):
            kept = np.isin(data[f"y_{part}"], known)
            data[f"x_{part}"], data[f"y_{part}"] = (
                data[f"x_{part}"][kept],
                np.searchsorted(known, data[f"y_{part}"][kept]),
            )
    else:
        known = np.arange(10)
        for other in FAR[name]:
            foreign[other] = load(folder, other)["x_test"][:n_test]
        foreign |= noises(data["x_test"], 2000, rng)
    order = rng.permutation(len(data["x_train"]))
    held, used = order[:N_HELD_OUT], order[N_HELD_OUT:][:n_train]
    tested = rng.permutation(len(data["x_test"]))[:n_test]
    x, y = data["x_train"], data["y_train"].astype(np.int64)
    return {
        "train": x[used], "y_train": y[used], "held_out": x[held],
        "test": data["x_test"][tested], "y_test": data["y_test"][tested], "far": foreign, "known": known,
    }  # fmt: skip


def pixels(folder, name, seed, *, near=False, n_test=2000, n_train=10_000):
    """Flat pixels in [0, 1]."""
    sets = image_sets(folder, name, seed, near=near, n_test=n_test, n_train=n_train)

    def flat(x):
        return x.reshape(len(x), -1).astype(np.float32) / 255

    far = {key: flat(x) for key, x in sets["far"].items()}
    return Features(flat(sets["train"]), sets["y_train"], flat(sets["held_out"]), flat(sets["test"]), far)


def small_net(folder, name, seed, cache, *, near=False, epochs=3, n_test=10_000):
    """Features of a small network trained on the training part less the held-out examples; kept in ``cache``."""
    file = cache / f"net-{name}-{seed}-{'near' if near else 'far'}-{epochs}-{n_test}.npz"
    if not file.exists():
        found = trained_net(folder, name, seed, near=near, epochs=epochs, n_test=n_test)
        flat = {key: value for key, value in vars(found).items() if key != "far"}
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(file, **flat, **{f"far {key}": x for key, x in found.far.items()})
    with np.load(file) as data:
        far = {key.removeprefix("far "): data[key] for key in data if key.startswith("far ")}
        rest = {key: data[key] for key in data if not key.startswith("far ")}
        return Features(far=far, **rest | {"accuracy": float(rest["accuracy"])})


def trained_net(folder, name, seed, *, near, epochs, n_test):
    """Train it and run all sets through it."""
    sets = image_sets(folder, name, seed, near=near, n_test=n_test, n_train=None)
    torch.manual_seed(seed)
    net, y = SmallNet(len(sets["known"])), torch.from_numpy(sets["y_train"])
    x = torch.from_numpy(sets["train"]).float()[:, None] / 255
    steps = epochs * -(-len(x) // 128)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            F.cross_entropy(net.linear(net.features(x[rows])), y[rows]).backward()
            optimizer.step()
            schedule.step()

    def run(images):
        parts = torch.from_numpy(images).split(1000)
        return np.concatenate([net.features(part.float()[:, None] / 255).numpy() for part in parts])

    return embedded(sets, run, net)


def resnet_bank(folder, weights, depth, cache, *, n_train=50_000, n_far=5000):
    """Features of all CIFAR-10 sets, once; kept in the folder ``cache``."""
    file = cache / f"resnet{depth}-{n_train}-{n_far}.npz"
    if not file.exists():
        net = ResNet((depth - 2) // 6)
        net.load_state_dict(torch.load(weights / f"cifar10_resnet{depth}.pt", weights_only=True))
        net.eval().to(memory_format=torch.channels_last)
        data, rng = load(folder, "cifar10"), np.random.default_rng(0)
        some = rng.permutation(50_000)[:n_train]
        images = {"train": data["x_train"][some], "test": data["x_test"]}
        images |= {name: load(folder, name)["x_test"][:n_far] for name in FAR["cifar10"]}
        images |= noises(data["x_test"], 2000, rng)
        found = {key: run_resnet(net, x) for key, x in images.items()}
        found |= {"y_train": data["y_train"][some], "y_test": data["y_test"]}
        found |= {"weight": net.linear.weight.detach().numpy(), "bias": net.linear.bias.detach().numpy()}
        cache.mkdir(parents=True, exist_ok=True)
        np.savez(file, **found)
    with np.load(file) as data:
        return dict(data)


@torch.no_grad()
def run_resnet(net, images):
    """Features of raw images."""
    return np.concatenate([net.features(as_input(part)).numpy() for part in torch.from_numpy(images).split(500)])


def resnet(bank, seed, *, near=False):
    """Features of a ResNet.

    The weights saw the whole training part, so the test part is cut in two, to calibrate on and to measure on. With
    ``near`` the detector does not know some classes, but the network did.
    """
    rng, weight, bias = np.random.default_rng(seed), bank["weight"], bank["bias"]
    known = np.sort(rng.permutation(10)[N_UNKNOWN:]) if near else np.arange(10)
    order = rng.permutation(len(bank["test"]))
    order = order[np.isin(bank["y_test"][order], known)]
    held, tested = np.array_split(order, 2)
    used = np.isin(bank["y_train"], known)
    far = {key: bank[key] for key in (*FAR["cifar10"], "gaussian noise", "uniform noise")}
    if near:
        far = {"held-out classes": bank["test"][~np.isin(bank["y_test"], known)]}
    right = float(((bank["test"][tested] @ weight.T + bias).argmax(1) == bank["y_test"][tested]).mean())
    return Features(
        bank["train"][used], np.searchsorted(known, bank["y_train"][used]), bank["test"][held], bank["test"][tested],
        far, weight[known], bias[known], right,
    )  # fmt: skip


def as_input(images):
    """Normalised 32 x 32 colour images."""
    x = images[..., None].expand(-1, -1, -1, 3) if images.ndim == 3 else images
    x = x.permute(0, 3, 1, 2).float() / 255
    if x.shape[-1] != 32:
        x = F.interpolate(x, size=(32, 32), mode="bilinear", align_corners=False)
    return ((x - MEAN) / STD).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def embedded(sets, run, net):
    """All sets through the network."""
    weight, bias = net.linear.weight.detach().numpy(), net.linear.bias.detach().numpy()
    test = run(sets["test"])
    right = float(((test @ weight.T + bias).argmax(1) == sets["y_test"]).mean())
    far = {key: run(x) for key, x in sets["far"].items()}
    return Features(run(sets["train"]), sets["y_train"], run(sets["held_out"]), test, far, weight, bias, right)
