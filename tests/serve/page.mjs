// Runs the page's own script on a document that knows nodes and text alone, and prints what it showed as JSON.
import { readFileSync } from "node:fs";

const { html, models, answers, stored, steps } = JSON.parse(readFileSync(0, "utf8"));
const made = [], posted = [];
class Node {
  constructor(tag) { Object.assign(this, { tag, kids: [], attributes: {}, value: "", style: {}, listeners: {} }); made.push(tag);
    const names = new Set(); this.classList = { add: (n) => names.add(n), toggle: (n) => !names.delete(n) && !!names.add(n) }; }
  set textContent(text) { this.kids = [String(text)]; }
  get textContent() { return this.kids.map((kid) => (typeof kid === "string" ? kid : kid.textContent)).join(""); }
  set innerHTML(_) { throw new Error("markup"); }
  set outerHTML(_) { throw new Error("markup"); }
  get lastElementChild() { return this.kids.filter((kid) => typeof kid !== "string").at(-1); }
  append(...kids) { this.kids.push(...kids); }
  replaceChildren(...kids) { this.kids = kids; }
  setAttribute(name, value) { this.attributes[name] = value; }
  addEventListener(name, listener) { this.listeners[name] = listener; }
  focus() {}
  requestSubmit() { this.onsubmit({ preventDefault() {} }); }
}
const byId = {};
for (const [, tag, id] of html.matchAll(/<(\w+)[^>]*\bid="([\w-]+)"/g)) byId[id] = new Node(tag);
Object.assign(byId.temperature, { value: "0.8" });
Object.assign(byId.length, { value: "50" });
byId.mode.value = "chat";
const kept = stored === null ? {} : { "llm-conversations": stored };
globalThis.localStorage = { getItem: (key) => kept[key] ?? null, setItem: (key, value) => { kept[key] = value; } };
globalThis.document = { createElement: (tag) => new Node(tag), getElementById: (id) => byId[id], body: new Node("body"),
  listeners: {}, addEventListener(name, listener) { this.listeners[name] = listener; } };
made.length = 0;
globalThis.fetch = async (path, options) => {
  if (path === "/v1/models") return { json: async () => ({ data: models }) };
  posted.push([path, JSON.parse(options.body)]);
  const { status = 200, events, hang } = answers.shift();
  if (status !== 200) return { ok: false, json: async () => events };
  const body = new ReadableStream({
    start(controller) {
      for (const event of events) controller.enqueue(new TextEncoder().encode(`data: ${JSON.stringify(event)}\n\n`));
      if (!hang) { controller.enqueue(new TextEncoder().encode("data: [DONE]\n\n")); controller.close(); }
      options.signal.addEventListener("abort", () => hang && controller.error(new Error("aborted")));
    },
  });
  return { ok: true, body };
};
const [, script] = html.match(/<script>([\s\S]*?)<\/script>/);
new Function(script)();
const settle = () => new Promise((resolve) => setTimeout(resolve, 30));
await settle();
byId.model.value = models[0].id;
const log = () => byId.log.kids.map((node) => node.textContent);
const shown = [log()];
for (const [what, value] of steps) {
  if (what === "send") { byId.text.value = value; byId.text.onkeydown({ key: "Enter", shiftKey: false, preventDefault() {} }); }
  if (what === "write") { byId.text.value = value; byId.text.onkeydown({ key: "Enter", shiftKey: true, preventDefault() {} }); }
  if (what === "escape") document.listeners.keydown({ key: "Escape" });
  if (what === "click") byId[value].onclick();
  if (what === "open") byId.talks.kids[value].kids[0].onclick();
  if (what === "drop") byId.talks.kids[value].kids[1].onclick();
  if (what === "set") byId[value[0]].value = value[1];
  await settle();
  shown.push(log());
}
const titles = byId.log.kids.flatMap((node) => node.kids.map((kid) => kid.title).filter(Boolean));
const talks = byId.talks.kids.map((node) => node.kids[0].textContent);
console.log(JSON.stringify({ shown, posted, titles, talks, made: [...new Set(made)], kept: kept["llm-conversations"],
  status: byId.status.textContent, stop: byId.stop.disabled }));
