// What stands on the page. Texts of others become text nodes, never markup.

const LINK = /https?:\/\/[^\s<>"')\]]+/g;
const $ = (id) => document.getElementById(id);

export const log = $("log");

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function anchor(url, text) {
  const made = element("a", "", text);
  made.href = url;
  made.target = "_blank";
  made.rel = "noopener noreferrer nofollow";
  return made;
}

const isWeb = (url) => typeof url === "string" && /^https?:\/\//i.test(url);

function written(node, text) {
  const parts = [];
  let at = 0;
  for (const found of text.matchAll(LINK)) {
    const url = found[0].replace(/[.,;:!?]+$/, "");
    parts.push(document.createTextNode(text.slice(at, found.index)), anchor(url, url));
    at = found.index + url.length;
  }
  parts.push(document.createTextNode(text.slice(at)));
  node.replaceChildren(...parts);
}

// Whether the reader looks at the end: then it stays in sight.
function following(change) {
  const near = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  const made = change();
  if (near) log.scrollTop = log.scrollHeight;
  return made;
}

export class Bubble {
  constructor(role, text = "") {
    this.node = element("div", `message ${role}`);
    this.node.dir = "auto";
    this.text = "";
    this.after = null;
    following(() => log.append(this.node));
    if (text) this.write(text);
    else this.node.classList.add("waiting");
  }
  write(text) {
    this.text = text;
    this.node.classList.toggle("waiting", text === "");
    following(() => written(this.node, text));
  }
  add(text) {
    this.text += text;
    this.node.classList.remove("waiting");
    following(() => this.node.append(document.createTextNode(text)));
  }
  end(text, citations) {
    this.write(text);
    this.node.classList.remove("waiting");
    if (this.after) this.after.remove();
    this.after = citations && citations.length ? cited(citations) : null;
    if (this.after) following(() => this.node.after(this.after));
  }
  fail(text) {
    this.node.classList.remove("waiting");
    this.node.classList.add("failed");
    if (this.text === "") this.write(text);
  }
  remove() {
    this.node.remove();
    if (this.after) this.after.remove();
  }
}

function cited(citations) {
  const list = element("div", "citations");
  for (const one of citations) {
    const title = String(one.title || one.id || one.type);
    list.append(isWeb(one.url) ? anchor(one.url, title) : element("span", "", title));
  }
  return list;
}

export function choices(texts, choose) {
  const list = element("div", "choices");
  for (const text of texts) {
    const button = element("button", "", text);
    button.type = "button";
    button.addEventListener("click", () => { list.remove(); choose(text); });
    list.append(button);
  }
  following(() => log.append(list));
  return list;
}

export function note(text, wrong = false, again = null) {
  const made = element("div", wrong ? "note wrong" : "note", text);
  if (again) {
    const button = element("button", "", "Try again");
    button.type = "button";
    button.addEventListener("click", () => { made.remove(); again(); });
    made.append(button);
  }
  following(() => log.append(made));
  return made;
}

export function state(name, text) {
  const node = $("state");
  node.dataset.state = name;
  node.textContent = text;
}

export function typing(someone) {
  $("typing").hidden = !someone;
}

export function dress(widget) {
  document.title = widget.title;
  $("title").textContent = widget.title;
  $("text").placeholder = widget.placeholder;
  document.documentElement.style.setProperty("--colour", widget.colour);
}
