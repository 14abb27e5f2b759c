// The page: choose, watch, compare, keep. Everything lives in its memory.

const MAX_RUNS = 100;
const LOAD_INTERVAL_MS = 3000;
const LOAD_WINDOW_MS = 30_000;
const SHEET = { steps: 8, solver: "dpm-solver-v3", requests: 4 };
const PIXELATED_UP_TO = 128;
const SETTINGS = ["cfg", "steps", "solver", "temperature", "top_k", "top_p"];

const $ = (id) => document.getElementById(id);

/** Make an element; attributes: true is set, false left out, `on...` a listener. */
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const seconds = (ms) => `${(ms / 1000).toFixed(ms < 9950 ? 2 : 0)} s`;
const count = (n, noun) => `${n} ${noun}${n === 1 ? "" : "s"}`;
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const present = (object) => Object.fromEntries(Object.entries(object).filter(([, value]) => value != null));

// --- The server ---

let apiKey = "";

/** What the server answered instead of images (RFC 9457). */
class Refusal extends Error {
  constructor({ type = "", title, detail = "", errors = [], request_id: id = "" }, retryAfter = 0) {
    super(title);
    Object.assign(this, { slug: type.split(":").pop(), title, detail, errors, id, retryAfter });
  }
}

const UNREACHABLE = { type: "unreachable", title: "The server cannot be reached" };
const BROKEN_OFF = { type: "broken-off", title: "The connection broke off" };

async function call(path, options = {}) {
  const headers = { ...options.headers, ...(apiKey && { Authorization: `Bearer ${apiKey}` }) };
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Refusal(UNREACHABLE);
  }
  if (response.ok) return response;
  const problem = await response.json().catch(() => ({}));
  const title = problem.title || `The server answered ${response.status} ${response.statusText}`;
  throw new Refusal({ ...problem, title }, Number(response.headers.get("Retry-After")) || 0);
}

const post = (body, options = {}) =>
  call("generate", {
    method: "POST",
    body: JSON.stringify(body),
    ...options,
    headers: { "Content-Type": "application/json", ...options.headers },
  });

/** Yield a stream's server-sent events as [name, data]. */
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read().catch((error) => {
      throw error.name === "AbortError" ? error : new Refusal(BROKEN_OFF);
    });
    if (done) return;
    const blocks = (rest + value).split(/\r?\n\r?\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const name = /^event: ?(.*)$/m.exec(block)?.[1].trim();
      const data = [...block.matchAll(/^data: ?(.*)$/gm)].map((match) => match[1]).join("\n");
      if (name && data) yield [name, JSON.parse(data)];
    }
  }
}

const answers = new Map();

/** Get JSON once; what failed is asked for again. */
function known(path) {
  if (!answers.has(path)) {
    const answer = call(path).then((response) => response.json());
    answers.set(path, answer);
    answer.catch(() => answers.delete(path));
  }
  return answers.get(path);
}

const describe = (model, version) => known(`models/${encodeURIComponent(model)}?version=${version}`);
const classesOf = async (model, version) =>
  (await known(`models/${encodeURIComponent(model)}/classes?version=${version}`)).classes;

// --- Problems in plain words ---

const FAILED = "Try again. If it stays, tell whoever runs the server.";
const ADVICE = {
  "unreachable": "Check that it is still running, then try again.",
  "broken-off": "The server may have stopped, or the network failed. Try again.",
  "invalid-input": "Change what is marked, then try again.",
  "unknown-model": "The list is up to date again: choose another one.",
  "unknown-version": "The list is up to date again: choose another one.",
  "version-refused": "Choose another version.",
  "not-ready": "The model is still being loaded.",
  "draining": "It finishes what it has. Come back when it was started again.",
  "queue-full": "Many images are waiting. Ask for fewer, or come back soon.",
  "too-late": "The images would not be finished in time. Ask for fewer images or steps, or come back soon.",
  "deadline": "Ask for fewer images or fewer steps.",
  "engine-failure": FAILED,
  "internal-error": FAILED,
};

const LABELS = {
  class_id: "Class", class_name: "Class", n: "Images", seed: "Seed", cfg: "Guidance", steps: "Steps", solver: "Solver",
  temperature: "Temperature", top_k: "Top-k", top_p: "Top-p", model: "Model", version: "Version",
};

let countdown = 0;

