// The view of WeightExplorer: a slider over the weights of a loss term; portraits and measures follow.
// elements.js and charts.js stand before this text.

/** A weight as it was probably typed: 0.3, not 0.30000000000000004. */
const typed = (weight) => String(Number(weight.toPrecision(6)));

const SMALL = 0.35; // measures that stay below it get an axis of their own: on one to 1 their differences are not seen
const LEAST_AXIS = 0.05; // a shorter one would show noise

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
  let drawn = [];

  /** The highest value of a measure in any sweep, so that another sweep has the same axes. */
  const highest = (name) => Math.max(0, ...model.get("sweeps").flatMap((sweep) => sweep.measures[name] ?? []));

  /** The lines by the chart that they are drawn in, each with the top of its axis. */
  function byAxis(lines) {
    const small = lines.filter(({ name }) => highest(name) < SMALL);
    const most = Math.max(0, ...small.map(({ name }) => highest(name)));
    if (most === 0) return [{ of: lines, most: 1 }];
    const own = { of: small, most: roundTop(Math.max(most, LEAST_AXIS)) };
    return [{ of: lines.filter((line) => !small.includes(line)), most: 1 }, own];
  }

  function showWeight() {
    const sweep = current();
    if (!sweep) return; // between two messages, in which sweeps and choice change
    const at = Math.min(model.get("choice"), sweep.weights.length - 1);
    const weight = typed(sweep.weights[at]);
    const remark = sweep.remarks.length ? sweep.remarks[at] : "";
    const said = `${word} ${weight}${remark && ` · ${remark}`}`;
    range.show(at, said);
    for (const one of drawn) one.moveTo(at, `${word} ${weight}`);
    const measured = drawn.map((one) => one.saidAt(at)).join(", ");
    chosen.show(
      `${sweep.label}, ${said}`, sweep.images[at], model.get("people"),
      (person) => `${person}; ${sweep.label}, ${said}${measured && `. Measured there: ${measured}`}`,
    );
  }

  function showSweep() {
    const sweep = current();
    if (!sweep) return;
    choice.check(sweep.label);
    range.slider.max = String(sweep.weights.length - 1);
    const lines = inOrder(sweep.measures, sweep.order)
      .map(([name, values], mark) => ({ name, mark, points: [...values.entries()] }));
    // Weights often grow geometrically (1, 3, 10), so they are drawn at equal distances.
    const axis = { from: 0, to: sweep.weights.length - 1, own: false, ticks: sweep.weights.map(typed) };
    const over = `over the ${word} of ${sweep.label}`;
    drawn = byAxis(lines).filter(({ of }) => of.length).map(({ of, most }) =>
      chart(most === 1 ? `Measures ${over}` : `Small measures ${over}, on an axis to ${most}`, of, { ...axis, most }));
    charts.replaceChildren(...drawn.map((one) => one.root));
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
