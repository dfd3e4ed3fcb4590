// The lobby page: the live rooms, and the way into one.

import { LiveSocket } from "../channels_groups/groups.js";
import { rememberName, roomPath, roomProblem, suggestedName } from "./names.js";
import { element, find, isolated, plural, showProblem } from "./page.js";

const WINDOWS = 12; // a floor's; whoever comes after them is in the number only
const STATES = { connecting: "Connecting", open: "Live", waiting: "Connection lost, trying again", closed: "Not connected" };

const floors = new Map(); // room -> {item, windows, count}

function makeFloor(room) {
  const windows = element("span", { class: "windows", "aria-hidden": "true" });
  for (let i = 0; i < WINDOWS; i += 1) windows.append(element("i"));
  const count = element("span", { class: "floor-count" });
  const name = element("span", { class: "floor-name", title: room }, isolated(room));
  const link = element("a", { href: roomPath(room) }, name, windows, count);
  link.addEventListener("click", keepTypedName);
  return { item: element("li", { class: "floor" }, link), windows, count };
}

function light(floor, count) {
  [...floor.windows.children].forEach((pane, i) => pane.classList.toggle("lit", i < count));
  floor.count.textContent = plural(count, "person", "people");
}

function showRooms(rooms) {
  const focused = document.activeElement;
  const live = new Set(rooms.map((room) => room.name));
  for (const [room, floor] of floors) {
    if (live.has(room)) continue;
    floor.item.remove();
    floors.delete(room);
  }
  rooms.forEach(({ name, count }, i) => {
    if (!floors.has(name)) floors.set(name, makeFloor(name));
    const floor = floors.get(name);
    const list = find("rooms");
    if (list.children[i] !== floor.item) list.insertBefore(floor.item, list.children[i] ?? null);
    light(floor, count);
  });
  if (focused?.isConnected) focused.focus({ preventScroll: true }); // moving it lost it
  summarise(rooms);
}

function summarise(rooms) {
  const people = rooms.reduce((sum, room) => sum + room.count, 0);
  find("summary").textContent = rooms.length
    ? `${plural(people, "person", "people")} in ${plural(rooms.length, "room", "rooms")}`
    : "";
  find("empty").hidden = rooms.length > 0;
}

function keepTypedName() {
  const name = find("name").value.trim();
  if (name) rememberName(name);
}

function enter(event) {
  event.preventDefault();
  const name = find("name");
  const room = find("room");
  const problem = find("enter-problem");
  for (const input of [name, room]) showProblem(problem, input, "");
  if (!name.value.trim()) {
    showProblem(problem, name, "Tell the others your name.");
    name.focus();
    return;
  }
  const text = roomProblem(room.value.trim());
  if (text) {
    showProblem(problem, room, text);
    room.focus();
    return;
  }
  keepTypedName();
  location.assign(roomPath(room.value.trim()));
}

find("name").value = suggestedName();
find("enter").addEventListener("submit", enter);

// The lobby only speaks, and answers no heartbeat.
const socket = new LiveSocket("/ws/lobby/", { heartbeat: 0 });
socket.addEventListener("message", ({ detail }) => {
  if (detail.type === "rooms") showRooms(detail.rooms);
});
socket.addEventListener("status", ({ detail: { status } }) => {
  find("status").textContent = STATES[status];
  find("status").dataset.state = status;
});
