// Who is in a group, live: the browser's side of channels_groups' state mixins.
//
//   import { GroupSocket } from "/static/channels_groups/groups.js";
//
//   const socket = new GroupSocket("/ws/rooms/lobby/");
//   socket.addEventListener("state", ({ detail }) => show(detail.group.members));
//   socket.addEventListener("join", ({ detail }) => greet(detail.member));
//   socket.send({ type: "say", text: "Hello" });
//
// No dependencies, no build step. The types are JSDoc's, checked by tsc --checkJs.

/**
 * What the server lets this client see of a member.
 * @typedef {{id: string, [field: string]: any}} Member
 */

/**
 * @typedef {{type: "group.state", group: string, revision: number, id: string,
 *   count: number, user_count: number, members: Member[] | null}} StateMessage
 * @typedef {{type: "group.change", group: string, revision: number, previous: number,
 *   joined: Member[], left: string[], updated: Member[], count: number,
 *   user_count: number}} ChangeMessage
 */

/**
 * connecting; open; waiting, before the next attempt to connect; closed, for good.
 * @typedef {"connecting" | "open" | "waiting" | "closed"} Status
 */

/**
 * @typedef {object} Options
 * @property {string | string[]} [protocols] WebSocket subprotocols.
 * @property {number} [firstWait] Milliseconds before the first new attempt to connect.
 * @property {number} [longestWait] Milliseconds that the wait grows to.
 * @property {number} [heartbeat] Milliseconds of silence after which the server is asked
 *   whether it is there; 0: never. A consumer without a state mixin does not answer.
 * @property {number} [patience] Milliseconds to wait for an answer to that, and for a
 *   change that is missing.
 * @property {(event: CloseEvent) => boolean} [reconnect] Whether to connect again after
 *   this close event.
 */

/** Why the server closes (1000) a connection that another one says it goes on with. */
const TAKEN_OVER = "taken over";
/** What the server says for 1013, try again later, if it is one that cannot send that. */
const TRY_AGAIN_LATER = 4013;

/** @type {Required<Options>} */
const DEFAULTS = {
  protocols: [],
  firstWait: 500,
  longestWait: 15000,
  heartbeat: 25000,
  patience: 5000,
  // By default what the server means by 1000 and by codes of its own is final.
  reconnect: ({ code, reason }) =>
    (code !== 1000 && code < 3000) ||
    code === TRY_AGAIN_LATER ||
    (code === 1000 && reason === TAKEN_OVER),
};

/** Where a page leaves word of its connections for the page that a reload makes of it. */
const FORMER = "channels_groups.former:";
/** Ids that the server reads, and words that are left for one path. */
const MOST = 8;

/** Milliseconds between two looks at the clock, which jumps when a laptop has slept. */
const CLOCK = 2000;
/** Milliseconds that a change may be early, before the state is asked for. */
const EARLY = 1000;

/**
 * A WebSocket of JSON that comes back by itself.
 *
 * Events: "message" (detail: what came), "status" (detail: {status, code, reason}).
 */
export class LiveSocket extends EventTarget {
  /**
   * Connect at once.
   * @param {string | (() => string)} url May be relative; a function is asked each time.
   * @param {Options} [options]
   */
  constructor(url, options = {}) {
    super();
    /** @type {Status} */
    this.status = "closed";
    /** @protected */
    this.options = { ...DEFAULTS, ...options };
    /** @private */
    this._url = url;
    /** @private @type {WebSocket | null} */
    this._socket = null;
    /** @private */
    this._failures = 0;
    /** @private @type {ReturnType<typeof setTimeout> | undefined} */
    this._retry = undefined;
    /** @private @type {ReturnType<typeof setInterval> | undefined} */
    this._clock = undefined;
    /** @private When something came last, and what the clock said last. */
    this._heard = 0;
    /** @private */
    this._looked = 0;
    /** @private When the server was asked whether it is there; 0: it has answered. */
    this._asked = 0;
    /** @private The page was left, and may be shown again. */
    this._paused = false;
    /**
     * @private
     * @param {Event} event
     */
    this._wake = ({ type }) => {
      // After "pagehide" comes a "visibilitychange".
      if (type === "pageshow") this._paused = false;
      if (!this._paused) this.check();
    };
    /** @private */
    this._hide = () => this.pause();
    this.open();
  }

  /** Connect, now; also after close(). */
  open() {
    this._drop();
    if (this._clock === undefined) {
      this._clock = setInterval(() => this._lookAtClock(), CLOCK);
      for (const [target, name] of wakers()) target.addEventListener(name, this._wake);
      globalThis.window?.addEventListener("pagehide", this._hide);
    }
    this._looked = Date.now();
    this._paused = false;
    this._connect();
  }

