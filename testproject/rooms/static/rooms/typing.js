// Who is typing: telling the others, and showing who of them is.

import { find, isolated } from "./page.js";

const IDLE = 3000; // milliseconds without a key

export class Typing {
  // tell(typing) sends it, and returns whether that went out.
  constructor({ tell }) {
    this.tell = tell;
    this.told = false;
    this.timer = null;
    this.line = find("typing");
    find("text").addEventListener("input", () => this.note());
  }

  note() {
    clearTimeout(this.timer);
    if (!find("text").value.trim()) {
      this.stop();
      return;
    }
    this.timer = setTimeout(() => this.stop(), IDLE);
    if (!this.told) this.told = this.tell(true);
  }

  stop() {
    clearTimeout(this.timer);
    if (this.told) this.tell(false);
    this.told = false;
  }

  // A new connection is not typing.
  forget() {
    clearTimeout(this.timer);
    this.told = false;
    this.line.replaceChildren();
  }

  show(members, self) {
    const names = members.filter(({ id, typing }) => typing && id !== self).map(({ name }) => name);
    this.line.replaceChildren();
    if (names.length === 1) this.line.append(isolated(names[0]), " is typing");
    if (names.length === 2) this.line.append(isolated(names[0]), " and ", isolated(names[1]), " are typing");
    if (names.length > 2) this.line.append(`${names.length} people are typing`);
  }
}