function showProblem(error, again) {
  if (!(error instanceof Refusal)) {
    reportError(error);
    error = new Refusal({ title: "This page made a mistake", detail: error.message });
  }
  if (error.slug === "unauthenticated") return askForKey(error);
  const retry = h("button", { type: "button", class: "quiet", onclick: again }, "Try again");
  const fields = error.errors.map(({ field, message }) => sentence(`${LABELS[field] ?? field}: ${message}`));
  const advice = [ADVICE[error.slug], error.id && !fields.length && `Request ${error.id}.`];
  $("problem").replaceChildren(
    h("strong", {}, error.title),
    ...(fields.length ? fields : [error.detail && sentence(error.detail)]).map((text) => h("p", {}, text)),
    h("p", { class: "advice" }, advice.filter(Boolean).join(" ")),
    ...(fields.length ? [] : [retry]),
  );
  $("problem").hidden = false;
  let left = error.retryAfter;
  const tick = () => {
    retry.disabled = left > 0;
    retry.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
    if (left-- <= 0) clearInterval(countdown);
  };
  clearInterval(countdown);
  countdown = setInterval(tick, 1000);
  tick();
  if (error.slug.startsWith("unknown-")) guarded(refreshModels);
}

const sentence = (text) => text[0].toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? "" : ".");

function clearProblems() {
  clearInterval(countdown);
  $("problem").hidden = true;
  $("problem").replaceChildren();
  document.querySelectorAll(".field-error").forEach((each) => each.remove());
  document.querySelectorAll("[aria-invalid]").forEach((each) => {
    each.removeAttribute("aria-invalid");
    each.removeAttribute("aria-describedby");
  });
}

/** Put each message below its field; the first one gets the focus. */
function markFields(error, side) {
  const marked = error.errors.flatMap(({ field, message }) => {
    const name = field === "class_name" ? "class_id" : field;
    const input = side.fields[name] ?? $("form").querySelector(`:scope > div [name="${CSS.escape(name)}"]`);
    const id = `error-${side.fields[name] ? side.name : "both"}-${name}`;
    if (!input || $(id)) return [];
    input.setAttribute("aria-invalid", "true");
    input.setAttribute("aria-describedby", id);
    input.closest(".field").append(h("span", { class: "field-error", id }, sentence(message)));
    return [input];
  });
  marked[0]?.focus();
}

function askForKey(error) {
  if (apiKey) $("key-text").textContent = `${sentence(error.detail)} Check it and enter it again.`;
  apiKey = "";
  $("key").value = "";
  if (!$("key-dialog").open) $("key-dialog").showModal();
}

// --- What can be chosen ---

let models = [];
const lineageWords = ({ round }) => (round ? `DDO round ${round}` : "base");
/** The class of the same name, of several that of the same number. */
const sameClass = (classes, wanted) =>
  [classes[wanted?.class_id], ...classes].find((each) => each?.class_name === wanted?.class_name);
const named = (names) => names.map((name) => h("option", { value: name }, name));

/** One set of settings; a comparison has two. Its model decides its fields. */
class Side {
  constructor(name) {
    this.name = name;
    this.element = $("side").content.firstElementChild.cloneNode(true);
    this.legend = this.element.querySelector("legend");
    this.fields = Object.fromEntries([...this.element.querySelectorAll("[name]")].map((field) => [field.name, field]));
    const { model, version } = this.fields;
    model.addEventListener("change", () => guarded(() => this.choose(model.value)));
    version.addEventListener("change", () => guarded(() => this.choose(model.value, Number(version.value))));
  }

  /** Take a model's version, by default its default one; settings that were changed stay so. The last choice holds. */
  choose(...choice) {
    const choosing = Promise.allSettled([this.choosing]).then(() => this.take(...choice)).finally(() => {
      if (this.choosing !== choosing) return;
      this.choosing = null;
      if (this === sides.A && this.classes) offerClasses();
    });
    return (this.choosing = choosing);
  }

  async take(name, number, settings = {}) {
    const versions = models.filter((each) => each.name === name);
    const chosen = versions.find((each) => each.version === number) ?? versions.find((each) => each.default_version);
    const details = await Promise.all(versions.map((each) => describe(name, each.version)));
    const { model, version, solver } = this.fields;
    model.replaceChildren(...named([...new Set(models.map((each) => each.name))]));
    model.value = name;
    version.replaceChildren(
      ...versions.map((each, index) => {
        const words = `${each.version} · ${lineageWords(details[index].lineage)}`;
        return h("option", { value: each.version }, each.ready ? words : `${words} (not loaded yet)`);
      }),
    );
    version.value = chosen.version;
    const kept = this.changes();
    this.detail = details[versions.indexOf(chosen)];
    solver.replaceChildren(...named(this.detail.solvers));
    const defaults = { cfg: 1, ...this.detail.defaults };
    for (const field of SETTINGS) {
      const input = this.fields[field];
      const exists = field === "cfg" ? this.detail.guidance !== "none" : field in defaults;
      input.closest(".field").hidden = !exists;
      input.value = exists ? (settings[field] ?? kept[field] ?? defaults[field]) : "";
      input.placeholder = defaults[field];
    }
    const shown = this.element.querySelectorAll(".grid .field:not([hidden])").length;
    this.element.querySelector(".grid").style.setProperty("--columns", shown === 4 ? 2 : 3);
    this.fields.steps.max = this.detail.limits.steps;
    this.classes = await classesOf(name, chosen.version);
  }

