// Says one thing over docs/examples/brain-ws.js and prints its events as lines of JSON.
import { BrainSocket } from "../../docs/examples/brain-ws.js";

const [url, token, conversation] = process.argv.slice(2);
const brain = new BrainSocket(url, async () => ({ token }));
brain.on("event", (event) => {
  console.log(JSON.stringify(event));
  if (event.type === "turn.completed") brain.close();
});
await brain.subscribe(conversation);
const turn = await brain.send(conversation, "Hello");
console.log(JSON.stringify({ type: "sent", turn_id: turn.id }));
