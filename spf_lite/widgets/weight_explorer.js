// The view of WeightExplorer: a slider over the weights of a loss term; portraits and measures follow.
// elements.js and charts.js stand before this text.

/** A weight as it was probably typed: 0.3, not 0.30000000000000004. */
const typed = (weight) => String(Number(weight.toPrecision(6)));

function render({ model, el }) {
  const labelled = (label) => model.get("sweeps").find((sweep) => sweep.label === label);
  const current = () => labelled(model.get("sweep"));

  const word = model.get("word");
  const choice = radioButtons(model.get("kind"));
  const range = labelledSlider(word[0].toUpperCase() + word.slice(1));
  const base = pictureRow();
  const chosen = pictureRow();
  const charts = make("div", { class: "spf-charts" });
  const root = make(
    "div", { class: "spf-widget spf-weights" },
    make("div", { class: "spf-controls" }, choice.root, range.root), base.root, chosen.root, charts,
  );
  let drawn = null;

  function showWeight() {
    const sweep = current();
    if (!sweep) return; // between two messages, in which sweeps and choice change
    const at = Math.min(model.get("choice"), sweep.weights.length - 1);
    const weight = typed(sweep.weights[at]);
    const remark = sweep.remarks.length ? sweep.remarks[at] : "";
    const said = `${word} ${weight}${remark && ` · ${remark}`}`;
    range.show(at, said);
    chosen.show(
      `${sweep.label}, ${said}`, sweep.images[at], model.get("people"), (person) => `${person}; ${sweep.label}, ${said}`,
    );
    drawn?.moveTo(at);
  }

  function showSweep() {
    const sweep = current();
    if (!sweep) return;
    choice.check(sweep.label);
    range.slider.max = String(sweep.weights.length - 1);
    const lines = inOrder(sweep.measures, sweep.order)
      .map(([name, values]) => ({ name, points: [...values.entries()] }));
    // Weights often grow geometrically (1, 3, 10), so they are drawn at equal distances. Shares have one scale, 0 to 1.
    drawn = lines.length
      ? chart(`Measures over the ${word} of ${sweep.label}`, lines, {
        from: 0, to: sweep.weights.length - 1, own: false, most: 1, ticks: sweep.weights.map(typed),
      })
      : null;
    charts.replaceChildren(...(drawn ? [drawn.root] : []));
    showWeight();
  }

  function showAll() {
    choice.offer(model.get("sweeps").map((sweep) => sweep.label));
    setColumns(root, model.get("people").length);
    const sources = model.get("base");
    base.root.hidden = sources.length === 0;
    base.show("base model", sources, model.get("people"), (person) => `${person}, sampled from the base model`);
    showSweep();
  }

  const handlers = [
    [choice.root, "change", (event) => {
      const share = sameShare(
        model.get("choice"), current().weights.length, labelled(event.target.value).weights.length,
      );
      save(model, { sweep: event.target.value, choice: share });
    }],
    [range.slider, "input", () => save(model, { choice: Number(range.slider.value) })],
  ];
  const stop = connect(model, handlers, {
    "change:sweeps": showAll, "change:people": showAll, "change:base": showAll,
    "change:sweep": showSweep, "change:choice": showWeight,
  });
  showAll();
  el.append(root);
  return stop;
}

export default { render };
