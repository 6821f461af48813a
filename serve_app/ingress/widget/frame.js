// The chat in its frame: what was said before, what is said now, and what the visitor writes.
import { Connection } from "./connection.js";
import { Bubble, choices, dress, log, note, state, typing } from "./view.js";

const WORDS = { connecting: "connecting…", waiting: "offline, trying again…", refused: "not available", open: "" };
const channel = decodeURIComponent(location.pathname.split("/").pop());
const form = document.getElementById("form");
const text = document.getElementById("text");
const turns = new Map(); // turn id → what stands for it: {user, reply}
const shown = new Set(); // ids of messages that stand on the page
const waiting = new Map(); // ref → what was written and is not acknowledged: {frame, bubble}
let session = null;
let last = null; // the turn that ended last, or where the first subscription began
let unread = 0;
let opened = window.parent === window;
let offered = null;

const connection = new Connection(channel, told);

async function told(what) {
  if (what.state) {
    state(what.state, WORDS[what.state]);
    if (what.state === "refused") note(what.error.message, true);
  }
  if (what.session) await entered(what.session);
  if (what.frame) heard(what.frame);
  if (what.state === "open") {
    const running = [...turns.values()].filter((turn) => turn.last && !turn.ended).map((turn) => turn.last);
    const after = last ? [...running, last] : undefined;
    connection.send({ op: "subscribe", ref: "subscribe", conversation_id: session.conversation_id, after });
    for (const { frame } of waiting.values()) connection.send(frame);
  }
}

async function entered(now) {
  const fresh = !session || session.conversation_id !== now.conversation_id;
  session = now;
  if (fresh) {
    log.replaceChildren();
    turns.clear();
    shown.clear();
    last = null;
    dress(now.widget);
    if (now.widget.greeting) note(now.widget.greeting);
  }
  // What happened while nobody listened stands in the history; what runs comes with the subscription.
  const { data } = await connection.get(`conversations/${now.conversation_id}/messages?limit=100&order=desc`);
  for (const message of data.reverse()) show(message);
  if (fresh && shown.size === 0 && now.widget.suggestions.length) offered = choices(now.widget.suggestions, write);
}

function show(message) {
  if (shown.has(message.id) || !["user", "assistant", "system"].includes(message.role)) return;
  const turn = turns.get(message.turn_id) || {};
  turns.set(message.turn_id, turn);
  shown.add(message.id);
  if (message.role === "user") {
    if (!turn.user) turn.user = new Bubble("user", message.content);
  } else if (message.role === "system") {
    new Bubble("system", message.content);
  } else {
    turn.reply = turn.reply || new Bubble("assistant", message.content);
    turn.reply.end(message.content, message.citations);
    if (message.status === "failed") turn.reply.fail("");
    turn.ended = true;
  }
}

function heard(frame) {
  if (frame.op === "event") happened(frame.id, frame.event);
  else if (frame.op === "ack") acknowledged(frame);
  else if (frame.op === "error") refused(frame);
  else if (frame.op === "typing" && frame.conversation_id === session.conversation_id) typing(frame.typing);
  else if (frame.op === "reconnect") connection.hint = frame.after_ms;
}

function acknowledged(frame) {
  if (frame.ref === "subscribe") last = last || frame.resume;
  const sent = waiting.get(frame.ref);
  if (!sent || !frame.turn) return;
  waiting.delete(frame.ref);
  const turn = turns.get(frame.turn.id) || {};
  turns.set(frame.turn.id, turn);
  if (turn.user && turn.user !== sent.bubble) sent.bubble.remove(); // its event was quicker
  else turn.user = sent.bubble;
  if (frame.user_message) shown.add(frame.user_message.id);
  if (!turn.ended && !turn.reply) turn.reply = new Bubble("assistant");
}

function refused(frame) {
  const sent = waiting.get(frame.ref);
  if (!sent) return;
  waiting.delete(frame.ref);
  sent.bubble.fail("");
  note(frame.message || "This message was not taken.", true, () => { sent.bubble.remove(); write(sent.frame.content); });
}

function happened(id, event) {
  const turn = turns.get(event.turn_id) || {};
  turns.set(event.turn_id, turn);
  if (turn.ended) return;
  turn.last = id;
  const own = event.user_message && [...waiting.values()].find((one) => one.frame.content === event.user_message.content);
  if (event.type === "turn.accepted" && event.user_message && !shown.has(event.user_message.id)) {
    shown.add(event.user_message.id);
    if (!turn.user) turn.user = own ? own.bubble : new Bubble("user", event.user_message.content);
  }
  if (event.type === "turn.intent" && event.clarification) turn.asked = event.clarification.intents.map((name) => name.replace(/[_-]+/g, " "));
  if (event.type === "message.delta") (turn.reply = turn.reply || new Bubble("assistant")).add(event.text);
  if (event.type === "turn.reset" && turn.reply) turn.reply.write("");
  if (event.type === "turn.completed" || event.type === "turn.cancelled") ended(turn, event.message);
  if (event.type === "turn.failed") {
    turn.ended = true;
    last = turn.last.split("/")[0];
    turn.reply = turn.reply || new Bubble("assistant");
    turn.reply.fail("No answer could be given.");
    note((event.error && event.error.message) || "The answer failed.", true);
  }
}

function ended(turn, message) {
  turn.ended = true;
  last = turn.last.split("/")[0];
  typing(false);
  if (!message) { if (turn.reply) turn.reply.remove(); return; }
  if (!turn.reply) turn.reply = new Bubble("assistant", message.content);
  shown.add(message.id);
  turn.reply.end(message.content, message.citations);
  if (turn.asked && turn.asked.length) offered = choices(turn.asked, write);
  if (!opened) window.parent.postMessage({ brain: { unread: ++unread } }, "*"); // a number, no text
}

function write(content) {
  if (offered) { offered.remove(); offered = null; }
  const ref = crypto.randomUUID();
  const frame = { op: "send", ref, idempotency_key: ref, conversation_id: session.conversation_id, content };
  waiting.set(ref, { frame, bubble: new Bubble("user", content) });
  connection.send(frame); // else it goes with the next connection
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  const content = text.value.trim();
  if (!content || !session) return;
  text.value = "";
  text.style.height = "";
  write(content);
});
text.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); form.requestSubmit(); }
});
let told_at = 0;
text.addEventListener("input", () => {
  text.style.height = "auto";
  text.style.height = text.scrollHeight + "px";
  if (session && Date.now() - told_at > 3000) {
    told_at = Date.now();
    connection.send({ op: "typing", conversation_id: session.conversation_id, typing: true });
  }
});
document.getElementById("close").addEventListener("click", () => window.parent.postMessage({ brain: "close" }, "*"));
document.addEventListener("keydown", (event) => { if (event.key === "Escape") window.parent.postMessage({ brain: "close" }, "*"); });
document.getElementById("anew").addEventListener("click", async () => {
  connection.drop();
  try { await connection.open(true); } catch (error) { note(error.message, true); }
  connection.connect();
});
window.addEventListener("message", (event) => {
  if (event.source !== window.parent || !event.data || !event.data.brain) return;
  opened = event.data.brain.opened === true;
  if (opened) { unread = 0; text.focus(); }
});
document.getElementById("close").hidden = window.parent === window;
window.parent.postMessage({ brain: "ready" }, "*");
connection.connect();
