// The page's side of the playground: controls, two portraits, and the files that are loaded on a click.
//
// Every file is a script that calls `spfPlayground.receive(name, base64 of gzip)`: a page that is opened as a file can
// load scripts, but cannot fetch.

"use strict";

globalThis.spfPlayground = (() => {
  const folder = new URL(".", document.currentScript.src).href;
  const received = new Map();
  const root = document.getElementById("spf-playground");

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  // Files ---------------------------------------------------------------------------------------------------------

  function bytes(base64) {
    const text = atob(base64);
    const result = new Uint8Array(text.length);
    for (let at = 0; at < text.length; at++) result[at] = text.charCodeAt(at);
    return result;
  }

  function receive(name, base64) {
    received.set(name, bytes(base64));
  }

  /** Load one script; the files that it brings are then in `received`. */
  function loadScript(name) {
    return new Promise((resolve, reject) => {
      const script = make("script", { src: folder + name });
      script.onload = () => { script.remove(); resolve(); };
      script.onerror = () => reject(new Error(`The file ${name} could not be loaded.`));
      document.head.append(script);
    });
  }

  function take(name) {
    const file = received.get(name);
    received.delete(name);
    return file;
  }

  async function text(name) {
    const stream = new Blob([take(name)]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  // Texts: the same as spf_lite.tiny_world.portraits.describe and complete ------------------------------------------

  function phrases(person, target) {
    const words = (...names) => names.filter((name) => name !== target.color).map((name) => person[name]);
    const found = new Map([["person", "a person"]]);
    found.set("hair_style", [...words("hair_color", "hair_style"), "hair"].join(" "));
    found.set("skin", `${person.skin} skin`);
    found.set("expression", person.expression);
    found.set("clothes", words("clothes_color", "clothes").join(" "));
    found.set("background", `${person.background} background`);
    if (person.glasses === "yes") found.set("glasses", "glasses");
    return found;
  }

  /** The base text of a person; with `asked`, the complete text. */
  function describe(person, target, asked) {
    const found = phrases(person, target);
    if (asked && target.kind === "replacement") found.set(target.replaces, target.text);
    else if (asked) found.set("target", target.text);
    return [...found.values()].join(", ");
  }

  // The worker ----------------------------------------------------------------------------------------------------

  let worker = null;
  const waiting = new Map();
  let requests = 0;
  let tickets = 0;

  /** The worker's answer to a message. Several may be on their way: each has a ticket. */
  function ask(message, transfer = []) {
    return new Promise((resolve, reject) => {
      waiting.set(++tickets, { resolve, reject });
      worker.postMessage({ ...message, ticket: tickets }, transfer);
    });
  }

  function heard({ data }) {
    if (data.type === "step" && data.id === requests) return showStep(data);
    if (data.type === "done" && data.id === requests) return showDone(data);
    if (data.type === "error" && data.request === "paint") return data.id === requests ? fail(data.message) : null;
    const one = waiting.get(data.ticket);
    waiting.delete(data.ticket);
    if (data.type === "error") one?.reject(new Error(data.message));
    else one?.resolve(data);
    return null;
  }

  /** Load runtime and model and start the worker; returns the milliseconds that each part took. */
  async function start() {
    const began = performance.now();
    await Promise.all(["runtime.js", "model.js"].map(loadScript));
    const loaded = performance.now();
    const code = [await text("ort.js"), await text("engine.js")];
    worker = new Worker(URL.createObjectURL(new Blob(code, { type: "text/javascript" })));
    worker.onmessage = heard;
    worker.onerror = (event) => {
      for (const one of waiting.values()) one.reject(new Error(event.message));
      waiting.clear();
    };
    const files = Object.fromEntries([...received.keys()].map((name) => [name, take(name)]));
    const parts = await ask({ type: "start", files }, Object.values(files).map((file) => file.buffer));
    return { loaded: loaded - began, ...parts, all: performance.now() - began };
  }

  const sent = new Map();

  /** Send an adapter to the worker, once. */
  function sendAdapter(name) {
    if (!sent.has(name)) {
      sent.set(name, (async () => {
        await loadScript(`adapter-${name}.js`);
        const file = take(`${name}.safetensors`);
        await ask({ type: "adapter", name, file }, [file.buffer]);
      })().catch((error) => { sent.delete(name); throw error; }));
    }
    return sent.get(name);
  }

  // Controls ------------------------------------------------------------------------------------------------------

  let catalogue = null;
  const controls = {};
  const views = {};
  let state = {};
  let painting = null; // what was asked of the worker last
  let result = null;

  const DEFAULTS = {
    hair_style: "short", hair_color: "brown", skin: "tan", expression: "smiling", clothes: "hoodie",
    clothes_color: "blue", background: "gray", glasses: "no",
    target: "sunglasses", asked: "yes", text: "", seed: "0", steps: "12", guidance: "1.5", method: "pure-pairs",
    strength: "1", word: "", opacity: "0",
  };
  const STEPS = ["6", "12", "25", "50"];
  /** What numbers may be: their sliders' ends, and what a link may say. */
  const LIMITS = {
    seed: { min: 0, max: 4294967295 }, guidance: { min: 1, max: 5 }, strength: { min: 0, max: 1.5 }, opacity: { min: 0, max: 1 },
  };
  const PLAIN = (name) => name.replace("_", " ");

  function labelled(name, label, control, ...more) {
    const id = `spf-pg-${name}`;
    control.id = id;
    controls[name] = control;
    return make("div", { class: "spf-field" }, make("label", { for: id }, label), control, ...more);
  }

  function select(name, label, values, title = (value) => value) {
    const control = make("select");
    for (const value of values) control.append(new Option(title(value), value));
    return labelled(name, label, control);
  }

  function slider(name, label, limits, spoken) {
    const control = make("input", { type: "range", ...limits });
    const output = make("output", { for: `spf-pg-${name}` });
    control.show = () => {
      output.textContent = Number(control.value).toFixed(limits.step < 0.1 ? 2 : 1);
      control.setAttribute("aria-valuetext", `${output.textContent} ${spoken}`);
    };
    return labelled(name, label, control, output);
  }

  function group(title, ...children) {
    return make("fieldset", { class: "spf-group" }, make("legend", {}, title), ...children);
  }

  function portraitView(name, title) {
    const canvas = make("canvas", { width: 128, height: 128, role: "img", "aria-label": `${title}: not painted yet` });
    const overlay = make("canvas", { width: 16, height: 16, class: "spf-overlay", role: "img", "aria-label": "Attention map" });
    overlay.hidden = true;
    const caption = make("figcaption", {}, title);
    views[name] = { canvas, overlay, caption, title };
    return make("figure", { class: "spf-portrait" }, make("div", { class: "spf-canvases" }, canvas, overlay), caption);
  }

  function methodsOf(target) {
    return catalogue.adapters.filter((adapter) => adapter.target === target);
  }

  function build() {
    const attributes = Object.entries(catalogue.attributes);
    const targets = Object.keys(catalogue.targets);
    const button = make("button", { type: "submit", class: "spf-paint" }, "Paint");
    const random = make("button", { type: "button" }, "Another person");
    const share = make("button", { type: "button" }, "Copy a link to this");
    views.recipe = make("p", { class: "spf-recipe", id: "spf-pg-recipe" });
    const form = make("form", { class: "spf-controls-grid", "aria-label": "What to paint" },
      group("Target",
        select("target", "target", targets),
        select("asked", "text", ["yes", "no"], (value) => (value === "yes" ? "complete" : "base")),
        select("method", "fine-tuned with", ["none"]),
        views.recipe,
        slider("strength", "strength of the adapter", { ...LIMITS.strength, step: 0.05 }, "times the adapter")),
      group("Person", ...attributes.map(([name, values]) => select(name, PLAIN(name), values)), random),
      group("Sampling",
        labelled("seed", "seed", make("input", { type: "number", ...LIMITS.seed, step: 1, required: "" })),
        select("steps", "steps", STEPS),
        slider("guidance", "guidance scale", { ...LIMITS.guidance, step: 0.1 }, ""),
        select("word", "attention to", [""]),
        slider("opacity", "opacity of the map", { ...LIMITS.opacity, step: 0.05 }, "opaque")),
      make("div", { class: "spf-text" },
        labelled("text", "Text", make("input", { type: "text", spellcheck: "false", autocomplete: "off" }))),
      make("div", { class: "spf-buttons" }, button, share));
    views.status = make("p", { class: "spf-status", role: "status" });
    views.difference = make("p", { class: "spf-difference" });
    root.replaceChildren(
      make("div", { class: "spf-portraits" }, portraitView("base", "Base model"), portraitView("tuned", "Fine-tuned")),
      views.status, views.difference, form);

    controls.method.setAttribute("aria-describedby", views.recipe.id);
    form.addEventListener("submit", (event) => { event.preventDefault(); changed(); });
    for (const name of [...Object.keys(catalogue.attributes), "target", "asked", "method", "steps"]) {
      controls[name].addEventListener("change", () => {
        if (name !== "method" && name !== "steps") state.text = "";
        collect(name);
        changed();
      });
    }
    for (const name of ["strength", "guidance"]) {
      controls[name].addEventListener("input", () => collect(name));
      controls[name].addEventListener("change", changed);
    }
    controls.seed.addEventListener("change", () => { collect("seed"); changed(); });
    controls.text.addEventListener("input", () => { state.text = controls.text.value; });
    controls.text.addEventListener("change", changed);
    for (const name of ["word", "opacity"]) {
      controls[name].addEventListener("input", () => {
        state[name] = controls[name].value;
        if (name === "word" && state.word && Number(state.opacity) === 0) state.opacity = "0.75";
        controls.opacity.value = state.opacity;
        controls.opacity.show();
        showMaps();
        remember();
      });
    }
    random.addEventListener("click", () => {
      for (const [name, values] of attributes) state[name] = values[Math.floor(Math.random() * values.length)];
      state.text = "";
      fillIn();
      changed();
    });
    share.addEventListener("click", async () => {
      remember();
      try {
        await navigator.clipboard.writeText(location.href);
        share.textContent = "Copied";
      } catch {
        share.textContent = "It is in the address bar";
      }
      setTimeout(() => { share.textContent = "Copy a link to this"; }, 2000);
    });
  }

  function collect(name) {
    state[name] = controls[name].value;
    if (name === "target") state.method = pick(methodsOf(state.target), state.method);
    fillIn();
  }

  const pick = (adapters, wanted) =>
    ["none", ...adapters.map((adapter) => adapter.method)].includes(wanted) ? wanted : adapters.at(-1)?.method ?? "none";

  /** The controls show the state. */
  function fillIn() {
    const adapters = methodsOf(state.target);
    controls.method.replaceChildren(new Option("nothing", "none"),
      ...adapters.map((adapter) => new Option(`${adapter.title}`, adapter.method)));
    views.recipe.textContent = spfWords.recipe(catalogue.methods, adapters, state.method);
    views.recipe.hidden = !views.recipe.textContent;
    for (const [name, control] of Object.entries(controls)) {
      if (name === "text") control.value = state.text || written();
      else if (name !== "word") control.value = state[name];
      control.show?.();
    }
  }

  const written = () => describe(state, catalogue.targets[state.target], state.asked === "yes");

  // The state in the address --------------------------------------------------------------------------------------

  function recall() {
    const given = new URLSearchParams(location.hash.slice(1));
    state = { ...DEFAULTS };
    const targets = Object.keys(catalogue.targets);
    const known = { ...catalogue.attributes, target: targets, asked: ["yes", "no"], steps: STEPS };
    for (const [name, value] of given) {
      const number = Number(value);
      const limit = LIMITS[name];
      const within = limit && value !== "" && number >= limit.min && number <= limit.max;
      if (known[name]?.includes(value) || within || name === "text" || name === "method" || name === "word") {
        if (name !== "seed" || Number.isInteger(number)) state[name] = value;
      }
    }
    state.method = pick(methodsOf(state.target), state.method);
    fillIn();
  }

  function remember() {
    const given = Object.entries(state).filter(([name, value]) => value !== DEFAULTS[name]);
    const address = `#${new URLSearchParams(given)}`;
    try {
      history.replaceState(null, "", address);
    } catch {
      location.replace(address);
    }
  }

  // Painting ------------------------------------------------------------------------------------------------------

  async function changed() {
    if (!controls.seed.reportValidity()) return;
    state.seed = String(Number(controls.seed.value));
    if (state.text === written()) state.text = "";
    remember();
    const id = ++requests;
    const adapter = methodsOf(state.target).find((one) => one.method === state.method);
    // The controls may move on while the worker paints.
    painting = {
      text: state.text || written(), seed: state.seed, steps: Number(state.steps),
      titles: { base: "Base model", tuned: `Fine-tuned (${adapter?.title})` },
    };
    views.status.textContent = "Painting …";
    try {
      if (adapter) await sendAdapter(adapter.name);
      if (id !== requests) return;
      worker.postMessage({
        type: "paint", id, text: painting.text, seed: Number(painting.seed), steps: painting.steps,
        guidance: Number(state.guidance), adapter: adapter?.name ?? null, strength: Number(state.strength),
      });
    } catch (error) {
      if (id === requests) fail(error.message);
    }
  }

  function fail(message) {
    views.status.textContent = message;
    root.classList.add("spf-failed");
    for (const view of [views.base, views.tuned]) {
      if (view.unfinished) label(view, spfWords.brokenOff(view.title, view.unfinished));
    }
  }

  /** Say what a canvas shows; `unfinished` is what is being painted on it. */
  function label(view, text, unfinished = null) {
    view.canvas.setAttribute("aria-label", text);
    view.unfinished = unfinished;
  }

  function entitle(view, title) {
    view.title = title;
    view.caption.textContent = title;
  }

  function put(name, { pixels, width, height }) {
    const { canvas } = views[name];
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    canvas.getContext("2d", { willReadFrequently: true }).putImageData(new ImageData(new Uint8ClampedArray(pixels), width, height), 0, 0);
  }

  function showSides(portraits) {
    const tuned = portraits.some(({ side }) => side === "tuned");
    views.tuned.canvas.closest("figure").hidden = !tuned;
    root.classList.remove("spf-failed");
    for (const portrait of portraits) put(portrait.side, portrait);
  }

  function showStep({ step, steps, portraits }) {
    showSides(portraits);
    for (const { overlay } of [views.base, views.tuned]) overlay.hidden = true;
    for (const { side } of portraits) {
      entitle(views[side], painting.titles[side]);
      label(views[side], spfWords.unfinished(views[side].title, painting, step), painting);
    }
    if (step === 1) views.status.textContent = `Painting in ${steps} steps …`;
    root.style.setProperty("--spf-progress", step / steps);
  }

  function showDone(data) {
    result = data;
    showSides(data.portraits);
    const seconds = (data.milliseconds / 1000).toFixed(1);
    const many = data.portraits.length > 1;
    views.status.textContent = `${many ? "Two portraits" : "One portrait"} in ${seconds} s.`;
    root.dataset.seconds = String(data.milliseconds / 1000);
    for (const { side } of data.portraits) {
      entitle(views[side], painting.titles[side]);
      label(views[side], spfWords.finished(views[side].title, side, painting, data.portraits));
    }
    views.difference.textContent = many
      ? `The two portraits differ by ${difference(data.portraits).toFixed(2)} of 255 on average.` : "";
    const before = state.word;
    const options = data.words.map(({ word }, at) => new Option(word, `${at} ${word}`));
    controls.word.replaceChildren(new Option("no word", ""), ...options.filter(({ text }) => /[\p{L}\p{N}]/u.test(text)));
    controls.word.value = [...controls.word.options].some(({ value }) => value === before) ? before : "";
    state.word = controls.word.value;
    showMaps();
    root.dispatchEvent(new CustomEvent("painted", { detail: data }));
  }

  function difference([one, other]) {
    let sum = 0;
    for (let at = 0; at < one.pixels.length; at++) sum += Math.abs(one.pixels[at] - other.pixels[at]);
    return sum / ((one.pixels.length * 3) / 4); // the fourth channel is the same everywhere
  }

  /** The map of the chosen word over both portraits, on one scale. */
  function showMaps() {
    const chosen = state.word ? result?.words[Number.parseInt(state.word, 10)] : null;
    const visible = Boolean(chosen) && Number(state.opacity) > 0;
    const maps = (result?.portraits ?? []).map(({ side, maps: all, mapSize: [, height, width] }) => {
      const map = new Float32Array(height * width);
      for (const token of chosen?.tokens ?? []) {
        for (let at = 0; at < map.length; at++) map[at] += all[token * map.length + at] / chosen.tokens.length;
      }
      return { side, map, height, width };
    });
    const values = maps.flatMap(({ map }) => [...map]);
    const [least, most] = [Math.min(...values), Math.max(...values)];
    for (const { side, map, height, width } of maps) {
      const { overlay } = views[side];
      overlay.hidden = !visible;
      if (!visible) continue;
      Object.assign(overlay, { width, height });
      const pixels = new Uint8ClampedArray(4 * map.length);
      map.forEach((value, at) => pixels.set([230, 85, 13, (255 * (value - least)) / (most - least)], 4 * at));
      overlay.getContext("2d", { willReadFrequently: true }).putImageData(new ImageData(pixels, width, height), 0, 0);
      overlay.style.opacity = state.opacity;
      overlay.setAttribute("aria-label", spfWords.map(chosen.word, views[side].title, map, [height, width]));
    }
  }

  // The click -----------------------------------------------------------------------------------------------------

  async function clicked(button, note) {
    button.disabled = true;
    note.textContent = "Loading the model …";
    try {
      const times = await start();
      root.dataset.start = JSON.stringify(times);
      build();
      recall();
      controls.text.focus({ preventScroll: true });
      await changed();
    } catch (error) {
      note.textContent = `The model could not be started: ${error.message}`;
      button.disabled = false;
    }
  }

  /** Called by catalogue.js, which is small: what can be chosen, and how much a click loads. */
  function offer(given) {
    catalogue = given;
    const button = make("button", { type: "button", class: "spf-paint" }, "Start the model");
    const note = make("p", { role: "status" }, `Nothing has been loaded yet. A click loads ${catalogue.megabytes} MB.`);
    button.addEventListener("click", () => clicked(button, note));
    root.replaceChildren(button, note);
  }

  return { receive, offer, describe, ask };  // tests ask as well
})();
