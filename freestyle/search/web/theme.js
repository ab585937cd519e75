// Before the first paint, so that a chosen scheme never flashes.
(() => {
  let chosen = null;
  try {
    chosen = localStorage.getItem("freestyle-theme");
  } catch {
    // Storage may be forbidden; the system's scheme holds then.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
