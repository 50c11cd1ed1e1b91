/**
 * Launches of the GPU by what they depend on: the op, its parameters, and the dtypes, shapes and strides of its operands. The layers of a model ask for the same few
 * dozen launches over and over; choosing the kernel and describing its work takes longer than handing it over. What gates and launches read beside their arguments are
 * flags and the device, so a table is thrown away when one of them changes.
 */
import type { View } from "../core/array.ts";
import { type FlagName, env, environmentOf, flags } from "../core/env.ts";
import type { GpuDevice, GpuKernel, GpuLaunch } from "../core/gpu.ts";
import type { InputLayout, Node } from "../core/op.ts";
import { closedKernels } from "./gate.ts";
import { type Tuned, tuneChanges } from "./tune.ts";

/** The kernel that runs an op, in the layouts that it wants, and its work. */
export interface Known {
  readonly kernel: GpuKernel;
  /** What was measured led to it. */
  readonly tuned: Tuned | undefined;
  readonly layouts: readonly InputLayout[] | undefined;
  readonly launch: GpuLaunch;
  /** Kernels that refused before it, for reports. */
  readonly refused: readonly string[];
}
/** An op applied to operands. */
export type Call = Pick<Node, "op" | "params" | "inputs" | "outputs">;

interface Entry {
  readonly params: object;
  /** Of each operand: number of dimensions, dtype's number, offset, dimensions, strides. */
  readonly form: readonly number[];
  readonly known: Known;
}

/** Entries of one op and one hash of operands: parameters alone may differ (the places of slices), and then old ones make room. */
const mostAlike = 8;
const mostEntries = 4096;

/** Counts of launches found and made; for tests. */
export const launchCounters = { found: 0, made: 0 };

const dtypeNumbers = new Map<string, number>();
function dtypeNumber(name: string): number {
  const known = dtypeNumbers.get(name);
  if (known !== undefined) return known;
  dtypeNumbers.set(name, dtypeNumbers.size);
  return dtypeNumbers.size - 1;
}

/** Everything about a view that a gate or a launch can see, at the end of `form`. */
function describe(v: View, form: number[]): void {
  const { shape, strides } = v;
  form.push(shape.length, dtypeNumber(v.dtype.name), v.offset);
  for (let i = 0; i < shape.length; i++) form.push(shape[i] as number, strides[i] as number);
}
function formOf({ inputs, outputs }: Call): number[] {
  const form: number[] = [];
  for (let i = 0; i < inputs.length; i++) describe(inputs[i] as View, form);
  for (let i = 0; i < outputs.length; i++) describe(outputs[i] as View, form);
  return form;
}
function hashOf(form: readonly number[]): number {
  let h = 0;
  for (let i = 0; i < form.length; i++) h = (Math.imul(h, 31) + (form[i] as number)) | 0;
  return h;
}
function sameForm(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

const isPlain = (x: object): boolean => Array.isArray(x) || Object.getPrototypeOf(x) === Object.prototype;
/** Equal numbers, strings and plain objects of them; anything else must be the same object. */
function sameParams(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null || !isPlain(a) || !isPlain(b)) return false;
  const [x, y] = [a as Record<string, unknown>, b as Record<string, unknown>];
  // Ops make their parameters with the same keys in the same order; an order that differs is only a launch that is made twice.
  const [keys, others] = [Object.keys(x), Object.keys(y)];
  return keys.length === others.length && keys.every((key, i) => key === others[i] && sameParams(x[key], y[key]));
}

const names = (Object.keys(flags) as FlagName[]).filter((f) => f.startsWith("MLX_VK_") || f === "MLX_DISABLE" || f === "MLX_FORCE" || f === "MLX_TUNE");
/** What gates and launches read beside their arguments. */
const surroundings = (): string => `${closedKernels.size}|${tuneChanges.count}|${environmentOf(names)}`;

/** Launches of one device under one setting of the flags. */
export class Launches {
  /** By the list of an op's kernels, then by the hash of the operands. */
  private readonly tables = new Map<object, Map<number, Entry[]>>();
  private readonly surroundings: string;
  private entries = 0;

  private constructor(around: string) {
    this.surroundings = around;
  }
  private static readonly byDevice = new WeakMap<GpuDevice, Launches>();
  /** The launches that hold now; undefined with MLX_VK_KNOWN_LAUNCHES=0. Asked for once per evaluation, since reading the flags takes as long as several launches. */
  static of(device: GpuDevice): Launches | undefined {
    if (!env("MLX_VK_KNOWN_LAUNCHES")) return undefined;
    const around = surroundings();
    let found = Launches.byDevice.get(device);
    if (found?.surroundings !== around) Launches.byDevice.set(device, (found = new Launches(around)));
    return found;
  }

  find(call: Call): Known | undefined {
    const form = formOf(call);
    const alike = this.tables.get(call.op.gpu ?? call.op)?.get(hashOf(form));
    if (!alike) return undefined;
    for (const e of alike) {
      if (!sameForm(e.form, form) || !sameParams(e.params, call.params)) continue;
      launchCounters.found++;
      return e.known;
    }
    return undefined;
  }
  /** Keeps a launch; the outputs must not have been placed since `find`. */
  add(call: Call, known: Known): void {
    if (this.entries >= mostEntries) {
      this.tables.clear();
      this.entries = 0;
    }
    launchCounters.made++;
    const form = formOf(call);
    const hash = hashOf(form);
    const key = call.op.gpu ?? call.op;
    const table = this.tables.get(key) ?? new Map<number, Entry[]>();
    this.tables.set(key, table);
    const alike = table.get(hash) ?? [];
    table.set(hash, alike);
    alike.push({ params: call.params, form, known });
    if (alike.length > mostAlike) alike.shift();
    else this.entries++;
  }
}
