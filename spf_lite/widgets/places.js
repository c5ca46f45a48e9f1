// Where a map is high, in words. Prepended to the modules of the explorers, and loaded by the playground's page.

const PLACES = [
  "at the upper left", "at the top", "at the upper right",
  "at the left", "in the middle", "at the right",
  "at the lower left", "at the bottom", "at the lower right",
];

/** The ninth of a map that has the highest mean, in words; undefined if all have the same. */
function placeOfHighest(values, [height, width]) {
  const sums = new Float64Array(9);
  const counts = new Float64Array(9);
  values.forEach((value, i) => {
    const place = 3 * Math.floor((3 * Math.floor(i / width)) / height) + Math.floor((3 * (i % width)) / width);
    sums[place] += value;
    counts[place] += 1;
  });
  const means = [...sums].map((sum, place) => sum / Math.max(1, counts[place]));
  const highest = Math.max(...means);
  return highest - Math.min(...means) > 1e-9 ? PLACES[means.indexOf(highest)] : undefined;
}

/** What is seen of a map: where it is high, and on how much of the picture. */
function mapInWords(values, size) {
  const highest = Math.max(...values);
  const place = placeOfHighest(values, size);
  if (highest <= 0) return "zero everywhere";
  if (!place) return "the same everywhere";
  const share = values.filter((value) => value >= highest / 2).length / values.length;
  return `highest ${place}, at least half of its maximum on ${Math.max(1, Math.round(100 * share))} % of the picture`;
}
