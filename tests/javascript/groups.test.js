// The module that browsers load, with a fake WebSocket and fake time.

import assert from "node:assert/strict";
import { afterEach, beforeEach, test } from "node:test";

import { GroupSocket, LiveSocket } from "../../channels_groups/static/channels_groups/groups.js";
import { begin, end, last, pass, record, sleep, sockets } from "./fakes.js";

const URL = "ws://example.org/ws/room/";

let opened = [];

beforeEach(begin);
afterEach(() => {
  opened.splice(0).forEach((socket) => socket.close());
  assert.equal(end(), 0, "timers are left");
});

function open(Class = GroupSocket, options = {}) {
  const socket = new Class(URL, options);
  opened.push(socket);
  last().accept();
  return socket;
}

function member(id, more = {}) {
  return { id, user_id: id, info: {}, ...more };
}

function state(revision, members, more = {}) {
  const count = members?.length ?? 0;
  return { type: "group.state", group: "room", revision, count, user_count: count, members, ...more };
}

function change(previous, revision, more) {
  const nothing = { joined: [], left: [], updated: [], count: 0, user_count: 0 };
  return { type: "group.change", group: "room", previous, revision, ...nothing, ...more };
}

function ids(socket) {
  return [...socket.groups.get("room").members.keys()];
}

test("it keeps the members and tells of each change", () => {
  const socket = open();
  const events = record(socket, "state", "join", "leave", "update", "message");
  last().say(state(1, [member("a"), member("b")]));
  const group = socket.groups.get("room");
  assert.deepEqual([group.count, group.userCount, group.revision], [2, 2, 1]);
  last().say(change(1, 2, { joined: [member("c")], count: 3, user_count: 3 }));
  last().say(change(2, 3, { updated: [member("a", { info: { mood: "good" } })], count: 3 }));
  last().say(change(3, 4, { left: ["b", "nobody"], count: 2, user_count: 2 }));
  last().say({ type: "said", text: "hello" });
  last().say("no JSON");
  assert.deepEqual(
    events.map(([name, detail]) => [name, detail?.member?.id ?? detail?.text ?? detail?.group?.name ?? detail]),
    [["state", "room"], ["join", "c"], ["update", "a"], ["leave", "b"], ["message", "hello"], ["message", "no JSON"]],
  );
  assert.deepEqual(events[2][1].before.info, {});
  assert.deepEqual(ids(socket), ["a", "c"]);
  assert.equal(group.members.get("a").info.mood, "good");
  assert.deepEqual([group.count, group.userCount], [2, 2]);
});

test("ids and names may be anything", () => {
  const socket = open();
  const odd = ["__proto__", "constructor", "toString", "hasOwnProperty"];
  last().say(state(1, odd.map((id) => member(id))));
  last().say('{"type":"group.change","group":"room","previous":1,"revision":2,"joined":[],"left":["toString"],'
    + '"updated":[{"id":"__proto__","__proto__":{"evil":true}}],"count":3,"user_count":3}');
  last().say(state(1, [], { group: "__proto__" }));
  assert.deepEqual(ids(socket), ["__proto__", "constructor", "hasOwnProperty"]);
  assert.equal({}.evil, undefined);
  assert.ok(socket.groups.has("__proto__"));
});

test("changes out of order are put in order, old ones dropped", () => {
  const socket = open();
  last().say(state(1, [member("a")]));
  const events = record(socket, "join", "leave");
  last().say(change(3, 4, { left: ["b"] }));
  last().say(change(2, 3, { joined: [member("c")] }));
  assert.deepEqual(events, []);
  last().say(change(1, 2, { joined: [member("b")] }));
  last().say(change(2, 3, { joined: [member("c")] }));
  last().say(change(0, 1, { left: ["a"] }));
  assert.deepEqual(events.map(([name, { member }]) => [name, member.id]), [["join", "b"], ["join", "c"], ["leave", "b"]]);
  assert.deepEqual(ids(socket), ["a", "c"]);
  pass(20000);
  assert.deepEqual(last().sent, []);
});

test("a change that follows on the revision counts even if it is not a later one", () => {
  const socket = open();
  last().say(state(5, [member("a")]));
  last().say(change(5, 5, { left: ["a"] }));
  assert.deepEqual(ids(socket), []);
});

