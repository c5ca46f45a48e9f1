// What the views are built of. Prepended to their modules.

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

/** A slider over 0, 1, 2, ... with its name; where it stands is told in words, to the eye and to screen readers. */
function wordedSlider(id, name) {
  const slider = input("input", { type: "range", min: "0", step: "1", id });
  const output = make("output", { for: id });
  const root = make("div", { class: "spf-range" }, make("label", { for: id }, name), output, slider);
  function moveTo(at, words) {
    slider.value = String(at);
    output.textContent = words;
    slider.setAttribute("aria-valuetext", words);
  }
  return { root, slider, moveTo };
}

/** Radio buttons under a legend; they hide where there is nothing to choose. */
function radioButtons(id, legend) {
  const root = make("fieldset", { class: "spf-methods" }, make("legend", {}, legend));
  function offer(labels) {
    const buttons = labels.map((label) =>
      make("label", {}, input("input", { type: "radio", name: id, value: label }), ` ${label}`));
    root.replaceChildren(root.firstChild, ...buttons);
    root.hidden = labels.length < 2;
  }
  function check(label) {
    for (const radio of root.querySelectorAll("input")) radio.checked = radio.value === label;
  }
  return { root, offer, check };
}

/** Rows of so many pictures are equally long: at most 8 side by side, on a phone at most 4. */
function setColumns(root, many) {
  const balanced = (most) => Math.ceil(many / Math.ceil(many / most));
  root.style.setProperty("--spf-columns", balanced(8));
  root.style.setProperty("--spf-columns-narrow", balanced(4));
}

/** The entries of a dictionary in the order of its names: in the file of a notebook dictionaries stand sorted. */
function inOrder(dictionary, names) {
  return names.filter((name) => name in dictionary).map((name) => [name, dictionary[name]]);
}

/** Place `at` of so many, as the place of so many others that is the same share of the way along. */
function sameShare(at, many, others) {
  return Math.round((Math.min(at, many - 1) / Math.max(1, many - 1)) * (others - 1));
}

/**
 * React to inputs and to the model until the function that is returned is called.
 * `handlers` holds triples of element, event and handler; `reactions` the model's events with what each brings about.
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
