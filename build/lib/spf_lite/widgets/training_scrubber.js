// The view of TrainingScrubber: a slider over the checkpoints of a run; portraits, losses and measures move along.
// elements.js and charts.js stand before this text.

function render({ model, el }) {
  const labelled = (label) => model.get("runs").find((run) => run.label === label);
  const current = () => labelled(model.get("run"));
  const people = () => model.get("people");

  const choice = radioButtons("Run");
  const range = labelledSlider("Checkpoint");
  const strip = make("div", { class: "spf-strip" });
  const charts = make("div", { class: "spf-charts" });
  const root = make(
    "div", { class: "spf-widget spf-scrubber" },
    make("div", { class: "spf-controls" }, choice.root, range.root), strip, charts,
  );
  let drawn = [];
  let pictures = [];

  function showCheckpoint() {
    const run = current();
    if (!run) return; // between two messages, in which run and checkpoint change
    const at = Math.min(model.get("checkpoint"), run.steps.length - 1);
    const step = run.steps[at];
    const stage = run.stage2_from === null ? "" : step < run.stage2_from ? ", stage 1" : ", stage 2";
    const last = run.steps[run.steps.length - 1];
    range.show(at, `step ${step} of ${last}${stage}`);
    pictures.forEach((picture, number) => {
      picture.src = run.images[at][number];
      picture.alt = `${people()[number]}, sampled after step ${step} of ${run.label}`;
    });
    for (const each of drawn) each.moveTo(step);
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
    drawn = [];
    if (losses.length) drawn.push(chart("Loss terms, each on its own scale", losses, { ...axis, own: true }));
    if (measures.length) drawn.push(chart("Measures", measures, { ...axis, own: false }));
    charts.replaceChildren(...drawn.map((each) => each.root));
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
      // At the same relative position: runs may have different numbers of checkpoints.
      const share = sameShare(
        model.get("checkpoint"), current().steps.length, labelled(event.target.value).steps.length,
      );
      save(model, { run: event.target.value, checkpoint: share });
    }],
    [range.slider, "input", () => save(model, { checkpoint: Number(range.slider.value) })],
  ];
  const stop = connect(model, handlers, {
    "change:runs": showAll, "change:people": showAll, "change:run": showRun, "change:checkpoint": showCheckpoint,
  });
  showAll();
  el.append(root);
  return stop;
}

export default { render };
