// torch.randn of a CPU generator: the same seed gives the initial noise that it gives in Python.

/** The Mersenne Twister MT19937 (Matsumoto & Nishimura 1998): 32 random bits a call. */
function mersenneTwister(seed) {
  const state = new Uint32Array(624);
  state[0] = Number(BigInt.asUintN(32, BigInt(seed)));
  for (let at = 1; at < 624; at++) {
    const previous = state[at - 1] ^ (state[at - 1] >>> 30);
    state[at] = Math.imul(1812433253, previous) + at;
  }
  let at = 624;
  return () => {
    if (at === 624) {
      for (let k = 0; k < 624; k++) {
        const mixed = (state[k] & 0x80000000) | (state[(k + 1) % 624] & 0x7fffffff);
        state[k] = state[(k + 397) % 624] ^ (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0);
      }
      at = 0;
    }
    let bits = state[at++];
    bits ^= bits >>> 11;
    bits ^= (bits << 7) & 0x9d2c5680;
    bits ^= (bits << 15) & 0xefc60000;
    return (bits ^ (bits >>> 18)) >>> 0;
  };
}

/** `count` standard normal numbers, a multiple of 16: in each 16, eight pairs by Box and Muller's transform. */
function normal(seed, count) {
  const random = mersenneTwister(seed);
  const values = Float32Array.from({ length: count }, () => (random() & 0xffffff) / 0x1000000);
  for (let start = 0; start < count; start += 16) {
    for (let at = start; at < start + 8; at++) {
      const radius = Math.sqrt(-2 * Math.log(1 - values[at]));
      const angle = 2 * Math.PI * values[at + 8];
      values[at] = radius * Math.cos(angle);
      values[at + 8] = radius * Math.sin(angle);
    }
  }
  return values;
}