  /** Settings that differ from the defaults. */
  changes() {
    const defaults = { cfg: 1, ...this.detail?.defaults };
    return Object.fromEntries(Object.entries(this.settings()).filter(([field, value]) => value !== defaults[field]));
  }

  settings() {
    const entries = SETTINGS.map((field) => [field, this.fields[field].value]).filter(([, value]) => value !== "");
    return Object.fromEntries(entries.map(([field, value]) => [field, field === "solver" ? value : Number(value)]));
  }

  /** The request's part that this side decides; B's class is the one that is called like A's. */
  request(chosenClass) {
    const { name: model, version } = this.detail;
    const request = { model, version, ...this.settings() };
    if (!chosenClass) return request;
    const same = sameClass(this.classes, chosenClass);
    if (same) return { ...request, class_id: same.class_id };
    const detail = `${model} ${version} has no class called “${chosenClass.class_name}”`;
    throw new Refusal({ type: "invalid-input", title: "These models have other classes", detail, errors: [{ field: "class_id", message: detail }] });
  }
}

const sides = { A: new Side("A"), B: new Side("B") };

function showSides() {
  const comparing = $("compare").checked;
  sides.A.legend.textContent = comparing ? "A" : "Settings";
  sides.A.legend.classList.toggle("sr", !comparing);
  sides.B.legend.textContent = "B";
  sides.B.element.hidden = !comparing;
}

/** Compare with what A was made from, if that is served; else B starts as A is. */
async function startComparing() {
  const { name, version, lineage } = sides.A.detail;
  const [parentName, parentVersion] = lineage.parent?.split("/") ?? [];
  const parent = models.find((each) => each.name === parentName && each.version === Number(parentVersion));
  const other = parent ?? models.find((each) => each.name === name && each.version !== version);
  await sides.B.choose(other?.name ?? name, other?.version ?? version, sides.A.settings());
}

// --- The class, by name or number ---

let chosen = null; // {class_id, class_name}, or null for an unconditional model
let matches = [];
let active = -1;

/** How alike two texts are, 0 to 1: twice their longest common subsequence over their lengths. */
function likeness(one, other) {
  let row = Array(other.length + 1).fill(0);
  for (const letter of one) {
    const above = row;
    row = [0];
    for (let i = 0; i < other.length; i += 1) row.push(letter === other[i] ? above[i] + 1 : Math.max(row[i], above[i + 1]));
  }
  return (2 * row.at(-1)) / (one.length + other.length);
}

function rank({ class_id: id, class_name: name }, query) {
  const lowered = name.toLowerCase();
  if (lowered === query || String(id) === query) return 5;
  if (lowered.startsWith(query)) return 4;
  if (lowered.includes(` ${query}`)) return 3;
  if (lowered.includes(query) || String(id).startsWith(query)) return 2;
  const like = Math.max(...lowered.split(" ").map((word) => likeness(word, query)), likeness(lowered, query));
  return like >= 0.6 ? like : 0;
}

function search(classes, text) {
  const query = text.trim().toLowerCase();
  if (!query) return classes;
  const ranked = classes.map((each) => [rank(each, query), each]).filter(([value]) => value > 0);
  return ranked.sort((one, other) => other[0] - one[0]).map(([, each]) => each);
}

function chooseClass(each) {
  chosen = each ?? null;
  $("class").value = each?.class_name ?? "";
  closeMatches();
}

/** Show A's classes; keep the chosen one if it is there, what is typed, and what is selected. */
function offerClasses() {
  const { classes } = sides.A;
  const field = $("class");
  const typed = field.value !== (chosen?.class_name ?? "");
  const open = !$("matches").hidden;
  document.querySelector(".class-field").hidden = !classes.length;
  const same = sameClass(classes, chosen) ?? classes[0];
  if (typed) chosen = same;
  else chooseClass(same);
  if (!typed && document.activeElement === field) field.select();
  if (open) openMatches(typed ? field.value : "");
  else settleClass();
}

