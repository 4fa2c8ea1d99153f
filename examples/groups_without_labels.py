"""Groups without labels: which there are, and how many.

Nobody says how many digits there are. `learn_graph` links alike images, looks for communities, and keeps the number of
groups for which most speaks. New images are put into the same groups.
"""

# %% [markdown]
# ## Images without labels
#
# The true digits are used at the end only, to see how good the groups are.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import normalized_mutual_info_score

import slots

images, digits = load_digits(return_X_y=True)
rows = (images / 16).astype("float32")
train, new = np.arange(len(rows)) < 1200, np.arange(len(rows)) >= 1200

# %% [markdown]
# ## Find groups

# %%
graph = slots.learn_graph(rows[train])
groups = graph.placement.communities.numpy()
score = normalized_mutual_info_score(digits[train], groups)
print(f"{graph.n_communities} groups; normalised mutual information with the digits {score:.2f}")
placed = graph.place(rows[new]).communities.numpy()
print(f"on new images {normalized_mutual_info_score(digits[new], placed):.2f}")
assert score > 0.7

# %% [markdown]
# ## The mean image of each group

# %%
figure, axes = plt.subplots(2, -(-graph.n_communities // 2), figsize=(7, 2.9), layout="constrained")
for axis in axes.flat:
    axis.axis("off")
for group, axis in zip(range(graph.n_communities), axes.flat, strict=False):
    axis.imshow(images[train][groups == group].mean(0).reshape(8, 8), cmap="gray_r")
    axis.set_title(f"{(groups == group).sum()} images", fontsize=9)
Path("runs/examples").mkdir(parents=True, exist_ok=True)
figure.savefig("runs/examples/groups_without_labels.png", dpi=110)
