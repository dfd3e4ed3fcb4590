// The list of who is in the room, each with the process that holds the connection.

import { button, element, find, isolated } from "./page.js";

const HUES = 6;

export class People {
  constructor({ onWhisper, onKick }) {
    Object.assign(this, { onWhisper, onKick });
    this.list = find("members");
    this.items = new Map(); // id -> {member, item}
    this.self = null;
  }

  // Make the list these members, leaving entries alone that stay as they are.
  show(members, self) {
    if (self !== this.self) this.clear(self);
    const present = new Set(members.map((member) => member.id));
    for (const id of [...this.items.keys()]) if (!present.has(id)) this.remove(id);
    // Oneself first: the one entry that everybody looks for.
    for (const member of members) if (member.id === self) this.add(member);
    for (const member of members) if (member.id !== self) this.add(member);
  }

  clear(self) {
    this.self = self;
    this.items.clear();
    this.list.replaceChildren();
  }

  add(member) {
    const former = this.items.get(member.id);
    if (former?.member.process === member.process) {
      former.item.classList.toggle("typing-now", Boolean(member.typing));
      return;
    }
    const item = this.make(member);
    item.classList.toggle("typing-now", Boolean(member.typing));
    this.items.set(member.id, { member, item });
    if (former) former.item.replaceWith(item);
    else this.list.append(item);
  }

  remove(id) {
    const entry = this.items.get(id);
    if (!entry) return;
    const next = entry.item.nextElementSibling ?? entry.item.previousElementSibling;
    const focused = entry.item.contains(document.activeElement);
    entry.item.remove();
    this.items.delete(id);
    if (focused) (next?.querySelector("button") ?? find("destination")).focus();
  }

  has(id) {
    return this.items.has(id);
  }

  make(member) {
    const own = member.id === this.self;
    const initial = [...member.name.trim()][0] ?? "?";
    const name = element("p", { class: "member-name", title: member.name }, isolated(member.name));
    if (own) name.append(" ", element("small", {}, "you"));
    const process = element("p", { class: "member-process", "data-hue": hue(member.process) });
    process.append(element("span", { class: "visually-hidden" }, "on process "), member.process || "?");
    const actions = element("div", { class: "member-actions" });
    if (!own) {
      actions.append(
        button("Whisper", `Whisper to ${member.name}`, "whisper", () => this.onWhisper(member)),
        button("Kick", `Kick ${member.name}`, "kick", () => this.onKick(member)),
      );
    }
    return element(
      "li",
      { class: "member", "data-id": member.id },
      element("span", { class: "pane", "aria-hidden": "true" }, initial.toUpperCase()),
      name,
      process,
      actions,
    );
  }
}

// The same colour for the same process on every page; neighbouring ports differ.
function hue(process) {
  if (/^\d+$/.test(process)) return String(Number(process) % HUES);
  let sum = 0;
  for (const character of process ?? "") sum += character.codePointAt(0);
  return String(sum % HUES);
}
