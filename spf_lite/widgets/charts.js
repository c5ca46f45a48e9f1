// Small line charts that follow a slider. Prepended to the modules of the widgets that draw them.

const SVG = "http://www.w3.org/2000/svg";
const WIDE = 320;
const HIGH = 120;
const PAD = { left: 6, right: 6, top: 8, bottom: 8 };

function shape(tag, attributes = {}) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** A number as a reader wants it: three digits that say something. */
function brief(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  return size === 0 ? "0" : size < 0.001 ? value.toExponential(1) : value.toPrecision(size < 0.1 ? 2 : 3);
}

/** The value of the last point that is not behind x; null before the first. */
function valueAt(points, x) {
  let found = null;
  for (const [at, value] of points) {
    if (at > x) break;
    found = value;
  }
  return found;
}

/**
 * Several lines over one axis, a dashed line that can be moved along it, and a legend with the values there.
 * Every line is stretched to its own largest value when `own` is set: then only its course is shown, not its size.
 */
function chart(title, lines, { from, to, own, dotted }) {
  const root = document.createElement("figure");
  root.className = "spf-chart";
  const caption = document.createElement("figcaption");
  caption.textContent = title;
  const svg = shape("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, role: "img", "aria-label": title });
  const legend = document.createElement("ul");
  const across = (x) => PAD.left + ((WIDE - PAD.left - PAD.right) * (x - from)) / (to - from || 1);
  const finite = (points) => points.filter(([, value]) => Number.isFinite(value) && value !== null);
  const top = (points) => Math.max(1e-12, ...finite(points).map(([, value]) => value));
  const common = Math.max(...lines.map(({ points }) => top(points)));
  svg.append(shape("line", {
    x1: PAD.left, x2: WIDE - PAD.right, y1: HIGH - PAD.bottom, y2: HIGH - PAD.bottom, class: "spf-axis",
  }));
  if (dotted !== null && dotted !== undefined) {
    const x = across(dotted);
    svg.append(shape("line", { x1: x, x2: x, y1: PAD.top, y2: HIGH - PAD.bottom, class: "spf-stage-line" }));
  }
  const outputs = lines.map(({ name, points }, number) => {
    const most = own ? top(points) : common;
    const up = (value) => HIGH - PAD.bottom - ((HIGH - PAD.top - PAD.bottom) * Math.max(value, 0)) / most;
    svg.append(shape("polyline", {
      points: finite(points).map(([x, value]) => `${across(x).toFixed(1)},${up(value).toFixed(1)}`).join(" "),
      class: `spf-line spf-color-${number % 6}`,
    }));
    const item = document.createElement("li");
    const swatch = document.createElement("span");
    swatch.className = `spf-swatch spf-color-${number % 6}`;
    const output = document.createElement("output");
    item.append(swatch, ` ${name} `, output);
    legend.append(item);
    return output;
  });
  const marker = shape("line", { y1: 0, y2: HIGH, class: "spf-marker" });
  svg.append(marker);
  root.append(caption, svg, legend);
  function moveTo(x) {
    marker.setAttribute("x1", across(x));
    marker.setAttribute("x2", across(x));
    lines.forEach(({ points }, number) => { outputs[number].textContent = brief(valueAt(points, x)); });
  }
  return { root, moveTo };
}