  /**
   * Send JSON. What is sent while there is no connection is not kept.
   * @param {any} content
   * @returns {boolean} Whether it was sent.
   */
  send(content) {
    if (this.status !== "open" || !this._socket) return false;
    this._socket.send(JSON.stringify(content));
    return true;
  }

  /**
   * Close for good.
   * @param {number} [code] 1000, or 3000 to 4999.
   * @param {string} [reason]
   */
  close(code = 1000, reason = "") {
    this._drop(code, reason);
    this._end(code, reason);
  }

  /** Find out now whether the connection is there, and connect if it is not. */
  check() {
    if (this.status === "waiting") {
      clearTimeout(this._retry);
      this._connect();
    } else if (this.status === "open") {
      this._ask();
    }
  }

  /**
   * Take what has come; return whether that was all there is to do about it.
   * @protected
   * @param {any} content
   * @returns {boolean}
   */
  take(content) {
    return content?.type === "group.pong";
  }

  /**
   * @protected
   * @param {string} name
   * @param {any} detail
   */
  tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }

  /**
   * Return the address to connect to.
   * @protected
   * @returns {URL}
   */
  address() {
    return absolute(typeof this._url === "function" ? this._url() : this._url);
  }

  /** @private */
  _connect() {
    const socket = new WebSocket(this.address().href, this.options.protocols);
    this._socket = socket;
    this._asked = 0;
    this._heard = Date.now();
    socket.onopen = () => {
      if (socket !== this._socket) return;
      this._heard = Date.now();
      this._setStatus("open");
    };
    socket.onmessage = (event) => {
      if (socket === this._socket) this._receive(event.data);
    };
    socket.onclose = (event) => {
      if (socket === this._socket) this._lose(event);
    };
    this._setStatus("connecting");
  }

  /**
   * @private
   * @param {any} data
   */
  _receive(data) {
    this._heard = Date.now();
    this._asked = 0;
    // Not before: a server that accepts and fails must not be asked at full speed.
    this._failures = 0;
    let content;
    try {
      content = JSON.parse(data);
    } catch {
      content = data;
    }
    if (!this.take(content)) this.tell("message", content);
  }

  /**
   * @private
   * @param {CloseEvent} event
   */
  _lose(event) {
    this._socket = null;
    if (this.options.reconnect(event)) this._wait(event.code, event.reason);
    else this._end(event.code, event.reason);
  }

  /**
   * @private
   * @param {number} code
   * @param {string} reason
   */
  _wait(code, reason) {
    const { firstWait, longestWait } = this.options;
    const wait = Math.min(longestWait, firstWait * 2 ** this._failures);
    this._failures += 1;
    // Jittered: a server that comes back is not to meet all its clients at once.
    this._retry = setTimeout(() => this._connect(), wait * (0.5 + Math.random() / 2));
    this._setStatus("waiting", code, reason);
  }

  /**
   * Have no connection; what the former one still brings is not listened to.
   * @private
   * @param {number} [code]
   * @param {string} [reason]
   */
  _drop(code = 1000, reason = "") {
    clearTimeout(this._retry);
    const socket = this._socket;
    this._socket = null;
    socket?.close(code, reason);
  }

  /**
   * Leave with the page, which a browser may keep, with its sockets, to come back to.
   * @protected
   */
  pause() {
    this._paused = true;
    this._drop();
    this._setStatus("waiting", 1000, "The page is not shown.");
  }

  /**
   * @private
   * @param {number} code
   * @param {string} reason
   */
  _end(code, reason) {
    clearInterval(this._clock);
    this._clock = undefined;
    for (const [target, name] of wakers()) target.removeEventListener(name, this._wake);
    globalThis.window?.removeEventListener("pagehide", this._hide);
    if (this.status !== "closed") this._setStatus("closed", code, reason);
  }

  /** @private */
  _lookAtClock() {
    const now = Date.now();
    const slept = now - this._looked > 3 * CLOCK;
    this._looked = now;
    const { heartbeat, patience } = this.options;
    if (this._paused) return;
    if (slept) {
      this._asked = 0;
      this._heard = now;
      this.check();
    } else if (this.status === "connecting") {
      if (now - this._heard >= 2 * patience) this._giveUp();
    } else if (this.status === "open") {
      if (this._asked && now - this._asked >= patience) this._giveUp();
      else if (heartbeat && now - this._heard >= heartbeat) this._ask();
    }
  }

  /** @private */
  _giveUp() {
    this._drop();
    this._wait(1006, "The server does not answer.");
  }

  /** @private */
  _ask() {
    if (!this.options.heartbeat || this._asked) return;
    if (this.send({ type: "group.ping" })) this._asked = Date.now();
  }

  /**
   * @private
   * @param {Status} status
   * @param {number} [code]
   * @param {string} [reason]
   */
  _setStatus(status, code, reason) {
    this.status = status;
    this.tell("status", { status, code, reason });
  }
}

