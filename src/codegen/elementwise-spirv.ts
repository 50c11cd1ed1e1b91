/**
 * Fused elementwise groups as SPIR-V: the same expressions and lowering as codegen/elementwise.ts, one element per invocation. Operands
 * are device addresses in the push constants, so that a kernel depends only on structure: expression, dtypes, access, number of dimensions.
 *
 * Results are those of the WebAssembly kernels, bit for bit, except where the device's own arithmetic differs: division and square root
 * (up to 3 ulp on devices that do not round them correctly) and subnormal float32 numbers (which a device may flush to zero).
 */
import { type Dtype, int16, int8 } from "../core/dtype.ts";
import { opError } from "../core/error.ts";
import { type Value, reachable } from "../core/expr.ts";
import { type Group, type Space, mergeDimensions } from "./elementwise.ts";
import { emitScalar, typeId } from "./lanes-spirv.ts";
import { type Stored, lower } from "./lower.ts";
import { type Id, SpirvModule, builtIn, decoration, spv, storageClass } from "./spirv.ts";

/** What the device offers; by the names of Vulkan's features. */
export interface SpirvFeatures {
  readonly shaderInt64: boolean;
  readonly shaderFloat64: boolean;
  readonly shaderInt8: boolean;
  readonly shaderInt16: boolean;
  readonly storageBuffer8BitAccess: boolean;
  readonly storageBuffer16BitAccess: boolean;
  readonly signedZeroInfNanPreserveFloat32: boolean;
  readonly signedZeroInfNanPreserveFloat64: boolean;
}

/** A word of the push constants: a number, or half of an operand's address. */
export type PushWord = number | { readonly of: "input" | "output"; readonly index: number; readonly high: boolean };

export interface SpirvKernel {
  /** Equal for equal code. */
  readonly key: string;
  readonly pushBytes: number;
  /** The module; made when first asked for. */
  readonly code: () => Uint32Array;
}
export interface SpirvLaunch {
  readonly kernel: SpirvKernel;
  readonly push: readonly PushWord[];
  /** Workgroups in x, y, z; a zero means nothing is to be done. */
  readonly groups: readonly [number, number, number];
}

/** How an input lies in the group's space: `flat` row-major contiguous, `once` one value, `strided` anything else. */
type Access = "flat" | "once" | "strided";
const letter: Record<Access, string> = { flat: "f", once: "o", strided: "s" };

const groupSize = 256;
const pushLimit = 128;
const groupLimit = 65535;

/**
 * The launch of one kernel for the group, or the reason why there is none ("cannot: ..."). Addresses are those of the first element
 * (stride offsets may be negative).
 */
export function elementwiseSpirv(group: Group, features: SpirvFeatures): SpirvLaunch | string {
  const { inputs, outputs } = group;
  let size = 1;
  for (const d of group.shape) size *= d;
  if (size >= 2 ** 31) return `cannot: ${size} elements are more than a kernel can count`;
  const space = mergeDimensions(group.shape, inputs);
  const access = accessOf(space, inputs.length);
  const strided = access.includes("strided");
  const dims = strided ? space.dims.length : 0;
  const push: PushWord[] = [];
  for (let i = 0; i < inputs.length; i++) push.push({ of: "input", index: i, high: false }, { of: "input", index: i, high: true });
  for (let i = 0; i < outputs.length; i++) push.push({ of: "output", index: i, high: false }, { of: "output", index: i, high: true });
  push.push(size);
  for (let d = 0; d < dims - 1; d++) push.push(space.dims[d] as number);
  for (let i = 0; i < inputs.length; i++) {
    if (access[i] !== "strided") continue;
    for (let d = 0; d < dims; d++) {
      const stride = space.strides[d * inputs.length + i] as number;
      if (Math.abs(stride * ((space.dims[d] as number) - 1)) >= 2 ** 31) return "cannot: a stride goes further than a kernel can count";
      push.push(stride >>> 0);
    }
  }
  if (4 * push.length > pushLimit)
    return `cannot: ${inputs.length + outputs.length} operands in ${dims} dimensions need ${4 * push.length} bytes of push constants, ${pushLimit} are portable`;
  const kernel = kernelOf(group, access, dims, 4 * push.length, features);
  if (typeof kernel === "string") return kernel;
  const groups = Math.ceil(size / groupSize);
  const x = Math.min(groups, groupLimit);
  return { kernel, push, groups: [x, x === 0 ? 0 : Math.ceil(groups / x), 1] };
}

function accessOf(space: Space, n: number): Access[] {
  const access = new Array<Access>(n).fill("flat");
  for (let i = 0; i < n; i++) {
    let step = 1;
    let once = space.dims.length > 0;
    for (let d = 0; d < space.dims.length; d++) {
      const stride = space.strides[d * n + i];
      if (stride !== step) access[i] = "strided";
      if (stride !== 0) once = false;
      step *= space.dims[d] as number;
    }
    if (once) access[i] = "once";
  }
  return access;
}