test("a missing change makes it ask for the state, until it comes", () => {
  const socket = open();
  last().say(state(1, [member("a")]));
  last().say(change(2, 3, { joined: [member("c")] }));
  last().say(change(3, 4, { joined: [member("d")] }));
  last().say(change(5, 6, { joined: [member("f")] }));
  pass(900);
  assert.deepEqual(last().sent, []);
  pass(200);
  const question = { type: "group.state", group: "room" };
  assert.deepEqual(last().sent, [question]);
  pass(5000);
  assert.deepEqual(last().sent, [question, question]);
  // It is of a moment before the last change, which still counts then.
  last().say(state(5, [member("a"), member("b"), member("e")]));
  assert.deepEqual(ids(socket), ["a", "b", "e", "f"]);
  pass(20000);
  assert.equal(last().sent.length, 2);
});

test("a change of a group that is not known yet waits for its state", () => {
  const socket = open();
  last().say(change(1, 2, { joined: [member("b")] }));
  assert.equal(socket.groups.size, 0);
  last().say(state(1, [member("a")]));
  assert.deepEqual(ids(socket), ["a", "b"]);
});

test("a large group shows counts, each change as a state", () => {
  const socket = open();
  const events = record(socket, "state", "join");
  last().say(state(1, null, { count: 5000, user_count: 4000 }));
  const group = socket.groups.get("room");
  assert.deepEqual([group.members, group.count], [null, 5000]);
  last().say(change(1, 2, { count: 5001, user_count: 4001 }));
  assert.deepEqual([group.members, group.count, group.userCount], [null, 5001, 4001]);
  last().say(state(3, [member("a")]));
  assert.deepEqual(ids(socket), ["a"]);
  assert.deepEqual(events.map(([name]) => name), ["state", "state", "state"]);
});

test("leaving a group empties it, and a lost connection makes it doubtful", () => {
  const socket = open();
  last().say(state(1, [member("a")]));
  const group = socket.groups.get("room");
  const events = record(socket, "state");
  last().say({ type: "group.left", group: "room" });
  last().say({ type: "group.left", group: "elsewhere" });
  assert.equal(socket.groups.size, 0);
  assert.deepEqual([group.entered, group.count, group.members.size], [false, 0, 0]);
  assert.equal(events.length, 1);
  last().say(state(2, [member("a")]));
  last().drop();
  assert.equal(socket.groups.get("room").entered, false);
  pass(1000);
  last().accept();
  last().say(state(9, [member("b")]));
  assert.deepEqual([socket.groups.get("room").entered, ids(socket)], [true, ["b"]]);
});

/** Be in a page of a tab until the test is over; return what the tab stores. */
function beInPage(t, navigation, stored = new Map()) {
  globalThis.sessionStorage = {
    getItem: (key) => stored.get(key) ?? null,
    setItem: (key, value) => stored.set(key, value),
    removeItem: (key) => stored.delete(key),
  };
  globalThis.window = new EventTarget();
  globalThis.document = new EventTarget();
  t.mock.method(performance, "getEntriesByType", () => [{ type: navigation }]);
  t.after(() => {
    for (const name of ["window", "document", "sessionStorage"]) delete globalThis[name];
  });
  return stored;
}

/** Leave the page by its event; return what was stored then, for the next one. */
function leavePage(stored) {
  window.dispatchEvent(new Event("pagehide"));
  opened.splice(0).forEach((socket) => socket.close());
  return new Map(stored);
}

/** Open a socket and return whose place it asks for. */
function formerOf(url) {
  opened.push(new GroupSocket(url));
  last().accept();
  return new globalThis.URL(last().url).searchParams.getAll("group_former");
}

for (const navigation of ["reload", "back_forward"]) {
  test(`a new connection says whose place it takes, and so does a page after ${navigation}`, (t) => {
    const stored = beInPage(t, "navigate");
    const socket = open();
    assert.equal(last().url, URL);
    last().say(state(1, [member("a")], { id: "a" }));
    assert.equal(socket.groups.get("room").id, "a");
    last().drop();
    pass(1000);
    assert.equal(last().url, `${URL}?group_former=a`);
    last().accept();
    assert.equal(stored.size, 0, "a copy of this tab has a copy of what is stored");
    const left = leavePage(stored);
    assert.equal(left.size, 1);
    beInPage(t, navigation, left);
    assert.deepEqual(formerOf("ws://example.org/ws/other/"), []);
    assert.deepEqual(formerOf(`${URL}?token=another`), ["a"]);
    assert.equal(left.size, 0);
    assert.deepEqual(formerOf(URL), []);
  });
}

