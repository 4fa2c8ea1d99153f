// What every page does beyond its forms. No page needs it.
for (const event of ["htmx:responseError", "htmx:sendError"]) {
  document.addEventListener(event, found => {
    found.detail.elt.classList.toggle("stale", true);
  });
}
document.addEventListener("htmx:afterSwap", found => found.detail.elt.classList.remove("stale"));
