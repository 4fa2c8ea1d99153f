"""Your own embeddings: fit, read what a match is worth, and see where the model abstains.

Any network's features will do: one row an example. Here principal components of scikit-learn's digits stand in for
them. The fit keeps few prototypes, called slots. An answer is *matched* where a slot vouches for it. Elsewhere the
model gives its best guess and says so.
"""

# %% [markdown]
# ## Rows and labels
#
# Replace `rows` by your own float array of shape (example, feature), and `labels` by whole numbers or names.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

import slots

images, labels = load_digits(return_X_y=True)
rows = PCA(32, random_state=0).fit_transform(images).astype("float32")
shuffled = np.random.default_rng(0).permutation(len(rows))
train, test = shuffled[:900], shuffled[900:]

# %% [markdown]
# ## Fit
#
# Without a `config` a short look at the data chooses one. It takes some seconds; here the choice is written down.

# %%
config = slots.TrainConfig(epochs=10, slots_per_class=8)
model, result = slots.fit(rows[train], labels[train], config=config)
print(f"{model.head.n_slots} slots remember {len(train)} examples.")
print(result.closing.vouching)

# %% [markdown]
# ## Ask
#
# Three shares say how good it is: right answers of all, matched answers of all, right answers of the matched ones.

# %%
answers = model.predict(rows[test])
right = answers.labels == labels[test]
print(f"accuracy {right.mean():.1%}, matched {answers.matched.mean():.1%}")
print(f"right when matched {right[answers.matched].mean():.1%}")
assert right[answers.matched].mean() > right.mean()

# %% [markdown]
# ## Accuracy against the share that is answered
#
# Sort the answers by margin, the angle by which an input lies inside its slot, and answer only the surest. Left of the
# dashed line a slot vouches.

# %%
order = np.argsort(-answers.margins)
share = np.arange(1, len(test) + 1) / len(test)
figure, axes = plt.subplots(figsize=(7, 3.4), layout="constrained")
axes.plot(share, np.cumsum(right[order]) / np.arange(1, len(test) + 1), color="tab:blue")
axes.axvline(answers.matched.mean(), color="black", linestyle="--", linewidth=1, label="share that is matched")
axes.set(xlabel="share of inputs that are answered", ylabel="accuracy of these", ylim=(0.95, 1.002))
axes.legend()
Path("runs/examples").mkdir(parents=True, exist_ok=True)
figure.savefig("runs/examples/own_embeddings.png", dpi=110)