function openMatches(query = "") {
  matches = search(sides.A.classes, query);
  active = query && matches.length ? 0 : matches.findIndex((each) => each.class_id === chosen?.class_id);
  const options = matches.map((each, index) =>
    h("li", { role: "option", id: `match-${index}`, onpointerdown: (event) => { event.preventDefault(); chooseClass(each); } },
      each.class_name, h("span", { class: "number" }, each.class_id)),
  );
  const none = h("li", { class: "none", role: "option", "aria-disabled": "true" }, `No class is called “${query}”`);
  $("matches").replaceChildren(...(options.length ? options : [none]));
  $("matches").hidden = false;
  $("class").setAttribute("aria-expanded", "true");
  showActive();
}

function closeMatches() {
  $("matches").hidden = true;
  $("class").setAttribute("aria-expanded", "false");
  $("class").removeAttribute("aria-activedescendant");
}

function showActive() {
  [...$("matches").children].forEach((option, index) => option.setAttribute("aria-selected", String(index === active)));
  if (active < 0) return $("class").removeAttribute("aria-activedescendant");
  $("class").setAttribute("aria-activedescendant", `match-${active}`);
  $("matches").children[active].scrollIntoView({ block: "nearest" });
}

/** Take what was typed if it says enough, else the class chosen before; later, if other classes are to come. */
function settleClass() {
  if (sides.A.choosing) return closeMatches();
  const query = $("class").value.trim().toLowerCase();
  if (query === chosen?.class_name.toLowerCase()) return closeMatches();
  const [best] = search(sides.A.classes, query);
  chooseClass(query && best && rank(best, query) >= 2 ? best : chosen);
}

$("class").addEventListener("focus", () => $("class").select());
$("class").addEventListener("click", () => openMatches());
$("class").addEventListener("input", () => openMatches($("class").value));
$("class").addEventListener("blur", settleClass);
$("class").addEventListener("keydown", (event) => {
  const open = !$("matches").hidden;
  const move = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (move) {
    if (!open) openMatches();
    else if (matches.length) active = (active + move + matches.length) % matches.length;
    showActive();
  } else if (event.key === "Enter" && open) {
    if (sides.A.choosing) closeMatches();
    else if (matches[active]) chooseClass(matches[active]);
  } else if (event.key === "Escape" && open) {
    chooseClass(chosen);
  } else return;
  event.preventDefault();
});

// --- The contact sheet: a quick image of each class that comes into view ---

const thumbnails = new Map(); // "model/version/class" to the URL of an image
let sheetClosed = new AbortController();

function openSheet() {
  const { name, version } = sides.A.detail;
  sheetClosed = new AbortController();
  const { signal } = sheetClosed;
  const wanted = new Set();
  let drawing = 0;
  const draw = async () => {
    const [cell] = wanted;
    if (!cell || drawing >= SHEET.requests || signal.aborted) return;
    wanted.delete(cell);
    drawing += 1;
    await drawCell(cell, signal).catch(async (error) => (await blame(error, signal)) && wanted.add(cell));
    drawing -= 1;
    draw();
  };
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      wanted[isIntersecting ? "add" : "delete"](target);
      draw();
    }
  }, { root: $("cells"), rootMargin: "100px" });
  $("sheet-title").textContent = `Classes of ${name} ${version}`;
  $("sheet-filter").value = "";
  $("cells").replaceChildren(
    ...sides.A.classes.map((each) => {
      const cell = h("button", { type: "button", class: "cell", tabindex: "-1", "data-class": each.class_id,
        onclick: () => { chooseClass(each); $("sheet").close(); } },
        h("div", { class: "well" }, h("img", { alt: "" })), h("span", {}, each.class_name));
      observer.observe(cell);
      return cell;
    }),
  );
  filterSheet();
  $("sheet").showModal();
  const current = $("cells").querySelector(`[data-class="${chosen?.class_id}"]`);
  current?.setAttribute("aria-current", "true");
  current?.scrollIntoView({ block: "center" });
  signal.addEventListener("abort", () => observer.disconnect());
}

async function drawCell(cell, signal) {
  const { name: model, version, solvers } = sides.A.detail;
  const key = `${model}/${version}/${cell.dataset.class}`;
  if (!thumbnails.has(key)) {
    const quick = solvers.includes(SHEET.solver) ? { steps: SHEET.steps, solver: SHEET.solver } : {};
    const body = { model, version, class_id: Number(cell.dataset.class), seed: 0, priority: "batch", ...quick };
    const answer = await post(body, { signal, headers: { Accept: "image/png" } });
    thumbnails.set(key, URL.createObjectURL(await answer.blob()));
  }
  showImage(cell.querySelector("img"), thumbnails.get(key));
  $("sheet-status").textContent = "";
}

