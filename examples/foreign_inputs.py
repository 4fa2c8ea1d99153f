"""Is this input foreign? A yes or no at a false-alarm rate that you choose.

A detector learns what the digits 0 to 4 look like. Then it is asked about other images of them, about the digits 5 to
9, and about noise. You say how many false alarms you can bear. The rate is held on familiar inputs, whatever the
foreign ones are.
"""

# %% [markdown]
# ## Familiar and foreign

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import slots

rows, labels = load_digits(return_X_y=True)
rows = (rows / 16).astype("float32")
rng = np.random.default_rng(0)
familiar = rng.permutation(np.flatnonzero(labels < 5))
train, test = familiar[:600], familiar[600:]
noise = rng.permuted(rows[test], axis=1)  # the same pixels in another order
inputs = {"digits 0 to 4, others": rows[test], "digits 5 to 9": rows[labels >= 5], "shuffled pixels": noise}

# %% [markdown]
# ## Learn, and ask
#
# The detector sets a part of the training rows aside and calibrates on them (split conformal prediction). A model
# does the same with `model.assess_novelty`.

# %%
detector = slots.NoveltyDetector(100, false_alarm_rate=0.05).fit(rows[train])
found = {name: detector.assess(x) for name, x in inputs.items()}
for name, novelty in found.items():
    print(f"{name}: {novelty.novel.mean():.1%} are called foreign")
called = [novelty.novel.mean() for novelty in found.values()]
assert called[0] < 0.12 < 0.5 < min(called[1:])

# %% [markdown]
# ## Scores, and the threshold

# %%
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
threshold = min(novelty.scores[novelty.novel].min() for novelty in found.values())
bins = np.linspace(0, np.percentile(np.concatenate([it.scores for it in found.values()]), 99), 40)
for (name, novelty), colour in zip(found.items(), ("tab:blue", "tab:orange", "gray"), strict=True):
    axes.hist(np.clip(novelty.scores, 0, bins[-1]), bins, alpha=0.6, density=True, label=name, color=colour)
axes.axvline(threshold, color="black", linestyle="--", linewidth=1, label="threshold at 5 % false alarms")
axes.set(xlabel="novelty score", ylabel="density")
axes.legend()
Path("runs/examples").mkdir(parents=True, exist_ok=True)
figure.savefig("runs/examples/foreign_inputs.png", dpi=110)
