// The view of TrainingScrubber: a slider over the checkpoints of a run; portraits, losses and measures move along.
// elements.js and charts.js stand before this text.

function render({ model, el }) {
  const id = `spf-${Math.random().toString(36).slice(2)}`;
  const labelled = (label) => model.get("runs").find((run) => run.label === label);
  const current = () => labelled(model.get("run"));
  const people = () => model.get("people");

  const choice = radioButtons(`${id}-run`, "Run");
  const range = wordedSlider(`${id}-checkpoint`, "Checkpoint");
  const strip = make("div", { class: "spf-strip" });
  const charts = make("div", { class: "spf-charts" });
  const root = make(
    "div", { class: "spf-widget spf-scrubber" },
    make("div", { class: "spf-controls" }, choice.root, range.root), strip, charts,
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
    range.moveTo(at, `step ${step} of ${last}${stage}`);
    pictures.forEach((picture, number) => {
      picture.src = run.images[at][number];
      picture.alt = `${people()[number]}, painted after step ${step} of ${run.label}`;
    });
    for (const drawn of moving) drawn.moveTo(step);
  }

  function showRun() {
    const run = current();
    if (!run) return;
    choice.check(run.label);
    range.slider.max = String(run.steps.length - 1);
    const axis = { from: run.steps[0], to: run.steps[run.steps.length - 1], dotted: run.stage2_from };
    const losses = inOrder(run.losses, run.order).map(([name, points]) => ({ name, points }));
    const measures = inOrder(run.measures, run.order).map(([name, values]) => ({
      name, points: values.map((value, number) => [run.steps[number], value]),
    }));
    moving = [];
    if (losses.length) moving.push(chart("Loss terms, each by its own scale", losses, { ...axis, own: true }));
    if (measures.length) moving.push(chart("Measures", measures, { ...axis, own: false }));
    charts.replaceChildren(...moving.map((drawn) => drawn.root));
    showCheckpoint();
  }

  function showAll() {
    choice.offer(model.get("runs").map((run) => run.label));
    pictures = people().map(() => make("img", { alt: "", draggable: "false" }));
    setColumns(root, people().length);
    strip.replaceChildren(...pictures);
    showRun();
  }

  const handlers = [
    [choice.root, "change", (event) => {
      // The same share of the way: runs need not have equally many checkpoints.
      const share = sameShare(
        model.get("checkpoint"), current().steps.length, labelled(event.target.value).steps.length,
      );
      model.set("run", event.target.value);
      model.set("checkpoint", share);
      model.save_changes();
    }],
    [range.slider, "input", () => {
      model.set("checkpoint", Number(range.slider.value));
      model.save_changes();
    }],
  ];
  const stop = connect(model, handlers, {
    "change:runs": showAll, "change:people": showAll, "change:run": showRun, "change:checkpoint": showCheckpoint,
  });
  showAll();
  el.append(root);
  return stop;
}

export default { render };
