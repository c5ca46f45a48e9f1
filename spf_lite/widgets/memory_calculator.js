// The view of MemoryCalculator: one bar of stacked causes, and a line at what the card has.
// elements.js stands before this text.

const gigabytes = (value) => `${value.toFixed(value < 0.1 ? 3 : value < 10 ? 2 : 1)} GB`;

function render({ model, el }) {
  const id = `spf-${Math.random().toString(36).slice(2)}`;
  const step = radioButtons(`${id}-step`, "Step");
  const precision = radioButtons(`${id}-precision`, "Precision");
  const batch = wordedSlider(`${id}-batch`, "Batch");
  const card = input("select", { id: `${id}-card` });
  const bar = make("div", { class: "spf-stack", role: "img" });
  const verdict = make("output", { class: "spf-verdict", for: `${id}-batch ${id}-card` });
  const legend = make("ul", { class: "spf-causes" });
  const root = make(
    "div", { class: "spf-widget spf-memory" },
    make(
      "div", { class: "spf-controls" }, step.root, precision.root, batch.root,
      make("label", { for: card.id }, "Card ", card),
    ),
    bar, verdict, legend,
  );

  /** GB by cause for a batch of so many. */
  function parts(many) {
    const chosen = model.get("steps").find(({ label }) => label === model.get("step"));
    const at = model.get("precisions").indexOf(model.get("precision"));
    return chosen.fixed[at].map((fixed, cause) => fixed + many * chosen.each[at][cause]);
  }
  const total = (many) => parts(many).reduce((sum, part) => sum + part, model.get("reserve"));

  function show() {
    const many = model.get("batch_size");
    const [{ label, memory }] = model.get("cards").filter((one) => one.label === model.get("card"));
    const causes = model.get("causes");
    const values = [...parts(many), model.get("reserve")];
    const names = [...causes, "reserve"];
    const all = total(many);
    const widest = Math.max(all, memory) * 1.02;
    step.check(model.get("step"));
    precision.check(model.get("precision"));
    card.value = label;
    batch.moveTo(many - 1, many === 1 ? "1 portrait" : `${many} portraits`);

    const kind = (cause) => (cause < causes.length ? `spf-color-${cause}` : "spf-reserve");
    bar.replaceChildren(...values.map((value, cause) =>
      make("span", { class: kind(cause), style: `width: ${(100 * value) / widest}%` })),
      make("span", { class: "spf-limit", style: `left: ${(100 * memory) / widest}%` }));
    legend.replaceChildren(...values.flatMap((value, cause) => (value > 0
      ? [make("li", {}, make("span", { class: `spf-swatch ${kind(cause)}` }), ` ${names[cause]} `,
        make("b", {}, gigabytes(value)))]
      : [])));
    const told = values.flatMap((value, cause) => (value > 0 ? [`${names[cause]} ${gigabytes(value)}`] : []));
    bar.setAttribute("aria-label", `${told.join(", ")}; ${label} has ${memory} GB`);

    let most = 0;
    while (most < model.get("most") && total(most + 1) <= memory) most += 1;
    const room = most === 0 ? "not even one portrait does" : most === model.get("most") ? `so do ${most}` : `${most} would`;
    verdict.textContent = all <= memory
      ? `${gigabytes(all)} of ${memory} GB: fits${most > many ? ` (${room})` : ""}`
      : `${gigabytes(all)} of ${memory} GB: does not fit (${room})`;
  }

  function showAll() {
    step.offer(model.get("steps").map(({ label }) => label));
    precision.offer(model.get("precisions"));
    batch.slider.max = String(model.get("most") - 1);
    card.replaceChildren(...model.get("cards").map(({ label, memory }) =>
      make("option", { value: label }, `${label} (${memory} GB)`)));
    show();
  }

  const choose = (name, value) => {
    model.set(name, value);
    model.save_changes();
  };
  const handlers = [
    [step.root, "change", (event) => choose("step", event.target.value)],
    [precision.root, "change", (event) => choose("precision", event.target.value)],
    [batch.slider, "input", () => choose("batch_size", Number(batch.slider.value) + 1)],
    [card, "change", () => choose("card", card.value)],
  ];
  const reactions = Object.fromEntries(
    ["step", "precision", "batch_size", "card", "reserve"].map((name) => [`change:${name}`, show]),
  );
  const stop = connect(model, handlers, { ...reactions, "change:steps": showAll, "change:cards": showAll });
  showAll();
  el.append(root);
  return stop;
}

export default { render };
