/** Small calls of the public functions, one per name, for the table of what there is. A function without an entry here is called with one, then with two matrices. */
import { core as mx } from "../../src/index.ts";

type A = mx.MxArray;
export interface Probe {
  /** The dtype that is tried. */
  readonly d: mx.Dtype;
  /** An array of ones of that dtype, which counts as an input. */
  a(...shape: number[]): A;
}
type Call = (p: Probe) => unknown;

const ints = (...list: number[]): A => mx.array(list, mx.int32);
const floats = (...shape: number[]): A => mx.ones(shape);
const shift = { a: (p: Probe): A[] => [p.a(4, 4), p.a(4, 4)] };
const packed = (mode?: "mxfp8"): A[] => {
  const parts = mx.quantize(floats(4, 64), undefined, undefined, mode) as A[];
  mx.eval(parts);
  return parts;
};
const bytes = (): A => mx.array(new Uint8Array(4));
const convolution = (dims: number): Call => (p) => (mx[`conv${dims}d` as "conv1d"] as (x: A, w: A) => A)(p.a(1, ...new Array<number>(dims).fill(4), 2), p.a(3, ...new Array<number>(dims).fill(2), 2));
const transposed = (dims: number): Call => (p) => (mx[`convTranspose${dims}d` as "convTranspose1d"] as (x: A, w: A) => A)(p.a(1, ...new Array<number>(dims).fill(4), 2), p.a(3, ...new Array<number>(dims).fill(2), 2));

/** Not an array goes in or comes out, or a file is written: nothing is known of kernels and dtypes. */
const plain = (names: string): Record<string, "plain"> => Object.fromEntries(names.split(" ").map((n) => [n, "plain" as const]));

