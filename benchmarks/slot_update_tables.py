"""Tables and the picture of docs/updates.md from the JSON of `slot_update.py`.

pip install matplotlib
python benchmarks/slot_update_tables.py benchmarks/results/slot_update.json docs/updates.png
"""

import json
import sys
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt

HEADS = {"slots": "slots", "prototypes": "1,000 k-means prototypes"}


def main():
    """Print a table for each setting, draw the first."""
    document = json.loads(Path(sys.argv[1]).read_text())
    settings = list(dict.fromkeys((row["data"], row["held_out"], row["seed"]) for row in document["rows"]))
    for setting in settings:
        rows = [row for row in document["rows"] if (row["data"], row["held_out"], row["seed"]) == setting]
        print(f"\n### {setting[0]}, held out: {setting[1] or 'none'}, seed {setting[2]}\n")
        before(rows)
        choices(rows)
        ours(rows)
        if setting == settings[0] and len(sys.argv) > 2:
            picture(rows, setting, Path(sys.argv[2]))


def before(rows):
    """What the model knew of the stream before the update."""
    row = next(row for row in rows if row["head"] == "slots" and row["queries"] == "before")
    names = ("test", "test_old_classes", "old_matched_test", "new_unmatched_stream", "new_unmatched_test")
    print(", ".join(f"{name} {percent(row.get(name))}" for name in names), f"slots {row['slots']}\n")


def choices(rows):
    """Accuracy on the test images for each head and choice, means over the seeds of the peers."""
    budgets = sorted({row["budget"] for row in rows if row["budget"]})
    print("| head | what was labelled | " + " | ".join(map(str, budgets)) + " |")
    print("|---|---|" + "---|" * len(budgets))
    for head, choice in dict.fromkeys((row["head"], row["queries"]) for row in rows):
        if choice == "before":
            continue
        cells = [cell(rows, head, choice, budget) for budget in budgets]
        print(f"| {HEADS[head]} | {choice} | " + " | ".join(cells) + " |")


def cell(rows, head, choice, budget):
    """Accuracy, and that on the new classes in brackets."""
    found = [r for r in rows if (r["head"], r["queries"], r["budget"]) == (head, choice, budget)]
    if not found:
        return ""
    mean = sum(row["test"] for row in found) / len(found)
    if found[0]["test_new_classes"] is None:
        return f"{100 * mean:.2f}"
    return f"{100 * mean:.1f} ({100 * sum(row['test_new_classes'] for row in found) / len(found):.0f})"


def ours(rows):
    """The four figures of our updates, and what they left as it was."""
    names = {
        "labels_asked": "labels",
        "slots_added": "slots added",
        "stream": "stream",
        "stream_never_asked": "never asked",
        "stream_never_asked_before": "the same, before",
        "test": "test",
        "control_stream": "control, stream",
        "control_test": "control, test",
        "matched_test": "matched",
        "matched_right": "right when matched",
        "newly_matched_test": "newly matched",
        "newly_matched_right": "right when newly matched",
        "changed_matched_answers": "changed answers",
    }
    print("\n| " + " | ".join(names.values()) + " |\n|" + "---|" * len(names))
    for row in rows:
        if row["head"] == "slots" and row["queries"] == "unmatched cover":
            shown = [percent(row[key]) if isinstance(row[key], float) else str(row[key]) for key in names]
            print("| " + " | ".join(shown) + " |")


def percent(value):
    """In percent; a dash for nothing."""
    return "-" if value is None else f"{100 * value:.2f}"


def picture(rows, setting, path):
    """Accuracy on the test images against labels asked."""
    figure, axes = plt.subplots(figsize=(7, 4.2), dpi=120)
    start = {row["head"]: row["test"] for row in rows if row["queries"] == "before"}
    for head, choice in dict.fromkeys((row["head"], row["queries"]) for row in rows):
        mine = [row for row in rows if (row["head"], row["queries"]) == (head, choice)]
        if choice == "before" or (head == "slots" and choice != "unmatched cover"):
            continue
        budgets = sorted({row["budget"] for row in mine})
        means = [[100 * r["test"] for r in mine if r["budget"] == b] for b in budgets]
        values = [100 * start[head], *(sum(it) / len(it) for it in means)]
        style = {"lw": 2.5, "color": "black"} if head == "slots" else {"lw": 1.2}
        label = "slots update" if head == "slots" else f"prototypes, {choice}"
        axes.plot([0, *budgets], values, marker="o", ms=3, label=label, **style)
    axes.set(xlabel="labels asked", ylabel="accuracy on the test images, %")
    axes.set_title(f"{setting[0]}: classes {setting[1]} are new in the stream", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path)


if __name__ == "__main__":
    main()
