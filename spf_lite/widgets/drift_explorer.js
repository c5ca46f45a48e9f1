// The view of DriftExplorer: words by how far their portraits moved; a word's portraits before and after beneath.
// elements.js stands before this text.

const SHOWN = 6; // people at a time
const has = (text, word) => (text.toLowerCase().match(/[\p{L}\p{N}_-]+/gu) ?? []).includes(word);
const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;

function render({ model, el }) {
  const current = () => model.get("models").find((one) => one.label === model.get("model"));
  const choice = radioButtons("Model");
  const name = freshId();
  const words = make("fieldset", { class: "spf-bars" }, make("legend", {}, "Drift of each word"));
  const note = make("p", { class: "spf-note" });
  const before = pictureRow();
  const after = pictureRow();
  const root = make(
    "div", { class: "spf-widget spf-drift" },
    make("div", { class: "spf-controls" }, choice.root), words, note, before.root, after.root,
  );

  function showWord() {
    const one = current();
    const entry = one?.words.find(({ word }) => word === model.get("word"));
    if (!entry) return; // between two messages, in which model and word change
    for (const radio of words.querySelectorAll("input")) radio.checked = radio.value === entry.word;
    const texts = model.get("texts");
    const people = [...texts.keys()].filter((k) => has(texts[k], entry.word)).slice(0, SHOWN);
    const sure = entry.stands ? "more than chance explains" : "no more than chance explains";
    const count = people.length ? "" : " None of the portraits kept here has the word.";
    note.textContent = `Portraits of texts with “${entry.word}” moved by ${signed(entry.mean)} against the others, ${sure}.${count}`;
    setColumns(root, Math.max(1, people.length));
    const said = people.map((k) => texts[k]);
    before.show("before", people.map((k) => model.get("before")[k]), said, (text) => `${text}; before`);
    const moved = `portraits with “${entry.word}” moved by ${signed(entry.mean)} against the others, ${sure}`;
    after.show(one.label, people.map((k) => one.images[k]), said, (text) => `${text}; ${one.label}: ${moved}`);
    for (const { root: figure } of [before, after]) figure.hidden = people.length === 0;
  }

  function showModel() {
    const one = current();
    if (!one) return;
    choice.check(one.label);
    // One scale for all models, so that their bars can be compared.
    const all = model.get("models").flatMap((each) => each.words);
    const low = Math.min(0, ...all.map((entry) => entry.low));
    const high = Math.max(0, ...all.map((entry) => entry.high));
    const along = (value) => (100 * (value - low)) / (high - low || 1);
    const place = (bar, from, to) => {
      bar.style.left = `${along(Math.min(from, to))}%`;
      bar.style.width = `${Math.abs(along(to) - along(from))}%`;
    };
    words.replaceChildren(words.firstChild, ...one.words.map((entry) => {
      const bar = make("span", { class: "spf-bar" });
      const reach = make("span", { class: "spf-whisker" });
      const zero = make("span", { class: "spf-zero" });
      place(bar, 0, entry.mean);
      place(reach, entry.low, entry.high);
      zero.style.left = `${along(0)}%`;
      const value = `${signed(entry.mean)}${entry.stands ? " *" : ""}`;
      const spoken = `${entry.word}: ${signed(entry.mean)}, from ${signed(entry.low)} to ${signed(entry.high)}`;
      return make(
        "label", {},
        input("input", { type: "radio", name, value: entry.word, "aria-label": spoken }),
        make("span", { class: "spf-bar-name" }, entry.word),
        make("span", { class: "spf-bar-track", "aria-hidden": "true" }, zero, bar, reach),
        make("output", {}, value),
      );
    }));
    showWord();
  }

  function showAll() {
    choice.offer(model.get("models").map((one) => one.label));
    showModel();
  }

  const handlers = [
    [choice.root, "change", (event) => {
      const next = model.get("models").find((one) => one.label === event.target.value);
      const keeps = next.words.some(({ word }) => word === model.get("word"));
      save(model, { model: next.label, ...(!keeps && { word: next.words[0].word }) });
    }],
    [words, "change", (event) => save(model, { word: event.target.value })],
  ];
  const stop = connect(model, handlers, {
    "change:models": showAll, "change:texts": showAll, "change:before": showAll,
    "change:model": showModel, "change:word": showWord,
  });
  showAll();
  el.append(root);
  return stop;
}

export default { render };
