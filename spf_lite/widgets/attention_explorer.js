// The view of AttentionExplorer: a portrait under the map of one token, and all tokens with small maps to choose from.
// All inputs are native, so that keyboard, touch and screen readers work as they do everywhere.
// elements.js, places.js and maps.js stand before this text.

const LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"; // as in map_encoding.py
const STEP = Object.fromEntries([...LETTERS].map((letter, step) => [letter.charCodeAt(0), step]));
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

/** A map as shares of its maximum. */
function drawScaled(canvas, values, maximum, size) {
  drawMap(canvas, maximum > 0 ? values.map((value) => value / maximum) : values, size, ramp(ORANGES));
}

function percent(share) {
  return 100 * share < 0.95 ? (100 * share).toFixed(1) : String(Math.round(100 * share));
}

function render({ model, el }) {
  const items = () => model.get("items");
  const current = () => items().find((item) => item.label === model.get("portrait")) ?? items()[0];
  const choice = () => ({ timestep: model.get("timestep"), layer: model.get("layer"), head: model.get("head") });
  /** The token; between two messages, in which portrait and token change, one that exists. */
  const token = () => Math.min(model.get("token"), current().tokens.length - 1);

  const portrait = input("select", {});
  const layer = input("select", {});
  const head = input("select", {});
  const portraitLabel = make("label", {}, "Portrait ", portrait);
  const time = labelledSlider("Timestep");
  const opacity = labelledSlider("Opacity", { min: "0", max: "1", step: "0.05" });
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
  let tokens = [];

  const root = make(
    "div", { class: "spf-widget spf-attention" },
    make(
      "div", { class: "spf-controls" },
      portraitLabel, make("label", {}, "Layer ", layer), make("label", {}, "Head ", head), time.root, opacity.root,
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
    drawScaled(map, values, peak, item.size);
    const quoted = `“${item.tokens[token()]}”`;
    const rest = ` gets ${percent(mean)} % of all attention; peak attention ${peak.toFixed(2)}.`;
    readout.replaceChildren(make("strong", {}, quoted), rest);
    highest.textContent = peak.toFixed(2);
    const seen = `${quoted}${rest} The map is ${mapInWords(values, item.size)}.`;
    stage.setAttribute("aria-label", `Attention map over the portrait ${item.label}: ${seen}`);
    tokens.forEach(({ radio }, number) => { radio.checked = number === token(); });
  }

  function showMaps() {
    const item = current();
    time.slider.max = item.timesteps.length - 1;
    time.show(item.timesteps.indexOf(model.get("timestep")), `t = ${model.get("timestep")}`);
    time.root.hidden = item.timesteps.length < 2;
    layer.value = model.get("layer");
    head.value = model.get("head");
    tokens.forEach(({ canvas }, number) => {
      const values = attentionMap(item, { ...choice(), token: number });
      drawScaled(canvas, values, Math.max(...values), item.size);
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
    tokens = item.tokens.map((_, number) => ({
      radio: input("input", { type: "radio", name: group, value: number }),
      canvas: make("canvas", { "aria-hidden": "true" }),
    }));
    chips.replaceChildren(
      make("legend", {}, "Tokens"),
      ...tokens.map(({ radio, canvas }, number) => (
        make("label", { class: "spf-chip" }, radio, canvas, make("span", {}, item.tokens[number]))
      )),
    );
    showMaps();
    showOpacity();
  }

  const handlers = [
    [portrait, "change", () => {
      const item = items().find((one) => one.label === portrait.value);
      save(model, { token: model.get("token") < item.tokens.length ? model.get("token") : 0, portrait: item.label });
    }],
    [layer, "change", () => save(model, { layer: layer.value })],
    [head, "change", () => save(model, { head: head.value })],
    [chips, "change", (event) => save(model, { token: Number(event.target.value) })],
    [time.slider, "input", () => save(model, { timestep: current().timesteps[Number(time.slider.value)] })],
    [opacity.slider, "input", () => save(model, { opacity: Number(opacity.slider.value) })],
  ];
  const stop = connect(model, handlers, {
    "change:items": showPortrait,
    "change:portrait": showPortrait,
    "change:layer": showMaps,
    "change:head": showMaps,
    "change:timestep": showMaps,
    "change:token": showToken,
    "change:opacity": showOpacity,
  });
  showPortrait();
  el.append(root);
  return stop;
}

export default { render };
