/** Quantization into small floats written down from the formats' definitions, in float64: what tests of mxfp4, mxfp8 and nvfp4 compare with. */
export type SmallMode = "mxfp4" | "mxfp8" | "nvfp4";
export const smallModes: readonly SmallMode[] = ["mxfp4", "mxfp8", "nvfp4"];
export const groupOf = (mode: SmallMode): number => (mode === "nvfp4" ? 16 : 32);
export const bitsOf = (mode: SmallMode): number => (mode === "mxfp8" ? 8 : 4);

/** Sign, 2 bits of exponent with bias 1, 1 bit of fraction. */
export function e2m1(code: number): number {
  const [s, e, m] = [code >> 3, (code >> 1) & 3, code & 1];
  return (s ? -1 : 1) * (e === 0 ? m / 2 : (1 + m / 2) * 2 ** (e - 1));
}
/** Sign, 4 bits of exponent with bias 7, 3 bits of fraction. */
export function e4m3(code: number): number {
  const [s, e, m] = [code >> 7, (code >> 3) & 15, code & 7];
  return (s ? -1 : 1) * (e === 0 ? (m / 8) * 2 ** -6 : (1 + m / 8) * 2 ** (e - 7));
}
export const e8m0 = (code: number): number => 2 ** (code - 127);
export const scaleOf = (mode: SmallMode, code: number): number => (mode === "nvfp4" ? e4m3(code) : e8m0(code));
/** All values of codes, without those that quantization never gives (the e4m3 codes 0x7f and 0xff). */
export const codesOf = (mode: SmallMode): number[] =>
  mode === "mxfp8" ? Array.from({ length: 256 }, (_, i) => i).filter((i) => (i & 127) !== 127) : Array.from({ length: 16 }, (_, i) => i);
export const valueOf = (mode: SmallMode, code: number): number => (mode === "mxfp8" ? e4m3(code) : e2m1(code));

/** Code i of packed words. */
export function codeAt(words: ArrayLike<number>, i: number, bits: number): number {
  const per = 32 / bits;
  return Math.floor((words[Math.floor(i / per)] as number) / 2 ** (bits * (i % per))) % 2 ** bits;
}
/** Values of packed words. With a global scale a scale is relative to 448 * 6. */
export function unpack(words: ArrayLike<number>, scales: ArrayLike<number>, mode: SmallMode, global?: number): Float64Array {
  const n = (words.length * 32) / bitsOf(mode);
  const by = global === undefined ? 1 : global / 2688;
  return Float64Array.from({ length: n }, (_, i) => scaleOf(mode, scales[Math.floor(i / groupOf(mode))] as number) * by * valueOf(mode, codeAt(words, i, bitsOf(mode))));
}
/** x [M, K] at xAt times a matrix at wAt: [N, K], or [K, N] when not transposed; with the sum of the magnitudes of the products. */
export function multiply(x: ArrayLike<number>, xAt: number, w: ArrayLike<number>, wAt: number, [M, N, K]: readonly [number, number, number], transposed: boolean): { value: number; size: number; most: number }[] {
  const out: { value: number; size: number; most: number }[] = [];
  for (let m = 0; m < M; m++) {
    for (let n = 0; n < N; n++) {
      let [value, size, most, weights] = [0, 0, 0, 0];
      for (let k = 0; k < K; k++) {
        const [a, b] = [x[xAt + m * K + k] as number, w[wAt + (transposed ? n * K + k : k * N + n)] as number];
        value += a * b;
        size += Math.abs(a * b);
        most = Math.max(most, Math.abs(a));
        weights += Math.abs(b);
      }
      out.push({ value, size, most: most * weights });
    }
  }
  return out;
}
