// The view of BeforeAfter: two portraits in one frame, a divider to drag, and in words what changed.
// All inputs are native, so that keyboard, touch and screen readers work as they do everywhere.
// elements.js stands before this text.

// Laid over everything that did not change. Light, because what appears is often dark: sunglasses, a beard.
const VEIL = [255, 255, 255, 222];
const NOTICEABLE = 24; // smallest difference of a colour channel, of 255, that counts as a change

const distinct = (values) => [...new Set(values)];

async function pixels(address) {
  const image = new Image();
  image.src = address;
  await image.decode();
  const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

/** Draw a light veil that has a hole wherever the two pictures differ. */
async function drawVeil(canvas, before, after, stillWanted) {
  const [a, b] = await Promise.all([pixels(before), pixels(after)]);
  if (!stillWanted()) return;
  canvas.width = a.width;
  canvas.height = a.height;
  const veil = new ImageData(a.width, a.height);
  for (let i = 0; i < a.data.length; i += 4) {
    const most = Math.max(
      Math.abs(a.data[i] - b.data[i]),
      Math.abs(a.data[i + 1] - b.data[i + 1]),
      Math.abs(a.data[i + 2] - b.data[i + 2]),
    );
    veil.data.set(most > NOTICEABLE ? [0, 0, 0, 0] : VEIL, i);
  }
  canvas.getContext("2d").putImageData(veil, 0, 0);
}

/** What is seen of the target and of what changed, for a picture's text; empty where it is not known. */
const presenceOf = (target, shown) =>
  (shown === undefined ? "" : shown ? `; shows ${target}` : `; does not show ${target}`);
function changesIn(found) {
  if (found === undefined) return "";
  // A screen reader reads an arrow as a picture.
  return found.length ? `; unrelated changes: ${found.join(", ").replaceAll(" → ", " to ")}` : "; no unrelated change";
}

/** What the base model was asked for. Where the target is looked for, that is the base text. */
function baseText(item, shown) {
  if (shown === undefined && !item.unasked) return ` for “${item.prompt}”`;
  return item.base_text ? ` for “${item.base_text.prompt}”` : " for the base text";
}

function render({ model, el }) {
  const id = freshId();
  const items = () => model.get("items");
  const labels = () => model.get("labels");
  const TEXTS = ["complete text", "base text"];
  /** The item that is shown, with what belongs to the text that is chosen. */
  const current = () => {
    const item = items().find((one) => one.target === model.get("target") && one.seed === model.get("seed"));
    if (!item?.base_text || model.get("text") === TEXTS[0]) return item && { ...item, base_shows: item.shows.base };
    const images = { ...item.images, ...item.base_text.images };
    return { ...item, ...item.base_text, images, unasked: true, base_shows: item.shows.base };
  };

  const target = input("select", { id: `${id}-target` });
  const seed = input("select", { id: `${id}-seed` });
  const methods = make("fieldset", { class: "spf-methods" }, make("legend", {}, "After"));
  const text = radioButtons("Text");
  const difference = input("input", { type: "checkbox", id: `${id}-difference` });
  const slider = input("input", {
    type: "range", min: "0", max: "100", step: "1", "aria-label": "Divider between before and after",
  });

  const before = make("img", { class: "spf-before", alt: "", draggable: "false" });
  const after = make("img", { class: "spf-after", alt: "", draggable: "false" });
  const veil = make("canvas", { class: "spf-veil", "aria-hidden": "true" });
  const beforeTag = make("span", { class: "spf-tag spf-tag-before", "aria-hidden": "true" });
  const afterTag = make("span", { class: "spf-tag spf-tag-after", "aria-hidden": "true" });
  const divider = make("div", { class: "spf-divider", "aria-hidden": "true" }, make("span", {}, "⇆"));
  const stage = make(
    "div", { class: "spf-stage" }, before, after, veil, beforeTag, afterTag, slider, divider,
  );
  const prompt = make("p", { class: "spf-prompt" });
  const changes = make("p", { class: "spf-changes", "aria-live": "polite" });

  const root = make(
    "div", { class: "spf-widget spf-before-after" },
    make(
      "div", { class: "spf-controls" },
      make("label", { for: target.id }, "Target ", target),
      make("label", { for: seed.id }, "Seed ", seed),
      methods,
      text.root,
      make("label", { for: difference.id, class: "spf-check" }, difference, " Fade what stayed the same"),
    ),
    make("div", { class: "spf-view" }, stage, make("div", { class: "spf-words" }, prompt, changes)),
  );

  function showPosition() {
    const position = model.get("position");
    stage.style.setProperty("--spf-position", `${position}%`);
    if (Number(slider.value) !== Math.round(position)) slider.value = position;
    slider.setAttribute(
      "aria-valuetext", `${Math.round(position)} % ${labels().base}, the rest ${labels()[model.get("method")]}`,
    );
  }

  function showVeil() {
    const item = current();
    const method = model.get("method");
    veil.hidden = !model.get("difference");
    if (veil.hidden || !item) return;
    const state = () => ["target", "seed", "method", "text", "difference"].map((name) => model.get(name)).join();
    const asked = state();
    const wanted = () => state() === asked;
    drawVeil(veil, item.images.base, item.images[method], wanted);
  }

  function showItem() {
    const item = current();
    if (!item) return; // target and seed are between two messages
    const method = model.get("method");
    before.src = item.images.base;
    after.src = item.images[method];
    beforeTag.textContent = labels().base;
    afterTag.textContent = labels()[method];
    const found = item.changes[method];
    const shown = item.shows[method];
    // Where the target is looked for, the left portrait is one for the base text, whatever the text of the right one.
    prompt.textContent = item.unasked ? `Left and right: “${item.prompt}”`
      : shown === undefined ? `“${item.prompt}”` : `Right: “${item.prompt}”. Left: the base text.`;
    changes.hidden = found === undefined && shown === undefined;
    const asked = item.unasked ? ", without being asked for it" : "";
    before.alt = `Portrait by the ${labels().base}${baseText(item, shown)}, seed ${item.seed}`
      + presenceOf(item.target, item.base_shows);
    after.alt = `Portrait by ${labels()[method]} for “${item.prompt}”, seed ${item.seed}`
      + `${presenceOf(item.target, shown)}${shown ? asked : ""}${changesIn(found)}`;
    const presence = shown === undefined ? ""
      : shown ? `Shows ${item.target}${asked}. ` : `Does not show ${item.target}. `;
    const changed = found === undefined ? "" : found.length ? "Unrelated changes: " : "No unrelated change.";
    changes.replaceChildren(make("strong", {}, presence + changed), found?.join(", ") ?? "");
    showPosition();
    showVeil();
  }

  function showChoices() {
    fill(target, distinct(items().map((item) => item.target)), model.get("target"));
    const seeds = items().filter((item) => item.target === model.get("target")).map((item) => item.seed);
    fill(seed, seeds, model.get("seed"));
    methods.replaceChildren(methods.firstChild);
    for (const name of model.get("methods")) {
      const radio = input("input", { type: "radio", name: `${id}-method`, value: name });
      radio.checked = name === model.get("method");
      methods.append(make("label", {}, radio, ` ${labels()[name]}`));
    }
    text.offer(items().every((item) => item.base_text) ? TEXTS : []);
    text.check(model.get("text"));
    showItem();
  }

  const handlers = [
    [target, "change", () => {
      const seeds = items().filter((item) => item.target === target.value).map((item) => item.seed);
      save(model, { target: target.value, seed: seeds.includes(model.get("seed")) ? model.get("seed") : seeds[0] });
    }],
    [seed, "change", () => save(model, { seed: Number(seed.value) })],
    [methods, "change", (event) => save(model, { method: event.target.value })],
    [text.root, "change", (event) => save(model, { text: event.target.value })],
    [difference, "change", () => save(model, { difference: difference.checked })],
    [slider, "input", () => save(model, { position: Number(slider.value) })],
  ];
  const stop = connect(model, handlers, {
    "change:position": showPosition,
    "change:difference": () => { difference.checked = model.get("difference"); showVeil(); },
    "change:target": showChoices,
    "change:seed": () => { seed.value = String(model.get("seed")); showItem(); },
    "change:method": showChoices,
    "change:text": showChoices,
    "change:items": showChoices,
  });
  difference.checked = model.get("difference");
  showChoices();
  el.append(root);
  return stop;
}

export default { render };
