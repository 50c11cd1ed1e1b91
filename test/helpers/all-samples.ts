/** The samples of every family with the public function that they call. */
import { core as mx } from "../../src/index.ts";
import type { Sample } from "./check.ts";
import { samples as binary } from "../samples/binary.ts";
import { samples as cast } from "../samples/cast.ts";
import { samples as compare } from "../samples/compare.ts";
import { complexBinary, complexUnary } from "../samples/complex.ts";
import { samples as concat } from "../samples/concat.ts";
import { samples as conv } from "../samples/conv.ts";
import { samples as creation } from "../samples/creation.ts";
import { samples as fast } from "../samples/fast.ts";
import { samples as fft } from "../samples/fft.ts";
import { samples as indexing } from "../samples/indexing.ts";
import { linalgSamples } from "../samples/linalg.ts";
import { samples as matmul } from "../samples/matmul.ts";
import { samples as movement } from "../samples/movement.ts";
import { samples as pad } from "../samples/pad.ts";
import { quantizedSamples } from "../samples/quantized.ts";
import { fp8Samples, qqmmSamples } from "../samples/quantized-modes.ts";
import { randomSamples } from "../samples/random.ts";
import { argreduceSamples, reduceSamples } from "../samples/reduce.ts";
import { scanSamples } from "../samples/scan.ts";
import { samples as select } from "../samples/select.ts";
import { samples as slice } from "../samples/slice.ts";
import { softmaxSamples } from "../samples/softmax.ts";
import { sortSamples } from "../samples/sort.ts";
import { samples as unary } from "../samples/unary.ts";

export interface Sampled {
  /** Public name, e.g. `fft.rfft`. */
  readonly name: string;
  readonly f: (...args: unknown[]) => unknown;
  readonly samples: readonly Sample[];
}
type Family = Readonly<Record<string, readonly Sample[]>>;
const of = (prefix: string, space: object, ...families: readonly Family[]): Sampled[] =>
  families.flatMap((family) => Object.entries(family).map(([name, samples]) => ({ name: prefix + name, f: (space as Record<string, Sampled["f"]>)[name] as Sampled["f"], samples })));
const complex: Family = {
  ...Object.fromEntries(["real", "imag", "conjugate", "exp", "abs"].map((name) => [name, complexUnary()])),
  ...Object.fromEntries(["multiply", "divide", "less"].map((name) => [name, complexBinary()])),
};

export const everySample: readonly Sampled[] = [
  ...of("", mx, unary, binary, compare, select, cast, complex, movement, slice, concat, pad, creation, indexing, reduceSamples, argreduceSamples, scanSamples, softmaxSamples, sortSamples, matmul, conv, quantizedSamples, fp8Samples, qqmmSamples),
  ...of("fft.", mx.fft, fft),
  ...of("linalg.", mx.linalg, linalgSamples),
  ...of("random.", mx.random, randomSamples),
  ...of("fast.", mx.fast, fast),
];
