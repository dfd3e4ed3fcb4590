// A WebSocket, a clock and a network in the hands of a test.

export const sockets = [];

const REAL = { setTimeout, clearTimeout, setInterval, clearInterval, Date, WebSocket: undefined };

// Timers in the order in which they are due. Node's own fakes differ between versions.
const clock = {
  now: 1_700_000_000_000,
  timers: new Map(),
  next: 1,

  add(callback, wait, every = null) {
    const id = clock.next++;
    clock.timers.set(id, { callback, due: clock.now + wait, every });
    return id;
  },

  pass(milliseconds) {
    const end = clock.now + milliseconds;
    for (;;) {
      const due = [...clock.timers].filter(([, timer]) => timer.due <= end);
      if (due.length === 0) break;
      const [id, timer] = due.reduce((a, b) => (b[1].due < a[1].due ? b : a));
      clock.now = Math.max(clock.now, timer.due);
      if (timer.every === null) clock.timers.delete(id);
      else timer.due = clock.now + timer.every;
      timer.callback();
    }
    clock.now = end;
  },
};

class FakeWebSocket {
  constructor(url, protocols) {
    Object.assign(this, { url, protocols, sent: [], closed: null });
    sockets.push(this);
  }

  // What the test makes the server do

  accept() {
    this.onopen({});
  }

  say(content) {
    this.onmessage({ data: typeof content === "string" ? content : JSON.stringify(content) });
  }

  drop(code = 1006, reason = "") {
    this.onclose({ code, reason });
  }

  // What the module does

  send(text) {
    this.sent.push(JSON.parse(text));
  }

  close(code, reason) {
    this.closed = [code, reason];
  }
}

export function begin() {
  sockets.length = 0;
  clock.timers.clear();
  Object.assign(globalThis, {
    WebSocket: FakeWebSocket,
    setTimeout: (callback, wait) => clock.add(callback, wait),
    setInterval: (callback, wait) => clock.add(callback, wait, wait),
    clearTimeout: (id) => clock.timers.delete(id),
    clearInterval: (id) => clock.timers.delete(id),
    Date: { now: () => clock.now },
  });
}

// Returns how many timers are left.
export function end() {
  Object.assign(globalThis, REAL);
  return clock.timers.size;
}

export function pass(milliseconds) {
  clock.pass(milliseconds);
}

// As a laptop does: timers stand still, and the clock does not.
export function sleep(milliseconds) {
  clock.now += milliseconds;
  for (const timer of clock.timers.values()) timer.due += milliseconds;
}

export function last() {
  return sockets[sockets.length - 1];
}

// What a socket tells, as [name, detail].
export function record(target, ...names) {
  const events = [];
  for (const name of names) target.addEventListener(name, ({ detail }) => events.push([name, detail]));
  return events;
}
