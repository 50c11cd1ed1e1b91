// Dense matrices of float64 in a work area, row-major without gaps: loading, storing and the vector operations that factorizations are made of.

/** Copies n float32 or float64 (`double`) elements, from element `at` on, to float64. */
export function loadVector(dst: usize, src: usize, at: usize, n: i32, double: bool): void {
  if (double) {
    memory.copy(dst, src + (at << 3), <usize>n << 3);
    return;
  }
  const p = src + (at << 2);
  for (let i: usize = 0; i < <usize>n; i++) store<f64>(dst + (i << 3), <f64>load<f32>(p + (i << 2)));
}

/** Copies a rows x cols matrix as its transpose. */
export function loadTransposed(dst: usize, src: usize, at: usize, rows: i32, cols: i32, double: bool): void {
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const i = at + <usize>r * <usize>cols + <usize>c;
      const x = double ? load<f64>(src + (i << 3)) : <f64>load<f32>(src + (i << 2));
      store<f64>(dst + ((<usize>c * <usize>rows + <usize>r) << 3), x);
    }
  }
}

// @ts-ignore: decorator
@inline
export function put(dst: usize, i: usize, x: f64, double: bool): void {
  if (double) store<f64>(dst + (i << 3), x);
  else store<f32>(dst + (i << 2), <f32>x);
}

export function storeVector(dst: usize, at: usize, src: usize, n: i32, double: bool): void {
  for (let i: usize = 0; i < <usize>n; i++) put(dst, at + i, load<f64>(src + (i << 3)), double);
}

/** Stores a rows x cols matrix that lies transposed (cols x rows) in the work area. */
export function storeTransposed(dst: usize, at: usize, rows: i32, cols: i32, src: usize, double: bool): void {
  for (let r = 0; r < rows; r++) {
    for (let c = 0; c < cols; c++) {
      const x = load<f64>(src + ((<usize>c * <usize>rows + <usize>r) << 3));
      put(dst, at + <usize>r * <usize>cols + <usize>c, x, double);
    }
  }
}

/** Fills n elements with NaN: the result of a matrix that has none. */
export function storeNaN(dst: usize, at: usize, n: usize, double: bool): void {
  for (let i: usize = 0; i < n; i++) put(dst, at + i, NaN, double);
}

/** Largest magnitude; NaN when there is a NaN. */
export function largest(x: usize, n: usize): f64 {
  let m = 0.0;
  for (const stop = x + (n << 3); x < stop; x += 8) {
    const v = Math.abs(load<f64>(x));
    if (!(v <= m)) m = v;
    if (v != v) return v;
  }
  return m;
}

export function dot(x: usize, y: usize, n: i32): f64 {
  let s = f64x2.splat(0);
  let t = s;
  for (const stop = x + (<usize>(n & ~3) << 3); x < stop; x += 32, y += 32) {
    s = f64x2.add(s, f64x2.mul(v128.load(x), v128.load(y)));
    t = f64x2.add(t, f64x2.mul(v128.load(x, 16), v128.load(y, 16)));
  }
  s = f64x2.add(s, t);
  let sum = f64x2.extract_lane(s, 0) + f64x2.extract_lane(s, 1);
  for (let i = n & 3; i > 0; i--, x += 8, y += 8) sum += load<f64>(x) * load<f64>(y);
  return sum;
}

/** y += a x */
export function axpy(a: f64, x: usize, y: usize, n: i32): void {
  const f = f64x2.splat(a);
  for (const stop = x + (<usize>(n & ~1) << 3); x < stop; x += 16, y += 16) v128.store(y, f64x2.add(v128.load(y), f64x2.mul(f, v128.load(x))));
  if (n & 1) store<f64>(y, load<f64>(y) + a * load<f64>(x));
}

export function scale(a: f64, x: usize, n: i32): void {
  for (let i: usize = 0; i < <usize>n; i++) store<f64>(x + (i << 3), a * load<f64>(x + (i << 3)));
}

export function swapRows(x: usize, y: usize, n: i32): void {
  for (const stop = x + (<usize>n << 3); x < stop; x += 8, y += 8) {
    const t = load<f64>(x);
    store<f64>(x, load<f64>(y));
    store<f64>(y, t);
  }
}

/** (x, y) becomes (c x - s y, s x + c y) */
export function rotate(x: usize, y: usize, n: i32, c: f64, s: f64): void {
  const cc = f64x2.splat(c);
  const ss = f64x2.splat(s);
  for (const stop = x + (<usize>(n & ~1) << 3); x < stop; x += 16, y += 16) {
    const u = v128.load(x);
    const v = v128.load(y);
    v128.store(x, f64x2.sub(f64x2.mul(cc, u), f64x2.mul(ss, v)));
    v128.store(y, f64x2.add(f64x2.mul(ss, u), f64x2.mul(cc, v)));
  }
  if (n & 1) {
    const u = load<f64>(x);
    const v = load<f64>(y);
    store<f64>(x, c * u - s * v);
    store<f64>(y, s * u + c * v);
  }
}

export function setIdentity(x: usize, n: i32): void {
  memory.fill(x, 0, (<usize>n * <usize>n) << 3);
  for (let i: usize = 0; i < <usize>n; i++) store<f64>(x + ((i * <usize>n + i) << 3), 1.0);
}

/**
 * Turns the vector x of n elements into the v of the Householder reflection H = 1 - tau v v^T, v[0] = 1, that maps x to beta e_0. Returns tau and
 * puts beta in place of v[0]; tau is 0 (H is the identity) when all but x[0] is zero already. Signs as in LAPACK: beta has the opposite sign of x[0].
 */
export function reflector(x: usize, n: i32): f64 {
  if (n < 2) return 0.0;
  const rest = largest(x + 8, n - 1);
  if (rest == 0) return 0.0;
  const head = load<f64>(x);
  // Scaled, so that squares neither overflow nor vanish.
  const m = max(rest, Math.abs(head));
  let sum = (head / m) * (head / m);
  for (let i: usize = 1; i < <usize>n; i++) {
    const v = load<f64>(x + (i << 3)) / m;
    sum += v * v;
  }
  const beta = head >= 0 ? -m * Math.sqrt(sum) : m * Math.sqrt(sum);
  scale(1.0 / (head - beta), x + 8, n - 1);
  store<f64>(x, beta);
  return (beta - head) / beta;
}
