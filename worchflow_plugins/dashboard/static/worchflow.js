// The dashboard's one module: it refreshes the page, ticks its clocks, sends what people ask for.
// Everything a page shows is made on the server; text only ever enters the page as text.

const root = document.documentElement;
const base = root.dataset.base || "";
const $ = (id) => document.getElementById(id);
const main = $("main");
root.classList.add("has-js");

// --- clocks --------------------------------------------------------------------------------------

function span(seconds) {
  seconds = Math.max(0, seconds);
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  for (const [unit, size, lower, small] of [["d", 86400, "h", 3600], ["h", 3600, "m", 60], ["m", 60, "s", 1]]) {
    if (whole >= size) {
      const rest = Math.floor((whole % size) / small);
      return rest ? `${Math.floor(whole / size)}${unit} ${rest}${lower}` : `${Math.floor(whole / size)}${unit}`;
    }
  }
  return `${whole} s`;
}

function ago(seconds) {
  const size = Math.abs(seconds);
  if (seconds <= -60) return `in ${span(size)}`;
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]]) {
    if (size >= length || unit === "s") {
      const text = `${Math.floor(size / length)}${unit}`;
      return seconds >= 0 ? `${text} ago` : `in ${text}`;
    }
  }
}

function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function tick() {
  const now = Date.now();
  for (const item of document.querySelectorAll("[data-ago]")) setText(item, ago((now - item.dataset.ago) / 1000));
  for (const item of document.querySelectorAll("[data-since]")) setText(item, span((now - item.dataset.since) / 1000));
  for (const item of document.querySelectorAll("[data-late]")) {
    const age = (now - item.querySelector("[data-ago]").dataset.ago) / 1000;
    item.classList.toggle("late", age > Number(item.dataset.late));
  }
  for (const item of document.querySelectorAll("[data-clock]")) {
    setText(item, new Date(Number(item.dataset.clock)).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" }));
  }
}

// --- the morph: make what is there like what should be, keeping what people hold ------------------

const keyOf = (node) => (node.nodeType === 1 ? node.dataset.key || node.id || null : null);
const KEPT = new Set(["INPUT", "TEXTAREA", "SELECT"]);

function morphAttributes(from, to) {
  for (const { name } of [...from.attributes]) {
    if (name === "open" || name === "class" || (name === "style" && from.hasAttribute("data-grow"))) continue;
    if (!to.hasAttribute(name)) from.removeAttribute(name);
  }
  for (const { name, value } of to.attributes) {
    if (name === "open" || from.getAttribute(name) === value) continue;
    if (name === "class" && from.classList.contains("at")) from.className = `${value} at`;
    else from.setAttribute(name, value);
  }
  if (!to.hasAttribute("class") && from.hasAttribute("class") && !from.classList.contains("at")) from.removeAttribute("class");
}

function morph(from, to) {
  if (from.nodeType !== 1) {
    if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
    return;
  }
  // Inputs are their user's; a button whose request is under way, and what a script shows, stay too.
  if (KEPT.has(from.tagName) || from.hasAttribute("aria-busy") || from.id === "bulk" || from.id === "held") return;
  if (from.dataset.ago && from.dataset.ago === to.dataset.ago) return;
  if (from.dataset.since && from.dataset.since === to.dataset.since) return;
  if (from.dataset.clock && from.dataset.clock === to.dataset.clock) return;
  morphAttributes(from, to);
  if (from.hasAttribute("data-hold") && isHeld(from)) holdRows(from, to);
  else morphChildren(from, to);
}

function morphChildren(from, to) {
  const known = new Map();
  for (const child of from.children) if (keyOf(child)) known.set(keyOf(child), child);
  let place = from.firstChild;
  for (const wanted of [...to.childNodes]) {
    const key = keyOf(wanted);
    let match = key ? known.get(key) : place;
    if (match && !key && (keyOf(match) || match.nodeName !== wanted.nodeName)) match = null;
    if (match && match.nodeName !== wanted.nodeName) match = null;
    if (!match) {
      const fresh = document.importNode(wanted, true);
      if (fresh.nodeName === "TR" && known.size) fresh.classList.add("fresh");
      from.insertBefore(fresh, place);
      continue;
    }
    // Moving a node drops its focus: it is moved only where the order really differs.
    if (match !== place) from.insertBefore(match, place);
    else place = place.nextSibling;
    known.delete(key);
    morph(match, wanted);
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

// --- rows do not move under the pointer -----------------------------------------------------------

const canHover = window.matchMedia("(hover: hover)").matches;
let waiting = null;

function isHeld(body) {
  return (canHover && body.matches(":hover")) || body.contains(document.activeElement);
}

function holdRows(from, to) {
  const wanted = new Map([...to.children].map((row) => [keyOf(row), row]));
  for (const row of from.children) {
    const same = wanted.get(keyOf(row));
    if (same) {
      morph(row, same);
      wanted.delete(keyOf(row));
    }
  }
  const notice = $("held");
  if (!notice) return;
  notice.hidden = !wanted.size;
  if (wanted.size) setText($("held-show"), `${wanted.size} new – show`);
}

function letGo() {
  if (!waiting) return;
  const fresh = waiting;
  waiting = null;
  const notice = $("held");
  if (notice) notice.hidden = true;
  const body = document.querySelector("[data-hold]");
  const wanted = fresh.querySelector("[data-hold]");
  if (body && wanted) morphChildren(body, wanted);
  tick();
}

// A moment's grace, so that the pointer can reach the notice.
function letGoSoon() {
  setTimeout(() => {
    const body = document.querySelector("[data-hold]");
    if (body && !isHeld(body) && !$("held")?.matches(":hover")) letGo();
  }, 400);
}

document.addEventListener("pointerout", (event) => {
  if (event.target.closest?.("[data-hold], #held")) letGoSoon();
});
document.addEventListener("focusout", letGoSoon);

// --- live: ask every two seconds what has changed --------------------------------------------------

let version = main.dataset.version;
let paused = false;
let timer = 0;
let failures = 0;

function say(state, text) {
  const live = $("live");
  live.dataset.state = state;
  setText(live, text);
}

function plan(delay) {
  clearTimeout(timer);
  const poll = Number(main.dataset.poll);
  if (!poll || !version) return;
  timer = setTimeout(refresh, delay ?? poll);
}

async function refresh() {
  if (paused || document.hidden || $("confirm").open) return plan();
  try {
    const answer = await fetch(location.href, {
      headers: { "If-None-Match": version },
      cache: "no-store",
      signal: AbortSignal.timeout(4000),
    });
    if (answer.status === 200) {
      const html = await answer.text();
      if (!$("confirm").open) apply(new DOMParser().parseFromString(html, "text/html"));
    } else if (answer.status !== 304) {
      throw new Error(`answered ${answer.status}`);
    }
    failures = 0;
    say("live", "live");
    plan();
  } catch (error) {
    // The last good page stays; the server is asked again, less and less often.
    failures += 1;
    const delay = Math.min(15000, 1000 * 2 ** Math.min(failures, 4));
    say("lost", `reconnecting, next try in ${Math.round(delay / 1000)} s`);
    plan(delay);
  }
}

function apply(fresh) {
  const wanted = fresh.getElementById("main");
  if (!wanted) return;
  version = wanted.dataset.version;
  main.dataset.version = version;
  main.dataset.poll = wanted.dataset.poll;
  document.title = fresh.title;
  const body = document.querySelector("[data-hold]");
  waiting = body && isHeld(body) ? wanted : null;
  if (!waiting && $("held")) $("held").hidden = true;
  morphChildren(main, wanted);
  markRow();
  tick();
  grow();
}

function soon() {
  plan(60);
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) soon(); });
addEventListener("online", soon);

function setPaused(on) {
  if (!version) return;
  paused = on;
  $("pause").setAttribute("aria-pressed", String(on));
  say(on ? "paused" : "live", on ? "paused" : "live");
  if (!on) soon();
}

// A running bar grows between two refreshes.
function grow() {
  for (const bar of document.querySelectorAll("[data-grow]")) {
    if (bar.dataset.grown) continue;
    bar.dataset.grown = "1";
    bar.style.transition = "width 2s linear";
  }
}

// --- asking for changes ----------------------------------------------------------------------------

function toast(text, bad = false) {
  const note = document.createElement("div");
  note.className = bad ? "toast bad" : "toast";
  note.textContent = text;
  $("toasts").append(note);
  setTimeout(() => note.remove(), bad ? 9000 : 4000);
}

async function post(path, body) {
  const answer = await fetch(`${base}/api/${path}`, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  let document_ = {};
  try { document_ = await answer.json(); } catch { /* an answer without a body says it by its status */ }
  if (!answer.ok) throw Object.assign(new Error(document_.error || `the server answered ${answer.status}`), document_);
  return document_;
}

function confirmed(text, yes) {
  const dialog = $("confirm");
  setText($("confirm-text"), text);
  setText($("confirm-yes"), yes);
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}

async function busy(button, work) {
  if (button.hasAttribute("aria-busy")) return;
  button.setAttribute("aria-busy", "true");
  try {
    await work();
  } catch (error) {
    toast(error.message, true);
  } finally {
    button.removeAttribute("aria-busy");
    soon();
  }
}

const one = (id) => `executions/${encodeURIComponent(id)}`;

async function act(button) {
  const { do: verb, id } = button.dataset;
  if (verb === "cancel" && !(await confirmed(`Cancel execution ${id}?\nIt stops at its next step.`, "Cancel it"))) return;
  await busy(button, async () => {
    const answer = await post(`${one(id)}/${verb}`, {});
    toast(verb === "retry" ? "Queued again." : answer.status === "cancelled" ? "Cancelled." : "Asked to cancel.");
  });
}

async function fork(button) {
  const { fork: step, id, title } = button.dataset;
  $("fork-pick")?.removeAttribute("open");
  if (!(await confirmed(`Fork from the step ${title}?\nA new execution takes over what was recorded before it, and runs on from there.`, "Fork it"))) return;
  await busy(button, async () => {
    const answer = await post(`${one(id)}/fork`, { fromStep: step });
    location.assign(`${base}/${one(answer.executionId)}`);
  });
}

async function schedule(button) {
  const { schedule: verb, id } = button.dataset;
  if (verb === "run" && !(await confirmed(`Run ${id} now?\nIts next tick stays as it is.`, "Run it"))) return;
  await busy(button, async () => {
    const answer = await post(`schedules/${encodeURIComponent(id)}/${verb}`, {});
    if (answer.executionId) location.assign(`${base}/${one(answer.executionId)}`);
    else toast(verb === "pause" ? "Paused: no tick is fired until it is resumed." : "Resumed.");
  });
}

async function pauseFunction(button) {
  const { function: verb, id } = button.dataset;
  if (verb === "pause" && !(await confirmed(`Pause ${id}?\nWhat runs goes on, nothing more begins until it is resumed.`, "Pause it"))) return;
  await busy(button, async () => {
    await post(`functions/${encodeURIComponent(id)}/${verb}`, {});
    toast(verb === "pause" ? "Paused." : "Resumed.");
  });
}

async function drain(button) {
  if (!(await confirmed("Let this worker finish what it runs and leave?", "Drain it"))) return;
  await busy(button, async () => {
    await post(`workers/${encodeURIComponent(button.dataset.drain)}/drain`, {});
    toast("Asked to drain.");
  });
}

// --- many at once ----------------------------------------------------------------------------------

const picked = () => [...document.querySelectorAll(".row-check:checked")].map((box) => box.value);

function showPicked() {
  const bulk = $("bulk");
  if (!bulk) return;
  const count = picked().length;
  const all = $("bulk-all").checked;
  setText($("bulk-count"), all ? "All that match" : count ? `${count} selected` : "Nothing selected");
  for (const button of bulk.querySelectorAll("[data-bulk]")) button.disabled = !count && !all;
}

function setSelecting(on) {
  main.classList.toggle("selecting", on);
  $("bulk").hidden = !on;
  $("select-toggle").setAttribute("aria-pressed", String(on));
  if (!on) {
    for (const box of document.querySelectorAll(".row-check")) box.checked = false;
    $("bulk-all").checked = false;
  }
  showPicked();
}

async function bulk(button) {
  const verb = button.dataset.bulk;
  const what = $("bulk-all").checked ? { filter: JSON.parse($("bulk").dataset.filter) } : { ids: picked() };
  const past = verb === "retry" ? "queued again" : "cancelled, or asked to";
  await busy(button, async () => {
    const count = await post(verb, { ...what, dryRun: true });
    const many = `${count.matched.toLocaleString()}${count.isMatchedCapped ? "+" : ""}`;
    const verbs = verb === "retry" ? "Retry" : "Cancel";
    if (!count.matched) return toast(`None of them can be ${verb === "retry" ? "retried" : "cancelled"}.`, true);
    if (!(await confirmed(`${verbs} ${many} execution${count.matched === 1 ? "" : "s"}?`, `${verbs} ${many}`))) return;
    // What was counted, and nothing that came since.
    if (what.filter) what.filter = { ...what.filter, ...count.edge };
    let done = 0;
    let skipped = [];
    let after = null;
    do {
      const answer = await post(verb, { ...what, ...(after ? { after } : {}) });
      done += answer.changed.length;
      skipped = skipped.concat(answer.skipped);
      after = answer.next;
      if (after) toast(`${done.toLocaleString()} of ${many} so far…`);
    } while (after);
    toast(`${done.toLocaleString()} ${past}.`);
    if (skipped.length) toast(`${skipped.length} skipped: ${skipped[0].error}`, true);
    setSelecting(false);
  });
}

// --- the send page ---------------------------------------------------------------------------------

function paint() {
  const area = $("data");
  const layer = $("paint");
  layer.replaceChildren();
  const token = /("(?:\\.|[^"\\\n])*")(\s*:)?|(-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)|\b(true|false|null)\b/g;
  let place = 0;
  for (const found of area.value.matchAll(token)) {
    layer.append(area.value.slice(place, found.index));
    const mark = document.createElement("span");
    mark.className = found[2] ? "key" : found[1] ? "text" : found[3] ? "number" : "word";
    mark.textContent = found[1] ?? found[0];
    layer.append(mark, found[1] && found[2] ? found[2] : "");
    place = found.index + found[0].length;
  }
  layer.append(`${area.value.slice(place)}\n`);
  layer.scrollTop = area.scrollTop;
}

function parsed() {
  const text = $("data").value;
  try {
    return { value: JSON.parse(text) };
  } catch (error) {
    let message = error.message.replace(/^JSON\.parse: /, "").replace(/ in JSON at position.*/, "");
    const position = /position (\d+)/.exec(error.message);
    if (position) {
      const before = text.slice(0, Number(position[1])).split("\n");
      message += ` (line ${before.length}, column ${before.at(-1).length + 1})`;
    }
    return { problem: message };
  }
}

function complain(text, problems = []) {
  const place = $("problem");
  place.replaceChildren(text);
  if (!problems.length) return;
  place.replaceChildren("The data does not fit:");
  const list = document.createElement("ul");
  for (const item of problems) {
    const line = document.createElement("li");
    line.textContent = `${item.path || "data"} ${item.message}`;
    list.append(line);
  }
  place.append(list);
}

function functionName() {
  return $("fn").value || $("other-name").value.trim();
}

function sending() {
  const body = { name: functionName(), data: parsed().value };
  const extras = { id: $("opt-id").value.trim(), delay: $("opt-delay").value.trim() };
  for (const [name, value] of Object.entries(extras)) if (value) body[name] = value;
  if ($("opt-priority").value) body.priority = Number($("opt-priority").value);
  if ($("opt-event").checked) body.event = true;
  if ($("opt-force").checked) body.force = true;
  return body;
}

async function sendNow() {
  const { problem } = parsed();
  if (problem) return complain(problem);
  if (!functionName()) return complain("Choose a function or an event, or name one.");
  complain("");
  await busy($("send-now"), async () => {
    try {
      const answer = await post("send", sending());
      const ids = answer.executionIds ?? [answer.executionId];
      if (!ids.length) return complain(`Event ${answer.eventId} is kept for those who wait for it: no function subscribes.`);
      location.assign(ids.length === 1 ? `${base}/${one(ids[0])}` : `${base}/?search=${encodeURIComponent(answer.eventId)}`);
    } catch (error) {
      complain(error.message, error.problems);
    }
  });
}

const quoted = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
// JSON text inside a Python raw string would end at a quote: as a JSON string it is a Python one too.
const python = (value) => `json.loads(${JSON.stringify(JSON.stringify(value))})`;

const AS = {
  curl: (body) => `curl -X POST ${quoted(`${location.origin}${base}/api/send`)} -H 'Content-Type: application/json' -d ${quoted(JSON.stringify(body))}`,
  python: (body) => `import json\n\nawait app.client.${body.event ? "send_event" : "send"}(${JSON.stringify(body.name)}, ${python(body.data)}${body.id ? `, id=${JSON.stringify(body.id)}` : ""}${body.delay ? `, delay=${JSON.stringify(body.delay)}` : ""}${body.priority ? `, priority=${body.priority}` : ""})`,
  cli: (body) => `worchflow send ${quoted(body.name)} --data ${quoted(JSON.stringify(body.data))}${body.id ? ` --id ${quoted(body.id)}` : ""}${body.delay ? ` --delay ${quoted(body.delay)}` : ""}${body.priority ? ` --priority ${body.priority}` : ""}${body.event ? " --event" : ""}${body.force ? " --force" : ""}`,
};

function setUpSend() {
  const area = $("data");
  const draft = `worchflow.draft.${$("fn").value}`;
  const asked = new URLSearchParams(location.search);
  const saved = sessionStorage.getItem(draft);
  if (saved && !asked.has("from") && !asked.has("data")) area.value = saved;
  area.parentElement.classList.add("painted");
  area.addEventListener("input", () => {
    paint();
    sessionStorage.setItem(draft, area.value);
    complain(parsed().problem || "");
  });
  area.addEventListener("scroll", () => { $("paint").scrollTop = area.scrollTop; });
  $("fn").addEventListener("change", () => {
    if ($("fn").value) location.assign(`${base}/send?fn=${encodeURIComponent($("fn").value)}`);
    else $("other").hidden = false;
  });
  $("send-now").addEventListener("click", sendNow);
  $("send").addEventListener("submit", (event) => event.preventDefault());
  $("format").addEventListener("click", () => {
    const { value, problem } = parsed();
    if (problem) return complain(problem);
    area.value = JSON.stringify(value, null, 2);
    paint();
  });
  $("reset").addEventListener("click", () => {
    area.value = area.dataset.starter;
    sessionStorage.removeItem(draft);
    complain("");
    paint();
  });
  for (const button of document.querySelectorAll("[data-as]")) {
    button.addEventListener("click", () => {
      const { problem } = parsed();
      if (problem) return complain(problem);
      copyText(AS[button.dataset.as](sending()), button);
    });
  }
  paint();
}

// --- clicks and keys -------------------------------------------------------------------------------

async function copyText(text, button) {
  try {
    await navigator.clipboard.writeText(text);
    const label = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = label; }, 1200);
  } catch {
    toast("The browser does not allow copying here.", true);
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button?.dataset.do) return act(button);
  if (button?.dataset.fork) return fork(button);
  if (button?.dataset.function) return pauseFunction(button);
  if (button?.dataset.schedule) return schedule(button);
  if (button?.dataset.drain) return drain(button);
  if (button?.dataset.bulk) return bulk(button);
  if (button?.dataset.copy) return copyText($(button.dataset.copy).textContent, button);
  switch (button?.id) {
    case "pause": return setPaused(!paused);
    case "help-open": return $("help").showModal();
    case "held-show": return letGo();
    case "select-toggle": return setSelecting(!main.classList.contains("selecting"));
    case "theme": {
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      document.cookie = `worchflow_theme=${root.dataset.theme}; path=${base || "/"}; max-age=31536000; samesite=strict`;
      return undefined;
    }
  }
  for (const open of document.querySelectorAll("details.pick[open], .menu[open]")) {
    if (!open.contains(event.target)) open.removeAttribute("open");
  }
  const row = event.target.closest("tr[data-href]");
  if (row && !event.target.closest("a, button, input, label") && !getSelection().toString()) {
    if (event.metaKey || event.ctrlKey) open(row.dataset.href);
    else location.assign(row.dataset.href);
  }
  return undefined;
});

