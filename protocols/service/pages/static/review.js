// The review by keyboard. Every key presses a button of the page, so that nothing is done here that a form does not do.

const review = () => document.getElementById("review");
const picks = () => [...document.querySelectorAll("#review button.pick")];
const press = key => review().querySelector(`[data-key="${CSS.escape(key)}"]`);

// One item at a time is a stop of the Tab key; the arrows move among them.
function prepare() {
  const all = picks();
  const here = Math.max(0, all.indexOf(document.activeElement));
  all.forEach((it, i) => { it.tabIndex = i === here ? 0 : -1; });
  if (document.activeElement === document.body) review().focus({ preventScroll: true });
}

// The place of the item that an arrow leads to: beside it, or the nearest in the row above or below.
function beyond(all, here, key) {
  if (here < 0) return 0;
  if (key === "ArrowLeft") return Math.max(0, here - 1);
  if (key === "ArrowRight") return Math.min(all.length - 1, here + 1);
  const { offsetTop: top, offsetLeft: left } = all[here];
  const others = all.filter(it => key === "ArrowDown" ? it.offsetTop > top : it.offsetTop < top);
  if (!others.length) return here;
  const tops = others.map(it => it.offsetTop);
  const row = key === "ArrowDown" ? Math.min(...tops) : Math.max(...tops);
  const beside = others.filter(it => it.offsetTop === row);
  return all.indexOf(beside.reduce((a, b) => Math.abs(a.offsetLeft - left) <= Math.abs(b.offsetLeft - left) ? a : b));
}

function move(key) {
  const all = picks();
  if (!all.length) return;
  const to = all[beyond(all, all.indexOf(document.activeElement), key)];
  all.forEach(it => { it.tabIndex = it === to ? 0 : -1; });
  to.focus();
}

function typed(event) {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
  const field = document.getElementById("label");
  if (target === field) {
    if (key === "Escape") review().focus();
    return;
  }
  const elsewhere = target !== document.body && !target.closest?.("#review");
  if (elsewhere || target.matches("input:not([type=checkbox]), select, textarea")) return;
  const onItem = target.matches("button.pick");
  if (key.startsWith("Arrow")) move(key);
  else if (key === "?") document.getElementById("keys")?.toggleAttribute("open");
  else if (key === "x") { if (onItem) target.click(); else move("ArrowRight"); }
  else if (key.length === 1 && key !== " " && press(key)) press(key).click();
  else if (key === "Enter" && target === review()) field?.focus();
  else if (key === "/") field?.focus();
  else {
    if (key.length === 1 && key !== " ") field?.focus();  // the letter goes there
    return;
  }
  event.preventDefault();
}

document.addEventListener("keydown", typed);

// After an act the keys go on where they were: on the same item, else on the group, never in the field.
document.addEventListener("htmx:afterSettle", () => {
  if (document.activeElement?.id === "label") review().focus({ preventScroll: true });
  prepare();
});
prepare();
