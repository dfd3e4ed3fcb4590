// What stands in place of the conversation when there is none: the question for a
// name, a room that does not let one in, the end of a visit.

import { find } from "./page.js";

const CONVERSATION = ["log", "composer"];

export class Gate {
  constructor() {
    this.retry = () => {};
    find("gate-retry").addEventListener("click", () => this.retry());
    find("gate-name").addEventListener("submit", (event) => {
      event.preventDefault();
      const name = find("name").value.trim();
      if (name) this.named(name);
    });
  }

  askName(room, suggestion, named) {
    this.named = named;
    this.show("Who is coming in?", `The others in “${room}” will see this name.`, {});
    find("gate-name").hidden = false;
    find("name").value = suggestion;
    find("name").select();
  }

  // action: the text of the button that calls retry().
  show(title, text, { action = "", retry = () => {} }) {
    this.retry = retry;
    find("gate-title").textContent = title;
    find("gate-text").textContent = text;
    find("gate-name").hidden = true;
    find("gate-actions").hidden = !action;
    find("gate-retry").textContent = action;
    for (const id of CONVERSATION) find(id).hidden = true;
    find("latest").hidden = true;
    find("gate").hidden = false;
    find("gate-title").focus({ preventScroll: true });
  }

  // Returns whether it was shown.
  hide() {
    const shown = !find("gate").hidden;
    find("gate").hidden = true;
    for (const id of CONVERSATION) find(id).hidden = false;
    return shown;
  }
}
