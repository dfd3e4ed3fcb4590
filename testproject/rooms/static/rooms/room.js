// The room page: one connection, in one room at a time.

import { GroupSocket } from "../channels_groups/groups.js";
import { Composer } from "./composer.js";
import { Gate } from "./gate.js";
import { Log } from "./log.js";
import { rememberedName, rememberName, roomApiPath, roomPath, roomProblem, roomSocketPath, suggestedName } from "./names.js";
import { find, isolated, plural, showProblem } from "./page.js";
import { People } from "./people.js";
import { Typing } from "./typing.js";

const KICKED = 4000;
const TRY_AGAIN_LATER = 4013;
const REFUSALS = { full: "That room is full.", rejected: "That room is closed." };
const STATES = { connecting: "Connecting", waiting: "Connection lost, trying again", closed: "Not connected" };

class RoomPage {
  constructor(room) {
    this.room = room; // null when in none
    this.last = room; // the one to come back to
    this.name = rememberedName();
    this.id = null;
    this.welcomed = false;
    this.early = []; // came before the welcome that they belong to
    this.socket = null;
    this.moving = false;
    this.gate = new Gate();
    this.log = new Log();
    this.composer = new Composer({ onSend: (text, target) => this.say(text, target) });
    this.typing = new Typing({ tell: (typing) => this.send({ type: "typing", typing }) });
    this.people = new People({
      onWhisper: (member) => this.whisperTo(member),
      onKick: (member) => this.send({ type: "kick", id: member.id }),
    });
    this.listen();
  }

  start() {
    if (this.name) this.connect();
    else this.askName();
  }

  askName() {
    this.setStatus("closed", STATES.closed);
    this.gate.askName(this.last, suggestedName(), (name) => {
      this.name = name;
      rememberName(name);
      this.gate.hide();
      this.connect();
    });
  }

  connect() {
    this.impossible = false;
    this.showStatus({ status: "connecting" });
    if (this.socket) {
      this.socket.open();
      return;
    }
    const socket = new GroupSocket(() => roomSocketPath(this.last, this.name), {
      reconnect: (event) => this.comesBack(event),
    });
    this.socket = socket;
    const on = (name, listener) => socket.addEventListener(name, ({ detail }) => listener.call(this, detail));
    on("status", this.showStatus);
    on("message", this.receive);
    on("state", this.showGroup);
    on("join", this.join);
    on("leave", this.leave);
    on("update", this.update);
  }

  send(message) {
    return this.welcomed && this.socket.send(message);
  }

  // Whether to connect again, after what ended the connection.
  comesBack({ code }) {
    if (this.opened) return code !== 1000 && (code < 3000 || code === TRY_AGAIN_LATER);
    this.askWhy();
    return true;
  }

  // A handshake failed: the server may have meant it.
  async askWhy() {
    if ((await this.wasRefused()) && !this.opened && this.socket.status !== "closed") {
      this.refused = true;
      this.socket.close();
    }
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
  }

  // What the page asks for

  say(text, target) {
    this.typing.stop();
    if (!target) return this.send({ type: "say", text });
    if (!this.send({ type: "whisper", to: target.id, text })) return false;
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
    if (this.send({ type: "move", room })) this.moving = true;
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
      // The state of the room may have come before, or comes soon.
      const group = this.socket.groups.get(this.room);
      if (group?.entered) this.showGroup({ group });
    } else if (!this.welcomed) {
      this.early.push(message);
    } else {
      const { said, whispered, error } = this;
      ({ said, whispered, error })[message.type]?.call(this, message);
    }
  }

  welcome({ id, room, process, count, members }) {
    this.id = id;
    this.opened = true;
    this.typing.forget();
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

  // What the state of the room says

  isHere(group) {
    return this.welcomed && group.name === this.room;
  }

  showGroup({ group }) {
    if (!this.isHere(group) || !group.entered) return;
    const members = [...(group.members?.values() ?? [])];
    this.showMembers(group.count, members);
    this.typing.show(members, this.id);
    const target = this.composer.target;
    if (target && group.members && !group.members.has(target.id)) this.composer.to(null);
  }

  join({ group, member }) {
    if (!this.isHere(group)) return;
    this.people.add(member);
    this.showCount(group.count);
    if (member.id !== this.id) this.log.notice("join", isolated(member.name), ` joined, ${here(group.count)}`);
  }

  leave({ group, member }) {
    if (!this.isHere(group)) return;
    this.people.remove(member.id);
    this.showCount(group.count);
    this.log.notice("leave", isolated(member.name), ` left, ${here(group.count)}`);
    this.typing.show([...group.members.values()], this.id);
    if (this.composer.target?.id === member.id) this.composer.to(null);
  }

  update({ group, member }) {
    if (!this.isHere(group)) return;
    this.people.add(member);
    this.typing.show([...group.members.values()], this.id);
  }

  said({ id, name, text }) {
    this.log.speech({ name, text, mine: id === this.id });
  }

  whispered({ name, text }) {
    this.log.speech({ name, text, kind: "whispers to you" });
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

  showStatus({ status, code, reason }) {
    this.welcomed = false;
    this.early = [];
    if (status === "open") return; // until the welcome
    this.setStatus(status, STATES[status]);
    if (status === "connecting") this.opened = this.refused = false;
    if (status === "closed") this.showEnd(code, reason, this.refused);
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
