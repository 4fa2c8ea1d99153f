"""Serve and label in the browser: a service that collects what is new, takes labels and learns them.

A model of the digits 0 to 7 is served. Images come in, 8s and 9s among them. What no slot matches waits in groups, and
a person labels a group with one key. An update learns the labels while the service goes on answering.
"""

# %% [markdown]
# ## A model that does not know 8s and 9s

# %%
import re
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import slots

rows, labels = load_digits(return_X_y=True)
rows = (rows / 16).astype("float32")
order = np.random.default_rng(0).permutation(len(rows))
train, stream, test = np.split(order, [700, 1100])
train = train[labels[train] < 8]
config = slots.TrainConfig(epochs=8, slots_per_class=6, held_out=0.2, closing=slots.ClosingConfig(reach=0.8))
names = tuple(str(it) for it in range(8))
model, _ = slots.fit(rows[train], labels[train], config=config, class_names=names)
model.save("runs/eight")

# %% [markdown]
# ## Serve it
#
# In a terminal this is `slots serve runs/eight`. It prints an address to open. Without keys only this machine may open
# it. Port 0 takes any port that is free.

# %%
command = [sys.executable, "-m", "protocols.commands", "serve", "runs/eight", "--port", "0"]
service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
address = re.search(r"http://\S+", service.stdout.readline())[0]
print("Open", address)

# %% [markdown]
# ## Send, label, learn
#
# In the browser, *Review* shows the groups: a key names one, and *Update* learns the labels. The client does the same
# here. It reads the label of a group's first image from the data set, as a person would read it off the picture.

# %%
try:
    client = slots.Client(address)
    before = [it.label for it in client.predict(rows[test]).answers]
    client.items(rows[stream], ids=[str(row) for row in stream])
    groups = client.review(budget=12)
    client.labels({group: str(labels[int(group.members[0].id)]) for group in groups})
    job = client.updates()
    after = [it.label for it in client.predict(rows[test]).answers]
    print(f"{len(groups)} groups labelled, {job.result['slots_added']} slots added, proven: {job.result['proven']}")
finally:
    service.terminate()
    service.wait()

# %% [markdown]
# ## Accuracy by class, before and after

# %%
truth = labels[test].astype(str)
scores = [[np.mean(np.array(it)[truth == str(digit)] == str(digit)) for digit in range(10)] for it in (before, after)]
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for shift, values, name, colour in zip(
    (-0.2, 0.2), scores, ("before", "after"), ("lightgray", "tab:blue"), strict=True
):
    axes.bar(np.arange(10) + shift, values, 0.4, label=f"{name} the update", color=colour)
axes.set(xlabel="digit", ylabel="accuracy on other images", ylim=(0, 1.05), xticks=range(10))
axes.legend(loc="lower left")
Path("runs/examples").mkdir(parents=True, exist_ok=True)
figure.savefig("runs/examples/serve_and_label.png", dpi=110)
assert np.mean(scores[1][8:]) > 0.5 > np.mean(scores[0][8:])
