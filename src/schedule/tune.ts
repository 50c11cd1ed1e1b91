/**
 * Choices that were measured on this machine: which of the kernels that could run an op is fastest for work of about this size, and with which parameters. A choice only
 * changes the order in which gates are asked: a kernel that can not take the arguments is never run, and without a choice everything is as the op's record has it.
 * Measuring is in tune-search.ts, the file in tune-file.ts.
 */
import type { View } from "../core/array.ts";
import type { DeviceType } from "../core/device.ts";
import type { GpuDevice, GpuKernel } from "../core/gpu.ts";
import type { Choices, Kernel, Op } from "../core/op.ts";
import { type Switches, check, checkGpu, route, routeGpu } from "./gate.ts";
import { type Entries, type Entry, type Identity, fileOf, identityOf, readTuned, writeTuned } from "./tune-file.ts";

export interface Tuned {
  readonly kernel: string;
  readonly values?: Choices;
}
/** A kernel, and the choice that led to it, if one did. */
export interface Routed<K> {
  readonly kernel: K;
  readonly tuned: Tuned | undefined;
}

// ---- buckets

/** Sizes near each other count as one: up to 4 each its own, up to 24 in steps of half an octave, then of an octave. */
export function rounded(n: number): number {
  if (n <= 4) return n;
  const step = n <= 24 ? 0.5 : 1;
  return Math.round(2 ** (Math.round(Math.log2(n) / step) * step));
}
/** How an operand lies: row-major, with the last two dimensions turned, or otherwise. */
function layoutOf({ contiguous, shape, strides }: View): string {
  if (contiguous) return "";
  const last = shape.length - 1;
  return shape[last] === 1 || strides[last] === 1 ? "s" : last > 0 && strides[last - 1] === 1 ? "t" : "x";
}
/** Parameters that kernels depend on: words, truth values and whole numbers; not scales and the like. */
function settingsOf(x: unknown): string {
  if (typeof x === "string" || typeof x === "boolean") return String(x);
  if (typeof x === "number") return Number.isInteger(x) ? String(x) : "";
  if (Array.isArray(x)) return `(${x.map(settingsOf).join(",")})`;
  if (typeof x !== "object" || x === null) return "";
  return Object.keys(x).sort().map((k) => `${k}=${settingsOf((x as Record<string, unknown>)[k])}`).join(",");
}
/** Key of work that one choice serves: op, dtypes, rounded sizes, layouts and settings. */
export const bucketOf = (op: Op, inputs: readonly View[], params: object): string =>
  `${op.name} ${inputs.map((v) => `${v.dtype.name}[${v.shape.map(rounded).join(",")}]${layoutOf(v)}`).join(" ")} ${settingsOf(params)}`;

// ---- what is known

/** Grows with each change of what was chosen: launches that were described before may be others now. */
export const tuneChanges = { count: 0 };

/** Choices of a device. */
class Table {
  readonly identity: Identity;
  readonly file: string | undefined;
  readonly entries: Entries;
  /** Ops with a choice that differs from what runs anyway. */
  readonly names = new Set<string>();
  constructor(device: DeviceType) {
    this.identity = identityOf(device);
    this.file = fileOf(this.identity);
    this.entries = readTuned(this.file, this.identity, device);
    for (const [bucket, e] of this.entries) this.index(bucket, e);
  }
  private index(bucket: string, { kernel }: Entry): void {
    if (kernel !== undefined) this.names.add(bucket.slice(0, bucket.indexOf(" ")));
  }
  set(bucket: string, entry: Entry): void {
    tuneChanges.count++;
    this.entries.set(bucket, entry);
    this.index(bucket, entry);
  }
  save(): boolean {
    return writeTuned(this.file, this.identity, this.entries);
  }
}
const tables = new Map<DeviceType, Table>();
/** Choices of a device, read from its file when first asked for. */
export function tableOf(device: DeviceType): Table {
  let table = tables.get(device);
  if (!table) {
    table = new Table(device);
    tables.set(device, table);
  }
  return table;
}
/** The files are read again when next asked for. */
export const forgetTuned = (): void => {
  tuneChanges.count++;
  tables.clear();
};

/** Stands in for the tables; for tests. */
export type Override = (device: DeviceType, op: Op, inputs: readonly View[]) => Tuned | undefined;
let override: Override | undefined;
export const overrideTuned = (f: Override | undefined): void => {
  tuneChanges.count++;
  override = f;
};

function tunedFor(device: DeviceType, op: Op, inputs: readonly View[], params: object, switches: Switches): Tuned | undefined {
  if (override) return override(device, op, inputs);
  if (switches.tune === "0") return undefined;
  const table = tableOf(device);
  if (!table.names.has(op.name)) return undefined;
  const entry = table.entries.get(bucketOf(op, inputs, params));
  return entry?.kernel === undefined ? undefined : (entry as Tuned);
}
/** A choice that turned out not to work: it counts no more in this process. */
export function dropTuned(tuned: Tuned): void {
  tuneChanges.count++;
  for (const { entries } of tables.values()) for (const [bucket, e] of entries) if (e === tuned) entries.set(bucket, { ratio: 1, ms: e.ms });
}
export const tunedText = ({ values }: Tuned): string => `tuned${Object.entries(values ?? {}).map(([n, v]) => ` ${n}=${v}`).join("")}`;

// ---- routes

/** First of the kernels that a measured choice or their order names, and whose gate opens; refusals go to `refused`. */
export function routeTuned<P extends object>(op: Op<P>, inputs: readonly View[], params: P, outputs: readonly View[], switches: Switches, refused: string[]): Routed<Kernel<P>> | undefined {
  const tuned = tunedFor("cpu", op as unknown as Op, inputs, params, switches);
  const wanted = tuned && op.kernels.find((k) => k.name === tuned.kernel);
  if (wanted && check(wanted, inputs, params, outputs, switches, true).open) return { kernel: wanted, tuned };
  const kernel = route(op, inputs, params, outputs, switches, refused);
  return kernel && { kernel, tuned: undefined };
}
export function routeTunedGpu<P extends object>(op: Op<P>, inputs: readonly View[], params: P, outputs: readonly View[], switches: Switches, device: GpuDevice, refused: string[]): Routed<GpuKernel<P>> | undefined {
  const tuned = tunedFor("gpu", op as unknown as Op, inputs, params, switches);
  const wanted = tuned && op.gpu?.find((k) => k.name === tuned.kernel);
  if (wanted && checkGpu(wanted, inputs, params, outputs, switches, device, true).open) return { kernel: wanted, tuned };
  const kernel = routeGpu(op, inputs, params, outputs, switches, device, refused);
  return kernel && { kernel, tuned: undefined };
}