test("the word that a page left is not for a copy of the tab that goes there", (t) => {
  const stored = beInPage(t, "navigate");
  open();
  last().say(state(1, [member("a")], { id: "a" }));
  const left = leavePage(stored);
  assert.equal(left.size, 1);
  beInPage(t, "navigate", left);
  assert.deepEqual(formerOf(URL), []);
  assert.equal(left.size, 0);
});

test("it says all of its ids, those of the groups entered last first", (t) => {
  const stored = beInPage(t, "navigate");
  open();
  last().say(state(1, [member("a")], { id: "a" }));
  last().say(state(1, [member("b")], { id: "b", group: "second" }));
  last().say(state(1, [member("a")], { id: "a", group: "third" }));
  last().drop();
  pass(1000);
  assert.equal(last().url, `${URL}?group_former=a&group_former=b`);
  last().accept();
  // One that is left is nobody's, one that could not be resumed is another now.
  last().say({ type: "group.left", group: "third" });
  last().say(state(2, [member("c")], { id: "c", group: "room" }));
  beInPage(t, "reload", leavePage(stored));
  assert.deepEqual(formerOf(URL), ["c", "b"]);
  for (let n = 0; n < 20; n += 1) last().say(state(1, [], { id: `id${n}`, group: `group ${n}` }));
  last().drop();
  pass(1000);
  assert.equal(last().url.match(/group_former=id/g).length, 8);
});

test("whose place another takes, though it is there, comes back as a new member", () => {
  const socket = open();
  last().say(state(1, [member("a")], { id: "a" }));
  last().drop(1000, "taken over");
  assert.equal(socket.status, "waiting");
  pass(1000);
  assert.equal(last().url, URL);
  last().accept();
  last().say(state(2, [member("a"), member("b")], { id: "b" }));
  last().drop();
  pass(1000);
  assert.equal(last().url, `${URL}?group_former=b`);
});

test("two sockets of one path each leave their own word", (t) => {
  const stored = beInPage(t, "navigate");
  const [a, b] = [`${URL}?room=a`, `${URL}?room=b`];
  for (const [url, id] of [[a, "1"], [b, "2"]]) {
    formerOf(url);
    last().say(state(1, [member(id)], { id, group: id }));
  }
  beInPage(t, "reload", leavePage(stored));
  assert.deepEqual([formerOf(b), formerOf(a)], [["2"], ["1"]]);
});

test("a page whose storage is off, or has something else in it, is another member", (t) => {
  beInPage(t, "reload", new Map([["channels_groups.former:/ws/room/", "no JSON"]]));
  assert.deepEqual(formerOf(URL), []);
  last().say(state(1, [member("a")], { id: "a" }));
  globalThis.sessionStorage.setItem = () => { throw new Error("off"); };
  leavePage(new Map());
  delete globalThis.sessionStorage;
  assert.deepEqual(formerOf(URL), []);
});

test("it comes back, later and later, at times that differ", () => {
  const socket = open(LiveSocket);
  const events = record(socket, "status");
  const waits = [];
  for (let i = 0; i < 8; i += 1) {
    const before = sockets.length;
    const lost = Date.now();
    last().drop();
    assert.equal(socket.status, "waiting");
    while (sockets.length === before) pass(100);
    waits.push(Date.now() - lost);
  }
  for (const [i, wait] of waits.entries()) {
    const longest = Math.min(15000, 500 * 2 ** i);
    assert.ok(wait >= longest / 2 && wait <= longest + 100, `${i}: ${wait}`);
  }
  const parts = waits.slice(-3).map((wait) => wait / 15000);
  assert.ok(new Set(parts).size > 1, "not jittered");
  last().accept();
  assert.equal(socket.status, "open");
  last().drop(); // Accepted, but nothing came: no reason to hurry.
  pass(7000);
  assert.equal(socket.status, "waiting");
  pass(8100);
  last().accept();
  last().say({ type: "hello" });
  last().drop();
  pass(600);
  assert.equal(socket.status, "connecting");
  assert.deepEqual(events[0][1], { status: "waiting", code: 1006, reason: "" });
});

