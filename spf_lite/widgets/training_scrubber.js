// The view of TrainingScrubber: a slider over the checkpoints of a run; portraits, losses and measures move along.
// charts.js stands before this text.

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

function render({ model, el }) {
  const id = `spf-${Math.random().toString(36).slice(2)}`;
  const current = () => model.get("runs").find((run) => run.label === model.get("run"));
  const people = () => model.get("people");

  const choice = make("fieldset", { class: "spf-methods" }, make("legend", {}, "Run"));
  const slider = input("input", { type: "range", min: "0", step: "1", id: `${id}-checkpoint` });
  const shown = make("output", { for: slider.id });
  const range = make(
    "div", { class: "spf-range" }, make("label", { for: slider.id }, "Checkpoint"), shown, slider,
  );
  const strip = make("div", { class: "spf-strip" });
  const charts = make("div", { class: "spf-charts" });
  const root = make(
    "div", { class: "spf-widget spf-scrubber" },
    make("div", { class: "spf-controls" }, choice, range), strip, charts,
  );
  let moving = [];
  let pictures = [];

  function showCheckpoint() {
    const run = current();
    if (!run) return; // the run and its checkpoint are between two messages
    const at = Math.min(model.get("checkpoint"), run.steps.length - 1);
    const step = run.steps[at];
    const stage = run.stage2_from === null ? "" : step < run.stage2_from ? ", stage 1" : ", stage 2";
    const last = run.steps[run.steps.length - 1];
    slider.value = String(at);
    shown.textContent = `step ${step} of ${last}${stage}`;
    slider.setAttribute("aria-valuetext", shown.textContent);
    pictures.forEach((picture, number) => {
      picture.src = run.images[at][number];
      picture.alt = `${people()[number]}, painted after step ${step} of ${run.label}`;
    });
    for (const drawn of moving) drawn.moveTo(step);
  }

  function showRun() {
    const run = current();
    if (!run) return;
    for (const radio of choice.querySelectorAll("input")) radio.checked = radio.value === run.label;
    slider.max = String(run.steps.length - 1);
    const axis = { from: run.steps[0], to: run.steps[run.steps.length - 1], dotted: run.stage2_from };
    const losses = Object.entries(run.losses).map(([name, points]) => ({ name, points }));
    const measures = Object.entries(run.measures).map(([name, values]) => ({
      name, points: values.map((value, number) => [run.steps[number], value]),
    }));
    moving = [];
    if (losses.length) moving.push(chart("Loss terms, each by its own scale", losses, { ...axis, own: true }));
    if (measures.length) moving.push(chart("Measures", measures, { ...axis, own: false }));
    charts.replaceChildren(...moving.map((drawn) => drawn.root));
    showCheckpoint();
  }

  function showAll() {
    choice.replaceChildren(choice.firstChild);
    const runs = model.get("runs");
    for (const run of runs) {
      const radio = input("input", { type: "radio", name: `${id}-run`, value: run.label });
      choice.append(make("label", {}, radio, ` ${run.label}`));
    }
    choice.hidden = runs.length < 2;
    pictures = people().map(() => make("img", { alt: "", draggable: "false" }));
    strip.replaceChildren(...pictures);
    showRun();
  }

  const controller = new AbortController();
  const listen = (element, event, handler) =>
    element.addEventListener(event, handler, { signal: controller.signal });
  listen(choice, "change", (event) => {
    // The same share of the way: runs need not have equally many checkpoints.
    const before = current();
    const after = model.get("runs").find((run) => run.label === event.target.value);
    const share = model.get("checkpoint") / Math.max(1, before.steps.length - 1);
    model.set("run", event.target.value);
    model.set("checkpoint", Math.round(share * (after.steps.length - 1)));
    model.save_changes();
  });
  listen(slider, "input", () => {
    model.set("checkpoint", Number(slider.value));
    model.save_changes();
  });

  const reactions = {
    "change:runs": showAll, "change:people": showAll, "change:run": showRun, "change:checkpoint": showCheckpoint,
  };
  for (const [event, reaction] of Object.entries(reactions)) model.on(event, reaction);
  showAll();
  el.append(root);
  return () => {
    controller.abort();
    for (const [event, reaction] of Object.entries(reactions)) model.off(event, reaction);
  };
}

export default { render };
