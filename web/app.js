/* app.js - the page: a chat over /v1/chat/completions, and a live view of /v1/status.
 *
 * Everything from the server is put into the page as text, never as markup. The status is asked for once a second while the page
 * is visible, and not at all while it is not. */
"use strict";

const $ = id => document.getElementById(id);
let messages = []; /* of this chat; a new chat has a new list, so an answer that is still being read stays out of it */
let controller = null;

function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

const ms = value => value >= 1000 ? (value / 1000).toFixed(2) + " s" : value.toFixed(value < 10 ? 1 : 0) + " ms";

const bytes = value => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let i = 0;
  while (value >= 1024 && i < units.length - 1) { value /= 1024; i++; }
  return value.toFixed(value < 10 && i ? 1 : 0) + " " + units[i];
};

/* --- chat --- */

/* parts: [[share of the whole, colour class, what it is]] */
function bar(parts) {
  const node = element("div", "bar");
  for (const [share, color, title] of parts) {
    const part = element("i", color);
    part.style.width = Math.max(0, Math.min(1, share)) * 100 + "%";
    part.title = title;
    node.append(part);
  }
  return node;
}

/* color: that of its part of the bar above */
function row(name, value, color) {
  const node = element("div"), label = element("span", "", name);
  if (color) label.prepend(element("i", "dot " + color));
  node.append(label, element("b", "", value));
  return node;
}

const routes = {
  split: m => m.prefill_worker + " → " + m.decode_worker,
  direct: m => "→ " + m.decode_worker,
  single: m => m.decode_worker,
};

/* What became of one request: reuse, route, time. */
function ticket(node, m) {
  const t = m.timing, whole = t.queue_ms + t.load_ms + t.prefill_ms + t.first_decode_ms || 1;
  node.replaceChildren(
    row("reused", m.reused_tokens + " of " + m.prompt_tokens),
    bar([[m.reused_tokens / m.prompt_tokens, "hit", "from the cache"]]),
    row("route", m.route),
    row("workers", (routes[m.route] || (() => ""))(m)),
    row("first token", ms(t.ttft_ms)),
    bar([[t.queue_ms / whole, "wait", "queue " + ms(t.queue_ms)], [t.load_ms / whole, "load", "load " + ms(t.load_ms)],
      [t.prefill_ms / whole, "cold", "prefill " + ms(t.prefill_ms)],
      [t.first_decode_ms / whole, "first", "first decode " + ms(t.first_decode_ms)]]),
    row("queue", ms(t.queue_ms), "wait"), row("load", ms(t.load_ms), "load"), row("prefill", ms(t.prefill_ms), "cold"),
    row("first decode", ms(t.first_decode_ms), "first"), row("between tokens", ms(t.tbt_ms_p50)));
  if (m.moves) node.append(row("moved", m.moves + "×"));
}

/* Events of a stream: text in, `data:` values out. An event may be cut anywhere, so the rest is kept. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    rest += value;
    const whole = rest.split("\n\n");
    rest = whole.pop();
    for (const event of whole) {
      const data = event.split("\n").filter(l => l.startsWith("data:")).map(l => l.slice(5).trim()).join("\n");
      if (data && data !== "[DONE]") yield JSON.parse(data);
    }
  }
}

async function stream(body, onChunk) {
  const headers = {"Content-Type": "application/json"};
  if (!$("cache").checked) headers["X-Mooncake-Cache"] = "off";
  const response = await fetch("v1/chat/completions",
    {method: "POST", headers, body: JSON.stringify(body), signal: controller.signal});
  if (!response.ok) throw new Error((await response.json()).error.message);
  for await (const chunk of events(response)) {
    if (chunk.error) throw new Error(chunk.error.message);
    onChunk(chunk);
  }
}

function atBottom() {
  const log = $("log");
  return log.scrollHeight - log.scrollTop - log.clientHeight < 60;
}

function addAnswer(question) {
  const answer = element("div", "answer"), text = element("div", "text live"), side = element("div", "ticket");
  side.hidden = true;
  answer.append(text, side);
  $("empty").hidden = true;
  $("log").append(element("div", "user", question), answer);
  $("log").scrollTop = $("log").scrollHeight;
  return {text, side};
}

function busy(on) {
  $("send").disabled = on;
  $("stop").hidden = !on;
}

async function ask(question) {
  const {text, side} = addAnswer(question);
  const shown = document.createTextNode(""), chat = messages;
  let got = ""; /* as it came: the next turn finds it in the cache only if not a blank of it is lost */
  text.append(shown);
  chat.push({role: "user", content: question});
  controller = new AbortController();
  busy(true);
  try {
    const body = {model: $("model").value, messages: chat, stream: true, max_completion_tokens: +$("max").value, temperature: 0};
    await stream(body, chunk => {
      const follow = atBottom();
      got += chunk.choices[0]?.delta?.content || "";
      shown.data = got.trimStart();
      if (chunk.mooncake) {
        ticket(side, chunk.mooncake);
        side.hidden = false;
      }
      if (follow) $("log").scrollTop = $("log").scrollHeight;
    });
  } catch (error) {
    if (error.name !== "AbortError") text.append(element("span", "error", (got ? "\n" : "") + error.message));
  }
  text.classList.remove("live");
  if (got) chat.push({role: "assistant", content: got});
  else chat.pop();
  busy(false);
  refresh();
}