document.addEventListener("change", (event) => {
  const item = event.target;
  if (item.matches(".row-check, #bulk-all")) return showPicked();
  if (item.form?.id === "filters" && item.matches("select, input[type=checkbox]")) item.form.requestSubmit();
  return undefined;
});

document.addEventListener("submit", (event) => {
  // Empty fields would only lengthen the address, which people share.
  for (const field of event.target.elements) if (field.name && !field.value && event.target.method === "get") field.disabled = true;
});
addEventListener("pageshow", () => {
  for (const field of document.querySelectorAll("form :disabled[name]")) field.disabled = false;
});

let current = null;
const rows = () => [...document.querySelectorAll("tr[data-href]")];

function markRow() {
  for (const row of rows()) row.classList.toggle("at", keyOf(row) === current);
}

function moveRow(by) {
  const list = rows();
  if (!list.length) return;
  const index = list.findIndex((row) => keyOf(row) === current);
  const next = list[Math.min(list.length - 1, Math.max(0, index + by))];
  current = keyOf(next);
  markRow();
  next.querySelector("a")?.focus({ preventScroll: true });
  next.scrollIntoView({ block: "nearest" });
}

const GO = { e: "/", f: "/functions", s: "/schedules", w: "/workers", n: "/send", a: "/about" };
let prefix = 0;

