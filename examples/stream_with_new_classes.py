"""A stream with new classes: learn in one pass, two classes at a time, and forget nothing.

The digits come class after class and are never seen again. A linear classifier that learns in steps forgets the earlier
ones. `ContinualSlots` keeps few prototypes for each class, in bounded memory, and needs no task labels.
"""

# %% [markdown]
# ## The stream

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

import slots

rows, labels = load_digits(return_X_y=True)
rows = (rows / 16).astype("float32")
order = np.random.default_rng(0).permutation(len(rows))
train, test = order[:1000], order[1000:]
pairs = [(first, first + 1) for first in range(0, 10, 2)]

# %% [markdown]
# ## Learn and ask
#
# After each pair of classes both learners are asked about all classes that have come so far.

# %%
ours = slots.ContinualSlots(random_state=0)
linear = SGDClassifier(random_state=0)
curves = {"ContinualSlots": [], "linear classifier, same steps": []}
for pair in pairs:
    part = train[np.isin(labels[train], pair)]
    ours.partial_fit(rows[part], labels[part])
    linear.partial_fit(rows[part], labels[part], classes=np.arange(10))
    asked = test[labels[test] <= pair[1]]
    for curve, learner in zip(curves.values(), (ours, linear), strict=True):
        curve.append(np.mean(learner.predict(rows[asked]) == labels[asked]))
for name, curve in curves.items():
    print(f"{name}: {curve[-1]:.1%} on all ten classes")
print(f"{ours.nbytes / 1000:.0f} kB of memory")
assert curves["ContinualSlots"][-1] > 0.9 > 0.5 > curves["linear classifier, same steps"][-1]

# %% [markdown]
# ## Accuracy on everything seen so far

# %%
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for (name, curve), style in zip(curves.items(), ("o-", "s--"), strict=True):
    axes.plot([pair[1] + 1 for pair in pairs], curve, style, label=name)
axes.set(xlabel="classes seen so far", ylabel="accuracy on all of them", ylim=(0, 1.05), xticks=[2, 4, 6, 8, 10])
axes.legend()
Path("runs/examples").mkdir(parents=True, exist_ok=True)
figure.savefig("runs/examples/stream_with_new_classes.png", dpi=110)