$("form").addEventListener("submit", event => {
  event.preventDefault();
  const question = $("input").value.trim();
  if (!question || $("send").disabled) return;
  $("input").value = "";
  ask(question);
});
$("input").addEventListener("keydown", event => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("form").requestSubmit();
  }
});
$("stop").addEventListener("click", () => controller?.abort());
$("clear").addEventListener("click", () => {
  controller?.abort();
  messages = [];
  $("log").querySelectorAll(".user, .answer").forEach(node => node.remove());
  $("empty").hidden = false;
});

/* --- cluster --- */

function show(view) {
  document.body.dataset.view = view;
  $("show-chat").setAttribute("aria-pressed", view === "chat");
  $("show-cluster").setAttribute("aria-pressed", view === "cluster");
  if (last) draw(last);
}
$("show-chat").addEventListener("click", () => show("chat"));
$("show-cluster").addEventListener("click", () => show("cluster"));

function card(name, state, lines) {
  const node = element("div", "card");
  node.append(element("span", "state " + state, state), element("strong", "", name), ...lines);
  return node;
}

function workerCard(w) {
  return card(w.name, w.state, [
    element("div", "", w.role + " · " + w.model + " · " + w.engine),
    bar([[w.kv_tokens / (w.kv_tokens_max || 1), "cold", "KV cells in use"]]),
    element("div", "", w.running + " of " + w.running_max + " sequences · " + w.kv_tokens + " of " + w.kv_tokens_max +
      " tokens of KV"),
    element("div", "", w.waiting + (w.waiting === 1 ? " prompt, " : " prompts, ") + w.queued_tokens + " tokens to prefill"),
    element("div", "", "1,000 tokens in " + ms(w.prefill_1000_ms) + " · step " + ms(w.decode_step_ms) +
      (w.store_up ? "" : " · no Store")),
  ]);
}

function tierCard(t) {
  return card(t.node || t.uuid.slice(0, 8), t.state, [
    element("div", "", t.tier.toUpperCase() + " · " + t.objects + " objects"),
    bar([[t.used / (t.capacity || 1), "hit", "used"]]),
    element("div", "", bytes(t.used) + " of " + bytes(t.capacity)),
  ]);
}

function fill(id, nodes, none) {
  $(id).replaceChildren(...(nodes.length ? nodes : [element("div", "none", none)]));
}

function models(names) {
  const select = $("model");
  if ([...select.options].map(o => o.value).join("\n") === names.join("\n")) return;
  const chosen = select.value;
  select.replaceChildren(...names.map(name => new Option(name, name)));
  if (names.includes(chosen)) select.value = chosen;
}

function draw(s) {
  const reused = r => r.prompt_tokens ? r.reused_tokens / r.prompt_tokens : 0;
  const color = r => reused(r) > 0.5 ? "--hit" : "--cold";
  const point = (r, y, what) => ({y, color: color(r), label: what + ", " + r.reused_tokens + " of " + r.prompt_tokens +
    " tokens reused, route " + r.route});
  const h = s.history, timed = h.filter(r => r.tbt_ms > 0);
  plot($("ttft"), {points: h.map(r => point(r, r.ttft_ms, ms(r.ttft_ms))), line: h.map(r => r.ttft_predicted_ms), unit: "ms"});
  plot($("tbt"), {points: timed.map(r => point(r, r.tbt_ms, ms(r.tbt_ms))), unit: "ms"});
  plot($("hits"), {points: h.map(r => point(r, 100 * reused(r), (100 * reused(r)).toFixed() + " %")), unit: "%", bars: true, max: 105});
}

let last = null;

function render(s) {
  const ready = s.workers.filter(w => w.state === "ready").length;
  last = s;
  models(s.models);
  $("health").textContent = ready + (ready === 1 ? " worker" : " workers") + " · store " + s.store;
  $("health").className = "pill " + (ready && s.store !== "down" ? "up" : "down");
  $("hit-rate").textContent = (100 * s.cache.hit_rate).toFixed(1) + " %";
  $("open").textContent = s.requests.open;
  $("queued").textContent = s.requests.queued;
  $("answered").textContent = s.requests.answered;
  fill("workers", s.workers.map(workerCard), "No worker has registered.");
  fill("tiers", s.tiers.map(tierCard), s.store === "none" ? "Started without a Store." : "No node is known yet.");
  draw(s);
}

async function refresh() {
  try {
    const response = await fetch("v1/status");
    render(await response.json());
  } catch {
    $("health").textContent = "no answer";
    $("health").className = "pill down";
  }
}

setInterval(() => { if (!document.hidden) refresh(); }, 1000);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
window.addEventListener("resize", () => { if (last) draw(last); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (last) draw(last); });
refresh();
