/* Reads the part of the page that changes again every two seconds, unless that costs
   the store too much, and changes in the page only what is different, so that focus and
   selection stay where they are. */
"use strict";

{
  const EVERY = 2000;
  /* Milliseconds between what a screen reader is told at most. */
  const NEWS = 5000;

  const live = document.querySelector(".live");
  const bar = document.querySelector(".live-bar");
  const button = bar.querySelector("button");
  const state = bar.querySelector("[role=status]");
  const news = document.querySelector(".live-news");
  let timer = null;
  let paused = false;
  let told = textOf(live);
  let toldAt = 0;

  function textOf(root) {
    const text = root.querySelector("[data-news], [data-key=unavailable]");
    return text ? text.textContent.trim().replace(/\s+/g, " ") : "";
  }

  /* Children that all have a key are patched one by one, everything else as a whole. */
  function isKeyed(node) {
    return node.children.length > 0 && [...node.children].every((child) => child.dataset.key);
  }

  function patch(old, fresh) {
    if (old.isEqualNode(fresh)) return;
    if (!isKeyed(old) || !isKeyed(fresh)) {
      old.replaceWith(fresh);
      return;
    }
    for (const { name, value } of fresh.attributes) old.setAttribute(name, value);
    const known = new Map([...old.children].map((child) => [child.dataset.key, child]));
    let place = old.firstElementChild;
    for (const child of [...fresh.children]) {
      const same = known.get(child.dataset.key);
      known.delete(child.dataset.key);
      if (same === place && same) {
        place = place.nextElementSibling;
      } else {
        old.insertBefore(same ?? child, place);
      }
      if (same) patch(same, child);
    }
    for (const child of known.values()) child.remove();
  }

  /* What had the focus may have been made anew: an equal one takes it. */
  function keepingFocus(change) {
    const focused = document.activeElement;
    const address = live.contains(focused) && focused.getAttribute("href");
    const open = new Set([...live.querySelectorAll("details[open]")].map(rowOf));
    change();
    for (const details of live.querySelectorAll("details")) {
      if (open.has(rowOf(details))) details.open = true;
    }
    if (address && document.activeElement !== focused) {
      [...live.querySelectorAll("a")]
        .find((link) => link.getAttribute("href") === address)?.focus();
    }
  }

  function rowOf(node) {
    return node.closest("[data-key]").dataset.key;
  }

  function show(html) {
    const fresh = document.createElement("div");
    fresh.className = live.className;
    fresh.innerHTML = html;
    keepingFocus(() => {
      if (isKeyed(live) && isKeyed(fresh)) patch(live, fresh);
      else live.replaceChildren(...fresh.children);
    });
    const text = textOf(live);
    if (text !== told && Date.now() - toldAt > NEWS) {
      news.textContent = told = text;
      toldAt = Date.now();
    }
  }

  function say(text) {
    if (state.textContent !== text) state.textContent = text;
  }

  async function read() {
    const address = new URL(location.href);
    address.searchParams.set("_live", "1");
    try {
      const response = await fetch(address, { signal: AbortSignal.timeout(10000) });
      /* Redirected: to the login page. Forbidden: a permission was taken away. */
      if (response.redirected || response.status === 403 || response.status === 404) {
        paused = true;
        button.hidden = true;
        say("You are logged out, or may not see this any more. Reload the page.");
        live.replaceChildren();
        return;
      }
      if (!response.ok && response.status !== 503) throw new Error(response.statusText);
      const html = await response.text();
      if (paused) return;
      show(html);
      if (rests()) return;
      say(response.ok ? "Updated every two seconds." : "The store does not answer; trying again.");
    } catch {
      if (!paused) say("The server does not answer; trying again.");
    }
  }

  /* Stop for good where the server says that the page costs too much. */
  function rests() {
    if (!live.querySelector("[data-costly]")) return false;
    paused = true;
    button.hidden = true;
    say("A search among so many groups is not repeated by itself. Reload the page.");
    return true;
  }

  async function run() {
    timer = null;
    if (paused || document.hidden) return;
    await read();
    schedule();
  }

  function schedule(delay = EVERY) {
    if (timer === null && !paused && !document.hidden) timer = setTimeout(run, delay);
  }

  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(paused));
    say(paused ? "Paused." : "Updated every two seconds.");
    clearTimeout(timer);
    timer = null;
    schedule(0);
  });
  document.addEventListener("visibilitychange", () => schedule(0));
  bar.hidden = false;
  if (!rests()) say("Updated every two seconds.");
  schedule();
}
