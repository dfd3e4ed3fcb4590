// The conversation: what was said, and who came and went.

import { element, find, isolated } from "./page.js";

const LONGEST = 500; // entries; older ones go
const NEAR = 80; // pixels from the end that still count as reading along

export class Log {
  constructor() {
    this.list = find("log");
    this.latest = find("latest");
    this.latest.addEventListener("click", () => this.toEnd());
    this.list.addEventListener("scroll", () => {
      if (this.atEnd()) this.latest.hidden = true;
    });
  }

  // notice("join", "first", " joined")
  notice(kind, ...parts) {
    const text = element("span", {}, ...parts);
    this.add(element("li", { class: `entry notice ${kind}` }, text));
  }

  // kind: "" for what all hear, else what kind of whisper it is.
  speech({ name, text, mine = false, kind = "" }) {
    const head = element("p", { class: "entry-head" }, element("strong", {}, isolated(name)));
    if (kind) head.append(element("span", { class: "entry-kind" }, kind));
    head.append(now());
    const body = element("p", { class: "entry-text", dir: "auto" }, text);
    const classes = ["entry", "said", mine && "mine", kind && "whisper"].filter(Boolean);
    this.add(element("li", { class: classes.join(" ") }, head, body), mine);
  }

  add(entry, follow = false) {
    const reading = this.atEnd();
    this.list.append(entry);
    while (this.list.children.length > LONGEST) this.list.firstElementChild.remove();
    if (reading || follow) this.toEnd();
    else this.latest.hidden = false;
  }

  atEnd() {
    const { scrollHeight, scrollTop, clientHeight } = this.list;
    return scrollHeight - scrollTop - clientHeight < NEAR;
  }

  toEnd() {
    this.list.scrollTop = this.list.scrollHeight;
    this.latest.hidden = true;
  }
}

function now() {
  const date = new Date();
  const text = date.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return element("time", { datetime: date.toISOString() }, text);
}
