// Maps as pictures, in the colours of map_encoding.py. Prepended to the modules of the explorers, after elements.js.

const BLUES = [[12, 18, 28], [0, 114, 178], [224, 243, 255]]; // for 0, 1/2 and 1
const ORANGES = [[12, 18, 28], [213, 94, 0], [255, 240, 214]];

/** The colour of a value from 0 to 1 on a scale of three colours: red, green, blue and opacity. */
const ramp = (stops) => (value) => {
  const [a, b] = value < 0.5 ? [stops[0], stops[1]] : [stops[1], stops[2]];
  const share = value < 0.5 ? 2 * value : 2 * value - 1;
  return [...a.map((channel, c) => channel + share * (b[c] - channel)), 255];
};

/** Draw values from 0 to 1 as a picture of one pixel each; `color` gives red, green, blue and opacity. */
function drawMap(canvas, values, [height, width], color) {
  canvas.width = width;
  canvas.height = height;
  const picture = new ImageData(width, height);
  values.forEach((value, i) => picture.data.set(color(value), 4 * i));
  canvas.getContext("2d").putImageData(picture, 0, 0);
}