/** Say why an image is missing; wait and return true if it may come later, else end. */
async function blame(error, signal) {
  if (signal.aborted) return false;
  const again = error.retryAfter > 0;
  $("sheet-status").textContent = `${error.message}.${again ? " Goes on by itself." : " The names still work."}`;
  if (again) await pause(1000 * error.retryAfter);
  else sheetClosed.abort();
  return again;
}

const visibleCells = () => [...$("cells").children].filter((cell) => !cell.hidden);

function filterSheet() {
  const shown = new Set(search(sides.A.classes, $("sheet-filter").value).map((each) => String(each.class_id)));
  for (const cell of $("cells").children) {
    cell.hidden = !shown.has(cell.dataset.class);
    cell.tabIndex = -1;
  }
  const entry = $("cells").querySelector("[aria-current]:not([hidden])") ?? visibleCells()[0];
  if (entry) entry.tabIndex = 0;
}

$("browse").addEventListener("click", openSheet);
$("sheet-close").addEventListener("click", () => $("sheet").close());
$("sheet").addEventListener("close", () => { sheetClosed.abort(); $("class").focus(); closeMatches(); });
$("sheet-filter").addEventListener("input", filterSheet);
$("cells").addEventListener("keydown", (event) => {
  const cells = visibleCells();
  const columns = cells.filter((cell) => cell.offsetTop === cells[0].offsetTop).length;
  const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
  const target = move && cells[cells.indexOf(document.activeElement) + move];
  if (!move) return;
  event.preventDefault();
  if (!target) return;
  document.activeElement.tabIndex = -1;
  target.tabIndex = 0;
  target.focus();
});

// --- Seed ---

const locked = () => $("lock").getAttribute("aria-pressed") === "true";

function lock(wanted) {
  $("lock").setAttribute("aria-pressed", String(wanted));
  $("lock").title = wanted ? "This seed is kept; press to draw a new one each time" : "Keep this seed";
}

const drawSeed = () => { $("seed").value = crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000; };

$("seed").addEventListener("input", () => lock(true));
$("lock").addEventListener("click", () => lock(!locked()));
$("shuffle").addEventListener("click", drawSeed);

// --- Making images ---

/** Settings in words, without what is off. */
function summary({ cfg, var_raw_cfg: raw, steps, solver, temperature, top_k: topK, top_p: topP }) {
  const words = [
    cfg != null && `guidance ${cfg}`, raw != null && `raw guidance ${raw}`, steps && `${count(steps, "step")}`, solver,
    temperature != null && `temperature ${temperature}`, topK && `top-k ${topK}`, topP && `top-p ${topP}`,
  ];
  return words.filter(Boolean).join(" · ");
}

function forecast({ position, end_ms: end }) {
  const words = position ? `waits behind ${count(position, "image")}` : "is being made";
  return end == null ? words : `${words}, about ${Math.ceil(end / 1000)} s`;
}

function showImage(image, url) {
  image.onload = () => image.classList.toggle("pixelated", image.naturalWidth <= PIXELATED_UP_TO);
  image.src = url;
}

function fileUrl({ image }, format) {
  const bytes = Uint8Array.from(atob(image), (letter) => letter.charCodeAt(0));
  return URL.createObjectURL(new Blob([bytes], { type: `image/${format}` }));
}

/** One side of a run: its panel on the stage, filled by the events of one request. */
class Panel {
  constructor(side, request, className) {
    const { name, version, lineage } = side.detail;
    Object.assign(this, { side, request, className, model: name, version, parameters: request, images: [], timings: null });
    this.lineage = lineageWords(lineage);
    this.tiles = [];
  }

  /** Make room for the images, once the server has accepted them. */
  build() {
    const { side, request, model, version, lineage } = this;
    this.tiles = Array.from({ length: request.n }, (_, index) => this.tile(request.seed + index));
    const list = h("ul", { class: "tiles" }, ...this.tiles.map((tile) => tile.element));
    list.style.setProperty("--columns", Math.ceil(Math.sqrt(request.n)));
    this.facts = h("p", {}, summary(request));
    this.element = h("section", { class: "panel", "aria-label": `${model} ${version}, ${lineage}` },
      h("header", {}, h("h3", {}, h("span", { class: "letter" }, side.name), ` ${model} ${version} `, h("small", {}, lineage)), this.facts), list);
    return this.element;
  }

  tile(seed) {
    const image = h("img", { alt: "" });
    const progress = h("progress", { "aria-hidden": "true" });
    const button = h("button", { type: "button", class: "tile", disabled: true, "aria-label": `Seed ${seed}, not there yet` }, image, progress);
    return { image, progress, button, element: h("li", {}, button, h("span", { class: "seed" }, seed)) };
  }

