// The view of ControlMapExplorer: sliders beside the portrait, tinted where the target may act, and what M is made of.
// All inputs are native, so that keyboard, touch and screen readers work as they do everywhere.
// elements.js, places.js and maps.js stand before this text.

const BLUE = BLUES[1];
const TINT = 0.75; // opacity of the tint where M is 1, so that the portrait shines through

const clamped = (value) => Math.min(Math.max(value, 0), 1);

/** Rescale a map to [0, 1]; a constant one becomes 0. As spf_lite.method.control_map.min_max. */
function minMax(map) {
  const low = Math.min(...map);
  const spread = Math.max(...map) - low;
  return map.map((value) => (spread > 1e-8 ? (value - low) / spread : 0));
}

/**
 * The formula itself, as spf_lite.method.control_map.combine: M from D, A and the distances.
 * `difference` holds N numbers, `phraseMaps` P times N, `distances` P; the result holds N.
 */
export function combine(difference, phraseMaps, distances, options) {
  const total = distances.reduce((sum, distance) => sum + distance, 0);
  const divisor = options.subtraction === "mean" ? Math.max(total, 1e-8) : 1;
  let control = Float64Array.from(difference, (value, i) => {
    const subtracted = phraseMaps.reduce((sum, map, p) => sum + distances[p] * map[i], 0);
    return clamped(value - options.weight * (subtracted / divisor));
  });
  if (options.rescale) control = minMax(control);
  return control.map((value) => {
    const hard = value > options.threshold ? 1 : 0;
    return options.softness * value * hard + (1 - options.softness) * hard;
  });
}

/** Opaque blue where the target may act, transparent elsewhere. */
const tint = (value) => [...BLUE, 255 * TINT * value];

/**
 * How often a position inside has a higher value than one outside; ties count half. As
 * spf_lite.evaluation.measures.maps.map_auc; undefined if nothing is inside or nothing is outside.
 */
export function auc(values, inside) {
  const order = [...values.keys()].sort((a, b) => values[a] - values[b]);
  let ranks = 0; // sum over the positions inside; equal values share their mean rank
  for (let first = 0, end = 0; first < order.length; first = end) {
    while (end < order.length && values[order[end]] === values[order[first]]) end += 1;
    const within = order.slice(first, end).filter((i) => inside[i]).length;
    ranks += (within * (first + end + 1)) / 2;
  }
  const count = inside.filter(Boolean).length;
  const pairs = count * (values.length - count);
  return pairs ? (ranks - (count * (count + 1)) / 2) / pairs : undefined;
}

const unpacked = (text) => Float64Array.from(atob(text), (letter) => letter.charCodeAt(0) / 255);

/** D and the phrase maps of one timestep and layer. */
function ingredients(item, timestep, layer) {
  const positions = item.size[0] * item.size[1];
  const t = item.timesteps.indexOf(timestep);
  const first = (t * item.layers.length + item.layers.indexOf(layer)) * item.phrases.length;
  const cut = (values, number) => values.subarray(number * positions, (number + 1) * positions);
  const maps = unpacked(item.phrase_maps);
  return {
    difference: cut(unpacked(item.difference), t),
    phraseMaps: item.phrases.map((_, p) => cut(maps, first + p)),
  };
}

const card = (picture, ...words) => make("div", { class: "spf-card" }, picture, make("div", {}, ...words));

const OPTIONS = ["weight", "threshold", "softness", "subtraction", "rescale"];

const percent = (share) => (share > 0 && share < 0.005 ? "less than 1" : String(Math.round(100 * share)));

