"""Label 50 of many: let the model choose which.

A model knows six digits. Six hundred unlabelled images come in, four new classes among them. Which fifty should a
person look at? The model proposes those whose labels cover most of what it does not know. The same number, drawn at
random, is beside it.
"""

# %% [markdown]
# ## Six known classes, four new ones

# %%
import copy
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import slots

rows, labels = load_digits(return_X_y=True)
rows = (rows / 16).astype("float32")
order = np.random.default_rng(0).permutation(len(rows))
first, pool, test = np.split(order, [500, 1100])
first = first[labels[first] < 6]


config = slots.TrainConfig(epochs=8, slots_per_class=6, closing=slots.ClosingConfig(reach=0.8))
before, _ = slots.fit(rows[first], labels[first], config=config)
start = np.mean(before.predict(rows[test]).labels == labels[test])

# %% [markdown]
# ## Ask, or draw
#
# `propose` returns the examples to label in order of use. For the comparison the update gets labels of random examples.

# %%
budgets = [10, 50]
accuracy = {"proposed": [], "random": []}
drawn = np.random.default_rng(1).permutation(len(pool))
proposal = before.propose(rows[pool], budget=50)
print(f"{len(proposal.unmatched)} of {len(pool)} images are unmatched.")
for budget in budgets:
    for name, curve in accuracy.items():
        model = copy.deepcopy(before)
        chosen = proposal.queries[:budget] if name == "proposed" else drawn[:budget]
        given = {int(it): int(labels[pool[it]]) for it in chosen}
        model.update(rows[pool], given)
        curve.append(np.mean(model.predict(rows[test]).labels == labels[test]))
print({name: f"{curve[-1]:.1%}" for name, curve in accuracy.items()}, f"with 50 labels, from {start:.1%}")
assert accuracy["proposed"][-1] > accuracy["random"][-1] > start

# %% [markdown]
# ## Accuracy against labels given

# %%
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for (name, curve), style in zip(accuracy.items(), ("o-", "s--"), strict=True):
    axes.plot([0, *budgets], [start, *curve], style, label=f"{name} examples labelled")
axes.set(xlabel="labels given", ylabel="accuracy on other images")
axes.legend()
Path("runs/examples").mkdir(parents=True, exist_ok=True)
figure.savefig("runs/examples/label_fifty.png", dpi=110)
