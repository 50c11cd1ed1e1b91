/** Initialisers, exported as `nn.init`. Each returns a function that makes an array of the shape of its argument. */
import { core as mx, type Dtype, type MxArray } from "../index.ts";

export type Initializer = (a: MxArray) => MxArray;
export type FanMode = "fanIn" | "fanOut";

export const constant = (value: number, dtype: Dtype = mx.float32): Initializer => (a) => mx.full(a.shape, value, dtype);
export const normal = (mean = 0, std = 1, dtype: Dtype = mx.float32): Initializer => (a) => mx.random.normal(a.shape, dtype, mean, std);
export const uniform = (low = 0, high = 1, dtype: Dtype = mx.float32): Initializer => (a) => mx.random.uniform(low, high, a.shape, dtype);

/** Identity matrix. Throws unless the argument is a square matrix. */
export const identity = (dtype: Dtype = mx.float32): Initializer => (a) => {
  if (a.ndim !== 2 || a.shape[0] !== a.shape[1]) throw new Error(`[init.identity] needs a square matrix, got shape (${a.shape})`);
  return mx.eye(a.shape[0] as number, a.shape[0] as number, 0, dtype);
};

/** Inputs and outputs of one unit of a weight (out, ...window, in). */
function fans(op: string, a: MxArray): { fanIn: number; fanOut: number } {
  if (a.ndim < 2) throw new Error(`[init.${op}] needs at least two dimensions, got shape (${a.shape})`);
  const window = a.shape.slice(1, -1).reduce((n, d) => n * d, 1);
  return { fanIn: (a.shape[a.ndim - 1] as number) * window, fanOut: (a.shape[0] as number) * window };
}
function fanOf(op: string, a: MxArray, mode: FanMode): number {
  if (mode !== "fanIn" && mode !== "fanOut") throw new Error(`[init.${op}] mode must be "fanIn" or "fanOut", got ${JSON.stringify(mode)}`);
  return fans(op, a)[mode];
}

/** Normal with standard deviation gain sqrt(2 / (fanIn + fanOut)) (Glorot and Bengio 2010). */
export const glorotNormal = (dtype: Dtype = mx.float32) => (a: MxArray, gain = 1): MxArray => {
  const { fanIn, fanOut } = fans("glorotNormal", a);
  return mx.random.normal(a.shape, dtype, 0, gain * Math.sqrt(2 / (fanIn + fanOut)));
};
/** Uniform within gain sqrt(6 / (fanIn + fanOut)) (Glorot and Bengio 2010). */
export const glorotUniform = (dtype: Dtype = mx.float32) => (a: MxArray, gain = 1): MxArray => {
  const { fanIn, fanOut } = fans("glorotUniform", a);
  const limit = gain * Math.sqrt(6 / (fanIn + fanOut));
  return mx.random.uniform(-limit, limit, a.shape, dtype);
};
/** Normal with standard deviation gain / sqrt(fan) (He et al. 2015). */
export const heNormal = (dtype: Dtype = mx.float32) => (a: MxArray, mode: FanMode = "fanIn", gain = 1): MxArray =>
  mx.random.normal(a.shape, dtype, 0, gain / Math.sqrt(fanOf("heNormal", a, mode)));
/** Uniform within gain sqrt(3 / fan) (He et al. 2015). */
export const heUniform = (dtype: Dtype = mx.float32) => (a: MxArray, mode: FanMode = "fanIn", gain = 1): MxArray => {
  const limit = gain * Math.sqrt(3 / fanOf("heUniform", a, mode));
  return mx.random.uniform(-limit, limit, a.shape, dtype);
};

/** Normal, with the part `sparsity` of each row set to zero at random places. Throws unless the argument is a matrix. */
export const sparse = (sparsity: number, mean = 0, std = 1, dtype: Dtype = mx.float32): Initializer => (a) => {
  if (a.ndim !== 2) throw new Error(`[init.sparse] needs a matrix, got shape (${a.shape})`);
  if (!(sparsity >= 0 && sparsity <= 1)) throw new Error(`[init.sparse] sparsity must be between 0 and 1, got ${sparsity}`);
  const [rows, columns] = a.shape as [number, number];
  const zeros = Math.ceil(sparsity * columns);
  const values = mx.random.normal(a.shape, dtype, mean, std);
  if (zeros === 0) return values;
  const order = mx.argsort(mx.random.uniform(0, 1, a.shape), 1).index(mx.Slice(), mx.Slice(0, zeros));
  return mx.putAlongAxis(values, order, mx.zeros([rows, zeros], dtype), 1);
};

/** Orthonormal columns from those of a square matrix, given as columns: Gram-Schmidt, each column twice (Giraud et al. 2005), in float64. */
function orthonormalize(columns: Float64Array[]): void {
  columns.forEach((v, k) => {
    for (let pass = 0; pass < 2; pass++) {
      for (let j = 0; j < k; j++) {
        const q = columns[j] as Float64Array;
        const along = v.reduce((s, x, i) => s + x * (q[i] as number), 0);
        for (let i = 0; i < v.length; i++) v[i] = (v[i] as number) - along * (q[i] as number);
      }
    }
    const length = Math.sqrt(v.reduce((s, x) => s + x * x, 0));
    for (let i = 0; i < v.length; i++) v[i] = (v[i] as number) / length;
  });
}
/**
 * Random matrix with orthonormal rows or columns (whichever are fewer), times gain (Saxe et al. 2014). Computed on the calling thread in n^3 steps for n the larger
 * dimension. Throws unless the argument is a matrix.
 */
export const orthogonal = (gain = 1, dtype: Dtype = mx.float32): Initializer => (a) => {
  if (a.ndim !== 2) throw new Error(`[init.orthogonal] needs a matrix, got shape (${a.shape})`);
  const [rows, columns] = a.shape as [number, number];
  const n = Math.max(rows, columns);
  const draw = mx.reshape(mx.random.normal([n, n]), [n * n]).toTypedArray() as Float32Array;
  const basis = Array.from({ length: n }, (_, i) => Float64Array.from(draw.subarray(i * n, (i + 1) * n)));
  orthonormalize(basis);
  const values = Float32Array.from({ length: rows * columns }, (_, i) => gain * ((basis[i % columns] as Float64Array)[Math.floor(i / columns)] as number));
  return mx.reshape(mx.array(values), [rows, columns]).astype(dtype);
};
