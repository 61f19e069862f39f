/* Live updates that can be paused, boxes that check all others, and buttons that copy. Nothing here needs eval. */
"use strict";

(() => {
  const KEY = "soc-tasks-live";
  const live = document.getElementById("soc-live");
  const button = document.getElementById("soc-live-switch");
  const state = document.getElementById("soc-live-state");

  const read = () => {
    try {
      return localStorage.getItem(KEY) === "paused";
    } catch {
      // Where storage is refused, the switch lasts as long as the page.
      return false;
    }
  };
  let paused = read();

  const tell = (what) => {
    if (state && state.dataset.state !== what) {
      state.dataset.state = what;
      state.textContent = state.dataset[what];
    }
  };

  const show = () => {
    button.setAttribute("aria-pressed", String(paused));
    button.textContent = paused ? button.dataset.resume : button.dataset.pause;
    tell(paused ? "paused" : "running");
  };

  // What somebody is about to use must not be taken away from under them.
  const isInUse = () => {
    if (live.querySelector("input:checked, details[open]")) return true;
    const selection = getSelection();
    return Boolean(selection && !selection.isCollapsed && live.contains(selection.anchorNode));
  };

  if (live && button) {
    show();
    button.addEventListener("click", () => {
      paused = !paused;
      try {
        localStorage.setItem(KEY, paused ? "paused" : "running");
      } catch {
        // As above.
      }
      show();
    });
    live.addEventListener("htmx:beforeRequest", (event) => {
      if (paused || document.hidden || isInUse()) {
        event.preventDefault();
        if (!paused && !document.hidden) tell("held");
      }
    });
    // An answer that was asked for before.
    live.addEventListener("htmx:beforeSwap", (event) => {
      if (paused || isInUse()) event.detail.shouldSwap = false;
    });
    live.addEventListener("htmx:afterRequest", (event) => {
      if (!paused) tell(event.detail.successful ? "running" : "lost");
    });
  }

  document.addEventListener("change", (event) => {
    if (!event.target.matches("[data-check-all]")) return;
    for (const box of event.target.closest("table").querySelectorAll("tbody input[type=checkbox]")) {
      box.checked = event.target.checked;
    }
  });

  document.addEventListener("click", async (event) => {
    const copier = event.target.closest("[data-copy]");
    if (!copier) return;
    const source = document.getElementById(copier.dataset.copy);
    const told = copier.parentElement.querySelector("[role=status]");
    try {
      await navigator.clipboard.writeText(source.textContent);
      told.textContent = "Copied.";
    } catch {
      // No clipboard without https: what is selected can be copied by hand.
      getSelection().selectAllChildren(source);
      told.textContent = "Selected: copy it with the keyboard.";
    }
  });
})();
