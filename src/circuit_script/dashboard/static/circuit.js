// What the browser does by itself: zone, theme, tenant, keys, the telephone's menu.
(() => {
  "use strict";
  const year = 31536000;
  const cookie = (name) => document.cookie.split("; ").find((each) => each.startsWith(name + "="))?.slice(name.length + 1);
  const keep = (name, value) => {
    const safe = location.protocol === "https:" ? "; secure" : "";
    document.cookie = `${name}=${encodeURIComponent(value)}; path=/; max-age=${year}; samesite=lax${safe}`;
  };

  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";
  if (decodeURIComponent(cookie("circuit_zone") || "") !== zone) {
    keep("circuit_zone", zone);
    if (!document.body?.classList.contains("plain") && cookie("circuit_zone")) location.reload();
  }

  const turnTheme = () => {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const now = document.documentElement.dataset.theme || (dark ? "dark" : "light");
    const next = now === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    keep("circuit_theme", next);
  };

  const showKeys = () => document.getElementById("keys")?.showModal();
  const typing = (at) => at.closest?.("input, textarea, select, [contenteditable], dialog[open], .q-dialog");
  const rows = () => [...document.querySelectorAll("[data-row]")];

  const step = (by) => {
    const all = rows();
    if (!all.length) return;
    const was = all.findIndex((row) => row.classList.contains("at"));
    const next = Math.min(Math.max(was + by, 0), all.length - 1);
    all.forEach((row, place) => row.classList.toggle("at", place === next));
    all[next].scrollIntoView({ block: "nearest" });
  };

  let afterG = 0;
  const keys = {
    "/": () => document.querySelector("[data-search]")?.focus(),
    "?": showKeys,
    j: () => step(1),
    k: () => step(-1),
    t: turnTheme,
    "[": () => document.querySelector('[data-page="newer"]')?.click(),
    "]": () => document.querySelector('[data-page="older"]')?.click(),
    Enter: () => document.querySelector("[data-row].at a[href]")?.click(),
    g: () => (afterG = Date.now()),
  };

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.key === "Escape") {
      document.body.classList.remove("menu-open");
      document.activeElement?.blur?.();
      return;
    }
    if (typing(event.target)) return;
    if (Date.now() - afterG < 1500) {
      afterG = 0;
      const entry = document.querySelector(`.rail [data-key="${CSS.escape(event.key)}"]`);
      if (entry) {
        event.preventDefault();
        entry.click();
        return;
      }
    }
    const act = keys[event.key];
    if (!act || (event.key === "Enter" && event.target.closest("a, button, summary"))) return;
    if (event.key !== "Enter" || document.querySelector("[data-row].at")) event.preventDefault();
    act();
  });

  addEventListener("click", (event) => {
    const at = event.target;
    if (at.closest("button[data-theme]")) turnTheme();
    else if (at.closest("button[data-keys]")) showKeys();
    else if (at.closest("button[data-menu]")) document.body.classList.toggle("menu-open");
    else if (at.id === "keys") at.close();
  });

  addEventListener("change", (event) => {
    const at = event.target;
    if (at.matches?.("select[data-tenant]")) {
      keep("circuit_tenant", at.value);
      const place = new URL(location.href);
      // What belongs to one tenant is not there for another: back to the page's list.
      place.pathname = place.pathname.split("/").slice(0, 2).join("/");
      place.search = "?" + new URLSearchParams({ tenant: at.value });
      location.assign(place);
    } else if (at.matches?.("[data-submit]")) at.form?.requestSubmit();
  });

  // Where somebody can act, NiceGUI takes the place of what the page came with: what was typed and pressed goes along.
  const place = document.getElementById("app");
  if (place?.firstElementChild) {
    const fields = () => [...place.querySelectorAll("input, textarea, select, button, a[href]")];
    const before = fields();
    let focused, pressed;
    const note = (event) => {
      if (event.type === "focusin") focused = event.target;
      else pressed = event.target.closest("button[type=button]:not([data-theme], [data-keys], [data-menu])") ?? pressed;
    };
    place.addEventListener("focusin", note);
    place.addEventListener("click", note);
    new MutationObserver((_, observer) => {
      observer.disconnect();
      place.removeEventListener("focusin", note);
      place.removeEventListener("click", note);
      const after = fields();
      if (after.length !== before.length) return;
      before.forEach((was, at) => {
        const now = after[at];
        if (now === was ? was.checked !== was.defaultChecked : "value" in was && now.value !== was.value) {
          now.value = was.value;
          for (const kind of ["input", "change"]) now.dispatchEvent(new Event(kind, { bubbles: true }));
        }
        if (was === focused) {
          now.focus({ preventScroll: true });
          if (/^(text|search|password|textarea)$/.test(was.type)) now.setSelectionRange(was.selectionStart, was.selectionEnd);
        }
      });
      if (pressed) after[before.indexOf(pressed)]?.click();
    }).observe(place, { childList: true });
  }

  const start = () => {
    for (const later of document.querySelectorAll("script[type=later]")) {
      const script = document.createElement("script");
      script.nonce = later.nonce;
      script.async = false; // in their order
      if (later.dataset.src) script.src = later.dataset.src;
      else Object.assign(script, { type: "module", textContent: later.textContent });
      later.replaceWith(script);
    }
  };
  if (document.hidden) start();
  else requestAnimationFrame(() => setTimeout(start));

  // A form's empty fields stay out of the address.
  addEventListener("submit", (event) => {
    if (event.target.method !== "get") return;
    for (const field of event.target.elements) if (!field.value) field.disabled = true;
  });
  addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });
})();
