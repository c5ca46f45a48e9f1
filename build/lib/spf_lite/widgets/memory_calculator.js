// The view of MemoryCalculator: one bar, stacked by cause, and a line at the memory of the graphics card.
// elements.js stands before this text.

const gigabytes = (value) => `${value.toFixed(value < 0.1 ? 3 : value < 10 ? 2 : 1)} GB`;

const portraits = (count) => (count === 1 ? "1 portrait" : `${count} portraits`);

function render({ model, el }) {
  const step = radioButtons("Training step");
  const precision = radioButtons(model.get("heading"));
  const batch = labelledSlider("Batch size");
  const card = input("select", { id: freshId() });
  const bar = make("div", { class: "spf-stack", role: "img" });
  const verdict = make("output", { class: "spf-verdict", for: `${batch.slider.id} ${card.id}` });
  const legend = make("ul", { class: "spf-causes" });
  const root = make(
    "div", { class: "spf-widget spf-memory" },
    make(
      "div", { class: "spf-controls" }, step.root, precision.root, batch.root,
      make("label", { for: card.id }, "Graphics card ", card),
    ),
    bar, verdict, legend,
  );

  /** GB by cause for a batch of this size. */
  function parts(size) {
    const chosen = model.get("steps").find(({ label }) => label === model.get("step"));
    const at = model.get("precisions").indexOf(model.get("precision"));
    return chosen.fixed[at].map((fixed, cause) => fixed + size * chosen.each[at][cause]);
  }
  const total = (size) => parts(size).reduce((sum, part) => sum + part, model.get("reserve"));

  function show() {
    const size = model.get("batch_size");
    const [{ label, memory }] = model.get("cards").filter((one) => one.label === model.get("card"));
    const causes = model.get("causes");
    const values = [...parts(size), model.get("reserve")];
    const names = [...causes, "reserve"];
    const all = total(size);
    const widest = Math.max(all, memory) * 1.02;
    step.check(model.get("step"));
    precision.check(model.get("precision"));
    card.value = label;
    batch.show(size - 1, portraits(size));

    const kind = (cause) => (cause < causes.length ? `spf-color-${cause}` : "spf-reserve");
    bar.replaceChildren(...values.map((value, cause) =>
      make("span", { class: kind(cause), style: `width: ${(100 * value) / widest}%` })),
      make("span", { class: "spf-limit", style: `left: ${(100 * memory) / widest}%` }));
    legend.replaceChildren(...values.flatMap((value, cause) => (value > 0
      ? [make("li", {}, make("span", { class: `spf-swatch ${kind(cause)}` }), ` ${names[cause]} `,
        make("b", {}, gigabytes(value)))]
      : [])));
    const spoken = values.flatMap((value, cause) => (value > 0 ? [`${names[cause]} ${gigabytes(value)}`] : []));
    bar.setAttribute("aria-label", `${spoken.join(", ")}; ${label} has ${memory} GB`);

    let most = 0;
    while (most < model.get("most") && total(most + 1) <= memory) most += 1;
    const room = most === 0 ? "not even one portrait"
      : most === model.get("most") ? `at least ${portraits(most)}` : `at most ${portraits(most)}`;
    verdict.textContent = all <= memory
      ? `${gigabytes(all)} of ${memory} GB: fits${most > size ? ` (${room})` : ""}`
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

  const handlers = [
    [step.root, "change", (event) => save(model, { step: event.target.value })],
    [precision.root, "change", (event) => save(model, { precision: event.target.value })],
    [batch.slider, "input", () => save(model, { batch_size: Number(batch.slider.value) + 1 })],
    [card, "change", () => save(model, { card: card.value })],
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
