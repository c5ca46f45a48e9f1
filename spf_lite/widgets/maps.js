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

/** Outline a region on a canvas: dark dashes on white, along the borders between its positions and others. */
function drawOutline(canvas, inside, [height, width], scale = 24) {
  canvas.width = scale * width;
  canvas.height = scale * height;
  const context = canvas.getContext("2d");
  const at = (y, x) => y >= 0 && y < height && x >= 0 && x < width && inside[y * width + x];
  context.beginPath();
  for (let y = 0; y <= height; y += 1) {
    for (let x = 0; x <= width; x += 1) {
      if (at(y, x) !== at(y - 1, x) && x < width) {
        context.moveTo(x * scale, y * scale);
        context.lineTo((x + 1) * scale, y * scale);
      }
      if (at(y, x) !== at(y, x - 1) && y < height) {
        context.moveTo(x * scale, y * scale);
        context.lineTo(x * scale, (y + 1) * scale);
      }
    }
  }
  context.lineWidth = 5;
  context.strokeStyle = "#ffffff";
  context.stroke();
  context.lineWidth = 2.5;
  context.setLineDash([scale / 2, scale / 2]);
  context.strokeStyle = "#111111";
  context.stroke();
}
