// Small line charts with a marker that follows a slider. Prepended to modules after elements.js.

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 320;
const HIGH = 120;
const PAD = { left: 6, right: 6, top: 8, bottom: 8 };

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

/**
 * Several lines over one axis, a line that can be moved along it, and a legend with the values there.
 * With `own` every line is scaled by its own maximum: its shape is shown, not its size. `most` gives all lines one scale
 * from 0 to a number that is written beside it. `ticks` holds a text for each integer of the axis, and draws a dot at
 * each measured value. `dotted` is the place of a dotted vertical line.
 */
function chart(title, lines, { from, to, own, dotted, most, ticks }) {
  const root = make("figure", { class: "spf-chart" }, make("figcaption", {}, title));
  const pad = { ...PAD, ...(most && { left: 18 }), ...(ticks && { right: 14 }) };
  const floor = HIGH - pad.bottom;
  const high = HIGH + (ticks ? 10 : 0);
  const svg = shape("svg", { viewBox: `0 0 ${WIDE} ${high}`, role: "img", "aria-label": title });
  const legend = make("ul");
  const across = (x) => pad.left + ((WIDE - pad.left - pad.right) * (x - from)) / (to - from || 1);
  const written = (value) => (most && Number.isFinite(value) ? value.toFixed(2) : brief(value));
  const finite = (points) => points.filter(([, value]) => Number.isFinite(value) && value !== null);
  const top = (points) => Math.max(1e-12, ...finite(points).map(([, value]) => value));
  const common = most ?? Math.max(...lines.map(({ points }) => top(points)));
  const write = (text, x, y, anchor) => {
    const label = shape("text", { x, y, "text-anchor": anchor, class: "spf-tick" });
    label.textContent = text;
    svg.append(label);
  };
  const level = (y, kind) =>
    svg.append(shape("line", { x1: pad.left, x2: WIDE - pad.right, y1: y, y2: y, class: kind }));
  level(floor, "spf-axis");
  if (most) {
    level(pad.top, "spf-grid");
    write("0", pad.left - 6, floor + 3, "end");
    write(String(most), pad.left - 6, pad.top + 3, "end");
  }
  if (ticks) {
    const every = Math.ceil(ticks.length / 10); // more texts would overlap
    ticks.forEach((text, x) => { if ((to - x) % every === 0) write(text, across(x), high - 2, "middle"); });
    svg.setAttribute("aria-label", `${title}. ${lines.map(({ name, points }) =>
      `${name}: ${finite(points).map(([x, value]) => `${written(value)} at ${ticks[x]}`).join(", ")}`).join("; ")}.`);
  }
  if (dotted !== null && dotted !== undefined) {
    const x = across(dotted);
    svg.append(shape("line", { x1: x, x2: x, y1: pad.top, y2: floor, class: "spf-stage-line" }));
  }
  const marker = shape("line", { y1: 0, y2: ticks ? floor : high, class: "spf-marker" });
  if (ticks) svg.append(marker); // beneath the dots, so that it hides none
  const outputs = lines.map(({ name, points }, number) => {
    const color = `spf-color-${number % 6}`;
    const scale = own ? top(points) : common;
    const up = (value) => floor - ((floor - pad.top) * Math.max(value, 0)) / scale;
    const at = finite(points).map(([x, value]) => [across(x).toFixed(1), up(value).toFixed(1)]);
    svg.append(shape("polyline", { points: at.map(String).join(" "), class: `spf-line ${color}` }));
    if (ticks) for (const [cx, cy] of at) svg.append(shape("circle", { cx, cy, r: 3, class: `spf-dot ${color}` }));
    const output = make("output");
    legend.append(make("li", {}, make("span", { class: `spf-swatch ${color}` }), ` ${name} `, output));
    return output;
  });
  if (!ticks) svg.append(marker);
  root.append(svg, legend);
  function moveTo(x) {
    marker.setAttribute("x1", across(x));
    marker.setAttribute("x2", across(x));
    lines.forEach(({ points }, number) => { outputs[number].textContent = written(valueAt(points, x)); });
  }
  return { root, moveTo };
}