document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && $("send-now")) {
    event.preventDefault();
    return sendNow();
  }
  const typing = event.target.closest("input:not([type=checkbox]), textarea, select, dialog[open]");
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return undefined;
  if (Date.now() - prefix < 1500 && GO[event.key]) return location.assign(base + GO[event.key]);
  prefix = event.key === "g" ? Date.now() : 0;
  const at = rows().find((row) => keyOf(row) === current);
  const press = (verb) => (at ?? main).querySelector(at ? `[data-do=${verb}]` : `[data-do=${verb}][data-main]`)?.click();
  switch (event.key) {
    case "/": if ($("search")) { event.preventDefault(); $("search").focus(); } return undefined;
    case "j": return moveRow(1);
    case "k": return moveRow(-1);
    case "x": {
      const box = at?.querySelector(".row-check");
      if (box) { setSelecting(true); box.checked = !box.checked; showPicked(); }
      return undefined;
    }
    case "r": return press("retry");
    case "c": return press("cancel");
    case "p": return setPaused(!paused);
    case "?": return $("help").showModal();
  }
  return undefined;
});

// --- begin -----------------------------------------------------------------------------------------

tick();
setInterval(tick, 1000);
grow();
if (matchMedia("(min-width: 761px)").matches) $("menu")?.removeAttribute("open");
if ($("send-now")) setUpSend();
if (version && Number(main.dataset.poll)) { say("live", "live"); plan(); } else { $("pause").hidden = true; }
const again = $("again");
if (again) setTimeout(() => location.reload(), Number(again.dataset.again) * 1000);
