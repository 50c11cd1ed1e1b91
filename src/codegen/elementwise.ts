/**
 * Plans the launch of a fused elementwise group: merges dimensions, chooses how each operand is read, cuts the work into units. The
 * kernel depends only on structure (expression, dtypes, access), never on sizes or addresses; its bytes are made when first asked for.
 *
 * In place: an output may lie over an input of the same element size when that input is row-major contiguous over the group's shape,
 * because each block reads all inputs before it writes. Inputs that are broadcast or strided must not be overwritten.
 */
import type { Dtype } from "../core/dtype.ts";
import type { Expr, Value } from "../core/expr.ts";
import { type Arg, type GeneratedKernel, type Launch, type Pointer, input, output } from "../core/op.ts";
import { type Access, emitKernel, weigh } from "./kernel.ts";
import { type Stored, lower } from "./lower.ts";
import { isRelaxed } from "./wasm.ts";

export interface GroupInput {
  readonly dtype: Dtype;
  /** In elements, one per dimension of the group's shape; 0 = broadcast. May be negative. */
  readonly strides: readonly number[];
}
export interface Group {
  /** Iteration space: the shape of every output. Outputs are row-major contiguous. */
  readonly shape: readonly number[];
  readonly inputs: readonly GroupInput[];
  readonly outputs: readonly { readonly dtype: Dtype; readonly value: Value }[];
  /** The builder that holds the values. */
  readonly expr: Expr;
}

/** One thread should work this long on what it takes at a time. */
const grainNanoseconds = 20000;
const flatChunk = 1024;
const rowChunk = 4096;

/** Describes the launch of one kernel for the group; `input(i)` and `output(i)` count the group's operands in order. */
export function elementwiseLaunch(group: Group): Launch {
  const { inputs, outputs } = group;
  const space = mergeDimensions(group.shape, inputs);
  const outer = Math.max(0, space.dims.length - 1);
  const size = space.dims[0] ?? 1;
  const access = accessOf(space, inputs.length);
  const structure = structureOf(group, access, outer);

  const chunk = outer === 0 ? flatChunk : Math.min(size, rowChunk);
  const chunks = Math.ceil(size / chunk);
  let rows = 1;
  for (let d = 1; d <= outer; d++) rows *= space.dims[d] as number;
  const args: Arg[] = [];
  for (let i = 0; i < inputs.length; i++) args.push(pointer(inputPointers, input, i));
  for (let i = 0; i < outputs.length; i++) args.push(pointer(outputPointers, output, i));
  args.push(size, chunk);
  if (outer > 0) args.push(chunks);
  for (let i = 0; i < inputs.length; i++) if (access[i] === "gather") args.push(bytesOf(space, inputs, i, 0));
  for (let d = outer - 1; d >= 1; d--) args.push(space.dims[d] as number);
  for (let i = 0; i < inputs.length; i++) {
    if (access[i] === "once") continue;
    for (let d = outer; d >= 1; d--) args.push(bytesOf(space, inputs, i, d));
  }
  const perUnit = structure.nanoseconds * chunk + (outer > 0 ? 10 * outer : 0);
  const grain = Math.max(1, Math.round(grainNanoseconds / perUnit));
  return { steps: [{ entry: structure.kernel, args, units: size === 0 ? 0 : rows * chunks, grain }] };
}

const inputPointers: Pointer[] = [];
const outputPointers: Pointer[] = [];
function pointer(cache: Pointer[], make: (i: number) => Pointer, i: number): Pointer {
  let p = cache[i];
  if (!p) {
    p = make(i);
    cache[i] = p;
  }
  return p;
}

/** Merged dimensions, innermost first, and the strides of all inputs: `strides[d * inputs + i]`. */
export interface Space {
  readonly dims: readonly number[];
  readonly strides: readonly number[];
}
export function mergeDimensions(shape: readonly number[], inputs: readonly GroupInput[]): Space {
  const n = inputs.length;
  const dims: number[] = [];
  const strides: number[] = [];
  for (let d = 0; d < shape.length; d++) if (shape[d] === 0) return { dims: [0], strides: new Array<number>(n).fill(1) };
  for (let d = shape.length - 1; d >= 0; d--) {
    const dim = shape[d] as number;
    if (dim === 1) continue;
    const g = dims.length - 1;
    if (g >= 0 && continues(inputs, strides, g * n, dims[g] as number, d)) {
      dims[g] = (dims[g] as number) * dim;
      continue;
    }
    dims.push(dim);
    for (let i = 0; i < n; i++) strides.push((inputs[i] as GroupInput).strides[d] as number);
  }
  return { dims, strides };
}
/** True when dimension d goes on, for all inputs, where the merged dimension of `size` elements ends. */
function continues(inputs: readonly GroupInput[], strides: readonly number[], at: number, size: number, d: number): boolean {
  for (let i = 0; i < inputs.length; i++) if ((inputs[i] as GroupInput).strides[d] !== (strides[at + i] as number) * size) return false;
  return true;
}
const bytesOf = (space: Space, inputs: readonly GroupInput[], i: number, d: number): number => (space.strides[d * inputs.length + i] as number) * (inputs[i] as GroupInput).dtype.size;

function accessOf(space: Space, n: number): Access[] {
  const access = new Array<Access>(n).fill("unit");
  for (let i = 0; i < n && space.dims.length > 0; i++) {
    const inner = space.strides[i] as number;
    if (inner === 1) continue;
    if (inner !== 0) access[i] = "gather";
    else {
      access[i] = "once";
      for (let d = 1; d < space.dims.length; d++) if (space.strides[d * n + i] !== 0) access[i] = "row";
    }
  }
  return access;
}

interface Structure {
  readonly kernel: GeneratedKernel;
  /** Estimated time per element. */
  readonly nanoseconds: number;
}
const structures = new Map<string, Structure>();
const structureLimit = 4096;
const letter: Record<Access, string> = { unit: "u", row: "r", once: "o", gather: "g" };

function structureOf(group: Group, access: readonly Access[], outer: number): Structure {
  let key = "";
  for (const o of group.outputs) key += `${o.value.id}.${o.dtype.code},`;
  for (const a of access) key += letter[a];
  key += outer;
  if (isRelaxed()) key += "~";
  const known = structures.get(key);
  if (known) return known;
  if (structures.size >= structureLimit) structures.clear();
  const made = makeStructure(`elementwise/${key}`, group, access, outer);
  structures.set(key, made);
  return made;
}

function makeStructure(key: string, group: Group, access: readonly Access[], outer: number): Structure {
  let lowered: Stored[] | undefined = lower(group.outputs);
  const inputBytes = group.inputs.map((x) => x.dtype.size);
  // Measured on Zen 5: an instruction on four elements takes 0.1 ns, a byte from or to memory 0.01 ns.
  let bytes = 0;
  access.forEach((m, i) => {
    if (m === "unit" || m === "gather") bytes += (inputBytes[i] as number) * (m === "gather" ? 4 : 1);
  });
  for (const o of lowered) bytes += o.bytes;
  const nanoseconds = 0.025 * weigh(lowered) + 0.01 * bytes;
  let module: Uint8Array | undefined;
  const kernel: GeneratedKernel = {
    key,
    bytes: () => {
      if (!module) {
        module = emitKernel({ outputs: lowered as Stored[], access, inputBytes, outer });
        lowered = undefined;
      }
      return module;
    },
  };
  return { kernel, nanoseconds };
}