export const probes: Readonly<Record<string, Readonly<Record<string, Call | "plain">>>> = {
  "mlx.core": {
    ...plain("broadcastShapes canCast einsumPath isdtype issubdtype load resultType save saveGGUF saveSafetensors savez savezCompressed"),
    addmm: (p) => mx.addmm(p.a(4), p.a(2, 3), p.a(3, 4)), arange: ({ d }) => mx.arange(3, d), argpartition: (p) => mx.argpartition(p.a(4), 2), asarray: (p) => mx.asarray(p.a(4)), astype: (p) => mx.astype(p.a(4), p.d === mx.int8 ? mx.int16 : mx.int8),
    atleast1d: (p) => mx.atleast1d(p.a()), atleast2d: (p) => mx.atleast2d(p.a()), squeeze: (p) => mx.squeeze(p.a(1, 4)),
    emptyLike: ({ d }) => mx.emptyLike(mx.zeros([3], d)), fullLike: ({ d }) => mx.fullLike(mx.zeros([3], d), 2), onesLike: ({ d }) => mx.onesLike(mx.zeros([3], d)), zerosLike: ({ d }) => mx.zerosLike(mx.zeros([3], d)),
    bartlett: () => mx.bartlett(5), blackman: () => mx.blackman(5), hamming: () => mx.hamming(5), hanning: () => mx.hanning(5),
    blockMaskedMM: (p) => mx.blockMaskedMM(p.a(32, 32), p.a(32, 32), 32, mx.ones([1, 1], mx.bool)), broadcastArrays: (p) => mx.broadcastArrays([p.a(2, 1), p.a(3)]), broadcastTo: (p) => mx.broadcastTo(p.a(1), [4]),
    clip: (p) => mx.clip(p.a(4), p.a(1), null), concat: (p) => mx.concat([p.a(2), p.a(3)]), concatenate: (p) => mx.concatenate([p.a(2), p.a(3)]),
    conv1d: convolution(1), conv2d: convolution(2), conv3d: convolution(3), convTranspose1d: transposed(1), convTranspose2d: transposed(2), convTranspose3d: transposed(3),
    convGeneral: (p) => mx.convGeneral(p.a(1, 4, 4, 2), p.a(3, 2, 2, 2)), convolve: (p) => mx.convolve(p.a(5), p.a(3)), depends: (p) => mx.depends(p.a(2), p.a(3)),
    dequantize: (p) => mx.dequantize(packed()[0] as A, p.a(4, 1), p.a(4, 1)),
    einsum: (p) => mx.einsum("ij,jk->ik", [p.a(2, 3), p.a(3, 4)]), empty: ({ d }) => mx.empty([3], d), expandDims: (p) => mx.expandDims(p.a(4), 0), eye: ({ d }) => mx.eye(3, 3, 0, d), flip: (p) => mx.flip(p.a(2, 3)),
    fromFp8: ({ d }) => mx.fromFp8(bytes(), d), toFp8: (p) => mx.toFp8(p.a(4)), full: ({ d }) => mx.full([3], 2, d), gatherMM: (p) => mx.gatherMM(p.a(2, 3, 4), p.a(2, 4, 5), null, ints(1, 0)),
    gatherQMM: (p) => mx.gatherQMM(p.a(2, 1, 64), ...(packed().map((x) => mx.expandDims(x, 0)) as [A, A, A]), ints(0, 1), ints(0, 0)),
    gatherQQMM: (p) => mx.gatherQQMM(p.a(2, 1, 64), ...(packed("mxfp8").map((x) => mx.expandDims(x, 0)) as [A, A]), ints(0, 1), ints(0, 0), null, null, "mxfp8"),
    identity: ({ d }) => mx.identity(3, d), leftShift: (p) => mx.leftShift(...(shift.a(p) as [A, A])), linspace: ({ d }) => mx.linspace(0, 1, 3, d), meshgrid: (p) => mx.meshgrid(p.a(2), p.a(3)), moveaxis: (p) => mx.moveaxis(p.a(2, 3), 0, 1),
    ones: ({ d }) => mx.ones([3], d), pad: (p) => mx.pad(p.a(3), 1), partition: (p) => mx.partition(p.a(4), 2), putAlongAxis: (p) => mx.putAlongAxis(p.a(2, 3), mx.zeros([2, 1], mx.int32), p.a(2, 1), 1),
    qqmm: (p) => mx.qqmm(p.a(2, 64), ...(packed("mxfp8") as [A, A]), null, null, "mxfp8"), quantize: (p) => mx.quantize(p.a(4, 64)), quantizedMatmul: (p) => mx.quantizedMatmul(p.a(2, 64), ...(packed() as [A, A, A])),
    reshape: (p) => mx.reshape(p.a(2, 3), [3, 2]), rightShift: (p) => mx.rightShift(...(shift.a(p) as [A, A])), roll: (p) => mx.roll(p.a(4), 1), searchsorted: (p) => mx.searchsorted(p.a(4), p.a(2)),
    segmentedMM: (p) => mx.segmentedMM(p.a(3, 4), p.a(4, 5), mx.array([[0, 2], [2, 4]], mx.uint32)), slice: (p) => mx.slice(p.a(4), ints(1), [0], [2]), sliceUpdate: (p) => mx.sliceUpdate(p.a(4), p.a(2), ints(1), [0]),
    stack: (p) => mx.stack([p.a(2), p.a(2)]), split: (p) => mx.split(p.a(4), 2), swapaxes: (p) => mx.swapaxes(p.a(2, 3), 0, 1), take: (p) => mx.take(p.a(4), ints(1, 2)), takeAlongAxis: (p) => mx.takeAlongAxis(p.a(2, 3), mx.zeros([2, 1], mx.int32), 1),
    tile: (p) => mx.tile(p.a(2), 2), topk: (p) => mx.topk(p.a(4), 2), tri: ({ d }) => mx.tri(3, 3, 0, d), unflatten: (p) => mx.unflatten(p.a(4), 0, [2, 2]), view: (p) => mx.view(p.a(4), mx.uint8), where: (p) => mx.where(mx.ones([4], mx.bool), p.a(4), p.a(4)),
    zeros: ({ d }) => mx.zeros([3], d),
  },
  random: {
    ...plain("key seed state"), bernoulli: () => mx.random.bernoulli(0.5, [4]), categorical: (p) => mx.random.categorical(p.a(2, 4)), gumbel: ({ d }) => mx.random.gumbel([4], d), laplace: ({ d }) => mx.random.laplace([4], d), normal: ({ d }) => mx.random.normal([4], d),
    multivariateNormal: ({ d }) => mx.random.multivariateNormal(mx.zeros([2]), mx.eye(2), [3], d), permutation: (p) => mx.random.permutation(p.a(4)), randint: ({ d }) => mx.random.randint(0, 5, [4], d), split: () => mx.random.split(mx.random.key(0)),
    truncatedNormal: ({ d }) => mx.random.truncatedNormal(-1, 1, [4], d), uniform: ({ d }) => mx.random.uniform(0, 1, [4], d),
  },
  linalg: {
    cross: (p) => mx.linalg.cross(p.a(2, 3), p.a(2, 3)), cholesky: (p) => mx.linalg.cholesky(p.a(3, 3)),
  },
  fft: {
    fftfreq: () => mx.fft.fftfreq(5), rfftfreq: () => mx.fft.rfftfreq(5),
  },
  fast: {
    layerNorm: (p) => mx.fast.layerNorm(p.a(2, 4), p.a(4), p.a(4), 1e-5), rmsNorm: (p) => mx.fast.rmsNorm(p.a(2, 4), p.a(4), 1e-5), rope: (p) => mx.fast.rope(p.a(1, 1, 2, 4), 4, false, 10000, 1, 0),
    scaledDotProductAttention: (p) => mx.fast.scaledDotProductAttention(p.a(1, 1, 2, 4), p.a(1, 1, 3, 4), p.a(1, 1, 3, 4), 1),
  },
};
