// A WebSocket that comes back by itself, and says how it is doing.

const FIRST_WAIT = 500;
const LONGEST_WAIT = 15000;
const TRY_AGAIN_LATER = 4013;

export class LiveSocket {
  // url(): where to connect now. onMessage(object). onState(state, details), with
  // state connecting, open, waiting or ended. refused(): a promise; called when a
  // handshake failed, it says whether the server meant it (else it is out of reach).
  constructor({ url, onMessage, onState, refused = async () => false }) {
    Object.assign(this, { url, onMessage, onState, refused });
    this.socket = null;
    this.failures = 0;
    this.timer = null;
    this.state = "ended";
    window.addEventListener("online", () => this.hurry());
    window.addEventListener("pagehide", () => this.close());
    window.addEventListener("pageshow", (event) => {
      if (event.persisted) this.open();
    });
  }

  open() {
    this.close();
    this.tell("connecting");
    const socket = new WebSocket(this.url());
    this.socket = socket;
    let opened = false;
    socket.onopen = () => {
      opened = true;
    };
    socket.onmessage = (event) => {
      if (socket !== this.socket) return;
      const message = JSON.parse(event.data);
      // Not before: a server that accepts and fails must not be asked at full speed.
      if (message.type !== "error") this.failures = 0;
      if (this.state !== "open") this.tell("open");
      this.onMessage(message);
    };
    socket.onclose = (event) => {
      if (socket === this.socket) this.lost(socket, event, opened);
    };
  }

  close() {
    clearTimeout(this.timer);
    const socket = this.socket;
    this.socket = null;
    socket?.close(1000);
  }

  // Returns whether it was sent.
  send(message) {
    if (this.state !== "open" || this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(message));
    return true;
  }

  async lost(socket, { code, reason }, opened) {
    const meant = code === 1000 || (code >= 3000 && code !== TRY_AGAIN_LATER);
    if (opened && meant) {
      this.end({ code, reason, refused: false });
      return;
    }
    this.tell("waiting");
    const refused = !opened && (await this.refused());
    if (socket !== this.socket) return; // opened or closed meanwhile
    if (refused) {
      this.end({ code, reason, refused });
      return;
    }
    const wait = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.failures);
    this.failures += 1;
    this.timer = setTimeout(() => this.open(), wait * (0.75 + Math.random() / 2));
  }

  end(details) {
    this.socket = null;
    this.tell("ended", details);
  }

  hurry() {
    if (this.state === "waiting") this.open();
  }

  tell(state, details = {}) {
    this.state = state;
    this.onState(state, details);
  }
}

export function socketUrl(path) {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return `${scheme}//${location.host}${path}`;
}