  /** Ask for the images and show them as they come. */
  async fill(signal, accepted, heard) {
    const response = await post({ ...this.request, stream: true, preview: { size: 256 } }, { signal });
    accepted();
    let ended = false;
    for await (const [name, data] of events(response)) {
      if (name === "queued") heard(this, forecast(data));
      if (name === "preview") this.preview(data, heard);
      if (name === "image") this.finish(data);
      if (name === "error") throw new Refusal(data);
      if (name !== "done") continue;
      ended = true;
      Object.assign(this, { model: data.model, version: data.version, parameters: data.parameters, timings: data.timings });
      this.facts.textContent = `${summary(data.parameters)} · ${seconds(data.timings.total_ms)}`;
    }
    if (!ended) throw new Refusal(BROKEN_OFF);
  }

  preview({ index, call: made, calls, image, format }, heard) {
    const tile = this.tiles[index];
    if (!tile.button.disabled) return;
    tile.progress.max = calls;
    tile.progress.value = made;
    showImage(tile.image, `data:image/${format};base64,${image}`);
    heard(this, "is being made");
  }

  finish(data) {
    const tile = this.tiles[data.index];
    const image = { seed: data.seed, url: fileUrl(data, "png"), width: data.width, height: data.height };
    this.images[data.index] = image;
    showImage(tile.image, image.url);
    tile.image.alt = `${this.className}, seed ${data.seed}`;
    tile.progress.hidden = true;
    tile.button.disabled = false;
    tile.button.setAttribute("aria-label", `Open ${this.className}, seed ${data.seed}, ${this.model} ${this.version}`);
    tile.button.addEventListener("click", () => openViewer(this.run, image));
  }
}

let running = new AbortController();

async function generate() {
  running.abort();
  clearProblems();
  await Promise.allSettled(Object.values(sides).map((side) => side.choosing));
  settleClass();
  const { signal } = (running = new AbortController());
  let panels;
  try {
    panels = prepare();
  } catch (error) {
    if (error instanceof Refusal) markFields(error, sides.B);
    return showProblem(error, generate);
  }
  const run = { panels, className: panels[0].className };
  panels.forEach((panel) => { panel.run = run; });
  $("stop").hidden = false;
  $("status").textContent = `${run.className}: asking the server`;
  const accepted = () => {
    if (panels[0].element) return;
    const elements = panels.map((panel) => panel.build());
    if (signal.aborted) return;
    $("panels").replaceChildren(...elements);
    if (innerWidth < 800) $("stage").scrollIntoView();
  };
  const states = new Map();
  const heard = (panel, words) => {
    if (states.get(panel)?.startsWith("is ")) return;
    states.set(panel, words);
    $("status").textContent = `${run.className} ${[...new Set(states.values())].join("; ")}`;
  };
  const ends = await Promise.allSettled(panels.map((panel) => panel.fill(signal, accepted, heard)));
  keep(run);
  if (running.signal !== signal) return;
  panels.forEach((panel) => panel.element?.classList.add("ended"));
  $("stop").hidden = true;
  $("status").textContent = outcome(panels, signal.aborted);
  for (const [index, { reason }] of ends.entries()) {
    if (!reason || reason.name === "AbortError") continue;
    if (reason instanceof Refusal) markFields(reason, panels[index].side);
    showProblem(reason, generate);
  }
}

function prepare() {
  if (!locked() || $("seed").value === "") drawSeed();
  const n = $("n").value === "" ? 1 : Number($("n").value);
  const shared = { seed: Number($("seed").value), n };
  const used = $("compare").checked ? [sides.A, sides.B] : [sides.A];
  return used.map((side) => new Panel(side, { ...side.request(chosen), ...shared }, chosen?.class_name ?? side.detail.name));
}

function outcome(panels, stopped) {
  const made = panels.flatMap((panel) => panel.images).filter(Boolean).length;
  const took = Math.max(...panels.map((panel) => panel.timings?.total_ms ?? 0));
  if (stopped) return `Stopped; ${count(made, "image")} finished`;
  return made ? `${count(made, "image")} of ${panels[0].className}${took ? ` in ${seconds(took)}` : ""}` : "";
}

$("form").addEventListener("submit", (event) => { event.preventDefault(); guarded(generate); });
$("stop").addEventListener("click", () => { running.abort(); $("go").focus(); });
$("compare").addEventListener("change", () => guarded(async () => {
  if ($("compare").checked) await startComparing();
  showSides();
}));

// --- Gallery ---

const runs = [];

