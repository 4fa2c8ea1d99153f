"""Why this answer? The slot, what it remembers, and what in the image made it fire.

Every answer names a slot. The slot remembers training images, and its weight shows which pixels speak for it and which
against. The best slot of another label says what the image was nearly taken for.
"""

# %% [markdown]
# ## A model of images

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import backbones
import slots
from protocols.data import load_data

data = load_data("digits")
pixels = backbones.build("pixels", input_shape=(1, 8, 8))
config = slots.TrainConfig(epochs=15, batch_size=100, slots_per_class=8)
model, _ = slots.fit(data.x_train, data.y_train, backbone=pixels, config=config)
answers = model.predict(data.x_test)

# %% [markdown]
# ## Four answers: two that are vouched for, one unsure, one wrong
#
# The margin is the angle by which the input lies inside its slot's region. A negative one lies outside.

# %%
right = answers.labels == data.y_test
surest = np.argsort(-answers.margins)
rows = [surest[0], surest[100], surest[right[surest]][-1], np.flatnonzero(~right)[0]]
for row in rows:
    kind = slots.Answer(answers.answers[row]).name.lower()
    print(f"image {row}: {answers.labels[row]}, {kind}, margin {np.degrees(answers.margins[row]):.1f} degrees")

# %% [markdown]
# ## What is behind each
#
# From left to right: the input, the training image that the slot remembers, the slot's weight (red speaks for it, blue
# against), and the training image behind the best slot of another label.

# %%
weights = model.head.weights.detach().numpy()
columns = ("input", "remembered", "weight", "runner-up")
figure, axes = plt.subplots(len(rows), 4, figsize=(7, 6.4), layout="constrained")
for line, row in zip(axes, rows, strict=True):
    slot, other = answers.slots[row], answers.runner_up_slots[row]
    behind = [int(model.head.exemplars[it][0]) for it in (slot, other)]
    weight = weights[slot].reshape(8, 8)
    line[0].imshow(data.x_test[row], cmap="gray_r")
    line[1].imshow(data.x_train[behind[0]], cmap="gray_r")
    line[2].imshow(weight, cmap="coolwarm", vmin=-np.abs(weight).max(), vmax=np.abs(weight).max())
    line[3].imshow(data.x_train[behind[1]], cmap="gray_r")
    line[0].set_ylabel(f"is {data.y_test[row]}\nanswered {answers.labels[row]}", fontsize=9)
    for axis, name in zip(line, columns, strict=True):
        axis.set(xticks=[], yticks=[], title=name if line is axes[0] else "")
assert all(data.y_train[int(model.head.exemplars[answers.slots[row]][0])] == answers.labels[row] for row in rows[:2])
Path("runs/examples").mkdir(parents=True, exist_ok=True)
figure.savefig("runs/examples/why_this_answer.png", dpi=110)
