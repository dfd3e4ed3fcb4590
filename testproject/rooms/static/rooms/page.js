// Small helpers for building pages out of text, never out of HTML.

export function find(id) {
  return document.getElementById(id);
}

// element("p", {class: "note"}, "text", otherElement)
export function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children); // strings become text nodes
  return node;
}

// Text of a user, kept from turning the writing direction of its surroundings.
export function isolated(text) {
  return element("bdi", {}, text);
}

export function button(text, label, className, onClick) {
  const node = element("button", { type: "button", class: `button quiet small ${className}`, "aria-label": label }, text);
  node.addEventListener("click", onClick);
  return node;
}

export function showProblem(node, input, text) {
  node.textContent = text;
  input.toggleAttribute("aria-invalid", false);
  if (text) input.setAttribute("aria-invalid", "true");
}

export function plural(count, one, many) {
  return `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
}
