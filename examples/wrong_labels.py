"""Find wrong labels: a ranking with the most suspicious first.

Six in a hundred labels of the digits are changed. A small network is watched while it learns, and a noise matrix says
which labels are likely wrong. `slots clean` does the same from the command line, and writes a page to go through.
"""

# %% [markdown]
# ## Labels, some of them wrong

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import slots

images, labels = (it[:700] for it in load_digits(return_X_y=True))
rng = np.random.default_rng(0)
given = labels.copy()
wrong = rng.choice(len(labels), 42, replace=False)
given[wrong] = (labels[wrong] + rng.integers(1, 10, 42)) % 10

# %% [markdown]
# ## Look for them

# %%
found = slots.find_label_errors(None, (images / 16).astype("float32"), given)
ranked = found.ranked()
is_wrong = given[ranked] != labels[ranked]
print(f"{found.n_errors} labels are wrong by the estimate; 42 are.")
print(f"Of the first 42 in the list {is_wrong[:42].sum()} are wrong.")
assert is_wrong[:42].mean() > 0.85

# %% [markdown]
# ## The first sixteen of the list
#
# Above each image: the label that it has, and the one that is suggested.

# %%
figure, axes = plt.subplots(2, 8, figsize=(7, 2.7), layout="constrained")
for axis, row in zip(axes.flat, ranked, strict=False):
    axis.imshow(images[row].reshape(8, 8), cmap="gray_r")
    axis.set_title(f"{given[row]} → {found.suggested[row]}", fontsize=10)
    axis.axis("off")
Path("runs/examples").mkdir(parents=True, exist_ok=True)
figure.savefig("runs/examples/wrong_labels.png", dpi=110)