function render({ model, el }) {
  const items = () => model.get("items");
  const current = () => items().find((item) => item.label === model.get("portrait")) ?? items()[0];
  const options = () => Object.fromEntries(OPTIONS.map((name) => [name, model.get(name)]));
  /** The distances; between two messages, in which portrait and distances change, those that CLIP measured. */
  const distances = () => {
    const [item, chosen] = [current(), model.get("distances")];
    return chosen.length === item.phrases.length ? chosen : item.distances;
  };

  const portrait = input("select", {});
  const layer = input("select", {});
  const portraitLabel = make("label", {}, "Portrait ", portrait);
  const layerLabel = make("label", {}, "Layer ", layer);
  const time = labelledSlider("Timestep");
  const sliders = {
    weight: labelledSlider("Weight w of the subtraction", { min: "0", max: "2", step: "0.05" }),
    threshold: labelledSlider("Threshold", { min: "0", max: "0.99", step: "0.01" }),
    softness: labelledSlider("Softness", { min: "0", max: "1", step: "0.05" }),
  };
  const group = freshId();
  const radios = ["mean", "sum"].map((value) => input("input", { type: "radio", name: group, value }));
  const subtraction = make(
    "fieldset", { class: "spf-methods" }, make("legend", {}, "Subtract the"),
    ...radios.map((radio) => make("label", {}, radio, ` ${radio.value}`)),
  );
  const rescale = input("input", { type: "checkbox" });
  const reset = input("button", { type: "button", class: "spf-button" });
  reset.textContent = "Reset to the measured distances";

  const pale = make("img", { class: "spf-pale", alt: "", draggable: "false" });
  const tinted = make("canvas", { class: "spf-tint", "aria-hidden": "true" });
  const outline = make("canvas", { "aria-hidden": "true" });
  const stage = make("div", { class: "spf-stage", role: "img" }, pale, tinted, outline);
  const legend = make(
    "div", { class: "spf-legend", "aria-hidden": "true" },
    make("span", {}, "0: protected"), make("span", { class: "spf-bar" }), make("span", {}, "1: may change"),
  );
  const outlined = make("p", { class: "spf-note" }, "Outline: where the target really changes the picture.");
  const readout = make("p", { class: "spf-readout", "aria-live": "polite" });
  const formula = make("p", { class: "spf-formula" });
  const image = make("img", { class: "spf-thumb", alt: "" });
  const difference = make("canvas", { class: "spf-thumb", role: "img" });
  const cards = make("div", { class: "spf-cards" });
  let phrases = [];
  let parts = null;
  let inside = null; // of the true region, where it is known

  const root = make(
    "div", { class: "spf-widget spf-control-map" },
    make(
      "div", { class: "spf-controls" },
      portraitLabel, layerLabel, time.root,
    ),
    make(
      "div", { class: "spf-view" },
      make("div", { class: "spf-figure" }, stage, legend, outlined),
      make(
        "div", { class: "spf-words spf-panel" },
        readout, ...Object.values(sliders).map((slider) => slider.root), subtraction,
        make("label", { class: "spf-check" }, rescale, " Rescale M to [0, 1]"),
      ),
    ),
    formula, cards, reset,
  );

  function showMap() {
    const item = current();
    const now = distances();
    const map = combine(parts.difference, parts.phraseMaps, now, options());
    drawMap(tinted, map, item.size, tint);
    const share = map.filter((value) => value > 0).length / map.length;
    const mean = map.reduce((sum, value) => sum + value, 0) / map.length;
    const sentence = `The target may change ${percent(share)} % of the picture`;
    const more = share ? `, at a mean strength of ${(mean / share).toFixed(2)}.` : ": the map is empty.";
    const found = inside ? auc(map, inside) : undefined;
    const grade = found === undefined ? "" : ` AUC against the outline: ${found.toFixed(2)}.`;
    readout.replaceChildren(make("strong", {}, sentence), more, grade);
    const place = share ? placeOfHighest(map, item.size) : undefined;
    const where = place ? ` It may change it most ${place}.` : "";
    stage.setAttribute("aria-label", `Control map over ${item.label}. ${sentence}${more}${where}${grade}`);
    for (const [name, slider] of Object.entries(sliders)) slider.show(model.get(name));
    phrases.forEach(({ slider }, p) => {
      const [chosen, measured] = [now[p].toFixed(2), item.distances[p].toFixed(2)];
      if (now[p] === item.distances[p]) slider.show(now[p]);
      else slider.show(now[p], `${chosen} (${measured})`, `${chosen} (measured ${measured})`);
    });
    reset.disabled = now.every((distance, p) => distance === item.distances[p]);
    for (const radio of radios) radio.checked = radio.value === model.get("subtraction");
    rescale.checked = model.get("rescale");
    showFormula(options());
  }

  function showFormula({ weight, subtraction: kind, rescale, threshold, softness }) {
    const divided = kind === "mean" ? " / Σ dₚ" : "";
    formula.textContent = [
      `M = clamp( D − ${weight.toFixed(2)} · Σ dₚ Aₚ${divided} )`,
      rescale && "rescaled to [0, 1]",
      threshold > 0 && `0 where at most ${threshold.toFixed(2)}`,
      softness < 1 && `${softness > 0 ? "partly " : ""}binarised`,
    ].filter(Boolean).join(", ");
  }

  function showParts() {
    const item = current();
    parts = ingredients(item, model.get("timestep"), model.get("layer"));
    time.slider.max = item.timesteps.length - 1;
    time.show(item.timesteps.indexOf(model.get("timestep")), `t = ${model.get("timestep")}`);
    time.root.hidden = item.timesteps.length < 2;
    layer.value = model.get("layer");
    const draw = (canvas, name, values, colors) => {
      drawMap(canvas, values, item.size, ramp(colors));
      canvas.setAttribute("aria-label", `${name}: ${mapInWords(values, item.size)}`);
    };
    draw(difference, "Map D", parts.difference, BLUES);
    phrases.forEach(({ canvas }, p) =>
      draw(canvas, `Attention map of “${item.phrases[p]}”`, parts.phraseMaps[p], ORANGES));
    showMap();
  }

  function showPortrait() {
    const item = current();
    fill(portrait, items().map((one) => one.label), item.label);
    portraitLabel.hidden = items().length < 2;
    fill(layer, item.layers, model.get("layer"));
    layerLabel.hidden = item.layers.length < 2;
    image.src = item.image;
    image.alt = `Portrait: ${item.label}`;
    pale.src = item.image;
    stage.style.aspectRatio = `${item.size[1]} / ${item.size[0]}`;
    inside = item.region ? Array.from(unpacked(item.region), (value) => value > 0) : null;
    outline.hidden = outlined.hidden = !inside;
    if (inside) drawOutline(outline, inside, item.size);
    phrases = item.phrases.map((phrase) => ({
      canvas: make("canvas", { class: "spf-thumb", role: "img" }),
      slider: labelledSlider(phrase, { min: "0", max: "2", step: "0.01" }),
    }));
    cards.replaceChildren(
      card(image, make("b", {}, "Portrait")),
      card(difference, make("b", {}, "D"), ": where the noise predictions of both paths differ"),
      make("p", {}, make("b", {}, "Phrases to protect"), ": map Aₚ, CLIP distance dₚ to the target (as measured)"),
      ...phrases.map(({ canvas, slider }) => card(canvas, slider.root)),
    );
    showParts();
  }

  const handlers = [
    [portrait, "change", () => {
      const item = items().find((one) => one.label === portrait.value);
      save(model, { portrait: item.label, distances: [...item.distances] });
    }],
    [layer, "change", () => save(model, { layer: layer.value })],
    [time.slider, "input", () => save(model, { timestep: current().timesteps[Number(time.slider.value)] })],
    ...Object.entries(sliders).map(([name, { slider }]) =>
      [slider, "input", () => save(model, { [name]: Number(slider.value) })]),
    [subtraction, "change", (event) => save(model, { subtraction: event.target.value })],
    [rescale, "change", () => save(model, { rescale: rescale.checked })],
    [reset, "click", () => save(model, { distances: [...current().distances] })],
    [cards, "input", (event) => {
      const moved = phrases.findIndex(({ slider }) => slider.slider === event.target);
      save(model, { distances: distances().map((old, p) => (p === moved ? Number(event.target.value) : old)) });
    }],
  ];
  const stop = connect(model, handlers, Object.fromEntries([
    ...["items", "portrait"].map((name) => [`change:${name}`, showPortrait]),
    ...["timestep", "layer"].map((name) => [`change:${name}`, showParts]),
    ...["distances", ...OPTIONS].map((name) => [`change:${name}`, showMap]),
  ]));
  showPortrait();
  el.append(root);
  return stop;
}

export default { render };
