// Help, the token of a private gallery, and the colour scheme.

const $ = (id) => document.getElementById(id);

/** Wire the dialogs; `signedIn(token)` is called with what was entered. */
export function acceptDialogs(signedIn) {
  $("help-button").addEventListener("click", () => $("help").showModal());
  for (const dialog of document.querySelectorAll("dialog")) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog && dialog.id !== "sign-in") dialog.close(); // on the backdrop
    });
  }
  $("sign-in-form").addEventListener("submit", (event) => {
    event.preventDefault();
    $("sign-in").close();
    signedIn($("token").value.trim());
  });
  acceptScheme();
  return {
    help: () => $("help").open || $("help").showModal(),
    signIn: (refused) => {
      $("token-wrong").hidden = !refused;
      if (!$("sign-in").open) $("sign-in").showModal();
      $("token").select();
    },
  };
}

function acceptScheme() {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => {
    $("theme").setAttribute("aria-pressed", dark());
    $("theme").title = dark() ? "Light colours" : "Dark colours";
  };
  $("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try {
      localStorage.setItem("freestyle-theme", root.dataset.theme);
    } catch {
      // It then lasts as long as the page.
    }
    show();
  });
  system.addEventListener("change", show);
  show();
}
