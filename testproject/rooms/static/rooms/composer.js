// Where one writes: to all, or to one member.

import { find } from "./page.js";

export class Composer {
  // onSend(text, target) returns whether the text went out; target is null for all.
  constructor({ onSend }) {
    this.onSend = onSend;
    this.target = null;
    this.text = find("text");
    find("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      this.send();
    });
    find("whisper-end").addEventListener("click", () => this.to(null));
    this.text.addEventListener("input", () => this.fit());
    this.text.addEventListener("keydown", (event) => this.key(event));
  }

  key(event) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      this.send();
    }
    if (event.key === "Escape" && this.target) this.to(null);
  }

  send() {
    const text = this.text.value;
    if (!text.trim() || !this.onSend(text, this.target)) return;
    this.text.value = "";
    this.fit();
    this.text.focus();
  }

  to(member) {
    this.target = member;
    find("whispering").hidden = !member;
    find("whispering-to").textContent = member?.name ?? "";
    this.text.placeholder = member ? "Only they will see it" : "Say something";
    this.text.focus();
  }

  // As many lines as the text has, up to the style sheet's maximum.
  fit() {
    this.text.style.height = "auto";
    this.text.style.height = `${this.text.scrollHeight + 2}px`;
  }
}
