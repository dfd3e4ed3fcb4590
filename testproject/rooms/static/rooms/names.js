// Names of people and rooms: where they are kept, how they go into addresses.

const KEY = "rooms.name";

export function rememberedName() {
  const given = new URLSearchParams(location.search).get("name")?.trim();
  if (given) rememberName(given);
  try {
    return given || sessionStorage.getItem(KEY) || "";
  } catch {
    return given || ""; // storage is off: ask each time
  }
}

// The name used last, in any tab: a suggestion, no more.
export function suggestedName() {
  try {
    return rememberedName() || localStorage.getItem(KEY) || "";
  } catch {
    return "";
  }
}

export function rememberName(name) {
  try {
    sessionStorage.setItem(KEY, name);
    localStorage.setItem(KEY, name);
  } catch {
    // storage is off
  }
}

export function roomPath(room) {
  return `/rooms/${encodeURIComponent(room)}/`;
}

export function roomSocketPath(room, name) {
  return `/ws/rooms/${encodeURIComponent(room)}/?live=1&name=${encodeURIComponent(name)}`;
}

export function roomApiPath(room) {
  return `/api/rooms/${encodeURIComponent(room)}/`;
}

// What is wrong with the name of a room, or "".
export function roomProblem(room) {
  if (!room) return "Name a room.";
  // Browsers take these for "this folder" and "the folder above", encoded or not.
  if (room === "." || room === "..") return "A room cannot be called “.” or “..”.";
  return "";
}