function keep(run) {
  const images = run.panels.flatMap((panel) => panel.images.filter(Boolean).map((image) => ({ panel, image })));
  if (!images.length) return;
  const thumbs = images.map(({ panel, image }) => {
    const thumb = h("img", { alt: "" });
    showImage(thumb, image.url);
    const label = `${run.className}, seed ${image.seed}, ${panel.model} ${panel.version}`;
    return h("button", { type: "button", class: "thumb", "aria-label": label, onclick: () => openViewer(run, image) }, thumb);
  });
  const words = run.panels.map((panel) =>
    h("p", {}, h("b", {}, `${panel.model} ${panel.version}`), h("br"), summary(panel.parameters)));
  run.element = h("li", { class: "run" },
    h("div", { class: "words" }, h("h3", {}, run.className, h("small", {}, ` seed ${run.panels[0].request.seed}`)), ...words),
    h("div", { class: "thumbs" }, ...thumbs));
  runs.unshift(run);
  $("runs").prepend(run.element);
  $("gallery").hidden = false;
  runs.splice(MAX_RUNS).forEach((old) => {
    old.element.remove();
    old.panels.flatMap((panel) => panel.images).forEach((image) => image && URL.revokeObjectURL(image.url));
  });
}

// --- Viewer: one image, how it was made, how to make it again ---

let viewed = null; // {run, shots, place}

/** Images with their panels; in a comparison, two of one seed in a row. */
function shotsOf(run) {
  const shots = run.panels.flatMap((panel) => panel.images.filter(Boolean).map((image) => ({ panel, image })));
  return shots.sort((one, other) => one.image.seed - other.image.seed);
}

function openViewer(run, image) {
  const shots = shotsOf(run);
  viewed = { run, shots, place: shots.findIndex((shot) => shot.image === image) };
  showShot();
  if (!$("viewer").open) $("viewer").showModal();
}

function showShot() {
  const { run, shots, place } = viewed;
  const { panel, image } = shots[place];
  const facts = {
    Model: `${panel.model} ${panel.version} (${panel.lineage})`,
    Class: panel.parameters.class_id == null ? null : `${run.className} (${panel.parameters.class_id})`,
    Seed: image.seed,
    Guidance: panel.parameters.cfg, Steps: panel.parameters.steps, Solver: panel.parameters.solver,
    Temperature: panel.parameters.temperature, "Top-k": panel.parameters.top_k, "Top-p": panel.parameters.top_p,
    Size: `${image.width} × ${image.height}`,
    Took: panel.timings && `${seconds(panel.timings.total_ms)} with ${count(panel.request.n, "image")}, ${seconds(panel.timings.queue_ms)} of it waiting`,
  };
  showImage($("viewer-image"), image.url);
  $("viewer-image").alt = `${run.className}, seed ${image.seed}`;
  $("viewer-title").textContent = run.className;
  $("viewer-facts").replaceChildren(
    ...Object.entries(present(facts)).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
  $("viewer-place").textContent = `${run.panels[1] ? `${panel.side.name} · ` : ""}${place + 1} of ${shots.length}`;
  $("previous").disabled = $("next").disabled = shots.length < 2;
  $("download").href = image.url;
  $("download").download = fileName(viewed);
  $("snippet").hidden = true;
  $("viewer-status").textContent = "";
}

function turn(by) {
  viewed.place = (viewed.place + by + viewed.shots.length) % viewed.shots.length;
  showShot();
}

/** The request that gives exactly this image again. */
function requestOf({ shots, place }) {
  const { panel, image } = shots[place];
  const { class_name: _, n: __, ...parameters } = panel.parameters;
  return present({ ...parameters, model: panel.model, version: panel.version, seed: image.seed });
}

function fileName({ run, shots, place }) {
  const { panel, image } = shots[place];
  const name = run.className.toLowerCase().replace(/[^a-z0-9]+/g, "-").replace(/^-|-$/g, "");
  return `${name || "image"}-${panel.model}-${panel.version}-${image.seed}.png`;
}

const generateUrl = () => new URL("generate", document.baseURI).href;
const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curlOf(shot) {
  return [
    `curl -X POST ${quoted(generateUrl())}`,
    "-H 'Content-Type: application/json' -H 'Accept: image/png'",
    ...(apiKey ? ['-H "X-API-Key: $DDO_API_KEY"'] : []),
    `-d ${quoted(JSON.stringify(requestOf(shot)))}`,
    `-o ${fileName(shot)}`,
  ].join(" \\\n  ");
}

function pythonOf(shot) {
  const headers = ['"Content-Type": "application/json"', '"Accept": "image/png"'];
  if (apiKey) headers.push('"X-API-Key": os.environ["DDO_API_KEY"]');
  const fields = Object.entries(requestOf(shot)).map(([name, value]) => `    "${name}": ${JSON.stringify(value)},`);
  return [
    "import json", ...(apiKey ? ["import os"] : []), "import urllib.request", "",
    "wanted = {", ...fields, "}",
    "request = urllib.request.Request(",
    `    ${JSON.stringify(generateUrl())},`,
    "    data=json.dumps(wanted).encode(),",
    `    headers={${headers.join(", ")}},`,
    ")",
    `with urllib.request.urlopen(request) as answer, open(${JSON.stringify(fileName(shot))}, "wb") as file:`,
    "    file.write(answer.read())", "",
  ].join("\n");
}

async function copy(text) {
  $("snippet").textContent = text;
  $("snippet").hidden = false;
  try {
    await navigator.clipboard.writeText(text);
    $("viewer-status").textContent = "Copied";
  } catch {
    getSelection().selectAllChildren($("snippet"));
    $("viewer-status").textContent = "This browser does not let pages copy: press Ctrl+C";
  }
}

async function reuse() {
  const { panel, image } = viewed.shots[viewed.place];
  const { parameters } = panel;
  $("viewer").close();
  await sides.A.choose(panel.model, panel.version, parameters);
  if (parameters.class_id != null) chooseClass(sides.A.classes[parameters.class_id]);
  $("seed").value = image.seed;
  lock(true);
  $("go").focus();
}

$("viewer-close").addEventListener("click", () => $("viewer").close());
$("previous").addEventListener("click", () => turn(-1));
$("next").addEventListener("click", () => turn(1));
$("copy-curl").addEventListener("click", () => copy(curlOf(viewed)));
$("copy-python").addEventListener("click", () => copy(pythonOf(viewed)));
$("reuse").addEventListener("click", () => guarded(reuse));
$("viewer").addEventListener("keydown", (event) => {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by && event.target !== $("snippet")) turn(by);
});
for (const dialog of [$("viewer"), $("sheet")]) {
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}

