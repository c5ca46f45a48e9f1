// The view of AttentionExplorer: a portrait under the map of one word, and all words with small maps to choose from.
// All inputs are native, so that keyboard, touch and screen readers work as they do everywhere.
// elements.js stands before this text.

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"; // as in maps.py
const STEP = Object.fromEntries([...LETTERS].map((letter, step) => [letter.charCodeAt(0), step]));
const ORANGES = [[12, 18, 28], [213, 94, 0], [255, 240, 214]]; // for 0, 1/2 and 1; the same stops as in maps.py
const ALL_LAYERS = "all layers";
const MEAN = "mean";

/** One token's attention map, averaged over the layers and heads chosen. As AttentionExplorer.map in Python. */
export function attentionMap(item, { timestep, layer, head, token }) {
  const positions = item.size[0] * item.size[1];
  const heads = head === MEAN ? [...Array(item.heads).keys()] : [Number(head) - 1];
  const layers = layer === ALL_LAYERS ? [...item.layers.keys()] : [item.layers.indexOf(layer)];
  const average = new Float64Array(positions);
  for (const l of layers) {
    for (const h of heads) {
      const row = item.timesteps.indexOf(timestep) * item.layers.length + l;
      const number = (row * item.heads + h) * item.tokens.length + token;
      const factor = item.scales[number] / (LETTERS.length - 1) / layers.length / heads.length;
      for (let i = 0; i < positions; i++) average[i] += factor * STEP[item.maps.charCodeAt(number * positions + i)];
    }
  }
  return average;
}

function fill(select, values, chosen) {
  select.replaceChildren(...values.map((value) => new Option(value, value)));
  select.value = chosen;
}

const freshId = () => `spf-${Math.random().toString(36).slice(2)}`;

/** A labelled slider with its value beside the label. */
function range(label, limits) {
  const id = freshId();
  const field = input("input", { type: "range", id, ...limits });
  const value = make("output", { for: id });
  const row = make("div", { class: "spf-range" }, make("label", { for: id }, label), value, field);
  const show = (number, words) => {
    if (Number(field.value) !== number) field.value = number;
    field.setAttribute("aria-valuetext", words);
    value.textContent = words;
  };
  return { field, row, show };
}

