// What every page does beyond its forms. No page needs it.

// A part that could not be renewed is shown pale until it can.
for (const event of ["htmx:responseError", "htmx:sendError"]) {
  document.addEventListener(event, found => {
    const part = found.detail.elt;
    if (found.detail.xhr?.status === 401) location.assign("/login");
    if (part.id === "live") part.classList.add("stale");
    const answer = found.detail.xhr?.responseText;
    const place = document.getElementById("said") ?? found.detail.target;
    if (place && part.id !== "live" && answer?.startsWith("<p")) place.innerHTML = answer;
  });
}
document.addEventListener("htmx:afterSwap", found => found.detail.elt.classList.remove("stale"));

// A file dropped on a field is chosen in it, and its form is sent.
for (const field of document.querySelectorAll("[data-drop]")) {
  const input = field.querySelector("input[type=file]");
  for (const event of ["dragover", "dragleave", "drop"]) {
    field.addEventListener(event, found => {
      found.preventDefault();
      field.classList.toggle("over", event === "dragover");
    });
  }
  field.addEventListener("drop", found => {
    if (!found.dataTransfer.files.length) return;
    input.files = found.dataTransfer.files;
    input.form.requestSubmit();
  });
}
