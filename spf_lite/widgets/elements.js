// What the views are built of. Prepended to their modules.

const freshId = () => `spf-${Math.random().toString(36).slice(2)}`;

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** An input that JupyterLab leaves alone: without the attribute it takes the arrow keys for itself. */
function input(tag, attributes) {
  return make(tag, { "data-lm-suppress-shortcuts": "true", ...attributes });
}

/** The options of a select, and the one that is chosen. */
function fill(select, values, chosen) {
  select.replaceChildren(...values.map((value) => new Option(String(value), String(value))));
  select.value = String(chosen);
}

/** A slider beneath its label; its value stands beside the label and is told to screen readers in words. */
function labelledSlider(label, limits = { min: "0", step: "1" }) {
  const id = freshId();
  const slider = input("input", { type: "range", id, ...limits });
  const output = make("output", { for: id });
  const root = make("div", { class: "spf-range" }, make("label", { for: id }, label), output, slider);
  function show(number, text = number.toFixed(2), spoken = text) {
    slider.max = Math.max(Number(slider.max), number); // Python may have set more than the slider reaches
    if (Number(slider.value) !== number) slider.value = number;
    output.textContent = text;
    slider.setAttribute("aria-valuetext", spoken);
  }
  return { root, slider, show };
}

/** Radio buttons under a legend; they are hidden where there is only one choice. */
function radioButtons(legend) {
  const name = freshId();
  const root = make("fieldset", { class: "spf-methods" }, make("legend", {}, legend));
  function offer(labels) {
    const buttons = labels.map((label) =>
      make("label", {}, input("input", { type: "radio", name, value: label }), ` ${label}`));
    root.replaceChildren(root.firstChild, ...buttons);
    root.hidden = labels.length < 2;
  }
  function check(label) {
    for (const radio of root.querySelectorAll("input")) radio.checked = radio.value === label;
  }
  return { root, offer, check };
}

/** Pictures side by side, under a line that says what they are. `alt` makes the text of a picture from its person's. */
function pictureRow() {
  const caption = make("figcaption");
  const strip = make("div", { class: "spf-strip" });
  return {
    root: make("figure", { class: "spf-row" }, caption, strip),
    show: (words, sources, people, alt) => {
      caption.textContent = words;
      caption.hidden = !words;
      if (strip.children.length !== sources.length) {
        strip.replaceChildren(...sources.map(() => make("img", { alt: "", draggable: "false" })));
      }
      [...strip.children].forEach((picture, number) => {
        picture.src = sources[number];
        picture.alt = alt(people[number]);
      });
    },
  };
}

/** Columns such that rows are equally long: at most 8 pictures side by side, on a phone at most 4. */
function setColumns(root, count) {
  const balanced = (most) => Math.ceil(count / Math.ceil(count / most));
  root.style.setProperty("--spf-columns", balanced(8));
  root.style.setProperty("--spf-columns-narrow", balanced(4));
}

/** The entries of a dictionary in the order of `names`: a notebook file holds dictionaries sorted. */
function inOrder(dictionary, names) {
  return names.filter((name) => name in dictionary).map((name) => [name, dictionary[name]]);
}

/** The index among `others` that is at the same relative position as index `at` among `count`. */
function sameShare(at, count, others) {
  return Math.round((Math.min(at, count - 1) / Math.max(1, count - 1)) * (others - 1));
}

/** Set values of the model and tell the kernel once. */
function save(model, values) {
  for (const [name, value] of Object.entries(values)) model.set(name, value);
  model.save_changes();
}

/**
 * React to inputs and to the model, until the function that is returned is called.
 * `handlers` holds triples of element, event and handler; `reactions` maps the model's events to functions.
 */
function connect(model, handlers, reactions) {
  const controller = new AbortController();
  for (const [element, event, handler] of handlers) {
    element.addEventListener(event, handler, { signal: controller.signal });
  }
  for (const [event, reaction] of Object.entries(reactions)) model.on(event, reaction);
  return () => {
    controller.abort();
    for (const [event, reaction] of Object.entries(reactions)) model.off(event, reaction);
  };
}
