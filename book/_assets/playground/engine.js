// The worker: text encoder, UNet and decoders in ONNX Runtime, and the sampling loop around them.
//
// It receives {type: "start", files}, {type: "adapter", name, file} and {type: "paint", ...}, and answers with
// {type: "ready"}, {type: "adapter"}, {type: "step"}, {type: "done"} or {type: "error"}. A new "paint" ends the old one.
// Every other answer has the ticket of what it answers.

/* global ort, makeTokenizer, normal, readTensors, merged */

let model = null;
let latest = 0;
const adapters = new Map();

async function unpacked(bytes) {
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

const asText = (buffer) => new TextDecoder().decode(buffer);

async function start(files) {
  const began = performance.now();
  const entries = await Promise.all(Object.entries(files).map(async ([name, file]) => [name, await unpacked(file)]));
  const found = Object.fromEntries(entries);
  const unpackedAt = performance.now();
  // On a page that is opened as a file, ONNX Runtime cannot import its module by address.
  ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(new Blob([found["ort.mjs"]], { type: "text/javascript" })) };
  ort.env.wasm.wasmBinary = found["ort.wasm"];
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  const described = JSON.parse(asText(found["model.json"]));
  const sessions = {};
  for (const name of described.graphs) {
    sessions[name] = await ort.InferenceSession.create(new Uint8Array(found[`${name}.onnx`]), { logSeverityLevel: 3 });
  }
  const weights = readTensors(found["unet_weights.safetensors"]);
  const tokenizer = makeTokenizer(JSON.parse(asText(found["tokenizer.json"])).model, described);
  model = { described, sessions, weights, tokenizer };
  return { unpacked: unpackedAt - began, started: performance.now() - unpackedAt };
}

const tensor = (values, shape) => new ort.Tensor("float32", values, shape);

/** The embeddings of texts, one after the other: (texts, L, width). */
async function encode(texts) {
  const ids = texts.flatMap((text) => model.tokenizer(text).ids).map(BigInt);
  const shape = [texts.length, model.described.length];
  const { text } = await model.sessions.text_encoder.run({ ids: new ort.Tensor("int64", BigInt64Array.from(ids), shape) });
  return text;
}

async function decoded(name, latents) {
  const session = model.sessions[name] ?? model.sessions.decoder;
  const { images } = await session.run({ latents: tensor(latents, [1, ...model.described.latents]) });
  const [height, width] = images.dims.slice(2);
  const pixels = new Uint8ClampedArray(4 * height * width);
  for (let at = 0; at < height * width; at++) {
    for (let channel = 0; channel < 3; channel++) {
      pixels[4 * at + channel] = Math.round(255 * images.data[channel * height * width + at]); // clamps
    }
    pixels[4 * at + 3] = 255;
  }
  return { pixels, height, width };
}

/** One portrait's state between steps. */
function begin(name, weights, embeddings, seed) {
  const size = model.described.latents.reduce((product, side) => product * side, 1);
  const inputs = {};
  for (const [layer, weight] of weights) inputs[layer] = tensor(weight.values, weight.shape);
  return { name, inputs, embeddings, latents: normal(seed, size), maps: null };
}

/** One DDIM step with classifier-free guidance; returns the prediction of the clean latents. */
async function step(side, [timestep, now, next], guidance) {
  const { latents, prediction } = model.described;
  const count = side.embeddings.dims[0];
  const size = side.latents.length;
  const batch = new Float32Array(count * size);
  for (let item = 0; item < count; item++) batch.set(side.latents, item * size);
  const outputs = await model.sessions.unet.run({
    latents: tensor(batch, [count, ...latents]),
    timesteps: new ort.Tensor("int64", BigInt64Array.from({ length: count }, () => BigInt(timestep)), [count]),
    text: side.embeddings,
    ...side.inputs,
  });
  const predicted = outputs.prediction.data;
  const maps = outputs.maps.data.slice(outputs.maps.data.length * (1 - 1 / count)); // those of the text, not of ""
  side.maps = side.maps ? side.maps.map((value, at) => value + maps[at]) : maps;
  side.mapSize = outputs.maps.dims.slice(1);
  const clean = new Float32Array(size);
  for (let at = 0; at < size; at++) {
    const value = count === 1 ? predicted[at] : predicted[at] + guidance * (predicted[size + at] - predicted[at]);
    const z = side.latents[at];
    const [signal, noise] = [Math.sqrt(now), Math.sqrt(1 - now)];
    const velocity = prediction === "v_prediction";
    clean[at] = velocity ? signal * z - noise * value : (z - noise * value) / signal;
    const epsilon = velocity ? signal * value + noise * z : value;
    side.latents[at] = Math.sqrt(next) * clean[at] + Math.sqrt(1 - next) * epsilon;
  }
  return clean;
}

async function paint({ id, text, seed, steps, guidance, adapter, strength }) {
  const began = performance.now();
  const { words } = model.tokenizer(text);
  const embeddings = await encode(guidance > 1 ? ["", text] : [text]);
  const sides = [begin("base", model.weights, embeddings, seed)];
  if (adapter) sides.push(begin("tuned", merged(model.weights, adapters.get(adapter), strength), embeddings, seed));
  const schedule = model.described.schedules[steps];
  for (const [at, times] of schedule.entries()) {
    const shown = [];
    for (const side of sides) {
      const clean = await step(side, times, guidance);
      shown.push({ side: side.name, ...(await decoded("preview", clean)) });
      if (id !== latest) return;
    }
    postMessage({ type: "step", id, step: at + 1, steps, portraits: shown });
    await new Promise((resolve) => setTimeout(resolve)); // lets a newer request arrive
  }
  const portraits = [];
  for (const side of sides) {
    const maps = side.maps.map((value) => value / steps);
    portraits.push({ side: side.name, ...(await decoded("decoder", side.latents)), maps, mapSize: side.mapSize });
  }
  if (id === latest) postMessage({ type: "done", id, portraits, words, milliseconds: performance.now() - began });
}

onmessage = async ({ data }) => {
  const { ticket } = data;
  if (data.type === "paint") latest = data.id;
  try {
    if (data.type === "start") postMessage({ type: "ready", ticket, ...(await start(data.files)) });
    if (data.type === "paint") await paint(data);
    if (data.type === "adapter") {
      adapters.set(data.name, readTensors(await unpacked(data.file)));
      postMessage({ type: "adapter", ticket });
    }
    if (data.type === "tokens") postMessage({ type: "tokens", ticket, tokens: data.texts.map((text) => model.tokenizer(text).ids) });
    if (data.type === "noise") postMessage({ type: "noise", ticket, values: normal(data.seed, data.count) });
  } catch (error) {
    postMessage({ type: "error", ticket, id: data.id, request: data.type, message: error.message ?? String(error) });
  }
};
