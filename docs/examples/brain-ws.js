// A client of the Brain's WebSocket for browsers and Node (22 and later), without dependencies.
//
//     const brain = new BrainSocket("wss://brain.example/api/v1/ws", async () => ({ ticket: await ticketFromYourServer() }));
//     brain.on("event", (event, frame) => console.log(frame.conversation_id, event.type, event.text ?? ""));
//     await brain.subscribe(conversation);
//     const turn = await brain.send(conversation, "Hello");
//
// `credential` is asked for before each connection: `{ token }` (an API key or an access token, sent as a subprotocol) or
// `{ ticket }` (from POST /api/v1/ws/tickets, which your server asks for with its key; good for one connection).
// Each event is given once and without a gap, whatever becomes of the connection. A message is sent once, too.

const ENDS = new Set(["turn.completed", "turn.failed", "turn.cancelled"]);
const LONGEST = 10_000; // ms between two tries to connect
const REMEMBERED = 512; // turns that have ended

export class BrainSocket {
  constructor(url, credential) {
    this.url = url;
    this.credential = credential;
    this.listeners = new Map();
    this.asked = new Map(); // ref → { frame, resolve, reject }
    this.watched = new Map(); // conversation → where to resume if no event of it was seen yet
    this.last = new Map(); // unfinished turn → { conversation, id of the last event }
    this.ended = new Set();
    this.wait = 0;
    this.pause = 100;
    this.closed = false;
    this.connect();
  }

  // `kind`: event, typing, read, presence, error (of no frame), open, close. The listener gets what it is about, and the frame.
  on(kind, listener) {
    if (!this.listeners.has(kind)) this.listeners.set(kind, new Set());
    this.listeners.get(kind).add(listener);
    return () => this.listeners.get(kind).delete(listener);
  }

  async send(conversation, content, fields = {}) {
    const answer = await this.ask("send", { conversation_id: conversation, content, idempotency_key: name(), ...fields });
    return answer.turn;
  }

  async subscribe(conversation, after) {
    const answer = await this.ask("subscribe", { conversation_id: conversation, ...(after ? { after } : {}) });
    if (!this.watched.has(conversation)) this.watched.set(conversation, answer.resume);
    return answer;
  }

  unsubscribe(conversation) {
    this.watched.delete(conversation);
    return this.ask("unsubscribe", { conversation_id: conversation });
  }

  cancel(turn) {
    return this.ask("cancel", { turn_id: turn });
  }

  typing(conversation, typing = true) {
    this.write({ op: "typing", conversation_id: conversation, typing });
  }

  read(conversation, message) {
    this.write({ op: "read", conversation_id: conversation, message_id: message });
  }

  async present(conversation) {
    return (await this.ask("presence", { conversation_id: conversation })).users;
  }

  // The answer of a frame, over as many connections as it takes; rejected with the error frame where it is refused.
  ask(op, fields) {
    const frame = { op, ref: name(), ...fields };
    return new Promise((resolve, reject) => {
      this.asked.set(frame.ref, { frame, resolve, reject });
      this.write(frame);
    });
  }

  close() {
    this.closed = true;
    this.socket?.close(1000);
  }

  async connect() {
    let protocols;
    try {
      const { token, ticket } = await this.credential();
      protocols = ["brain.v1", token ? `bearer.${token}` : `ticket.${ticket}`];
    } catch (error) {
      return this.again(error);
    }
    if (this.closed) return;
    const socket = (this.socket = new WebSocket(this.url, protocols));
    socket.onopen = () => {
      this.pause = 100;
      this.resume();
      this.tell("open");
    };
    socket.onmessage = (message) => this.take(JSON.parse(message.data));
    socket.onclose = (event) => {
      if (socket === this.socket) this.again(event);
    };
    socket.onerror = () => {}; // the close that follows says the same
  }

  again(why) {
    this.socket = undefined;
    this.tell("close", why);
    if (this.closed) return;
    const delay = this.wait + Math.random() * this.pause;
    this.wait = 0;
    this.pause = Math.min(LONGEST, this.pause * 2);
    setTimeout(() => this.connect(), delay);
  }

  resume() {
    for (const [conversation, newest] of this.watched) {
      const after = [...this.last.values()].filter((one) => one.conversation === conversation && one.id).map((one) => one.id);
      this.write({ op: "subscribe", conversation_id: conversation, after: [...after, newest] });
    }
    for (const [turn, { conversation, id }] of this.last)
      if (!this.watched.has(conversation)) this.write({ op: "subscribe", turn_id: turn, ...(id ? { after: id } : {}) });
    for (const { frame } of this.asked.values()) this.write(frame);
  }

  write(frame) {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(frame)); // what has an answer is written again
  }

  take(frame) {
    const asked = this.asked.get(frame.ref);
    if (asked) {
      this.asked.delete(frame.ref);
      if (frame.op === "error") return asked.reject(Object.assign(new Error(frame.message), frame));
      if (frame.turn && frame.user_message && !this.last.has(frame.turn.id) && !this.ended.has(frame.turn.id))
        this.last.set(frame.turn.id, { conversation: frame.turn.conversation_id, id: "" });
      return asked.resolve(frame);
    }
    if (frame.op === "reconnect") this.wait = frame.after_ms;
    else if (frame.op !== "event") this.tell(frame.op, frame);
    else if (this.isNew(frame)) this.tell("event", frame.event, frame);
  }

  // Whether the event was not had before; notes where to go on.
  isNew({ id, event, conversation_id: conversation }) {
    const had = this.last.get(event.turn_id)?.id;
    if (this.ended.has(event.turn_id)) return false;
    if (had) {
      const [, attempt, n] = had.split("/").map(Number);
      if (event.attempt < attempt || (event.attempt === attempt && event.n <= n)) return false;
    }
    if (ENDS.has(event.type)) {
      this.last.delete(event.turn_id);
      this.ended.add(event.turn_id);
      if (this.ended.size > REMEMBERED) this.ended.delete(this.ended.values().next().value);
      if (this.watched.has(conversation)) this.watched.set(conversation, event.turn_id);
    } else this.last.set(event.turn_id, { conversation, id });
    return true;
  }

  tell(kind, ...what) {
    for (const listener of this.listeners.get(kind) ?? []) listener(...what);
  }
}

function name() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
