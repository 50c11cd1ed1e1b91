/** Samples of src/ops/fft.ts. */
import { bfloat16, float64, int32 } from "../../src/core/dtype.ts";
import type * as fft from "../../src/ops/fft.ts";
import { type Sample, tensor } from "../helpers/check.ts";
import { complexArray } from "./complex.ts";

/**
 * The rounding error of a float32 transform is about 6e-8 sqrt(log2 n) of the results' root mean square, sqrt(n) times that of the data (1.2 per part here), in
 * the mean; 5 times that for the worst of many elements, and 3 times more through a convolution.
 */
const within = (n: number, scale = 1): { rtol: number; atol: number } => ({ rtol: 0, atol: 1.5e-6 * 1.7 * Math.sqrt(n) * scale });

/** Every radix alone and mixed, generic radices, primes beyond them (convolution), edges of the splits at 256 and 4096. */
const lengths = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 16, 20, 25, 27, 29, 30, 31, 32, 35, 37, 49, 60, 64, 74, 77, 97, 100, 128, 210, 243, 255, 256, 257, 331, 360, 512, 1000, 1009, 1024, 2310];
const long = [4096, 4097, 5000, 6561, 8192, 15625, 65536, 3 * 4096 + 1];

const complexLines = (): Sample[] => [
  ...lengths.map((n): Sample => ({ name: `length ${n}`, args: [complexArray([n])], tolerance: within(n) })),
  ...long.map((n): Sample => ({ name: `length ${n}`, args: [complexArray([n])], tolerance: within(n) })),
  ...[3, 4, 5, 6, 9].map((lines): Sample => ({ name: `${lines} lines of 60`, args: [complexArray([lines, 60])], tolerance: within(60) })),
  ...[7, 37, 256, 300].map((n): Sample => ({ name: `7 lines of ${n}`, args: [complexArray([7, n])], tolerance: within(n) })),
  { name: "5 lines of 4096", args: [complexArray([5, 4096])], tolerance: within(4096) },
  { name: "5 lines of 4100", args: [complexArray([5, 4100])], tolerance: within(4100) },
  { name: "first axis", args: [complexArray([12, 5]), undefined, 0], tolerance: within(12) },
  { name: "middle axis", args: [complexArray([3, 10, 7]), undefined, 1], tolerance: within(10) },
  { name: "middle axis, convolution", args: [complexArray([3, 37, 7]), undefined, 1], tolerance: within(37) },
  { name: "first axis, split", args: [complexArray([512, 2]), undefined, 0], tolerance: within(512) },
  { name: "cut", args: [complexArray([3, 20]), 15], tolerance: within(15) },
  { name: "filled", args: [complexArray([3, 20]), 32, -1], tolerance: within(32) },
  { name: "filled to a prime", args: [complexArray([3, 20]), 41], tolerance: within(41) },
  ...(["transposed", "sliced", "reversed"] as const).map((layout): Sample => ({ name: layout, args: [complexArray([6, 10], { layout })], tolerance: within(10) })),
  ...["backward", "ortho", "forward"].map((norm): Sample => ({ name: norm, args: [complexArray([4, 24]), undefined, -1, norm], tolerance: within(24) })),
  { name: "real", args: [tensor([5, 24])], tolerance: within(24) },
  { name: "real, split", args: [tensor([1000])], tolerance: within(1000) },
  { name: "real, convolution", args: [tensor([2, 43])], tolerance: within(43) },
  ...[int32, bfloat16, float64].map((dtype): Sample => ({ name: `${dtype}`, args: [tensor([3, 16], { dtype })], tolerance: within(16, 3) })),
  { name: "no lines", args: [complexArray([0, 8])] },
];
/** n real samples; those of the inverse are the lengths of its result. */
const realLines = (): Sample[] => [
  ...[...lengths, 4096, 5000, 8191].map((n): Sample => ({ name: `length ${n}`, args: [tensor([n])], tolerance: within(n) })),
  ...[5, 8, 300].map((n): Sample => ({ name: `6 lines of ${n}`, args: [tensor([6, n])], tolerance: within(n) })),
  { name: "first axis", args: [tensor([12, 5]), undefined, 0], tolerance: within(12) },
  { name: "first axis, split", args: [tensor([512, 2]), undefined, 0], tolerance: within(512) },
  { name: "cut", args: [tensor([3, 20]), 15], tolerance: within(15) },
  { name: "filled", args: [tensor([3, 20]), 33], tolerance: within(33) },
  { name: "ortho", args: [tensor([3, 20]), 20, 1, "ortho"], tolerance: within(20) },
  { name: "imaginary parts are dropped", args: [complexArray([3, 8])], tolerance: within(8) },
];
const hermitianLines = (): Sample[] => [
  ...[...lengths, 4096, 5000, 8191].map((n): Sample => ({ name: `length ${n}`, args: [complexArray([Math.floor(n / 2) + 1]), n], tolerance: within(n, 2 / n) })),
  ...[5, 8, 300].map((n): Sample => ({ name: `6 lines of ${n}`, args: [complexArray([6, n])], tolerance: within(2 * n) })),
  { name: "first axis", args: [complexArray([12, 5]), undefined, 0], tolerance: within(22) },
  { name: "first axis, split", args: [complexArray([257, 2]), undefined, 0], tolerance: within(512) },
  { name: "cut", args: [complexArray([3, 20]), 15], tolerance: within(15) },
  { name: "filled", args: [complexArray([3, 5]), 33], tolerance: within(33) },
  { name: "forward", args: [complexArray([3, 11]), 20, 1, "forward"], tolerance: within(20) },
  { name: "real", args: [tensor([3, 9])], tolerance: within(16) },
];
const many = (make: (shape: number[]) => unknown): Sample[] => [
  { args: [make([4, 6])] }, { args: [make([3, 5, 7])] }, { args: [make([2, 8, 8])], name: "cube" },
  { args: [make([3, 6, 7]), [4, 8]], name: "sizes" }, { args: [make([3, 6, 7]), [8, 4], [0, 2]], name: "sizes and axes" },
  { args: [make([3, 6, 7]), undefined, [1, 0]], name: "axes in another order" }, { args: [make([5, 6]), undefined, [0, 1], "ortho"], name: "ortho" },
  { args: [make([5, 6]), undefined, [0, 1], "forward"], name: "forward" }, { args: [make([37, 41])], name: "primes" }, { args: [make([64, 300])], name: "larger" },
].map((s) => ({ ...s, tolerance: within(64 * 300) }));
const shifts: Sample[] = [{ args: [tensor([7])] }, { args: [tensor([4, 5])] }, { args: [tensor([4, 5]), [1]] }, { args: [complexArray([3, 4]), [-2]] }];

export const samples: Record<keyof typeof fft, Sample[]> = {
  fft: complexLines(), ifft: complexLines(), rfft: realLines(), irfft: hermitianLines(),
  fft2: many((shape) => complexArray(shape)), ifft2: many((shape) => complexArray(shape)), fftn: many((shape) => complexArray(shape)), ifftn: many((shape) => tensor(shape)),
  rfft2: many((shape) => tensor(shape)), rfftn: many((shape) => tensor(shape)), irfft2: many((shape) => complexArray(shape)), irfftn: many((shape) => complexArray(shape)),
  fftshift: shifts, ifftshift: shifts,
  fftfreq: [{ args: [1] }, { args: [8] }, { args: [9, 0.1] }, { args: [6, -2] }], rfftfreq: [{ args: [1] }, { args: [8] }, { args: [9, 0.1] }],
};