const kernels = new Map<string, SpirvKernel | string>();
const kernelLimit = 4096;

function kernelOf(group: Group, access: readonly Access[], dims: number, pushBytes: number, features: SpirvFeatures): SpirvKernel | string {
  let key = "";
  for (const o of group.outputs) key += `${o.value.id}.${o.dtype.code},`;
  for (const a of access) key += letter[a];
  key += `${dims}${features.signedZeroInfNanPreserveFloat32 ? "n" : ""}${features.signedZeroInfNanPreserveFloat64 ? "N" : ""}`;
  const known = kernels.get(key);
  if (known !== undefined) return known;
  if (kernels.size >= kernelLimit) kernels.clear();
  const plan: Plan = { outputs: lower(group.outputs, { division32: true, subnormals: false }), inputs: group.inputs.map((x) => x.dtype), access, dims, features };
  const refusal = refuse(plan);
  let code: Uint32Array | undefined;
  const made = refusal ?? {
    key: `elementwise/${key}`,
    pushBytes,
    code: () => {
      code ??= new Emitter(plan).emit();
      return code;
    },
  };
  kernels.set(key, made);
  return made;
}

interface Plan {
  readonly outputs: readonly Stored[];
  readonly inputs: readonly Dtype[];
  readonly access: readonly Access[];
  readonly dims: number;
  readonly features: SpirvFeatures;
}

/** Why the device cannot run it, or undefined. */
function refuse(plan: Plan): string | undefined {
  const types = new Set(reachable(plan.outputs.map((o) => o.value)).map((v) => v.type));
  const sizes = new Set([...plan.inputs.map((d) => d.size), ...plan.outputs.map((o) => o.bytes)]);
  const { features } = plan;
  if (types.has("f64") && !features.shaderFloat64) return "cannot: the device has no float64";
  if ((types.has("i64") || types.has("u64")) && !features.shaderInt64) return "cannot: the device has no int64";
  if (sizes.has(1) && !(features.shaderInt8 && features.storageBuffer8BitAccess)) return "cannot: the device cannot address 8-bit elements";
  if (sizes.has(2) && !(features.shaderInt16 && features.storageBuffer16BitAccess)) return "cannot: the device cannot address 16-bit elements";
  return undefined;
}

class Emitter {
  private readonly m = new SpirvModule();
  private readonly plan: Plan;
  private readonly order: readonly Value[];
  private readonly pushBlock: Id;
  private readonly push: Id;

  constructor(plan: Plan) {
    this.plan = plan;
    this.order = reachable(plan.outputs.map((o) => o.value));
    const { m } = this;
    const operands = plan.inputs.length + plan.outputs.length;
    const strided = plan.access.filter((a) => a === "strided").length;
    const words = 1 + Math.max(0, plan.dims - 1) + strided * plan.dims;
    // Addresses as pairs of words: pointers to small elements in push constants would want more features of the device.
    const members = [...new Array<Id>(operands).fill(m.vector(m.int(32), 2)), ...new Array<Id>(words).fill(m.int(32))];
    const offsets = members.map((_, i) => (i < operands ? 8 * i : 8 * operands + 4 * (i - operands)));
    this.pushBlock = m.block(members, offsets);
    this.push = m.variable(storageClass.pushConstant, this.pushBlock);
  }

  emit(): Uint32Array {
    const { m, plan } = this;
    const { features } = plan;
    const types = new Set(this.order.map((v) => v.type));
    if (types.has("f32") && features.signedZeroInfNanPreserveFloat32) m.preserve(32);
    if (types.has("f64") && features.signedZeroInfNanPreserveFloat64) m.preserve(64);
    const u32 = m.int(32);
    const vector = m.vector(u32, 3);
    const invocation = m.variable(storageClass.input, vector);
    const groups = m.variable(storageClass.input, vector);
    m.decorate(invocation, decoration.builtIn, builtIn.globalInvocationId);
    m.decorate(groups, decoration.builtIn, builtIn.numWorkgroups);
    return m.finish([groupSize, 1, 1], () => {
      const id = m.op(spv.load, vector, invocation);
      const rows = m.op(spv.load, vector, groups);
      const width = m.op(spv.iMul, u32, m.op(spv.compositeExtract, u32, rows, 0), m.u32(groupSize));
      const above = m.op(spv.iMul, u32, m.op(spv.compositeExtract, u32, id, 1), width);
      const index = m.op(spv.iAdd, u32, m.op(spv.compositeExtract, u32, id, 0), above);
      const inside = m.op(spv.uLessThan, m.bool(), index, this.word(0));
      const [body, end] = [m.id(), m.id()];
      m.emit(spv.selectionMerge, end, 0);
      m.emit(spv.branchConditional, inside, body, end);
      m.label(body);
      this.emitElement(index);
      m.emit(spv.branch, end);
      m.label(end);
    });
  }

