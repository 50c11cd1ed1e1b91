/** Special functions in float64, for the references of ops: slow and simple, independent of the kernels' polynomials. */

/** 1 - erf(x) for x >= 2, by Laplace's continued fraction. */
function erfcTail(x: number): number {
  let c = 0;
  for (let k = 100; k >= 1; k--) c = k / 2 / (x + c);
  return Math.exp(-x * x) / ((x + c) * Math.sqrt(Math.PI));
}

/** Error function: a series of positive terms near 0, else the continued fraction. */
export function erf(x: number): number {
  if (Number.isNaN(x)) return x;
  const a = Math.abs(x);
  if (a >= 2.5) return Math.sign(x) * (a > 6 ? 1 : 1 - erfcTail(a));
  let sum = 0;
  for (let n = 0, term = x; n < 100; n++) {
    sum += term;
    term *= (2 * a * a) / (2 * n + 3);
  }
  return sum * Math.exp(-a * a) * (2 / Math.sqrt(Math.PI));
}

/** Inverse of erf, by bisection. */
export function erfinv(x: number): number {
  const a = Math.abs(x);
  if (!(a <= 1)) return Number.NaN;
  if (a === 1) return x * Number.POSITIVE_INFINITY;
  let low = 0;
  let high = 6.5;
  for (let i = 0; i < 80; i++) {
    const middle = (low + high) / 2;
    const less = middle < 2.5 ? erf(middle) < a : 1 - a < erfcTail(middle);
    if (less) low = middle;
    else high = middle;
  }
  return Math.sign(x) * low;
}

/** Nearest integer, halves to even. */
export function roundEven(x: number): number {
  const f = Math.floor(x);
  const d = x - f;
  return d > 0.5 || (d === 0.5 && f % 2 !== 0) ? f + 1 : f;
}
