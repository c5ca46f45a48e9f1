// CLIP's byte-level BPE, from a tokenizer.json of Hugging Face's tokenizers.

/** What a byte is written as: printable ones as themselves, the others as characters from 256 on. */
function byteCharacters() {
  const characters = [];
  let next = 256;
  for (let byte = 0; byte < 256; byte++) {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    characters.push(String.fromCodePoint(printable ? byte : next++));
  }
  return characters;
}

const WORDS = /<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+/gu;

/**
 * A function from a text to its token ids, padded to the text encoder's length, with the word of each token.
 * `model` is the file's "model", `described` the exported description (length, start, end, pad).
 */
function makeTokenizer(model, described) {
  const characters = byteCharacters();
  const ranks = new Map(model.merges.map((pair, rank) => [Array.isArray(pair) ? pair.join(" ") : pair, rank]));
  const special = new Map([["<|startoftext|>", described.start], ["<|endoftext|>", described.end]]);

  function pieces(word) {
    const parts = [...new TextEncoder().encode(word)].map((byte) => characters[byte]);
    parts[parts.length - 1] += "</w>";
    for (;;) {
      let best = -1;
      let lowest = Infinity;
      for (let at = 0; at + 1 < parts.length; at++) {
        const rank = ranks.get(`${parts[at]} ${parts[at + 1]}`) ?? Infinity;
        if (rank < lowest) [best, lowest] = [at, rank];
      }
      if (best < 0) return parts;
      const [left, right] = [parts[best], parts[best + 1]];
      for (let at = 0; at + 1 < parts.length; at++) {
        if (parts[at] === left && parts[at + 1] === right) parts.splice(at, 2, left + right);
      }
    }
  }

  return (text) => {
    const ids = [described.start];
    const words = [{ word: "start of text", tokens: [0] }];
    for (const [word] of text.normalize("NFC").replace(/\s+/gu, " ").toLowerCase().matchAll(WORDS)) {
      const found = special.has(word) ? [special.get(word)] : pieces(word).map((part) => model.vocab[part] ?? described.end);
      words.push({ word, tokens: found.map((_, at) => ids.length + at) });
      ids.push(...found);
    }
    ids.push(described.end);
    words.push({ word: "end of text", tokens: [ids.length - 1] });
    if (ids.length > described.length) {
      throw new Error(`The text has ${ids.length} tokens. The text encoder takes ${described.length}.`);
    }
    while (ids.length < described.length) ids.push(described.pad);
    return { ids, words };
  };
}