test("what the server means to be the end is the end", () => {
  for (const code of [1000, 3000, 4000]) {
    const socket = open();
    const events = record(socket, "status");
    last().drop(code, "enough");
    pass(60000);
    assert.deepEqual(events, [["status", { status: "closed", code, reason: "enough" }]]);
  }
  for (const code of [1001, 1006, 1011, 1012, 1013, 4013]) {
    const socket = open();
    last().drop(code);
    assert.equal(socket.status, "waiting");
  }
  const stubborn = open(GroupSocket, { reconnect: () => true });
  last().drop(4000);
  assert.equal(stubborn.status, "waiting");
});

test("send() says whether it was sent, close() is for good, open() begins anew", () => {
  const socket = new GroupSocket(() => "ws://example.org/now/", { protocols: ["chat"] });
  opened.push(socket);
  assert.deepEqual([last().url, last().protocols], ["ws://example.org/now/", ["chat"]]);
  assert.equal(socket.send({ a: 1 }), false);
  last().accept();
  assert.equal(socket.send({ a: 1 }), true);
  assert.deepEqual(last().sent, [{ a: 1 }]);
  const events = record(socket, "status", "message");
  const former = last();
  socket.close(4001, "bye");
  assert.deepEqual(former.closed, [4001, "bye"]);
  former.say({ type: "late" });
  former.drop(4001);
  pass(60000);
  assert.deepEqual(events, [["status", { status: "closed", code: 4001, reason: "bye" }]]);
  assert.equal(socket.send({}), false);
  socket.open();
  last().accept();
  assert.equal(socket.status, "open");
});

test("a server that is silent is asked, and left if it does not answer", () => {
  const socket = open();
  pass(20000);
  assert.deepEqual(last().sent, []);
  pass(8000);
  assert.deepEqual(last().sent, [{ type: "group.ping" }]);
  const messages = record(socket, "message");
  last().say({ type: "group.pong" });
  assert.deepEqual(messages, []);
  pass(20000);
  assert.equal(last().sent.length, 1);
  pass(7000);
  assert.equal(last().sent.length, 2);
  const former = last();
  pass(7000);
  assert.notEqual(socket.status, "open");
  assert.ok(former.closed);
  pass(1000);
  assert.equal(sockets.length, 2);
  open(GroupSocket, { heartbeat: 0 });
  pass(600000);
  assert.deepEqual(last().sent, []);
});

test("after a sleep it finds out within seconds whether it is still connected", () => {
  const socket = open();
  last().say(state(1, [member("a")]));
  sleep(3600000);
  pass(2000);
  assert.deepEqual(last().sent, [{ type: "group.ping" }]);
  pass(8000);
  assert.notEqual(last().sent.length, 2);
  assert.equal(sockets.length, 2);
  last().accept();
  last().say(state(7, [member("b")]));
  assert.deepEqual(ids(socket), ["b"]);
  sleep(3600000);
  pass(2000);
  last().say({ type: "group.pong" });
  pass(10000);
  assert.deepEqual([sockets.length, socket.status], [2, "open"]);
});

test("an attempt that hangs is given up, and one that waits is hurried by the network", () => {
  const socket = open();
  last().drop();
  pass(600);
  assert.equal(socket.status, "connecting");
  // It looks at the clock every two seconds, and waits a random time before the next.
  for (let waited = 0; socket.status === "connecting" && waited < 20000; waited += 100) pass(100);
  assert.equal(socket.status, "waiting");
  socket.check();
  assert.equal(socket.status, "connecting");
});

test("a page that is left is disconnected, and connected when it is shown again", (t) => {
  globalThis.window = new EventTarget();
  globalThis.document = new EventTarget();
  t.after(() => {
    delete globalThis.window;
    delete globalThis.document;
  });
  const socket = open();
  window.dispatchEvent(new Event("pagehide"));
  assert.deepEqual(last().closed, [1000, ""]);
  document.dispatchEvent(new Event("visibilitychange"));
  pass(60000);
  assert.deepEqual([sockets.length, socket.status], [1, "waiting"]);
  window.dispatchEvent(new Event("pageshow"));
  assert.equal(sockets.length, 2);
  last().drop();
  assert.equal(socket.status, "waiting");
  window.dispatchEvent(new Event("online"));
  assert.equal(sockets.length, 3);
  last().accept();
  document.dispatchEvent(new Event("visibilitychange"));
  assert.deepEqual(last().sent, [{ type: "group.ping" }]);
  socket.close();
  window.dispatchEvent(new Event("online"));
  window.dispatchEvent(new Event("pagehide"));
  assert.deepEqual([sockets.length, socket.status], [3, "closed"]);
});
