// {% group_count %}: one socket for all the counts on a page.
//
// Each element with data-group-count shows a number; when that changes, the element
// gets an event "group-count" with it, which bubbles.

import { LiveSocket } from "./groups.js";

/** @type {HTMLElement[]} */
let shown = [];
/** @type {string[]} */
let tokens = [];
/** The number of that list: an answer to a former one is none to it. */
let list = 0;
/** @type {LiveSocket | null} */
let socket = null;

/** Watch what the page has now, which may be more or less than before. */
function watch() {
  const elements = /** @type {NodeListOf<HTMLElement>} */ (
    document.querySelectorAll("[data-group-count]")
  );
  shown = [...elements];
  const present = [...new Set(shown.map((element) => element.dataset.groupCount ?? ""))];
  const same = present.length === tokens.length && present.every((token, i) => token === tokens[i]);
  if (same) return;
  tokens = present;
  list += 1;
  if (!socket && shown[0]) connect(shown[0].dataset.groupSocket ?? "/groups/counts/");
  else ask();
}

/** @param {string} path */
function connect(path) {
  socket = new LiveSocket(path);
  socket.addEventListener("status", ask);
  socket.addEventListener("message", (event) => {
    const { detail } = /** @type {CustomEvent} */ (event);
    if (detail?.type === "group.counts" && detail.list === list) show(detail.counts);
  });
}

function ask() {
  if (socket?.status === "open") socket.send({ type: "group.counts", list, tokens });
}

/** @param {Record<string, number>} counts */
function show(counts) {
  for (const [index, count] of Object.entries(counts)) {
    const token = tokens[Number(index)];
    for (const element of shown.filter(({ dataset }) => dataset.groupCount === token)) {
      if (element.textContent === String(count)) continue;
      element.textContent = String(count);
      element.dispatchEvent(new CustomEvent("group-count", { bubbles: true, detail: count }));
    }
  }
}

watch();
new MutationObserver((changes) => {
  const elements = changes.flatMap(({ addedNodes, removedNodes }) => [...addedNodes, ...removedNodes]);
  if (elements.some((node) => node instanceof Element)) watch();
}).observe(document.documentElement, { childList: true, subtree: true });
