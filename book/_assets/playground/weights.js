// Weights: safetensors files, and a low-rank adapter merged into the weights that it changes.

/** The numbers that 16 bits stand for. */
const HALVES = Float32Array.from({ length: 65536 }, (_, bits) => {
  const [sign, exponent, fraction] = [bits & 0x8000 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
});

/** The tensors of a safetensors file by name: shape and values as float32. */
function readTensors(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const tensors = new Map();
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const bytes = buffer.slice(8 + length + entry.data_offsets[0], 8 + length + entry.data_offsets[1]);
    if (entry.dtype !== "F16" && entry.dtype !== "F32") throw new Error(`${name} has the type ${entry.dtype}`);
    const values = entry.dtype === "F32" ? new Float32Array(bytes) : new Float32Array(bytes.byteLength / 2);
    if (entry.dtype === "F16") new Uint16Array(bytes).forEach((bits, at) => { values[at] = HALVES[bits]; });
    tensors.set(name, { shape: entry.shape, values });
  }
  return tensors;
}

/** W + s B A for every layer of an adapter; layers without factors keep W. */
function merged(weights, factors, strength) {
  const result = new Map(weights);
  if (!factors || strength === 0) return result;
  for (const [name, weight] of weights) {
    const down = factors.get(`${name}.down`);
    const up = factors.get(`${name}.up`);
    if (!down || !up) continue;
    const [outputs, rank] = up.shape;
    const inputs = down.values.length / rank; // of a convolution: channels times the kernel's positions
    const values = Float32Array.from(weight.values);
    for (let row = 0; row < outputs; row++) {
      for (let r = 0; r < rank; r++) {
        const factor = strength * up.values[row * rank + r];
        const [from, to] = [r * inputs, row * inputs];
        for (let column = 0; column < inputs; column++) values[to + column] += factor * down.values[from + column];
      }
    }
    result.set(name, { shape: weight.shape, values });
  }
  return result;
}