/** A map in shares of its peak as a picture of its own size. */
function paint(canvas, values, peak, [height, width]) {
  canvas.width = width;
  canvas.height = height;
  const picture = new ImageData(width, height);
  values.forEach((value, i) => {
    const share = peak > 0 ? value / peak : 0;
    const [a, b] = share < 0.5 ? [ORANGES[0], ORANGES[1]] : [ORANGES[1], ORANGES[2]];
    const part = share < 0.5 ? 2 * share : 2 * share - 1;
    picture.data.set([...a.map((channel, c) => channel + part * (b[c] - channel)), 255], 4 * i);
  });
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

function percent(share) {
  return 100 * share < 0.95 ? (100 * share).toFixed(1) : String(Math.round(100 * share));
}

function render({ model, el }) {
  const items = () => model.get("items");
  const current = () => items().find((item) => item.label === model.get("portrait")) ?? items()[0];
  const choice = () => ({ timestep: model.get("timestep"), layer: model.get("layer"), head: model.get("head") });
  /** While portrait and token are between two messages, a token that there is. */
  const token = () => Math.min(model.get("token"), current().tokens.length - 1);

  const portrait = input("select", {});
  const layer = input("select", {});
  const head = input("select", {});
  const portraitLabel = make("label", {}, "Portrait ", portrait);
  const time = range("Timestep", { min: "0", step: "1" });
  const opacity = range("Opacity", { min: "0", max: "1", step: "0.05" });
  const chips = make("fieldset", { class: "spf-chips" });
  const group = freshId();

  const image = make("img", { class: "spf-fading", alt: "", draggable: "false" });
  const map = make("canvas", { class: "spf-heat", "aria-hidden": "true" });
  const stage = make("div", { class: "spf-stage", role: "img" }, image, map);
  const highest = make("span", {});
  const legend = make(
    "div", { class: "spf-legend", "aria-hidden": "true" },
    make("span", {}, "0"), make("span", { class: "spf-bar" }), highest,
  );
  const readout = make("p", { class: "spf-readout", "aria-live": "polite" });
  let words = [];

  const root = make(
    "div", { class: "spf-widget spf-attention" },
    make(
      "div", { class: "spf-controls" },
      portraitLabel, make("label", {}, "Layer ", layer), make("label", {}, "Head ", head), time.row, opacity.row,
    ),
    make(
      "div", { class: "spf-view" },
      make("div", { class: "spf-figure" }, stage, legend),
      make("div", { class: "spf-words" }, readout, chips),
    ),
  );

  function showOpacity() {
    stage.style.setProperty("--spf-opacity", model.get("opacity"));
    opacity.show(model.get("opacity"), `${Math.round(100 * model.get("opacity"))} %`);
  }

  function showToken() {
    const item = current();
    const values = attentionMap(item, { ...choice(), token: token() });
    const peak = Math.max(...values);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    paint(map, values, peak, item.size);
    const word = `“${item.tokens[token()]}”`;
    const rest = ` gets ${percent(mean)} % of all attention; peak attention ${peak.toFixed(2)}.`;
    readout.replaceChildren(make("strong", {}, word), rest);
    highest.textContent = peak.toFixed(2);
    stage.setAttribute("aria-label", `Attention map over the portrait: ${word}${rest}`);
    words.forEach(({ radio }, number) => { radio.checked = number === token(); });
  }

  function showMaps() {
    const item = current();
    time.field.max = item.timesteps.length - 1;
    time.show(item.timesteps.indexOf(model.get("timestep")), `t = ${model.get("timestep")}`);
    time.row.hidden = item.timesteps.length < 2;
    layer.value = model.get("layer");
    head.value = model.get("head");
    words.forEach(({ canvas }, number) => {
      const values = attentionMap(item, { ...choice(), token: number });
      paint(canvas, values, Math.max(...values), item.size);
    });
    showToken();
  }

  function showPortrait() {
    const item = current();
    fill(portrait, items().map((one) => one.label), item.label);
    portraitLabel.hidden = items().length < 2;
    fill(layer, [ALL_LAYERS, ...item.layers], model.get("layer"));
    fill(head, [MEAN, ...Array.from({ length: item.heads }, (_, h) => String(h + 1))], model.get("head"));
    image.src = item.image;
    stage.style.aspectRatio = `${item.size[1]} / ${item.size[0]}`;
    words = item.tokens.map((_, number) => ({
      radio: input("input", { type: "radio", name: group, value: number }),
      canvas: make("canvas", { "aria-hidden": "true" }),
    }));
    chips.replaceChildren(
      make("legend", {}, "Words"),
      ...words.map(({ radio, canvas }, number) => (
        make("label", { class: "spf-chip" }, radio, canvas, make("span", {}, item.tokens[number]))
      )),
    );
    showMaps();
    showOpacity();
  }

  function set(values) {
    for (const [name, value] of Object.entries(values)) model.set(name, value);
    model.save_changes();
  }

  const controller = new AbortController();
  const listen = (element, event, handler) => element.addEventListener(event, handler, { signal: controller.signal });
  listen(portrait, "change", () => {
    const item = items().find((one) => one.label === portrait.value);
    set({ token: model.get("token") < item.tokens.length ? model.get("token") : 0, portrait: item.label });
  });
  listen(layer, "change", () => set({ layer: layer.value }));
  listen(head, "change", () => set({ head: head.value }));
  listen(chips, "change", (event) => set({ token: Number(event.target.value) }));
  listen(time.field, "input", () => set({ timestep: current().timesteps[Number(time.field.value)] }));
  listen(opacity.field, "input", () => set({ opacity: Number(opacity.field.value) }));

  const reactions = {
    "change:items": showPortrait,
    "change:portrait": showPortrait,
    "change:layer": showMaps,
    "change:head": showMaps,
    "change:timestep": showMaps,
    "change:token": showToken,
    "change:opacity": showOpacity,
  };
  for (const [event, reaction] of Object.entries(reactions)) model.on(event, reaction);

  showPortrait();
  el.append(root);
  return () => {
    controller.abort();
    for (const [event, reaction] of Object.entries(reactions)) model.off(event, reaction);
  };
}

export default { render };