// --- The server's load ---

const samples = [];
let watching = 0; // a number for the watch that goes on; others end

/** Look once, and again after the answer, while somebody can see it. */
async function watchLoad(watch) {
  if (watch !== watching) return;
  if (document.hidden) return document.addEventListener("visibilitychange", () => watchLoad(watch), { once: true });
  let wait = LOAD_INTERVAL_MS;
  try {
    const now = await (await call("load")).json();
    samples.push({ ...now, at: performance.now() });
    while (samples.at(-1).at - samples[0].at > LOAD_WINDOW_MS || now.requests < samples[0].requests) samples.shift();
    showLoad(now);
  } catch (error) {
    if (error.slug === "unauthenticated") return;
    $("load-text").textContent = "not reachable";
    $("load-dot").dataset.state = "gone";
    wait *= 4;
  }
  setTimeout(watchLoad, wait, watch);
}

function showLoad(now) {
  const [first, before] = [samples[0], samples.at(-2) ?? now];
  const elapsed = (samples.at(-1).at - (before.at ?? 0)) / 1000;
  const busy = samples.length > 1 ? Math.min(1, (now.engine_seconds - before.engine_seconds) / elapsed) : 0;
  const requests = now.requests - first.requests;
  const latency = requests && (1000 * (now.request_seconds - first.request_seconds)) / requests;
  const words = [
    busy >= 0.005 ? `${Math.round(100 * busy)} % busy` : !now.active_images && "idle",
    now.active_images && `${now.active_images} in work`,
    now.waiting_images && `${now.waiting_images} waiting`,
    latency && `${seconds(latency)} a request`,
  ];
  $("load-text").textContent = words.filter(Boolean).join(" · ");
  $("load-dot").dataset.state = now.waiting_images ? "queueing" : busy > 0.02 || now.active_images ? "busy" : "idle";
}

// --- Start ---

/** Do something that needs the server; what goes wrong is told on the page. */
async function guarded(work) {
  try {
    await work();
  } catch (error) {
    showProblem(error, () => { clearProblems(); guarded(work); });
  }
}

async function refreshModels() {
  answers.clear();
  ({ models } = await (await call("models")).json());
  for (const side of Object.values(sides)) {
    const { model, version } = side.fields;
    const current = models.find((each) => each.name === model.value) ?? models.find((each) => each.default);
    if (side === sides.A || side.detail) await side.choose(current.name, Number(version.value));
  }
}

async function start() {
  await refreshModels();
  $("n").max = sides.A.detail.limits.n;
  $("form").inert = false;
  showSides();
  watchLoad(++watching);
}

$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  apiKey = $("key").value.trim();
  $("key-dialog").close();
  guarded(start);
});

$("sides").append(sides.A.element, sides.B.element);
drawSeed();
showSides();
guarded(start);
