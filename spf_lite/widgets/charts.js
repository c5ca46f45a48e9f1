// Small line charts with a marker that follows a slider. Prepended to modules after elements.js.

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 320;
const HIGH = 120;
const PAD = { left: 8, right: 8, top: 8, bottom: 8 };
const TEXT = 15; // the height of a line of ticks
const LETTER = 7.5; // the width of a digit in it

// A line is known by its colour, its dashes and its marks: many readers do not see all the colours.
const DASHES = ["none", "8 3", "2 3", "10 3 2 3", "5 5", "12 3 2 3 2 3"];
const MARKS = [
  "M-3.2 0a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0Z", // a circle
  "M-3-3H3V3H-3Z",
  "M0-4L3.8 3H-3.8Z",
  "M0-4.6L4.6 0L0 4.6L-4.6 0Z",
  "M0 4L3.8-3H-3.8Z",
  "M-1.4-4.2H1.4V-1.4H4.2V1.4H1.4V4.2H-1.4V1.4H-4.2V-1.4H-1.4Z", // a cross
];
const MOST_MARKS = 8; // on a line of many points
const MOST_TOLD = 12; // points whose values the text for screen readers holds

function shape(tag, attributes = {}) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** A number to two or three significant digits. */
function brief(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  return size === 0 ? "0" : size < 0.001 ? value.toExponential(1) : value.toPrecision(size < 0.1 ? 2 : 3);
}

/** The value of the last point at or before x; null before the first. */
function valueAt(points, x) {
  let found = null;
  for (const [at, value] of points) {
    if (at > x) break;
    found = value;
  }
  return found;
}

const rounded = (value) => Number(value.toPrecision(3));

/** The top of an axis from 0 that reaches a value: a round number whose half is round as well. */
function roundTop(value) {
  if (!(value > 1e-9)) return 1;
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 3, 4, 6, 8, 10].map((step) => rounded(step * unit)).find((top) => top >= value * (1 - 1e-9));
}

/** The line itself, and its mark at each of the places given. */
function drawLine(number, places, along = places) {
  const color = `spf-color-${number % 6}`;
  const mark = MARKS[(number + Math.floor(number / 6)) % 6]; // a seventh line has the first one's colour alone
  return [
    shape("polyline", {
      points: along.map(String).join(" "), class: `spf-line ${color}`, "stroke-dasharray": DASHES[number % 6],
    }),
    ...places.map(([x, y]) => shape("path", { d: mark, transform: `translate(${x} ${y})`, class: `spf-dot ${color}` })),
  ];
}

/** A piece of a line, as it stands in the legend. */
function key(number) {
  const svg = shape("svg", { viewBox: "0 0 34 12", class: "spf-key", "aria-hidden": "true" });
  svg.append(...drawLine(number, [[17, 6]], [[1, 6], [33, 6]]));
  return svg;
}

/**
 * Several lines over one axis, a line that can be moved along it, and a legend with the values there.
 * With `own` every line is scaled by its own maximum: its shape is shown, not its size. Else all lines have one scale,
 * from 0 to `most`, or to a round number that reaches all values. `ticks` holds a text for each integer of the axis, and
 * every measured value has its mark. `dotted` is the place of a dotted vertical line. `mark` of a line is the number of
 * its colour, dashes and marks, if that is not its place among the lines.
 */
function chart(title, lines, { from, to, own, dotted, most, ticks }) {
  const root = make("figure", { class: "spf-chart" }, make("figcaption", {}, title));
  const finite = (points) => points.filter(([, value]) => Number.isFinite(value) && value !== null);
  const top = (points) => Math.max(1e-12, ...finite(points).map(([, value]) => value));
  const common = most ?? roundTop(Math.max(...lines.map(({ points }) => top(points))));
  const levels = own ? [] : [0, rounded(common / 2), common];
  const widest = Math.max(...levels.map((value) => String(value).length), 0);
  const pad = { ...PAD, ...(widest && { left: LETTER * widest + 8 }), ...(ticks && { right: 16 }) };
  const floor = HIGH - pad.bottom;
  const high = HIGH + TEXT;
  const svg = shape("svg", { viewBox: `0 0 ${WIDE} ${high}`, role: "img" });
  const legend = make("ul");
  const across = (x) => pad.left + ((WIDE - pad.left - pad.right) * (x - from)) / (to - from || 1);
  const written = (value) => (
    most && Number.isFinite(value) ? value.toFixed(most < 0.1 ? 3 : 2) : brief(value)
  );
  const write = (text, x, y, anchor) => {
    const label = shape("text", { x, y, "text-anchor": anchor, class: "spf-tick" });
    label.textContent = text;
    svg.append(label);
  };
  const level = (y, kind) =>
    svg.append(shape("line", { x1: pad.left, x2: WIDE - pad.right, y1: y, y2: y, class: kind }));
  level(floor, "spf-axis");
  for (const value of levels) {
    const y = floor - ((floor - pad.top) * value) / common;
    if (value) level(y, "spf-grid");
    write(String(value), pad.left - 6, y + 4.5, "end");
  }
  if (ticks) {
    const longest = Math.max(...ticks.map((text) => text.length));
    const room = (WIDE - pad.left - pad.right) / Math.max(1, to - from);
    const every = Math.ceil((LETTER * longest + 6) / room); // more texts would overlap
    ticks.forEach((text, x) => { if ((to - x) % every === 0) write(text, across(x), high - 2, "middle"); });
  } else {
    write(String(from), pad.left, high - 2, "start");
    if (to > from) write(String(to), WIDE - pad.right, high - 2, "end");
  }
  if (dotted !== null && dotted !== undefined) {
    const x = across(dotted);
    svg.append(shape("line", { x1: x, x2: x, y1: pad.top, y2: floor, class: "spf-stage-line" }));
  }
  const marker = shape("line", { y1: 0, y2: floor, class: "spf-marker" });
  svg.append(marker); // beneath the lines, so that it hides no mark
  const outputs = lines.map(({ name, points, mark }, number) => {
    const scale = own ? top(points) : common;
    const up = (value) => floor - ((floor - pad.top) * Math.max(value, 0)) / scale;
    const at = finite(points).map(([x, value]) => [across(x).toFixed(1), up(value).toFixed(1)]);
    const every = ticks ? 1 : Math.ceil(at.length / MOST_MARKS);
    svg.append(...drawLine(mark ?? number, at.filter((_, place) => place % every === 0), at));
    const output = make("output");
    legend.append(make("li", {}, key(mark ?? number), ` ${name} `, output));
    return output;
  });
  root.append(svg, legend);
  const told = lines.map(({ name, points }) => {
    const all = finite(points).map(([x, value]) => `${written(value)} at ${ticks ? ticks[x] : x}`);
    return `${name}: ${all.length > MOST_TOLD ? `from ${all[0]} to ${all[all.length - 1]}` : all.join(", ")}`;
  });
  /** The values at x in words. */
  function saidAt(x) {
    return lines.map(({ name, points }) => {
      const value = valueAt(points, x);
      return `${name} ${Number.isFinite(value) ? written(value) : "not measured"}`;
    }).join(", ");
  }
  /** Move the marker to x, which is called `place` in words. */
  function moveTo(x, place) {
    marker.setAttribute("x1", across(x));
    marker.setAttribute("x2", across(x));
    lines.forEach(({ points }, number) => { outputs[number].textContent = written(valueAt(points, x)); });
    svg.setAttribute("aria-label", `${title}. At ${place}: ${saidAt(x)}. Values: ${told.join("; ")}.`);
  }
  return { root, moveTo, saidAt };
}
