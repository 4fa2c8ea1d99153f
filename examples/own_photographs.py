"""Your own photographs: a folder a class, a model, and the photograph behind each answer.

Two photographs that come with scikit-learn are cut into small ones: a garden, the sky above it, and a flower. The model
learns from a folder of files, as it would from yours, and shows which of its photographs made it answer.
"""

# %% [markdown]
# ## A folder with one folder of images a class
#
# Yours may look like this already. Then `load_data("photos", image_size=(8, 8))` is all you need.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

import backbones
import slots
from protocols.data import load_data

garden, flower = load_sample_images().images
parts = {"sky": garden[:120], "garden": garden[200:], "flower": flower[60:360, 120:480]}
rng = np.random.default_rng(0)
for name, picture in parts.items():
    folder = Path("photos") / name
    folder.mkdir(parents=True, exist_ok=True)
    height, width = picture.shape[:2]
    for number in range(80):
        top, left = rng.integers(0, height - 96), rng.integers(0, width - 96)
        Image.fromarray(picture[top : top + 96, left : left + 96]).save(folder / f"{number}.png")

# %% [markdown]
# ## Learn
#
# A fifth of each class is set aside. `pixels` compares the images themselves, which is enough for such simple ones. For
# real photographs take a pretrained network:
# `slots fit --data photos --backbone torchvision:resnet18 --weights default`.

# %%
data = load_data("photos", image_size=(8, 8))
pixels = backbones.build("pixels", input_shape=(3, 8, 8))
config = slots.TrainConfig(epochs=10, slots_per_class=6)
model, _ = slots.fit(data.x_train, data.y_train, backbone=pixels, config=config, class_names=data.class_names)
answers = model.predict(data.x_test)
right = answers.labels == data.y_test
print(f"{model.head.n_slots} slots, accuracy {right.mean():.0%}, matched {answers.matched.mean():.0%}")
assert right.mean() > 0.7

# %% [markdown]
# ## The photograph behind an answer
#
# `model.head.exemplars[slot]` names the training examples that a slot remembers, the nearest first.

# %%
shown = np.concatenate([np.flatnonzero(answers.matched & (data.y_test == label))[:2] for label in range(3)])
figure, axes = plt.subplots(2, len(shown), figsize=(7, 2.9), layout="constrained")
for column, row in enumerate(shown):
    behind = int(model.head.exemplars[answers.slots[row]][0])
    axes[0, column].imshow(data.x_test[row])
    axes[1, column].imshow(data.x_train[behind])
    axes[0, column].set_title(data.class_names[answers.labels[row]], fontsize=10)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
axes[0, 0].set_ylabel("new")
axes[1, 0].set_ylabel("remembered")
Path("runs/examples").mkdir(parents=True, exist_ok=True)
figure.savefig("runs/examples/own_photographs.png", dpi=110)
