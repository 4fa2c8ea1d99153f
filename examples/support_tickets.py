"""Support tickets: sort text by intent, notice new intents, and learn them from a few labels.

Short messages to a shop are sorted into intents. Then messages come in with two intents that nobody has named. The
model finds them, asks for a few labels, and answers them from then on. What it matched before it answers as before.
"""

# %% [markdown]
# ## Messages
#
# They are put together from phrases, so that the example needs no file. Yours come from a table with the columns `text`
# and `label`.

# %%
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer

import slots

PHRASES = {
    "parcel": "where is my {}|my {} has not arrived|when will the {} be delivered|tracking of the {} is stuck",
    "refund": "i want my money back for the {}|please refund the {}|when is the {} refunded|refund for a returned {}",
    "password": "i forgot my password for the {}|reset my {} password|the {} login does not work|locked out of the {}",
    "broken": "the {} is broken|my {} stopped working|a part of the {} is damaged|the {} came with a crack",
    "invoice": "send the invoice for the {}|the bill of the {} is wrong|a receipt for a {}|the {} invoice is late",
    "cancel": "cancel my {} subscription|end the contract for the {}|unsubscribe from the {}|stop renewing the {}",
}
THINGS = ["phone", "order", "account", "lamp", "tablet", "bike", "kettle", "magazine", "app", "camera", "tent", "chair"]
THINGS += ["watch", "desk", "printer", "shoes", "router", "guitar", "jacket", "toaster", "book", "drone", "sofa", "pen"]
POLITE = ["", "hello, ", "please help, ", "hi team, "]

intents = list(PHRASES)
texts, labels = [], []
for intent, phrases in PHRASES.items():
    for phrase in phrases.split("|"):
        for thing in THINGS:
            texts.append(POLITE[len(texts) % 4] + phrase.format(thing))
            labels.append(intents.index(intent))
labels = np.array(labels)

# %% [markdown]
# ## From text to rows
#
# Here latent semantic analysis (tf-idf and a singular value decomposition) stands in for a sentence encoder. With one
# on your machine leave this out, and pass `backbone=backbones.build("text:NAME")` and the texts themselves.

# %%
words = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
rows = TruncatedSVD(20, random_state=0).fit_transform(words).astype("float32")
order = np.random.default_rng(0).permutation(len(rows))
first, later, test = np.split(order, [240, 400])
known = labels < 4  # the last two intents are not known yet

# %% [markdown]
# ## Learn four intents, then look at what comes in

# %%
config = slots.TrainConfig(epochs=10, slots_per_class=4, closing=slots.ClosingConfig(reach=0.8))
model, _ = slots.fit(rows[first][known[first]], labels[first][known[first]], config=config)
before = model.predict(rows[test])
proposal = model.propose(rows[later], budget=12)
print(proposal)
for query in proposal.queries[:4]:
    print("  asks about:", texts[later[query]])

# %% [markdown]
# ## Answer its questions, and update
#
# A person reads the messages on the page that `slots update --dry-run` writes. Here the true intents are given.

# %%
told = {int(query): int(labels[later[query]]) for query in proposal.queries}
report = model.update(rows[later], told, proposal=proposal)
after = model.predict(rows[test])
print(f"{report.labels_used} labels, {report.slots_added} slots added")
same = after.labels[before.matched] == before.labels[before.matched]
print(f"{same.mean():.0%} of the {before.matched.sum()} matched answers are as before")
assert same.all()

# %% [markdown]
# ## Accuracy by intent, before and after

# %%
kinds = range(len(intents))
scores = [[np.mean(it.labels[labels[test] == kind] == kind) for kind in kinds] for it in (before, after)]
assert np.mean(scores[1][4:]) > 0.5 > np.mean(scores[0][4:])
figure, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
for shift, values, name, colour in zip(
    (-0.2, 0.2), scores, ("before", "after"), ("lightgray", "tab:blue"), strict=True
):
    axes.bar(np.arange(len(intents)) + shift, values, 0.4, label=f"{name} 12 labels", color=colour)
axes.set_xticks(range(len(intents)), [*intents[:4], *(f"{it} (new)" for it in intents[4:])])
axes.set(ylabel="accuracy on other messages", ylim=(0, 1.05))
axes.legend(loc="lower left")
Path("runs/examples").mkdir(parents=True, exist_ok=True)
figure.savefig("runs/examples/support_tickets.png", dpi=110)
