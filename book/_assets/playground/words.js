// What is seen of the playground's portraits and maps, in words for screen readers. places.js is loaded before it.

"use strict";

globalThis.spfWords = (() => {
  const NOTICEABLE = 24; // smallest difference of a colour channel, of 255, that counts as a change
  const named = ({ text, seed }) => `for the text “${text}”, seed ${seed}`;

  /** A portrait that is being painted. */
  const unfinished = (title, painting, step) =>
    `${title}, being painted: step ${step} of ${painting.steps} of the portrait ${named(painting)}`;

  /** A portrait whose painting was broken off. */
  const brokenOff = (title, painting) => `${title}, unfinished: the portrait ${named(painting)}`;

  /** Where the fine-tuned model's portrait differs from the base model's. */
  function difference([base, tuned]) {
    const changed = new Float32Array(base.height * base.width);
    for (let at = 0; at < base.pixels.length; at++) {
      const size = Math.abs(base.pixels[at] - tuned.pixels[at]);
      const position = Math.floor(at / 4);
      changed[position] = Math.max(changed[position], size);
    }
    if (changed.every((size) => size === 0)) return "the same picture as the base model's";
    const noticed = changed.map((size) => (size > NOTICEABLE ? 1 : 0));
    const share = noticed.reduce((sum, one) => sum + one, 0) / noticed.length;
    const place = placeOfHighest(changed, [base.height, base.width]);
    const most = place ? `, most ${place}` : "";
    if (share === 0) return `hardly different from the base model's${most}`;
    return `different from the base model's on ${Math.max(1, Math.round(100 * share))} % of the picture${most}`;
  }

  /** A portrait that is finished; `portraits` are those of both models, if there are two. */
  function finished(title, side, painting, portraits) {
    const compared = side === "tuned" && portraits.length > 1 ? `; ${difference(portraits)}` : "";
    return `${title}: portrait ${named(painting)}${compared}`;
  }

  /** The map of a word that lies over a portrait. */
  const map = (word, title, values, size) =>
    `Attention map of “${word}” over the portrait, ${title}: ${mapInWords(values, size)}`;

  /** Which recipe made the adapter, where the target has none of the recipe that the page starts with. */
  function recipe(methods, offered, chosen) {
    const [best] = Object.keys(methods).slice(-1);
    if (offered.some(({ method }) => method === best)) return "";
    const used = methods[chosen] ? ` The adapter is that of ${methods[chosen]}.` : "";
    return `This target has no adapter of ${methods[best]}.${used}`;
  }

  return { unfinished, brokenOff, finished, map, recipe };
})();