/**
 * A group as the server shows it: right again within moments, whatever was lost.
 */
export class Group {
  /** @param {string} name */
  constructor(name) {
    this.name = name;
    /** This client's own in it, among the members'. */
    this.id = "";
    /** Of the last change that is in it. */
    this.revision = 0;
    /** Connections, whether listed or not. */
    this.count = 0;
    /** Distinct users. */
    this.userCount = 0;
    /**
     * By id, or null where there are too many to be listed.
     * @type {Map<string, Member> | null}
     */
    this.members = new Map();
    /** False once this client is in it no more, or has lost the connection. */
    this.entered = true;
  }
}

/**
 * A connection to a consumer with a state mixin, and the groups that it is in.
 *
 * Events beside LiveSocket's, each with {group} in its detail: "state", when all may be
 * different: on entering, after a reconnection, and on leaving; "join", "leave" and
 * "update" with {member}, the last with {before} too. Where a group is so large that
 * only its counts are shown, each change is a "state".
 */
export class GroupSocket extends LiveSocket {
  /**
   * @param {string | (() => string)} url
   * @param {Options} [options]
   */
  constructor(url, options = {}) {
    super(url, options);
    /**
     * This client's id in each group, by which the server knows the next connection for
     * the same member; at first those of the page which was reloaded, if it was.
     * @private @type {Map<string, string>}
     */
    this.former;
    /** @type {Map<string, Group>} */
    this.groups = new Map();
    /**
     * Changes that came early, by the revision that they follow on.
     * @private @type {Map<string, Map<number, ChangeMessage>>}
     */
    this._early = new Map();
    /** @private @type {Map<string, ReturnType<typeof setTimeout>>} */
    this._missing = new Map();
    this.addEventListener("status", (event) => {
      if (this.status !== "open") this._lapse();
      // By a copy of this tab, say: there are two then, and this one is a new member.
      const { reason } = /** @type {CustomEvent} */ (event).detail;
      if (reason === TAKEN_OVER) this.former.clear();
    });
  }

  /**
   * @protected
   * @override
   * @returns {URL}
   */
  address() {
    const url = super.address();
    // Taken away at once: a copy of this tab is another member.
    const left = takeWord(url);
    this.former ??= new Map(left);
    const ids = new Set([...this.former.values()].reverse());
    for (const id of [...ids].slice(0, MOST)) url.searchParams.append("group_former", id);
    return url;
  }

  /**
   * @protected
   * @override
   */
  pause() {
    if (this.former.size > 0) leaveWord(super.address(), [...this.former]);
    super.pause();
  }

  /**
   * @protected
   * @override
   * @param {any} content
   */
  take(content) {
    switch (content?.type) {
      case "group.state":
        this._show(content);
        return true;
      case "group.change":
        this._change(content);
        return true;
      case "group.left":
        this._leave(content.group);
        return true;
      default:
        return super.take(content);
    }
  }

  /**
   * @private
   * @param {StateMessage} message
   */
  _show({ group: name, revision, id, count, user_count, members }) {
    const group = this.groups.get(name) ?? new Group(name);
    this.groups.set(name, group);
    if (id) {
      this.former.delete(name);
      this.former.set(name, id);
    }
    Object.assign(group, { revision, id, count, userCount: user_count, entered: true });
    group.members = members && new Map(members.map((member) => [member.id, member]));
    this._found(name);
    this.tell("state", { group });
    this._applyEarly(group);
  }

  /**
   * @private
   * @param {ChangeMessage} message
   */
  _change(message) {
    const group = this.groups.get(message.group);
    if (group && message.previous === group.revision) {
      this._apply(group, message);
      this._applyEarly(group);
    } else if (!group || message.revision > group.revision) {
      const early = this._early.get(message.group) ?? new Map();
      this._early.set(message.group, early.set(message.previous, message));
      this._miss(message.group);
    }
  }

  /**
   * @private
   * @param {Group} group
   * @param {ChangeMessage} message
   */
  _apply(group, message) {
    const { members } = group;
    group.revision = message.revision;
    group.count = message.count;
    group.userCount = message.user_count;
    if (!members) {
      this.tell("state", { group });
      return;
    }
    // First all of it: whoever is told of one change finds the others in it too.
    const events = /** @type {[string, any][]} */ ([]);
    for (const member of [...message.joined, ...message.updated]) {
      const before = members.get(member.id);
      members.set(member.id, member);
      events.push(before ? ["update", { group, member, before }] : ["join", { group, member }]);
    }
    for (const id of message.left) {
      const member = members.get(id);
      if (members.delete(id)) events.push(["leave", { group, member }]);
    }
    for (const [name, detail] of events) this.tell(name, detail);
  }

