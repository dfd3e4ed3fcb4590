// The room page: one connection, in one room at a time.

import { Composer } from "./composer.js";
import { Gate } from "./gate.js";
import { Log } from "./log.js";
import { rememberedName, rememberName, roomApiPath, roomPath, roomProblem, roomSocketPath, suggestedName } from "./names.js";
import { find, isolated, plural, showProblem } from "./page.js";
import { People } from "./people.js";
import { LiveSocket, socketUrl } from "./socket.js";

const KICKED = 4000;
const ASK_AFTER = 300; // milliseconds without a further join
const REFUSALS = { full: "That room is full.", rejected: "That room is closed." };
const STATES = { connecting: "Connecting", waiting: "Connection lost, trying again", ended: "Not connected" };

class RoomPage {
  constructor(room) {
    this.room = room; // null when in none
    this.last = room; // the one to come back to
    this.name = rememberedName();
    this.id = null;
    this.welcomed = false;
    this.early = []; // came before the welcome that they belong to
    this.moving = false;
    this.gate = new Gate();
    this.log = new Log();
    this.composer = new Composer({ onSend: (text, target) => this.say(text, target) });
    this.people = new People({
      onWhisper: (member) => this.whisperTo(member),
      onKick: (member) => this.socket.send({ type: "kick", id: member.id }),
    });
    this.socket = new LiveSocket({
      url: () => socketUrl(roomSocketPath(this.last, this.name)),
      onMessage: (message) => this.receive(message),
      onState: (state, details) => this.showState(state, details),
      refused: () => this.wasRefused(),
    });
    this.listen();
  }

  start() {
    if (this.name) this.socket.open();
    else this.askName();
  }

  askName() {
    this.setStatus("ended", STATES.ended);
    this.gate.askName(this.last, suggestedName(), (name) => {
      this.name = name;
      rememberName(name);
      this.gate.hide();
      this.socket.open();
    });
  }

