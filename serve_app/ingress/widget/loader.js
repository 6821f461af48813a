// Puts the chat on a page: <script src="https://BRAIN/widget.js" data-channel="chn_…" async></script>
// It adds one button and, once that is pressed, one frame. What is said stays in the frame: this page cannot read it.
(() => {
  const script = document.currentScript;
  const channel = script && script.dataset.channel;
  if (!channel || window.brainWidget) return;
  const base = new URL(".", script.src);
  const label = script.dataset.label || "Chat";
  const side = script.dataset.side === "left" ? "left" : "right";

  const place = document.createElement("div");
  const root = place.attachShadow({ mode: "open" });
  Object.assign(place.style, { position: "fixed", bottom: "20px", [side]: "20px", zIndex: 2147483000 });

  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.setAttribute("aria-haspopup", "dialog");
  button.setAttribute("aria-expanded", "false");
  Object.assign(button.style, {
    font: "600 16px system-ui, sans-serif", color: "#fff", background: script.dataset.colour || "#1f5eff",
    border: "0", borderRadius: "28px", padding: "14px 22px", cursor: "pointer", boxShadow: "0 4px 16px #0004",
  });
  const unread = document.createElement("span");
  unread.hidden = true;
  Object.assign(unread.style, { marginLeft: "8px", background: "#d21", borderRadius: "10px", padding: "1px 7px" });
  button.append(unread);
  root.append(button);

  let frame = null;
  const opened = () => frame !== null && !frame.hidden;
  const show = () => {
    if (frame === null) {
      frame = document.createElement("iframe");
      frame.src = new URL("widget/" + encodeURIComponent(channel), base);
      frame.title = label;
      Object.assign(frame.style, {
        position: "fixed", bottom: "84px", [side]: "20px", border: "0", borderRadius: "14px", background: "#fff",
        width: "min(400px, calc(100vw - 40px))", height: "min(640px, calc(100vh - 110px))", boxShadow: "0 8px 40px #0005",
      });
      root.append(frame);
    }
    frame.hidden = false;
    frame.style.display = "block";
    unread.hidden = true;
    button.setAttribute("aria-expanded", "true");
    tell({ opened: true });
  };
  const hide = () => {
    if (frame === null) return;
    frame.hidden = true;
    frame.style.display = "none";
    button.setAttribute("aria-expanded", "false");
    tell({ opened: false });
    button.focus();
  };
  const tell = (what) => frame && frame.contentWindow && frame.contentWindow.postMessage({ brain: what }, base.origin);

  button.addEventListener("click", () => (opened() ? hide() : show()));
  window.addEventListener("message", (event) => {
    if (frame === null || event.source !== frame.contentWindow || event.origin !== base.origin) return;
    const said = event.data && event.data.brain;
    if (said === "close") hide();
    if (said === "ready") tell({ opened: opened() });
    if (said && typeof said.unread === "number" && !opened()) {
      unread.textContent = String(said.unread);
      unread.hidden = said.unread === 0;
    }
  });
  window.brainWidget = { open: show, close: hide };
  const begin = () => {
    document.body.append(place);
    if (script.dataset.open === "true") show();
  };
  if (document.body) begin();
  else document.addEventListener("DOMContentLoaded", begin);
})();