  /**
   * Apply what has waited for the revision that the group has now.
   * @private
   * @param {Group} group
   */
  _applyEarly(group) {
    const early = this._early.get(group.name);
    if (!early) return;
    for (let next = early.get(group.revision); next; next = early.get(group.revision)) {
      early.delete(next.previous);
      this._apply(group, next);
    }
    for (const [previous, { revision }] of early) {
      if (revision <= group.revision) early.delete(previous);
    }
    if (early.size === 0) this._found(group.name);
  }

  /**
   * Ask for the state if what is missing does not come.
   * @private
   * @param {string} name
   */
  _miss(name) {
    if (this._missing.has(name)) return;
    const ask = () => {
      this.send({ type: "group.state", group: name });
      this._missing.set(name, setTimeout(ask, this.options.patience));
    };
    this._missing.set(name, setTimeout(ask, EARLY));
  }

  /**
   * @private
   * @param {string} name
   */
  _found(name) {
    clearTimeout(this._missing.get(name));
    this._missing.delete(name);
    const early = this._early.get(name);
    if (early?.size === 0) this._early.delete(name);
    else if (early) this._miss(name);
  }

  /**
   * @private
   * @param {string} name
   */
  _leave(name) {
    const group = this.groups.get(name);
    this.groups.delete(name);
    this.former.delete(name);
    this._early.delete(name);
    this._found(name);
    if (!group) return;
    Object.assign(group, { entered: false, count: 0, userCount: 0, members: new Map() });
    this.tell("state", { group });
  }

  /**
   * What was known of the groups holds no more.
   * @private
   */
  _lapse() {
    for (const group of this.groups.values()) group.entered = false;
    for (const timer of this._missing.values()) clearTimeout(timer);
    this._missing.clear();
    this._early.clear();
  }
}

/**
 * What may mean that the machine was asleep, or is on another network.
 * @returns {[EventTarget, string][]}
 */
function wakers() {
  if (!globalThis.window) return [];
  return [
    [window, "online"],
    [window, "pageshow"],
    [document, "visibilitychange"],
  ];
}

/**
 * Return the address with the scheme of WebSockets.
 * @param {string} url
 * @returns {URL}
 */
function absolute(url) {
  const result = new URL(url, globalThis.location?.href);
  result.protocol = result.protocol.replace("http", "ws");
  return result;
}

/**
 * What a page leaves: the address of a socket, and its id in each group.
 * @typedef {{href: string, former: [string, string][]}} Word
 */

/**
 * Tell the next page of this tab which connection this one had.
 * @param {URL} url
 * @param {[string, string][]} former
 */
function leaveWord({ href, pathname }, former) {
  const others = readWords(pathname).filter((word) => word.href !== href);
  writeWords(pathname, [...others, { href, former }].slice(-MOST));
}

/**
 * Return which connection the page before had, and forget it.
 *
 * With the same address or else, as there may be a token in it, with the same path. Only
 * a page that comes again goes on with it: a copy of this tab has a copy of the word.
 * @param {URL} url
 * @returns {[string, string][] | undefined}
 */
function takeWord({ href, pathname }) {
  const words = readWords(pathname);
  const index = Math.max(words.findIndex((word) => word.href === href), 0);
  const [word] = words.splice(index, 1);
  writeWords(pathname, comesAgain() ? words : []);
  return comesAgain() ? word?.former : undefined;
}

/** @returns {boolean} */
function comesAgain() {
  const found = performance.getEntriesByType("navigation");
  const [navigation] = /** @type {PerformanceNavigationTiming[]} */ (found);
  return navigation?.type === "reload" || navigation?.type === "back_forward";
}

/**
 * @param {string} pathname
 * @returns {Word[]}
 */
function readWords(pathname) {
  try {
    return JSON.parse(sessionStorage.getItem(FORMER + pathname) ?? "[]");
  } catch {
    return [];
  }
}

/**
 * @param {string} pathname
 * @param {Word[]} words
 */
function writeWords(pathname, words) {
  try {
    if (words.length > 0) sessionStorage.setItem(FORMER + pathname, JSON.stringify(words));
    else sessionStorage.removeItem(FORMER + pathname);
  } catch {
    // Storage is off, or there is no page: the next one is another member.
  }
}