  listen() {
    find("move").addEventListener("submit", (event) => {
      event.preventDefault();
      this.move(find("destination").value.trim());
    });
    find("leave").addEventListener("click", () => this.move(null));
    find("people-button").addEventListener("click", () => this.showPeople());
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.showPeople(false);
    });
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden && this.welcomed) this.socket.send({ type: "who" });
    });
  }

  // What the page asks for

  say(text, target) {
    if (!target) return this.socket.send({ type: "say", text });
    if (!this.socket.send({ type: "whisper", to: target.id, text })) return false;
    this.log.speech({ name: this.name, text, mine: true, kind: `whispered to ${target.name}` });
    return true;
  }

  whisperTo(member) {
    this.showPeople(false);
    this.composer.to(member);
  }

  move(room) {
    const problem = room === null ? "" : roomProblem(room);
    showProblem(find("move-problem"), find("destination"), problem);
    if (problem) return;
    if (this.socket.send({ type: "move", room })) this.moving = true;
    else if (room !== null) this.enter(room);
  }

  // Into a room without a connection to move.
  enter(room) {
    this.room = this.last = room;
    this.showRoom();
    this.gate.hide();
    this.start();
  }

  // What the server says

  receive(message) {
    if (message.type === "welcome") {
      this.welcome(message);
      this.early.splice(0).forEach((early) => this.receive(early));
    } else if (!this.welcomed) {
      this.early.push(message);
    } else {
      const { join, leave, said, whispered, who, error } = this;
      ({ join, leave, said, whispered, who, error })[message.type]?.call(this, message);
    }
  }

  welcome({ id, room, process, count, members }) {
    this.id = id;
    this.moving = false;
    this.welcomed = true;
    this.room = room;
    if (room !== null) this.last = room;
    this.showRoom();
    this.showMembers(count, members);
    this.setStatus("open", `On process ${process}`);
    if (this.composer.target) this.composer.to(null);
    find("destination").value = "";
    showProblem(find("move-problem"), find("destination"), "");
    find("leave").hidden = room === null;
    if (room === null) this.showOut();
    else this.showIn();
  }

  join(member) {
    if (!this.people.has(member.id)) this.people.add({ process: "", ...member });
    this.showCount(member.count);
    this.log.notice("join", isolated(member.name), ` joined, ${here(member.count)}`);
    // The notice does not say on which process; the list of who is here does.
    clearTimeout(this.asking);
    this.asking = setTimeout(() => this.socket.send({ type: "who" }), ASK_AFTER);
  }

  leave({ id, name, count }) {
    this.people.remove(id);
    this.showCount(count);
    this.log.notice("leave", isolated(name), ` left, ${here(count)}`);
    if (this.composer.target?.id === id) this.composer.to(null);
  }

  said({ id, name, text }) {
    this.log.speech({ name, text, mine: id === this.id });
  }

  whispered({ name, text }) {
    this.log.speech({ name, text, kind: "whispers to you" });
  }

  who({ room, count, members }) {
    if (room === this.room) this.showMembers(count, members);
  }

  error({ error, detail }) {
    const text = error in REFUSALS ? REFUSALS[error] : detail;
    if (this.moving) showProblem(find("move-problem"), find("destination"), text);
    else this.log.notice("error", text);
    this.moving = false;
  }

  // A handshake failed: did the server mean it, or is it out of reach?
  async wasRefused() {
    try {
      const answer = await fetch(roomApiPath(this.last), { signal: AbortSignal.timeout(5000) });
      this.impossible = answer.status === 400;
      if (answer.ok) this.inside = (await answer.json()).count;
      return answer.ok || this.impossible;
    } catch {
      return false;
    }
  }

  // What is shown

  showState(state, { code, reason, refused } = {}) {
    this.welcomed = false;
    this.early = [];
    if (state !== "open") this.setStatus(state, STATES[state]);
    if (state === "ended") this.showEnd(code, reason, refused);
  }

  setStatus(state, text) {
    find("status").dataset.state = state;
    find("status").textContent = text;
  }

  showRoom() {
    const title = this.room ?? "No room";
    find("title").textContent = title;
    document.title = `${title} · Rooms`;
    if (this.room !== null) history.replaceState(null, "", roomPath(this.room));
  }

  showIn() {
    const came = this.gate.hide();
    this.log.notice("here", "You are in ", isolated(this.room));
    this.showPeople(false);
    if (came || document.activeElement === document.body) find("text").focus();
  }

  showOut() {
    this.showPeople(false);
    this.gate.show("You are in no room", `You left “${this.last}”. Move to another one, or go back.`, {
      action: "Go back in",
      retry: () => this.move(this.last),
    });
  }

  showEnd(code, reason, refused) {
    const again = { action: refused ? "Try again" : "Come back in", retry: () => this.enter(this.last) };
    this.showMembers(0, []);
    find("leave").hidden = true;
    if (this.impossible) this.gate.show("There can be no such room", "Its name is too long, or empty.", {});
    else if (refused) this.gate.show("This room is closed or full", `“${this.last}” did not let you in. It has ${plural(this.inside, "person", "people")} in it.`, again);
    else if (code === KICKED) this.gate.show("You were asked to leave", `Somebody removed you from “${this.last}”.`, again);
    else this.gate.show("This room was closed", reason || `“${this.last}” sent everybody home.`, again);
  }

  showMembers(count, members) {
    this.people.show(members, this.id);
    this.showCount(count);
  }

  showCount(count) {
    find("count").textContent = count;
    find("people-button-count").textContent = count;
  }

  // On a phone the people lie over the conversation.
  showPeople(shown = !find("people").classList.contains("shown")) {
    const button = find("people-button");
    if (!shown && find("people").contains(document.activeElement) && button.offsetParent) button.focus();
    find("people").classList.toggle("shown", shown);
    button.setAttribute("aria-expanded", String(shown));
  }
}

function here(count) {
  return `${plural(count, "person", "people")} here`;
}

new RoomPage(JSON.parse(find("data").textContent).room).start();
