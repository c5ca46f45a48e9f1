// The view of TrainingScrubber: a slider over the checkpoints of a run; portraits, losses and measures move along.
// Runs stand beneath each other if all are shown at once. elements.js and charts.js stand before this text.

function render({ model, el }) {
  const labelled = (label) => model.get("runs").find((run) => run.label === label);
  const current = () => labelled(model.get("run"));
  const people = () => model.get("people");
  const beside = () => model.get("beside");
  /** The runs on show; none between two messages, in which run and checkpoint change. */
  const shown = () => (beside() ? model.get("runs") : [current()].filter(Boolean));
  const lastOf = (run) => run.steps[run.steps.length - 1];

  const choice = radioButtons("Run");
  const range = labelledSlider("Checkpoint");
  const rows = make("div");
  const charts = make("div", { class: "spf-charts" });
  const root = make(
    "div", { class: "spf-widget spf-scrubber" },
    make("div", { class: "spf-controls" }, choice.root, range.root), rows, charts,
  );
  let drawn = [];

  function showCheckpoint() {
    for (const { run, row, lines } of drawn) {
      const at = Math.min(model.get("checkpoint"), run.steps.length - 1);
      const step = run.steps[at];
      const stage = run.stage2_from === null ? "" : step < run.stage2_from ? ", stage 1" : ", stage 2";
      const said = `step ${step} of ${lastOf(run)}${stage}`;
      if (run === drawn[0].run) {
        range.show(at, beside() ? `${Math.round((100 * step) / lastOf(run))} % of the steps` : said);
      }
      for (const line of lines) line.moveTo(step, `step ${step}`);
      const measures = Object.keys(run.measures).length ? lines[lines.length - 1] : null; // the last chart
      const measured = measures ? `. Measured there: ${measures.saidAt(step)}` : "";
      row.show(
        beside() ? `${run.label}, ${said}` : "", run.images[at], people(),
        (person) => `${person}, sampled after step ${step} of ${run.label}${measured}`,
      );
    }
  }

  /** The charts of a run: its loss terms, and its measures. */
  function chartsOf(run) {
    const axis = { from: run.steps[0], to: lastOf(run), dotted: run.stage2_from };
    const losses = inOrder(run.losses, run.order).map(([name, points]) => ({ name, points }));
    const measures = inOrder(run.measures, run.order).map(([name, values]) => ({
      name, points: values.map((value, number) => [run.steps[number], value]),
    }));
    const titled = (title) => (beside() ? `${run.label}: ${title.toLowerCase()}` : title);
    const made = [];
    if (losses.length) made.push(chart(titled("Loss terms, each on its own scale"), losses, { ...axis, own: true }));
    if (measures.length) {
      // Charts that are compared have one scale: that of shares, if all are shares.
      const shares = measures.every(({ points }) => points.every(([, value]) => value === null || value <= 1));
      made.push(chart(titled("Measures"), measures, { ...axis, own: false, most: beside() && shares ? 1 : undefined }));
    }
    return made;
  }

  function showRuns() {
    if (!shown().length) return;
    choice.check(model.get("run"));
    range.slider.max = String(shown()[0].steps.length - 1);
    drawn = shown().map((run) => ({ run, row: pictureRow(), lines: chartsOf(run) }));
    rows.replaceChildren(...drawn.map(({ row }) => row.root));
    charts.replaceChildren(...drawn.flatMap(({ lines }) => lines.map((line) => line.root)));
    showCheckpoint();
  }

  function showAll() {
    choice.offer(beside() ? [] : model.get("runs").map((run) => run.label)); // nothing to choose: not shown
    setColumns(root, people().length);
    showRuns();
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
    "change:runs": showAll, "change:people": showAll, "change:beside": showAll,
    "change:run": showRuns, "change:checkpoint": showCheckpoint,
  });
  showAll();
  el.append(root);
  return stop;
}

export default { render };
