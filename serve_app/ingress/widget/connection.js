// A visitor's session and its socket: signed in by a secret that this browser keeps, reconnected and resumed by itself.

const KEPT = "brain.widget.";
const SOON = 60; // seconds before its end that a token is replaced
const LONGEST = 20000; // milliseconds between two tries

export class Connection {
  // `told` hears {session}, {frame}, {state}. Paths: the page stands at …/widget/<channel>.
  constructor(channel, told) {
    this.channel = channel;
    this.told = told;
    this.api = new URL("../api/v1/", location.href);
    this.session = null;
    this.socket = null;
    this.tries = 0;
    this.closed = false;
  }

  kept() {
    try { return JSON.parse(localStorage.getItem(KEPT + this.channel)) || {}; } catch { return {}; }
  }

  keep(what) {
    try { localStorage.setItem(KEPT + this.channel, JSON.stringify(what)); } catch { /* a browser that keeps nothing */ }
  }

  // A session: the one of before where its secret still counts, else a new visitor's.
  async open(anew = false) {
    const kept = this.kept();
    const body = { anew };
    if (kept.refresh_token) body.refresh_token = kept.refresh_token;
    if (kept.conversation_id && !anew) body.conversation_id = kept.conversation_id;
    const answer = await fetch(new URL(`widgets/${this.channel}/sessions`, this.api), {
      method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body),
    });
    const content = await answer.json();
    if (!answer.ok) {
      if (answer.status === 401 && kept.refresh_token) { this.keep({}); return this.open(anew); }
      throw Object.assign(new Error(content.error.message), { status: answer.status });
    }
    this.session = { ...content, until: Date.now() + content.expires_in * 1000 };
    this.keep({ refresh_token: content.refresh_token, conversation_id: content.conversation_id });
    return this.session;
  }

  async get(path) {
    const answer = await fetch(new URL(path, this.api), {
      headers: { authorization: "Bearer " + this.session.access_token },
    });
    if (!answer.ok) throw Object.assign(new Error((await answer.json()).error.message), { status: answer.status });
    return answer.json();
  }

  async connect() {
    if (this.closed) return;
    this.told({ state: "connecting" });
    try {
      if (!this.session || this.session.until - Date.now() < SOON * 1000) await this.open();
      await this.told({ session: this.session });
    } catch (error) {
      if ([403, 404].includes(error.status)) { this.told({ state: "refused", error }); return; }
      this.again();
      return;
    }
    const url = new URL("ws", this.api);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url, ["brain.v1", "bearer." + this.session.access_token]);
    this.socket = socket;
    socket.onopen = () => { this.tries = 0; this.told({ state: "open" }); this.renewed = setTimeout(() => socket.close(1000), this.left()); };
    socket.onmessage = (event) => this.told({ frame: JSON.parse(event.data) });
    socket.onclose = (event) => {
      clearTimeout(this.renewed);
      if (this.socket !== socket) return;
      this.socket = null;
      if (event.code === 4401) this.session = null;
      this.again();
    };
  }

  left() {
    return Math.max(1000, this.session.until - Date.now() - SOON * 1000);
  }

  again() {
    if (this.closed) return;
    this.told({ state: "waiting" });
    const pause = Math.min(LONGEST, 500 * 2 ** this.tries++) * (0.5 + Math.random());
    setTimeout(() => this.connect(), this.hint || pause);
    this.hint = 0;
  }

  // False where there is no line: the caller sends it again when there is.
  send(frame) {
    if (!this.socket || this.socket.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(frame));
    return true;
  }

  drop() {
    const socket = this.socket;
    this.socket = null;
    if (socket) socket.close(1000);
  }
}