  private pointerType(bytes: number, isFloat: boolean): Id {
    return this.m.arrayPointer(this.elementType(bytes, isFloat), bytes);
  }
  private elementType(bytes: number, isFloat: boolean): Id {
    if (isFloat) return this.m.float(bytes === 8 ? 64 : 32);
    return this.m.int((8 * bytes) as 8 | 16 | 32 | 64);
  }
  /** Member of the push constants. */
  private member(index: number, type: Id): Id {
    const { m } = this;
    return m.op(spv.load, type, m.op(spv.accessChain, m.pointer(storageClass.pushConstant, type), this.push, m.u32(index)));
  }
  private word(index: number): Id {
    return this.member(this.plan.inputs.length + this.plan.outputs.length + index, this.m.int(32));
  }

  private emitElement(index: Id): void {
    const { m, plan } = this;
    const positions = this.positions(index);
    const ids = new Map<Value, Id>();
    for (const v of this.order) {
      if (v.op === "input") ids.set(v, this.emitInput(v, positions[Number(v.imm)] as Id));
      else
        ids.set(
          v,
          emitScalar(
            m,
            v,
            v.args.map((a) => ids.get(a) as Id),
          ),
        );
    }
    plan.outputs.forEach((o, j) => {
      const isFloat = floatOf(o.value);
      const element = this.elementType(o.bytes, isFloat);
      const value = ids.get(o.value) as Id;
      const stored = o.bytes < 4 ? m.op(spv.uConvert, element, value) : value;
      m.emit(spv.store, this.elementPointer(plan.inputs.length + j, o.bytes, isFloat, index), stored, 2, o.bytes);
    });
  }

  /** Index of the element of each input. */
  private positions(index: Id): Id[] {
    const { m, plan } = this;
    const u32 = m.int(32);
    const coordinates: Id[] = [];
    for (let d = 0, rest = index; d < plan.dims; d++) {
      if (d === plan.dims - 1) coordinates.push(rest);
      else {
        const size = this.word(1 + d);
        const quotient = m.op(spv.uDiv, u32, rest, size);
        coordinates.push(m.op(spv.iSub, u32, rest, m.op(spv.iMul, u32, quotient, size)));
        rest = quotient;
      }
    }
    let at = 1 + Math.max(0, plan.dims - 1);
    return plan.access.map((a) => {
      if (a === "flat") return index;
      if (a === "once") return m.u32(0);
      const first = at;
      at += plan.dims;
      return coordinates.map((c, d) => m.op(spv.iMul, u32, c, this.word(first + d))).reduce((x, y) => m.op(spv.iAdd, u32, x, y));
    });
  }

  private elementPointer(operand: number, bytes: number, isFloat: boolean, index: Id): Id {
    const { m } = this;
    const base = m.op(spv.bitcast, this.pointerType(bytes, isFloat), this.member(operand, m.vector(m.int(32), 2)));
    return m.op(spv.accessChain, m.pointer(storageClass.physicalStorageBuffer, this.elementType(bytes, isFloat)), base, m.u32(0), index);
  }
  /** An element in its compute type; small integers are widened. */
  private emitInput(v: Value, index: Id): Id {
    const { m, plan } = this;
    const k = Number(v.imm);
    const declared = plan.inputs[k] as Dtype;
    const isFloat = dtypeFloat(declared);
    const loaded = m.op(spv.load, this.elementType(declared.size, isFloat), this.elementPointer(k, declared.size, isFloat, index), 2, declared.size);
    const dtype = v.dtype as Dtype;
    if (dtype.size >= 4) return loaded;
    return m.op(dtype === int8 || dtype === int16 ? spv.sConvert : spv.uConvert, typeId(m, v.type), loaded);
  }
}

/** float32 and float64 are loaded and stored as such; every other element as an integer. */
const dtypeFloat = (d: Dtype): boolean => d.isFloat && d.size >= 4;
const floatOf = (v: Value): boolean => v.type === "f32" || v.type === "f64";

/** The push constants with the addresses of the operands (low and high word of each) put in. */
export function pushWords(launch: SpirvLaunch, inputs: readonly { low: number; high: number }[], outputs: readonly { low: number; high: number }[]): number[] {
  return launch.push.map((w) => {
    if (typeof w === "number") return w;
    const operand = (w.of === "input" ? inputs : outputs)[w.index];
    if (!operand) throw opError("elementwise", `no ${w.of} ${w.index}`);
    return w.high ? operand.high : operand.low;
  });
}
